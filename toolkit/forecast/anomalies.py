"""Anomalies: when a key spent far more than usual, fell silent, or was refused in bursts.

`find` is pure: amounts per bucket in, anomalies out. A day is compared with the same weekday of the weeks before; an
hour, since a single one is a handful of calls, together with the five before it, and with the same hours of the weeks
before. Usual is the median of those. Amounts are compared by their square roots, because the spread of a sum of calls
grows as the root of its mean; the measure is the median absolute deviation from what was usual. Nothing after a bucket
is looked at: an anomaly shows at once, and stays. How many are found, and how many falsely, says `docs/forecast.md`.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from toolkit.core.errors import InvalidInput
from toolkit.core.money import NANO, show_usd
from toolkit.core.period import Period
from toolkit.forecast.outlook import known_keys
from toolkit.forecast.seasonal import SPREAD, median
from toolkit.ledger.ledger import Ledger
from toolkit.ledger.pricing_sql import REFUSED

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

Bucket = Literal["day", "hour"]

WEEKS = 8
"""How far back a bucket is compared."""

SCORE = 4.0
"""Usual deviations from which on a bucket is an anomaly."""

_BEYOND = 1.5
"""Times the highest of what a bucket is compared with: what was there before is no anomaly."""

_ENOUGH = 4
"""Buckets to compare with, without which nothing is judged: a key's first weeks."""

_LEAST_SPREAD = 0.15
"""Of the root of the mean: the steadiest key has some play."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How buckets of one length are judged.

    Args:
        length: of a bucket.
        week: buckets in a week.
        span: buckets that are judged together, up to and with the one in question.
        neighbours: how many to each side of the same bucket of another week are as good as it.
        least: nano-USD above what is usual, for one span, that are worth an alarm: small keys are not to shout. A
            silence must lack as much.
        least_refusals: refused calls above what is usual, likewise.
        gap: quiet buckets within one anomaly: what goes on is one, not many.
        window: buckets before that say which deviations are usual.
    """

    length: timedelta
    week: int
    span: int
    neighbours: int
    least: int
    least_refusals: int
    gap: int
    window: int


GRIDS: dict[Bucket, Grid] = {
    "day": Grid(timedelta(days=1), 7, 1, 0, NANO, 20, 0, 56),
    "hour": Grid(timedelta(hours=1), 168, 6, 1, NANO, 20, 5, 168),
}


@dataclass(frozen=True, slots=True)
class _Usual:
    """What is usual for each bucket, with those judged together with it; buckets × series, as are all of these.

    Args:
        amount: the sum that is judged.
        expected: the median of comparable sums; NaN where there are too few.
        lowest, highest: of the comparable sums.
        score: usual deviations by which the amount is above (below: negative) what is expected.
    """

    amount: "Numbers"
    expected: "Numbers"
    lowest: "Numbers"
    highest: "Numbers"
    score: "Numbers"


