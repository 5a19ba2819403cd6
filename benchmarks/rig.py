"""The rig of a gateway's benchmark: servers on cores of their own, a load, and what a window of load shows."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import machine, postgres
from benchmarks.load import Order, Report
from benchmarks.upstream import STREAM_CRC, USAGE, WHOLE_CRC
from toolkit import environment
from toolkit.admin import keys, organisations, plans, wallet
from toolkit.admin.models import add_model
from toolkit.admin.upstreams import add_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.money import NANO
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.store.actor import Actor
from toolkit.store.tables import KeyMonth
from toolkit.workspace import Workspace

ROOT = Path(__file__).parent.parent
KEYS = 8
PLENTY = MILLION * NANO
START_WITHIN = 90.0
SHEET = PriceSheet.flat(input=NANO, output=2 * NANO)
COST = (USAGE["prompt_tokens"] + 2 * USAGE["completion_tokens"]) * NANO // MILLION

_SENTENCE = "Compare optimistic with pessimistic locking, give figures where you can, and name your sources. "
_BODY = {
    "model": "bench",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant. " * 12},
        {"role": "user", "content": _SENTENCE * 8},
        {"role": "assistant", "content": "Optimistic locking assumes few conflicts. " * 10},
        {"role": "user", "content": "And what does group commit change? " * 4},
    ],
    "temperature": 0.2,
    "max_tokens": 256,
    "user": "u-123",
}


def request_bytes(body: object, secret: str) -> str:
    """Return a request as an official SDK sends it, as far as its size goes."""
    text = json.dumps(body, separators=(",", ":"))
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: 127.0.0.1",
        "Accept: application/json",
        "User-Agent: OpenAI/Python 3.54.0",
        "Content-Type: application/json",
        f"Authorization: Bearer {secret}",
        f"Content-Length: {len(text)}",
    ]
    return "\r\n".join([*lines, "", text])


def plain_body() -> dict[str, object]:
    """Return the request of a call whose answer comes in one piece."""
    return dict(_BODY)


def stream_body() -> dict[str, object]:
    """Return the request of a streamed call that asks for its usage, so that nothing is added or dropped."""
    return _BODY | {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class Measure:
    """One kind of window.

    Args:
        name: for people.
        callers: at once.
        streams: whether they stream.
        seconds: of a window; those of a quick run after it.
    """

    name: str
    callers: int
    streams: bool
    seconds: tuple[float, float]


ALONE = Measure("1 caller", 1, False, (0.8, 0.3))
FEW = Measure("16 callers", 16, False, (0.8, 0.3))
MANY = Measure("64 callers", 64, False, (2.0, 0.8))
PACED = Measure("32 streams", 32, True, (2.5, 1.0))
MEASURES = (ALONE, FEW, MANY, PACED)


@dataclass(frozen=True)
class Sample:
    """What one window showed: CPU in seconds a call."""

    report: Report
    cpu: float
    store_cpu: float


@dataclass
class Target:
    """A server that is measured.

    Args:
        name: for people.
        port: where it listens.
        pid: whose CPU counts.
        secrets: credentials to call it with.
        workspace: its key store, if it is a Keydesk.
        store_pid: the key store's server, if there is one on this machine.
    """

    name: str
    port: int
    pid: int
    secrets: list[str] = field(default_factory=lambda: ["no-key"])
    workspace: Workspace | None = None
    store_pid: int | None = None
    calls: int = 0
    samples: dict[Measure, list[Sample]] = field(default_factory=dict)

    def requests(self, measure: Measure) -> list[str]:
        """Return what callers send."""
        body = stream_body() if measure.streams else plain_body()
        return [request_bytes(body, secret) for secret in self.secrets]

    def median(self, measure: Measure, figure: Callable[[Sample], float]) -> float:
        """Return a figure's median over the rounds."""
        return median(figure(sample) for sample in self.samples[measure])

    def over(self, other: "Target", measure: Measure, figure: Callable[[Sample], float]) -> list[float]:
        """Return a figure over another target's in the same round, in order of size."""
        pairs = zip(self.samples[measure], other.samples[measure], strict=True)
        return sorted(figure(ours) / figure(theirs) for ours, theirs in pairs)

    def added(self, other: "Target", measure: Measure, figure: Callable[[Sample], float]) -> float:
        """Return by how much a figure exceeds another target's in the same round, as a median."""
        pairs = zip(self.samples[measure], other.samples[measure], strict=True)
        return median(figure(ours) - figure(theirs) for ours, theirs in pairs)


