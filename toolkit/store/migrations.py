"""How a key store gets the present schema: made in a new one, brought up to date in an older one, refused in others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from toolkit.core.errors import Unavailable
from toolkit.store import steps
from toolkit.store.steps import Step

_SCHEMA_STEP = """
CREATE TABLE schema_step (
    version BIGINT NOT NULL,
    name TEXT NOT NULL,
    applied_at BIGINT NOT NULL,
    CONSTRAINT schema_step_pkey PRIMARY KEY (version)
);
"""
"""Which steps have run; made before the first of them."""


@dataclass(frozen=True, slots=True)
class Migration:
    """What was done to a key store when it was opened; its text is for the log.

    Args:
        store: its name.
        before: version of the schema that it had; 0 for a new store.
        ran: the steps, in their order.
        copy: the store as it was before, of SQLite alone.
    """

    store: str
    before: int
    ran: tuple[Step, ...]
    copy: Path | None = None

    def __str__(self) -> str:
        names = ", ".join(step.name for step in self.ran)
        if self.before == 0:
            return f"Made the key store {self.store}."
        done = f"Brought the key store {self.store} from schema {self.before} to {self.ran[-1].version} ({names})."
        if self.copy is None:
            return f"{done} No copy of it was made: the way back is the dump that you took before the upgrade."
        return f"{done} A copy of it as it was is {self.copy}; delete it when nobody wants to go back."


def schema_version(connection: Connection) -> int:
    """Return the version of the key store's schema; 0 for an empty one."""
    if not inspect(connection).has_table("schema_step"):
        return 0
    return int(connection.execute(text("SELECT coalesce(max(version), 0) FROM schema_step")).scalar_one())


def steps_after(version: int, store: str, way_back: Callable[[], str]) -> tuple[Step, ...]:
    """Return the steps that a key store lacks.

    Args:
        version: that its schema has; 0 for an empty one.
        store: its name, for messages.
        way_back: says what to do, but for running a newer Keydesk, if the schema is newer than this one knows.

    Raises:
        Unavailable: the store was written by a newer Keydesk, or by one from before the first release.
    """
    oldest, newest = steps.STEPS[0].version, steps.STEPS[-1].version
    if version > newest:
        raise Unavailable(
            f"The key store {store} has schema {version}; this Keydesk knows schemas up to {newest}. Run the newer "
            f"Keydesk, or {way_back()}"
        )
    if 0 < version < oldest:
        raise Unavailable(
            f"The key store {store} has schema {version}, from before the first release; this Keydesk reads schemas "
            f"from {oldest} on. Its calls can be taken along as a file: the version that wrote it makes one with "
            "`ledger export calls.parquet`. Then start this one in a new folder (KEYDESK_DATA_DIR), and where the key "
            "store is PostgreSQL with a new database (KEYDESK_STORE_URL). The old one stays as it is."
        )
    return tuple(step for step in steps.STEPS if step.version > version)


def run(connection: Connection, lacking: Sequence[Step], now: int) -> None:
    """Run steps inside the caller's transaction.

    Args:
        connection: in a transaction that excludes other writers.
        lacking: the steps, from the first that the store lacks.
        now: microseconds UTC, recorded with each step.

    Raises:
        Unavailable: the store does not allow a step.
    """
    if lacking[0] == steps.STEPS[0]:
        _execute(connection, "steps of the schema", _SCHEMA_STEP)
    for step in lacking:
        _execute(connection, step.name, step.sql)
        connection.execute(
            text("INSERT INTO schema_step (version, name, applied_at) VALUES (:version, :name, :now)"),
            {"version": step.version, "name": step.name, "now": now},
        )


def _execute(connection: Connection, name: str, statements: str) -> None:
    try:
        for statement in filter(None, map(str.strip, statements.split(";"))):
            connection.execute(text(statement))
    except DBAPIError as error:
        raise Unavailable(f"The step {name!r} of the key store's schema failed: {error.orig}") from error
