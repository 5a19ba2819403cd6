"""Streams whose callers have left, read on for their usage: how long, and how many of a key at once."""

import asyncio
import logging
from collections import Counter

logger = logging.getLogger("keydesk.gateway")

LONGEST = 30.0
"""Seconds for which a stream is read on."""

MOST = 20
"""Streams of one key that are read on at once; who leaves another one has it cancelled."""


class ReadingOn:
    """The streams that one gateway reads on. They are no calls of their callers' any more."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._of_key: Counter[str] = Counter()
        self._ended = False

    def take(self, key_id: str, passing: asyncio.Task[None]) -> bool:
        """Let the task that passes a stream go on without its caller; False if it is to be cancelled instead.

        Args:
            key_id: whose.
            passing: settles its call when it is cancelled, too.
        """
        if self._ended or self._of_key[key_id] >= MOST:
            return False
        self._of_key[key_id] += 1
        self._tasks.add(passing)
        timer = asyncio.get_running_loop().call_later(LONGEST, passing.cancel)

        def over(_: asyncio.Task[None]) -> None:
            timer.cancel()
            self._tasks.discard(passing)
            self._of_key[key_id] -= 1
            if not self._of_key[key_id]:
                del self._of_key[key_id]
            error = None if passing.cancelled() else passing.exception()
            if error is not None:  # nobody else is left to whom it could be told
                logger.error("a stream that was read on failed", exc_info=error)

        passing.add_done_callback(over)
        return True

    def end(self) -> None:
        """Cancel all, and take no more: the gateway stops."""
        self._ended = True
        for passing in self._tasks:
            passing.cancel()
