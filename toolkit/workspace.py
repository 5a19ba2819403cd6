"""One opened Keydesk: settings, key store, peppers, ledger, and who is at work."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from toolkit import environment
from toolkit.admin import organisations, peppers
from toolkit.core.errors import Forbidden, Unavailable
from toolkit.core.policy import Role
from toolkit.core.secrets import Keyring
from toolkit.core.settings import Settings
from toolkit.ledger.ledger import Ledger
from toolkit.store.actor import Actor
from toolkit.store.database import Store
from toolkit.store.transaction import Transaction

if TYPE_CHECKING:
    import sqlite3

    import psycopg

_READ_ONLY = "Keydesk was opened for reading only. To change something, open it with toolkit.open(write=True)."


class ReadOnlyStore(Store):
    """A key store that nothing here can change: its transactions are the database's own read-only ones.

    Raises:
        Forbidden: by whatever would write.
    """

    def migrate(self) -> None:
        """Only check that the schema is the present one."""
        version = self._version()
        if lacking := self._lacking(version):
            raise Unavailable(
                f"The key store {self.name} has schema {version}, and this Keydesk reads {lacking[-1].version}. "
                "Any command that writes brings it up to date, such as `keydesk up`; who only reads changes nothing."
            )

    def write(self, actor: Actor, now: datetime | None = None) -> Any:  # noqa: ARG002 - Store's signature
        """Refuse."""
        raise Forbidden(_READ_ONLY)

    def connect(self) -> "sqlite3.Connection":
        """Refuse."""
        raise Forbidden(_READ_ONLY)

    def connect_postgres(self) -> "psycopg.Connection[Any]":
        """Refuse."""
        raise Forbidden(_READ_ONLY)


class Workspace:
    """What every front end opens first.

    Args:
        settings: where things are.
        store: the key store.
        actor: whose rights hold, and whose name the audit log shows.
    """

    def __init__(self, settings: Settings, store: Store, actor: Actor) -> None:
        self.settings = settings
        self.store = store
        self.actor = actor

    @classmethod
    def open(
        cls, settings: Settings | None = None, actor: Actor | None = None, *, write: bool = True, make: bool = False
    ) -> "Workspace":
        """Open the key store that the settings name.

        Args:
            settings: those of the environment by default.
            actor: by default one that is trusted as the platform.
            write: whether anything may be changed; an older store is then brought up to date.
            make: whether a missing store is made, as `Store.open` says.
        """
        settings = settings or environment.read_settings()
        store = Store.open(settings, make=make) if write else ReadOnlyStore.open(settings)
        return cls(settings, store, actor or Actor.trusted())

    def acting_as(self, actor: Actor) -> "Workspace":
        """Return the same Keydesk with another actor's name and rights."""
        return Workspace(self.settings, self.store, actor)

    def as_analyst(self, org: str | None = None) -> "Workspace":
        """Return the same Keydesk with no more than an analyst's rights.

        Args:
            org: name or id of the one organisation to see; all that the present actor sees by default.

        Raises:
            NotFound: there is no such organisation, or the actor does not see it.
        """
        org_id = self.actor.org_id
        if org is not None:
            with self.read() as tx:
                org_id = organisations.find(tx, org).id
        return self.acting_as(Actor(self.actor.name, Role.ANALYST, org_id))

    @cached_property
    def keyring(self) -> Keyring:
        """The peppers that secrets are digested under.

        Raises:
            Conflict: one that live secrets need is missing.
            Forbidden: Keydesk was opened for reading only, where no secret is made or verified.
        """
        if isinstance(self.store, ReadOnlyStore):
            raise Forbidden(_READ_ONLY)
        return peppers.open_keyring(self.store, self.settings)

    @cached_property
    def ledger(self) -> Ledger:
        """The usage ledger, restricted to what the actor may see."""
        read_only = isinstance(self.store, ReadOnlyStore)
        return Ledger(self.store, self.settings.ledger_root, self.actor, read_only=read_only)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Open a transaction that may change things; commits at the end, rolls back on any error."""
        with self.store.write(self.actor) as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Open a read-only snapshot."""
        with self.store.read(self.actor) as tx:
            yield tx

    def close(self) -> None:
        """Close the store's connections."""
        self.store.close()