def find(
    spend: "pd.DataFrame",
    bucket: Bucket,
    *,
    refused: "pd.DataFrame | None" = None,
    since: datetime | None = None,
    unfinished: bool = False,
    score: float = SCORE,
) -> "pd.DataFrame":
    """Return the anomalies of a number of keys.

    Args:
        spend: nano-USD (int64), one row for each bucket without gaps (the index says when it begins), one column for
            each key. What is before a key's first spend does not count.
        bucket: how long a bucket is.
        refused: refused calls (int64), in the same form.
        since: only buckets from this moment on are judged; all by default.
        unfinished: the last bucket is not over: too much may have been spent in it, but silent it is not yet.
        score: usual deviations from which on a bucket is an anomaly.

    Returns:
        key_id; kind ("spend", "silence" or "refusals"); bucket (where it shows first) and buckets (how long it lasts);
        expected and actual (sums over them, and over what was judged together with the first; nano-USD, or calls for
        refusals); score (of the worst bucket, in usual
        deviations; a silence's is negative); severity ("high", "medium" or "low"); sentence. The newest first.

    Raises:
        InvalidInput: the buckets have gaps, or amounts are no whole numbers.
    """
    import numpy as np
    import pandas as pd

    grid = GRIDS[bucket]
    moments = pd.DatetimeIndex(spend.index)
    if not (np.diff(moments) == np.timedelta64(grid.length)).all():
        raise InvalidInput(f"Anomalies are sought in a row for each {bucket}, in order of time and without gaps.")
    if any(str(kind) != "int64" for frame in (spend, refused) if frame is not None for kind in frame.dtypes):
        raise InvalidInput("Anomalies are sought in whole numbers (int64): nano-USD, or calls.")
    first = 0 if since is None else int(moments.searchsorted(pd.Timestamp(since)))
    money = spend.to_numpy()
    born = money.cumsum(axis=0) > 0
    usual = _usual(money, born, grid, grid.least, first)
    flags = {
        "spend": _exceeds(usual, grid.least, score),
        "silence": (usual.amount == 0) & (usual.lowest > 0) & (usual.expected >= grid.least) & (usual.score <= -score),
    }
    if unfinished:
        flags["silence"][-1:] = False
    found = [_rows(kind, flagged, money, usual, grid) for kind, flagged in flags.items()]
    if refused is not None:
        calls = refused.to_numpy()
        usual = _usual(calls, born | (calls.cumsum(axis=0) > 0), grid, grid.least_refusals, first)
        found.append(_rows("refusals", _exceeds(usual, grid.least_refusals, score), calls, usual, grid))
    rows = [row for rows in found for row in rows]
    columns = ["key_id", "kind", "bucket", "buckets", "expected", "actual", "score", "severity", "sentence"]
    for row in rows:
        row["bucket"], row["key_id"] = moments[row["bucket"]], spend.columns[row["key_id"]]
        row["sentence"] = _sentence(row, grid)
    frame = pd.DataFrame(rows, columns=columns)
    types = {"buckets": "int64", "expected": "int64", "actual": "int64", "score": "float64", "bucket": moments.dtype}
    frame = frame.astype(types)
    return frame.sort_values(["bucket", "actual"], ascending=False, kind="stable", ignore_index=True)


