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
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, answers, free_port, wait_until
from toolkit import accounts, sessions, up
from toolkit.cli import first_start
from toolkit.database import SYSTEM
from toolkit.demo import data
from toolkit.desk import Desk
from toolkit.errors import Conflict
from toolkit.settings import Settings

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
        return Settings.from_env(self.env)

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


@needs_proc
@pytest.mark.timeout(240)
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

        desk = Desk.open(site.settings())
        assert sessions.sign_in(desk.store, first_start.ADMIN, password, "test")
        (curl,) = re.findall(r"^curl .*", welcome, re.MULTILINE | re.DOTALL)
        answer = json.loads(pasted(curl))
        assert answer["choices"][0]["message"]["content"]
        wait_until(lambda: desk.ledger.lag()[0] == 0, "the drain")
        assert len(desk.ledger.sql("SELECT * FROM usage WHERE key = 'first-steps'")) == 1
        desk.close()

        for log in (site.data / "logs").iterdir():
            assert secret not in log.read_text()
        assert len(site.processes()) >= 5
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert "Traceback" not in site.said
    assert site.open_ports() == []
    assert site.processes() == []


@needs_proc
@pytest.mark.timeout(240)
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


@pytest.mark.timeout(240)
def test_json_names_the_addresses(started: Site) -> None:
    """With --json the one thing written is an object with the addresses."""
    with started.running("--json"):
        facts = json.loads(started.said)
    assert facts["gateway"] == f"http://127.0.0.1:{started.env['KEYDESK_GATEWAY_PORT']}"
    assert facts["first_start"] is None


@needs_proc
@pytest.mark.timeout(240)
def test_a_part_that_dies_is_named_and_everything_stops(started: Site) -> None:
    """When the gateway ends by itself, its name is said, and no other process goes on."""
    with started.running() as process:
        (gateway,) = (pid for pid in started.processes() if _command(pid).endswith("toolkit.cli gateway"))
        os.kill(gateway, signal.SIGKILL)
        assert process.wait(30) == 1
    assert "The gateway ended by itself" in started.said
    assert "gateway.log" in started.said
    assert "Traceback" not in started.said
    assert started.processes() == []


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux alone")
@pytest.mark.timeout(240)
def test_a_killed_supervisor_leaves_no_orphans(started: Site) -> None:
    """After kill -9 of the supervisor its processes end as well."""
    with started.running() as process:
        process.kill()
        process.wait(10)
        wait_until(lambda: not started.processes(), "the processes to end", 30)
    assert started.open_ports() == []


@needs_proc
@pytest.mark.parametrize("name", PORTS)
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
        up.check(site.settings())


def test_a_second_start_says_that_keydesk_runs_already(site: Site) -> None:
    """Whoever starts twice reads that, not that the first one's ports are in use; a lock left over is no lock."""
    settings = site.settings()
    busy = socket.create_server(("127.0.0.1", settings.gateway_port))
    with busy, up.Supervisor(settings, {}), pytest.raises(Conflict, match=r"is running on .* already"):
        up.check(settings)
    up.check(settings)


def test_one_supervisor_for_a_data_folder(site: Site) -> None:
    """A second supervisor on the same data is refused until the first has ended."""
    settings = site.settings()
    first = up.Supervisor(settings, {})
    with pytest.raises(Conflict, match="KEYDESK_DATA_DIR"):
        up.Supervisor(settings, {})
    with first:
        pass
    with up.Supervisor(settings, {}):
        pass


# -- the first start, in process ----------------------------------------------------------------------------------


class Interrupted(Exception):
    """Stands for Ctrl-C in the middle of loading."""


def test_an_interrupted_first_start_is_finished_by_the_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half-loaded demo data is completed, and only then is there an admin."""
    monkeypatch.setenv("KEYDESK_TEST_DEMO_CALLS", CALLS)

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        data.load(desk, interrupt, calls=int(CALLS))
    assert first_start.is_due(desk)
    first_start.prepare(desk, quiet=False)
    assert "calls of 90 days" in capsys.readouterr().out
    assert data.is_loaded(desk)
    assert first_start.is_due(desk)
    welcome = first_start.finish(desk, "http://127.0.0.1:8080")
    assert not first_start.is_due(desk)
    assert sessions.sign_in(desk.store, welcome.email, welcome.password, "test")
    first_start.prepare(desk, quiet=False)
    assert capsys.readouterr().out == ""


def test_a_store_set_up_by_hand_gets_no_demo_data(desk: Desk) -> None:
    """Whoever added an organisation of their own does not find three strange ones beside it."""
    with desk.write() as tx:
        accounts.add_org(tx, "Mine")
    first_start.prepare(desk, quiet=True)
    with desk.store.read(SYSTEM) as tx:
        assert [org.name for org in accounts.list_orgs(tx)] == ["Mine"]
    assert first_start.finish(desk, "http://127.0.0.1:8080").curl is None


def test_a_welcome_hides_its_secrets() -> None:
    """Neither password nor key is in the repr that a log might hold."""
    welcome = first_start.Welcome("a@b.c", "the password", "curl sk-secret")
    assert "password" not in repr(welcome).replace("password=", "")
    assert "sk-" not in repr(welcome)


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "http://127.0.0.1:1"), ("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1")],
)
def test_addresses_can_be_opened(host: str, address: str) -> None:
    """Where a server listens everywhere, the address printed is one that a browser can open."""
    assert up.url(host, 1) == address
