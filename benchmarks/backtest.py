"""Which forecast is best, by what would have been foretold: `python -m benchmarks.backtest`.

On the demo data, loaded anew from several seeds, and on a trace of real requests, sought where KEYDESK_TEST_TRACE says
or beside the project (Azure Public Dataset, CC-BY 4.0; Patel et al., "Splitwise: Efficient generative LLM inference
using phase splitting", ISCA 2024). A forecast is made from every earlier moment with what was known then, and compared
with what came. The trace lasts an hour: it is cut into three "months", as the demo's 90 days are three.

The methods of statsmodels take part with --library where that package can be imported; Keydesk does not need it.
"""

import argparse
import calendar
import csv
import os
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from benchmarks import machine
from benchmarks.tables import table
from toolkit import environment
from toolkit.demo import data, scenario, traffic
from toolkit.forecast import anomalies, outlook
from toolkit.forecast.runway import Outlook
from toolkit.forecast.seasonal import DAILY, Method, Rhythm, Rolling, predict, reach, roll
from toolkit.store.actor import Actor
from toolkit.workspace import Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

TRACE = Path(
    os.environ.get("KEYDESK_TEST_TRACE")
    or Path(__file__).parent.parent.parent / "shared" / "data" / "azure_llm_inference_trace_2023_code.csv"
)
SEEDS = (traffic.SEED, 1, 2, 3)
BUCKETS = (30, 60, 120, 300)
KEYS = 8
"""The trace's calls are dealt out to so many keys in turn."""

INPUT_PRICE, OUTPUT_PRICE = 150, 600
"""Nano-USD a token."""

FIRST = 14
"""Days of demo data before the first forecast; of the trace, a sixth."""

Horizon = Callable[[int], int]


def last_value(history: "Numbers", steps: int, rhythm: Rhythm) -> "Numbers":  # noqa: ARG001 - a `Method`
    """Tomorrow and every day after it are as today."""
    return np.repeat(np.nan_to_num(history[-1:]), steps, axis=0)


def mean(history: "Numbers", steps: int, rhythm: Rhythm) -> "Numbers":  # noqa: ARG001 - a `Method`
    """Every day is as the average of all before."""
    return np.repeat(np.nan_to_num(np.nanmean(history, axis=0, keepdims=True)), steps, axis=0)


def last_season(history: "Numbers", steps: int, rhythm: Rhythm) -> "Numbers":
    """Every week is as the last one."""
    week: Numbers = np.nan_to_num(history[-rhythm.season :])
    return week[np.arange(steps) % len(week)]


def season_medians(history: "Numbers", steps: int, rhythm: Rhythm) -> "Numbers":
    """Every weekday is as the median of the last eight."""
    places = np.arange(len(history)) % rhythm.season
    recent = slice(-8 * rhythm.season if rhythm.season > 1 else -30, None)
    medians = [np.nanmedian(history[recent][places[recent] == place], axis=0) for place in range(rhythm.season)]
    return np.nan_to_num(np.array(medians)[(len(history) + np.arange(steps)) % rhythm.season])


def theil_sen(history: "Numbers", steps: int, rhythm: Rhythm) -> "Numbers":
    """The median slope of the last four weeks goes on, in the shape of the week."""
    shape = season_medians(history, rhythm.season, Rhythm(rhythm.season, rhythm.half_life))
    average = shape.mean(axis=0)
    shape = np.roll(np.where(average > 0, shape / np.where(average > 0, average, 1), 1), len(history), axis=0)
    recent = (history / np.maximum(shape[np.arange(len(history)) % rhythm.season], 0.02))[-28:]
    earlier, later = np.triu_indices(len(recent), 1)
    slope = np.nan_to_num(np.nanmedian((recent[later] - recent[earlier]) / (later - earlier)[:, None], axis=0))
    start = np.nanmedian(recent - slope * np.arange(len(recent))[:, None], axis=0)
    line = start + slope * (len(recent) + np.arange(steps))[:, None]
    return np.nan_to_num(np.maximum(line, 0) * shape[(len(history) + np.arange(steps)) % rhythm.season])


METHODS: dict[str, Method] = {
    "last value": last_value,
    "mean": mean,
    "last season again": last_season,
    "medians of the season": season_medians,
    "Theil–Sen in the season's shape": theil_sen,
    "Keydesk": predict,
}


