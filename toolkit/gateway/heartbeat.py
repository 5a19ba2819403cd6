"""The heartbeat of a gateway's lease: renews it, sweeps, and ends all calls should it be lost.

The holds of a gateway that does not renew are released by others, so a gateway that cannot reach the key store must
stop what it is doing before its lease ends: by its own monotonic clock, counted from before the last renewal.

A thread renews, so that a busy event loop loses no lease. It asks the loop for a sign of life each time, and lets the
lease go when the loop gives none for the lease's length: who does not answer callers must not keep their money held.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event, Thread
from typing import Any, TypeVar

from toolkit import environment
from toolkit.billing import leases
from toolkit.billing.leases import Progress
from toolkit.billing.state import Hold
from toolkit.core.errors import Unavailable
from toolkit.gateway.lifecycle import CallLifecycle
from toolkit.gateway.store_clock import Answer, StoreClock
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.transaction import Transaction, store_now, utc_now

logger = logging.getLogger("keydesk.gateway")

T = TypeVar("T")

BEATS = 6
"""Renewals in the time of one lease; a call has to be over one beat before the lease is."""

NOT_AHEAD = timedelta(0)
"""A key store in a file has the clock of its machine."""

AT_FIRST = 3
"""Times that the store's clock is asked before the first call."""

AWAY = "the key store was away for too long"
SILENT = "the event loop did not answer for too long, so that it was not renewed"
STOOD = "this process stood still for too long"
SWEPT = "it had ended before it was renewed, and another gateway has written its calls off"


