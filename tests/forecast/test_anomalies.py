"""Anomalies: what stands out is found at once and told in words; what is usual for a key, or small, is not."""

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from tests.conftest import World, usd, variables_of
from tests.ledgers import kept
from tests.rows import NOON, append, row
from toolkit.admin import keys
from toolkit.cli import cli
from toolkit.core.errors import InvalidInput
from toolkit.core.policy import Outcome
from toolkit.core.settings import Settings
from toolkit.demo.scenario import DAYS, KEYS
from toolkit.demo.traffic import DemoCall, draw
from toolkit.forecast import anomalies
from toolkit.forecast.anomalies import Bucket, find
from toolkit.store.transaction import utc_now

MONDAY = datetime(2026, 9, 7, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def series(amounts: list[int], length: timedelta = DAY, name: str = "app") -> pd.DataFrame:
    """Return the spend of one key, from a Monday on."""
    index = pd.date_range(MONDAY, periods=len(amounts), freq=length)
    return pd.DataFrame({name: amounts}, index=index, dtype="int64")


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def only(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the one row of a table."""
    (row,) = records(frame)
    return row


def test_a_runaway_day_is_found_and_told() -> None:
    """Ten dollars a day, then a hundred: (√100 − √10) ÷ (0.15 × √10) = 14.4 usual deviations, in plain words."""
    found = only(find(series([usd(10)] * 60 + [usd(100)] + [usd(10)] * 9), "day"))
    assert found["sentence"] == "$100.00 was spent on 2026-11-06; about $10.00 is usual."
    assert found["bucket"] == MONDAY + 60 * DAY
    assert (found["key_id"], found["kind"], found["severity"], found["buckets"]) == ("app", "spend", "high", 1)
    assert (found["expected"], found["actual"], found["score"]) == (usd(10), usd(100), 14.4)


def test_what_goes_on_is_one_anomaly() -> None:
    """Three days are one anomaly, with their sums, that begins on the first."""
    found = only(find(series([usd(10)] * 60 + [usd(100), usd(90), usd(110)] + [usd(10)] * 5), "day"))
    assert (found["buckets"], found["expected"], found["actual"]) == (3, usd(30), usd(300))
    assert found["sentence"] == "$300.00 was spent on 2026-11-06 and the 2 days after it; about $30.00 is usual."


def test_a_week_has_its_days() -> None:
    """A Saturday like a Monday is an anomaly for a key that rests at weekends, a Monday is not."""
    week = [usd(10)] * 5 + [0, usd(1)]
    usual = week * 9
    assert find(series(usual), "day").empty
    found = only(find(series([*usual, *week[:5], usd(10)]), "day"))
    assert f"{found['bucket']:%A}" == "Saturday"
    assert found["expected"] == 0


def test_a_slow_rise_is_no_anomaly() -> None:
    """A key that grows threefold in ten weeks, with some play from day to day, does not stand out on any day."""
    rng = np.random.default_rng(4)
    amounts = [round(usd(10) * 3 ** (day / 70) * rng.uniform(0.8, 1.2)) for day in range(70)]
    assert find(series(amounts), "day").empty


def test_what_has_been_there_before_is_no_anomaly() -> None:
    """A batch every Sunday is usual once it has been seen, and so is one every tenth day."""
    weekly = ([usd(1)] * 6 + [usd(50)]) * 10
    assert find(series(weekly), "day").empty
    sparse = ([0] * 9 + [usd(50)]) * 8
    assert find(series(sparse), "day").empty
    assert len(find(series([*sparse, usd(100)]), "day")) == 1


def test_small_keys_do_not_shout() -> None:
    """Ten times almost nothing is nothing: less than a dollar above what is usual is no anomaly."""
    assert find(series([usd(0.05)] * 60 + [usd(0.5)]), "day").empty
    assert find(series([usd(0.05)] * 60 + [0]), "day").empty


def test_a_silence_is_found_where_it_begins() -> None:
    """A key that never rested falls silent: one anomaly for all the days, with what is missing."""
    found = only(find(series([usd(12)] * 60 + [0, 0, 0]), "day"))
    assert (found["kind"], found["buckets"], found["actual"], found["expected"]) == ("silence", 3, 0, usd(36))
    assert found["severity"] == "medium"
    assert found["score"] < -anomalies.SCORE
    assert found["sentence"] == "Nothing was spent on 2026-11-06 and the 2 days after it; about $36.00 is usual."


def test_a_bucket_that_is_not_over_is_not_silent_yet() -> None:
    """The last bucket may be too high already, but not silent, while it is not over."""
    silent, wild = series([usd(12)] * 60 + [0]), series([usd(12)] * 60 + [usd(200)])
    assert find(silent, "day", unfinished=True).empty
    assert len(find(silent, "day")) == 1
    assert len(find(wild, "day", unfinished=True)) == 1


def test_a_keys_first_weeks_are_not_judged() -> None:
    """A new key has no usual day: neither its first days nor the time before it are anomalies."""
    assert find(series([0] * 40 + [usd(30), usd(90), usd(5)] * 9), "day").empty


def test_an_anomaly_stays_what_it_was() -> None:
    """What comes later changes nothing about the anomalies of a day: nothing after it is looked at."""
    amounts = [usd(10)] * 60 + [usd(100)]
    then = find(series(amounts), "day")
    later = find(series([*amounts, usd(10), usd(400), usd(10), 0]), "day")
    assert records(then)[0] in records(later)


def test_only_buckets_since_a_moment_are_judged() -> None:
    """Of two anomalies the one before the moment is left out, and the other is the same as without it."""
    frame = series([usd(10)] * 60 + [usd(100), usd(10), usd(10), usd(100)])
    whole = find(frame, "day")
    assert len(whole) == 2
    since = find(frame, "day", since=MONDAY + 62 * DAY)
    assert records(since) == records(whole)[:1]  # the newest first


def test_refusals_in_bursts_are_found() -> None:
    """Calls refused now and then are usual; sixty in a day are not."""
    refused = series([0, 1, 2] * 20 + [60])
    found = only(find(series([usd(10)] * 61), "day", refused=refused))
    assert (found["kind"], found["actual"], found["severity"]) == ("refusals", 60, "low")
    assert found["sentence"] == "60 calls were refused on 2026-11-06; about 1 are usual."


def test_hours_are_judged_with_those_before_them() -> None:
    """A lone dear hour is none; six of them are, from the hour on in which their sum stands out."""
    usual = [usd(0.5)] * 24 * 7 * 9
    one = [*usual, usd(2), *[usd(0.5)] * 5]
    assert find(series(one, HOUR), "hour").empty
    many = [*usual, *[usd(5)] * 6, *[usd(0.5)] * 6]
    found = only(find(series(many, HOUR), "hour"))
    assert found["bucket"] == MONDAY + 63 * DAY + HOUR  # 4 × 0.50 + 2 × 5 = 12 where 3 is usual
    assert found["severity"] == "high"


def test_hours_on_which_nothing_comes_are_a_silence() -> None:
    """A key with spend in each hour, and none in the last seven: the sixth and seventh end six silent hours."""
    found = only(find(series([usd(2)] * 24 * 7 * 9 + [0] * 7, HOUR), "hour"))
    assert (found["kind"], found["buckets"], found["actual"]) == ("silence", 2, 0)
    assert found["sentence"].startswith("Nothing was spent in the 7 hours up to 2026-11-09 07:00 UTC")


def test_amounts_stay_whole_numbers() -> None:
    """Expected and actual are int64, with and without anomalies."""
    for amounts in ([usd(10)] * 60 + [usd(100)], [usd(10)] * 60):
        found = find(series(amounts), "day")
        assert [str(found[name].dtype) for name in ("expected", "actual", "buckets")] == ["int64"] * 3


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (series([1] * 9).iloc[[0, 1, 3]], "without gaps"),
        (series([1] * 9, HOUR), "row for each day"),
        (series([1] * 9).astype(float), "int64"),
    ],
)
def test_what_is_no_series_is_refused(frame: pd.DataFrame, problem: str) -> None:
    """Gaps, buckets of another length and floats are errors that say so."""
    with pytest.raises(InvalidInput, match=problem):
        find(frame, "day")


@cache
def demo_calls() -> list[DemoCall]:
    """The demo's calls; drawn once."""
    return draw(MONDAY, 45_000)


@pytest.mark.parametrize(("bucket", "length", "late"), [("day", DAY, 0 * HOUR), ("hour", HOUR, 6 * HOUR)])
def test_the_runaway_key_of_the_demo_is_found_and_nearly_nothing_else(
    bucket: Bucket, length: timedelta, late: timedelta
) -> None:
    """The surge is seen on its first day, or within six hours, and at most one other of 15 keys' 90 days is."""
    index = pd.date_range(MONDAY, periods=DAYS * DAY // length, freq=length)
    amounts = np.zeros((len(index), len(KEYS)), dtype="int64")
    for call in demo_calls():
        if call.outcome is Outcome.COMPLETED:
            place = (call.at - MONDAY) // length, KEYS.index(call.key)
            amounts[place] += 2_000 * (call.input_tokens - call.cached_tokens) + 10_000 * call.output_tokens
    found = find(pd.DataFrame(amounts, index=index, columns=[key.name for key in KEYS]), bucket)
    (runaway,) = (key for key in KEYS if key.surge is not None)
    surge = MONDAY + DAY * (runaway.surge or 0)
    planted = found[(found["key_id"] == runaway.name) & (found["bucket"] >= surge)]
    assert surge <= planted["bucket"].min() <= surge + late
    assert planted["severity"].tolist()[-1] == "high"
    silences = found[found["key_id"].isin([key.name for key in KEYS if key.until < DAYS])]  # a deleted key's end
    assert len(found) - len(planted) - len(silences) <= 1


@pytest.mark.any_store
def test_anomalies_are_read_from_the_ledger(world: World) -> None:
    """A day of a key's ledger that stands out is found with the key's name; a closed key is not called silent."""
    wild, gone = world.key("wild").key, world.key("gone").key
    append(
        world.workspace.store,
        [
            *(row(wild, NOON - day * DAY, cost=usd(40) if day == 3 else usd(4)) for day in range(70)),
            *(row(gone, NOON - day * DAY, cost=usd(4)) for day in range(5, 70)),
        ],
    )
    world.workspace.ledger.sync()
    found = anomalies.anomalies(world.workspace.ledger, NOON)
    assert found[["key", "kind", "buckets"]].values.tolist() == [["wild", "spend", 1], ["gone", "silence", 4]]
    with world.workspace.write() as tx:
        keys.disable(tx, gone.id, confirm="gone", reason="no longer used")
    left = only(anomalies.anomalies(world.workspace.ledger, NOON))
    assert (left["key"], left["org"], left["actual"]) == ("wild", "Acme", usd(40))
    assert left["bucket"] == NOON.replace(hour=0) - 3 * DAY
    assert anomalies.anomalies(world.workspace.ledger, NOON, days=3).empty


def test_what_was_spent_beyond_the_usual_is_told_by_day(world: World) -> None:
    """Of two days at 40 and 30 dollars, where 4 are usual, 36 and 26; older days, and usual keys, are not there."""
    wild, calm = world.key("wild").key, world.key("calm").key
    wilder = {3: usd(40), 4: usd(30), 20: usd(50)}
    rows = [row(wild, NOON - day * DAY, cost=wilder.get(day, usd(4))) for day in range(70)]
    append(world.workspace.store, rows + [row(calm, NOON - day * DAY, cost=usd(4)) for day in range(70)])
    third, fourth, old = (NOON.date() - day * DAY for day in (3, 4, 20))
    found = anomalies.beyond_usual(world.workspace.ledger, NOON, days=10)
    assert found == {wild.id: {third: usd(36), fourth: usd(26)}}
    assert anomalies.beyond_usual(world.workspace.ledger, NOON, days=30)[wild.id][old] == usd(46)


@pytest.mark.world
@pytest.mark.parametrize("bucket", ["day", "hour"])
def test_only_days_that_count_are_opened(world: World, bucket: Bucket) -> None:
    """Segments of days that nothing is compared with are not touched: here the file is not even there."""
    append(world.workspace.store, [row(world.key().key, NOON - 200 * DAY, cost=usd(9))])
    ledger = world.workspace.ledger
    ledger.sync()
    ledger.root.remove(kept(ledger))
    assert anomalies.anomalies(ledger, NOON, bucket).empty


def test_the_command_shows_what_was_unusual(world: World, settings: Settings) -> None:
    """For people a line each, with --json all fields, amounts as money; nothing unusual is said plainly."""
    app, now = world.key("app").key, utc_now()

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli, ["anomalies", *arguments], env=variables_of(settings))
        assert result.exit_code == 0, result.output
        return result.stdout

    assert run() == "Nothing unusual in the last 30 days.\n"
    assert run("--days", "1", "--by", "hour") == "Nothing unusual in 1 day.\n"
    append(
        world.workspace.store, [row(app, now - day * DAY, cost=usd(90) if day == 4 else usd(4)) for day in range(70)]
    )
    assert f"$90.00 was spent on {now - 4 * DAY:%Y-%m-%d}; about $4.00 is usual." in run()
    (found,) = json.loads(run("--json", "--org", "Acme", "--key", "app"))
    assert (found["actual_usd"], found["expected_usd"], found["actual_calls"]) == ("90", "4", None)