def library() -> dict[str, Method]:
    """Return statsmodels' methods, one series at a time."""
    from statsmodels.tsa.forecasting.theta import ThetaModel
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    def of(fit: Callable[["Numbers", int | None], "object"]) -> Method:
        def method(history: "Numbers", steps: int, rhythm: Rhythm) -> "Numbers":
            found = np.zeros((steps, history.shape[1]))
            for place, series in enumerate(history.T):
                known = series[~np.isnan(series)]
                season = rhythm.season if rhythm.season > 1 and 2 * rhythm.season + 2 <= len(known) else None
                if len(known) < 4:
                    found[:, place] = known.mean() if len(known) else 0
                    continue
                fitted = fit(known, season)
                found[:, place] = np.maximum(np.asarray(fitted.forecast(steps)), 0)  # type: ignore[attr-defined]
            return np.nan_to_num(found)

        return method

    def smoothing(trend: str | None) -> Callable[["Numbers", int | None], object]:
        def fit(known: "Numbers", season: int | None) -> object:
            return ExponentialSmoothing(
                known,
                trend=trend,
                damped_trend=trend is not None,
                seasonal="add" if season else None,
                seasonal_periods=season,
                initialization_method="estimated",
            ).fit()

        return fit

    return {
        "statsmodels, smoothing": of(smoothing(None)),
        "statsmodels, damped trend": of(smoothing("add")),
        "statsmodels, Theta": of(
            lambda known, season: ThetaModel(
                known, period=season, deseasonalize=season is not None, method="additive"
            ).fit()
        ),
    }