class Heartbeat:
    """Keeps a gateway's lease while it runs.

    Args:
        store: the key store.
        lifecycle: whose calls need the lease.
        seconds: length of the lease.
        report: says what the gateway tells of itself, `core.gateway_report`; called in a thread of its own.

    Attributes:
        until: on the monotonic clock, when calls must be over unless the lease is renewed before.
        renewed, failed: on the monotonic clock, when it was last renewed, and when the store last refused.
    """

    def __init__(
        self, store: Store, lifecycle: CallLifecycle, seconds: float, report: Callable[[], str | None] = lambda: None
    ) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._seconds = seconds
        self._report = report
        self._beat = seconds / BEATS
        self._number = 0
        self._clock = StoreClock()
        self._why = STOOD
        self._noted: dict[str, Progress] = {}
        self.until = self.renewed = self.failed = -math.inf
        self._alarm: asyncio.TimerHandle | None = None
        self._upkeep: asyncio.Task[None] | None = None
        self._hands = ThreadPoolExecutor(1, "lease upkeep")
        self._thread = Thread(target=self._keep, name="lease", daemon=True)
        self._stopping = Event()
        self._heard = Event()
        self._heard_at = 0.0

    async def start(self) -> None:
        """Take the lease and keep it.

        Raises:
            Unavailable: the key store cannot be reached.
        """
        self._loop = asyncio.get_running_loop()
        await self._by_hand(self._renew)
        self._hear()
        self._thread.start()
        self._upkeep = self._loop.create_task(self._keep_up(), name="lease upkeep")

    async def stop(self) -> None:
        """Give the lease up; whatever is still held is written off."""
        self._stopping.set()
        if self._upkeep is not None:
            self._upkeep.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._upkeep
            await asyncio.to_thread(self._thread.join)
        if self._alarm is not None:
            self._alarm.cancel()
        with contextlib.suppress(Unavailable):
            await self._by_hand(self._end)
        self._hands.shutdown(wait=False)

    async def _by_hand(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._hands, work, *arguments)

    # -- in the thread ------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        while not self._stopping.wait(self._beat):
            self._heard.clear()
            self._loop.call_soon_threadsafe(self._hear)
            self._heard.wait(self._beat / 2)
            if time.monotonic() - self._heard_at >= self._seconds:
                if self._why is not SILENT:
                    logger.error("the lease is not renewed: the event loop has not answered for its length")
                self._why = SILENT
                continue
            self._why = AWAY  # until it is back
            try:
                self._renew()
            except Unavailable as error:
                self.failed = time.monotonic()
                logger.error("the lease was not renewed: %s", error)  # noqa: TRY400
            except Exception:
                logger.exception("the lease was not renewed")  # and is tried again: no gateway lives without

    def _renew(self) -> None:
        begun = time.monotonic()
        # Calls that a beat has passed over already: what is younger is not worth a write, and is lost if we die.
        progress = self._lifecycle.progress(self._beat)
        news = {request_id: now for request_id, now in progress.items() if self._noted.get(request_id) != now}
        held, ahead = self._write_lease(news)
        self._noted = progress
        self.until = begun + self._seconds - self._beat
        self.renewed = time.monotonic()
        self._why = STOOD
        self._loop.call_soon_threadsafe(self._renewed, held, ahead)

    def _write_lease(self, progress: dict[str, Progress]) -> tuple[bool, timedelta]:
        """Renew the lease; return whether it was held, and how far the store's clock is ahead."""
        report = self._report()
        with self._store.write(SYSTEM) as tx:
            held = leases.is_known(tx, self._lifecycle.instance_id)
            if not held:
                self._lifecycle.lease = 0  # at once: whoever is being admitted compares
            length = timedelta(seconds=self._seconds)
            leases.renew(tx, self._lifecycle.instance_id, length, environment.version(), report)
            ahead = self._look_at_clock(tx)
            leases.note_progress(tx, progress)
            return held, ahead

    def _look_at_clock(self, tx: Transaction) -> timedelta:
        """Return how far the store's clock is ahead; without a lease it is asked again, for one answer may be slow."""
        ahead = NOT_AHEAD
        times = 1 if self._lifecycle.lease else AT_FIRST
        for _ in range(times if tx.is_postgres else 0):
            sent = utc_now()
            there = store_now(tx)
            ahead = self._clock.heard(Answer(sent, there, utc_now())).by
        return ahead

    # -- in the event loop --------------------------------------------------------------------------------------

    def _hear(self) -> None:
        self._heard_at = time.monotonic()
        self._heard.set()

    def _renewed(self, held: bool, ahead: timedelta) -> None:
        self._lifecycle.key_cache.set_clock(ahead)
        if not held and self._number:
            self._lose(SWEPT)
        if self.until <= time.monotonic():
            return  # the renewal took too long to count on; the next beat tries again
        if not self._lifecycle.lease:
            self._number += 1
            self._lifecycle.lease = self._number
        if self._alarm is None:
            self._look()

    def _look(self) -> None:
        """Lose the lease if it was not renewed in time; however late this comes, the renewals are what counts."""
        left = self.until - time.monotonic()
        if left > 0:
            self._alarm = self._loop.call_later(left, self._look)
            return
        self._alarm = None
        self._lose(self._why)

    def _lose(self, why: str) -> None:
        logger.error("the lease is lost: %s; all calls are ended", why)
        self._lifecycle.lease = 0
        self._lifecycle.abort()

    # -- beside it ----------------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(self._beat)
            try:
                await self._release_forgotten()
                swept = await self._by_hand(leases.sweep, self._store)
            except Unavailable:
                continue  # the thread says so
            except Exception:
                logger.exception("holds that nobody settles could not be released")  # and is tried again
            else:
                if swept:
                    logger.warning("%d holds of a gateway that had died were released", swept)

    async def _release_forgotten(self) -> None:
        """Write off holds that nobody settles: the answer to a commit got lost, or the settlement was given up."""
        holds = {hold.request_id: hold for hold in await self._by_hand(self._held)}
        # Asked now, not before: whoever has settled meanwhile holds nothing, and whoever is new is not in the list.
        unsettled = self._lifecycle.unsettled = self._lifecycle.unsettled & holds.keys()
        forgotten = holds.keys() - self._lifecycle.open_calls.keys() - unsettled
        for calls, why, said in (
            (unsettled, leases.UNSETTLED, "calls that could not be settled were written off"),
            (forgotten, leases.FORGOTTEN, "holds that this gateway had not learnt of were released"),
        ):
            if calls:
                found = [holds[call] for call in calls]
                if count := await self._by_hand(leases.abandon, self._store, found, why):
                    logger.warning("%d %s", count, said)

    def _held(self) -> list[Hold]:
        with self._store.read(SYSTEM) as tx:
            return leases.held_by(tx, self._lifecycle.instance_id)

    def _end(self) -> None:
        with self._store.write(SYSTEM) as tx:
            leases.end(tx, self._lifecycle.instance_id)
        leases.sweep(self._store)
