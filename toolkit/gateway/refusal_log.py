"""The log of refusals of known keys: the first of a key, reason and minute are rows, the rest are counted in memory.

A caller can be refused thousands of times a second; only what becomes a row costs the store a write.
"""

from toolkit.billing.batcher import Batcher
from toolkit.billing.rules import REFUSAL_ROWS_PER_MINUTE, Confirm, Refuse
from toolkit.store import refusal_counts
from toolkit.store.tally import Tallies


class RefusalLog:
    """Logs the refusals of one gateway process.

    Whether a refusal becomes a row is decided in the store, so all processes together write at most
    `REFUSAL_ROWS_PER_MINUTE` for a key, reason and minute. A process that has asked as often, or was told that the
    minute is full, asks no more in that minute.

    Args:
        batcher: runs billing.
        tallies: where the rest is counted.
    """

    def __init__(self, batcher: Batcher, tallies: Tallies) -> None:
        self._batcher = batcher
        self._tally = tallies.tally(refusal_counts.add)
        self._minute = 0
        self._asked: dict[refusal_counts.At, int] = {}

    async def log(self, job: Refuse) -> None:
        """Log a refusal.

        Raises:
            Stale: the key or the catalog has changed since the call was judged; it must be judged anew.
            Unavailable: the key store cannot be reached.
        """
        at = job.at
        minute = at[2]
        if minute > self._minute:
            self._minute = minute
            self._asked.clear()
        asked = self._asked.get(at, 0)
        if asked >= REFUSAL_ROWS_PER_MINUTE:
            if job.catalog_version is not None:
                await self._batcher.ask(Confirm(job.call.key, job.catalog_version))
            self._tally.count(at, job.now)
            return
        self._asked[at] = asked + 1
        try:
            became_row = await self._batcher.ask(job)
        except BaseException:
            self._asked[at] = max(self._asked.get(at, 0) - 1, 0)
            raise
        if not became_row:
            self._asked[at] = REFUSAL_ROWS_PER_MINUTE
