"""The calls under way: which hold money, which lease they need, how they end with the gateway, and their settling."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from toolkit.billing.call import Call, Ending
from toolkit.billing.hold_estimate import HoldBound
from toolkit.billing.leases import Progress
from toolkit.billing.rules import Admit, Admitted, Receipt, Settle, cost_of
from toolkit.core.catalog import Catalog
from toolkit.core.errors import Unavailable
from toolkit.core.money import usd
from toolkit.gateway.key_cache import KeyCache
from toolkit.gateway.reading_on import ReadingOn

logger = logging.getLogger("keydesk.gateway")

T = TypeVar("T")

SETTLE_PATIENCE = 60.0
"""Seconds for which a settlement is tried again while the key store cannot be reached."""


class UnderWay(Protocol):
    """What forwards a call."""

    def progress(self, least_age: float) -> Progress | None:
        """Return how far the call has come; None if it was not forwarded, or is younger than `least_age` seconds."""


class CallLifecycle:
    """What all calls of one gateway share.

    Args:
        key_cache: the way to billing.
        instance_id: owner of the holds.
    """

    def __init__(self, key_cache: KeyCache, instance_id: str) -> None:
        self.key_cache = key_cache
        self.instance_id = instance_id
        self.open_calls: dict[str, UnderWay | None] = {}
        """Calls that may hold money: their admission has been asked for, and their settlement is not done. With what
        forwards them, from when it does."""
        self.reading_on = ReadingOn()
        self.unsettled: set[str] = set()
        """Calls that nobody tries to settle any more, though they may hold money: they could have been forwarded."""
        self.lease = 0
        """Number of the lease that holds, 0 without one: then no call is admitted."""
        self._calls: set[asyncio.Task[Any]] = set()
        self._settlements: set[asyncio.Future[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a call in a task of its own, which ends with the gateway."""
        return _run(work, self._calls)

    def enter(self) -> asyncio.Task[Any]:
        """Let the present task, which runs a call, end with the gateway; `leave` when the call is over."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a call is a coroutine
        self._calls.add(task)
        return task

    def progress(self, least_age: float) -> dict[str, Progress]:
        """Return how far the forwarded calls have come that are at least `least_age` seconds old; from any thread."""
        forwarded = [(request_id, call) for request_id, call in list(self.open_calls.items()) if call is not None]
        found = ((request_id, call.progress(least_age)) for request_id, call in forwarded)
        return {request_id: progress for request_id, progress in found if progress is not None}

    def leave(self, task: asyncio.Task[Any]) -> None:
        """Forget a task whose call is over."""
        self._calls.discard(task)

    async def drain(self, grace: float) -> None:
        """Let the calls under way finish for `grace` seconds, end the rest, and wait until all are settled.

        Those whose callers have left end at once.
        """
        self.reading_on.end()
        if self._calls:
            await asyncio.wait(self._calls, timeout=grace)
        self.abort()
        while pending := self._calls | self._settlements:
            await asyncio.wait(pending)

    def abort(self) -> None:
        """End all calls under way; each is settled as aborted."""
        for call in self._calls:
            call.cancel()

    def current_lease(self) -> int:
        """Return the number of the lease that holds.

        Raises:
            Unavailable: none does.
        """
        if not self.lease:
            raise _no_lease()
        return self.lease

    async def hold(self, call: Call, bound: HoldBound, catalog: Catalog, lease: int) -> Admitted:
        """Place a call's hold, in the name of a lease.

        Raises:
            Stale: key or catalog are not what the call was judged by.
            Refusal: limit or wallet have no room for it.
            Unavailable: the key store cannot be reached, or the lease is lost.
        """
        self.open_calls[call.request_id] = None
        try:
            admitted = await self.key_cache.ask(Admit(call, bound, catalog.version, self.instance_id))
        except BaseException:
            # Should the store have admitted it after all, without our learning of it, the lease's heartbeat finds out.
            self.open_calls.pop(call.request_id, None)
            raise
        if self.lease != lease:
            # Somebody may have swept the hold already, though a new lease may hold by now. If not, the heartbeat does.
            self.open_calls.pop(call.request_id, None)
            raise _no_lease()
        return admitted

    def settle(self, call: Call, ending: Ending) -> "asyncio.Future[Receipt | None]":
        """Charge a call; keeps trying while the key store cannot be reached.

        It goes on whether or not anybody waits for the future, or cancels it. The future raises Unavailable if the
        store stayed away for a minute: then the hold will be written off.
        """
        settled: asyncio.Future[Receipt | None] = asyncio.get_running_loop().create_future()

        def tried(first: "asyncio.Future[Receipt | None]") -> None:
            error = first.exception()
            if isinstance(error, Unavailable):
                _run(self._settle_again(call, ending, settled), self._settlements)
            elif error is not None:
                self._not_settled(call, error, settled)
            else:
                self._settled(call, first.result(), settled)
            self._settlements.discard(first)

        first = self.key_cache.ask(Settle(call, ending))
        self._settlements.add(first)
        first.add_done_callback(tried)
        return settled

    async def _settle_again(self, call: Call, ending: Ending, settled: "asyncio.Future[Receipt | None]") -> None:
        give_up = time.monotonic() + SETTLE_PATIENCE
        lease = self.lease
        pause = 0.05
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)
            try:
                receipt = await self.key_cache.ask(Settle(call, ending)) or await self._settled_before(
                    call, ending, lease
                )
            except Unavailable as error:
                if time.monotonic() > give_up:
                    logger.error("call %s could not be settled: no key store", call.request_id)  # noqa: TRY400
                    self._not_settled(call, error, settled)
                    return
            except Exception as error:  # noqa: BLE001 - given to whoever waits
                self._not_settled(call, error, settled)
                return
            else:
                self._settled(call, receipt, settled)
                return

    async def _settled_before(self, call: Call, ending: Ending, lease: int) -> Receipt | None:
        """Return the receipt of a settlement that was committed though the store could not say so; None if it was not.

        Its row may be in the ledger by now, which is not read here. But while the lease lasted nobody else could have
        written the call off.
        """
        receipt = await self.key_cache.receipt(call.request_id)
        if receipt is None and lease and lease == self.lease:
            receipt = Receipt(cost_of(call, ending))
        return receipt

    def _settled(self, call: Call, receipt: Receipt | None, settled: "asyncio.Future[Receipt | None]") -> None:
        self.open_calls.pop(call.request_id, None)
        if receipt is None:
            logger.warning("lost settlement: call %s had been written off as abandoned", call.request_id)
        elif receipt.overrun:
            logger.warning("overrun: call %s cost more than its hold by %s USD", call.request_id, usd(receipt.overrun))
        if not settled.done():
            settled.set_result(receipt)

    def _not_settled(self, call: Call, error: BaseException, settled: "asyncio.Future[Receipt | None]") -> None:
        self.unsettled.add(call.request_id)
        self.open_calls.pop(call.request_id, None)
        if not settled.done():
            settled.set_exception(error)


def _no_lease() -> Unavailable:
    return Unavailable("The gateway's lease has ended.")


def _run(work: Coroutine[Any, Any, T], running: "set[Any]") -> "asyncio.Task[T]":
    task = asyncio.get_running_loop().create_task(work)
    running.add(task)  # the event loop itself keeps only a weak reference
    task.add_done_callback(running.discard)
    return task
