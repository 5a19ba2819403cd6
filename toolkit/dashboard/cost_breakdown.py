"""How the cost of one call came about: the arithmetic of `pricing.charge`, line by line, for people to check.

Pure: a row of the request log in, exact amounts out.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from toolkit.core.money import NANO
from toolkit.core.pricing import MILLION


@dataclass(frozen=True, slots=True)
class Line:
    """Tokens of one kind at their price.

    Args:
        label: the kind.
        tokens: how many; None for the fee of a request.
        price: nano-USD per million tokens, or per request.
        amount: USD, exact.
    """

    label: str
    tokens: int | None
    price: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class CostBreakdown:
    """A call's cost.

    Args:
        lines: what was used, at base prices.
        base: their sum, USD, exact.
        multiplier: of the plan, in millionths.
        exact: base × multiplier, USD.
        cost: `exact` rounded half to even, nano-USD.
    """

    lines: tuple[Line, ...]
    base: Decimal
    multiplier: int
    exact: Decimal
    cost: int


def of(row: Mapping[Hashable, Any]) -> CostBreakdown:
    """Return how the cost of a request-log row came about (a row of `requests.search`)."""
    kept = int(row["cached_input_tokens"]) + int(row["cache_write_5m_tokens"]) + int(row["cache_write_1h_tokens"])
    fresh = max(int(row["input_tokens"]) - kept, 0)
    kinds = (
        ("Input", fresh, row["input_price"]),
        ("Input read from cache", row["cached_input_tokens"], row["cached_input_price"]),
        ("Input written to cache, 5 min", row["cache_write_5m_tokens"], row["cache_write_5m_price"]),
        ("Input written to cache, 1 h", row["cache_write_1h_tokens"], row["cache_write_1h_price"]),
        ("Output", row["output_tokens"], row["output_price"]),
    )
    lines = [
        Line(label, int(tokens), int(price), Decimal(int(tokens) * int(price)) / (MILLION * NANO))
        for label, tokens, price in kinds
        if int(tokens)
    ]
    if int(row["request_price"]):
        fee = int(row["request_price"])
        lines.append(Line("Fee of a request", None, fee, Decimal(fee) / NANO))
    base = sum((line.amount for line in lines), Decimal(0))
    multiplier = int(row["multiplier"])
    exact = base * multiplier / MILLION
    cost = round(exact * NANO)
    return CostBreakdown(tuple(lines), base, multiplier, exact, cost)
