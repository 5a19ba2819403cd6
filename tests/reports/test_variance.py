"""A difference is split into effects that sum to it, each of which is its own cause's."""

from fractions import Fraction
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.pricing import MILLION, PriceSheet, charge
from toolkit.core.usage import Usage
from toolkit.reports.variance import Effects, Side, split


class Calls(NamedTuple):
    """Calls that are alike."""

    cell: str
    calls: int
    input_tokens: int
    output_tokens: int
    input_price: int
    output_price: int
    multiplier: int

    @property
    def cost(self) -> int:
        """What they cost, each charged by itself."""
        sheet = PriceSheet.flat(self.input_price, self.output_price)
        return self.calls * charge(Usage(self.input_tokens, output_tokens=self.output_tokens), sheet, self.multiplier)


def side(*lots: Calls) -> Side:
    """Return the calls as one side of a comparison."""
    found = Side()
    for lot in lots:
        tokens = [lot.calls * lot.input_tokens, lot.calls * lot.output_tokens]
        found.add(lot.cell, lot.calls, lot.cost, tokens, [lot.input_price, lot.output_price], lot.multiplier)
    return found


# 1,000 tokens at 2 USD and 500 at 10 USD per million: 0.002 + 0.005 = 0.007 USD a call.
USUAL = Calls("gpt", 2, 1_000, 500, 2_000_000_000, 10_000_000_000, MILLION)


def test_the_effects_of_a_difference_computed_by_hand() -> None:
    """Three calls instead of two, one with a longer prompt, dearer output and a multiplier of 1.25.

    Before, in USD: 2 calls × 0.007 = 0.014. After: prompts of 1,000 + 1,000 + 4,000 tokens, answers of 3 × 500.
    A1 = 0.014 × 3 ÷ 2 = 0.021; A2 = 6,000 × 2 + 1,500 × 10 per million = 0.012 + 0.015 = 0.027;
    A3 = 0.012 + 1,500 × 12 per million = 0.030; A4 = 0.030 × 1.25 = 0.0375.
    """
    dearer = USUAL._replace(output_price=12_000_000_000, multiplier=1_250_000)
    before, after = side(USUAL), side(dearer, dearer._replace(calls=1, input_tokens=4_000))
    assert (before.cost, after.cost) == (14_000_000, 37_500_000)
    assert split(before, after) == Effects(volume=7_000_000, mix=6_000_000, price=3_000_000, multiplier=7_500_000)


def test_what_rounding_left_is_in_mix() -> None:
    """A call of one token at 100 nano-USD times 1.005 is charged 100, not 100.5; mix takes the difference.

    Before: 2 calls, 200. After: 3 calls, 300. A1 = 200 × 3 ÷ 2 = 300; A2 = A3 = 300; A4 = 301.5, to even 302.
    """
    before = Calls("gpt", 2, 1, 0, 100 * MILLION, 0, MILLION)
    after = before._replace(calls=3, multiplier=1_005_000)
    assert (before.cost, after.cost) == (200, 300)
    assert split(side(before), side(after)) == Effects(volume=100, mix=-2, price=0, multiplier=2)


def test_another_model_is_mix() -> None:
    """Half of the calls go to a model ten times as dear: calls, prices and multiplier stayed."""
    other = USUAL._replace(cell="opus", calls=1, input_price=20_000_000_000, output_price=100_000_000_000)
    after = side(USUAL._replace(calls=1), other)
    assert split(side(USUAL), after) == Effects(volume=0, mix=63_000_000, price=0, multiplier=0)


def test_a_price_of_tokens_that_were_not_used_before_is_known() -> None:
    """Output that is new has the price that was in force before: its rise is a price effect.

    Before: 1 call of 1,000 tokens at 2 USD = 0.002 USD. After: 500 tokens of output besides, at 12 USD instead of 10.
    """
    before = USUAL._replace(calls=1, output_tokens=0)
    after = USUAL._replace(calls=1, output_price=12_000_000_000)
    assert split(side(before), side(after)) == Effects(volume=0, mix=5_000_000, price=1_000_000, multiplier=0)


def test_prices_of_a_period_are_averaged_by_tokens() -> None:
    """A price that doubled for a quarter of the tokens of before was 1.25 times as high on average.

    Before: 3,000 tokens at 2 USD and 1,000 at 4 USD per million = 0.010 USD in 4 calls. After: 4,000 at 4 USD = 0.016.
    A2 = 4,000 × 2.5 USD per million = 0.010.
    """
    cheap = Calls("gpt", 3, 1_000, 0, 2_000_000_000, 0, MILLION)
    dear = cheap._replace(calls=1, input_price=4_000_000_000)
    after = side(dear._replace(calls=4))
    assert split(side(cheap, dear), after) == Effects(volume=0, mix=0, price=6_000_000, multiplier=0)


