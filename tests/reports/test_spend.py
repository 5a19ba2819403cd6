"""Reports add up to the nano-USD and say whose spend it is."""

from datetime import date, timedelta

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import World, examples
from tests.rows import NOON, append, row
from toolkit.core.errors import NotFound
from toolkit.core.period import Period, billing_month
from toolkit.ledger.ledger import Ledger
from toolkit.reports import dimensions, hold_accuracy, refusals, requests, spend
from toolkit.reports.spend import Totals
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.tables import ApiKey

DAY = timedelta(days=1)


def test_spend_per_key_counts_admitted_calls(world: World, app: ApiKey) -> None:
    """Spend of a key sums its admitted calls, free and failed ones included, refused ones not."""
    frame = spend.table(world.workspace.ledger, ["key"])
    assert frame.to_dict("records") == [
        {
            "key_id": app.id,
            "key": "app",
            "key_label": "app",
            "org": "Acme",
            "calls": 6,
            "input_tokens": 30,
            "cached_input_tokens": 4,
            "output_tokens": 2,
            "cost": 736,
        }
    ]


def test_spend_is_ordered_by_cost_or_by_time(world: World, app: ApiKey) -> None:
    """The costliest comes first, unless the first dimension is a time: then the earliest does."""
    ledger = world.workspace.ledger
    models = spend.table(ledger, ["model"])
    assert models[["model", "cost"]].values.tolist() == [["claude-test", 700], ["gpt-test", 36]]
    days = spend.table(ledger, ["day"])
    assert days[["day", "cost"]].values.tolist() == [
        [date(2026, 11, 21), 5],
        [date(2026, 11, 22), 700],
        [date(2026, 11, 23), 31],
    ]


def test_spend_by_tag(world: World) -> None:
    """`tag:NAME` groups by the tag's value; calls without it are "(none)", and nothing is lost."""
    tags = ['{"team": "search", "env": "live"}', '{"team": "search"}', '{"team": "ads"}', '{"env": "live"}', None]
    append(world.workspace.store, [row(cost=10**n, tags=text) for n, text in enumerate(tags)])
    for _ in range(2):  # once from the outbox, once from segments
        frame = spend.table(world.workspace.ledger, ["tag:team"])
        assert frame[["tag:team", "calls", "cost"]].values.tolist() == [
            ["(none)", 2, 11_000],
            ["ads", 1, 100],
            ["search", 2, 11],
        ]
        both = spend.table(world.workspace.ledger, ["tag:env", "tag:team"])
        assert list(both.columns[:2]) == ["tag:env", "tag:team"]
        assert len(both) == 5
        world.workspace.ledger.sync()


def test_totals_tell_refused_and_failed_apart(world: World, app: ApiKey) -> None:
    """Refusals are no calls; upstream errors and abandoned calls are calls and errors; an aborted call is neither."""
    assert spend.totals(world.workspace.ledger) == Totals(
        calls=6, refused=1, errors=2, input_tokens=30, cached_input_tokens=4, output_tokens=2, cost=736
    )


def test_empty_ledger_gives_zeros_and_empty_tables(world: World) -> None:
    """With no call at all totals are zero, and tables are empty with their columns and types."""
    ledger = world.workspace.ledger
    assert spend.totals(ledger) == Totals(0, 0, 0, 0, 0, 0, 0)
    frame = spend.table(ledger, ["day", "key"])
    assert frame.empty
    assert frame["cost"].dtype == "int64"
    assert list(refusals.table(ledger)) == ["refusal", "key_id", "key", "key_label", "org", "calls", "last_at"]
    assert requests.search(ledger).empty


def test_spend_can_be_limited_to_a_key_or_an_org(world: World, app: ApiKey) -> None:
    """`key` and `org` take ids or names and leave out everything else; one that is not there is no empty answer."""
    other = world.key("other").key
    append(world.workspace.store, [row(other, cost=1_000), row("key_elsewhere", cost=50)])
    ledger = world.workspace.ledger
    assert spend.table(ledger, ["key"], key=other.id)["cost"].tolist() == [1_000]
    assert spend.table(ledger, ["org"], org=world.org_id)["cost"].tolist() == [1_736]
    assert spend.totals(ledger, org=world.org_id).cost == 1_736
    assert spend.table(ledger, ["org"], org="Acme", key="other")["cost"].tolist() == [1_000]
    assert spend.totals(ledger).cost == 1_786
    for nobody in ({"org": "Acmee"}, {"key": "key_elsewhere"}):
        with pytest.raises(NotFound, match=str(*nobody.values())):
            spend.table(ledger, ["week", "model"], **nobody)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        refusals.table(ledger, org="Acmee")


def test_no_report_has_a_float(world: World, app: ApiKey) -> None:
    """No column of any report is a float: money and counts are whole numbers, in full tables and in empty ones."""
    ledger: Ledger = world.workspace.ledger
    for period in (Period.all(), Period.month("2020-01")):
        frames = [spend.table(ledger, [name], period) for name in dimensions.DIMENSIONS]
        frames += [hold_accuracy.table(ledger, [name], period) for name in dimensions.DIMENSIONS]
        frames += [refusals.table(ledger, period), requests.search(ledger, period=period)]
        for frame in frames:
            assert not [name for name in frame if pd.api.types.is_float_dtype(frame[name])]
        assert {str(frame["cost"].dtype) for frame in frames if "cost" in frame} == {"int64"}


@examples(5)
@given(costs=st.lists(st.integers(0, 2**40), min_size=1, max_size=30))
def test_sums_are_exact(tmp_path_factory: pytest.TempPathFactory, costs: list[int]) -> None:
    """Spend equals the sum of the amounts as integers, whatever they are."""
    folder = tmp_path_factory.mktemp("sums")
    store = Store(f"sqlite:///{folder / 'keydesk.db'}", synchronous="NORMAL")
    store.migrate()
    append(store, [row(at=NOON + n * DAY / 7, cost=cost) for n, cost in enumerate(costs)])
    ledger = Ledger(store, folder / "ledger", SYSTEM)
    ledger.sync(limit=len(costs) // 2)
    assert spend.totals(ledger).cost == sum(costs)
    assert sum(spend.table(ledger, ["day"])["cost"].tolist()) == sum(costs)
    store.close()


def test_last_full_month_is_the_last_before_this_one_that_has_calls(world: World) -> None:
    """Calls of this month do not count unless there are no others."""
    with world.workspace.read() as tx:
        now = tx.now
    assert spend.last_full_month(world.workspace.ledger) == billing_month(now)
    key = world.key().key
    append(world.workspace.store, [row(key, at) for at in (now, NOON - 400 * DAY, NOON - 800 * DAY)])
    assert spend.last_full_month(world.workspace.ledger) == billing_month(NOON - 400 * DAY)
