"""The endpoint that tells the holder of a key what it may do and has spent: free, and it hardly asks the store."""

import asyncio
import json
import time
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from toolkit.admin.key_standing import Standing
from toolkit.billing.state import Stale
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Unavailable
from toolkit.core.policy import KeyFacts, NotAdmitted
from toolkit.dialects.openai_fields import CHAT
from toolkit.gateway.admission import MOST_STALE
from toolkit.gateway.call_price import always_costs
from toolkit.gateway.connection_limits import prove
from toolkit.gateway.endpoint import Endpoint, Gateway
from toolkit.gateway.request import CallRequest
from toolkit.gateway.responses import JSON, head, send_whole

FRESH = 1.0
"""Seconds for which an answer is given again, and for which a store that failed is not asked again for the same key."""

OLDEST = 60.0
"""Seconds for which the last answer is given while the store cannot be reached."""

MOST_KNOWN = 10_000
"""Keys whose last answer is kept, for as long as it may be given."""


@dataclass(slots=True)
class _Answer:
    """The last answer for a secret; moments by the monotonic clock.

    Args:
        key: whose it is.
        body: JSON.
        read_at: when the store was asked.
        failed_at: when the store last failed to say more.
    """

    key: KeyFacts
    body: bytes
    read_at: float
    failed_at: float = float("-inf")

    @property
    def age(self) -> float:
        """Seconds since it was read."""
        return time.monotonic() - self.read_at

    @property
    def is_recent(self) -> bool:
        """Whether the store need not be asked again yet."""
        return self.age < FRESH or time.monotonic() - self.failed_at < FRESH


class KeyEndpoint(Endpoint):
    """Tells of the key that is shown; one reading a second and key, which all who ask meanwhile share."""

    def __init__(self, gateway: Gateway, dialect: Dialect | None, name: str) -> None:
        super().__init__(gateway, dialect, name)
        self._known: dict[str, _Answer] = {}  # the oldest first
        self._readings: dict[str, asyncio.Task[_Answer]] = {}

    async def answer(self, request: CallRequest, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send what is known of the key; `Age` says how old that is.

        Raises:
            NotAdmitted: as for a call.
            Unavailable: the key store cannot be reached, and the last answer is too old.
        """
        found = await self._recent(request.digests)
        prove(scope, found.key.org_id)
        headers = {"age": str(int(found.age)), "cache-control": "no-store"}
        await send_whole(send, 200, head(request.id, request.dialect, JSON, headers), found.body)

    async def _recent(self, digests: list[str]) -> _Answer:
        """Return an answer that is no older than it may be."""
        digest = digests[0]
        known = self._known.get(digest)
        if known is not None and (known.age >= OLDEST or not known.key.is_live(self.gateway.key_cache.now())):
            known = None
        if known is not None and known.is_recent:
            return known
        reading = self._readings.get(digest)
        if reading is None:
            reading = self._readings[digest] = asyncio.create_task(self._read(digests))
            reading.add_done_callback(lambda done: self._end_reading(digest, done))
        try:
            return await asyncio.shield(reading)  # one who leaves does not stop it for the others
        except Unavailable:
            if known is None or known.age >= OLDEST:
                raise
            known.failed_at = time.monotonic()
            return known

    def _end_reading(self, digest: str, done: asyncio.Task[_Answer]) -> None:
        del self._readings[digest]
        if not done.cancelled():
            done.exception()  # seen, though everybody who asked may have left

    async def _read(self, digests: list[str]) -> _Answer:
        try:
            standing = await self._standing(digests)
        except NotAdmitted:
            self._known.pop(digests[0], None)
            raise
        self._known.pop(digests[0], None)
        while self._known:
            oldest = next(iter(self._known))
            if self._known[oldest].age < OLDEST and len(self._known) < MOST_KNOWN:
                break
            del self._known[oldest]
        body = json.dumps(standing.facts(), ensure_ascii=False, separators=(",", ":")).encode()
        answer = self._known[digests[0]] = _Answer(standing.key, body, time.monotonic())
        return answer

    async def _standing(self, digests: list[str]) -> Standing:
        """Return what the store has of a key now, with facts and a catalog that are no older."""
        cache = self.gateway.key_cache
        key = await cache.key(digests)
        for _ in range(MOST_STALE):
            totals = await cache.totals(key.key_id)
            catalog = cache.catalog
            key_changed = totals is None or not totals.proves(key)
            if totals is not None and not key_changed and totals.catalog_version == catalog.version:
                return Standing(key, catalog, totals, always_costs(catalog, key, CHAT, totals.as_of))
            catalog_changed = totals is None or totals.catalog_version != catalog.version
            key = await cache.renewed(digests, Stale(key=key_changed, catalog=catalog_changed))
        raise Unavailable("The key or the catalog changes faster than this question can be answered.")
