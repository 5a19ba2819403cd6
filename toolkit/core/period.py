"""Periods, UTC: billing months, and the spans of admission times that reports and exports are limited to."""

from dataclasses import dataclass
from datetime import MAXYEAR, UTC, date, datetime, timedelta
from typing import Any

from toolkit.core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Period:
    """A span of admission times, UTC, from `start` up to but not including `end`; None is open.

    Raises:
        InvalidInput: a bound is not in UTC, or the end does not come after the start.
    """

    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        for bound in (self.start, self.end):
            if bound is not None and (bound.utcoffset() is None or bound.utcoffset()):
                raise InvalidInput(f"A period is given in UTC, such as 2026-11-01T00:00:00Z, not {bound.isoformat()}.")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise InvalidInput(f"The period from {self.start.isoformat()} to {self.end.isoformat()} is empty.")

    @classmethod
    def all(cls) -> "Period":
        """Return the period of all calls there are."""
        return cls()

    @classmethod
    def month(cls, month: str) -> "Period":
        """Return a billing month, such as "2026-11".

        Raises:
            InvalidInput: not a month.
        """
        try:
            first = date.fromisoformat(f"{month}-01")
        except ValueError:
            raise InvalidInput(f"{month!r} is not a month. Write it like 2026-11.") from None
        start = datetime(first.year, first.month, 1, tzinfo=UTC)
        if start.year == MAXYEAR:
            raise InvalidInput(f"The month {month} is too late: the calendar ends with it.")
        return cls(start, (start + timedelta(days=31)).replace(day=1))

    @classmethod
    def days(cls, count: int, now: datetime) -> "Period":
        """Return the last `count` UTC days, the day of `now` included as the last one."""
        if count < 1:
            raise InvalidInput("A period must have at least one day.")
        end = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
        return cls(end - timedelta(days=count), end)

    @classmethod
    def spanning(cls, *periods: "Period") -> "Period":
        """Return the shortest period that holds all of these."""
        starts = [period.start for period in periods if period.start is not None]
        ends = [period.end for period in periods if period.end is not None]
        complete = len(periods)
        return cls(min(starts) if len(starts) == complete else None, max(ends) if len(ends) == complete else None)

    def until(self, last: datetime) -> "Period":
        """Return the part of the period up to and with a moment; all of it if that lies before its start."""
        end = last + timedelta(microseconds=1)
        if (self.start is not None and end <= self.start) or (self.end is not None and self.end <= end):
            return self
        return Period(self.start, end)

    def where(self) -> tuple[str, list[Any]]:
        """Return the period as an SQL condition on `usage`, with its values."""
        terms, values = ["true"], []
        if self.start is not None:
            terms.append("admitted_at >= ? AND day >= ?")  # the day lets whole files be skipped
            values += [self.start, self.start.date()]
        if self.end is not None:
            terms.append("admitted_at < ? AND day <= ?")
            values += [self.end, self.end.date()]
        return " AND ".join(terms), values


def billing_month(moment: datetime) -> str:
    """Return the billing month of a UTC moment, such as "2026-11".

    Raises:
        ValueError: the moment has no time zone.
    """
    if moment.tzinfo is not UTC and (moment.utcoffset() is None or moment.utcoffset()):
        raise ValueError("billing months are counted in UTC")
    return f"{moment.year:04}-{moment.month:02}"


def next_month(month: str) -> str:
    """Return the month after, such as "2026-12" → "2027-01"; limits start anew at its first instant, UTC."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12}-{number % 12 + 1:02d}"
