"""What new prices would have done to a past month's spend: its calls replayed by the prices in force and by the new."""

from collections.abc import Mapping
from typing import NamedTuple

from toolkit.core.period import Period
from toolkit.core.pricing import PriceSheet
from toolkit.ledger.ledger import Ledger
from toolkit.reports.whatif import replay


class Effect(NamedTuple):
    """What a price does to a model's calls.

    Args:
        calls: of the month.
        before, after: what they cost by the price in force, and by the new one, in nano-USD.
    """

    calls: int
    before: int
    after: int


def price_effects(
    ledger: Ledger, month: str, before: Mapping[str, PriceSheet], after: Mapping[str, PriceSheet]
) -> dict[str, Effect]:
    """Return what new prices would have done to a month, by model.

    The calls are the month's, each by its own tokens and multiplier. Both sides are replayed: what was charged may have
    been charged by earlier prices.

    Args:
        ledger: whose actor's calls count.
        month: such as "2026-10".
        before, after: the sheets in force and the new ones, of the same models.
    """
    sides = []
    for sheets in (before, after):
        found = replay(ledger, Period.month(month), by=["model"], prices=sheets, limit=None, listed=0).spend
        sides.append({row["model"]: (int(row["calls"]), int(row["repriced"])) for row in found.to_dict("records")})
    nothing = (0, 0)
    return {
        model: Effect(sides[0].get(model, nothing)[0], *(side.get(model, nothing)[1] for side in sides))
        for model in before
    }
