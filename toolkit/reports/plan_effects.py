"""What a plan's change would have done to a past month: the calls of its keys replayed under what it would become."""

from collections.abc import Collection
from typing import NamedTuple

from toolkit.core.period import Period
from toolkit.ledger.ledger import Ledger
from toolkit.reports.whatif import replay


class PlanEffect(NamedTuple):
    """What a changed plan does to the calls of the keys that have it.

    Args:
        calls: of the month.
        before: what they were charged, in nano-USD.
        after: what they would have cost, without those that would have been refused.
        refused: calls of models that the plan would not include.
        refused_cost: what these were charged.
    """

    calls: int
    before: int
    after: int
    refused: int
    refused_cost: int


def plan_effect(
    ledger: Ledger, month: str, keys: Collection[str], multiplier: int, models: Collection[str]
) -> PlanEffect:
    """Return what a month would have cost the keys of a plan, had the plan been another one.

    Each call keeps its tokens and the prices that it was charged by. Limits are not judged anew.

    Args:
        ledger: whose actor's calls count.
        month: such as "2026-10".
        keys: ids of the keys that have the plan now.
        multiplier: that it would have, in millionths.
        models: that it would include.

    Raises:
        InvalidInput: no such multiplier.
    """
    spend = replay(ledger, Period.month(month), by=["key", "model"], multiplier=multiplier, limit=None, listed=0).spend
    calls = before = after = refused = refused_cost = 0
    for row in spend.to_dict("records"):
        if row["key_id"] not in keys:
            continue
        calls, before = calls + int(row["calls"]), before + int(row["cost"])
        if row["model"] in models:
            after += int(row["repriced"])
        else:
            refused, refused_cost = refused + int(row["calls"]), refused_cost + int(row["cost"])
    return PlanEffect(calls, before, after, refused, refused_cost)
