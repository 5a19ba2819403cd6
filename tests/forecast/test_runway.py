"""The outlook adds up, by hand: month's end, limits, wallets, intervals and past errors, for keys of every kind."""

import tracemalloc
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import examples, usd
from toolkit.core.errors import InvalidInput, NotFound
from toolkit.forecast.runway import Outlook

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
"""Eleven days are left of the month, today's second half included: 10½ days."""

LAST_DAY = datetime(2026, 11, 30, tzinfo=UTC)


def table(now: datetime = NOON, **keys: list[int]) -> pd.DataFrame:
    """Return daily spend that ends today; the shorter lists are filled up with nothing, before."""
    longest = max(map(len, keys.values()))
    filled = {name: [0] * (longest - len(amounts)) + amounts for name, amounts in keys.items()}
    return pd.DataFrame(filled, index=pd.date_range(end=now.date(), periods=longest), dtype="int64")


def outlook(now: datetime = NOON, **keys: list[int]) -> Outlook:
    """Return the outlook of keys of one organisation, `acme`."""
    return Outlook(table(now, **keys), now, dict.fromkeys(keys, "acme"))


def only(frame: pd.DataFrame, key: str | None = None) -> dict[str, Any]:
    """Return the one row of a table, or that of a key."""
    rows = frame.to_dict("records")
    (row,) = [row for row in rows if key is None or row["key_id"] == key]
    return {str(name): value for name, value in row.items()}


def values(row: dict[str, Any], *names: str) -> list[Any]:
    """Return some of a row's values."""
    return [row[name] for name in names]


STEADY = [usd(1)] * 59 + [usd(0.4)]
"""A dollar a day; 40 cents so far today."""


def test_a_steady_key_goes_on() -> None:
    """19 days at a dollar, 40 cents so far today, half a dollar for the rest of it and 10 days: 29.90, for certain."""
    row = only(outlook(steady=STEADY).by_key())
    assert values(row, "spent", "forecast", "low", "high", "wanted") == [
        usd(19.4),
        *[usd(29.9)] * 4,
    ]
    assert (row["error"], row["error_share"], row["method"]) == (0, Decimal("0.000"), "weekdays × recent level")
    assert row["error_of_month"] == Decimal("0.000")
    assert row["checks"] == 48  # from days 1 to 48 on, eleven days were left of the 59 that are over
    assert pd.isna(row["limit"])
    assert pd.isna(row["days"])


def test_a_limit_stops_the_month() -> None:
    """Of a limit of 25 dollars 5.60 are left: half a dollar goes today, one each day, all of it on the sixth day."""
    found = Outlook(table(steady=STEADY), NOON, {"steady": "acme"}, limits={"steady": usd(25)})
    row = only(found.by_key())
    assert values(row, "forecast", "low", "high", "wanted", "limit") == [*[usd(25)] * 3, usd(29.9), usd(25)]
    assert values(row, "days", "days_low", "days_high") == [6, 6, 6]
    assert row["method"] == "weekdays × recent level, stops at the limit"


def test_holds_count_against_a_limit() -> None:
    """With 5 dollars held, 60 cents are left: they last until tomorrow."""
    found = Outlook(table(k=STEADY), NOON, {"k": "acme"}, limits={"k": usd(25)}, held={"k": usd(5)})
    assert found.by_key()["days"].tolist() == [1]


@pytest.mark.parametrize(("limit", "days"), [(usd(30), None), (usd(19.4), 0), (usd(10), 0), (0, 0)])
def test_a_limit_may_be_far_or_passed(limit: int, days: int | None) -> None:
    """A limit that outlasts the month is not reached; one that is used up, or was lowered, is reached today."""
    row = only(Outlook(table(k=STEADY), NOON, {"k": "acme"}, limits={"k": limit}).by_key())
    assert (None if pd.isna(row["days"]) else row["days"]) == days
    assert row["forecast"] == (usd(29.9) if limit == usd(30) else usd(19.4))


def test_a_wallet_lasts_until_its_keys_have_used_it_up() -> None:
    """Two keys at a dollar a day, one limited to 20 a month, use up 30 dollars on 10 December.

    Until the month's end the one needs 10.50, the other 0.60; of the 18.90 that are left two go each day.
    """
    found = Outlook(
        table(free=STEADY, bound=STEADY),
        NOON,
        {"free": "acme", "bound": "acme"},
        limits={"bound": usd(20)},
        available={"acme": usd(30)},
    )
    row = only(found.by_org())
    assert values(row, "spent", "forecast", "wanted", "available") == [
        usd(38.8),
        usd(49.9),
        usd(59.8),
        usd(30),
    ]
    assert NOON.date() + timedelta(days=row["days"]) == date(2026, 12, 10)
    assert values(row, "days_low", "days_high") == [20, 20]


