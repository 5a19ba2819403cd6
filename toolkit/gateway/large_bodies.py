"""Large request bodies: kept in a room that is shared among organisations, and read by a process.

A light body is one piece of bytes and is read where it is. A large one is kept in blocks, and is read by a process of
`reader_pool`.
"""

from toolkit.core.dialect import Dialect
from toolkit.core.policy import KeyFacts
from toolkit.dialects.shape import Shape
from toolkit.gateway.byte_blocks import ByteBlocks
from toolkit.gateway.fair_turns import FairTurns
from toolkit.gateway.reader_pool import Inspection, ReaderPool
from toolkit.gateway.reader_process import Headers

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

    def __init__(self, bodies: "LargeBodies", org: str, room: int) -> None:
        self._bodies = bodies
        self._org = org
        self._room = room
        self._inspection = Inspection(bodies.readers, org)
        self._came = ByteBlocks()
        self._blocks: list[bytes] = []
        self._written: list[bytes] | None = None
        self._is_changed = False

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

    async def rewrite(self, *, keep: bool = False, **arguments: object) -> list[bytes]:
        """Return what is to be forwarded: as it came, unless the dialect's `rewrite` changes it.

        Args:
            keep: it may be asked for again, until it is dropped: with the same arguments, for it is written once.
            arguments: as the dialect's `rewrite` takes them.

        Raises:
            Refusal: unavailable; who read it has ended meanwhile.
        """
        if self._written is not None:
            return list(self._written)
        changed = await self._inspection.rewrite(**arguments)
        self._is_changed = changed is not None
        blocks = self._blocks if changed is None else changed
        if keep:
            self._written = list(blocks)
        return blocks

    async def fields_added(
        self, dialect: Dialect, endpoint: str, model: str | None, headers: Headers, **arguments: object
    ) -> set[str]:
        """Return the paths of what it was given by `rewrite`, which may be asked for again after this.

        Args:
            dialect, endpoint, model, headers: as `inspect` takes them; it has to be read again.
            arguments: as `rewrite` got them.

        Raises:
            Refusal: unavailable.
        """
        if not self._is_changed:  # or it is gone: it was sent as it came, or dropped
            return set()
        self._written = None
        await self._inspection.inspect(self._blocks, dialect=dialect, endpoint=endpoint, model=model, headers=headers)
        return await self._inspection.fields_added(**arguments)

    @property
    def is_gone(self) -> bool:
        """Whether it was dropped, so that it cannot be sent again."""
        return not self._blocks and self._written is None

    def drop(self) -> None:
        """Let go of the bytes, and of the room that they take."""
        self._came.take()
        self._blocks = []
        self._is_changed = False
        self._written = None
        if self._room:
            self._bodies.room.give(self._org, self._room)
            self._room = 0

    async def close(self) -> None:
        """Let go of everything."""
        self.drop()
        await self._inspection.forget()


class LargeBodies:
    """The large bodies of all calls.

    Args:
        body_limit: bytes of the largest.
        readers: who reads them.
    """

    def __init__(self, body_limit: int, readers: ReaderPool) -> None:
        self.readers = readers
        self.room = FairTurns(
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
