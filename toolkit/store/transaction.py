"""A transaction of the key store: who acts in it and when, by the store's own clock."""

from datetime import UTC, datetime
from functools import cached_property

from sqlalchemy import text
from sqlalchemy.orm import Session

from toolkit.core.moments import moment
from toolkit.store.actor import Actor


class Transaction:
    """One transaction of the key store, with who acts in it and when.

    Args:
        session: what it reads and writes through.
        actor: who acts.
        now: when it happens, UTC; None is the present.
    """

    def __init__(self, session: Session, actor: Actor, now: datetime | None = None) -> None:
        self.session = session
        self.actor = actor
        self._given = now

    @property
    def is_postgres(self) -> bool:
        """Whether the store is PostgreSQL, whose write transactions run beside each other; those of SQLite do not."""
        return self.session.get_bind().dialect.name == "postgresql"

    @cached_property
    def now(self) -> datetime:
        """The moment it happens, UTC, for all that it writes: by the store's clock, when first asked for.

        So a change that first waits for a lock does not happen before the changes that it waited for, whichever
        machine made them.
        """
        return self._given or store_now(self)


def utc_now() -> datetime:
    """Return the present moment, UTC."""
    return datetime.now(UTC)


def store_now(tx: Transaction) -> datetime:
    """Return the present moment, UTC, by the store's own clock: machines that share a PostgreSQL agree on it."""
    if not tx.is_postgres:
        return utc_now()
    return moment(tx.session.scalars(text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")).one())
