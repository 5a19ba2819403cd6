"""The 401 of secrets that admit nothing: unknown, rotated or deleted ones, and those of disabled or expired keys.

All get one answer, which does not tell which keys exist. Uses of a key's retired secrets are counted for its operators.
"""

import time
from datetime import datetime
from typing import NamedTuple

from toolkit.admin import secret_lookup
from toolkit.core.policy import KeyFacts, Unauthorized
from toolkit.store.tally import Tallies

LARGEST_DEAD_CACHE = 10_000

DEAD_FOR = 2.0
"""Seconds for which a secret that the store does not admit is not looked up again.

A secret is random and known to nobody before it is stored, so one that is unknown, rotated or deleted does not become
valid later; a store that was restored from a backup is believed after this time. Secrets of disabled or expired keys
are looked up each time: those do become valid again.
"""


class _Dead(NamedTuple):
    """A secret that admits nothing: until when that is believed, and the key that it once admitted, if any."""

    until: float
    facts: KeyFacts | None


class RejectedSecrets:
    """Remembers secrets that the store does not admit, so that a flood of them asks it no more than once each.

    Args:
        tallies: where uses of retired secrets are counted.
    """

    def __init__(self, tallies: Tallies) -> None:
        self._dead: dict[str, _Dead] = {}
        self._retired_uses = tallies.tally(secret_lookup.note_retired)

    def check(self, digests: list[str], now: datetime) -> None:
        """Turn a secret away that was turned away a moment ago.

        Raises:
            Unauthorized: it was.
        """
        dead = self._dead.get(digests[0])
        if dead is not None and time.monotonic() < dead.until:
            raise self._unauthorized(digests, dead.facts, now)

    def turn_away(self, digests: list[str], retired: KeyFacts | None, now: datetime) -> Unauthorized:
        """Remember a secret that the store does not admit; return what its caller is told.

        Args:
            digests: of the secret.
            retired: the key that it once admitted, if any.
            now: UTC.
        """
        self._dead.pop(digests[0], None)
        if len(self._dead) >= LARGEST_DEAD_CACHE:
            del self._dead[next(iter(self._dead))]  # the oldest
        self._dead[digests[0]] = _Dead(time.monotonic() + DEAD_FOR, retired)
        return self._unauthorized(digests, retired, now)

    def _unauthorized(self, digests: list[str], retired: KeyFacts | None, now: datetime) -> Unauthorized:
        if retired is not None:
            for digest in digests:
                self._retired_uses.count(digest, now)
        return Unauthorized(retired)
