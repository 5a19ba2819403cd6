"""The supervisor behind `keydesk up`: starts the processes, keeps them running, and stops them together.

Only a gateway that cannot start ends it all. Whatever else ends by itself is started again, after a pause that doubles
from one end to the next; the others go on meanwhile, and so do their calls.

Each process writes into a log of its own. They live in sessions of their own, so that Ctrl-C reaches the supervisor
alone, and on Linux the kernel ends them when the supervisor is killed.
"""

import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

from toolkit.cli.part_log import PartLog
from toolkit.cli.parts import Part, answers
from toolkit.core.errors import Conflict, Unavailable
from toolkit.core.settings import Settings
from toolkit.gateway.listening import bind
from toolkit.gateway.processes import end_with
from toolkit.store import file_permissions

START_WITHIN = 90.0
"""Seconds that a process may take until it answers."""

STOP_WITHIN = 10.0
"""Seconds that processes may take to end, on top of the gateway's grace for calls under way, before they are killed."""

LONGEST_PAUSE = 60.0
"""Seconds until a part that ended is started again, at most; one that lived longer than that begins anew at 1 s."""

POLL = 0.1
_NEEDED = ("duckdb", "httptools", "pandas", "plotly", "pyarrow", "starlette", "streamlit", "uvicorn")


