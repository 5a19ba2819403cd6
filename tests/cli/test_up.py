"""`keydesk up`, as real processes on free ports, with a small demo."""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import ROOT, answers, free_port, wait_until
from toolkit import environment
from toolkit.admin import organisations, sign_in_throttle
from toolkit.admin.sign_in import open_session
from toolkit.cli import first_start, parts, supervisor
from toolkit.core.errors import Conflict, Unavailable
from toolkit.core.settings import Settings
from toolkit.demo import data
from toolkit.store.actor import SYSTEM
from toolkit.workspace import Workspace

PORTS = ("KEYDESK_GATEWAY_PORT", "KEYDESK_DASHBOARD_PORT", "KEYDESK_DEMO_PORT")
CALLS = "200"
START = 90.0


@dataclass(frozen=True)
class Site:
    """A data folder with free ports, and what `keydesk up` says there."""

    env: dict[str, str]
    output: Path

    @property
    def data(self) -> Path:
        return Path(self.env["KEYDESK_DATA_DIR"])

    @property
    def said(self) -> str:
        return self.output.read_text()

    def url(self, port: str, path: str) -> str:
        return f"http://127.0.0.1:{self.env[port]}{path}"

    def settings(self) -> Settings:
        return environment.read_settings(self.env)

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start `keydesk up` and return at once."""
        command = [sys.executable, "-m", "toolkit.cli", "up", *arguments]
        with self.output.open("wb") as output:
            return subprocess.Popen(
                command, env=os.environ | self.env, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
            )

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Run `keydesk up` while the block lasts; it has greeted when the block begins."""
        process = self.start(*arguments)
        try:
            wait_until(lambda: process.poll() is not None or self.greeted(), "the greeting", START)
            assert process.poll() is None, self.said
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait(30)

    def greeted(self) -> bool:
        return "Ctrl-C stops everything" in self.said or '"dashboard"' in self.said

    def processes(self) -> list[int]:
        """Return the ids of the processes that belong to this site: those with its data folder in their environment."""
        mark = f"KEYDESK_DATA_DIR={self.data}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    def open_ports(self) -> list[str]:
        return [name for name in PORTS if _listens(int(self.env[name]))]


def pasted(curl: str) -> bytes:
    """Do what a shell and curl would do with a command of the first start, on a machine that may have no curl."""
    words = [word for word in shlex.split(curl) if word.strip()]
    assert words[0] == "curl"
    options = list(zip(words[2::2], words[3::2], strict=True))
    headers = dict(value.split(": ", 1) for option, value in options if option == "-H")
    (body,) = (value for option, value in options if option == "-d")
    with urllib.request.urlopen(urllib.request.Request(words[1], body.encode(), headers), timeout=20) as response:
        content: bytes = response.read()
        return content


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def make_site(folder: Path) -> Site:
    """Choose a data folder and ports."""
    env = {name: str(free_port()) for name in PORTS}
    env |= {"KEYDESK_DATA_DIR": str(folder / "data"), "KEYDESK_TEST_DEMO_CALLS": CALLS}
    return Site(env, folder / "output")


def supervise(settings: Settings, **environment: str) -> supervisor.Supervisor:
    """Return the supervisor that `keydesk up` makes."""
    return supervisor.Supervisor(settings, parts.parts(settings), environment)


def check(settings: Settings) -> None:
    """Look whether all can start, as `keydesk up` does."""
    supervisor.check(settings, parts.parts(settings))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site where nothing was started yet."""
    return make_site(tmp_path)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site whose first start is over, and which is stopped."""
    site = make_site(tmp_path_factory.mktemp("started"))
    with site.running():
        pass
    return site


needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")


@pytest.mark.world
@needs_proc
def test_first_start_gives_all_that_is_needed_and_stops_without_a_trace(site: Site) -> None:
    """Addresses are printed, sign-in and curl are in a private file and work, and Ctrl-C leaves nothing behind."""
    with site.running() as process:
        said = site.said
        assert f"http://127.0.0.1:{site.env['KEYDESK_DASHBOARD_PORT']}" in said
        assert f"http://127.0.0.1:{site.env['KEYDESK_GATEWAY_PORT']}" in said
        for port, path in zip(PORTS, ("/healthz", "/_stcore/health", "/demo/calls"), strict=True):
            assert answers(site.url(port, path))

        private = site.data / "first-start.txt"
        assert str(private) in said
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
        welcome = private.read_text()
        (password,) = re.findall(r"Password +(\S+)", welcome)
        (secret,) = re.findall(r"sk-\w+", welcome)
        assert password not in said
        assert secret not in said

        workspace = Workspace.open(site.settings())
        assert open_session(workspace.store, first_start.ADMIN, password, "test")
        (curl,) = re.findall(r"^curl .*", welcome, re.MULTILINE | re.DOTALL)
        answer = json.loads(pasted(curl))
        assert answer["choices"][0]["message"]["content"]
        wait_until(lambda: workspace.ledger.lag()[0] == 0, "the drain")
        assert len(workspace.ledger.sql("SELECT * FROM usage WHERE key = 'first-steps'")) == 1
        workspace.close()

        for log in (site.data / "logs").iterdir():
            assert secret not in log.read_text()
        assert len(site.processes()) >= 5
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert "Traceback" not in site.said
    assert site.open_ports() == []
    assert site.processes() == []


