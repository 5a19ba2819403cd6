"""The estimate of the store's clock: it is as good as the quickest answer, and follows a clock that was set."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import examples
from toolkit.gateway.store_clock import DRIFT, KEPT, Ahead, Answer, StoreClock

START = datetime(2026, 12, 1, tzinfo=UTC)
GRAIN = timedelta(microseconds=4)
"""What rounding to microseconds can add up to."""


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def answer(at: datetime, there: timedelta, back: timedelta, ahead: timedelta) -> Answer:
    """Return the answer of a clock that is ahead, asked at a moment, with the times of both ways."""
    return Answer(at, at + there + ahead, at + there + back)


_WAY = st.floats(0, 2).map(seconds)


@examples(200)
@given(
    st.floats(-1e6, 1e6).map(seconds),
    st.floats(-DRIFT, DRIFT),
    st.lists(st.tuples(_WAY, _WAY, st.floats(0, 10)), min_size=1, max_size=3 * KEPT),
)
def test_the_estimate_is_within_its_bound_and_no_worse_than_any_answer_that_is_kept(
    ahead: timedelta, drift: float, trips: list[tuple[timedelta, timedelta, float]]
) -> None:
    """However slow the ways are and whichever is slower, and while the clocks drift apart."""
    clock, now, seen = StoreClock(), START, list[tuple[datetime, timedelta]]()
    for there, back, pause in trips:
        read = now + there
        shown = answer(now, there, back, ahead + (read - START) * drift)
        seen.append((now, there + back))
        now = shown.received
        found = clock.heard(shown)
        true = ahead + (now - START) * drift
        assert abs(found.by - true) <= found.within + GRAIN
        for at, trip in seen[-KEPT:]:
            assert found.within <= trip / 2 + (now - at) * DRIFT + GRAIN
        now += seconds(pause)


def test_a_slow_answer_spoils_nothing() -> None:
    """The midpoint of one that comes back after 3 s would be wrong by 1.5 s."""
    clock = StoreClock()
    clock.heard(answer(START, seconds(0.001), seconds(0.001), seconds(5)))
    found = clock.heard(answer(START + seconds(5), seconds(0), seconds(3), seconds(5)))
    assert abs(found.by - seconds(5)) <= seconds(0.002)


def test_an_old_answer_is_forgotten() -> None:
    """What was quick once bounds nothing after `KEPT` others."""
    clock = StoreClock()
    clock.heard(answer(START, seconds(0), seconds(0), seconds(5)))
    for number in range(1, KEPT + 1):
        found = clock.heard(answer(START + seconds(number), seconds(0.1), seconds(0.1), seconds(5)))
    assert found.within > seconds(0.09)


def test_a_clock_that_was_set_is_followed_at_once() -> None:
    """The store's, forward and back; then what was heard before is of another time."""
    clock, ways = StoreClock(), (seconds(0.01), seconds(0.01))
    for number, ahead in enumerate((0, 0, 60, 60, -3600)):
        found = clock.heard(answer(START + seconds(number), *ways, seconds(ahead)))
        assert abs(found.by - seconds(ahead)) <= found.within <= seconds(0.011)


def test_an_answer_across_a_step_of_this_machines_clock_says_nothing() -> None:
    """It was set back while the store was asked: what was known stays; without that its end is taken."""
    step = Answer(START + seconds(60), START + seconds(65), START + seconds(1))
    clock = StoreClock()
    before = clock.heard(answer(START, seconds(0.01), seconds(0.01), seconds(5)))
    assert clock.heard(step).by == before.by
    assert StoreClock().heard(step) == Ahead(seconds(64), seconds(59))
