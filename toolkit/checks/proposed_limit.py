"""A proposed limit: what a key costs in a month in which nothing stands out, and the limit that follows. Pure."""

from datetime import date, timedelta
from typing import NamedTuple

from toolkit.checks.snapshot import Snapshot, last_months
from toolkit.core.money import NANO, show_usd
from toolkit.core.wording import counted
from toolkit.store.tables import ApiKey

_EXAMPLE_LIMIT = 10 * NANO
"""What is proposed for a key that has not spent anything yet."""

_YOUNG = timedelta(weeks=4)
"""Age below which a key has no month to go by."""


class UsualMonth(NamedTuple):
    """What a usual month of a key costs, and what that is made of.

    Args:
        month: the billing month of the last three that cost most, what stood out set aside.
        cost: nano-USD; of a key younger than four weeks at least 30 days at its pace so far.
        beyond: by day, what stood out in the three months and is set aside, nano-USD.
        words: all that.
    """

    month: str
    cost: int
    beyond: dict[date, int]
    words: str

    @property
    def limit(self) -> int:
        """The monthly limit that is proposed: twice the cost, as a round number; nano-USD."""
        return roomy(2 * self.cost) or _EXAMPLE_LIMIT


def usual_month(evidence: Snapshot, key: ApiKey) -> UsualMonth:
    """Return what a usual month of a key costs: the costliest of the last three, what stood out set aside."""
    totals, beyond = evidence.months.get(key.id, {}), evidence.unusual.get(key.id, {})
    costs = {month: totals[month].spent if month in totals else 0 for month in last_months(evidence.now)}
    for day, excess in beyond.items():
        costs[f"{day:%Y-%m}"] -= excess
    month = max(costs, key=lambda month: costs[month])
    cost, words = costs[month], f"a usual month costs up to {show_usd(costs[month])} ({month})"
    age = evidence.now - key.created_at
    if age < _YOUNG:
        days = max(age.days, 7)  # one dear day is no pace
        cost = max(cost, sum(costs.values()) * 30 // days)
        words = f"at the pace of its first {days} days, a month costs {show_usd(cost)}"
    if not cost:
        words = "it has not spent anything yet"
    if beyond:
        first, last = min(beyond), max(beyond)
        when = f"{first}" if first == last else f"{first} to {last}"
        words += (
            f", with {counted(len(beyond), 'day')} that stood out ({when}, {show_usd(sum(beyond.values()))} "
            "beyond what is usual) set aside"
        )
    return UsualMonth(month, cost, beyond, words)


def roomy(amount: int) -> int:
    """Return an amount rounded up to two leading digits, so that a limit is a round number; nano-USD."""
    step = int("1".ljust(len(str(amount)) - 1, "0"))
    return -(-amount // step) * step