@pytest.mark.parametrize(("before", "after"), [((), (USUAL,)), ((USUAL,), ()), ((), ())])
def test_one_side_alone_is_volume(before: tuple[Calls, ...], after: tuple[Calls, ...]) -> None:
    """What was not called in one of the periods has nothing to compare: all of it is volume."""
    difference = sum(lot.cost for lot in after) - sum(lot.cost for lot in before)
    assert split(side(*before), side(*after)) == Effects(difference, 0, 0, 0)


lots = st.builds(
    Calls,
    cell=st.sampled_from("abc"),
    calls=st.integers(1, 10**6),
    input_tokens=st.integers(0, 10**6),
    output_tokens=st.integers(0, 10**6),
    input_price=st.integers(0, 10**12),
    output_price=st.integers(0, 10**12),
    multiplier=st.integers(0, 10 * MILLION),
)
sides = st.lists(lots, max_size=6)


@given(before=sides, after=sides)
def test_effects_sum_to_the_difference(before: list[Calls], after: list[Calls]) -> None:
    """The four parts sum to the difference, to the nano-USD, whatever changed."""
    parts = split(side(*before), side(*after))
    assert sum(parts) == sum(lot.cost for lot in after) - sum(lot.cost for lot in before)
    assert all(type(part) is int for part in parts)


@given(before=st.lists(lots, min_size=1, max_size=5), factor=st.integers(1, 50))
def test_more_of_the_same_is_volume_alone(before: list[Calls], factor: int) -> None:
    """The same calls, so many times as often, have no other effect."""
    after = [lot._replace(calls=lot.calls * factor) for lot in before]
    difference = (factor - 1) * sum(lot.cost for lot in before)
    assert split(side(*before), side(*after)) == Effects(difference, 0, 0, 0)


@given(before=st.lists(lots, min_size=1, max_size=5), after=st.lists(lots, min_size=1, max_size=5))
def test_prices_and_multipliers_that_stayed_have_no_effect(before: list[Calls], after: list[Calls]) -> None:
    """Where each cell has one price and one multiplier in both periods, all is volume and mix."""
    fixed = {lot.cell: lot for lot in reversed(before + after)}
    same = [
        [lot._replace(**{name: getattr(fixed[lot.cell], name) for name in Calls._fields[4:]}) for lot in lots]
        for lots in (before, after)
    ]
    parts = split(side(*same[0]), side(*same[1]))
    assert (parts.price, parts.multiplier) == (0, 0)


@given(before=st.lists(lots, min_size=1, max_size=5), factor=st.integers(1, 10))
def test_dearer_prices_alone_are_price(before: list[Calls], factor: int) -> None:
    """The same calls at prices so many times as high: no volume, no multiplier, in mix but the rounding of calls."""
    after = [
        lot._replace(input_price=lot.input_price * factor, output_price=lot.output_price * factor) for lot in before
    ]
    parts = split(side(*before), side(*after))
    assert (parts.volume, parts.multiplier) == (0, 0)
    assert abs(parts.mix) <= sum(lot.calls for lot in before) + 1


@given(before=st.lists(lots, min_size=1, max_size=5), factor=st.integers(1, 10))
def test_a_higher_multiplier_alone_is_multiplier(before: list[Calls], factor: int) -> None:
    """The same calls at a multiplier so many times as high: no volume, no price, in mix but the rounding of calls."""
    after = [lot._replace(multiplier=lot.multiplier * factor) for lot in before]
    parts = split(side(*before), side(*after))
    assert (parts.volume, parts.price) == (0, 0)
    assert abs(parts.mix) <= sum(lot.calls for lot in before) + 1


one_price_each = st.lists(lots, min_size=1, max_size=5, unique_by=lambda lot: lot.cell)


@given(before=one_price_each, after=one_price_each)
def test_each_effect_is_the_step_that_its_definition_says(before: list[Calls], after: list[Calls]) -> None:
    """Price and multiplier are the sums that the module's docstring gives, computed here call by call."""
    old = {lot.cell: lot for lot in before}
    at_old = at_new = charged = Fraction(0)
    for lot in after:
        was = old.get(lot.cell, lot)
        for tokens, price, price_before in (
            (lot.input_tokens, lot.input_price, was.input_price),
            (lot.output_tokens, lot.output_price, was.output_price),
        ):
            at_old += Fraction(lot.calls * tokens * price_before * was.multiplier, MILLION**2)
            at_new += Fraction(lot.calls * tokens * price * was.multiplier, MILLION**2)
            charged += Fraction(lot.calls * tokens * price * lot.multiplier, MILLION**2)
    parts = split(side(*before), side(*after))
    assert parts.price == round(at_new) - round(at_old)
    assert parts.multiplier == round(charged) - round(at_new)
    n0, n1, c0 = sum(x.calls for x in before), sum(x.calls for x in after), sum(x.cost for x in before)
    assert parts.volume == round(Fraction(c0 * n1, n0)) - c0
