"""Turns: what there is little of is given to each organisation in turn, so that one's flood delays no other's call."""

import asyncio
import contextlib
from collections import deque

from toolkit.core.errors import Refusal, RefusalType

_Waiting = tuple[int, "asyncio.Future[None]"]


class FairTurns:
    """Gives out parts of one amount.

    Those of one key are served in the order of their coming; between organisations it goes round, and within one
    between its keys. A part that is too large for what is free lets no smaller one of another organisation pass: it
    would wait for ever.

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
        self._queues: dict[str, dict[str, deque[_Waiting]]] = {}  # by organisation and key, in the order of their turns

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

    async def take(self, org: str, part: int, key: str = "") -> None:
        """Wait for a part; whoever has got it must `give` it back.

        Args:
            org: whose it is.
            part: how much.
            key: between whose calls it goes round within the organisation.

        Raises:
            Refusal: unavailable; too many of this organisation wait already, or it took too long.
        """
        keys = self._queues.setdefault(org, {})
        if sum(map(len, keys.values())) >= self._most:
            self._make_room(keys, key)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = part, turn
        keys.setdefault(key, deque()).append(waiting)
        self._serve_all()
        try:
            async with asyncio.timeout(self._patience):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give(org, part)  # it had come just then
            else:
                turn.cancel()
                with contextlib.suppress(ValueError):  # it has made room
                    keys.get(key, deque()).remove(waiting)
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

    def _make_room(self, keys: dict[str, deque[_Waiting]], key: str) -> None:
        """Refuse the newest of the key with most that wait, so that one key of an organisation keeps no other out.

        Raises:
            Refusal: unavailable; this key has as many.
        """
        greediest = max(keys, key=lambda one: len(keys[one]))
        if len(keys[greediest]) <= len(keys.get(key, ())) + 1:
            raise self._busy()
        _, turn = keys[greediest].pop()
        if not turn.done():
            turn.set_exception(self._busy())

    def _serve_all(self) -> None:
        while self._serve():
            pass

    def _serve(self) -> bool:
        """Give out one part; tell whether there was one to give."""
        for org in list(self._queues):
            keys = self._queues[org]
            key = _next_of(keys)
            if key is None:
                del self._queues[org]
                continue
            part, turn = keys[key][0]
            held = self._held.get(org, 0)
            if held + part > self._share:
                continue
            if part > self._free:
                return False
            # Its next one comes after all others'; and so within the organisation.
            queue = keys.pop(key)
            queue.popleft()
            if queue:
                keys[key] = queue
            del self._queues[org]
            if keys:
                self._queues[org] = keys
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


def _next_of(keys: dict[str, deque[_Waiting]]) -> str | None:
    """Return the key whose turn it is; None if none waits. What has been given up is forgotten."""
    while keys:
        key = next(iter(keys))
        queue = keys[key]
        while queue and queue[0][1].done():
            queue.popleft()
        if queue:
            return key
        del keys[key]
    return None
