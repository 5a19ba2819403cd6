"""Request bodies: how much a key may send, and what becomes of those that are large.

A light body is one piece of bytes and is read where it is. A large one is kept in blocks, in a room that is shared
among organisations, and is read by a process (`readers`).
"""

from datetime import datetime

from toolkit.billing.hold_estimate import MOST_BYTES_PER_TOKEN
from toolkit.core.catalog import Catalog, ModelFacts
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.policy import KeyFacts
from toolkit.dialects.shape import Shape
from toolkit.gateway.blocks import Blocks
from toolkit.gateway.reader import Headers
from toolkit.gateway.readers import Inspection, Readers
from toolkit.gateway.turns import Turns

MEDIA_ALLOWANCE = 28 * 1024 * 1024
"""Bytes of pictures and documents in one body: 20 MB as base64, which is what Gemini takes inline (Google, "Image
understanding"), and near the 32 MB that Anthropic takes in all (Anthropic, "Errors", request size limits)."""

ROOM = 8
"""Largest bodies that the gateway keeps in memory at once; half of them of one organisation."""

PATIENCE = 60.0
"""Seconds that a large body waits for room, unread."""

WAITING = 64
"""Large bodies of one organisation that may wait."""


class LargeBody:
    """A body that is not read on the event loop. `close` it when the call is over.

    Args:
        bodies: all of them.
        org: whose.
        room: bytes that it has been given.
    """

    def __init__(self, bodies: "Bodies", org: str, room: int) -> None:
        self._bodies = bodies
        self._org = org
        self._room = room
        self._inspection = Inspection(bodies.readers, org)
        self._came = Blocks()
        self._blocks: list[bytes] = []

    @property
    def size(self) -> int:
        """Bytes that have come."""
        return self._came.size

    def add(self, part: bytes) -> None:
        """Add what has come."""
        self._came.add(part)

    async def inspect(
        self, dialect: Dialect, endpoint: str, model: str | None, headers: Headers
    ) -> tuple[Shape, str | None]:
        """Return shape and tags, once it is whole.

        Raises:
            Refusal: what is wrong with it, or unavailable.
        """
        if self._room > self.size:  # it did not say how large it is
            self._bodies.room.give(self._org, self._room - self.size)
            self._room = self.size
        self._blocks = self._came.take()
        return await self._inspection.inspect(
            self._blocks, dialect=dialect, endpoint=endpoint, model=model, headers=headers
        )

    async def rewrite(self, **arguments: object) -> list[bytes]:
        """Return what is to be forwarded: as it came, unless the dialect's `rewrite` changes it.

        Raises:
            Refusal: unavailable; who read it has ended meanwhile.
        """
        changed = await self._inspection.rewrite(**arguments)
        return self._blocks if changed is None else changed

    def drop(self) -> None:
        """Let go of the bytes, and of the room that they take."""
        self._came.take()
        self._blocks = []
        if self._room:
            self._bodies.room.give(self._org, self._room)
            self._room = 0

    async def close(self) -> None:
        """Let go of everything."""
        self.drop()
        await self._inspection.forget()


class Bodies:
    """The large bodies of all calls.

    Args:
        body_limit: bytes of the largest.
        readers: who reads them.
    """

    def __init__(self, body_limit: int, readers: Readers) -> None:
        self.readers = readers
        self.room = Turns(
            ROOM * body_limit,
            ROOM // 2 * body_limit,
            waiting=WAITING,
            patience=PATIENCE,
            what="more large request bodies of this organisation",
        )

    async def begin(self, key: KeyFacts, size: int) -> LargeBody:
        """Make room for a large body that is about to come.

        Args:
            key: who sends it.
            size: bytes that it has, or may have.

        Raises:
            Refusal: unavailable; there is no room for long.
        """
        await self.room.take(key.org_id, size)
        return LargeBody(self, key.org_id, size)

    def heavy(self, key: KeyFacts, body: bytes) -> LargeBody:
        """Return a body that has come and is not large, but would take long to read all the same."""
        heavy = LargeBody(self, key.org_id, 0)
        heavy.add(body)
        return heavy


def _embeds(model: ModelFacts, now: datetime) -> bool:
    """Whether it may be an embedding model: those put out nothing, and nothing has a price of zero."""
    dated = model.price(now)
    return model.max_output == 0 or (dated is not None and not any(tier.output for tier in dated.sheet.tiers))


def check_size(size: int, key: KeyFacts, catalog: Catalog, now: datetime, body_limit: int) -> None:
    """Refuse a body that is larger than any call of the key could need, before it is read.

    Args:
        size: bytes that have come or are said to come.
        key: who sends it.
        catalog: what the models that it may call take.
        now: UTC.
        body_limit: bytes that the gateway takes from anybody.

    Raises:
        Refusal: request_too_large, naming the number.
    """
    if size > body_limit:
        raise Refusal(
            RefusalType.REQUEST_TOO_LARGE,
            f"The request body is larger than {body_limit:,} bytes. Send less in one request; the operator can raise "
            "KEYDESK_BODY_LIMIT.",
        )
    plan = catalog.plans.get(key.plan_id)
    models = [catalog.models[name] for name in key.callable_models(plan.models)] if plan else []
    if any(_embeds(model, now) for model in models):  # each input of an embedding request has a context to itself
        return
    context = max((model.context_window for model in models), default=0)
    limit = MOST_BYTES_PER_TOKEN * context + MEDIA_ALLOWANCE
    if size > limit:
        raise Refusal(
            RefusalType.REQUEST_TOO_LARGE,
            f"The request body is larger than {limit:,} bytes: {MEDIA_ALLOWANCE:,} for media, and "
            f"{MOST_BYTES_PER_TOKEN} for each of the {context:,} tokens of the largest context that this API key may "
            "call. Send less in one request.",
        )
