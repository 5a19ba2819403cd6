"""The keeper of a gateway's lease: renews it, sweeps, and ends all calls should it be lost.

The holds of a gateway that does not renew are released by others, so a gateway that cannot reach the key store must
stop what it is doing before its lease ends: by its own monotonic clock, counted from before the last renewal.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, TypeVar

from toolkit import leases
from toolkit.books import Hold
from toolkit.database import SYSTEM, Store, store_now, utc_now
from toolkit.errors import Unavailable
from toolkit.gateway.call import Teller
from toolkit.leases import Progress

logger = logging.getLogger("keydesk.gateway")

T = TypeVar("T")

BEATS = 6
"""Renewals in the time of one lease; a call has to be over one beat before the lease is."""


class Keeper:
    """Keeps a gateway's lease while it runs.

    Args:
        store: the key store.
        teller: whose calls need the lease.
        seconds: length of the lease.
    """

    def __init__(self, store: Store, teller: Teller, seconds: float) -> None:
        self._store = store
        self._teller = teller
        self._seconds = seconds
        self._task: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._number = 0
        self._noted: dict[str, Progress] = {}
        self._thread = ThreadPoolExecutor(1, "lease")  # its own: look-ups that wait for the store must not delay it

    async def start(self) -> None:
        """Take the lease and keep it.

        Raises:
            Unavailable: the key store cannot be reached.
        """
        await self._renew()
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="lease")

    async def stop(self) -> None:
        """Give the lease up; whatever is still held is written off."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._alarm is not None:
            self._alarm.cancel()
        with contextlib.suppress(Unavailable):
            await self._in_thread(self._end)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._seconds / BEATS)
            try:
                await self._renew()
                await self._release_forgotten()
                swept = await self._in_thread(leases.sweep, self._store)
            except Unavailable as error:
                logger.error("the lease was not renewed: %s", error)  # noqa: TRY400
            except Exception:
                logger.exception("the lease was not renewed")  # and is tried again: no gateway lives without
            else:
                if swept:
                    logger.warning("%d holds of a gateway that had died were released", swept)

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        # Calls that a beat has passed over already: what is younger is not worth a write, and is lost if we die.
        progress = self._teller.progress(self._seconds / BEATS)
        news = {request_id: now for request_id, now in progress.items() if self._noted.get(request_id) != now}
        here, there = await self._in_thread(self._write_lease, news)
        self._noted = progress
        self._teller.book.set_clock(there, here)
        if self._alarm is not None:
            self._alarm.cancel()
        ends = begun + self._seconds * (1 - 1 / BEATS)
        if ends <= loop.time():
            if self._teller.lease:
                self._lose()
            return  # the renewal took too long to count on; the next beat tries again
        self._alarm = loop.call_at(ends, self._lose)
        if not self._teller.lease:
            self._number += 1
            self._teller.lease = self._number

    def _lose(self) -> None:
        logger.error("the lease is lost: the key store was away for too long; all calls are ended")
        self._teller.lease = 0
        self._teller.abort()

    def _write_lease(self, progress: dict[str, Progress]) -> tuple[datetime, datetime]:
        with self._store.write(SYSTEM) as tx:
            leases.renew(tx, self._teller.instance_id, timedelta(seconds=self._seconds))
            before = utc_now()
            there = store_now(tx)
            here = before + (utc_now() - before) / 2  # asked half-way between sending and receiving
            leases.note_progress(tx, progress)
            return here, there

    async def _release_forgotten(self) -> None:
        """Write off holds that this gateway placed without having learnt so: the answer to a commit got lost."""
        holds = await self._in_thread(self._held)
        # Asked now, not before: whoever has settled meanwhile holds nothing, and whoever is new is not in the list.
        if forgotten := [hold for hold in holds if hold.request_id not in self._teller.open_calls]:
            count = await self._in_thread(leases.abandon, self._store, forgotten, leases.FORGOTTEN)
            if count:
                logger.warning("%d holds that this gateway had not learnt of were released", count)

    def _held(self) -> list[Hold]:
        with self._store.read(SYSTEM) as tx:
            return leases.held_by(tx, self._teller.instance_id)

    def _end(self) -> None:
        with self._store.write(SYSTEM) as tx:
            leases.end(tx, self._teller.instance_id)
        leases.sweep(self._store)
