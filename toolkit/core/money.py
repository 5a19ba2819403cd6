"""Amounts of money: integer nano-USD, read from what people write and shown to them. Pure: no I/O, no clock."""

import re
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, InvalidOperation

from toolkit.core.errors import InvalidInput

NANO = 1_000_000_000
LARGEST_AMOUNT = 9_000_000_000 * NANO
"""Largest amount of money the stores take (they keep 64-bit integers)."""

_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")


def check_amount(nano: int, what: str = "amount") -> int:
    """Return an amount in nano-USD as it is, once it is known to be one that the stores keep exactly.

    Raises:
        InvalidInput: not an integer, or beyond ±9 billion USD.
    """
    if type(nano) is not int:
        raise InvalidInput(f"The {what} must be an integer of nano-USD, not a {type(nano).__name__}.")
    if abs(nano) > LARGEST_AMOUNT:
        raise InvalidInput(f"The {what} {usd(nano)} USD is out of range.")
    return nano


def parse_usd(text: str | int | Decimal, what: str = "amount") -> int:
    """Return an amount in USD, such as "12.50", as nano-USD.

    Raises:
        InvalidInput: not a number, finer than a nano-USD, or beyond ±9 billion USD. Floats are refused: they
            have already lost the exact amount. A comma groups thousands, as in 1,250.00, and is no decimal point.
    """
    if isinstance(text, (bool, float)):
        raise InvalidInput(f"The {what} must be an exact decimal such as '12.50', not a {type(text).__name__}.")
    plain = str(text).strip().removeprefix("$")
    if _GROUPED.fullmatch(plain):
        plain = plain.replace(",", "")
    try:
        value = Decimal(plain)
    except InvalidOperation:
        raise InvalidInput(f"The {what} {str(text)!r} is not a number. Write it in USD, such as 12.50.") from None
    if not value.is_finite() or value.adjusted() > 10:
        raise InvalidInput(f"The {what} {text} is out of range.")
    nano = scaled(value, NANO)
    if nano is None:
        raise InvalidInput(f"The {what} {text} is finer than a nano-USD (nine decimals).")
    return check_amount(nano, what)


def usd(nano: int) -> str:
    """Return nano-USD as an exact decimal string in USD, such as "0.000150000" → "0.00015"."""
    sign, whole, part = "-" if nano < 0 else "", *divmod(abs(nano), NANO)
    text = f"{sign}{whole}.{part:09d}".rstrip("0")
    return text.removesuffix(".")


def show_usd(nano: int, decimals: int | None = None) -> str:
    """Return nano-USD for people, rounded half to even.

    Args:
        nano: the amount.
        decimals: as many in every case, so that a column lines up; by default cents, and more below one cent
            ("$1,234.50", "$0.000150", "$0.000000025").
    """
    sign, amount = "-" if nano < 0 else "", abs(nano)
    if decimals is None:
        decimals = 2 if amount == 0 or amount >= NANO // 100 else 6 if amount >= 1000 else 9
    units = half_even(amount, NANO // 10**decimals)
    return f"{sign}${units // 10**decimals:,}.{units % 10**decimals:0{decimals}d}"


def scaled(value: Decimal, unit: int) -> int | None:
    """Return a decimal as a whole number of parts of which `unit` make 1; None if it is finer than that."""
    parts = _EXACT.multiply(value, Decimal(unit))
    return int(parts) if parts == parts.to_integral_value(context=_EXACT) else None


def half_even(numerator: int, denominator: int) -> int:
    """Return a quotient, rounded to the nearest integer, halves to the even one."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient % 2):
        quotient += 1
    return quotient
