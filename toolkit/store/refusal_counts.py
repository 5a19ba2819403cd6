"""The counts of refused calls, beside the rows of the request log that the first of each minute are.

They are kept by minute for two days and by UTC day for `KEPT`, so that their number goes with keys and days, and not
with how often somebody tries.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, select, text, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from toolkit.core.moments import micros, moment
from toolkit.core.period import Period
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.locks import lock_name
from toolkit.store.tables import ApiKey, RefusalCount, RefusalDay
from toolkit.store.tally import Counted
from toolkit.store.transaction import Transaction

At = tuple[str, str, int]
"""Key, reason (`errors.RefusalType`) and minute since 1970."""

BY_MINUTE = timedelta(days=2)
"""How long counts are kept by minute, at least."""

KEPT = timedelta(days=400)
"""How long counts are kept; the rows of the ledger, up to 60 a minute, stay."""

AT_ONCE = 20_000
"""Counts that one transaction folds: it keeps other writers waiting for that long."""

_MINUTE = 60_000_000
_DAY = 24 * 60 * _MINUTE
"""Microseconds."""

_ADD = text(
    "INSERT INTO refusal_count (key_id, refusal, minute, refused) VALUES (:key_id, :refusal, :minute, :times)"
    " ON CONFLICT (key_id, refusal, minute) DO UPDATE SET refused = refusal_count.refused + excluded.refused"
)
_ADD_DAY = text(
    "INSERT INTO refusal_day (key_id, refusal, day, refused, last_minute)"
    " VALUES (:key_id, :refusal, :day, :refused, :last_minute)"
    " ON CONFLICT (key_id, refusal, day) DO UPDATE SET refused = refusal_day.refused + excluded.refused,"
    " last_minute = CASE WHEN refusal_day.last_minute > excluded.last_minute"
    " THEN refusal_day.last_minute ELSE excluded.last_minute END"
)


def add(tx: Transaction, counts: Mapping[At, Counted]) -> None:
    """Add refusals to what is counted already; for a `tally`."""
    tx.session.execute(
        _ADD,
        [
            {"key_id": key, "refusal": refusal, "minute": minute, "times": counts[key, refusal, minute].times}
            for key, refusal, minute in sorted(counts)  # in one order, so that no two processes wait for each other
        ],
    )


def totals(tx: Transaction, period: Period) -> dict[tuple[str, str], int]:
    """Return how often each key was refused for each reason, by key and reason, as far as the actor may see it.

    Args:
        tx: a read transaction.
        period: minutes and, of what is older than `BY_MINUTE`, days that it cuts in two are left out.
    """
    found: dict[tuple[str, str], int] = {}
    for table, column, length in ((RefusalCount, RefusalCount.minute, _MINUTE), (RefusalDay, RefusalDay.day, _DAY)):
        query = select(table.key_id, table.refusal, func.sum(table.refused)).group_by(table.key_id, table.refusal)
        if tx.actor.org_id is not None:
            query = query.where(_of(table.key_id, tx.actor.org_id))
        for key_id, refusal, refused in tx.session.execute(query.where(*_within(column, length, period))):
            found[key_id, refusal] = found.get((key_id, refusal), 0) + int(refused)
    return found


def last(tx: Transaction) -> Iterator[tuple[str, str, datetime]]:
    """Yield key, reason and when (UTC, to the minute) a key was last refused for it, as far as the actor may see it.

    A key may come twice for one reason.
    """
    for table, column in ((RefusalCount, RefusalCount.minute), (RefusalDay, RefusalDay.last_minute)):
        query = select(table.key_id, table.refusal, func.max(column)).group_by(table.key_id, table.refusal)
        if tx.actor.org_id is not None:
            query = query.where(_of(table.key_id, tx.actor.org_id))
        for key_id, refusal, minute in tx.session.execute(query):
            yield key_id, refusal, moment(minute * _MINUTE)


def _of(key_id: InstrumentedAttribute[str], org_id: str) -> ColumnElement[bool]:
    return key_id.in_(select(ApiKey.id).where(ApiKey.org_id == org_id))


def _within(column: InstrumentedAttribute[int], length: int, period: Period) -> list[ColumnElement[bool]]:
    """Return the conditions under which a span of so many microseconds, numbered since 1970, lies in a period."""
    conditions: list[ColumnElement[bool]] = []
    if period.start is not None:
        conditions.append(column >= -(-micros(period.start) // length))
    if period.end is not None:
        conditions.append(column < micros(period.end) // length)
    return conditions


def fold(store: Store, now: datetime | None = None) -> int:
    """Add the counts of minutes that lie `BY_MINUTE` back to those of their days, and drop days beyond `KEPT`.

    Args:
        store: the key store.
        now: UTC; the present by the store's clock by default.

    Returns:
        How many counts of minutes became part of a day's.

    Raises:
        Unavailable: the key store cannot be reached; what was folded before stays so.
    """
    folded = 0
    while step := _fold_some(store, now):
        folded += step
    return folded


def _fold_some(store: Store, now: datetime | None) -> int:
    at = (RefusalCount.key_id, RefusalCount.refusal, RefusalCount.minute)
    with store.write(SYSTEM, now) as tx:
        lock_name(tx, "refusal days")
        midnight = tx.now.replace(hour=0, minute=0, second=0, microsecond=0)
        tx.session.execute(delete(RefusalDay).where(RefusalDay.day < micros(midnight - KEPT) // _DAY))
        old = RefusalCount.minute < micros(midnight - BY_MINUTE) // _MINUTE
        rows = tx.session.execute(select(*at, RefusalCount.refused).where(old).order_by(*at).limit(AT_ONCE)).all()
        if not rows:
            return 0
        days: dict[At, tuple[int, int]] = {}
        for key_id, refusal, minute, refused in rows:  # in order of their minutes
            day = key_id, refusal, minute * _MINUTE // _DAY
            days[day] = days.get(day, (0, 0))[0] + refused, minute
        tx.session.execute(
            _ADD_DAY,
            [
                {"key_id": key_id, "refusal": refusal, "day": day, "refused": refused, "last_minute": last}
                for (key_id, refusal, day), (refused, last) in days.items()
            ],
        )
        tx.session.execute(delete(RefusalCount).where(old, tuple_(*at) <= tuple(rows[-1][:3])))
        return len(rows)
