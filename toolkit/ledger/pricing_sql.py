"""Charges as SQL: what `pricing.charge` computes for one call, for whole columns of the view `usage`. Pure: text only.

128-bit integers carry the sums, so nothing is rounded but the charge itself, once a call, half to even. A test
compares the two row by row.
"""

from toolkit.core.policy import NOT_ADMITTED

TOKENS = {
    "input": "greatest(input_tokens - cached_input_tokens - cache_write_5m_tokens - cache_write_1h_tokens, 0)",
    "cached_input": "cached_input_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "output": "output_tokens",
}
"""Tokens that are priced apart, by the name of their price: no token of a call is in two of them."""

CHARGED = "(usage_source IS NOT NULL OR cost <> 0)"
"""Condition on `usage`: calls that were charged by their usage. Refused and failed ones have none, and cost nothing."""

_OUTCOMES = ", ".join(f"'{outcome}'" for outcome in NOT_ADMITTED)

REFUSED = f"outcome IN ({_OUTCOMES})"
"""Condition on `usage`: calls that were refused, or turned away at a full queue."""

ADMITTED = f"outcome NOT IN ({_OUTCOMES})"
"""Condition on `usage`: calls that began, whatever became of them."""


def half_even(numerator: str, denominator: str) -> str:
    """Return SQL for a quotient of integers, rounded half to even: none negative, the denominator not 0 (or NULL)."""
    # Twice both, so that half a denominator is whole. The engine computes what stands here several times once.
    top, bottom = f"(2 * ({numerator})::HUGEINT + ({denominator}))", f"(2 * ({denominator})::HUGEINT)"
    rounded_up = f"({top} // {bottom})"
    tie = f"{rounded_up} * {bottom} = {top} AND {rounded_up} & 1 = 1"
    return f"({rounded_up} - CASE WHEN {tie} THEN 1 ELSE 0 END)"


def charge_sql(multiplier: str = "multiplier", **prices: str) -> str:
    """Return SQL for what a call of `usage` costs, in nano-USD as a HUGEINT.

    Args:
        multiplier: SQL for the multiplier in millionths; by default the one that was applied.
        prices: SQL for a price in place of the one that was applied: input, cached_input, cache_write_5m,
            cache_write_1h and output in nano-USD per million tokens, request in nano-USD.
    """
    terms = [f"{tokens}::HUGEINT * {prices.get(name, f'{name}_price')}" for name, tokens in TOKENS.items()]
    terms.append(f"{prices.get('request', 'request_price')}::HUGEINT * 1000000")
    return half_even(f"({' + '.join(terms)}) * {multiplier}", "1000000000000")