class Rig:
    """Servers and their load: pinned to cores, and stopped at the end.

    Args:
        folder: for the data and logs of all of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.core, self._load_cores = machine.cores()
        self.placement = (
            "Servers share one core; the load and the upstream have the others."
            if self.core != self._load_cores
            else "Servers, load and upstream share one core."
        )
        self._stack = ExitStack()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._starting: list[tuple[int, subprocess.Popen[bytes]]] = []
        self._log = folder / "servers.log"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYDESK_")}
        self._load = self._stack.enter_context(self._running(["-m", "benchmarks.load"], self._load_cores))
        port = free_port()
        upstream = self._serving(["-m", "benchmarks.upstream", "--port", str(port)], port, self._load_cores)
        self.upstream = f"http://127.0.0.1:{port}"
        self.direct = Target("direct", port, upstream)

    def passthrough(self, name: str, kind: str) -> Target:
        """Start a pass-through."""
        port = free_port()
        arguments = ["-m", "benchmarks.passthrough", "--port", str(port), "--kind", kind, "--upstream", self.upstream]
        return Target(name, port, self._serving(arguments, port, self.core))

    def keydesk(
        self,
        name: str,
        store: postgres.Database | None = None,
        *,
        profile: Path | None = None,
        watch: Path | None = None,
    ) -> Target:
        """Set up a Keydesk and start its gateway: as it is, ready to write a profile to a file, or `watched`."""
        folder, port = self.folder / name, free_port()
        variables = {
            "KEYDESK_DATA_DIR": str(folder),
            "KEYDESK_STORE_URL": store.url if store else "",
            "KEYDESK_GATEWAY_PORT": str(port),
            "BENCHMARK_UPSTREAM_API_KEY": "upstream-key",
        }
        settings = {name: value for name, value in variables.items() if name.startswith("KEYDESK_")}
        workspace = Workspace.open(environment.read_settings(settings), Actor.trusted("benchmark"), make=True)
        self._stack.callback(workspace.close)
        secrets = fill(workspace, self.upstream)
        arguments = ["-m", "toolkit.cli", "gateway"]
        if profile:
            arguments = ["-m", "benchmarks.profiled", str(profile)]
        elif watch:
            arguments = ["-m", "benchmarks.watched", str(watch)]
        pid = self._serving(arguments, port, self.core, variables)
        return Target(name, port, pid, secrets, workspace, store.pid if store else None)

    def measure(self, target: Target, measure: Measure, seconds: float) -> Sample:
        """Have one window of load; return what it showed.

        Raises:
            SystemExit: some answer was not what the upstream had sent.
        """
        crc = STREAM_CRC if measure.streams else WHOLE_CRC
        order = Order(target.port, target.requests(measure), measure.callers, seconds, crc)
        cpu, store_cpu = machine.cpu_seconds(target.pid), _cpu(target.store_pid)
        assert self._load.stdin is not None
        assert self._load.stdout is not None
        self._load.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        self._load.stdin.flush()
        report = Report(**json.loads(self._load.stdout.readline()))
        cpu, store_cpu = machine.cpu_seconds(target.pid) - cpu, _cpu(target.store_pid) - store_cpu
        if report.wrong or not report.calls:
            told = self._log.read_text(errors="replace")[-2000:]
            raise SystemExit(f"{target.name}, {measure.name}: {report.wrong} of the answers were wrong.\n{told}")
        target.calls += report.calls
        return Sample(report, cpu / report.calls, store_cpu / report.calls)

    def begin_profile(self, target: Target) -> None:
        """Have a gateway profiled from now on."""
        os.kill(target.pid, signal.SIGUSR1)

    def interrupt(self, target: Target) -> None:
        """Stop a server as Ctrl-C does, and wait until it has ended."""
        os.kill(target.pid, signal.SIGINT)
        self._processes[target.pid].wait(30)

    def wait_ready(self) -> None:
        """Wait until all servers listen: they start side by side.

        Raises:
            SystemExit: one does not.
        """
        give_up = time.monotonic() + START_WITHIN
        for port, process in self._starting:
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > give_up:
                    raise SystemExit(
                        f"{process.args!r} did not start:\n{self._log.read_text(errors='replace')[-2000:]}"
                    )
                time.sleep(0.05)
        self._starting.clear()

    def _serving(
        self, arguments: list[str], port: int, cores: set[int], environment: dict[str, str] | None = None
    ) -> int:
        process = self._stack.enter_context(self._running(arguments, cores, environment))
        self._starting.append((port, process))
        return process.pid

    @contextmanager
    def _running(
        self, arguments: list[str], cores: set[int], environment: dict[str, str] | None = None
    ) -> Iterator["subprocess.Popen[bytes]"]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if arguments[-1] == "benchmarks.load" else log,
                stderr=log,
                env=self._environment | (environment or {}),
                cwd=ROOT,
            )
        self._processes[process.pid] = process
        os.sched_setaffinity(process.pid, cores)
        try:
            yield process
        finally:
            stop(process)

    def close(self) -> None:
        """Stop everything."""
        for process in self._processes.values():
            process.terminate()
        self._stack.close()


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process."""
    if process.stdin:
        process.stdin.close()
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()


def fill(workspace: Workspace, upstream: str) -> list[str]:
    """Fill an empty Keydesk with a model, an organisation with money, and keys with limits; return their secrets."""
    with workspace.write() as tx:
        add_upstream(tx, "upstream", Dialect.OPENAI, f"{upstream}/v1", "BENCHMARK_UPSTREAM_API_KEY")
        add_model(tx, "bench", "upstream", sheet=SHEET, context_window=100_000, max_output=8_192)
        plan = plans.add(tx, "plan", MILLION, ["bench"])
        org = organisations.add(tx, "org")
        wallet.credit(tx, org.id, PLENTY, "once")
        made = [
            keys.create(
                tx, workspace.keyring, org=org.id, name=f"key {number}", plan=plan.id, monthly_limit=PLENTY // 2
            )
            for number in range(KEYS)
        ]
    return [new.secret for new in made]


def drain(workspace: Workspace) -> tuple[int, float]:
    """Drain a Keydesk's outbox in this process; return the rows moved and the CPU in seconds, imports left out."""
    workspace.ledger.sync(limit=1)
    rows, cpu = workspace.ledger.lag()[0], time.process_time()
    moved = workspace.ledger.sync(limit=rows)
    return moved, time.process_time() - cpu


def charged(workspace: Workspace) -> tuple[int, int]:
    """Return the calls that a Keydesk has charged, and their cost in nano-USD."""
    with workspace.read() as tx:
        months = tx.session.query(KeyMonth).all()
        return sum(month.calls for month in months), sum(month.spent for month in months)


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _cpu(pid: int | None) -> float:
    return machine.cpu_seconds(pid) if pid else 0.0