def check(settings: Settings, parts: Sequence[Part]) -> None:
    """See that everything that is to start can start.

    Args:
        settings: whose data folder it runs on.
        parts: what is to start.

    Raises:
        Unavailable: a package is missing.
        Conflict: Keydesk runs on this data folder, a port is in use, or two parts share one; nothing was started.
        InvalidInput: the address cannot be listened on.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Unavailable(f"Not installed: {', '.join(missing)}. Run: make setup")
    if settings.lock_file.exists():  # first, since its ports are in use too
        _lock(settings.lock_file).close()
    taken: dict[int, Part] = {}
    problems = []
    for part in parts:
        if part.port is None:
            continue
        if part.port in taken:
            problems.append(f"{taken[part.port].name} and {part.name} share port {part.port}: change {part.setting}.")
        elif not _is_free(part.host, part.port):
            problems.append(
                f"Port {part.port} ({part.name}) is in use. "
                f"Stop what uses it, or choose another one: {part.setting}={part.port + 1}"
            )
        taken[part.port] = part
    if problems:
        raise Conflict("\n".join(problems))


def _is_free(host: str, port: int) -> bool:
    try:
        probes = bind(host, port)
    except Conflict:
        return False
    for probe in probes:
        probe.close()
    return True


class StopSignals:
    """Counts SIGINT and SIGTERM while its `with` block lasts, in place of what they do otherwise.

    A plain number and short sleeps: a handler must take no lock, since the thread that it interrupts may hold it.
    """

    def __init__(self) -> None:
        self.count = 0
        self._handlers: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1

    def wait(self, seconds: float) -> bool:
        """Wait for a signal, but not longer than `seconds`; return whether one has come."""
        deadline = time.monotonic() + seconds
        while not self.count and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, POLL))
        return self.count > 0


@dataclass(slots=True)
class _Place:
    """A part, and the process that is it just now.

    Args:
        part: the part.
        log: what its processes print.
        process: the latest one.
        started: when it was started, seconds of the monotonic clock.
        ends: how often it has ended by itself, one soon after the other.
        due: when it is to be started again; None while it runs.
        ready: whether it has answered.
    """

    part: Part
    log: PartLog
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    ends: int = 0
    due: float | None = None
    ready: bool = False


class Supervisor:
    """Runs the parts of a Keydesk while its `with` block lasts; leaving the block stops them.

    Within it SIGINT and SIGTERM only end `start` and `watch`; a second one ends the wait for parts that stop slowly.

    Args:
        settings: whose data folder holds the logs.
        parts: what to run, in the order in which they start.
        environment: variables for the gateway, beside those of this process.

    Raises:
        Conflict: another supervisor runs on this data folder.
    """

    def __init__(self, settings: Settings, parts: Sequence[Part], environment: dict[str, str]) -> None:
        self._settings = settings
        self._stop_within = settings.shutdown_grace + STOP_WITHIN
        self._signals = StopSignals()
        logs = settings.logs_dir
        self._places = [_Place(part, PartLog(logs / f"{part.name.replace(' ', '-')}.log")) for part in parts]
        self._ours = environment
        self._credentials: Collection[str] = ()
        self._tell: Callable[[str], None]
        self._lock = _lock(settings.lock_file)

    def __enter__(self) -> Self:
        self._signals.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._lock.close()
        self._signals.__exit__(kind, error, trace)

    def start(
        self, progress: Callable[[str], None], tell: Callable[[str], None], credentials: Collection[str] = ()
    ) -> bool:
        """Start every part and wait until each answers; return False if it was told to stop meanwhile.

        Args:
            progress: called with the name of each part that is ready.
            tell: called with a sentence for each part that ends by itself, then and later.
            credentials: names of variables that the gateway alone gets.

        Raises:
            Unavailable: the gateway ended or does not answer; the message has the end of its log.
        """
        self._tell, self._credentials = tell, credentials
        file_permissions.make_folder(self._settings.logs_dir)
        for place in self._places:
            self._spawn(place)
        deadline = time.monotonic() + START_WITHIN
        while waiting := [place for place in self._places if place.part.port and not (place.ready or place.ends)]:
            if self._signals.wait(POLL):
                return False
            self._tend()
            for place in waiting:
                if place.due is None and answers(place.part):
                    place.ready = True
                    progress(place.part.name)
            if time.monotonic() > deadline:
                break
        for place in waiting:
            late = f"The {place.part.name} did not answer within {START_WITHIN:.0f} s. {place.log.end()}"
            if place.part.calls:
                raise Unavailable(late)
            tell(late)
        return True

    def watch(self) -> None:
        """Keep the parts running until told to stop."""
        while not self._signals.wait(POLL):
            self._tend()
            for place in self._places:
                if place.part.port and place.due is None and not place.ready and answers(place.part):
                    place.ready = True
                    self._tell(f"The {place.part.name} answers again.")

    def _tend(self) -> None:
        """Start again what has ended, each when its pause is over, and put aside logs that have grown.

        Raises:
            Unavailable: the gateway has ended before it ever answered.
        """
        for place in self._places:
            place.log.rotate()
            if place.due is not None:
                if time.monotonic() >= place.due:
                    self._spawn(place)
                continue
            code = place.process.poll() if place.process is not None else None
            if code is None:
                continue
            ended = f"The {place.part.name} ended by itself (exit code {code})"
            if place.part.calls and not (place.ready or place.ends):
                raise Unavailable(f"{ended}. {place.log.end()}")
            lived = time.monotonic() - place.started
            place.ends = place.ends + 1 if lived < LONGEST_PAUSE else 1
            pause = min(2.0 ** (place.ends - 1), LONGEST_PAUSE)
            place.due, place.ready = time.monotonic() + pause, False
            self._tell(f"{ended}, and is started again in {pause:.0f} s. {place.log.end()}")

    def _spawn(self, place: _Place) -> None:
        log = place.log.begin(place.part.name)
        try:
            place.process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "toolkit.cli", *place.part.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(place.part),
                start_new_session=True,
                preexec_fn=end_with(os.getpid()),  # noqa: PLW1509 - one system call; the supervisor has one thread
            )
        finally:
            os.close(log)
        place.started, place.due = time.monotonic(), None

    def _environment(self, part: Part) -> dict[str, str]:
        """Return a part's variables: each secret for the one part that needs it, the rest of this process's for all."""
        withheld = set() if part.calls else {"KEYDESK_SECRETS_FILE", *self._credentials}
        if not part.mails:
            withheld.add("KEYDESK_ALERTS_SECRETS_FILE")
        given = {name: value for name, value in os.environ.items() if name not in withheld}
        return given | {"PYTHONUNBUFFERED": "1"} | (self._ours if part.calls else {})

    def _stop(self) -> None:
        """End every part: first those that serve, then those that they need; kill what is left at the deadline."""
        patience = max(self._signals.count, 1)
        deadline = time.monotonic() + self._stop_within
        running = [(place.part, place.process) for place in self._places if place.process is not None]
        for last in (False, True):
            group = [process for part, process in running if part.last is last]
            for process in group:
                if process.poll() is None:
                    process.terminate()
            while any(process.poll() is None for process in group):
                if time.monotonic() > deadline or self._signals.count > patience:
                    break
                time.sleep(POLL / 4)
        for _, process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _lock(path: Path) -> IO[str]:
    """Return the lock file, held until it is closed or the process ends."""
    file_permissions.make_folder(path.parent)
    file = os.fdopen(file_permissions.append_to(path), "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise Conflict(
            f"Keydesk is running on {path.parent} already. Stop it, or choose another folder: KEYDESK_DATA_DIR"
        ) from None
    return file
