"""One opened Keydesk: settings, key store, peppers, ledger, and who is at work."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from toolkit.credentials import Keyring
from toolkit.database import Actor, Store, Transaction
from toolkit.ledger import Ledger
from toolkit.settings import Settings


class Desk:
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
    def open(cls, settings: Settings | None = None, actor: Actor | None = None) -> "Desk":
        """Open the key store that the settings name; by default those of the environment, trusted as the platform."""
        settings = settings or Settings.from_env()
        return cls(settings, Store.open(settings), actor or Actor.trusted())

    def acting_as(self, actor: Actor) -> "Desk":
        """Return the same Keydesk with another actor's name and rights."""
        return Desk(self.settings, self.store, actor)

    @cached_property
    def keyring(self) -> Keyring:
        """The peppers that secrets are digested under."""
        return self.settings.keyring()

    @cached_property
    def ledger(self) -> Ledger:
        """The usage ledger, restricted to what the actor may see."""
        return Ledger(self.store, self.settings.ledger_root, self.actor)

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
