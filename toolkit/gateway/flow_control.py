"""How much of what a caller sends is taken at a time, so that others have their turn in between."""

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl

PIECE = 32 * 1024
"""Bytes that are parsed at a time where they may be thousands of chunks or requests."""


class Flow(FlowControl):
    """Pauses reading; while it is held, only its holder lets it go on.

    Args:
        transport: the connection's.
        loop: that serves it.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport)
        self._loop = loop
        self._stopped = False
        self._in_turns = False
        self.held = False

    def pause_reading(self) -> None:
        """Read no more for now: who is to take what has come is behind."""
        self.read_paused = True
        self._apply()

    def resume_reading(self) -> None:
        """Read on, unless it is held."""
        if self.read_paused and not self.held:
            self.read_paused = False
            self._apply()

    def hold(self) -> None:
        """Read no more until the holder has set `held` to false and resumed."""
        self.held = True
        self.pause_reading()

    def yield_turn(self) -> None:
        """Take no more in this turn of the loop: a sender as fast as we are could keep it busy with megabytes."""
        if not self._in_turns:
            self._take_turns(b"", _nothing)

    def divide(self, data: bytes, read: Callable[[bytes], None]) -> None:
        """Have data read piece by piece, each in a turn of its own, and take no more before that is done.

        Args:
            data: that has come.
            read: reads a piece; it is not asked any more once the connection is closed.
        """
        read(data[:PIECE])
        self._take_turns(data[PIECE:], read)

    def _take_turns(self, rest: bytes, read: Callable[[bytes], None]) -> None:
        self._in_turns = True
        self._apply()
        self._loop.call_soon(self._take_turn, rest, read)

    def _take_turn(self, rest: bytes, read: Callable[[bytes], None]) -> None:
        self._in_turns = False
        if rest and not self._transport.is_closing():
            self.divide(rest, read)
        else:
            self._apply()

    def _apply(self) -> None:
        stop = self.read_paused or self._in_turns
        if stop != self._stopped and not self._transport.is_closing():
            self._stopped = stop
            if stop:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()


def _nothing(_: bytes) -> None:
    pass
