"""The key store behind its URL: opened, brought up to date, read and written in transactions.

A service function takes a `Transaction`, never an engine: the change and its audit row commit together or not
at all.

SQLite runs in WAL mode; a write transaction begins with BEGIN IMMEDIATE, so it never has to be upgraded halfway
through, and is alone.

PostgreSQL writes under READ COMMITTED, behind the locks of `locks`. Reads are REPEATABLE READ snapshots.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from toolkit.core.errors import InvalidInput, Unavailable
from toolkit.core.moments import micros
from toolkit.core.settings import Settings
from toolkit.store import copies, engines, file_permissions, migrations, steps
from toolkit.store.actor import SYSTEM, Actor
from toolkit.store.locks import lock_name
from toolkit.store.migrations import Migration
from toolkit.store.steps import Step
from toolkit.store.transaction import Transaction

if TYPE_CHECKING:
    import psycopg

logger = logging.getLogger("keydesk.store")

BUSY_TIMEOUT = 30.0
"""Seconds that a SQLite writer waits for another one."""


class Store:
    """The key store behind one URL: `sqlite:///PATH`, or `postgresql://USER:PASSWORD@HOST/DATABASE`.

    Args:
        url: of the database; a password in it is shown nowhere. What a PostgreSQL URL leaves open, libpq's own
            variables and files say (PGHOST, ~/.pgpass).
        synchronous: how durable a SQLite commit is, FULL or NORMAL. PostgreSQL's `synchronous_commit` is always on.

    Attributes:
        migration: what `open` did to its schema; None where it was up to date.

    Raises:
        InvalidInput: the URL is of a database that is not supported.
    """

    def __init__(self, url: str, *, synchronous: str = "FULL") -> None:
        self.synchronous = synchronous
        self.is_postgres = url.startswith(_POSTGRES)
        self.engine: Engine
        self._path = ""
        self.migration: Migration | None = None
        self._parameters: dict[str, str] = {}
        if self.is_postgres:
            try:
                self._parameters = engines.postgres_parameters("postgresql://" + url.partition("://")[2])
            except ValueError:
                raise InvalidInput(_WANTED_URL) from None
            self.name = _name(self._parameters)
            self.engine = engines.postgres_engine(self._parameters)
            return
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise InvalidInput(_WANTED_URL) from None
        if parsed.get_backend_name() != "sqlite":
            raise InvalidInput(_WANTED_URL)
        if parsed.database in {None, "", ":memory:"}:
            raise InvalidInput("The key store must be a file (sqlite:///PATH): several processes share it.")
        self._path = str(parsed.database)
        self.name = f"sqlite:///{self._path}"
        self.engine = engines.sqlite_engine(parsed, synchronous, BUSY_TIMEOUT)

    @classmethod
    def open(cls, settings: Settings, *, make: bool = False) -> Self:
        """Open the key store that the settings name, and bring an older schema up to date.

        Args:
            settings: say where it is.
            make: whether a store that is not there is made. Only what sets Keydesk up may do so: elsewhere a wrong
                folder would look like a Keydesk in which nothing ever happened.

        Raises:
            InvalidInput: the URL is of a database that is not supported.
            Unavailable: there is none, or it cannot be made or read, or is of a newer version.
        """
        store = cls(settings.store_url, synchronous=settings.sqlite_synchronous)
        try:
            if not store.is_postgres:
                store._provide(Path(store._path), make=make)
            store._bring_up_to_date(make=make)
        except BaseException:
            store.close()
            raise
        return store

    def _provide(self, path: Path, *, make: bool) -> None:
        """See that the file of SQLite is there."""
        try:
            if not make:
                if path.stat().st_size == 0:  # to look into it would make it a database
                    raise self._missing()
                if not os.access(path, os.R_OK, effective_ids=True):
                    raise self._not_yours()
                return
            file_permissions.make_folder(path.parent)
            path.touch(mode=0o600)  # SQLite gives its other files the same rights
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._missing() from error
        except PermissionError as error:
            raise self._not_yours() from error
        except OSError as error:
            verb = "made" if make else "read"
            raise Unavailable(f"The key store {path} cannot be {verb}: {error.strerror}.") from error

    def _bring_up_to_date(self, *, make: bool) -> None:
        if not make and self._version() == 0:
            raise self._missing()
        self.migration = self.migrate()
        if self.migration is not None and self.migration.before > 0:
            logger.warning("%s", self.migration)

    def _version(self) -> int:
        with self.read(SYSTEM) as tx:
            return migrations.schema_version(tx.session.connection())

    def _not_yours(self) -> Unavailable:
        return Unavailable(
            f"The key store {self._path} is not for this user to read or make. Work as the user that Keydesk runs as, "
            "or with a role of your own where the key store is PostgreSQL (KEYDESK_STORE_URL). Members of "
            "KEYDESK_DATA_GROUP read the Parquet files of the ledger, with tools that need nothing else."
        )

    def _missing(self) -> Unavailable:
        where = f"in {self.name}. Is KEYDESK_STORE_URL right?" if self.is_postgres else f"at {self._path}. {_FOLDER}"
        return Unavailable(f"There is no key store {where} `keydesk up` makes one.")

    def migrate(self) -> Migration | None:
        """Bring the schema up to date; return what was done, or None where nothing was to do.

        A SQLite store that has a schema is copied first, behind the lock that keeps all other writers out.

        Raises:
            Unavailable: the store is of a newer version or one too old, or cannot be copied or brought up to date.
        """
        copy = None
        try:
            with self.write(SYSTEM) as tx:
                lock_name(tx, "schema")
                connection = tx.session.connection()
                version = migrations.schema_version(connection)
                lacking = self._lacking(version)
                if not lacking:
                    return None
                if version > 0 and not self.is_postgres:
                    copy = copies.make(Path(self._path), version, tx.now)
                migrations.run(connection, lacking, micros(tx.now))
        except Unavailable as error:
            if copy is None:
                raise
            raise Unavailable(
                f"{error} The key store is as it was, with schema {version}; a copy of it is {copy}. Run the version "
                "of Keydesk that it worked with."
            ) from error
        return Migration(self.name, version, lacking, copy)

    def _lacking(self, version: int) -> tuple[Step, ...]:
        """Return the steps that lead from a version of the schema to the present one."""
        return migrations.steps_after(version, self.name, self._way_back)

    def _way_back(self) -> str:
        """Return what to do for a Keydesk that is too old for the store, but for running a newer one."""
        if self.is_postgres:
            return "restore the dump of the database that was taken before the upgrade."
        copy = copies.newest(Path(self._path), steps.STEPS[-1].version)
        if copy is None:
            return "restore the backup that was made before the upgrade."
        return (
            f"go back to the copy {copy}, which lacks all that happened since: stop Keydesk, delete {self._path}-wal "
            f"and {self._path}-shm, and move the copy to {self._path}."
        )

    @contextmanager
    def write(self, actor: Actor, now: datetime | None = None) -> Iterator[Transaction]:
        """Open a transaction that may change things; commits at the end, rolls back on any error.

        On PostgreSQL it is READ COMMITTED: take the locks (`lock_orgs` and so on) before reading what it judges by.

        Args:
            actor: who acts.
            now: the moment it happens, UTC; the present by default (demo data and tests give their own).

        Raises:
            Unavailable: the store cannot be reached, or another writer held it too long. A later transaction
                connects anew.
        """
        options = engines.POSTGRES_WRITE if self.is_postgres else engines.SQLITE_WRITE
        with self._transaction(options, actor, now) as tx:
            yield tx

    @contextmanager
    def read(self, actor: Actor, now: datetime | None = None) -> Iterator[Transaction]:
        """Open a read-only snapshot of the store: what it shows does not change while it is open."""
        options = engines.POSTGRES_READ if self.is_postgres else engines.SQLITE_READ
        with self._transaction(options, actor, now) as tx:
            yield tx

    @contextmanager
    def _transaction(self, options: dict[str, Any], actor: Actor, now: datetime | None) -> Iterator[Transaction]:
        committing = False
        try:
            with Session(self.engine.execution_options(**options), expire_on_commit=False) as session:
                session.connection()  # BEGIN now: SQLite's is the lock
                yield Transaction(session, actor, now)
                committing = options in (engines.POSTGRES_WRITE, engines.SQLITE_WRITE)
                session.commit()
        except (DBAPIError, PoolTimeout) as error:
            if not _is_the_stores(error):
                raise  # a mistake of a statement
            raise Unavailable(self._failure(error, committing)) from error

    def _failure(self, error: DBAPIError | PoolTimeout, committing: bool) -> str:
        """Return what to tell a person about an error of the store."""
        if isinstance(error, PoolTimeout):
            return f"The key store {self.name} is busy: all connections of this process are in use. Try again."
        reason = str(error.orig).strip().partition("\n")[0].rstrip(".")
        if not self.is_postgres:
            cure = next((cure for words, cure in _CURES.items() if words in reason), "Nothing was changed.")
            return f"The key store {self.name} failed: {reason}. {cure}"
        if committing and error.connection_invalidated:
            return (
                f"The key store {self.name} was lost while it committed: {reason}. It is not known whether the change "
                "was made; look before you repeat it."
            )
        state = getattr(error.orig, "sqlstate", None) or ""
        if state in _BUSY:
            return f"The key store {self.name} is busy: {reason}. Nothing was changed; try again."
        if not state or state.startswith(_GONE):
            return (
                f"The key store {self.name} cannot be reached: {reason}. Nothing was changed. See that PostgreSQL "
                "runs there and that KEYDESK_STORE_URL is right."
            )
        return f"The key store {self.name} failed: {reason}. Nothing was changed."

    def connect(self) -> sqlite3.Connection:
        """Open a connection of SQLite's own, for the hot path; the caller closes it and says BEGIN itself."""
        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        engines.prepare_sqlite(connection, self.synchronous)
        return connection

    def connect_postgres(self) -> "psycopg.Connection[Any]":
        """Open a connection of PostgreSQL's own, for the hot path; the caller closes it and says BEGIN itself.

        Raises:
            psycopg.OperationalError: the server cannot be reached.
        """
        return engines.postgres_connection(self._parameters)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


