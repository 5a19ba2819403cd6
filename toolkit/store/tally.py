"""Tallies: counts that are kept in memory and added to the key store once a minute, each tally's in one transaction.

What anybody can make happen thousands of times a second (a refusal, a call with a retired secret, a field that nobody
knows) must not cost a write each time. A process that is killed loses at most a minute's counts: so only counts are
kept here, never rows and never money.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Generic, NamedTuple, Protocol, TypeVar

from toolkit.core.errors import Unavailable
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.transaction import Transaction

logger = logging.getLogger("keydesk")

K = TypeVar("K")

FLUSH_EVERY = 60.0
"""Seconds between two additions to the store: what a killed process can lose."""

LEAST = 1.0
"""Seconds between two additions, however urgent they are."""

MOST_KEYS = 10_000
"""Keys that one tally counts between two additions; further ones are not counted, so that its memory has an end."""


class Counted(NamedTuple):
    """How often something happened since the last addition to the store, and when last (UTC)."""

    times: int
    last_at: datetime


class Tally(Generic[K]):
    """Counts by key; any thread may count. `Tallies.tally` makes one.

    Args:
        add: adds counts to the store, in a transaction of their own: to what stands there, since other processes add
            as well, and in an order that is the same for all of them.
        most: keys that are counted between two additions.
    """

    def __init__(self, add: Callable[[Transaction, Mapping[K, Counted]], None], most: int = MOST_KEYS) -> None:
        self._add = add
        self._most = most
        self._counts: dict[K, Counted] = {}
        self._lock = threading.Lock()

    def count(self, key: K, at: datetime, times: int = 1) -> None:
        """Count that something happened at `at` (UTC)."""
        with self._lock:
            past = self._counts.get(key)
            if past is not None:
                self._counts[key] = Counted(past.times + times, max(past.last_at, at))
            elif len(self._counts) < self._most:
                self._counts[key] = Counted(times, at)

    def flush(self, store: Store) -> None:
        """Add what was counted to the store; what cannot be added now stays counted.

        Raises:
            Unavailable: the store cannot be reached.
        """
        with self._lock:
            counts, self._counts = self._counts, {}
        if not counts:
            return
        try:
            with store.write(SYSTEM) as tx:
                self._add(tx, counts)
        except Unavailable:
            for key, (times, last_at) in counts.items():
                self.count(key, last_at, times)
            raise


class Flushed(Protocol):
    """What keeps something in memory that belongs into the store."""

    def flush(self, store: Store) -> None:
        """Write it; what cannot be written now is kept.

        Raises:
            Unavailable: the store cannot be reached.
        """


class Tallies:
    """All tallies of a process, and the thread that adds them to the store.

    Args:
        store: the key store.
        every: seconds between two additions.
    """

    def __init__(self, store: Store, every: float = FLUSH_EVERY) -> None:
        self._store = store
        self._every = every
        self._tallies: list[Flushed] = []
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._keep_adding, name="tallies", daemon=True)

    def tally(self, add: Callable[[Transaction, Mapping[K, Counted]], None], most: int = MOST_KEYS) -> Tally[K]:
        """Return a new tally, which is added to the store with the others; see `Tally`."""
        tally = Tally(add, most)
        self._tallies.append(tally)
        return tally

    def keep(self, flushed: Flushed) -> None:
        """Have something else written with the tallies."""
        self._tallies.append(flushed)

    def hurry(self) -> None:
        """Have all of it written soon, and not only when the time for it has come."""
        self._wake.set()

    def start(self) -> None:
        """Begin to add once in `every` seconds, and when it is urgent."""
        self._thread.start()

    def stop(self) -> None:
        """Add what was counted, for the last time; waits for the store."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def flush(self) -> None:
        """Add what was counted until now; what the store does not take now is tried again the next time."""
        for tally in self._tallies:
            try:
                tally.flush(self._store)
            except Unavailable as error:
                logger.warning("counts are kept until the key store is back: %s", error)
                return
            except Exception:
                logger.exception("counts could not be added to the key store and are lost")

    def _keep_adding(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._every)
            self._wake.clear()
            if not self._stopping.is_set():
                self.flush()
                self._stopping.wait(min(LEAST, self._every))
