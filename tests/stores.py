"""Key stores for the tests, on SQLite and on PostgreSQL: made quickly, by copying ones that were prepared once."""

import itertools
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests.postgres import FAST, Server, in_memory

StoreKind = Literal["sqlite", "postgresql"]


class Stores:
    """Makes key stores for tests.

    Args:
        folder: for what is prepared.
        runtime: as `tests.postgres.Server` wants it.
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
            name: of what is prepared; done once for each name and day, for what is prepared happened on that day.
            prepare: gets a data folder and an empty store's URL; closes all connections to it.
        """
        name = f"{name}-{datetime.now(UTC):%Y-%m-%d}"
        if (kind, name) not in self._prepared:
            url = self.make(kind, self._folder / name)
            prepare(self._folder / name, url)
            self._prepared[kind, name] = url
        if kind == "postgresql":
            return self._make_database(_database(self._prepared[kind, name]))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
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
                self._own_server = Server(self._runtime, FAST, in_memory())
                self._url = self._own_server.url()
            self._connection = psycopg.connect(self._url, autocommit=True)
        return self._connection


def _database(url: str) -> str:
    return str(conninfo_to_dict(url)["dbname"])


def _sqlite_url(folder: Path) -> str:
    return f"sqlite:///{quote(str(folder / 'keydesk.db'))}"
