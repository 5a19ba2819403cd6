"""Runway: from daily spend to what the month will cost, and when limits and wallets run out. Pure.

Each forecast has an interval, the error that forecasts of as many days had in the past, and words on how it was made.
Money is nano-USD: whole ones come in, whole ones leave; floats stay within the statistics of `seasonal`.
`docs/forecast.md` explains the method.
"""

import calendar
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from toolkit.core.errors import InvalidInput, NotFound
from toolkit.forecast import seasonal
from toolkit.forecast.seasonal import DAILY

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]
    Whole = NDArray[np.int64]

WALLET_DAYS = 90
"""How far ahead a wallet is looked at: what lasts longer needs no plan today."""

_YOUNG = 14
"""Days of history below which a forecast says how few it had."""

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Course:
    """Where a number of series is going. Axis of the paths: the ends of today, of tomorrow …; then series.

    Args:
        spent: this month.
        wanted: what is expected from now on, cumulative, limits left aside.
        kept: the same, limits kept.
        low, high: the interval; around `wanted` for keys, around `kept` for organisations.
        rolling: what was foretold in the past, and what came.
    """

    spent: "Whole"
    wanted: "Numbers"
    kept: "Numbers"
    low: "Numbers"
    high: "Numbers"
    rolling: seasonal.Rolling


