"""The key store: engine, transactions, and the actor and clock that go with them.

A service function takes a `Transaction`, never an engine: the change and its audit row commit together or not
at all. SQLite runs in WAL mode; a write transaction begins with BEGIN IMMEDIATE, so it never has to be upgraded
halfway through.
"""

import getpass
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.orm import Session

from toolkit import migrations
from toolkit.errors import InvalidInput, Unavailable
from toolkit.models import micros
from toolkit.policy import Role
from toolkit.settings import Settings

BUSY_TIMEOUT = 30.0
"""Seconds that a SQLite writer waits for another one."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: the name that the audit log shows, and the rights that the services check.

    Args:
        name: an operator's e-mail, or `cli:<os user>` for a process trusted as the platform.
        role: what the actor may do.
        org_id: the one organisation of an org admin or analyst; None is all.
    """

    name: str
    role: Role
    org_id: str | None = None

    @classmethod
    def trusted(cls, name: str | None = None) -> "Actor":
        """Return the actor of a process that holds the store's credentials itself (CLI, notebook)."""
        return cls(name or f"cli:{_os_user()}", Role.PLATFORM_ADMIN)


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


SYSTEM = Actor("system", Role.PLATFORM_ADMIN)
"""The actor of what no person asked for: set-up, drain, sweeps."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction of the key store, with who acts in it and when (UTC)."""

    session: Session
    actor: Actor
    now: datetime


def utc_now() -> datetime:
    """Return the present moment, UTC."""
    return datetime.now(UTC)


class Store:
    """The key store behind one SQLAlchemy URL.

    Raises:
        InvalidInput: the URL is of a database that is not supported.
    """

    def __init__(self, url: str, *, synchronous: str = "FULL") -> None:
        try:
            self.url = make_url(url)
        except ArgumentError:
            raise InvalidInput("KEYDESK_STORE_URL must look like sqlite:///PATH.") from None
        self.synchronous = synchronous
        if self.url.get_backend_name() != "sqlite":
            raise InvalidInput(f"The key store must be SQLite (sqlite:///PATH), not {self.url.get_backend_name()}.")
        if self.url.database in {None, "", ":memory:"}:
            raise InvalidInput("The key store must be a file (sqlite:///PATH): several processes share it.")
        self.engine: Engine = create_engine(self.url, connect_args={"timeout": BUSY_TIMEOUT})
        event.listen(self.engine, "connect", self._prepare)
        event.listen(self.engine, "begin", _begin)

    @classmethod
    def open(cls, settings: Settings) -> "Store":
        """Open the key store that the settings name, creating or migrating its schema.

        Raises:
            InvalidInput: the URL is of a database that is not supported.
            Unavailable: the store cannot be made or read, or is of a newer version.
        """
        store = cls(settings.store_url, synchronous=settings.sqlite_synchronous)
        path = Path(str(store.url.database))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # SQLite gives its other files the same rights
        except OSError as error:
            raise Unavailable(f"The key store {path} cannot be made: {error.strerror}.") from error
        store.migrate()
        return store

    def _prepare(self, connection: Any, _record: object) -> None:
        # The driver's own transaction handling is off: `_begin` says BEGIN.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", f"synchronous={self.synchronous}", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    def migrate(self) -> list[str]:
        """Bring the schema up to date; return the names of the steps that ran."""
        with self.write(SYSTEM) as tx:
            return migrations.migrate(tx.session.connection(), micros(tx.now))

    @contextmanager
    def write(self, actor: Actor, now: datetime | None = None) -> Iterator[Transaction]:
        """Open a transaction that may change things; commits at the end, rolls back on any error.

        Args:
            actor: who acts.
            now: the moment it happens, UTC; the present by default (demo data and tests give their own).

        Raises:
            Unavailable: the store cannot be reached, or another writer held it too long.
        """
        with self._transaction(actor, now, immediate=True) as tx:
            yield tx

    @contextmanager
    def read(self, actor: Actor, now: datetime | None = None) -> Iterator[Transaction]:
        """Open a read-only snapshot of the store: what it shows does not change while it is open."""
        with self._transaction(actor, now, immediate=False) as tx:
            yield tx

    @contextmanager
    def _transaction(self, actor: Actor, now: datetime | None, *, immediate: bool) -> Iterator[Transaction]:
        try:
            with (
                Session(self.engine.execution_options(immediate=immediate), expire_on_commit=False) as session,
                session.begin(),
            ):
                if immediate:
                    session.connection()  # BEGIN now: the moment of a change is not before those it waited for
                yield Transaction(session, actor, now or utc_now())
        except DatabaseError as error:
            # The narrower classes, such as IntegrityError, are mistakes of a statement, not of the store.
            if type(error) not in {DatabaseError, OperationalError}:
                raise
            raise Unavailable(f"The key store {self.url.render_as_string()} failed: {error.orig}") from error

    def connect(self) -> sqlite3.Connection:
        """Open a connection of the driver's own, for the hot path; the caller closes it and says BEGIN itself."""
        connection = sqlite3.connect(
            str(self.url.database), timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        self._prepare(connection, None)
        return connection

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _begin(connection: Any) -> None:
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql(f"PRAGMA query_only = {'OFF' if immediate else 'ON'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