def test_a_limit_binds_in_each_month() -> None:
    """A key limited to 10 dollars spends 10 in each month to come: 70 dollars last beyond the 90 days looked at."""
    found = Outlook(table(k=STEADY), NOON, {"k": "acme"}, limits={"k": usd(10)}, available={"acme": usd(30)})
    # Nothing more in November; then 10 until 10 December, 10 until 10 January, 10 until 10 February.
    assert NOON.date() + timedelta(days=only(found.by_org())["days"]) == date(2027, 2, 10)
    far = Outlook(table(k=STEADY), NOON, {"k": "acme"}, limits={"k": usd(10)}, available={"acme": usd(70)})
    assert pd.isna(far.by_org()["days"].iloc[0])


def test_an_empty_wallet_is_empty_today() -> None:
    """Where nothing is available, or less, it runs out today; without a wallet it never does."""
    for available, days in (({"acme": 0}, [0]), ({"acme": -5}, [0]), ({}, [pd.NA])):
        found = Outlook(table(k=STEADY), NOON, {"k": "acme"}, available=available).by_org()
        assert found["days"].tolist() == days


def test_past_errors_are_worked_out_by_hand() -> None:
    """On a month's last day, after 2, 2 and 4: the forecasts for the second and third day were 2, 0 and 2 too low."""
    row = only(outlook(LAST_DAY, k=[2, 2, 4, 0]).by_key())
    assert values(row, "error", "checks") == [1, 2]
    assert row["error_share"] == Decimal("0.333")  # (0 + 2) ÷ (2 + 4)


def test_an_error_is_small_beside_the_whole_month() -> None:
    """13 are spent and 1 is to come; an error of 1 is a third of what came, and a fourteenth of this month."""
    row = only(outlook(LAST_DAY, k=[2, 2, 4, 5]).by_key())
    assert values(row, "error", "error_share") == [1, Decimal("0.333")]
    assert row["error_of_month"] == Decimal(f"{1 / row['forecast']:.3f}")
    assert pd.isna(only(outlook(LAST_DAY, k=[0, 0]).by_key())["error_of_month"])


def test_the_total_has_the_errors_that_the_sum_had() -> None:
    """Two organisations that spend 1 and 3 in turn are foretold badly each; together they spend 4 every day."""
    turns = [usd(1), usd(3)] * 30
    days = table(a=turns, b=turns[::-1])
    found = Outlook(days, NOON, {"a": "acme", "b": "other"})
    total, orgs = only(found.total()), found.by_org()
    assert total["spent"] == orgs["spent"].sum() == days.to_numpy()[-20:].sum()
    assert abs(total["forecast"] - orgs["forecast"].sum()) <= 2
    assert total["low"] <= total["forecast"] <= total["high"]
    assert 100 * (total["high"] - total["low"]) < (orgs["high"] - orgs["low"]).sum()
    assert total["error"] < orgs["error"].min()
    assert Outlook(table(a=turns)[[]], NOON, {}).total().empty


def test_the_total_of_one_organisation_is_its_own() -> None:
    """Figures, interval and errors of the sum of all keys are the organisation's if there is but one."""
    found = outlook(a=[usd(1), usd(5), usd(2)] * 20, b=[usd(4), usd(1)] * 30)
    total, org = only(found.total()), only(found.by_org())
    assert total == {name: org[name] for name in total}


def test_what_a_new_key_brings_is_an_error_of_its_organisation() -> None:
    """A key that begins on the third day with 3 had not been foretold: errors 0 and 3, of 2 and 5."""
    row = only(outlook(LAST_DAY, old=[2, 2, 2, 0], new=[3, 0]).by_org())
    assert values(row, "error", "checks") == [round(1.5), 2]
    assert row["error_share"] == Decimal("0.429")  # 3 ÷ 7


def test_keys_sum_to_their_organisation() -> None:
    """Spend, forecast and what is wanted of an organisation are those of its keys."""
    rng = np.random.default_rng(3)
    names = [f"key{n}" for n in range(6)]
    daily = pd.DataFrame(
        rng.gamma(3, 1e9, (70, 6)).astype("int64"), columns=names, index=pd.date_range(end=NOON.date(), periods=70)
    )
    orgs = {name: "acme" if place < 4 else "zeta" for place, name in enumerate(names)}
    found = Outlook(daily, NOON, orgs, limits={"key1": usd(30), "key5": usd(61)})
    by_key, by_org = found.by_key(), found.by_org().set_index("org_id")
    sums = by_key.groupby(by_key["key_id"].map(orgs))[["spent", "forecast", "wanted"]].sum()
    assert sums["spent"].tolist() == by_org["spent"].tolist()
    assert (sums - by_org[["spent", "forecast", "wanted"]]).abs().to_numpy().max() <= 6
    assert (by_org["low"] < by_org["forecast"]).all()
    assert (by_org["forecast"] < by_org["high"]).all()


