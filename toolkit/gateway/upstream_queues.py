"""Places at upstreams that take only so many calls at once: who finds none waits, in turns between organisations."""

import asyncio

from starlette.types import Receive

from toolkit.core.errors import Refusal, RefusalType
from toolkit.gateway.fair_turns import FairTurns
from toolkit.gateway.request import caller_leaves

PATIENCE = 5.0
"""Seconds for which a call waits for a place."""

WAITING = 256
"""Calls of one organisation that may wait for a place at one upstream."""


class Place:
    """A call's place at an upstream, from before its hold until its connection is free again.

    Args:
        upstream: its name.
        turns: where it is given back.
        org: whose call it is.
    """

    def __init__(self, upstream: str, turns: FairTurns, org: str) -> None:
        self.upstream = upstream
        self._turns = turns
        self._org = org
        self._is_taken = True

    def leave(self) -> None:
        """Give it to whoever waits; once, however often this is said."""
        if self._is_taken:
            self._is_taken = False
            self._turns.give(self._org, 1)


class UpstreamQueues:
    """The places at all upstreams of one gateway process that have a bound.

    Args:
        patience: seconds for which a call waits.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._turns: dict[str, FairTurns] = {}

    async def enter(
        self,
        upstream: str,
        most: int,
        org: str,
        key: str = "",
        *,
        waits: bool = True,
        receive: Receive | None = None,
    ) -> Place:
        """Take a place, and wait for one if need be.

        One organisation may have all of them while nobody else asks; then each has its turn, and within it each key.

        Args:
            upstream: its name.
            most: calls that may be under way there, as the operator has it now.
            org: whose call it is.
            key: with which it came.
            waits: whether there is nowhere else to go.
            receive: says when the caller leaves, who then waits no longer; None if somebody else looks to that.

        Raises:
            Refusal: upstream_overloaded; there was none in time, or too many wait already.
        """
        turns = self._turns.get(upstream)
        if turns is None:
            what = "more calls to this upstream"
            turns = self._turns[upstream] = FairTurns(most, most, waiting=WAITING, patience=self._patience, what=what)
        turns.resize(most, most)
        if not turns.take_at_once(org, 1):
            if not waits:
                raise _full()
            try:
                await (turns.take(org, 1, key) if receive is None else _wait(turns, org, key, receive))
            except Refusal:
                raise _full() from None
        return Place(upstream, turns, org)


async def _wait(turns: FairTurns, org: str, key: str, receive: Receive) -> None:
    """Wait for a place until the caller leaves.

    Raises:
        Refusal: the caller has left, and nobody reads it; or as `turns` has it.
    """
    turn = asyncio.ensure_future(turns.take(org, 1, key))
    leaving = asyncio.ensure_future(caller_leaves(receive))
    try:
        await asyncio.wait({turn, leaving}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        if turn.done() and turn.exception() is None:
            turns.give(org, 1)  # it had come just then
        turn.cancel()
        raise
    finally:
        leaving.cancel()
    if not turn.done():
        turn.cancel()
        raise _full()
    turn.result()


def _full() -> Refusal:
    return Refusal(
        RefusalType.UPSTREAM_OVERLOADED,
        "As many calls are under way to the provider of this model as the gateway may make at once, and none ended in "
        "time. Try again shortly, or send fewer at a time.",
        headers={"retry-after": "1"},
    )
