"""Charges in SQL are those of `pricing.charge`, to the nano-USD."""

from fractions import Fraction

import duckdb
from hypothesis import example, given
from hypothesis import strategies as st

from toolkit.core.money import NANO
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.core.pricing import charge as charge_one
from toolkit.core.usage import Usage
from toolkit.ledger.pricing_sql import charge_sql, half_even

tokens = st.integers(0, 10**8)
prices = st.integers(0, 10**6 * NANO)  # up to a million USD per million tokens


@given(
    counts=st.tuples(*[tokens] * 5),
    price=st.tuples(*[prices] * 6),
    multiplier=st.integers(0, 1000 * MILLION),
)
@example(counts=(1, 0, 0, 0, 0), price=(MILLION // 2, 0, 0, 0, 0, 0), multiplier=MILLION)  # 0.5: to 0
@example(counts=(3, 0, 0, 0, 0), price=(MILLION // 2, 0, 0, 0, 0, 0), multiplier=MILLION)  # 1.5: to 2
@example(counts=(5, 7, 0, 0, 0), price=(1, 1, 1, 1, 1, 0), multiplier=0)  # more cached than there was input
def test_a_charge_in_sql_is_the_charge(counts: tuple[int, ...], price: tuple[int, ...], multiplier: int) -> None:
    """Whatever tokens, prices and multiplier are, both round the same sum in the same way."""
    input_tokens, cached_input, write_5m_tokens, write_1h_tokens, output_tokens = counts
    usage = Usage(input_tokens, cached_input, write_5m_tokens, write_1h_tokens, output_tokens)
    fresh, cached, write_5m, write_1h, output, request = price
    sheet = PriceSheet.flat(fresh, output, cached, write_5m, write_1h, request)
    columns = ["input_tokens", "cached_input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens"]
    kinds = ["input", "cached_input", "cache_write_5m", "cache_write_1h", "output", "request"]
    columns += [f"{kind}_price" for kind in kinds] + ["multiplier"]
    row = ", ".join(f"?::BIGINT AS {column}" for column in columns)
    values = [*counts, *price, multiplier]
    ((charged,),) = duckdb.execute(f"SELECT {charge_sql()} FROM (SELECT {row})", values).fetchall()
    # The same prices given in place of those of the row, which are other ones here.
    other = {kind: str(amount) for kind, amount in zip(kinds, price, strict=True)}
    row = row.replace("?::BIGINT AS input_price", "? + 1 AS input_price")
    ((given,),) = duckdb.execute(
        f"SELECT {charge_sql(str(multiplier), **other)} FROM (SELECT {row})", values
    ).fetchall()
    assert charged == given == charge_one(usage, sheet, multiplier)


@given(numerator=st.integers(0, 2**100), denominator=st.integers(1, 2**62))
@example(numerator=5, denominator=2)
@example(numerator=7, denominator=2)
def test_a_quotient_is_rounded_half_to_even(numerator: int, denominator: int) -> None:
    """The quotient is the nearest integer, the even one of two, as Python rounds a fraction."""
    ((rounded,),) = duckdb.execute(f"SELECT {half_even(f'{numerator}::HUGEINT', str(denominator))}").fetchall()
    assert rounded == round(Fraction(numerator, denominator))
