"""Predictions know nothing but the past, are as worked out by hand, and beat the simplest ones."""

import csv
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.conftest import ROOT, examples
from toolkit.demo.scenario import DAYS, KEYS
from toolkit.demo.traffic import draw
from toolkit.forecast.seasonal import DAILY, Method, Rhythm, Rolling, median, predict, reach, roll, spike_line

Numbers = NDArray[np.float64]

TRACE = Path(
    os.environ.get("KEYDESK_TEST_TRACE") or ROOT.parent / "shared" / "data" / "azure_llm_inference_trace_2023_code.csv"
)
MONDAY = datetime(2026, 8, 24, tzinfo=UTC)
FOR_EVER = 1e12
"""A half-life that lets every bucket count alike."""


def column(*amounts: float) -> Numbers:
    """Return one series."""
    return np.array(amounts, dtype=float)[:, None]


def last_value(history: Numbers, steps: int, rhythm: Rhythm) -> Numbers:
    """Foretell the last value again and again."""
    return np.repeat(np.nan_to_num(history[-1:]), steps, axis=0)


def mean(history: Numbers, steps: int, rhythm: Rhythm) -> Numbers:
    """Foretell the mean of all that is known."""
    known = np.maximum((~np.isnan(history)).sum(axis=0, keepdims=True), 1)
    return np.repeat(np.nan_to_num(history).sum(axis=0, keepdims=True) / known, steps, axis=0)


