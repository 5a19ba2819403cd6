"""The seasonal model: what the next days of many series add up to, and how wrong it was in the past. Pure numbers.

A bucket is a day, or any other length; a series is a column of amounts, one for each bucket, NaN where it is not
known what would have been spent: before the first use, and where a limit refused calls. `predict` knows nothing but
the buckets it is given. `roll` lets it predict from every earlier moment, so that `reach` can say how far off it
usually was, for as many buckets ahead. Which method this is, and why, says `docs/forecast.md`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

SHARE = 0.8
"""How often the truth is to lie within an interval."""

SPIKE = 8
"""Robust standard deviations above the median from which on a bucket is a spike."""

SPREAD = 1.4826
"""Median absolute deviation → standard deviation, for normal noise."""

_LEAST_SPREAD = 0.25
"""Of the median: a series that hardly varies must not have its first small step taken for a spike."""

_SHAPE_SEASONS = 8
_SHAPE_DOUBT = 0.5
"""How many flat seasons the shape is mixed with: one odd Sunday must not decide what Sundays are like."""

_ENOUGH = 9
"""Past errors that an interval needs: of fewer, one odd week decides."""

_MATURE = 4
"""Errors count from the time when a series was one such part of its present age."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How time runs in the series.

    Args:
        season: buckets after which a pattern repeats, such as 7 days; 1 for none.
        half_life: buckets after which an observation counts half; a quarter of the month to be foretold.
    """

    season: int
    half_life: float


DAILY = Rhythm(7, 7.5)

Method = Callable[["Numbers", int, Rhythm], "Numbers"]


def predict(history: "Numbers", steps: int, rhythm: Rhythm) -> "Numbers":
    """Return the expected amounts of the next buckets: a seasonal shape times the recent level.

    Args:
        history: buckets × series, the latest bucket last.
        steps: how many buckets to foretell.
        rhythm: season and memory.

    Returns:
        steps × series; 0 for a series of which nothing is known.
    """
    import numpy as np

    buckets = len(history)
    usual = np.minimum(history, spike_line(history, rhythm))
    shape = _shape(usual, rhythm.season)
    places = np.arange(buckets) % rhythm.season
    known = ~np.isnan(usual)
    ages = np.arange(buckets)[::-1, None]
    weights = np.where(known, 0.5 ** (ages / rhythm.half_life), 0.0)
    whole = (weights * shape[places]).sum(axis=0)
    level = np.divide((weights * np.nan_to_num(usual)).sum(axis=0), whole, out=np.zeros_like(whole), where=whole > 0)
    level[_has_stopped(usual, rhythm.season)] = 0.0
    future: Numbers = level * shape[(buckets + np.arange(steps)) % rhythm.season]
    return future


def spike_line(history: "Numbers", rhythm: Rhythm) -> "Numbers":
    """Return, for each series, the amount above which a bucket counts as a spike.

    It goes by the buckets of the last two half-lives, so that what lasts is believed after one half-life. A series
    that is silent in most of them has no line: its few buckets are all there is to go by.
    """
    import numpy as np

    recent = history[-round(2 * rhythm.half_life) :] if len(history) else history
    usual = median(recent)
    spread = np.maximum(SPREAD * median(np.abs(recent - usual)), _LEAST_SPREAD * usual)
    line: Numbers = np.where(usual > 0, usual + SPIKE * spread, np.inf)
    return line


def median(values: "Numbers") -> "Numbers":
    """Return the median of each column without its NaNs; NaN where there is nothing else. Faster than nanmedian."""
    import numpy as np

    if not len(values):
        return np.full(values.shape[1:], np.nan)
    ordered = np.sort(values, axis=0)  # NaNs last
    count = (~np.isnan(values)).sum(axis=0)
    lower, upper = np.maximum((count - 1) // 2, 0), np.minimum(count // 2, len(values) - 1)
    found = np.take_along_axis(ordered, np.stack([lower, upper]), axis=0)
    middle: Numbers = found.mean(axis=0)
    return middle


def _shape(usual: "Numbers", season: int) -> "Numbers":
    """Return what share of an average bucket each place in the season has: season × series, 1 on average."""
    import numpy as np

    if season == 1:
        return np.ones((1, usual.shape[1]))
    recent = usual[-season * _SHAPE_SEASONS :]
    first = len(usual) - len(recent)
    known = ~np.isnan(recent)
    sums = np.zeros((season, usual.shape[1]))
    counts = np.zeros_like(sums)
    places = (first + np.arange(len(recent))) % season
    np.add.at(sums, places, np.nan_to_num(recent))
    np.add.at(counts, places, known)
    whole = counts.sum(axis=0)
    mean = np.divide(sums.sum(axis=0), whole, out=np.zeros_like(whole), where=whole > 0)
    shape = (sums + _SHAPE_DOUBT * mean) / (counts + _SHAPE_DOUBT)
    average = shape.mean(axis=0)
    relative: Numbers = np.divide(shape, average, out=np.ones_like(shape), where=average > 0)
    return relative


def _has_stopped(history: "Numbers", season: int) -> "NDArray[np.bool_]":
    """Return which series are silent for longer than a season and than twice their longest earlier silence."""
    import numpy as np

    buckets, series = history.shape
    if not buckets:
        return np.zeros(series, dtype=bool)
    active = history > 0  # a bucket that is not known is no silence, and ends none
    silent = history == 0
    run = np.zeros(series)
    longest = np.zeros(series)
    for place in range(buckets):
        longest = np.where(active[place], np.maximum(longest, run), longest)
        run = np.where(active[place], 0, run + silent[place])
    stopped: NDArray[np.bool_] = run > np.maximum(season, 2 * longest)
    return stopped


@dataclass(frozen=True, slots=True)
class Rolling:
    """Predictions from every earlier moment, and what came. Axes: origin (buckets known then), steps − 1, series.

    Args:
        errors: what came − what had been foretold, summed over the steps; NaN where nothing was known before or after.
        actual: what came, summed likewise; NaN if the steps reach beyond the history.
        scale: origin × series: the level at that moment, that errors are measured by.
        ages: origin × series: how many buckets were known at that moment.
    """

    errors: "Numbers"
    actual: "Numbers"
    scale: "Numbers"
    ages: "NDArray[np.int64]"


def roll(history: "Numbers", steps: int, rhythm: Rhythm, method: Method = predict) -> Rolling:
    """Predict from every earlier moment, with nothing but what was known then, and compare with what came.

    Args:
        history: buckets × series.
        steps: how far to look ahead.
        rhythm: season and memory.
        method: what is judged.
    """
    import numpy as np

    buckets, series = history.shape
    known = ~np.isnan(history)
    came = np.nan_to_num(history)
    errors = np.full((buckets + 1, steps, series), np.nan)
    actual = np.full_like(errors, np.nan)
    ages = np.vstack([np.zeros((1, series), dtype=np.int64), known.cumsum(axis=0)])
    for origin in range(1, buckets):
        ahead = min(steps, buckets - origin)
        window = slice(origin, origin + ahead)
        foretold = method(history[:origin], ahead, rhythm) * known[window]
        sums = came[window].cumsum(axis=0)
        judged = (known[window].cumsum(axis=0) > 0) & (ages[origin] > 0)
        errors[origin, :ahead] = np.where(judged, sums - foretold.cumsum(axis=0), np.nan)
        actual[origin, :ahead] = sums
    totals = np.vstack([np.zeros((1, series)), came.cumsum(axis=0)])
    scale = np.divide(totals, ages, out=np.zeros_like(totals), where=ages > 0)
    return Rolling(errors, actual, scale, ages)


def reach(rolling: Rolling, steps: int, at: int, share: float = SHARE) -> "Numbers":
    """Return how far what comes will lie from what is foretold, up or down, as sums over the steps.

    The errors of the past are taken as they were, for as many steps ahead, relative to the level at their time:
    a series' own if there are enough, else those of all series when they were about as young. Where no past window was
    as long, those of the longest serve.

    Args:
        rolling: predictions from every earlier moment.
        steps: how far to look ahead.
        at: the moment, as a number of buckets; windows that end later do not count.
        share: how often the truth is to lie within.

    Returns:
        steps × series; NaN where there is nothing to judge by.
    """
    import numpy as np

    longest = min(steps, max(at // 2, 1), rolling.errors.shape[1])
    errors, scale, ages, now = rolling.errors[:at, :longest], rolling.scale[:at], rolling.ages[:at], rolling.ages[at]
    over = np.arange(at)[:, None] + np.arange(1, longest + 1) <= at
    usable = over[:, :, None] & (scale > 0)[:, None, :]
    relative = np.where(usable, np.abs(errors) / np.where(scale > 0, scale, 1)[:, None, :], np.nan)
    # What a series was wrong by when it was much younger says little about today.
    found, count = _quantile(np.where((_MATURE * ages >= now)[:, None, :], relative, np.nan), share)
    for generation in np.unique(_generation(now)):
        wanting = (count < _ENOUGH) & (_generation(now) == generation)
        if not wanting.any():
            continue
        for peers in (_generation(ages) == generation, ages > 0):
            of_peers = np.where(peers[:, None, :], relative, np.nan).transpose(0, 2, 1).reshape(-1, longest, 1)
            theirs, number = _quantile(of_peers, share)
            found, count = np.where(wanting, theirs, found), np.where(wanting, number, count)
            wanting &= count < _ENOUGH
    found = np.where(count < _ENOUGH, np.nan, found)
    longer = np.maximum(np.arange(1, steps + 1) / longest, 1)
    widened: Numbers = found[np.minimum(np.arange(steps), longest - 1)] * longer[:, None] * rolling.scale[at]
    return widened


def _generation(ages: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Return to which doubling an age belongs: 1, 2–3, 4–7, 8–15 …"""
    import numpy as np

    return np.log2(np.maximum(ages, 1)).astype(np.int64)


def _quantile(errors: "Numbers", share: float) -> "tuple[Numbers, NDArray[np.int64]]":
    """Return what a share of the errors does not exceed, with one to come counted as exceeding; and their number.

    The bound of split conformal prediction (Vovk, Gammerman and Shafer 2005): of n errors, the ⌈(n + 1) share⌉-th.
    """
    import numpy as np

    ordered = np.sort(errors, axis=0)  # NaNs last
    count = (~np.isnan(errors)).sum(axis=0)
    place = np.clip(np.ceil((count + 1) * share).astype(np.int64), 1, np.maximum(count, 1)) - 1
    return np.take_along_axis(ordered, place[None], axis=0)[0], count
