"""The chart of a model's prices has each price from its moment on, and says when it is now."""

from datetime import UTC, datetime, timedelta

from toolkit.core.money import NANO
from toolkit.core.pricing import PriceSheet
from toolkit.reports.price_chart import price_steps

NOW = datetime(2026, 11, 23, tzinfo=UTC)
DAY = timedelta(days=1)
OLD, NEW = PriceSheet.flat(2 * NANO, 8 * NANO), PriceSheet.flat(NANO, 4 * NANO, cached_input=NANO // 10)


def test_each_price_holds_until_the_next() -> None:
    """Up to now; the first tier's prices, and of one moment's two entries the latter."""
    first = NOW - 9 * DAY
    figure = price_steps([(first, NEW), (first, OLD), (NOW - DAY, NEW)], NOW)
    shown = {trace.name: list(trace.y) for trace in figure.data}
    assert shown == {"Input": [2, 1, 1], "Cached input": [2, 0.1, 0.1], "Output": [8, 4, 4]}
    assert list(figure.data[0].x) == [first, NOW - DAY, NOW]
    assert figure.data[2].text[0] == "Output $8.00"


def test_a_price_to_come_is_drawn_beyond_the_mark_of_now() -> None:
    """And a cache that has no price of its own has no line."""
    figure = price_steps([(NOW - DAY, OLD), (NOW + DAY, OLD)], NOW)
    assert [trace.name for trace in figure.data] == ["Input", "Output"]
    assert [note.text for note in figure.layout.annotations] == ["now"]
    assert price_steps([(NOW - DAY, OLD)], NOW).layout.shapes == ()


def test_without_a_price_it_says_so() -> None:
    """It does not fail."""
    assert price_steps([], NOW).layout.annotations[0].text == "No price yet"
