"""The cashier: runs a gateway's billing, many calls to a transaction.

Work that arrives while a transaction is being committed goes into the next one together, in order of arrival. So
the strict rules cost microseconds a call and one disk flush a batch, and the event loop never waits for a disk.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from toolkit.books import Job
from toolkit.errors import Unavailable
from toolkit.tills import BATCH, Till

T = TypeVar("T")


class Cashier:
    """Runs jobs through a till in shared transactions.

    Args:
        till: the cashier's own; used in a thread of its own, closed at the end.
    """

    def __init__(self, till: Till) -> None:
        self._till = till
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cashier")
        self._waiting: list[tuple[Job[Any], asyncio.Future[Any]]] = []
        self._arrived = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to work, on the running event loop."""
        self._work = asyncio.get_running_loop().create_task(self._run(), name="cashier")

    async def stop(self) -> None:
        """Finish what was asked for; what is asked for later is refused."""
        self._closed = True
        self._arrived.set()
        if self._work is not None:
            await self._work
        await asyncio.get_running_loop().run_in_executor(self._thread, self._till.close)
        self._thread.shutdown(wait=False)

    def ask(self, job: Job[T]) -> "asyncio.Future[T]":
        """Have a job judged in the next transaction; the future has its result once that has committed.

        What the job raises is raised by the future, and nothing it did is kept. Cancelling the future does not
        call the job back.

        Raises:
            Unavailable: the cashier has stopped; by the future: the key store cannot be reached, or whether the
                job was committed is not known.
        """
        if self._closed:
            raise Unavailable("The gateway is stopping.")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        self._arrived.set()
        return future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting or not self._closed:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                results = await loop.run_in_executor(self._thread, self._judge, [job for job, _ in batch])
                for (_, future), result in zip(batch, results, strict=True):
                    if future.done():
                        continue
                    if isinstance(result, BaseException):
                        future.set_exception(result)
                    else:
                        future.set_result(result)

    def _judge(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        try:
            return self._till.run(jobs)
        except Unavailable as error:
            return [Unavailable(str(error)) for _ in jobs]  # one each: raising adds to an exception
        except Exception as error:  # noqa: BLE001 - delivered to the one who asked
            if len(jobs) == 1:
                return [error]
            # One job wrote what the store does not take. Its neighbours must not suffer: each gets its own try.
            return [result for job in jobs for result in self._judge([job])]
