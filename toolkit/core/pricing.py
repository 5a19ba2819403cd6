"""Prices: dated price sheets, plans' multipliers, and the charge of one call. Pure: no I/O, no clock.

A price is an integer number of nano-USD per million tokens (0.15 USD per million tokens = 150,000,000), so any
published price is exact. A multiplier is an integer number of millionths (1.25 = 1,250,000). The charge of a
call is summed in integers and rounded once, half to even.
"""

import json
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from toolkit.core.errors import InvalidInput
from toolkit.core.money import LARGEST_AMOUNT, half_even, scaled
from toolkit.core.usage import Usage

MILLION = 1_000_000


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
    return half_even(millionths * multiplier, MILLION * MILLION)


def parse_multiplier(text: str | int | Decimal) -> int:
    """Return a price multiplier such as "1.25" in millionths.

    Raises:
        InvalidInput: not a number, negative, above 1,000, or finer than a millionth.
    """
    try:
        value = Decimal(str(text).strip().removesuffix("x").removesuffix("×"))
    except InvalidOperation:
        raise InvalidInput(f"The multiplier {str(text)!r} is not a number. Write it like 1.25.") from None
    millionths = scaled(value, MILLION) if value.is_finite() and value.adjusted() <= 3 else None
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
