"""How far the key store's clock is ahead of this machine's, from when it was asked and when it had answered. Pure.

The store looked at its clock somewhere between the two, so each answer bounds the difference, the tighter the sooner
it came; a midpoint alone is wrong by up to half a slow round trip. As in NTP's clock filter (RFC 5905, 10) the last
answers are kept, and each counts for less as it ages, for clocks drift. The difference lies where all of them overlap.
"""

from collections import deque
from datetime import datetime, timedelta
from typing import NamedTuple

KEPT = 8
"""Answers, as in NTP's filter: those of the last lease, and a little more."""

DRIFT = 1e-4
"""Seconds by which two clocks may part in each second; the oscillators of servers are better by far."""


class Answer(NamedTuple):
    """One reading of the store's clock.

    Args:
        sent, received: by this machine's clock.
        there: what the store's showed in between.
    """

    sent: datetime
    there: datetime
    received: datetime


class Ahead(NamedTuple):
    """An estimate of the difference.

    Args:
        by: what is to be added to this machine's clock.
        within: by how much that can be wrong.
    """

    by: timedelta
    within: timedelta


class StoreClock:
    """What one process knows of the store's clock."""

    def __init__(self) -> None:
        self._answers: deque[Answer] = deque(maxlen=KEPT)

    def heard(self, answer: Answer) -> Ahead:
        """Return how far the store's clock is ahead, now that it has answered once more.

        If the answers contradict each other, one of the two clocks was set: then the last one counts alone.
        """
        if answer.sent <= answer.received:  # else this machine's clock was set back meanwhile, and it says nothing
            self._answers.append(answer)
        elif not self._answers:
            return Ahead(answer.there - answer.received, answer.sent - answer.received)
        low, high = _overlap(self._answers, answer.received)
        if low > high:
            last = self._answers[-1]
            self._answers.clear()
            self._answers.append(last)
            low, high = _overlap(self._answers, answer.received)
        return Ahead(low + (high - low) / 2, (high - low) / 2)


def _overlap(answers: deque[Answer], now: datetime) -> tuple[timedelta, timedelta]:
    """Return the least and the largest difference that all answers allow."""
    aged = [(answer, abs(now - answer.sent) * DRIFT) for answer in answers]
    return (
        max(answer.there - answer.received - drift for answer, drift in aged),
        min(answer.there - answer.sent + drift for answer, drift in aged),
    )