@pytest.mark.world
@needs_proc
def test_later_start_shows_no_password_and_ends_on_sigterm(started: Site) -> None:
    """A second start says how to reset the password, makes no second admin, and obeys SIGTERM."""
    before = (started.data / "first-start.txt").read_bytes()
    with started.running() as process:
        assert "keydesk operators reset-password admin@keydesk.local" in started.said
        assert "Demo data" not in started.said
        process.terminate()
        assert process.wait(20) == 0
    assert (started.data / "first-start.txt").read_bytes() == before
    assert started.processes() == []


@pytest.mark.world
def test_json_names_the_addresses(started: Site) -> None:
    """With --json the one thing written is an object with the addresses."""
    with started.running("--json"):
        facts = json.loads(started.said)
    assert facts["gateway"] == f"http://127.0.0.1:{started.env['KEYDESK_GATEWAY_PORT']}"
    assert facts["first_start"] is None


@pytest.mark.world
def test_a_gateway_that_cannot_start_ends_it_all(site: Site) -> None:
    """Its name is said, with the end of its log, and no other process goes on."""
    settings = site.settings()
    site.data.mkdir(mode=0o700)
    with supervise(settings, KEYDESK_LEASE="none") as running, pytest.raises(Unavailable) as ended:
        running.start(lambda _name: None, lambda _line: None)
    assert "The gateway ended by itself" in str(ended.value)
    assert "KEYDESK_LEASE='none' is not a number" in str(ended.value)
    assert "gateway.log" in str(ended.value)
    assert site.processes() == []


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A Keydesk that runs on through the tests that kill its parts: with credentials, an odd path, locale and umask."""
    folder = tmp_path_factory.mktemp("kept") / "Schlüssel"
    folder.mkdir()
    site = make_site(folder)
    secrets = folder / "secrets"
    secrets.write_text("FILED_CREDENTIAL=from-the-file\n")
    site.env.update(
        LC_ALL="C",
        OPENAI_API_KEY="of-openai",
        DEMO_UPSTREAM_API_KEY="of-the-demo",
        FILED_CREDENTIAL="also-set",
        KEYDESK_SECRETS_FILE=str(secrets),
        KEYDESK_ALERTS_SECRETS_FILE=str(folder / "mail-secrets"),
        KEYDESK_PUBLIC_URL="https://llm.example.com/keydesk/",
        KEYDESK_DASHBOARD_URL="https://workspace.example.com, http://127.0.0.1:1",
    )
    before = os.umask(0)
    try:
        with site.running():
            os.umask(before)
            yield site
    finally:
        os.umask(before)
    assert "Traceback" not in site.said


def part(site: Site, arguments: str) -> int:
    """Return the id of the process that runs `keydesk ARGUMENTS` for a site, -1 while there is none."""
    found = [pid for pid in site.processes() if _command(pid).endswith(f"toolkit.cli {arguments}")]
    return found[0] if found else -1


def running(site: Site, arguments: str) -> bool:
    """Whether a process runs `keydesk ARGUMENTS` for a site."""
    return part(site, arguments) > 0


def kill(site: Site, arguments: str) -> int:
    """Kill the process that runs `keydesk ARGUMENTS` for a site; return its id."""
    wait_until(partial(running, site, arguments), f"the {arguments}", START)
    pid = part(site, arguments)
    os.kill(pid, signal.SIGKILL)
    return pid


@pytest.mark.world
@needs_proc
def test_calls_go_on_when_other_parts_are_killed(kept: Site) -> None:
    """The kernel may take dashboard and drain at any moment: a stream under way ends as it should."""
    welcome = (kept.data / "first-start.txt").read_text()
    (secret,) = re.findall(r"sk-\w+", welcome)
    ask = {"role": "user", "content": "Hello [[demo tokens=40 chunk_delay=0.05]]"}
    request = urllib.request.Request(
        kept.url("KEYDESK_GATEWAY_PORT", "/v1/chat/completions"),
        json.dumps({"model": "gpt-5-mini", "stream": True, "messages": [ask]}).encode(),
        {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"},
    )
    gateway = part(kept, "gateway")
    with urllib.request.urlopen(request, timeout=60) as stream:
        assert stream.readline().startswith(b"data: ")
        dashboard, drain = kill(kept, "dashboard"), kill(kept, "ledger sync --follow")
        wait_until(lambda: not {dashboard, drain} & set(kept.processes()), "the two to be gone", START)
        assert stream.read().rstrip().endswith(b"data: [DONE]")
    wait_until(lambda: part(kept, "dashboard") not in {-1, dashboard}, "another dashboard", START)
    wait_until(lambda: part(kept, "ledger sync --follow") not in {-1, drain}, "another drain", START)
    wait_until(lambda: answers(kept.url("KEYDESK_DASHBOARD_PORT", "/_stcore/health")), "the dashboard", START)
    wait_until(lambda: "The dashboard answers again." in kept.said, "the line that says so", START)
    for name in ("dashboard", "ledger drain"):
        assert f"The {name} ended by itself (exit code -9), and is started again in 1 s." in kept.said
    assert part(kept, "gateway") == gateway


@pytest.mark.world
@needs_proc
def test_a_gateway_that_dies_later_is_started_again(kept: Site) -> None:
    """It is there again, and so is the end of what the one before printed."""
    gateway = kill(kept, "gateway")
    wait_until(lambda: part(kept, "gateway") not in {-1, gateway}, "another gateway", START)
    wait_until(lambda: "The gateway answers again." in kept.said, "its answer", START)
    assert answers(kept.url("KEYDESK_GATEWAY_PORT", "/healthz"))
    assert (kept.data / "logs" / "gateway.log").read_text().count("UTC: the gateway starts") == 2


@pytest.mark.world
@needs_proc
def test_only_the_gateway_has_credentials_of_upstreams(kept: Site) -> None:
    """Neither variables that upstreams name or may name, nor where the secrets file is, reach the other parts.

    Where passwords of mail servers are reaches the one that sends mail alone.
    """
    withheld = {"OPENAI_API_KEY", "DEMO_UPSTREAM_API_KEY", "FILED_CREDENTIAL", "KEYDESK_SECRETS_FILE"}
    of_mail = "KEYDESK_ALERTS_SECRETS_FILE"
    for arguments in ("gateway", "dashboard", "ledger sync --follow", "demo", "alerts run"):
        wait_until(partial(running, kept, arguments), f"the {arguments}", START)
        variables = Path(f"/proc/{part(kept, arguments)}/environ").read_bytes().split(b"\0")
        names = {variable.partition(b"=")[0].decode() for variable in variables}
        assert names & withheld == (withheld if arguments == "gateway" else set()), arguments
        assert (of_mail in names) is (arguments == "alerts run"), arguments


@pytest.mark.world
def test_sign_ins_over_a_socket_count_for_its_own_address(kept: Site) -> None:
    """The dashboard's server believes no header from this machine either: the ninth wrong password has to wait."""
    form = b"email=admin%40keydesk.local&password=wrong+horse+battery"
    told = []
    for number in range(sign_in_throttle.PAIR.tries + 1):
        headers = {"X-Forwarded-For": f"198.51.100.{number}", "Sec-Fetch-Site": "same-origin"}
        request = urllib.request.Request(kept.url("KEYDESK_DASHBOARD_PORT", "/auth/sign-in"), form, headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        told.append(refused.value.read().decode())
        refused.value.close()
    assert ["Too many failed tries" in page for page in told] == [False] * sign_in_throttle.PAIR.tries + [True]


@pytest.mark.world
def test_what_runs_is_private_whatever_the_umask(kept: Site) -> None:
    """Folders and files of a first start are for one user alone."""
    found = {}
    for path in (kept.data, *kept.data.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # the drain is at work
            found[path] = path.stat().st_mode
    assert len(found) > 10
    wanted = {True: 0o700, False: 0o600}
    assert {path for path, mode in found.items() if stat.S_IMODE(mode) != wanted[stat.S_ISDIR(mode)]} == set()


@pytest.mark.world
def test_greetings_show_the_addresses_that_others_see(kept: Site) -> None:
    """The settings' addresses stand in the greeting and in the first call, in place of this machine's own."""
    assert "Dashboard   https://workspace.example.com\n" in kept.said
    assert "Gateway     https://llm.example.com/keydesk\n" in kept.said
    assert "curl https://llm.example.com/keydesk/v1/chat/completions" in (kept.data / "first-start.txt").read_text()


@pytest.mark.world
@needs_proc
def test_commands_work_in_any_locale(kept: Site) -> None:
    """A path that the C locale cannot spell is none that stops a command."""
    for arguments in (["keys", "list"], ["ledger", "status"], ["reconcile"]):
        command = [sys.executable, "-m", "toolkit.cli", *arguments]
        ran = subprocess.run(
            command, env=os.environ | kept.env, capture_output=True, cwd=ROOT, timeout=100, check=False
        )
        assert ran.returncode == 0, ran.stderr


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


@pytest.mark.world
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux alone")
def test_a_killed_supervisor_leaves_no_orphans(started: Site) -> None:
    """After kill -9 of the supervisor its processes end as well."""
    with started.running() as process:
        process.kill()
        process.wait(60)
        wait_until(lambda: not started.processes(), "the processes to end", 30)
    assert started.open_ports() == []


@needs_proc
@pytest.mark.parametrize("name", [PORTS[0], *(pytest.param(port, marks=pytest.mark.world) for port in PORTS[1:])])
def test_a_port_in_use_stops_the_start(site: Site, name: str) -> None:
    """The port and the setting that moves it are named, and nothing was started or made."""
    with socket.create_server(("127.0.0.1", int(site.env[name]))):
        process = site.start()
        assert process.wait(30) == 1
    assert f"Port {site.env[name]} " in site.said
    assert f"{name}=" in site.said
    assert "Traceback" not in site.said
    assert not site.data.exists()
    assert site.processes() == []


def test_ports_must_differ(site: Site) -> None:
    """Two parts on one port are told apart before anything starts."""
    site.env["KEYDESK_DASHBOARD_PORT"] = site.env["KEYDESK_GATEWAY_PORT"]
    with pytest.raises(Conflict, match="gateway and dashboard share port"):
        check(site.settings())


def test_a_second_start_says_that_keydesk_runs_already(site: Site) -> None:
    """Whoever starts twice reads that, not that the first one's ports are in use; a lock left over is no lock."""
    settings = site.settings()
    busy = socket.create_server(("127.0.0.1", settings.gateway_port))
    with busy, supervise(settings), pytest.raises(Conflict, match=r"is running on .* already"):
        check(settings)
    check(settings)


def test_one_supervisor_for_a_data_folder(site: Site) -> None:
    """A second supervisor on the same data is refused until the first has ended."""
    settings = site.settings()
    first = supervise(settings)
    with pytest.raises(Conflict, match="KEYDESK_DATA_DIR"):
        supervise(settings)
    with first:
        pass
    with supervise(settings):
        pass


# -- the first start, in process ----------------------------------------------------------------------------------


class Interrupted(Exception):
    """Stands for Ctrl-C in the middle of loading."""


def test_an_interrupted_first_start_is_finished_by_the_next(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half-loaded demo data is completed, and only then is there an admin."""
    monkeypatch.setenv("KEYDESK_TEST_DEMO_CALLS", CALLS)

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        data.load(workspace, interrupt, calls=int(CALLS))
    assert first_start.is_due(workspace)
    first_start.prepare(workspace, quiet=False)
    assert "calls of 90 days" in capsys.readouterr().out
    assert data.is_loaded(workspace)
    assert first_start.is_due(workspace)
    welcome = first_start.finish(workspace, "http://127.0.0.1:8080")
    assert not first_start.is_due(workspace)
    assert open_session(workspace.store, welcome.email, welcome.password, "test")
    first_start.prepare(workspace, quiet=False)
    assert capsys.readouterr().out == ""


def test_a_store_set_up_by_hand_gets_no_demo_data(workspace: Workspace) -> None:
    """Whoever added an organisation of their own does not find three strange ones beside it."""
    with workspace.write() as tx:
        organisations.add(tx, "Mine")
    first_start.prepare(workspace, quiet=True)
    with workspace.store.read(SYSTEM) as tx:
        assert [org.name for org in organisations.list_all(tx)] == ["Mine"]
    assert first_start.finish(workspace, "http://127.0.0.1:8080").curl is None


def test_a_welcome_hides_its_secrets() -> None:
    """Neither password nor key is in the repr that a log might hold."""
    welcome = first_start.Welcome("a@b.c", "the password", "curl sk-secret")
    assert "password" not in repr(welcome).replace("password=", "")
    assert "sk-" not in repr(welcome)


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "http://127.0.0.1:1"), ("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://127.0.0.1:1")],
)
def test_addresses_can_be_opened(host: str, address: str) -> None:
    """Where a server listens everywhere, the address printed is one that a browser can open."""
    assert parts.url(host, 1) == address
