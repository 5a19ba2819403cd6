"""Reports add up to the nano-USD and say whose spend it is."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import duckdb
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import World, examples
from tests.rows import NOON, append, row
from toolkit.admin import keys
from toolkit.core.errors import InvalidInput, NotFound
from toolkit.core.moments import micros
from toolkit.core.period import Period, billing_month
from toolkit.core.policy import Role
from toolkit.ledger.ledger import Ledger
from toolkit.reports import dimensions, hold_accuracy, refusals, requests, spend
from toolkit.reports.spend import Totals
from toolkit.store.actor import SYSTEM, Actor
from toolkit.store.database import Store
from toolkit.store.tables import ApiKey, RefusalCount

DAY = timedelta(days=1)


@pytest.fixture
def app(world: World) -> ApiKey:
    """A key with some history: spend on three days, a refusal, an upstream error and an abandoned call."""
    key = world.key("app").key
    rows = [
        row(key, NOON - 2 * DAY, cost=5, input_tokens=10, cached_input_tokens=4, output_tokens=2),
        row(key, NOON - DAY, cost=700, model="claude-test", dialect="anthropic", input_tokens=20),
        row(key, NOON, cost=30),
        row(key, NOON + timedelta(minutes=1), outcome="refused", refusal="model_not_allowed", status=403),
        row(key, NOON + timedelta(minutes=2), outcome="upstream_error", refusal="upstream_error", status=502),
        row(key, NOON + timedelta(minutes=3), outcome="abandoned", status=0, held=99),
        row(key, NOON + timedelta(minutes=4), outcome="aborted", cost=1),
    ]
    append(world.workspace.store, rows[:3])
    world.workspace.ledger.sync()
    append(world.workspace.store, rows[3:])
    return key


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


@pytest.mark.parametrize("dimension", list(dimensions.DIMENSIONS))
def test_every_dimension_adds_up_to_the_total(world: World, app: ApiKey, dimension: str) -> None:
    """However spend is cut, the parts sum to the whole, in whole numbers."""
    frame = spend.table(world.workspace.ledger, [dimension])
    total = spend.totals(world.workspace.ledger)
    for column in ("calls", "input_tokens", "cached_input_tokens", "output_tokens", "cost"):
        assert frame[column].dtype == "int64", column
        assert int(frame[column].sum()) == getattr(total, column), column


def test_dimensions_combine(world: World, app: ApiKey) -> None:
    """Several dimensions give all their columns, each once."""
    frame = spend.table(world.workspace.ledger, ["hour", "key", "org", "dialect"])
    assert list(frame.columns[:7]) == ["hour", "key_id", "key", "key_label", "org", "org_id", "dialect"]
    assert str(frame["hour"].dt.tz) == "UTC"
    assert frame["hour"].tolist()[0] == pd.Timestamp(NOON - 2 * DAY)


def test_weeks_begin_on_monday(world: World) -> None:
    """Sunday's last moment and Monday's first belong to two weeks, each named by its Monday."""
    monday = datetime(2026, 11, 23, tzinfo=UTC)
    append(world.workspace.store, [row(at=at, cost=1) for at in (monday - DAY / 86_400, monday, monday + 6 * DAY)])
    frame = spend.table(world.workspace.ledger, ["week"])
    assert frame[["week", "cost"]].values.tolist() == [[date(2026, 11, 16), 1], [date(2026, 11, 23), 2]]


def test_a_tag_is_read_from_the_objects_text() -> None:
    """The value of the tag is the group, whatever characters its name has; without one it is "(none)"."""
    columns = ", ".join(dimensions.grouped("Spend", ["tag:team", "tag:a/b~c'\"d"]))
    calls = """ FROM (VALUES ('{"team": "search", "a/b~c''\\"d": "x"}'), ('{"teams": "ads"}'), (NULL)) AS usage(tags)"""
    relation = duckdb.sql(f"SELECT {columns}{calls}")
    assert relation is not None
    assert relation.columns == ["tag:team", "tag:a/b~c'\"d"]
    assert relation.fetchall() == [("search", "x"), ("(none)", "(none)"), ("(none)", "(none)")]


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


@pytest.mark.parametrize(
    "by", [[], ["colour"], ["key", "key"], ["tag:"], ["tag:a", "tag:a"], ["cost; DROP TABLE usage"]]
)
def test_unknown_dimension_is_refused(world: World, by: list[str]) -> None:
    """What spend cannot be grouped by is answered with what it can be."""
    with pytest.raises(InvalidInput, match="key, model, org"):
        spend.table(world.workspace.ledger, by)


def test_period_is_half_open(world: World) -> None:
    """A call at the first moment of a month belongs to it, one at the first of the next does not."""
    key = world.key().key
    first, last = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC)
    tick = timedelta(microseconds=1)
    append(world.workspace.store, [row(key, at, cost=1) for at in (first - tick, first, last, last + tick)])
    for _ in range(2):  # once from the outbox, once from segments
        assert spend.table(world.workspace.ledger, ["month"], Period.month("2026-11"))["cost"].tolist() == [2]
        assert spend.totals(world.workspace.ledger, Period.month("2026-10")).calls == 1
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


def test_refusals_count_what_was_not_logged(world: World, app: ApiKey) -> None:
    """Refusals beyond those that a minute logs are counted too; those of another month are not."""
    with world.workspace.write() as tx:
        for at, refused in ((NOON, 500), (NOON - 40 * DAY, 9)):
            minute = micros(at) // 60_000_000 + 1
            tx.session.add(RefusalCount(key_id=app.id, refusal="model_not_allowed", minute=minute, refused=refused))
    november = refusals.table(world.workspace.ledger, Period.month("2026-11"))
    assert november[["refusal", "key", "calls"]].values.tolist() == [["model_not_allowed", "app", 500]]
    assert november["last_at"].tolist() == [pd.Timestamp(NOON + timedelta(minutes=1))]
    assert spend.totals(world.workspace.ledger, Period.month("2026-11")).refused == 500


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


def charged(key: ApiKey, cost: int, at: datetime = NOON, **columns: Any) -> dict[str, Any]:
    """Return the row of a call that was charged by its usage."""
    return row(key, at, cost=cost, usage_source="reported", **columns)


def test_hold_accuracy_is_held_over_charged(world: World) -> None:
    """Each key and model has its holds, charges, their ratio and its overruns, in whole nano-USD."""
    app, batch = world.key("app").key, world.key("batch").key
    rows = [
        charged(app, 100, held=300),
        charged(app, 200, held=360),
        charged(app, 7, held=20, model="claude-test"),
        row(app, held=5_000, outcome="upstream_error"),  # says nothing about its hold
        row(app, outcome="refused", refusal="model_not_allowed"),
        charged(batch, 900, held=500, overrun=400),
        charged(batch, 100, held=100),
        charged(batch, 50, at=NOON - DAY, held=1, overrun=49),
        charged(batch, 0, held=0, model="embed-test"),
    ]
    append(world.workspace.store, rows)
    columns = ["key", "model", "calls", "held", "cost", "ratio", "overruns", "overrun"]
    ledger, today = world.workspace.ledger, Period.days(1, NOON)
    frame = hold_accuracy.table(ledger, period=today)
    assert frame[columns].values.tolist() == [
        ["batch", "gpt-test", 2, 600, 1000, Decimal("0.60"), 1, 400],
        ["app", "gpt-test", 2, 660, 300, Decimal("2.20"), 0, 0],
        ["app", "claude-test", 1, 20, 7, Decimal("2.86"), 0, 0],
        ["batch", "embed-test", 1, 0, 0, None, 0, 0],
    ]
    assert hold_accuracy.table(ledger, ["org"])[["held", "cost", "overruns", "overrun"]].values.tolist() == [
        [1281, 1357, 2, 449]
    ]
    assert hold_accuracy.table(ledger, key=app.id)["key"].tolist() == ["app", "app"]
    assert hold_accuracy.table(ledger, org="Acme", key="batch")["held"].tolist() == [601, 0]
    with pytest.raises(InvalidInput, match="Hold accuracy is grouped by"):
        hold_accuracy.table(ledger, ["colour"])


@examples(20)
@given(held=st.integers(0, 2**56), cost=st.integers(1, 2**62))
def test_the_ratio_is_exact(tmp_path_factory: pytest.TempPathFactory, held: int, cost: int) -> None:
    """The ratio is the exact quotient, rounded to two decimals half up, however large the amounts are."""
    folder = tmp_path_factory.mktemp("ratio")
    store = Store(f"sqlite:///{folder / 'keydesk.db'}", synchronous="NORMAL")
    store.migrate()
    append(store, [row(cost=cost, held=held, usage_source="reported")])
    ledger = Ledger(store, folder / "ledger", SYSTEM)
    (ratio,) = hold_accuracy.table(ledger)["ratio"]
    exact = Fraction(held, cost)
    assert Fraction(ratio) - Fraction(1, 200) <= exact < Fraction(ratio) + Fraction(1, 200)
    assert ratio.as_tuple().exponent == -2
    store.close()


def test_overruns_are_found(world: World, app: ApiKey) -> None:
    """`overrun` leaves only the calls that cost more than was held for them."""
    (wanted,) = append(world.workspace.store, [row(app, cost=9, held=5, overrun=4)])
    assert requests.search(world.workspace.ledger, overrun=True)["request_id"].tolist() == [wanted]


def test_requests_are_found_newest_first(world: World, app: ApiKey) -> None:
    """Requests come newest first, and each filter leaves only what fits it."""
    ledger = world.workspace.ledger
    frame = requests.search(ledger)
    assert list(frame.columns) == ledger.sql("SELECT * FROM usage").column_names
    assert all(later > earlier for later, earlier in pairwise(frame["admitted_at"]))
    assert requests.search(ledger, outcome="refused")["refusal"].tolist() == ["model_not_allowed"]
    assert requests.search(ledger, model="claude-test")["cost"].tolist() == [700]
    assert len(requests.search(ledger, key=app.id, period=Period.days(1, NOON))) == 5
    assert len(requests.search(ledger, key="app", org="Acme")) == 7
    with pytest.raises(NotFound):
        requests.search(ledger, key="key_elsewhere")


def test_requests_are_read_page_by_page(world: World, app: ApiKey) -> None:
    """Pages of three hold every request once, in the order of the whole."""
    ledger = world.workspace.ledger
    whole = requests.search(ledger)["request_id"].tolist()
    pages, before = list[list[str]](), None
    while page := requests.search(ledger, limit=3, before=before)[["admitted_at", "request_id"]].values.tolist():
        pages.append([request_id for _, request_id in page])
        before = page[-1][0].to_pydatetime(), page[-1][1]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert sum(pages, []) == whole  # noqa: RUF017 - seven ids


def test_a_page_goes_on_where_the_one_before_ended(world: World, app: ApiKey) -> None:
    """Calls that come meanwhile move nothing; calls of the same moment are told apart by their ids."""
    ledger = world.workspace.ledger
    whole = requests.search(ledger)
    third = whole.to_dict("records")[2]
    append(ledger.store, [row(app, NOON + timedelta(hours=1))])
    place = third["admitted_at"].to_pydatetime(), third["request_id"]
    behind = requests.search(ledger, before=place)["request_id"].tolist()
    assert behind == whole["request_id"].tolist()[3:]
    assert requests.search(ledger, period=Period(NOON), before=(NOON - timedelta(days=1), "")).empty


def test_deleted_keys_requests_are_found_by_id(world: World, app: ApiKey) -> None:
    """A request of a deleted key is still found by its id, in the outbox or in a segment, and named."""
    ledger = world.workspace.ledger
    wanted = requests.search(ledger)["request_id"].tolist()
    with world.workspace.write() as tx:
        keys.delete(tx, app.id, confirm="app")
    for request_id in wanted:
        found = requests.search(ledger, request_id=request_id)
        assert found[["request_id", "key_label"]].values.tolist() == [[request_id, "app (deleted)"]]


def test_other_orgs_requests_are_not_found(world: World, app: ApiKey) -> None:
    """An admin of another organisation finds nothing, by id neither."""
    stranger = Actor("boss@globex.example", Role.ORG_ADMIN, "org_globex")
    ledger = world.workspace.acting_as(stranger).ledger
    request_id = requests.search(world.workspace.ledger)["request_id"].iloc[0]
    assert requests.search(ledger, request_id=request_id).empty
    assert spend.table(ledger, ["key"]).empty
    with pytest.raises(NotFound):
        spend.table(ledger, ["key"], org=world.org_id)
    assert spend.totals(ledger).calls == 0


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


@examples(10)
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
