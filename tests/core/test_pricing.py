"""Price sheets, multipliers, and charges that are exact to the nano-USD."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.errors import InvalidInput
from toolkit.core.money import LARGEST_AMOUNT, NANO
from toolkit.core.pricing import MILLION, PriceSheet, Tier, charge, parse_multiplier, show_multiplier
from toolkit.core.usage import Usage

PRICES = st.integers(0, 200 * NANO)
TOKENS = st.integers(0, 2_000_000)
MULTIPLIERS = st.one_of(st.integers(0, 1000 * MILLION), st.sampled_from([0, MILLION, MILLION * 5 // 4]))


@st.composite
def sheets(draw: st.DrawFn) -> PriceSheet:
    """Sheets of one to three tiers, now and then with a price for each request."""
    starts = [0, *sorted(draw(st.sets(st.integers(1, 300_000), max_size=2)))]
    tiers = [Tier(above, *(draw(PRICES) for _ in range(5))) for above in starts]
    return PriceSheet(tuple(tiers), draw(st.one_of(st.just(0), PRICES)))


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """What an honest upstream reports: parts that are no larger than the whole."""
    cached, write_5m, write_1h, fresh = (draw(TOKENS) for _ in range(4))
    output = draw(TOKENS)
    return Usage(
        input_tokens=cached + write_5m + write_1h + fresh,
        cached_input_tokens=cached,
        cache_write_5m_tokens=write_5m,
        cache_write_1h_tokens=write_1h,
        output_tokens=output,
        reasoning_tokens=draw(st.integers(0, output)),
    )


# -- multipliers ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000 * MILLION))
def test_a_multiplier_survives_showing_and_reading(millionths: int) -> None:
    """What `show_multiplier` writes, `parse_multiplier` reads back, sign and all."""
    assert parse_multiplier(show_multiplier(millionths)) == millionths


@pytest.mark.parametrize(
    ("millionths", "text"), [(1_250_000, "1.25×"), (MILLION, "1.00×"), (1, "0.000001×"), (0, "0.00×")]
)
def test_multipliers_for_people(millionths: int, text: str) -> None:
    """At least two decimals, and as many as needed."""
    assert show_multiplier(millionths) == text


@pytest.mark.parametrize(
    "text", ["", "x", "-0.1", "1000.000001", "0.0000001", "nan", "sNaN", "inf", "1e1000000", "1." + "0" * 40 + "1"]
)
def test_what_is_no_multiplier_is_refused(text: str) -> None:
    """Negative, above 1,000, or finer than a millionth is refused."""
    with pytest.raises(InvalidInput):
        parse_multiplier(text)


@pytest.mark.parametrize("text", ["-1", "-0.5", "1000.5", "5000"])
def test_a_multiplier_out_of_range_is_named_as_it_was_written(text: str) -> None:
    """In words of multipliers, not of millionths."""
    with pytest.raises(InvalidInput, match=rf"^The multiplier {text} must lie between 0 and 1000"):
        parse_multiplier(text)


# -- sheets -------------------------------------------------------------------------------------------------------


@given(sheets(), st.integers(0, 1_000_000))
def test_the_tier_is_the_last_that_the_input_exceeds(sheet: PriceSheet, tokens: int) -> None:
    """`above` itself still belongs to the tier below it."""
    tier = sheet.tier(tokens)
    exceeded = [one for one in sheet.tiers if tokens > one.above]
    assert tier is (exceeded[-1] if exceeded else sheet.tiers[0])
    assert sheet.tier(tokens) in sheet.reachable(tokens)


@given(sheets(), st.integers(0, 1_000_000), st.integers(0, 1_000_000))
def test_every_tier_up_to_a_bound_is_reachable(sheet: PriceSheet, bound: int, tokens: int) -> None:
    """A request with at most `bound` tokens falls into one of the tiers that are reachable with it."""
    assert sheet.tier(min(bound, tokens)) in sheet.reachable(bound)


@given(sheets())
def test_a_sheet_survives_the_price_book(sheet: PriceSheet) -> None:
    """JSON gives back the same sheet, and equal sheets give the same text."""
    again = PriceSheet.from_json(sheet.to_json())
    assert again == sheet
    assert again.to_json() == sheet.to_json()
    assert "." not in sheet.to_json()


def test_a_cache_price_that_is_not_given_is_the_input_price() -> None:
    """No silent discount: unknown cache prices are those of fresh input; 1 h writes follow 5 min writes."""
    (tier,) = PriceSheet.flat(input=5, output=7).tiers
    assert (tier.cached_input, tier.cache_write_5m, tier.cache_write_1h) == (5, 5, 5)
    (tier,) = PriceSheet.flat(input=5, output=7, cached_input=0, cache_write_5m=6).tiers
    assert (tier.cached_input, tier.cache_write_5m, tier.cache_write_1h) == (0, 6, 6)
    assert tier.dearest_input == 6


@pytest.mark.parametrize(
    "build",
    [
        lambda: PriceSheet(()),
        lambda: PriceSheet((Tier(1, 0, 0, 0, 0, 0),)),
        lambda: PriceSheet((Tier(0, 0, 0, 0, 0, 0), Tier(0, 1, 1, 1, 1, 1))),
        lambda: PriceSheet((Tier(0, 0, 0, 0, 0, 0), Tier(9, 0, 0, 0, 0, 0), Tier(5, 0, 0, 0, 0, 0))),
        lambda: PriceSheet.flat(input=-1, output=0),
        lambda: PriceSheet.flat(input=0, output=0, request=-1),
        lambda: PriceSheet.flat(input=LARGEST_AMOUNT + 1, output=0),
        lambda: PriceSheet.flat(input=0.15, output=0),  # type: ignore[arg-type]
        lambda: PriceSheet.flat(input=0, output=0, request=0.5),  # type: ignore[arg-type]
        lambda: PriceSheet.flat(input=0, output=True),
    ],
)
def test_a_sheet_that_makes_no_sense_is_refused(build: Any) -> None:
    """No tier, tiers out of order, negative or absurd prices, and floats are refused."""
    with pytest.raises(InvalidInput):
        build()


# -- charges ------------------------------------------------------------------------------------------------------


@given(usages(), sheets(), MULTIPLIERS)
def test_a_charge_is_exact_and_rounded_once_half_to_even(usage: Usage, sheet: PriceSheet, multiplier: int) -> None:
    """The charge is the exact rational amount, rounded to the nearest nano-USD, ties to even."""
    tier = sheet.tier(usage.input_tokens)
    fresh = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_5m_tokens - usage.cache_write_1h_tokens
    exact = sum(
        (
            Fraction(tokens * price, MILLION)
            for tokens, price in (
                (fresh, tier.input),
                (usage.cached_input_tokens, tier.cached_input),
                (usage.cache_write_5m_tokens, tier.cache_write_5m),
                (usage.cache_write_1h_tokens, tier.cache_write_1h),
                (usage.output_tokens, tier.output),
            )
        ),
        Fraction(sheet.request),
    ) * Fraction(multiplier, MILLION)
    cost = charge(usage, sheet, multiplier)
    assert type(cost) is int
    assert cost == round(exact)  # Fraction rounds half to even, exactly


@pytest.mark.parametrize(("output", "cost"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 4)])
def test_halves_go_to_the_even_neighbour(output: int, cost: int) -> None:
    """At half a nano-USD a token: 0.5 → 0, 1.5 → 2, 2.5 → 2, 3.5 → 4."""
    assert charge(Usage(output_tokens=output), PriceSheet.flat(input=0, output=MILLION // 2), MILLION) == cost


def test_the_multiplier_is_applied_before_rounding() -> None:
    """Three tokens at 0.4 nano-USD times 1.25 are 1.5, so 2: rounding first would make 1."""
    assert charge(Usage(output_tokens=3), PriceSheet.flat(input=0, output=400_000), 1_250_000) == 2


def test_reasoning_is_part_of_the_output() -> None:
    """Reasoning tokens are not charged a second time."""
    sheet = PriceSheet.flat(input=0, output=10 * NANO)
    with_reasoning = Usage(output_tokens=1000, reasoning_tokens=900)
    assert charge(with_reasoning, sheet, MILLION) == charge(Usage(output_tokens=1000), sheet, MILLION) == 10_000_000


def test_more_cached_than_input_is_never_a_discount() -> None:
    """An upstream that reports more cache than input is charged for what it reports; fresh input is not negative."""
    usage = Usage(input_tokens=10, cached_input_tokens=50)
    assert usage.fresh_input_tokens == 0
    assert charge(usage, PriceSheet.flat(input=MILLION, cached_input=MILLION, output=0), MILLION) == 50


@given(usages(), sheets())
def test_a_multiplier_of_zero_charges_nothing(usage: Usage, sheet: PriceSheet) -> None:
    """A free plan is free."""
    assert charge(usage, sheet, 0) == 0
