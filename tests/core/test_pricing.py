"""Money: parsing, showing, tiers, and charges that are exact to the nano-USD."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.errors import InvalidInput
from toolkit.core.pricing import (
    LARGEST_AMOUNT,
    MILLION,
    NANO,
    PriceSheet,
    Tier,
    billing_month,
    charge,
    check_amount,
    next_month,
    parse_multiplier,
    parse_usd,
    show_multiplier,
    show_usd,
    usd,
)
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


# -- parsing and showing ------------------------------------------------------------------------------------------


@given(st.integers(-LARGEST_AMOUNT, LARGEST_AMOUNT))
def test_an_amount_survives_writing_and_reading(nano: int) -> None:
    """What `usd` writes, `parse_usd` reads back to the same nano-USD."""
    assert parse_usd(usd(nano)) == nano
    assert type(parse_usd(usd(nano))) is int


@given(st.integers(-LARGEST_AMOUNT, LARGEST_AMOUNT))
def test_usd_writes_the_exact_decimal(nano: int) -> None:
    """The text is the exact value, without an exponent or trailing zeros."""
    text = usd(nano)
    assert Fraction(text) == Fraction(nano, NANO)
    assert "e" not in text.lower()
    assert not ("." in text and text.endswith(("0", ".")))


@given(st.text(max_size=12))
def test_any_text_is_an_exact_amount_or_refused(text: str) -> None:
    """Nothing that a person may type ends in another error, or in an amount that is not what was typed."""
    try:
        nano = parse_usd(text)
    except InvalidInput:
        return
    assert type(nano) is int


@given(st.decimals(allow_nan=True, allow_infinity=True))
def test_any_decimal_is_exact_or_refused(value: Decimal) -> None:
    """A decimal is taken if it is a whole number of nano-USD in range, and refused otherwise."""
    fits = value.is_finite() and abs(value) < 10**12 and abs(Fraction(value)) * NANO <= LARGEST_AMOUNT
    whole = fits and (Fraction(value) * NANO).denominator == 1
    if whole:
        assert parse_usd(value) == Fraction(value) * NANO
    else:
        with pytest.raises(InvalidInput):
            parse_usd(value)


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("12.50", 12_500_000_000),
        (" $1,234.5 ", 1_234_500_000_000),
        ("1,234,567.000000001", 1_234_567_000_000_001),
        ("0.000000001", 1),
        ("-0.15", -150_000_000),
        ("-0", 0),
        ("1e2", 100 * NANO),
        (".5", NANO // 2),
        (7, 7 * NANO),
        (Decimal("1E-8"), 10),
        ("1." + "0" * 60, NANO),
    ],
)
def test_amounts_that_people_write(text: str | int | Decimal, nano: int) -> None:
    """Dollar signs, thousands separators, exponents and trailing zeros are understood."""
    assert parse_usd(text) == nano


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ten",
        "12,50",
        "1,23,456",
        "1.2.3",
        "nan",
        "sNaN",
        "inf",
        "-Infinity",
        "0.0000000001",
        "1.0000000000000000000000000000000001",
        "9000000000.000000001",
        "1e400",
        "1e1000000",
        "-1e999999999",
        "1e-1000000",
        12.5,
        True,
    ],
)
def test_what_is_no_exact_amount_is_refused(text: Any) -> None:
    """Floats, decimal commas, too fine or too large numbers are an InvalidInput that names what was meant."""
    with pytest.raises(InvalidInput, match="The price of tea"):
        parse_usd(text, "price of tea")


@pytest.mark.parametrize("amount", [1.0, True, "1", Decimal(1), None, LARGEST_AMOUNT + 1, -LARGEST_AMOUNT - 1])
def test_an_amount_must_be_an_integer_in_range(amount: Any) -> None:
    """What the stores could not keep exactly is refused before it reaches them."""
    with pytest.raises(InvalidInput):
        check_amount(amount)
    assert check_amount(LARGEST_AMOUNT) == LARGEST_AMOUNT


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "$0.00"),
        (1_234_500_000_000, "$1,234.50"),
        (-NANO, "-$1.00"),
        (15_000_000, "$0.02"),
        (25_000_000, "$0.02"),
        (10_000_000, "$0.01"),
        (9_999_999, "$0.010000"),
        (150_000, "$0.000150"),
        (1_000, "$0.000001"),
        (999, "$0.000000999"),
        (-1, "-$0.000000001"),
    ],
)
def test_amounts_for_people(nano: int, text: str) -> None:
    """Cents, rounded half to even; below one cent enough decimals to see something."""
    assert show_usd(nano) == text


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


# -- months -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "month"),
    [
        (datetime(2026, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC), "2026-11"),
        (datetime(2026, 12, 1, tzinfo=UTC), "2026-12"),
        (datetime(2027, 1, 1, tzinfo=timezone(timedelta(0))), "2027-01"),
    ],
)
def test_months_turn_at_midnight_utc(moment: datetime, month: str) -> None:
    """The first instant of a month belongs to it."""
    assert billing_month(moment) == month


@pytest.mark.parametrize("moment", [datetime(2026, 11, 1), datetime(2026, 11, 1, tzinfo=timezone(timedelta(hours=1)))])  # noqa: DTZ001
def test_months_are_counted_in_utc_only(moment: datetime) -> None:
    """A moment without a zone or in another one is a mistake of the program."""
    with pytest.raises(ValueError, match="UTC"):
        billing_month(moment)


@given(st.integers(1970, 9990), st.integers(1, 12))
def test_next_month_is_the_month_after(year: int, month: int) -> None:
    """The month of a month's 15th plus 31 days is the next one."""
    middle = datetime(year, month, 15, tzinfo=UTC)
    assert next_month(billing_month(middle)) == billing_month(middle + timedelta(days=31))
