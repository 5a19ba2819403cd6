"""Periods: spans of admission times."""

import pytest

from toolkit.core.errors import InvalidInput
from toolkit.core.period import Period


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