@dataclass(frozen=True, eq=False)
class Outlook:
    """What to expect of a number of keys from a moment on.

    Args:
        daily: nano-USD (int64), one row for each UTC day without gaps, the last one being today so far; one column
            for each key.
        now: UTC.
        orgs: key → organisation.
        limits: monthly limits of the keys that have one, nano-USD.
        held: key → what is held against its limit, nano-USD.
        available: organisation → what its wallet has left (balance − holds), nano-USD.
        cut_short: days (rows and columns as in `daily`) on which a limit or an empty wallet refused calls.
        closed: keys that admit no calls any more.

    Raises:
        InvalidInput: the days have gaps or do not end today, or an amount is no whole number or below zero.
    """

    daily: "pd.DataFrame"
    now: datetime
    orgs: Mapping[str, str]
    limits: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    available: Mapping[str, int] = field(default_factory=dict)
    cut_short: "pd.DataFrame | None" = None
    closed: Collection[str] = ()

    def __post_init__(self) -> None:
        days = [day.date() if isinstance(day, datetime) else day for day in self.daily.index]
        if not days or days != [days[0] + place * _DAY for place in range(len(days))]:
            raise InvalidInput("Daily spend needs a row for each day, in order of time and without gaps.")
        if days[-1] != self.now.date():
            raise InvalidInput(f"Daily spend must end with today so far, {self.now:%Y-%m-%d}, not with {days[-1]}.")
        if any(str(kind) != "int64" for kind in self.daily.dtypes):
            raise InvalidInput("Daily spend is given in whole nano-USD (int64).")
        if (self.daily < 0).any(axis=None):
            raise InvalidInput("Daily spend cannot be below zero.")

    @cached_property
    def keys(self) -> list[str]:
        """The keys, in the order of `daily`."""
        return [str(key) for key in self.daily.columns]

    @property
    def days_left(self) -> int:
        """Days of the month that are not over, today included."""
        return calendar.monthrange(self.now.year, self.now.month)[1] - self.now.day + 1

    @cached_property
    def history(self) -> "Numbers":
        """The days that are over, from the first known one on: days × keys, NaN for what nobody can know."""
        import numpy as np

        amounts = self.daily.to_numpy(dtype=float)
        history, today = amounts[:-1].copy(), amounts[-1]
        used = history.cumsum(axis=0) > 0
        history[~used] = np.nan
        if self.cut_short is not None:
            history[self.cut_short.to_numpy(dtype=bool)[:-1]] = np.nan
        if not len(history):
            history = np.full((1, len(today)), np.nan)
        # Of a key that is first used today, today so far is all there is: it is taken for a first whole day.
        new = ~used.any(axis=0) & (today > 0)
        history[-1, new] = today[new]
        known = ~np.isnan(history).all(axis=1)
        return history[known.argmax() :]

    def by_key(self) -> "pd.DataFrame":
        """Return what each key will have spent when the month ends, and when it reaches its limit.

        Returns:
            key_id; spent (so far); forecast, low and high (at the month's end, the limit kept; low and high are missing
            where there is nothing to judge by); wanted (the forecast without the limit); limit; days, days_low and
            days_high (until the limit is reached, 0 is today; missing: not within this month); error (mean absolute
            error of past forecasts for as many days, nano-USD), error_share (÷ what was spent in those days) and
            error_of_month (÷ this month's forecast; both Decimals), checks (how many past forecasts that is); method
            (words). In the order of `daily`.
        """
        import numpy as np
        import pandas as pd

        course = self._keys
        frame = self._month_end("key_id", self.keys, course, [self.limits.get(key) for key in self.keys])
        frame["limit"] = pd.array([self.limits.get(key) for key in self.keys], dtype="Int64")
        held = np.array([self.held.get(key, 0) for key in self.keys], dtype=float)
        ends = {"days": course.wanted, "days_low": course.high, "days_high": course.low}
        for name, path in ends.items():
            frame[name] = _first_reached(path[: self.days_left], self._limits - course.spent - held)
        self._add_errors(frame, course.rolling)
        frame["method"] = [self._method(place) for place in range(len(self.keys))]
        return frame

    def by_org(self) -> "pd.DataFrame":
        """Return what each organisation will have spent when the month ends, and when its wallet is empty.

        An organisation's forecast is the sum of its keys'. Its interval and its error are those that such sums had in
        the past, what new keys brought in included.

        Returns:
            org_id; spent, forecast, low, high and wanted as in `by_key`; available; days, days_low and days_high until
            the wallet is empty (missing: not within `WALLET_DAYS`); error, error_share, error_of_month and checks. By
            id.
        """
        import numpy as np
        import pandas as pd

        names, course = self._orgs
        frame = self._month_end("org_id", names, course, [None] * len(names))
        frame["available"] = pd.array([self.available.get(name) for name in names], dtype="Int64")
        room = np.array([self.available.get(name, np.inf) for name in names], dtype=float)
        for name, path in {"days": course.kept, "days_low": course.high, "days_high": course.low}.items():
            frame[name] = _first_reached(path, room)
        self._add_errors(frame, course.rolling)
        return frame

    def total(self) -> "pd.DataFrame":
        """Return what all keys together will have spent when the month ends.

        The interval and the error are those that the sum of all had in the past. It is not the sum of the
        organisations' bounds: these make up for each other as far as they did, and no further.

        Returns:
            One row, none without keys: spent, forecast, low, high, wanted, error, error_share, error_of_month and
            checks, as in `by_org`.
        """
        names, course = self._sums(["all"] * len(self.keys))
        frame = self._month_end("name", names, course, [None] * len(names))
        self._add_errors(frame, course.rolling)
        return frame.drop(columns="name")

    def fan(self, name: str) -> "pd.DataFrame":
        """Return the month of one key or organisation as a chart draws it, cumulative since the month began.

        Args:
            name: id of a key (its limit left aside) or of an organisation (its keys' limits kept).

        Returns:
            moment (UTC: the month's beginning, the ends of its days, and now); spent (missing after now); forecast, low
            and high (missing before now; low and high also where there is nothing to judge by). Int64 nano-USD.

        Raises:
            NotFound: no such key or organisation.
        """
        import numpy as np
        import pandas as pd

        names, orgs = self._orgs
        if name in self.keys:
            place, course, expected = self.keys.index(name), self._keys, self._keys.wanted
            mine = [name]
        elif name in names:
            place, course, expected = names.index(name), orgs, orgs.kept
            mine = [key for key in self.keys if self.orgs[key] == name]
        else:
            raise NotFound(f"There is no key or organisation {name!r} in this outlook.")
        daily = self.daily[mine].sum(axis=1).to_numpy()[-self.now.day :]
        daily = np.concatenate([np.zeros(self.now.day - len(daily), dtype="int64"), daily])
        today = _midnight(self.now.date())
        first = today.replace(day=1)
        past = pd.DataFrame({"moment": [first, *(first + place * _DAY for place in range(1, self.now.day)), self.now]})
        past["spent"] = pd.array([0, *daily.cumsum()], dtype="Int64")
        paths = {"forecast": expected, "low": course.low, "high": course.high}
        ahead = pd.DataFrame({"moment": [self.now, *(today + (step + 1) * _DAY for step in range(self.days_left))]})
        spent = np.full(self.days_left + 1, course.spent[place])
        for column, path in paths.items():
            ahead[column] = _money(np.concatenate([[0.0], path[: self.days_left, place]]), spent)
        return past.drop_duplicates("moment", keep="last").merge(ahead, on="moment", how="outer", sort=True)

    @cached_property
    def _keys(self) -> _Course:
        import numpy as np

        spent = self.daily.to_numpy()[-self.now.day :].sum(axis=0)
        wanted = seasonal.predict(self.history, self._steps, DAILY)
        wanted[0] *= 1 - self._elapsed
        wanted = wanted.cumsum(axis=0)
        rolling = seasonal.roll(self.history, min(self._steps, max(len(self.history) // 2, 1)), DAILY)
        low, high = self._interval(wanted, self._reach(rolling))
        days = np.arange(1, self._steps + 1)[:, None] - self._elapsed
        high = np.where(self._runs_away, np.fmax(high, days * self._pace), high)
        for path in (wanted, low, high):
            path[:, self._is_closed] = 0
        return _Course(spent, wanted, self._kept_to_limits(wanted, spent), low, high, rolling)

    @cached_property
    def _orgs(self) -> tuple[list[str], _Course]:
        return self._sums([self.orgs[key] for key in self.keys])

    def _sums(self, owner: list[str]) -> tuple[list[str], _Course]:
        """Return the owners of the keys, and where what their keys spend together is going."""
        import numpy as np

        names, owners = np.unique(np.array(owner, dtype=str), return_inverse=True)
        in_order = owners.argsort(kind="stable")
        begins = owners[in_order].searchsorted(np.arange(len(names)))

        def summed(of_keys: "NDArray[Any]", join: np.ufunc = np.add) -> "NDArray[Any]":
            # One moment after the other: of all at once there would be another copy.
            return np.stack([join.reduceat(part[..., in_order], begins, axis=-1) for part in of_keys])

        keys, past = self._keys, self._keys.rolling
        ages = summed(past.ages, np.maximum)
        # What a key brought in that was not there yet had not been foretold: all of it is error.
        missed = summed(np.where(np.isnan(past.errors), past.actual, past.errors))
        errors = np.where((ages > 0)[:, None, :], missed, np.nan)
        rolling = seasonal.Rolling(errors, summed(past.actual), summed(past.scale), ages)
        kept, wanted = summed(keys.kept), summed(keys.wanted)
        # Keys that stand at their limit can neither add nor save: the interval shrinks with them.
        free = np.divide(kept, wanted, out=np.ones_like(kept), where=wanted > 0)
        low, high = self._interval(kept, self._reach(rolling) * free)
        worst = self._kept_to_limits(np.where(self._runs_away, np.nan_to_num(keys.high), keys.wanted), keys.spent)
        high = np.maximum(high, summed(worst))
        (spent,) = summed(keys.spent[None])
        return names.tolist(), _Course(spent, wanted, kept, low, high, rolling)

    @property
    def _steps(self) -> int:
        return max(self.days_left, WALLET_DAYS)

    @property
    def _elapsed(self) -> float:
        """How much of today is over."""
        return (self.now - _midnight(self.now.date())) / _DAY

    @property
    def _is_closed(self) -> "NDArray[np.bool_]":
        import numpy as np

        return np.array([key in self.closed for key in self.keys], dtype=bool)

    @cached_property
    def _limits(self) -> "Numbers":
        import numpy as np

        return np.array([self.limits.get(key, np.inf) for key in self.keys], dtype=float)

    @property
    def _pace(self) -> "Numbers":
        """What was spent yesterday or today, whichever is more."""
        pace: Numbers = self.daily.to_numpy(dtype=float)[-2:].max(axis=0)
        return pace

    @cached_property
    def _spike_line(self) -> "Numbers":
        return seasonal.spike_line(self.history, DAILY)

    @cached_property
    def _runs_away(self) -> "NDArray[np.bool_]":
        return ~self._is_closed & (self._pace > self._spike_line)

    def _reach(self, rolling: seasonal.Rolling) -> "Numbers":
        """Return how far from what is expected each day to come may end; parts of days count in proportion."""
        import numpy as np

        whole = seasonal.reach(rolling, self._steps, len(self.history))
        before = np.vstack([np.zeros((1, whole.shape[1])), whole[:-1]])
        within: Numbers = whole * (1 - self._elapsed) + before * self._elapsed
        return within

    @staticmethod
    def _interval(middle: "Numbers", reach: "Numbers") -> "tuple[Numbers, Numbers]":
        """Return the interval around a path; like it, neither side ever falls, for what is spent is spent."""
        import numpy as np

        low = np.maximum.accumulate(np.maximum(middle - reach, 0), axis=0)
        return low, np.maximum.accumulate(middle + reach, axis=0)

    def _kept_to_limits(self, path: "Numbers", spent: "Whole") -> "Numbers":
        """Return a path that goes beyond its key's limit in no month."""
        import numpy as np

        kept = np.empty_like(path)
        start, first = np.zeros(len(spent)), np.zeros(len(spent))
        step, room = 0, np.maximum(self._limits - spent, 0)
        while step < len(path):
            day = self.now.date() + step * _DAY
            end = step + calendar.monthrange(day.year, day.month)[1] - day.day + 1
            kept[step:end] = first + np.minimum(path[step:end] - start, room)
            step = min(end, len(path))
            start, first, room = path[step - 1], kept[step - 1], self._limits
        return kept

    def _month_end(self, kind: str, names: list[str], course: _Course, limits: Sequence[int | None]) -> "pd.DataFrame":
        import pandas as pd

        frame = pd.DataFrame({kind: pd.array(names, dtype="str"), "spent": course.spent})
        last = self.days_left - 1
        for name, path in {"forecast": course.kept, "low": course.low, "high": course.high}.items():
            frame[name] = _money(path[last], course.spent, limits)
        frame["wanted"] = _money(course.wanted[last], course.spent)
        return frame.astype({"forecast": "int64", "wanted": "int64"})

    def _add_errors(self, frame: "pd.DataFrame", rolling: seasonal.Rolling) -> None:
        """Add what past forecasts were wrong by, for as many days or, if that is shorter, for half the history."""
        import numpy as np
        import pandas as pd

        ahead = min(self.days_left, rolling.errors.shape[1]) - 1
        wrong, came = np.abs(rolling.errors[:, ahead]), rolling.actual[:, ahead]
        judged = ~np.isnan(wrong)
        checks = judged.sum(axis=0)
        sums = np.where(judged, wrong, 0).sum(axis=0), np.where(judged, came, 0).sum(axis=0)
        frame["error"] = _money(np.divide(sums[0], checks, out=np.full(len(checks), np.nan), where=checks > 0))
        shares = [Decimal(f"{missed / whole:.3f}") if whole else None for missed, whole in zip(*sums, strict=True)]
        frame["error_share"] = np.array(shares, dtype=object)
        of_month = [
            None if pd.isna(missed) or not whole else Decimal(f"{missed / whole:.3f}")
            for missed, whole in zip(frame["error"], frame["forecast"], strict=True)
        ]
        frame["error_of_month"] = np.array(of_month, dtype=object)
        frame["checks"] = checks

    def _method(self, place: int) -> str:
        """Return in words what the forecast of a key was made from."""
        import numpy as np

        history, course, key = self.history[:, place], self._keys, self.keys[place]
        known = int((~np.isnan(history)).sum())
        if key in self.closed:
            return "admits no calls any more"
        if not known:
            return "never used"
        if not course.wanted[-1, place]:
            return "silent for longer than ever before"
        words = ["weekdays × recent level" if known >= _YOUNG else f"level of {known} day{'s' if known > 1 else ''}"]
        recent, line = history[-round(2 * DAILY.half_life) :], self._spike_line[place]
        if self._runs_away[place]:
            words.append("runs away: the high end goes on at its pace")
        elif (recent > line).any():
            words.append("spike set aside")
        if self.cut_short is not None and self.cut_short.to_numpy()[:-1, place].any():
            words.append("days at the limit left out")
        if course.spent[place] + course.wanted[self.days_left - 1, place] > self._limits[place]:
            words.append("stops at the limit")
        return ", ".join(words)


def _money(amounts: "Numbers", spent: "Whole | None" = None, limits: Sequence[int | None] | None = None) -> "Any":
    """Return amounts, on top of what is spent, as whole nano-USD up to the limits; missing where they are not known."""
    import numpy as np
    import pandas as pd

    sums: list[int | None] = [None if np.isnan(amount) else round(amount) for amount in amounts.tolist()]
    if spent is not None:
        sums = [None if more is None else int(so_far) + more for so_far, more in zip(spent, sums, strict=True)]
        for place, limit in enumerate(limits or ()):
            if limit is not None and sums[place] is not None:
                sums[place] = min(cast("int", sums[place]), max(limit, int(spent[place])))
    return pd.array(sums, dtype="Int64")


def _first_reached(path: "Numbers", room: "Numbers") -> "Any":
    """Return after how many midnights each path has used up its room; missing if it never does."""
    import pandas as pd

    reached = (path >= room).T.tolist()
    return pd.array([days.index(True) if True in days else None for days in reached], dtype="Int64")


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