@contextmanager
def demo(seed: int) -> Iterator[Workspace]:
    """Load the demo data, drawn from a seed, into a Keydesk that lasts as long as the block."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(environment.read_settings({"KEYDESK_DATA_DIR": folder}), Actor.trusted(), make=True)
        usual, traffic.SEED = traffic.SEED, seed
        try:
            data.load(workspace)
            workspace.ledger.sync()
            yield workspace
        finally:
            traffic.SEED = usual
            workspace.close()


def of_trace(seconds: int) -> "Numbers":
    """Return what the trace's calls would have cost: buckets × keys, nano-USD."""
    with TRACE.open(newline="") as file:
        calls = [
            (datetime.fromisoformat(row["TIMESTAMP"][:26]), int(row["ContextTokens"]), int(row["GeneratedTokens"]))
            for row in csv.DictReader(file)
        ]
    places = [int((at - calls[0][0]).total_seconds() // seconds) for at, _, _ in calls]
    amounts = np.zeros((max(places) + 1, KEYS))
    for number, (place, (_, given, made)) in enumerate(zip(places, calls, strict=True)):
        amounts[place, number % KEYS] += given * INPUT_PRICE + made * OUTPUT_PRICE
    return amounts[:-1]  # the last bucket is not whole


class Sample(NamedTuple):
    """Series to judge methods on from `first` buckets of history on; each horizon is a column of the table."""

    history: "Numbers"
    rhythm: Rhythm
    first: int
    horizons: dict[str, Horizon]


class Score:
    """How wrong a method was, and how often its interval held."""

    def __init__(self) -> None:
        self.wrong = self.came = self.width = 0.0
        self.within: list[bool] = []

    def add(self, rolling: Rolling, moments: range, horizon: Horizon) -> None:
        """Judge what was foretold at some moments."""
        for origin in moments:
            steps = horizon(origin)
            if steps < 1:
                continue
            error, came = rolling.errors[origin, steps - 1], rolling.actual[origin, steps - 1]
            far = reach(rolling, steps, origin)[-1]
            known = ~np.isnan(error)
            self.wrong += np.abs(error[known]).sum()
            self.came += came[known].sum()
            judged = known & ~np.isnan(far)
            self.within.extend((np.abs(error) <= far)[judged].tolist())
            self.width += (far + np.minimum(far, came - error))[judged].sum()

    def __str__(self) -> str:
        shares = self.wrong / self.came, np.mean(self.within), self.width / self.came
        return f"{100 * shares[0]:.1f} · {100 * shares[1]:.0f} · {100 * shares[2]:.0f}"


def to_month_end(first: datetime) -> Horizon:
    """Return how many days are left of the month when so many days after the first are known."""

    def left(origin: int) -> int:
        day = first + timedelta(days=origin)
        return calendar.monthrange(day.year, day.month)[1] - day.day + 1

    return left


def compare(name: str, samples: Sequence[Sample], methods: dict[str, Method], every: int) -> None:
    """Judge all methods on samples, at every so many moments, and print a table."""
    rows = []
    for label, method in methods.items():
        began = time.process_time()
        scores: dict[str, Score] = defaultdict(Score)
        for sample in samples:
            moments = range(sample.first, len(sample.history))
            longest = max(horizon(origin) for horizon in sample.horizons.values() for origin in moments)
            rolling = roll(sample.history, longest, sample.rhythm, now_and_then(method, every))
            for column, horizon in sample.horizons.items():
                scores[column].add(rolling, moments, horizon)
        rows.append([label, *map(str, scores.values()), f"{time.process_time() - began:.1f}"])
    print(f"\n{name}\n")
    table(["error % · within % · width %", *scores, "CPU s"], rows)


def now_and_then(method: Method, every: int) -> Method:
    """Return a method that foretells nothing but at every so many moments: some are slow."""

    def foretell(history: "Numbers", steps: int, rhythm: Rhythm) -> "Numbers":
        if len(history) % every:
            return np.full((steps, history.shape[1]), np.nan)
        return method(history, steps, rhythm)

    return foretell


def show_demo(outlooks: Sequence[Outlook], methods: dict[str, Method], every: int) -> None:
    """Compare the methods on the demo data."""
    samples = []
    for found in outlooks:
        horizons: dict[str, Horizon] = {"7 days": lambda _: 7, "14 days": lambda _: 14, "28 days": lambda _: 28}
        horizons["month's end"] = to_month_end(found.now - timedelta(days=len(found.history)))
        samples.append(Sample(found.history, DAILY, FIRST, horizons))
    compare(f"Demo data of {len(outlooks)} seeds, per key and day", samples, methods, every)


def show_trace(methods: dict[str, Method]) -> None:
    """Compare the methods on the trace, in buckets of several lengths."""
    samples = []
    for seconds in BUCKETS:
        history = of_trace(seconds)
        month = len(history) // 3
        rhythm, first = Rhythm(1, month / 4), max(len(history) // 6, 3)
        samples.append(Sample(history, rhythm, first, {f"{seconds} s": _left(len(history), month)}))
    compare(f"Trace in three months, {KEYS} keys, to the month's end, by length of bucket", samples, methods, every=1)


def _left(buckets: int, month: int) -> Horizon:
    def left(origin: int) -> int:
        begun = origin - (buckets - 3 * month)
        return month - begun % month if begun >= 0 else 0

    return left


def show_anomalies(workspaces: Sequence[tuple[int, "pd.DataFrame", "pd.DataFrame", datetime]]) -> None:
    """Print which anomalies are found in the demo data, and how many of them nobody planted."""
    runaway = next(key for key in scenario.KEYS if key.surge is not None)
    assert runaway.surge is not None
    rows = []
    for seed, by_day, by_hour, start in workspaces:
        surge = pd.Timestamp(start) + timedelta(days=runaway.surge)
        for bucket, found in (("day", by_day), ("hour", by_hour)):
            near = found["bucket"].between(surge, surge + timedelta(days=3))
            planted = found[(found["key"] == runaway.name) & (found["kind"] == "spend") & near]
            late = planted["bucket"].min() - surge if len(planted) else None
            refused = int((found["kind"] == "refusals").sum())
            rows.append(
                [
                    f"seed {seed}, by {bucket}",
                    "-" if late is None else f"after {late / timedelta(hours=1):.0f} h",
                    str(refused),
                    str(len(found) - len(planted) - refused),
                ]
            )
    print("\nAnomalies in 90 days of demo data\n")
    table(["", "runaway key seen", "bursts of refusals", "false alarms"], rows)


def show_speed() -> None:
    """Print how long the forecast of many keys takes."""
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    days = pd.date_range(end=now.date(), periods=90)
    amounts = np.random.default_rng(1).gamma(4, 1e9, (90, 200)).astype("int64")
    daily = pd.DataFrame(amounts, index=days, columns=[f"key_{n}" for n in range(200)])
    began = time.process_time()
    found = Outlook(daily, now, {key: f"org_{number % 5}" for number, key in enumerate(daily.columns)})
    found.by_key()
    found.by_org()
    print(f"\n200 keys, 90 days, with back-test and organisations: {time.process_time() - began:.2f} s of CPU")


def main() -> None:
    """Run the back-test and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many seeds of demo data (%(default)s)")
    parser.add_argument(
        "--library", action="store_true", help="compare with statsmodels, on demo data at every fourth moment"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(machine.header("numpy", "pandas", *(["statsmodels"] if options.library else [])))
    outlooks, unusual = [], []
    for seed in SEEDS[: options.seeds]:
        with demo(seed) as workspace:
            with workspace.read() as tx:
                now = tx.now
            outlooks.append(outlook.outlook(workspace.ledger, now)[0])
            by_day, by_hour = (
                anomalies.anomalies(workspace.ledger, now, unit, days=scenario.DAYS) for unit in ("day", "hour")
            )
            start = (now - timedelta(days=scenario.DAYS - 1)).replace(hour=0, minute=0, second=0, microsecond=0)
            unusual.append((seed, by_day, by_hour, start))
    methods = METHODS | (library() if options.library else {})
    every = 4 if options.library else 1
    show_demo(outlooks, methods, every)
    if TRACE.exists():
        show_trace(methods)
    else:
        print(f"\nThere is no trace at {TRACE.name}: set KEYDESK_TEST_TRACE to its path.")
    show_anomalies(unusual)
    show_speed()


if __name__ == "__main__":
    main()
