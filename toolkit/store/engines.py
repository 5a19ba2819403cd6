"""Engines: how SQLite and PostgreSQL are connected to, and what is set on each connection.

An engine's pool belongs to one process. Whether a transaction may write is an option of its connection.
"""

import random
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

if TYPE_CHECKING:
    import psycopg

LONGEST_NAP = 0.003
"""Seconds between two tries to get SQLite's write lock."""

CONNECT_TIMEOUT = 5
"""Seconds to reach PostgreSQL, for each of its hosts."""

LOCK_TIMEOUT = 30
"""Seconds that a PostgreSQL transaction waits for another one's lock."""

IDLE_TIMEOUT = 60
"""Seconds after which PostgreSQL ends a transaction that asks nothing: a process that stands still frees its locks."""

POOL = {"pool_size": 5, "max_overflow": 25, "pool_timeout": 15, "pool_pre_ping": True}
"""Connections of a process: five are kept, more come and go with its threads; a dead one is found before its use."""

_CONNECTION = {
    "connect_timeout": str(CONNECT_TIMEOUT),
    "application_name": "keydesk",
    "client_encoding": "UTF8",
    "target_session_attrs": "read-write",  # of several hosts the one that is no standby
    # A machine that vanished is noticed in half a minute: an idle one by probes, one that owes an answer by the last.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
}


def postgres_parameters(url: str) -> dict[str, str]:
    """Return what libpq is to connect with: what a URL says, and our defaults for what it leaves open.

    Raises:
        ValueError: libpq does not take the URL; the message shows nothing of it.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        given = conninfo_to_dict(url)
    except ProgrammingError:
        raise ValueError("not a URL of PostgreSQL") from None
    return _CONNECTION | {name: str(value) for name, value in given.items() if value != ""}


POSTGRES_WRITE: dict[str, Any] = {"isolation_level": "READ COMMITTED"}
POSTGRES_READ: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


def postgres_engine(parameters: dict[str, str]) -> Engine:
    """Return an engine for PostgreSQL."""
    engine = create_engine(
        URL.create("postgresql+psycopg"),
        connect_args=parameters,
        hide_parameters=True,
        use_native_hstore=False,
        **POOL,
    )
    event.listen(engine, "connect", _prepare_postgres)
    return engine


def postgres_connection(parameters: dict[str, str]) -> "psycopg.Connection[Any]":
    """Return a connection of the driver's own; whoever begins says BEGIN."""
    import psycopg

    connection = psycopg.connect(autocommit=True, **parameters)  # type: ignore[arg-type]  # libpq takes text
    try:
        _prepare_postgres(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare_postgres(connection: "psycopg.Connection[Any]", _record: object = None) -> None:
    # The server may commit less durably by default; a hold or a charge that a power cut undoes is money lost.
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') IN ('off', 'local');"
        f" SET lock_timeout = '{LOCK_TIMEOUT}s';"
        f" SET idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}s'"
    )
    if not connection.autocommit:
        connection.commit()


SQLITE_WRITE: dict[str, Any] = {"immediate": True}
SQLITE_READ: dict[str, Any] = {"immediate": False}


def sqlite_engine(url: URL, synchronous: str, busy_timeout: float) -> Engine:
    """Return an engine for SQLite, whose write transactions begin with BEGIN IMMEDIATE."""
    engine = create_engine(url, connect_args={"timeout": busy_timeout}, hide_parameters=True)
    event.listen(engine, "connect", lambda connection, _record: prepare_sqlite(connection, synchronous))
    event.listen(engine, "begin", lambda connection: _begin_sqlite(connection, busy_timeout))
    return engine


def prepare_sqlite(connection: sqlite3.Connection, synchronous: str) -> None:
    """Set what holds for every connection: WAL, as durable as `synchronous` says, foreign keys on."""
    # The driver's own transaction handling is off: whoever begins says BEGIN.
    connection.isolation_level = None
    _patiently(connection, "PRAGMA journal_mode=WAL", LOCK_TIMEOUT)  # others may be making the database, too
    for pragma in (f"synchronous={synchronous}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def begin_immediate(connection: sqlite3.Connection, patience: float) -> None:
    """Begin a write transaction on SQLite, which is alone until it ends.

    SQLite's own wait naps for up to 0.1 s between two tries, so beside gateways that write all the time it would
    hardly ever get its turn.

    Args:
        connection: with a `busy_timeout` of 0.
        patience: seconds to wait for other writers.

    Raises:
        sqlite3.OperationalError: another writer was at it for too long.
    """
    _patiently(connection, "BEGIN IMMEDIATE", patience)


def _patiently(connection: sqlite3.Connection, statement: str, patience: float) -> None:
    give_up = time.monotonic() + patience
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up:
                raise
        else:
            return
        time.sleep(random.uniform(0, LONGEST_NAP))  # noqa: S311 - no secret


def _begin_sqlite(connection: Any, busy_timeout: float) -> None:
    if not connection.get_execution_options().get("immediate"):
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("BEGIN")
        return
    connection.exec_driver_sql("PRAGMA query_only = OFF")
    driver = connection.connection.dbapi_connection
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        begin_immediate(driver, busy_timeout)
    except sqlite3.OperationalError as error:
        raise OperationalError("BEGIN IMMEDIATE", None, error) from error
    finally:
        driver.execute(f"PRAGMA busy_timeout = {round(busy_timeout * 1000)}")
