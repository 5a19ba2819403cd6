"""How well holds foretold charges, as a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolkit.core.period import Period
from toolkit.ledger.ledger import Ledger
from toolkit.reports.dimensions import chosen, condition, grouped, with_decimals

if TYPE_CHECKING:
    import pandas as pd


def table(
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
        by: one or more of `dimensions.DIMENSIONS`, or `tag:NAME`.
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