_WANTED_URL = (
    "KEYDESK_STORE_URL must look like sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE, with %XX for special "
    "characters in the password."
)
_FOLDER = "Is KEYDESK_DATA_DIR (or KEYDESK_STORE_URL) right?"
_POSTGRES = ("postgresql://", "postgres://", "postgresql+psycopg://")
_CURES = {
    "unable to open": "This user must be able to write to its folder, which may not be read-only.",
    "readonly": "This user must be able to write to it and to its folder, which may not be read-only.",
    "disk is full": "Nothing was changed; make room on the disk.",
    "disk I/O error": "Nothing was changed; see that the disk has room and is sound.",
    "malformed": "Stop Keydesk and restore it from a backup.",
    "not a database": "It is no key store, or was overwritten: restore it from a backup.",
    "decode to UTF-8": "Stop Keydesk and restore it from a backup; `keydesk reconcile` says what is damaged.",
    "locked": "Nothing was changed; another process held it too long. Try again.",
}
"""What to do about an error of SQLite (its documentation, "Result and Error Codes"), by words of its message."""
_BUSY = {"40001", "40P01", "55P03"}  # serialization failure, deadlock, lock timeout
_GONE = ("08", "57P")  # connection exceptions; shut down, starting up, crashed
"""Codes of PostgreSQL (appendix A of its documentation, "PostgreSQL Error Codes")."""


def _name(parameters: dict[str, str]) -> str:
    """Return a PostgreSQL database's URL without password and options."""
    user, hosts, ports, database = (parameters.get(name, "") for name in ("user", "host", "port", "dbname"))
    places = zip_longest(hosts.split(","), ports.split(","), fillvalue=ports if "," not in ports else "")
    return f"postgresql://{user and f'{user}@'}{','.join(f'{h}:{p}' if p else h for h, p in places)}/{database}"


def _is_the_stores(error: DBAPIError | PoolTimeout) -> bool:
    """Whether an error is the store's; the narrower classes, such as IntegrityError, are mistakes of a statement."""
    if isinstance(error, PoolTimeout | OperationalError | InternalError) or type(error) is DatabaseError:
        return True
    return bool(error.connection_invalidated)
