"""What a gateway knows of keys, models and prices, and the proof that it is still true.

Facts are kept in memory for speed only: every admission and every logged refusal checks in its own transaction
that the key's version and the catalog's version are still the store's (`billing.Stale`), so no caller is ever
judged by an old state.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from toolkit import billing, catalog
from toolkit.cashier import Cashier
from toolkit.credentials import Keyring
from toolkit.database import SYSTEM, Store, utc_now
from toolkit.policy import KeyFacts, Unauthorized

T = TypeVar("T")

LARGEST_KEY_CACHE = 20_000


class Book:
    """Keys and catalog as last read, and the way to have them read anew.

    Args:
        store: the key store, for the catalog.
        keyring: peppers under which presented secrets are digested.
        cashier: runs look-ups and billing.
    """

    def __init__(self, store: Store, keyring: Keyring, cashier: Cashier) -> None:
        self._store = store
        self._keyring = keyring
        self._cashier = cashier
        self._keys: dict[str, KeyFacts] = {}
        self.catalog = catalog.Catalog(0, {}, {})

    async def open(self) -> None:
        """Read the catalog."""
        await self._reload_catalog()

    def digests(self, secret: str) -> list[str]:
        """Return what a caller's secret is looked up by; from here on nobody needs the secret itself."""
        return [digest.value for digest in self._keyring.digests(secret)]

    async def key(self, digests: list[str]) -> KeyFacts:
        """Return the facts of the key that these digests admit, as last read.

        Raises:
            Refusal: unauthorized, judged by the store's present state.
            Unavailable: the key store cannot be reached.
        """
        facts = self._keys.get(digests[0])
        if facts is None or not facts.is_live(utc_now()):
            facts = await self._look_up(digests)
        return facts

    async def current_key(self, digests: list[str]) -> KeyFacts:
        """Return the key's facts as the store has them now, with a catalog that is no older.

        Raises as `key`.
        """
        facts = await self._look_up(digests)
        version = await self._cashier.ask(
            lambda connection: int(connection.execute("SELECT version FROM catalog_version").fetchone()[0])
        )
        if version != self.catalog.version:
            await self._reload_catalog()
        return facts

    async def refresh(self, digests: list[str]) -> None:
        """Forget what was known of a key and read the catalog anew, after billing found either stale."""
        self._keys.pop(digests[0], None)
        await self._reload_catalog()

    async def ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run billing work in the next shared transaction."""
        return await self._cashier.ask(work)

    async def _look_up(self, digests: list[str]) -> KeyFacts:
        def work(connection: sqlite3.Connection) -> tuple[KeyFacts | None, bool]:
            facts = billing.lookup(connection, digests)
            if facts is not None:
                return facts, facts.is_live(utc_now())
            return billing.lookup_retired(connection, digests, utc_now()), False

        facts, live = await self._cashier.ask(work)
        if facts is None or not live:
            self._keys.pop(digests[0], None)
            raise Unauthorized(facts)
        if len(self._keys) >= LARGEST_KEY_CACHE:
            self._keys.clear()
        self._keys[digests[0]] = facts
        return facts

    async def _reload_catalog(self) -> None:
        def work() -> catalog.Catalog:
            with self._store.read(SYSTEM) as tx:
                return catalog.load(tx)

        self.catalog = await asyncio.to_thread(work)
