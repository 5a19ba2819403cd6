"""The processes of a Keydesk, each of them real, and how they are killed."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.stores import children, wait_until
from tests.conftest import CREDENTIAL, ROOT, answers, free_port

START_WITHIN = 90.0
STOP_WITHIN = 30.0
LEASE = 3
"""Seconds: holds of a killed gateway are released soon, so that many runs fit into little time."""


@dataclass
class Process:
    """One process, started again after each kill with the same arguments.

    Args:
        name: for people, and of its log.
        arguments: of Python.
        health: what answers once it is ready; empty if it serves nothing.
    """

    name: str
    arguments: list[str]
    environment: dict[str, str]
    log: Path
    health: str = ""
    _running: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """The process that was started last."""
        assert self._running is not None
        return self._running.pid

    def start(self) -> None:
        """Start it; does not wait."""
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                [sys.executable, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                cwd=ROOT,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until it answers.

        Raises:
            TimeoutError: it does not.
            RuntimeError: it has ended.
        """

        def ready() -> bool:
            if not self.is_alive():
                raise RuntimeError(f"{self.name} ended by itself:\n{self.log.read_text(errors='replace')[-2000:]}")
            return not self.health or answers(self.health)

        wait_until(ready, f"{self.name} to answer", START_WITHIN)

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._running is not None and self._running.poll() is None

    def kill(self) -> None:
        """SIGKILL to it and to all that it has started."""
        assert self._running is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._running.pid, signal.SIGKILL)
        self._running.wait()

    def kill_worker(self) -> None:
        """SIGKILL to one of its workers; the process itself is to start another one."""
        workers = [pid for pid in children(self.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        with contextlib.suppress(ProcessLookupError):
            os.kill(workers[0], signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it in mid-air, as a long pause of its machine would."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.killpg(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it in an orderly way, and by force if that takes too long."""
        if self._running is None:
            return
        if self._running.poll() is None:
            self._running.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._running.wait(STOP_WITHIN)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._running.pid, signal.SIGKILL)  # also what it may have left behind
        self._running.wait()


@dataclass(frozen=True)
class Provider:
    """A further provider: where it is, and which calls reached it."""

    process: Process
    url: str
    journal: Path

    def witnessed(self) -> list[str]:
        """Return the ids of the requests that it has received, in order."""
        return self.journal.read_text().split() if self.journal.exists() else []


@dataclass
class Fleet:
    """A witness, gateways over one store, and what else a Keydesk runs.

    Args:
        folder: of the store's data, the journal and the logs.
        store_url: of the key store.
        lease: seconds.
    """

    folder: Path
    store_url: str
    lease: int = LEASE
    gateways: list[Process] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.environment = {
            "KEYDESK_DATA_DIR": str(self.folder),
            "KEYDESK_STORE_URL": self.store_url,
            "KEYDESK_LEASE": str(self.lease),
            "KEYDESK_SHUTDOWN_GRACE": "3",
            "TEST_UPSTREAM_API_KEY": CREDENTIAL,
        }
        self.witness_port, self.dashboard_port = free_port(), free_port()
        self.witness_journal = self.folder / "witness.log"
        self.witness = self._process(
            "witness",
            ["-m", "tests.chaos.witness", "--port", str(self.witness_port), "--journal", str(self.witness_journal)],
            f"http://127.0.0.1:{self.witness_port}/",
        )
        self.drain = self._keydesk("drain", ["ledger", "sync", "--follow"])
        self.dashboard = self._keydesk("dashboard", ["dashboard"], f"{self.dashboard_url}/_stcore/health")
        self.dashboard.environment["KEYDESK_DASHBOARD_PORT"] = str(self.dashboard_port)

    @property
    def witness_url(self) -> str:
        """Where the witness answers."""
        return f"http://127.0.0.1:{self.witness_port}/v1"

    @property
    def dashboard_url(self) -> str:
        """Where the dashboard answers."""
        return f"http://127.0.0.1:{self.dashboard_port}"

    def add_gateway(self, workers: int = 1) -> None:
        """Add a gateway on a port of its own."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        arguments = ["gateway", "--port", str(port), "--workers", str(workers)]
        self.gateways.append(self._keydesk(f"gateway-{len(self.gateways)}", arguments, f"{url}/healthz"))
        self.urls.append(url)

    def add_liar(self, seed: int) -> Provider:
        """Return a provider that answers as none should."""
        return self._provider("liar", "--seed", str(seed))

    def add_witness(self) -> Provider:
        """Return a second witness."""
        return self._provider("witness")

    def _provider(self, kind: str, *arguments: str) -> Provider:
        name = f"{kind}-2"
        port, journal = free_port(), self.folder / f"{name}.journal"
        where = ["-m", f"tests.chaos.{kind}", "--port", str(port), "--journal", str(journal)]
        url = f"http://127.0.0.1:{port}"
        return Provider(self._process(name, [*where, *arguments], f"{url}/"), url, journal)

    def _keydesk(self, name: str, arguments: list[str], health: str = "") -> Process:
        return self._process(name, ["-m", "toolkit.cli", *arguments], health)

    def _process(self, name: str, arguments: list[str], health: str) -> Process:
        return Process(name, arguments, dict(self.environment), self.folder / f"{name}.log", health)

    @contextlib.contextmanager
    def running(self, *parts: Process) -> Iterator[None]:
        """Run these until the block ends; they answer once it begins."""
        try:
            for part in parts:
                part.start()
            for part in parts:
                part.wait_ready()
            yield
        finally:
            for part in reversed(parts):
                part.stop()

    def witnessed(self) -> list[str]:
        """Return the ids of the requests that the witness has received, in order."""
        return self.witness_journal.read_text().split() if self.witness_journal.exists() else []

    def reconcile(self) -> str:
        """Run `keydesk reconcile`; return what it found wrong, or nothing."""
        done = subprocess.run(
            [sys.executable, "-m", "toolkit.cli", "reconcile"],
            env={**os.environ, **self.environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return "" if done.returncode == 0 else f"keydesk reconcile says {done.returncode}: {done.stdout}{done.stderr}"

    def lost_settlements(self) -> int:
        """Return how many settlements came after their call had been written off, as the gateways' logs say."""
        return sum(
            part.log.read_text(errors="replace").count("lost settlement") for part in self.gateways if part.log.exists()
        )
