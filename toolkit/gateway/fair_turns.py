"""Turns: what there is little of is given to each organisation in turn, so that one's flood delays no other's call."""

import asyncio
from collections import deque

from toolkit.core.errors import Refusal, RefusalType

_Waiting = tuple[int, "asyncio.Future[None]"]


class FairTurns:
    """Gives out parts of one amount.

    Those of one organisation are served in the order of their coming; between organisations it goes round. A part that
    is too large for what is free lets no smaller one of another organisation pass: it would wait for ever.

    Args:
        amount: what there is.
        share: the most of it that one organisation may have; it must hold the largest part.
        waiting: the most that may wait of one organisation.
        patience: seconds for which one waits.
        what: what is scarce, for the message.
    """

    def __init__(self, amount: int, share: int, *, waiting: int, patience: float, what: str) -> None:
        self._amount = self._free = amount
        self._share = share
        self._most = waiting
        self._patience = patience
        self._what = what
        self._held: dict[str, int] = {}
        self._queues: dict[str, deque[_Waiting]] = {}  # in the order of their turns

    def resize(self, amount: int, share: int) -> None:
        """Give out parts of another amount from now on; what is given out already comes back in its time."""
        if (amount, share) != (self._amount, self._share):
            self._free += amount - self._amount
            self._amount, self._share = amount, share
            self._serve_all()

    def take_at_once(self, org: str, part: int) -> bool:
        """Take a part if nobody has to be waited for; tell whether it was there, and must be given back."""
        if self._queues or part > self._free or self._held.get(org, 0) + part > self._share:
            return False
        self._free -= part
        self._held[org] = self._held.get(org, 0) + part
        return True

    async def take(self, org: str, part: int) -> None:
        """Wait for a part; whoever has got it must `give` it back.

        Raises:
            Refusal: unavailable; too many of this organisation wait already, or it took too long.
        """
        queue = self._queues.get(org)
        if queue is not None and len(queue) >= self._most:
            raise self._busy()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(org, deque()).append((part, turn))
        self._serve_all()
        try:
            async with asyncio.timeout(self._patience):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give(org, part)  # it had come just then
            else:
                turn.cancel()
                self._serve_all()  # it may have stood in another's way
            if isinstance(error, TimeoutError):
                raise self._busy() from None
            raise

    def give(self, org: str, part: int) -> None:
        """Take a part back."""
        self._free += part
        self._held[org] -= part
        if not self._held[org]:
            del self._held[org]
        self._serve_all()

    def _serve_all(self) -> None:
        while self._serve():
            pass

    def _serve(self) -> bool:
        """Give out one part; tell whether there was one to give."""
        for org in list(self._queues):
            queue = self._queues[org]
            while queue and queue[0][1].done():  # given up
                queue.popleft()
            if not queue:
                del self._queues[org]
                continue
            part, turn = queue[0]
            held = self._held.get(org, 0)
            if held + part > self._share:
                continue
            if part > self._free:
                return False
            queue.popleft()
            # Its next one comes after all others'.
            del self._queues[org]
            if queue:
                self._queues[org] = queue
            self._free -= part
            self._held[org] = held + part
            turn.set_result(None)
            return True
        return False

    def _busy(self) -> Refusal:
        return Refusal(
            RefusalType.UNAVAILABLE,
            f"The gateway has no room for {self._what} now. Send fewer at a time, or try again shortly.",
        )
