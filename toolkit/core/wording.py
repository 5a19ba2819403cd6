"""Wording: how sentences put numbers, spans, moments and lists. Pure."""

from collections.abc import Sequence
from datetime import datetime


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 call", "1,200 calls"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def days_between(start: datetime, end: datetime) -> str:
    """Return how many whole days lie between two moments: "31 days"."""
    return counted((end - start).days, "day")


def stamp(at: datetime) -> str:
    """Return a moment to the minute: "2026-11-23 14:10 UTC"."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


def listed(names: Sequence[str]) -> str:
    """Return names as a list in words: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
