"""Variance: a difference between two periods, split into volume, mix, price and multiplier. Pure: no I/O, no clock.

This is the price-volume-mix analysis of cost accounting (its sales-quantity, sales-mix and selling-price variances,
as in Horngren, Datar and Rajan, "Cost Accounting"), with the price multiplier as a second price. A cost is taken from
one period to the other by changing one cause after the other; each effect is the step that its cause makes:

    C0 = what it cost before = Σ q0 × p0 × m0, each call rounded to a nano-USD
    A1 = C0 × n1 ÷ n0         volume = A1 − C0        as many calls as after, each as before
    A2 = Σ q1 × p0 × m0       mix = A2 − A1           the calls of after, at the prices and multipliers of before
    A3 = Σ q1 × p1 × m0       price = A3 − A2         at the prices of after
    A4 = Σ q1 × p1 × m1       multiplier = A4 − A3    and at its multipliers: what it cost after

n is the number of charged calls; q the tokens of each kind (fresh, cached, written for 5 minutes, for 1 hour, output)
and the requests, in each cell; p and m the price and the multiplier there, averages of what was applied where they
changed within the period. A cell is one key, model and size of input, sizes being the tiers of the price book. So mix
is another choice of keys and models, longer prompts or answers, more or fewer cache hits.

What was there in one period only has no two prices to compare: a cell is mix, and a whole side without calls volume.

A1 to A4 are rounded to a nano-USD, half to even. What rounding each call left, Σ − cost, at most half a nano-USD a
call, is in mix. So the effects sum to the difference, and a price or a multiplier that stayed has an effect of 0.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from toolkit.core.pricing import MILLION

_UNIT = MILLION * MILLION  # prices are per million tokens, multipliers are millionths


class Effects(NamedTuple):
    """The parts of a difference, in nano-USD, in the order in which they are taken."""

    volume: int
    mix: int
    price: int
    multiplier: int


@dataclass(slots=True)
class Cell:
    """The calls of one key, model and size of input in one period, summed up by kind of token.

    Args:
        tokens: how many.
        worth: Σ tokens × price.
        listed: Σ calls × price: the price that was in force, should no token have been bought at it.
        charged: Σ tokens × price × multiplier, of all kinds.
        multiplied: Σ calls × multiplier.
    """

    calls: int
    tokens: list[int]
    worth: list[int]
    listed: list[int]
    charged: int = 0
    multiplied: int = 0

    @property
    def prices(self) -> list[Fraction]:
        """The average price of each kind."""
        sums = zip(self.worth, self.tokens, self.listed, strict=True)
        return [Fraction(worth, tokens) if tokens else Fraction(listed, self.calls) for worth, tokens, listed in sums]

    @property
    def multiplier(self) -> Fraction:
        """The average multiplier."""
        worth = sum(self.worth)
        return Fraction(self.charged, worth) if worth else Fraction(self.multiplied, self.calls)


@dataclass(slots=True)
class Side:
    """All calls of one period.

    Attributes:
        calls: charged ones.
        cost: what they cost, each rounded, in nano-USD.
        cells: by what makes calls comparable.
    """

    calls: int = 0
    cost: int = 0
    cells: dict[Hashable, Cell] = field(default_factory=dict)

    def add(
        self, cell: Hashable, calls: int, cost: int, tokens: Sequence[int], prices: Sequence[int], multiplier: int
    ) -> None:
        """Add calls that had the same prices and multiplier.

        Args:
            cell: what they are compared as: key, model, size of input.
            calls: how many.
            cost: what they cost together, nano-USD.
            tokens: by kind; a request counts as a million, since prices are per million.
            prices: of each kind, nano-USD per million.
            multiplier: millionths.
        """
        self.calls += calls
        self.cost += cost
        kinds = len(tokens)
        found = self.cells.setdefault(cell, Cell(0, [0] * kinds, [0] * kinds, [0] * kinds))
        found.calls += calls
        found.multiplied += calls * multiplier
        for kind, (count, price) in enumerate(zip(tokens, prices, strict=True)):
            found.tokens[kind] += count
            found.worth[kind] += count * price
            found.listed[kind] += calls * price
            found.charged += count * price * multiplier


def split(before: Side, after: Side) -> Effects:
    """Return the effects that make what calls cost before what they cost after; they sum to the difference."""
    difference = after.cost - before.cost
    if not before.calls or not after.calls:
        return Effects(difference, 0, 0, 0)
    at_old_prices = at_old_multipliers = Fraction(0)
    for name, cell in after.cells.items():
        old = before.cells.get(name, cell)
        at_old_prices += old.multiplier * sum(n * price for n, price in zip(cell.tokens, old.prices, strict=True))
        at_old_multipliers += old.multiplier * sum(cell.worth)
    charged = Fraction(sum(cell.charged for cell in after.cells.values()))
    a1 = round(Fraction(before.cost * after.calls, before.calls))
    a2, a3, a4 = (round(amount / _UNIT) for amount in (at_old_prices, at_old_multipliers, charged))
    volume, price, multiplier = a1 - before.cost, a3 - a2, a4 - a3
    return Effects(volume, difference - volume - price - multiplier, price, multiplier)
