"""The cashier: one thread that runs a gateway's billing, many calls to a transaction.

Work that arrives while a transaction is being committed goes into the next one together, in order of arrival. So
the strict rules cost microseconds a call and one disk flush a batch, and the event loop never waits for a disk.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from typing import Any, TypeVar

from toolkit.database import Store
from toolkit.errors import Unavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]
_Job = tuple[Work, "asyncio.Future[Any]"]
_Result = tuple["asyncio.Future[Any]", Any, BaseException | None]

LARGEST_BATCH = 256


class Cashier:
    """Runs work against the key store in shared write transactions.

    Args:
        store: the key store; the cashier opens a connection of its own in its own thread.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="cashier", daemon=True)
        self._door = threading.Lock()  # nothing is asked for behind the end of the queue
        self._closed = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what was asked for, then end the thread; what is asked for later is refused."""
        with self._door:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()

    async def ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a write transaction; return its result once that transaction has committed.

        What `work` raises is raised here, and nothing it did is kept.

        Raises:
            Unavailable: the key store cannot be reached, or the cashier has stopped; nothing was changed.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._door:
            if self._closed:
                raise Unavailable("The gateway is stopping.")
            self._jobs.put((work, future))
        return await future

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        last = False
        while not last:
            batch = []
            job = self._jobs.get()
            while job is not None:
                batch.append(job)
                if len(batch) == LARGEST_BATCH or self._jobs.empty():
                    break
                job = self._jobs.get()
            last = job is None
            if not batch:
                break
            try:
                connection = connection or self._store.connect()
                results = _commit_together(connection, batch)
            except sqlite3.Error as error:
                # Nothing of this batch is kept; a fresh connection is tried with the next.
                reason = Unavailable(f"The key store cannot be reached: {error}")
                results = [(future, None, reason) for _, future in batch]
                if connection is not None:
                    connection.close()
                    connection = None
            for loop, answers in groupby(results, key=lambda result: result[0].get_loop()):
                with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
                    loop.call_soon_threadsafe(_deliver, list(answers))
        if connection is not None:
            connection.close()


def _commit_together(connection: sqlite3.Connection, batch: list[_Job]) -> list[_Result]:
    results: list[_Result] = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        for work, future in batch:
            connection.execute("SAVEPOINT call")
            try:
                results.append((future, work(connection), None))
            except sqlite3.OperationalError:
                raise
            except Exception as error:  # noqa: BLE001 - delivered to the one who asked
                connection.execute("ROLLBACK TO call")
                results.append((future, None, error))
            connection.execute("RELEASE call")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return results


def _deliver(results: list[_Result]) -> None:
    for future, value, error in results:
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
