"""Spend: who spent what, as tables. Pure over a `Ledger`; each function is one query.

Money columns are int64 nano-USD, counts and tokens int64, moments UTC. The actor of the ledger sees its
organisation only, in this and in all reports.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.core.period import Period, billing_month
from toolkit.core.policy import Outcome
from toolkit.ledger.ledger import Ledger
from toolkit.ledger.pricing_sql import ADMITTED
from toolkit.reports import refusals
from toolkit.reports.dimensions import chosen, condition, grouped, ordered

if TYPE_CHECKING:
    import pandas as pd

_SUMS = ("input_tokens", "cached_input_tokens", "output_tokens", "cost")


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


def table(
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
        by: one or more of `dimensions.DIMENSIONS`, or `tag:NAME`.
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
        f"SELECT {', '.join(columns)}, count(*) AS calls, {sums} FROM usage WHERE {ADMITTED} AND {where}"
        f" GROUP BY ALL ORDER BY {ordered(by, columns, 'cost DESC')}",
        values,
        period=period,
    )


def totals(ledger: Ledger, period: Period | None = None, *, org: str | None = None) -> Totals:
    """Return what a period adds up to; everything by default.

    Args:
        ledger: whose actor's rows count.
        period: by admission.
        org: id or name, to count that organisation alone.
    """
    where, values = condition(period, None, **chosen(ledger, org))
    sums = ", ".join(f"coalesce(sum({name}) FILTER (WHERE {ADMITTED}), 0)::BIGINT AS {name}" for name in _SUMS)
    failed = f"outcome IN ('{Outcome.UPSTREAM_ERROR}', '{Outcome.ABANDONED}')"
    (row,) = ledger.sql(
        f"SELECT count(*) FILTER (WHERE {ADMITTED}) AS calls, count(*) FILTER (WHERE {failed}) AS errors, {sums}"
        f" FROM usage WHERE {where}",
        values,
        period=period,
    ).to_pylist()
    return Totals(refused=int(refusals.table(ledger, period, org=org)["calls"].sum()), **row)


def last_full_month(ledger: Ledger) -> str:
    """Return the last month before this one that has calls, such as "2026-10"; this month if none has."""
    with ledger.store.read(ledger.actor) as tx:
        this = billing_month(tx.now)
    query = "SELECT coalesce(max(month) FILTER (month < $this), $this) AS month FROM usage"
    month: str = ledger.sql(query, {"this": this})["month"][0].as_py()
    return month
