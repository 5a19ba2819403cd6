"""Reports: who spent what, as tables. Pure over a `Ledger`; each function is one query.

Money columns are int64 nano-USD, counts and tokens int64, moments UTC. The actor of the ledger sees its
organisation only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from toolkit.admin import keys, organisations
from toolkit.core.errors import InvalidInput
from toolkit.core.period import Period, billing_month
from toolkit.core.policy import Outcome
from toolkit.core.tags import carried, written
from toolkit.ledger.ledger import Ledger
from toolkit.store import refusal_counts as refused

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "DIMENSIONS",
    "TIMES",
    "UNTAGGED",
    "Period",
    "Totals",
    "chosen",
    "condition",
    "grouped",
    "hold_accuracy",
    "last_full_month",
    "ordered",
    "refusals",
    "requests",
    "spend",
    "totals",
    "with_decimals",
]

DIMENSIONS = {
    "key": ("key_id", "key", "key_label", "org"),
    "model": ("model",),
    "org": ("org_id", "org"),
    "plan": ("plan",),
    "dialect": ("dialect",),
    "hour": ("date_trunc('hour', admitted_at) AS hour",),
    "day": ("day",),
    "week": ("date_trunc('week', day)::DATE AS week",),
    "month": ("month",),
}
"""What reports can group by, with the columns that each gives; `tag:NAME` besides, for the value of a tag. Weeks are
those of ISO 8601: `week` is the Monday that one begins with."""

TIMES = ("hour", "day", "week", "month")
"""The dimensions that are times."""

UNTAGGED = "(none)"
"""What a report says of calls that do not have the tag it groups by."""

_NAMES = ("key", "key_label", "org")
"""Columns that say what an id before them is called: taken once for each id, not compared in every call."""

_SUMS = ("input_tokens", "cached_input_tokens", "output_tokens", "cost")
_ADMITTED = f"outcome <> '{Outcome.REFUSED}'"


@dataclass(frozen=True, slots=True)
class Totals:
    """What a period adds up to.

    Args:
        calls: admitted calls that ended.
        refused: refused calls, those beyond the logged ones included (see `refusals`).
        errors: admitted calls that ended in an upstream error or were abandoned.
        input_tokens: cached ones included.
        cached_input_tokens: the part read from a provider's cache.
        output_tokens: reasoning included.
        cost: nano-USD.
    """

    calls: int
    refused: int
    errors: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost: int


def spend(
    ledger: Ledger,
    by: Sequence[str],
    period: Period | None = None,
    *,
    org: str | None = None,
    key: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> "pd.DataFrame":
    """Return calls, tokens and cost of admitted calls, grouped.

    Args:
        ledger: whose actor's rows count.
        by: one or more of `DIMENSIONS`, or `tag:NAME`.
        period: by admission; everything by default.
        org: id or name, to count that organisation alone.
        key: id or name, to count that key alone; a deleted one by its id.
        tags: that a call must carry, all of them, to count.

    Returns:
        The dimensions' columns, then calls, input_tokens, cached_input_tokens, output_tokens and cost (nano-USD);
        in order of time if the first dimension is one, else the costliest first. `key_label` is the key's name,
        marked if the key is deleted.

    Raises:
        InvalidInput: no dimension, an unknown one, or one twice.
        NotFound: no such organisation or key (as in all reports).
    """
    columns = grouped("Spend", by)
    where, values = condition(period, tags, **chosen(ledger, org, key))
    sums = ", ".join(f"sum({name})::BIGINT AS {name}" for name in _SUMS)
    return ledger.df(
        f"SELECT {', '.join(columns)}, count(*) AS calls, {sums} FROM usage WHERE {_ADMITTED} AND {where}"
        f" GROUP BY ALL ORDER BY {ordered(by, columns, 'cost DESC')}",
        values,
        period=period,
    )


def grouped(what: str, by: Sequence[str]) -> list[str]:
    """Return the columns of the dimensions to group by, as SQL for a query with `GROUP BY ALL`.

    Args:
        what: the report, to be named when it cannot.
        by: of `DIMENSIONS`, or `tag:NAME`, whose column has that very name.

    Raises:
        InvalidInput: no dimension, an unknown one, or one twice.
    """
    unknown = [name for name in by if name not in DIMENSIONS and not (name.startswith("tag:") and name != "tag:")]
    if unknown or not by or len(set(by)) < len(by):
        known = f"{', '.join(DIMENSIONS)}, tag:NAME"
        raise InvalidInput(f"{what} is grouped by one or more of {known}; got {', '.join(by) or '-'}.")
    columns = [column for name in by for column in DIMENSIONS.get(name) or (_tag(name),)]
    columns = [f"any_value({column}) AS {column}" if column in _NAMES else column for column in columns]
    return list(dict.fromkeys(columns))  # `org` may come twice


def ordered(by: Sequence[str], columns: Sequence[str], else_by: str) -> str:
    """Return the order of a report's rows, as SQL: by time if the first dimension is one, else as the report says.

    Args:
        by: the dimensions.
        columns: from `grouped`, to stand first in the query; rows that are alike otherwise go by them.
        else_by: such as "cost DESC".
    """
    first = [by[0]] if by[0] in TIMES else []
    return ", ".join([*first, else_by, *(str(position + 1) for position in range(len(columns)))])


def with_decimals(frame: "pd.DataFrame", column: str, places: int) -> "pd.DataFrame":
    """Return the frame with a column of whole numbers as Decimals of so many places; what is missing is None."""
    parts = frame[column].astype(object).where(frame[column].notna(), None)
    frame[column] = parts.map(lambda number: Decimal(int(number)).scaleb(-places), na_action="ignore")
    return frame


def _tag(dimension: str) -> str:
    """Return the column of `tag:NAME`: the value of that tag in the JSON object `tags`."""
    name = dimension.removeprefix("tag:").replace("~", "~0").replace("/", "~1")  # a JSON pointer, RFC 6901
    pointer, column = "/" + name.replace("'", "''"), dimension.replace('"', '""')
    return f"coalesce(json_extract_string(tags, '{pointer}'), '{UNTAGGED}') AS \"{column}\""


def hold_accuracy(
    ledger: Ledger,
    by: Sequence[str] = ("key", "model"),
    period: Period | None = None,
    *,
    org: str | None = None,
    key: str | None = None,
) -> "pd.DataFrame":
    """Return how well holds foretold charges: what was held before the calls, and what they then cost.

    Only calls with usage count, those that were charged by tokens: a call that failed says nothing about its hold.

    Args:
        ledger: whose actor's rows count.
        by: one or more of `DIMENSIONS`, or `tag:NAME`.
        period: by admission; everything by default.
        org: id or name, to count that organisation alone.
        key: id or name, to count that key alone; a deleted one by its id.

    Returns:
        The dimensions' columns, then calls, held and cost (nano-USD), ratio (held ÷ cost as a Decimal, rounded to two
        decimals, half up; None if nothing was charged), overruns (calls that cost more than was held) and overrun (by
        how much, nano-USD); the largest overrun first, then the most held.

    Raises:
        InvalidInput: no dimension, an unknown one, or one twice.
    """
    columns = grouped("Hold accuracy", by)
    where, values = condition(period, None, **chosen(ledger, org, key))
    order = ", ".join(str(position + 1) for position in range(len(columns)))
    frame = ledger.df(
        f"SELECT {', '.join(columns)}, count(*) AS calls, sum(held)::BIGINT AS held, sum(cost)::BIGINT AS cost,"
        " ((200 * sum(held) + sum(cost)) // nullif(2 * sum(cost), 0))::BIGINT AS ratio,"
        " count(*) FILTER (WHERE overrun > 0) AS overruns, sum(overrun)::BIGINT AS overrun"
        f" FROM usage WHERE usage_source IS NOT NULL AND {where} GROUP BY ALL"
        f" ORDER BY overrun DESC, held DESC, {order}",
        values,
        period=period,
    )
    return with_decimals(frame, "ratio", 2)


def totals(ledger: Ledger, period: Period | None = None, *, org: str | None = None) -> Totals:
    """Return what a period adds up to; everything by default.

    Args:
        ledger: whose actor's rows count.
        period: by admission.
        org: id or name, to count that organisation alone.
    """
    where, values = condition(period, None, **chosen(ledger, org))
    sums = ", ".join(f"coalesce(sum({name}) FILTER (WHERE {_ADMITTED}), 0)::BIGINT AS {name}" for name in _SUMS)
    failed = f"outcome IN ('{Outcome.UPSTREAM_ERROR}', '{Outcome.ABANDONED}')"
    (row,) = ledger.sql(
        f"SELECT count(*) FILTER (WHERE {_ADMITTED}) AS calls, count(*) FILTER (WHERE {failed}) AS errors, {sums}"
        f" FROM usage WHERE {where}",
        values,
        period=period,
    ).to_pylist()
    return Totals(refused=int(refusals(ledger, period, org=org)["calls"].sum()), **row)


def last_full_month(ledger: Ledger) -> str:
    """Return the last month before this one that has calls, such as "2026-10"; this month if none has."""
    with ledger.store.read(ledger.actor) as tx:
        this = billing_month(tx.now)
    query = "SELECT coalesce(max(month) FILTER (month < $this), $this) AS month FROM usage"
    month: str = ledger.sql(query, {"this": this})["month"][0].as_py()
    return month


def refusals(ledger: Ledger, period: Period | None = None, *, org: str | None = None) -> "pd.DataFrame":
    """Return how often which key was refused for which reason, the most frequent first.

    Of each key's refusals for one reason only some of a minute are logged; the key store counts all. A minute that the
    period cuts in two is counted as logged, and so is a day that lies further back than counts are kept by minute.

    Args:
        ledger: whose actor's rows count.
        period: by the call's arrival; everything by default.
        org: id or name, to count that organisation alone.

    Returns:
        refusal, key_id, key, key_label, org, calls, last_at.
    """
    where, values = condition(period, None, **chosen(ledger, org))
    logged = ledger.df(
        f"""
        SELECT refusal, key_id, any_value(key) AS key, any_value(key_label) AS key_label, any_value(org) AS org,
               count(*) AS calls, max(admitted_at) AS last_at
        FROM usage WHERE outcome = '{Outcome.REFUSED}' AND {where} GROUP BY refusal, key_id
        """,
        values,
        period=period,
    )
    with ledger.store.read(ledger.actor) as tx:
        counted = refused.totals(tx, period or Period.all())
    at = zip(logged["key_id"], logged["refusal"], logged["calls"], strict=True)
    logged["calls"] = [max(calls, counted.get((key_id, refusal), 0)) for key_id, refusal, calls in at]
    logged["calls"] = logged["calls"].astype("int64")
    return logged.sort_values(
        ["calls", "last_at", "key_id", "refusal"], ascending=[False, False, True, True], ignore_index=True
    )


def requests(
    ledger: Ledger,
    *,
    request_id: str | None = None,
    key: str | None = None,
    model: str | None = None,
    outcome: str | None = None,
    overrun: bool = False,
    doubtful: bool = False,
    period: Period | None = None,
    org: str | None = None,
    tags: Mapping[str, str] | None = None,
    limit: int = 200,
    before: tuple[datetime, str] | None = None,
) -> "pd.DataFrame":
    """Return request-log rows, the newest first, with all columns of the view `usage`.

    Args:
        ledger: whose actor's rows are searched; those of deleted keys too.
        request_id: Keydesk's own id of the call.
        key: id or name; a deleted one by its id.
        model: public id, as the caller named it.
        outcome: one of `policy.Outcome`.
        overrun: only calls that cost more than was held for them.
        doubtful: only calls whose token counts may be wrong.
        period: by admission; everything by default.
        org: id or name.
        tags: that a call must carry, all of them.
        limit: most rows to return.
        before: moment of admission and id of a row, to go on behind it, as on the next page.
    """
    equal = {"request_id": request_id, "model": model, "outcome": outcome}
    where, values = condition(period, tags, **equal, **chosen(ledger, org, key))
    if overrun:
        where += " AND overrun > 0"
    if doubtful:
        where += " AND usage_doubt IS NOT NULL"
    if before is not None:
        where += " AND (admitted_at, request_id) < (?, ?)"
        values += before
        period = (period or Period.all()).until(before[0])
    return ledger.df(
        f"SELECT * FROM usage WHERE {where} ORDER BY admitted_at DESC, request_id DESC LIMIT ?",
        [*values, limit],
        period=period,
        request_id=request_id,
    )


def chosen(ledger: Ledger, org: str | None = None, key: str | None = None) -> dict[str, str | None]:
    """Return the ids of an organisation and a key, given by id or name or not at all, for `condition`.

    Raises:
        NotFound: the ledger's actor sees no such one: a sum of nothing would pass for an answer.
        Conflict: several keys have that name.
    """
    if org is None and key is None:
        return {}
    with ledger.store.read(ledger.actor) as tx:
        org_id = None if org is None else organisations.find(tx, org).id
        return {"org_id": org_id, "key_id": None if key is None else keys.find(tx, key).id}


def condition(
    period: Period | None, tags: Mapping[str, str] | None = None, **equal: str | None
) -> tuple[str, list[Any]]:
    """Return the condition that a period, tags and the columns given set, with its values."""
    where, values = (period or Period.all()).where()
    if tags:
        where, values = f"{where} AND {carried('?')}", [*values, written(tags)]
    given = {column: value for column, value in equal.items() if value is not None}
    return " AND ".join([where, *(f"{column} = ?" for column in given)]), [*values, *given.values()]
