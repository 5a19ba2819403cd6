"""Money: integer nano-USD, dated price sheets, and the charge of one call. Pure: no I/O, no clock.

A price is an integer number of nano-USD per million tokens (0.15 USD per million tokens = 150,000,000), so any
published price is exact. A multiplier is an integer number of millionths (1.25 = 1,250,000). The charge of a
call is summed in integers and rounded once, half to even.
"""

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, InvalidOperation
from typing import Any

from toolkit.core.errors import InvalidInput
from toolkit.core.usage import Usage

NANO = 1_000_000_000
MILLION = 1_000_000
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


def _scaled(value: Decimal, unit: int) -> int | None:
    """Return `value` as a whole number of parts of which `unit` make 1; None if it is finer than that."""
    parts = _EXACT.multiply(value, Decimal(unit))
    return int(parts) if parts == parts.to_integral_value(context=_EXACT) else None


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
    nano = _scaled(value, NANO)
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
    units = _half_even(amount, NANO // 10**decimals)
    return f"{sign}${units // 10**decimals:,}.{units % 10**decimals:0{decimals}d}"


def parse_multiplier(text: str | int | Decimal) -> int:
    """Return a price multiplier such as "1.25" in millionths.

    Raises:
        InvalidInput: not a number, negative, above 1,000, or finer than a millionth.
    """
    try:
        value = Decimal(str(text).strip().removesuffix("x").removesuffix("×"))
    except InvalidOperation:
        raise InvalidInput(f"The multiplier {str(text)!r} is not a number. Write it like 1.25.") from None
    millionths = _scaled(value, MILLION) if value.is_finite() and value.adjusted() <= 3 else None
    if millionths is None or not 0 <= millionths <= 1000 * MILLION:
        raise InvalidInput(f"The multiplier {text} must lie between 0 and 1000, with at most six decimals.")
    return millionths


def check_multiplier(millionths: int) -> int:
    """Return a multiplier in millionths as it is, once it is known to be one.

    Raises:
        InvalidInput: not an integer, negative, or above 1,000.
    """
    if type(millionths) is not int:
        raise InvalidInput(f"A multiplier is kept as an integer of millionths, not as {millionths!r}.")
    if not 0 <= millionths <= 1000 * MILLION:
        raise InvalidInput("A multiplier must lie between 0 and 1000.")
    return millionths


def show_multiplier(millionths: int) -> str:
    """Return a multiplier for people: 1250000 → "1.25×"."""
    value = f"{millionths // MILLION}.{millionths % MILLION:06d}".rstrip("0")
    whole, _, part = value.partition(".")
    return f"{whole}.{part:0<2}×"


def _half_even(numerator: int, denominator: int) -> int:
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient % 2):
        quotient += 1
    return quotient


@dataclass(frozen=True, slots=True)
class Tier:
    """Prices in force when a request's total input exceeds `above` tokens, in nano-USD per million tokens."""

    above: int
    input: int
    cached_input: int
    cache_write_5m: int
    cache_write_1h: int
    output: int

    @property
    def dearest_input(self) -> int:
        """The highest of the input-side prices."""
        return max(self.input, self.cached_input, self.cache_write_5m, self.cache_write_1h)


@dataclass(frozen=True, slots=True)
class PriceSheet:
    """The prices of one model from one moment on.

    Args:
        tiers: by total input tokens of the request, ascending; the first starts at 0.
        request: nano-USD for each request, on top of the tokens.

    Raises:
        InvalidInput: no tier, tiers out of order, a negative price, or one that is no integer.
    """

    tiers: tuple[Tier, ...]
    request: int = 0

    def __post_init__(self) -> None:
        starts = [tier.above for tier in self.tiers]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise InvalidInput("Price tiers must start at 0 input tokens and rise.")
        prices = [price for tier in self.tiers for price in asdict(tier).values()] + [self.request]
        if any(type(price) is not int for price in prices):
            raise InvalidInput("Prices are integers of nano-USD per million tokens. `parse_usd` makes them from USD.")
        if min(prices) < 0 or max(prices) > LARGEST_AMOUNT:
            raise InvalidInput("A price must be zero or more, and below 9 billion USD per million tokens.")

    @classmethod
    def flat(
        cls,
        input: int,  # noqa: A002 - the price book's word
        output: int,
        cached_input: int | None = None,
        cache_write_5m: int | None = None,
        cache_write_1h: int | None = None,
        request: int = 0,
    ) -> "PriceSheet":
        """Return a sheet with one tier. A cache price that is not given is the input price: no silent discount."""
        write_5m = input if cache_write_5m is None else cache_write_5m
        return cls(
            (
                Tier(
                    above=0,
                    input=input,
                    cached_input=input if cached_input is None else cached_input,
                    cache_write_5m=write_5m,
                    cache_write_1h=write_5m if cache_write_1h is None else cache_write_1h,
                    output=output,
                ),
            ),
            request,
        )

    def tier(self, input_tokens: int) -> Tier:
        """Return the tier for a request with `input_tokens` in total; it prices the whole request."""
        found = self.tiers[0]
        for tier in self.tiers[1:]:
            if input_tokens > tier.above:
                found = tier
        return found

    def reachable(self, input_tokens: int) -> tuple[Tier, ...]:
        """Return the tiers that a request with at most `input_tokens` may fall into."""
        if len(self.tiers) == 1:
            return self.tiers
        return tuple(tier for tier in self.tiers if input_tokens > tier.above or tier.above == 0)

    def always_costs(self, *, output: bool) -> bool:
        """Whether each call costs something, however small.

        Args:
            output: whether calls have output tokens, which embeddings have not.
        """
        return self.request > 0 or all(tier.dearest_input or (output and tier.output) for tier in self.tiers)

    def to_json(self) -> str:
        """Return the sheet as canonical JSON, as the price book stores it."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "PriceSheet":
        """Read a sheet back from the price book."""
        data: dict[str, Any] = json.loads(text)
        return cls(tuple(Tier(**tier) for tier in data["tiers"]), data["request"])


def charge(usage: Usage, sheet: PriceSheet, multiplier: int) -> int:
    """Return what a call costs, in nano-USD: Σ tokens × price × multiplier, rounded once, half to even.

    Args:
        usage: the tokens of the call.
        sheet: the prices fixed at admission.
        multiplier: the plan's price multiplier in millionths, fixed at admission.
    """
    tier = sheet.tier(usage.input_tokens)
    millionths = (
        usage.fresh_input_tokens * tier.input
        + usage.cached_input_tokens * tier.cached_input
        + usage.cache_write_5m_tokens * tier.cache_write_5m
        + usage.cache_write_1h_tokens * tier.cache_write_1h
        + usage.output_tokens * tier.output
        + sheet.request * MILLION
    )
    return _half_even(millionths * multiplier, MILLION * MILLION)


def billing_month(moment: datetime) -> str:
    """Return the billing month of a UTC moment, such as "2026-11".

    Raises:
        ValueError: the moment has no time zone.
    """
    if moment.tzinfo is not UTC and (moment.utcoffset() is None or moment.utcoffset()):
        raise ValueError("billing months are counted in UTC")
    return f"{moment.year:04}-{moment.month:02}"


def next_month(month: str) -> str:
    """Return the month after, such as "2026-12" → "2027-01"; limits start anew at its first instant, UTC."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12}-{number % 12 + 1:02d}"