def test_a_key_first_used_today_goes_on_like_today() -> None:
    """Today so far is taken for a whole day: 2 dollars, half of that for the rest of it, and ten days: 23."""
    row = only(outlook(new=[usd(2)], old=STEADY).by_key(), "new")
    assert row["forecast"] == usd(2) + usd(1) + 10 * usd(2)
    assert row["low"] <= row["forecast"] <= row["high"]
    assert (row["method"], row["checks"]) == ("level of 1 day", 0)
    assert pd.isna(row["error"])
    assert row["error_share"] is None


def test_the_first_day_of_all_has_no_interval() -> None:
    """With one day of data in all there is a forecast, nothing to judge it by, and no pretence."""
    row = only(outlook(only=[usd(2)]).by_key())
    assert row["forecast"] == usd(23)
    assert pd.isna(row["low"])
    assert pd.isna(row["high"])
    assert outlook(only=[usd(2)]).by_org()["high"].isna().all()


def test_a_key_of_one_whole_day_goes_on_like_it() -> None:
    """One day that is over is a level, too, and the method says that it is no more."""
    row = only(outlook(new=[usd(4), usd(1)]).by_key())
    assert row["forecast"] == usd(5) + usd(2) + 10 * usd(4)
    assert row["method"] == "level of 1 day"


def test_unused_silent_and_closed_keys_cost_nothing_more() -> None:
    """Never used, long silent, and closed keys are to end the month at what they have spent, and say why."""
    daily = table(never=[0] * 60, silent=[usd(1)] * 45 + [0] * 15, closed=STEADY, sparse=([usd(3)] + [0] * 19) * 3)
    found = Outlook(daily, NOON, dict.fromkeys(daily.columns, "acme"), closed={"closed"}).by_key()
    for key, method in {
        "never": "never used",
        "silent": "silent for longer than ever before",
        "closed": "admits no calls any more",
    }.items():
        row = only(found, key)
        assert row["method"] == method
        assert values(row, "forecast", "low") == [row["spent"]] * 2
        assert (row["high"] > row["spent"]) == (key == "silent")  # it has come back before, as others have
    sparse = only(found, "sparse")
    assert sparse["forecast"] > sparse["spent"]


def test_a_runaway_key_may_go_on_as_it_does() -> None:
    """The spike does not lift the forecast tenfold, but the high end goes on at yesterday's pace."""
    amounts = [usd(1)] * 57 + [usd(12), usd(12), usd(5)]
    found = outlook(wild=amounts)
    row = only(found.by_key())
    assert row["spent"] == usd(17 + 12 + 12 + 5)
    assert row["forecast"] < row["spent"] + usd(21)
    assert row["high"] == row["spent"] + usd(10.5) * 12
    assert row["method"] == "weekdays × recent level, runs away: the high end goes on at its pace"
    assert found.by_org()["high"].iloc[0] == row["high"]


def test_a_past_spike_is_set_aside_and_said() -> None:
    """Some days after a spike the forecast is near what it was before, and the method says that it left it out."""
    row = only(outlook(k=[usd(1)] * 50 + [usd(40)] + [usd(1)] * 9).by_key())
    assert row["method"] == "weekdays × recent level, spike set aside"
    assert row["forecast"] - row["spent"] < usd(14)


def test_days_at_the_limit_say_nothing_about_what_is_wanted() -> None:
    """Days on which the limit refused calls count neither as silence nor as less."""
    daily = table(k=[usd(1)] * 40 + [usd(0.1)] * 2 + [0] * 9 + [usd(1)] * 9)
    cut = daily.lt(usd(0.5))
    row = only(Outlook(daily, NOON, {"k": "acme"}, cut_short=cut).by_key())
    assert row["wanted"] - row["spent"] == usd(10.5)
    assert row["method"] == "weekdays × recent level, days at the limit left out"


