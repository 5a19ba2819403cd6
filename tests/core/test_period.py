"""Periods: billing months, and spans of admission times."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.errors import InvalidInput
from toolkit.core.period import Period, billing_month, next_month


def test_a_span_of_periods_holds_all_of_them() -> None:
    """Two months with a gap between them are spanned from the first's start to the second's end, in either order."""
    july, october = Period.month("2026-07"), Period.month("2026-10")
    assert Period.spanning(october, july) == Period(july.start, october.end)


def test_a_span_is_open_where_one_of_its_periods_is() -> None:
    """A period without a start leaves the span without one, and likewise the end."""
    october = Period.month("2026-10")
    assert Period.spanning(october, Period(None, october.start)) == Period(None, october.end)
    assert Period.spanning(Period(october.end), october) == Period(october.start)


@pytest.mark.parametrize(
    "month", ["2026-1", "2026-13", "26-11", "2026-11-01", " 2026-11", "٢٠٢٦-11", "0000-01", "9999-12", ""]
)
def test_a_month_is_written_in_one_way(month: str) -> None:
    """A month is a name too, of running totals and statements: what is written otherwise is refused."""
    with pytest.raises(InvalidInput, match=r"month"):
        Period.month(month)


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
