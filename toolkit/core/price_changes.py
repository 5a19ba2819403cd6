"""What differs between two price sheets, price by price. Pure."""

from typing import Any

from toolkit.core.money import show_usd
from toolkit.core.pricing import PriceSheet

_FIELDS = {
    "input": "input",
    "cached_input": "cached input",
    "cache_write_5m": "5-minute cache write",
    "cache_write_1h": "1-hour cache write",
    "output": "output",
}


def price_changes(before: PriceSheet, after: PriceSheet) -> list[dict[str, Any]]:
    """Return each price that differs, tier by tier; the price of a tier's start is that of the tier it lies in.

    Returns:
        For each its `price`, `above_tokens`, `per` (a million tokens, or a request), and `before_nano`, `after_nano`.
    """
    changes: list[dict[str, Any]] = []
    for above in sorted({tier.above for tier in before.tiers} | {tier.above for tier in after.tiers}):
        old, new = before.tier(above + 1), after.tier(above + 1)
        for name, words in _FIELDS.items():
            if getattr(old, name) != getattr(new, name):
                pair = {"before_nano": getattr(old, name), "after_nano": getattr(new, name)}
                changes.append({"price": words, "above_tokens": above, "per": "million tokens"} | pair)
    if before.request != after.request:
        pair = {"before_nano": before.request, "after_nano": after.request}
        changes.append({"price": "request", "above_tokens": 0, "per": "request"} | pair)
    return changes


def in_words(change: dict[str, Any]) -> str:
    """Return a change in words."""
    where = f" above {change['above_tokens']:,} tokens" if change["above_tokens"] else ""
    amounts = f"{show_usd(change['before_nano'])} → {show_usd(change['after_nano'])}"
    return f"{change['price']}{where} {amounts} per {change['per']}"


def in_brief(sheet: PriceSheet) -> str:
    """Return a sheet in a line: every price per million tokens of each tier, and that of a request."""
    tiers = [
        (f"above {tier.above:,} tokens " if tier.above else "")
        + ", ".join(f"{words} {show_usd(getattr(tier, name))}" for name, words in _FIELDS.items())
        for tier in sheet.tiers
    ]
    return " / ".join([*tiers, *([f"request {show_usd(sheet.request)}"] if sheet.request else [])])
