"""Refusals: which key was refused how often, for which reason."""

from typing import TYPE_CHECKING

from toolkit.core.period import Period
from toolkit.ledger.ledger import Ledger
from toolkit.ledger.pricing_sql import REFUSED
from toolkit.reports.dimensions import chosen, condition
from toolkit.store import refusal_counts as refused

if TYPE_CHECKING:
    import pandas as pd


def table(ledger: Ledger, period: Period | None = None, *, org: str | None = None) -> "pd.DataFrame":
    """Return how often which key was refused for which reason, the most frequent first.

    Of each key's counts for one reason only some of a minute are logged; the key store counts all. A minute that the
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
        FROM usage WHERE {REFUSED} AND {where} GROUP BY refusal, key_id
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
