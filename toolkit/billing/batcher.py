"""The batcher: runs a gateway's billing, many calls to a transaction.

Work that arrives while a transaction is being committed goes into the next one together, in order of arrival. So
the strict rules cost microseconds a call and one disk flush a batch, and the event loop never waits for a disk.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from toolkit.billing.state import Job
from toolkit.billing.stores import BATCH, BillingStore
from toolkit.core.errors import Unavailable

T = TypeVar("T")

_Asked = tuple[Job[Any], "asyncio.Future[Any]"]


class Batcher:
    """Runs jobs through a billing store in shared transactions.

    Args:
        billing store: the batcher's own; used in a thread of its own, closed at the end.
    """

    def __init__(self, billing_store: BillingStore) -> None:
        self._billing_store = billing_store
        # Not an executor: its futures would cost as much as a small batch does.
        self._thread = Thread(target=self._serve, name="batcher", daemon=True)
        self._batches: SimpleQueue[list[_Asked]] = SimpleQueue()
        self._waiting: list[_Asked] = []
        self._working = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self.committed = self.failed = -math.inf
        """When a commit last succeeded, and when the store last took none; on the monotonic clock."""

    def start(self) -> None:
        """Begin to work for the running event loop; nothing is asked for before."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Finish what was asked for; what is asked for later is refused."""
        self._closed = True
        await self._idle.wait()
        if self._thread.is_alive():
            self._batches.put([])
            await asyncio.to_thread(self._thread.join)

    def ask(self, job: Job[T]) -> "asyncio.Future[T]":
        """Have a job judged in the next transaction; the future has its result once that has committed.

        What the job raises is raised by the future, and nothing it did is kept. Cancelling the future does not
        call the job back.

        Raises:
            Unavailable: the batcher has stopped; by the future: the key store cannot be reached, or whether the
                job was committed is not known.
        """
        if self._closed:
            raise Unavailable("The gateway is stopping.")
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((job, future))
        if not self._working:
            self._working = True
            self._idle.clear()
            self._loop.call_soon(self._begin)  # what else arrives in this turn of the loop goes along
        return future

    def _begin(self) -> None:
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        self._batches.put(batch)

    def _deliver(self, batch: list[_Asked], results: list[Any]) -> None:
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
        if self._waiting:
            self._loop.call_soon(self._begin)
        else:
            self._working = False
            self._idle.set()

    def _serve(self) -> None:
        while batch := self._batches.get():
            results = self._judge([job for job, _ in batch])
            self._loop.call_soon_threadsafe(self._deliver, batch, results)
        self._billing_store.close()

    def _judge(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        try:
            results = self._billing_store.run(jobs)
            self.committed = time.monotonic()
            return results
        except Unavailable as error:
            self.failed = time.monotonic()
            return [Unavailable(str(error)) for _ in jobs]  # one each: raising adds to an exception
        except Exception as error:  # noqa: BLE001 - delivered to the one who asked
            if len(jobs) == 1:
                return [error]
            # One job wrote what the store does not take. Its neighbours must not suffer: each gets its own try.
            return [result for job in jobs for result in self._judge([job])]
