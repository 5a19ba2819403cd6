"""The page Spend: breakdown, comparison, forecast, the unusual; each role's own figures alone."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import World, usd
from tests.dashboard.conftest import Visit
from tests.rows import append, row
from toolkit.admin import organisations
from toolkit.core.policy import Role
from toolkit.dashboard import spend
from toolkit.store.transaction import utc_now

Open = Callable[..., Visit]


@pytest.fixture
def spent(world: World) -> World:
    """Calls of two keys today, and of one of them forty days ago."""
    app, batch = world.key("app").key, world.key("batch").key
    now = utc_now()
    calls = [row(app, now, cost=usd(3)), row(app, now - timedelta(days=40), cost=usd(2)), row(batch, now, cost=usd(1))]
    append(world.workspace.store, calls)
    world.workspace.ledger.sync()
    return world


def choose(page: Visit, *, org: str | None = None, **words: str) -> Visit:
    """Choose words, and an organisation by the address."""
    for name, value in words.items():
        page.app.session_state[name] = value
    if org is not None:
        page.app.query_params["org"] = org
    return page.run()


def cells(page: Visit, place: int = 0) -> list[dict[Any, Any]]:
    return list(page.app.dataframe[place].value.to_dict("records"))


def test_a_breakdown_has_shares_that_sum_to_all(visit: Open, spent: World) -> None:
    """By key first, the costliest on top."""
    page = visit("spend")
    rows = cells(page)
    assert [(each["Key"], each["Spent"], each["Share"]) for each in rows] == [("app", 3.0, 75.0), ("batch", 1.0, 25.0)]
    assert "$4.00 for 2 calls" in page.text


LONG = ("Model", "Plan", "Owner", "Environment", "Organisation")


@pytest.mark.parametrize("by", ["Upstream", "Day", *(pytest.param(each, marks=pytest.mark.world) for each in LONG)])
def test_each_dimension_adds_up_to_the_same(visit: Open, spent: World, by: str) -> None:
    """Whatever it is broken down by."""
    page = choose(visit("spend"), by=by)
    assert sum(each["Spent"] for each in cells(page)) == 4.0


def test_a_tag_is_asked_for_and_shown(visit: Open, spent: World) -> None:
    """Calls without it stand together."""
    page = choose(visit("spend"), by="Tag")
    assert "Which tag?" in page.text
    page.type("tag", "team")
    assert [each["Team"] for each in cells(page.run())] == ["(none)"]


def test_a_comparison_splits_the_difference_exactly(visit: Open, spent: World) -> None:
    """Four effects of each row sum to its difference."""
    page = choose(visit("spend"), view="Compare")
    rows = cells(page)
    assert {each["Key"]: each["State"] for each in rows} == {"app": "kept", "batch": "new"}
    for each in rows:
        effects = sum(each[name] for name in ("Volume", "Mix", "Price", "Multiplier"))
        assert effects == pytest.approx(each["Difference"])
    assert "+$2.00 against the time before" in page.text


def test_a_forecast_and_the_unusual_are_drawn(visit: Open, spent: World) -> None:
    """Of all organisations with a table of each; of one with the fan of its month."""
    page = choose(visit("spend"), view="Forecast")
    assert [each["Organisation"] for each in cells(page)] == ["Acme"]
    assert {each["Key"] for each in cells(page, 1)} == {"app", "batch"}
    one = choose(page, org=spent.org_id)
    assert {each["Key"] for each in cells(one)} == {"app", "batch"}
    (found,) = cells(choose(visit("spend"), view="Unusual"))
    assert (found["Key"], found["What"]) == ("app", "spend")


@pytest.mark.parametrize("view", spend.VIEWS)
def test_an_organisation_sees_its_own_alone(visit: Open, spent: World, view: str) -> None:
    """Not even by an address that names another one."""
    with spent.workspace.write() as tx:
        other = organisations.add(tx, "Borealis").id
    page = choose(visit("spend", Role.ANALYST, other), view=view, org=spent.org_id)
    assert not page.app.dataframe
    assert "$4.00" not in page.text


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("7 days", "2026-02-23T00:00", None),
        ("This month", "2026-03-01T00:00", None),
        ("Last month", "2026-02-01T00:00", "2026-03-01T00:00"),
    ],
)
def test_periods_are_what_they_are_called(name: str, start: str, end: str | None) -> None:
    """Whole days and months in UTC."""
    period = spend.period_of(name, datetime(2026, 3, 1, 12, tzinfo=UTC))
    assert period.start == datetime.fromisoformat(f"{start}+00:00")
    assert end is None or period.end == datetime.fromisoformat(f"{end}+00:00")
