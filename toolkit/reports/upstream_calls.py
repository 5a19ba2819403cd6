"""Upstream calls: how many each upstream was sent, how many failed, and how long they took."""

from typing import TYPE_CHECKING

from toolkit.core.period import Period
from toolkit.core.policy import Outcome
from toolkit.ledger.ledger import Ledger
from toolkit.ledger.pricing_sql import REFUSED
from toolkit.reports.dimensions import condition

if TYPE_CHECKING:
    import pandas as pd

_FAILED = f"outcome = '{Outcome.UPSTREAM_ERROR}'"
_DONE = f"outcome = '{Outcome.COMPLETED}'"


def table(ledger: Ledger, period: Period | None = None) -> "pd.DataFrame":
    """Return what became of the calls that were sent to each upstream, by its name.

    A caller who left, and a gateway that died, are no failures of the upstream.

    Args:
        ledger: whose actor's rows count.
        period: by the call's arrival; everything by default.

    Returns:
        upstream, calls, failed; the medians of `first_byte_ms` and `duration_ms` of calls that were completed, and the
        95th percentile of the latter as `slow_ms` (milliseconds; missing without any); last_error and last_error_at of
        the newest that failed.
    """
    where, values = condition(period, None)
    return ledger.df(
        f"""
        SELECT upstream, count(*) AS calls, count(*) FILTER (WHERE {_FAILED}) AS failed,
               round(quantile_cont(first_byte_ms, 0.5) FILTER (WHERE {_DONE}))::BIGINT AS first_byte_ms,
               round(quantile_cont(duration_ms, 0.5) FILTER (WHERE {_DONE}))::BIGINT AS duration_ms,
               round(quantile_cont(duration_ms, 0.95) FILTER (WHERE {_DONE}))::BIGINT AS slow_ms,
               arg_max(error, admitted_at) FILTER (WHERE {_FAILED}) AS last_error,
               max(admitted_at) FILTER (WHERE {_FAILED}) AS last_error_at
        FROM usage WHERE upstream IS NOT NULL AND NOT {REFUSED} AND {where} GROUP BY upstream ORDER BY upstream
        """,
        values,
        period=period,
    )
