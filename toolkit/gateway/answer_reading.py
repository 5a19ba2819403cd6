"""Taking in what upstreams answer: what is large is kept in blocks, within bounds, and read by a process."""

import json
from contextlib import suppress
from typing import Any

from toolkit.core.errors import Refusal
from toolkit.dialects.meter import StreamMeter
from toolkit.dialects.skim import LIGHT_SIZE, is_light
from toolkit.gateway.byte_blocks import ByteBlocks
from toolkit.gateway.fair_turns import FairTurns
from toolkit.gateway.reader_pool import ReaderFailed, ReaderPool
from toolkit.gateway.upstream_exchange import LARGEST_ANSWER, Exchange, UpstreamBroke

ROOM = 4
"""Largest answers that the gateway keeps in memory at once; half of them of one organisation."""

WAITING = 1_024
"""Large answers of one organisation that may wait for room, unread."""


class WholeAnswer:
    """A whole answer; `drop` it when it has been sent.

    Args:
        room: of the gateway's large answers.
        org: whose call it answers.
    """

    def __init__(self, room: FairTurns, org: str) -> None:
        self._room = room
        self._org = org
        self._held = 0
        self.size = 0
        self.blocks: list[bytes] = []

    async def take_in(self, exchange: Exchange) -> None:
        """Read it.

        Raises:
            UpstreamBroke, UpstreamSlow: as `Exchange.read`; also when it is too large.
            Refusal: unavailable; there was no room for long.
        """
        came = ByteBlocks()
        try:
            while chunk := await exchange.read():
                came.add(chunk)
                if came.size > LIGHT_SIZE and not self._held:
                    most = min(exchange.announced or LARGEST_ANSWER, LARGEST_ANSWER)
                    await self._room.take(self._org, most)
                    self._held = most
                if came.size > LARGEST_ANSWER:
                    raise UpstreamBroke("the answer is too large")
        finally:
            self.size = came.size
            self.blocks = came.take()
        if self._held > self.size:  # it did not say how large it is
            self._room.give(self._org, self._held - self.size)
            self._held = self.size

    @property
    def beginning(self) -> bytes:
        """The first bytes of what has come, though it may not be whole."""
        return b"".join(self.blocks[:1])

    def drop(self) -> None:
        """Let go of the bytes, and of the room that they take."""
        self.blocks = []
        if self._held:
            self._room.give(self._org, self._held)
            self._held = 0


class AnswerReader:
    """What all answers of a gateway share.

    Args:
        readers: who reads what is large.
        patience: seconds that a large answer waits for room.
    """

    def __init__(self, readers: ReaderPool, patience: float) -> None:
        self._readers = readers
        self._room = FairTurns(
            ROOM * LARGEST_ANSWER,
            ROOM // 2 * LARGEST_ANSWER,
            waiting=WAITING,
            patience=patience,
            what="more large answers of this organisation",
        )

    def whole(self, org: str) -> WholeAnswer:
        """Return what takes in a whole answer to a call of an organisation."""
        return WholeAnswer(self._room, org)

    async def parse(self, answer: WholeAnswer, org: str) -> tuple[dict[str, Any] | None, int]:
        """Return an answer's JSON object, and how many bytes of it are not in there, because they are long.

        None if it is none. What nobody could read in time is an object that says nothing.
        """
        if answer.size <= LIGHT_SIZE:
            text = b"".join(answer.blocks)
            if is_light(text):
                with suppress(Unbuildable):
                    return parsed(text), 0
        try:
            async with self._readers.leased(org) as reader:
                (found, left_out), _ = await reader.ask("skim", answer.blocks)
        except (ReaderFailed, Refusal):
            return {}, answer.size
        return found, left_out

    async def watch(self, answer: WholeAnswer, meter: StreamMeter, org: str, *, sse: bool) -> list[bytes] | None:
        """Have a meter read a stream that has been taken in as a whole.

        Returns:
            What the meter kept back; None if the stream is too large to be read in one go.

        Raises:
            UpstreamBroke: a part of it could not be read in time.
        """
        if answer.size > LIGHT_SIZE:
            return None
        meter.feed(b"".join(answer.blocks))
        for finish in (False, True):
            if finish:
                meter.end()
            while (heavy := meter.heavy) is not None:
                meter.resume(*await self.stand_in(heavy, org, sse=sse))
        return meter.finish()

    async def stand_in(self, piece: bytes, org: str, *, sse: bool) -> tuple[bytes, int]:
        """Return a short piece of a stream that says the same as a long one, and how many bytes it leaves out.

        Raises:
            UpstreamBroke: nobody could read it in time.
        """
        try:
            async with self._readers.leased(org) as reader:
                (short, left_out), _ = await reader.ask("stand_in", [piece], sse=sse)
        except (ReaderFailed, Refusal):
            raise UpstreamBroke("an event of the stream took too long to read") from None
        return short, left_out


class Unbuildable(Exception):
    """JSON that is nested too deeply to be built, or holds a number of thousands of digits."""


def parsed(answer: bytes) -> dict[str, Any] | None:
    """Return the JSON object that an answer is; None if it is none.

    Raises:
        Unbuildable: it can be skimmed only. A model makes such arguments of tools when it is asked to.
    """
    try:
        value = json.loads(answer.decode(errors="replace").removeprefix("\ufeff"))
    except json.JSONDecodeError:
        return None
    except (ValueError, RecursionError):
        raise Unbuildable from None
    return value if isinstance(value, dict) else None
