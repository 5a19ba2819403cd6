"""What a gateway knows of keys, models and prices, and how it asks for billing.

Facts are kept in memory for speed only: every admission and every logged refusal checks in its own transaction
that the key's version and the catalog's version are still the store's (`billing.state.Stale`), so no caller is ever
judged by an old state.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from sqlalchemy import select

from toolkit.admin import catalog, key_standing, secret_lookup
from toolkit.admin.key_standing import Totals
from toolkit.billing.batcher import Batcher
from toolkit.billing.rules import Receipt
from toolkit.billing.state import Job, Stale
from toolkit.core.catalog import Catalog
from toolkit.core.errors import Unavailable
from toolkit.core.policy import KeyFacts, OrganisationSuspended, Outcome, Unauthorized
from toolkit.core.secrets import Keyring
from toolkit.gateway.lookups import Lookups
from toolkit.gateway.rejected_secrets import RejectedSecrets
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.tables import CatalogVersion, OutboxRow
from toolkit.store.tally import Tallies
from toolkit.store.transaction import Transaction

T = TypeVar("T")

LARGEST_KEY_CACHE = 20_000

NOTED_EVERY = 3600.0
"""Seconds between two notes of the same secret in a URL: audits need to know that it goes on, not how often."""


class KeyCache:
    """Keys and catalog as last read, and the way to have them read anew.

    Args:
        store: the key store.
        keyring: peppers under which presented secrets are digested.
        batcher: runs billing.
        tallies: where uses of retired secrets are counted.
    """

    def __init__(self, store: Store, keyring: Keyring, batcher: Batcher, tallies: Tallies) -> None:
        self._store = store
        self._keyring = keyring
        self._batcher = batcher
        self._keys: dict[str, KeyFacts] = {}
        self._rejected = RejectedSecrets(tallies)
        self._lookups = Lookups(self._read)
        self._noted: dict[str, float] = {}
        self._reading = asyncio.Lock()
        self._readings = 0
        self._ahead = timedelta(0)
        self.catalog = Catalog(0, {}, {})

    async def open(self) -> None:
        """Read the catalog."""
        await self._reload_catalog()

    def now(self) -> datetime:
        """Return the present moment, UTC, by the key store's clock: all gateways of a store agree on it.

        It is not before the catalog was read, so a price that holds from now on holds though our estimate lags.
        """
        return max(datetime.now(UTC) + self._ahead, self.catalog.read_at)

    def set_clock(self, ahead: timedelta) -> None:
        """Say how far the store's clock is ahead of this machine's."""
        self._ahead = ahead

    def digests(self, secret: str) -> list[str]:
        """Return what a caller's secret is looked up by; from here on nobody needs the secret itself."""
        return self._keyring.values(secret)

    async def key(self, digests: list[str]) -> KeyFacts:
        """Return the facts of the key that these digests admit, as last read.

        Raises:
            NotAdmitted: unauthorized, or its organisation is suspended; judged by the store's present state.
            Unavailable: the key store cannot be reached.
        """
        facts = self._keys.get(digests[0])
        if facts is None or not facts.is_live(self.now()):
            facts = await self._look_up(digests)
        return facts

    async def current_key(self, digests: list[str]) -> KeyFacts:
        """Return the key's facts as the store has them now, with a catalog that is no older.

        Raises as `key`.
        """
        facts = await self._look_up(digests)
        if await self._read(_catalog_version) != self.catalog.version:
            await self._reload_catalog()
        return facts

    async def renewed(self, digests: list[str], stale: Stale) -> KeyFacts:
        """Return the key's facts after billing found them or the catalog stale; only what is stale is read anew.

        Raises as `key`.
        """
        if stale.key:
            self._keys.pop(digests[0], None)
        if stale.catalog:
            await self._reload_catalog()
        return await self.key(digests)

    def ask(self, job: Job[T]) -> "asyncio.Future[T]":
        """Have a billing job judged in the next shared transaction."""
        return self._batcher.ask(job)

    async def org_has(self, org_id: str, model: str) -> bool:
        """Return whether a model is in the plan of any of an organisation's live keys, as the store has it now.

        Raises:
            Unavailable: the key store cannot be reached.
        """
        return await self._read(lambda tx: secret_lookup.org_has(tx, org_id, model))

    async def totals(self, key_id: str) -> Totals | None:
        """Return a key's totals of this month, as the store has them now; None if there is no such key.

        Raises:
            Unavailable: the key store cannot be reached.
        """
        return await self._read(lambda tx: key_standing.totals(tx, key_id))

    async def receipt(self, request_id: str) -> Receipt | None:
        """Return what a call was charged, if its settlement is in the outbox; for one whose commit got no answer.

        Raises:
            Unavailable: the key store cannot be reached.
        """

        def question(tx: Transaction) -> Receipt | None:
            row = tx.session.get(OutboxRow, request_id)
            return Receipt(row.cost, row.overrun) if row and row.outcome != Outcome.ABANDONED else None

        return await self._read(question)

    async def note_in_url(self, digests: list[str]) -> None:
        """Note for the audits that a secret came in a URL, if it is of a key that calls here; once in `NOTED_EVERY`.

        It never fails: should the key store not answer, the next such call notes it.
        """
        now = time.monotonic()
        noted = self._noted.get(digests[0])
        if digests[0] not in self._keys or (noted is not None and now - noted < NOTED_EVERY):
            return
        if len(self._noted) >= LARGEST_KEY_CACHE:
            self._noted.clear()
        self._noted[digests[0]] = now

        def work() -> None:
            with self._store.write(SYSTEM) as tx:
                secret_lookup.note_in_url(tx, digests)

        try:
            await asyncio.to_thread(work)
        except Unavailable:
            self._noted.pop(digests[0], None)

    async def _look_up(self, digests: list[str]) -> KeyFacts:
        self._keys.pop(digests[0], None)
        self._rejected.check(digests, self.now())
        facts, retired = await self._lookups.find(digests)
        if facts is None:
            raise self._rejected.turn_away(digests, retired, self.now())
        if not facts.is_live(self.now()):
            raise Unauthorized(facts)
        if facts.org_suspended:
            raise OrganisationSuspended(facts)
        if len(self._keys) >= LARGEST_KEY_CACHE:
            self._keys.clear()
        self._keys[digests[0]] = facts
        return facts

    async def _read(self, question: Callable[[Transaction], T]) -> T:
        def work() -> T:
            with self._store.read(SYSTEM) as tx:
                return question(tx)

        return await asyncio.to_thread(work)

    async def _reload_catalog(self) -> None:
        seen = self._readings
        async with self._reading:
            if self._readings == seen:  # else one has begun after we asked, and is done: it will do for us too
                self._readings += 1
                self.catalog = await self._read(catalog.load)


def _catalog_version(tx: Transaction) -> int:
    return tx.session.scalars(select(CatalogVersion.version)).one()
