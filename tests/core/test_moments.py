"""Moments: exact to the microsecond wherever they are kept."""

from datetime import timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.moments import micros, moment


@given(
    st.integers(0, 253_402_300_799_999_999),
    st.integers(-14 * 60, 14 * 60),
)
def test_moments_survive_the_store_to_the_microsecond(microseconds: int, offset: int) -> None:
    """Whatever zone they were given in."""
    assert micros(moment(microseconds)) == microseconds
    if 10**14 < microseconds < 253_402_200_000_000_000:
        shifted = moment(microseconds).astimezone(timezone(timedelta(minutes=offset)))
        assert micros(shifted) == microseconds
