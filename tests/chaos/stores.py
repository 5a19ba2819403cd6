"""The key stores that chaos is let loose on, and how a judge who trusts nobody reads them."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pyarrow.parquet as pq

from tests.postgres import Server

_RECOVERY = 60.0
_NUMBERS = itertools.count(1)


class Reader(Protocol):
    """A read-only connection, apart from the product's own code."""

    def snapshot(self, *queries: str) -> list[list[tuple[Any, ...]]]:
        """Return the rows of each query, all of them from one moment."""

    def close(self) -> None:
        """Close the connection."""


class SqliteReader:
    """Reads a SQLite file."""

    def __init__(self, url: str) -> None:
        self._connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30, isolation_level=None)
        self._connection.execute("PRAGMA query_only = ON")

    def snapshot(self, *queries: str) -> list[list[tuple[Any, ...]]]:
        """Return the rows of each query, all of them from one moment."""
        self._connection.execute("BEGIN")
        try:
            return [self._connection.execute(query).fetchall() for query in queries]
        finally:
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class PostgresReader:
    """Reads a PostgreSQL database."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True, connect_timeout=5)

    def snapshot(self, *queries: str) -> list[list[tuple[Any, ...]]]:
        """Return the rows of each query, all of them from one moment."""
        with self._connection.transaction():
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return [self._connection.execute(query.encode()).fetchall() for query in queries]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def open_reader(url: str) -> Reader:
    """Open a read-only connection to a key store."""
    return SqliteReader(url) if url.startswith("sqlite") else PostgresReader(url)


def execute(url: str, *statements: str) -> None:
    """Change the store past the product: only to install the journal."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
    else:
        with psycopg.connect(url) as server:
            for statement in statements:
                server.execute(statement.encode())


class Place(Protocol):
    """A key store to be, and the server behind it if it has one."""

    kind: str
    url: str

    def kill(self) -> None:
        """Kill the server, if there is one: no goodbye, no checkpoint."""

    def kill_one(self) -> None:
        """Kill one process of the server that works for a client; the server drops all the others, and recovers."""

    def restart(self) -> None:
        """Start the server again, if there is one, and wait until it answers."""


class SqlitePlace:
    """A SQLite file in a folder. It has no server: whoever writes it is killed instead."""

    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'keydesk.db'}"

    def kill(self) -> None:
        """There is nothing to kill."""

    def kill_one(self) -> None:
        """There is nothing to kill."""

    def restart(self) -> None:
        """There is nothing to start."""


class PostgresServer(Server):
    """A PostgreSQL server with its durable default settings, which may be killed."""

    ends_with_us = False  # it is started again by threads, which it outlives

    def __init__(self) -> None:
        runtime = Path(tempfile.mkdtemp(prefix="keydesk-chaos-"))
        super().__init__(runtime)
        self._runtime = runtime

    def kill(self) -> None:
        """Kill the postmaster and every backend at once, as the machine's memory killer would."""
        pids = [self.process.pid, *children(self.process.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not any(map(_exists, pids)), "PostgreSQL to end", _RECOVERY)

    def kill_one(self) -> None:
        """Kill a process that works for a gateway: the server takes its memory for damaged, and starts anew."""
        busy = [pid for pid in children(self.process.pid) if b"chaos_" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(busy), signal.SIGKILL)
        wait_until(lambda: not _exists(busy[0]), "the others to be dropped", _RECOVERY)
        wait_until(self.answers, "PostgreSQL to answer", _RECOVERY)

    def remove(self) -> None:
        """Stop it and remove its folders."""
        super().remove()
        shutil.rmtree(self._runtime, ignore_errors=True)


class PostgresPlace:
    """An empty database on a server."""

    kind = "postgresql"

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        name = f"chaos_{next(_NUMBERS)}"
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        self.url = server.url(name)

    def kill(self) -> None:
        """Kill the server."""
        self._server.kill()

    def kill_one(self) -> None:
        """Kill one of the server's processes."""
        self._server.kill_one()

    def restart(self) -> None:
        """Start it again."""
        self._server.start()


@contextlib.contextmanager
def open_place(kind: str, folder: Path) -> Iterator[Place]:
    """Give a key store of that kind (`sqlite` or `postgresql`) until the block ends.

    Args:
        folder: of a SQLite file.
    """
    if kind == "sqlite":
        yield SqlitePlace(folder)
        return
    server = PostgresServer()
    try:
        yield PostgresPlace(server)
    finally:
        server.remove()


def children(pid: int) -> list[int]:
    """Return the processes that a process has started itself."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return found


def _exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def log_rows(reader: Reader, ledger: Path) -> list[dict[str, Any]]:
    """Return the whole request log: the outbox, and the segments listed in the same snapshot."""
    columns = "request_id, org_id, key_id, outcome, refusal, status, cost, held, overrun, input_tokens, output_tokens"
    columns += ", usage_source, overrun_reason, error, upstream"
    waiting, listed = reader.snapshot(f"SELECT {columns} FROM outbox", "SELECT path FROM segment")
    names = columns.split(", ")
    rows = [dict(zip(names, row, strict=True)) for row in waiting]
    for (path,) in listed:
        rows += pq.ParquetFile(ledger / path).read(columns=names).to_pylist()
    return rows


def wait_until(condition: Any, what: str, seconds: float) -> None:
    """Wait until something becomes true.

    Raises:
        TimeoutError: it did not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.02)