def demo_days() -> Numbers:
    """Return tokens a day of the demo's keys, days × keys: what an output token more costs is left out."""
    amounts = np.zeros((DAYS, len(KEYS)))
    for call in draw(MONDAY, 20_000):
        amounts[(call.at - MONDAY) // timedelta(days=1), KEYS.index(call.key)] += call.input_tokens + call.output_tokens
    amounts[amounts.cumsum(axis=0) == 0] = np.nan
    return amounts


def trace_minutes(keys: int = 8) -> Numbers:
    """Return the trace's cost a minute, at 150 and 600 nano-USD a token, its calls dealt out to some keys in turn."""
    with TRACE.open(newline="") as file:
        rows = [(datetime.fromisoformat(row["TIMESTAMP"][:26]), row) for row in csv.DictReader(file)]
    amounts = np.zeros(((rows[-1][0] - rows[0][0]) // timedelta(minutes=1), keys))
    for number, (at, row) in enumerate(rows):
        minute = (at - rows[0][0]) // timedelta(minutes=1)
        if minute < len(amounts):  # the last one is not whole
            amounts[minute, number % keys] += 150 * int(row["ContextTokens"]) + 600 * int(row["GeneratedTokens"])
    return amounts


def month_ends(history: Numbers, rhythm: Rhythm, month: int, first: int, method: Method) -> tuple[float, float]:
    """Return, for forecasts to the end of each month, Σ|error| ÷ Σ what came, and how often the interval held."""
    rolling = roll(history, month, rhythm, method)
    wrong = came = 0.0
    held: list[bool] = []
    for origin in range(first, len(history)):
        steps = (len(history) - origin - 1) % month + 1
        errors = np.abs(rolling.errors[origin, steps - 1])
        far = reach(rolling, steps, origin)[-1]
        wrong += np.nansum(errors)
        came += rolling.actual[origin, steps - 1][~np.isnan(errors)].sum()
        judged = ~np.isnan(errors) & ~np.isnan(far)
        held += (errors <= far)[judged].tolist()
    return wrong / came, float(np.mean(held))


def test_the_level_counts_recent_buckets_more() -> None:
    """With a half-life of one bucket, 8, 4, 2 weigh ¼, ½, 1: the level is (2 + 2 + 2) ÷ 1.75 = 24 ÷ 7."""
    foretold = predict(column(8, 4, 2), 3, Rhythm(1, 1))
    assert foretold[:, 0] == pytest.approx([24 / 7] * 3)


def test_the_season_has_a_shape() -> None:
    """After 1, 3, 1, 3 come 1.2 and 2.8: the shape of two seasons, mixed with half a flat one.

    The mean is 2; (1 + 1 + ½ × 2) ÷ 2½ = 1.2 and (3 + 3 + ½ × 2) ÷ 2½ = 2.8, on average 2: the shape is 0.6 and 1.4.
    The level is 8 ÷ (2 × 0.6 + 2 × 1.4) = 2.
    """
    foretold = predict(column(1, 3, 1, 3), 3, Rhythm(2, FOR_EVER))
    assert foretold[:, 0] == pytest.approx([1.2, 2.8, 1.2])


def test_a_spike_counts_as_much_as_the_line_above_the_usual() -> None:
    """Beside 10s a spike counts as 10 + 8 × a quarter of 10 = 30, however high it is."""
    history = column(*[10] * 14, 1_000)
    assert spike_line(history, Rhythm(1, 7.5)).tolist() == [30]
    assert predict(history, 1, Rhythm(1, FOR_EVER))[0, 0] == pytest.approx((14 * 10 + 30) / 15)


def test_what_lasts_is_no_spike() -> None:
    """A tenfold level is believed once it makes up most of the last two half-lives."""
    foretold = predict(column(*[10] * 40, *[100] * 30), 1, Rhythm(1, 7.5))
    assert foretold[0, 0] == pytest.approx(100, rel=0.06)


def test_a_series_that_is_mostly_silent_has_no_spikes() -> None:
    """A batch every tenth bucket is all there is to go by: the mean, not nothing, is foretold."""
    history = column(*([0] * 9 + [50]) * 6)
    assert predict(history, 10, Rhythm(1, FOR_EVER)).sum() == pytest.approx(50)


def test_silence_longer_than_ever_means_that_it_stopped() -> None:
    """After a week and a day without anything nothing is foretold; after a week something still is."""
    assert predict(column(*[5] * 30, *[0] * 7), 1, DAILY)[0, 0] > 0
    assert predict(column(*[5] * 30, *[0] * 8), 1, DAILY)[0, 0] == 0
    weekly = [5.0, *[0] * 6] * 6
    assert predict(column(*weekly, *[0] * 6), 1, DAILY)[0, 0] > 0  # twice its usual pause


def test_what_is_not_known_counts_neither_way() -> None:
    """Buckets that nobody knows leave level and silence as they are; a series without any is foretold as nothing."""
    assert predict(column(4, 4, *[np.nan] * 20), 2, DAILY)[:, 0] == pytest.approx([4, 4])
    assert predict(np.full((5, 2), np.nan), 2, DAILY).tolist() == [[0, 0], [0, 0]]
    assert predict(np.zeros((0, 1)), 1, DAILY).tolist() == [[0]]


def test_median_leaves_out_what_is_not_known() -> None:
    """The median of odd and even numbers of known values; NaN of none."""
    values = np.array([[3, np.nan, np.nan], [1, 8, np.nan], [2, 4, np.nan]])
    assert median(values)[:2].tolist() == [2, 6]
    assert np.isnan(median(values)[2])


def test_rolling_errors_are_what_came_less_what_was_foretold() -> None:
    """2, 4, 6 foretold by the last value: one step ahead 2 too little each time, two steps ahead 10 − 4 = 6."""
    rolling = roll(column(2, 4, 6), 2, Rhythm(1, 1), last_value)
    assert rolling.errors[1, :, 0].tolist() == [2, 6]
    assert rolling.errors[2, 0, 0] == 2
    assert np.isnan(rolling.errors[2, 1, 0])  # would end after all that is known
    assert np.isnan(rolling.errors[0]).all()  # nothing was known yet
    assert rolling.actual[1, :, 0].tolist() == [4, 10]
    assert rolling.scale[:, 0].tolist() == [0, 2, 3, 4]
    assert rolling.ages[:, 0].tolist() == [0, 1, 2, 3]


def test_a_window_counts_its_known_buckets_only() -> None:
    """Where a limit cut a bucket short, neither what came nor what was foretold for it counts."""
    rolling = roll(column(2, np.nan, 6), 2, Rhythm(1, 1), last_value)
    assert np.isnan(rolling.errors[1, 0, 0])
    assert rolling.errors[1, 1, 0] == 6 - 2


@given(st.lists(st.integers(0, 10**6), min_size=4, max_size=40), st.integers(0, 10**6), st.data())
@examples(40)
def test_nothing_later_than_the_moment_is_known(amounts: list[int], other: int, data: st.DataObject) -> None:
    """What comes after a moment changes neither what was foretold at it, nor how far off it was held to be."""
    at = data.draw(st.integers(2, len(amounts) - 1))
    history, changed = column(*amounts), column(*amounts[:at], *[other] * (len(amounts) - at))
    one, two = (roll(series, 3, DAILY) for series in (history, changed))
    foretold = [rolling.actual[:at] - rolling.errors[:at] for rolling in (one, two)]
    ended = np.isnan(foretold[0]) | np.isnan(foretold[1])
    assert np.allclose(np.where(ended, 0, foretold[0]), np.where(ended, 0, foretold[1]), rtol=1e-9, atol=1e-6)
    assert np.array_equal(reach(one, 3, at), reach(two, 3, at), equal_nan=True)


def test_reach_is_the_quantile_of_past_errors() -> None:
    """Of errors 1 to 10 the ⌈11 × 0.8⌉ = 9th smallest is the reach, times the level of today over that of then.

    The series is 11 buckets old; those errors count that it made when at least a quarter as old: eight, too few. So
    do the errors of its peers, itself alone, when 8 to 11 buckets old: three. So those of all ages are taken.
    """
    errors = np.full((12, 1, 1), np.nan)
    errors[1:11, 0, 0] = [3, -1, 2, -4, 10, 6, -7, 8, 5, 9]
    scale = np.full((12, 1), 2.0)
    scale[11] = 6
    rolling = Rolling(errors, np.abs(errors), scale, np.arange(12)[:, None])
    assert reach(rolling, 1, 11).tolist() == [[27]]


def test_reach_is_not_known_without_errors_and_grows_beyond_the_longest() -> None:
    """With a single bucket nothing is known; where windows of 5 are the longest, 10 steps reach twice as far."""
    assert np.isnan(reach(roll(column(3), 1, DAILY), 4, 1)).all()
    steps = np.array([1.0, 2, 4, 2, 1, 3, 2, 5, 1, 2, 3, 1, 2, 4, 1, 2, 3, 2, 1, 4])
    rolling = roll(steps[:, None], 5, Rhythm(1, 2))
    far = reach(rolling, 10, 20)[:, 0]
    assert far[9] == pytest.approx(2 * far[4])


def test_a_young_series_learns_from_others_when_they_were_young() -> None:
    """A key of three days gets the reach that older keys' third days had, at its own level."""
    rng = np.random.default_rng(5)
    old = rng.gamma(4, 25, (40, 6))
    young = np.full((40, 1), np.nan)
    young[37:, 0] = [1_000, 1_000, 1_000]
    far = reach(roll(np.hstack([old, young]), 5, DAILY), 5, 40)
    assert not np.isnan(far[:, 6]).any()
    assert 100 < far[0, 6] < 3_000


def test_a_constant_series_foretells_itself() -> None:
    """What never changed is foretold as it is, with nothing to either side."""
    history = np.full((60, 3), [5.0, 70.0, 0.25])
    assert predict(history, 30, DAILY) == pytest.approx(np.full((30, 3), [5.0, 70.0, 0.25]))
    assert reach(roll(history, 30, DAILY), 30, 60) == pytest.approx(0, abs=1e-9)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=40), st.integers(2, 1_000))
@examples(30)
def test_twice_the_spend_is_twice_the_forecast(amounts: list[int], factor: int) -> None:
    """Forecast and reach are in the unit of what comes in."""
    history = column(*amounts)
    one, many = predict(history, 9, DAILY), predict(history * factor, 9, DAILY)
    assert many == pytest.approx(one * factor, rel=1e-6, abs=1e-6)
    near, far = (reach(roll(series, 5, DAILY), 9, len(amounts)) for series in (history, history * factor))
    assert far == pytest.approx(near * factor, rel=1e-6, abs=1e-3, nan_ok=True)


def test_the_method_beats_last_value_and_mean_on_demo_days() -> None:
    """To the month's end it is less wrong than either, and its interval holds about four times in five."""
    history = demo_days()
    wrong, held = month_ends(history, DAILY, 30, 14, predict)
    assert wrong < 0.95 * month_ends(history, DAILY, 30, 14, mean)[0]
    assert wrong < 0.5 * month_ends(history, DAILY, 30, 14, last_value)[0]
    assert 0.7 <= held <= 0.9


@pytest.mark.skipif(not TRACE.exists(), reason="The trace is not beside this project; KEYDESK_TEST_TRACE names it.")
def test_the_method_beats_last_value_and_mean_on_the_trace() -> None:
    """In minutes of real requests, three months of 19 minutes, it is less wrong than either, and its interval holds."""
    history = trace_minutes()
    month = len(history) // 3
    rhythm = Rhythm(1, month / 4)
    wrong, held = month_ends(history, rhythm, month, 9, predict)
    assert wrong < 0.95 * month_ends(history, rhythm, month, 9, mean)[0]
    assert wrong < 0.6 * month_ends(history, rhythm, month, 9, last_value)[0]
    assert 0.7 <= held <= 0.95