def _usual(amounts: "NDArray[np.int64]", born: "NDArray[np.bool_]", grid: Grid, least: int, first: int) -> _Usual:
    """Return what is usual for each bucket, from those before it alone; NaN before `first`, where nobody asks."""
    import numpy as np

    buckets, series = amounts.shape
    totals = np.vstack([np.zeros((1, series)), amounts.cumsum(axis=0)])
    starts = np.maximum(np.arange(1, buckets + 1) - grid.span, 0)
    sums = totals[1:] - totals[starts]
    roots = np.where(born, np.sqrt(sums), np.nan)
    begin = max(first - grid.window, 0)  # what deviations are usual, the window before the first one asked for says
    around = range(-grid.neighbours, grid.neighbours + 1)
    lags = [week * grid.week + step for week in range(1, WEEKS + 1) for step in around]
    comparable = np.full((len(lags), buckets - begin, series), np.nan)
    for place, lag in enumerate(lags):
        from_there = max(begin, lag)
        if from_there < buckets:
            comparable[place, from_there - begin :] = roots[from_there - lag : buckets - lag]
    enough = (~np.isnan(comparable)).sum(axis=0) >= _ENOUGH
    middle = np.where(enough, median(comparable), np.nan)
    lowest = np.where(enough, np.nan_to_num(comparable, nan=np.inf).min(axis=0), np.nan)
    highest = np.where(enough, np.nan_to_num(comparable).max(axis=0), np.nan)
    off = roots[begin:] - middle
    deviation = np.full_like(off, np.nan)
    step = max(grid.week // 7, 1)  # what is usual changes by the day, not by the hour
    floor = np.sqrt(least) / (2 * SCORE)
    for place in range(max(first - begin, 0), len(off), step):
        before = slice(max(place - grid.window, 0), place)
        spread = np.nan_to_num(SPREAD * median(np.abs(off[before])))
        known = roots[begin:][before]
        mean = np.nan_to_num(known**2).sum(axis=0) / np.maximum((~np.isnan(known)).sum(axis=0), 1)
        deviation[place : place + step] = np.maximum(np.maximum(spread, _LEAST_SPREAD * np.sqrt(mean)), floor)
        seen = roots[max(begin + place - WEEKS * grid.week, 0) : begin + place]
        highest[place : place + step] = np.maximum(highest[place : place + step], _seen_twice(seen, grid.span))
    unasked = np.full((begin, series), np.nan)
    back = [np.vstack([unasked, part]) for part in (middle**2, lowest**2, highest**2, off / deviation)]
    return _Usual(sums, *back)


def _seen_twice(roots: "Numbers", span: int) -> "Numbers":
    """Return what a series that rests more often than not has come to twice: its work keeps to no week."""
    import numpy as np

    again = np.zeros(roots.shape[1])
    rests = median(roots) == 0
    if len(roots) > span and rests.any():
        # One burst is in as many sums as are judged together; the next highest is another one's.
        again[rests] = np.sort(np.nan_to_num(roots[:, rests]), axis=0)[-1 - span]
    return again


def _exceeds(usual: _Usual, least: int, score: float) -> "NDArray[np.bool_]":
    flagged: NDArray[np.bool_] = (
        (usual.score >= score) & (usual.amount - usual.expected >= least) & (usual.amount > _BEYOND * usual.highest)
    )
    return flagged


def _rows(
    kind: str, flags: "NDArray[np.bool_]", amounts: "NDArray[np.int64]", usual: _Usual, grid: Grid
) -> list[dict[str, Any]]:
    """Return an anomaly for each run of flagged buckets; key and bucket by place."""
    import numpy as np

    rows: list[dict[str, Any]] = []
    for place in np.flatnonzero(flags.any(axis=0)):
        flagged = np.flatnonzero(flags[:, place])
        for run in np.split(flagged, np.flatnonzero(np.diff(flagged) > grid.gap + 1) + 1):
            begin, end = int(run[0]), int(run[-1]) + 1
            whole = slice(max(begin - grid.span + 1, 0), end)
            led_in = begin - whole.start  # buckets that are judged together with the first one
            expected = usual.expected[begin:end, place].sum() + led_in * usual.expected[begin, place]
            actual = int(amounts[whole, place].sum())
            worst = begin + int(np.abs(usual.score[begin:end, place]).argmax())
            manifold = usual.amount[worst, place] >= 5 * usual.expected[worst, place]
            row = {"key_id": place, "kind": kind, "bucket": begin, "buckets": end - begin}
            row |= {"expected": round(float(expected) / grid.span), "actual": actual}
            row["score"] = round(float(usual.score[worst, place]), 1)
            row["severity"] = _severity(row, grid, manifold=bool(manifold))
            rows.append(row)
    return rows


def _severity(row: dict[str, Any], grid: Grid, *, manifold: bool) -> str:
    """Return how bad it is: by the money, or calls, in question, measured by what is worth an alarm at all."""
    least = grid.least_refusals if row["kind"] == "refusals" else grid.least
    times = abs(row["actual"] - row["expected"]) / least
    if row["kind"] == "silence":
        return "medium" if times >= 10 else "low"
    return "high" if times >= 10 and manifold else "medium" if times >= 3 else "low"


def _sentence(row: dict[str, Any], grid: Grid) -> str:
    begin, count = row["bucket"], row["buckets"]
    if grid.span == 1:
        when = f"on {begin:%Y-%m-%d}"
        when += f" and the {f'{count - 1} days' if count > 2 else 'day'} after it" if count > 1 else ""
    else:
        when = f"in the {grid.span - 1 + count} hours up to {begin + count * grid.length:%Y-%m-%d %H:%M} UTC"
    if row["kind"] == "refusals":
        return f"{row['actual']:,} calls were refused {when}; about {row['expected']:,} are usual."
    spent = "Nothing" if row["kind"] == "silence" else show_usd(row["actual"])
    return f"{spent} was spent {when}; about {show_usd(row['expected'])} is usual."


def anomalies(ledger: Ledger, now: datetime, bucket: Bucket = "day", *, days: int = 30) -> "pd.DataFrame":
    """Return the anomalies of the last days.

    Keys that admit no calls any more are not called silent.

    Args:
        ledger: whose actor's keys are looked at.
        now: UTC; later calls do not count.
        bucket: "day" or "hour".
        days: how many to look at, today included.

    Returns:
        As `find`, with key, key_label, org_id and org.
    """
    since, spend, refused, keys = _amounts(ledger, now, bucket, days)
    found = find(spend, bucket, refused=refused, since=since, unfinished=True)
    named = found.merge(keys, on="key_id", how="left")
    named = named[(named["kind"] != "silence") | ~named["closed"].astype(bool)].reset_index(drop=True)
    return named[["key_id", "key", "key_label", "org_id", "org", *found.columns[1:]]]


def beyond_usual(ledger: Ledger, now: datetime, *, days: int) -> dict[str, dict[date, int]]:
    """Return what the days that stand out cost beyond what is usual.

    Args:
        ledger: whose actor's keys are looked at.
        now: UTC; later calls do not count.
        days: how many to look at, today included.

    Returns:
        By key id and day, nano-USD, for the days that `anomalies` counts as unusual spend.
    """
    import numpy as np
    import pandas as pd

    since, spend, _, _ = _amounts(ledger, now, "day", days)
    money, grid, moments = spend.to_numpy(), GRIDS["day"], pd.DatetimeIndex(spend.index)
    first = int(moments.searchsorted(pd.Timestamp(since)))
    usual = _usual(money, money.cumsum(axis=0) > 0, grid, grid.least, first)
    beyond: dict[str, dict[date, int]] = {}
    for day, key in np.argwhere(_exceeds(usual, grid.least, SCORE)).tolist():
        excess = int(money[day, key]) - round(float(usual.expected[day, key]))
        beyond.setdefault(str(spend.columns[key]), {})[moments[day].date()] = excess
    return beyond


def _amounts(
    ledger: Ledger, now: datetime, bucket: Bucket, days: int
) -> "tuple[datetime, pd.DataFrame, pd.DataFrame, pd.DataFrame]":
    """Return since when the last days are, spend and refused calls by bucket with what they are compared with; keys."""
    import pandas as pd

    grid = GRIDS[bucket]
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    since = today - timedelta(days=days - 1)
    start = since - timedelta(weeks=2 * WEEKS if bucket == "day" else WEEKS + 2)
    period = Period(start, now + timedelta(microseconds=1))
    where, values = period.where()
    usage = ledger.df(
        f"SELECT key_id, date_trunc('{bucket}', admitted_at) AS bucket, sum(cost)::BIGINT AS cost,"
        f" count(*) FILTER (WHERE {REFUSED}) AS refused FROM usage WHERE {where} GROUP BY ALL",
        values,
        period=period,
    )
    keys = known_keys(ledger, now)
    moments = pd.date_range(start, now, freq=grid.length)
    usage["bucket"] = pd.to_datetime(usage["bucket"], utc=True).astype(moments.dtype)

    def by_bucket(column: str) -> "pd.DataFrame":
        table = usage.set_index(["bucket", "key_id"])[column].unstack(fill_value=0)
        return table.reindex(index=moments, columns=keys["key_id"], fill_value=0)

    return since, by_bucket("cost"), by_bucket("refused"), keys
