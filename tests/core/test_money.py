"""Amounts of money: read and shown exactly to the nano-USD, or refused."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.errors import InvalidInput
from toolkit.core.money import LARGEST_AMOUNT, NANO, check_amount, parse_usd, show_usd, usd


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