def test_the_fan_leads_from_the_first_to_the_last_moment_of_the_month() -> None:
    """It begins at nothing, passes what is spent now, and ends at the forecast."""
    found = Outlook(table(a=STEADY, b=STEADY), NOON, {"a": "acme", "b": "acme"}, limits={"b": usd(20)})
    fan = found.fan("a")
    assert fan["moment"].iloc[[0, -1]].tolist() == [
        pd.Timestamp("2026-11-01", tz=UTC),
        pd.Timestamp("2026-12-01", tz=UTC),
    ]
    now = only(fan[fan["moment"] == NOON])
    assert values(now, "spent", "forecast", "low", "high") == [usd(19.4)] * 4
    assert fan["spent"].iloc[0] == 0
    assert fan["forecast"].iloc[-1] == usd(29.9)
    assert fan["spent"].notna().sum() + fan["forecast"].notna().sum() == len(fan) + 1
    assert found.fan("b")["forecast"].iloc[-1] == usd(29.9)  # what it wants
    assert found.fan("acme")["forecast"].iloc[-1] == usd(49.9)  # what it will get
    with pytest.raises(NotFound, match="'c'"):
        found.fan("c")


def test_money_leaves_as_whole_numbers() -> None:
    """No amount that leaves is a float."""
    found = outlook(a=STEADY, b=[usd(3)])
    for frame in (found.by_key(), found.by_org(), found.fan("a")):
        for name in ("spent", "forecast", "low", "high", "wanted", "limit", "error", "available", "days"):
            if name in frame:
                assert str(frame[name].dtype) in {"int64", "Int64"}, name


@given(
    st.lists(st.lists(st.integers(0, usd(5)), min_size=1, max_size=40), min_size=1, max_size=3),
    st.integers(0, 24 * 60 - 1),
    st.integers(0, usd(30)),
)
@examples(25)
def test_no_forecast_is_below_what_is_spent(keys: list[list[int]], minute: int, limit: int) -> None:
    """Whatever was spent: spent ≤ low ≤ forecast ≤ high, none above a limit that still holds, and none a float."""
    now = NOON.replace(hour=0) + timedelta(minutes=minute)
    daily = table(now, **{f"k{place}": amounts for place, amounts in enumerate(keys)})
    found = Outlook(daily, now, dict.fromkeys(daily.columns, "acme"), limits={"k0": limit})
    for frame in (found.by_key(), found.by_org()):
        for row in frame.to_dict("records"):
            low, high = (row["forecast"] if pd.isna(row[side]) else row[side] for side in ("low", "high"))
            assert row["spent"] <= low <= row["forecast"] <= high
            assert row["forecast"] <= row["wanted"]
    first = found.by_key().to_dict("records")[0]
    assert first["forecast"] <= max(limit, first["spent"])


@given(st.lists(st.integers(0, usd(5)), min_size=2, max_size=40), st.integers(0, usd(50)))
@examples(20)
def test_more_spent_today_is_never_less_at_the_months_end(amounts: list[int], more: int) -> None:
    """What is spent today adds to the month's end in full: only days that are over say how it goes on."""
    used = [usd(1), *amounts]
    before, after = (outlook(k=[*used[:-1], used[-1] + extra]).by_key()["forecast"].iloc[0] for extra in (0, more))
    assert after == before + more


@pytest.mark.parametrize(
    ("daily", "problem"),
    [
        (table(k=[1, 2]).iloc[:1], "must end with today"),
        (table(k=[1, 2, 3]).iloc[[0, 2]], "without gaps"),
        (table(k=[1, 2]).iloc[::-1], "without gaps"),
        (table(k=[1, 2]).iloc[:0], "without gaps"),
        (table(k=[1, 2]).astype(float), "int64"),
        (table(k=[1, -2]), "below zero"),
    ],
)
def test_what_is_no_daily_spend_is_refused(daily: pd.DataFrame, problem: str) -> None:
    """Gaps, another day at the end, floats and negative amounts are errors that say so."""
    with pytest.raises(InvalidInput, match=problem):
        Outlook(daily, NOON, {"k": "acme"})


def test_many_organisations_take_no_table_of_keys_by_organisations() -> None:
    """As many organisations as keys need little more than the keys by themselves."""
    names = [f"key_{number}" for number in range(600)]
    daily = table(NOON, **{name: [number] * 20 for number, name in enumerate(names)})
    many = Outlook(daily, NOON, {name: f"org_{name}" for name in names})
    many.by_key()
    tracemalloc.start()
    try:
        assert len(many.by_org()) == 600
        assert tracemalloc.get_traced_memory()[1] < 25_000_000
    finally:
        tracemalloc.stop()


def test_an_outlook_without_keys_is_empty() -> None:
    """No keys give tables without rows."""
    daily = pd.DataFrame(index=pd.date_range(end=NOON.date(), periods=3), dtype="int64")
    assert Outlook(daily, NOON, {}).by_key().empty
    assert Outlook(daily, NOON, {}).by_org().empty
