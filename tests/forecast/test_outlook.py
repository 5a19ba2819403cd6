"""Forecasts read the ledger: whose keys, with which limits and wallets, and what `keydesk forecast` says of them."""

import json
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest

from tests.conftest import Run, World, usd
from tests.ledgers import kept
from tests.rows import NOON, append, row
from toolkit.admin import keys, organisations
from toolkit.core.policy import Role
from toolkit.forecast import outlook
from toolkit.store.actor import Actor
from toolkit.store.tables import ApiKey
from toolkit.store.transaction import utc_now

DAY = timedelta(days=1)


def steady(world: World, key: ApiKey, *, days: int = 40, until: int = 0) -> None:
    """A dollar on each of the days before 23 November 2026, and 40 cents on that morning."""
    morning = NOON - timedelta(hours=2)
    rows = [row(key, morning - day * DAY, cost=usd(1)) for day in range(max(until, 1), days + 1)]
    rows += [] if until else [row(key, morning, cost=usd(0.4))]
    append(world.workspace.store, rows)


def only(frame: pd.DataFrame, **equal: object) -> dict[str, Any]:
    """Return the one row that has these values."""
    rows = [row for row in frame.to_dict("records") if all(row[name] == value for name, value in equal.items())]
    assert len(rows) == 1, rows
    return {str(name): value for name, value in rows[0].items()}


@pytest.mark.any_store
def test_month_end_reads_spend_limits_and_wallets(world: World) -> None:
    """22.40 dollars are spent, 7.50 are to come; the limit of 25 is used up on the fourth day; the wallet lasts."""
    app, free = world.key("app", monthly_limit=usd(25)).key, world.key("free").key
    steady(world, app)
    steady(world, free)
    world.workspace.ledger.sync()
    by_key, by_org = outlook.month_end(world.workspace.ledger, NOON)
    assert by_key["key"].tolist() == ["free", "app"]  # the costliest first
    found = only(by_key, key="app")
    assert (found["spent"], found["forecast"], found["wanted"], found["limit"]) == (
        usd(22.4),
        usd(25),
        usd(29.9),
        usd(25),
    )
    assert found["days"] == 3  # 2.60 are left: 0.50 today, then one dollar a day
    assert only(by_key, key="free")["forecast"] == usd(29.9)
    whole = only(by_org, org="Acme")
    assert (whole["spent"], whole["forecast"], whole["available"]) == (usd(44.8), usd(54.9), usd(100))
    # 10.10 go in November, 50 until 25 December, 6 until January, and of the 33.90 that are left two a day.
    assert NOON.date() + whole["days"] * DAY == date(2027, 1, 17)


def test_calls_after_the_moment_do_not_count(world: World) -> None:
    """A forecast of an earlier moment knows nothing that came after it."""
    app = world.key("app").key
    steady(world, app)
    before = outlook.month_end(world.workspace.ledger, NOON)[0]
    append(world.workspace.store, [row(app, NOON + timedelta(seconds=1), cost=usd(500))])
    assert outlook.month_end(world.workspace.ledger, NOON)[0].equals(before)


def test_no_amount_passes_through_a_float(world: World) -> None:
    """An amount that no float can hold is spent to the last nano-USD, for key and organisation, beside days without."""
    odd = 2**53 + 1
    append(
        world.workspace.store, [row(world.key("app").key, NOON, cost=odd), row(world.key("b").key, NOON - DAY, cost=2)]
    )
    by_key, by_org = outlook.month_end(world.workspace.ledger, NOON)
    assert only(by_key, key="app")["spent"] == odd
    assert only(by_org)["spent"] == odd + 2


def test_deleted_keys_are_named_while_they_cost_something(world: World) -> None:
    """A deleted key's spend of this month stays its organisation's; one of an earlier month is not listed."""
    now, before = world.key("now").key, world.key("before").key
    steady(world, now)
    steady(world, before, days=60, until=30)
    with world.workspace.write() as tx:
        for key in (now, before):
            keys.delete(tx, key.id, confirm=key.name, reason="no longer used")
    by_key, by_org = outlook.month_end(world.workspace.ledger, NOON)
    found = only(by_key)
    assert (found["key_label"], found["forecast"]) == ("now (deleted)", usd(22.4))
    assert found["method"] == "admits no calls any more"
    assert only(by_org)["forecast"] == usd(22.4)


def test_only_days_that_count_are_opened(world: World) -> None:
    """Segments of days before the history of a forecast are not touched: here the file is not even there."""
    key = world.key().key
    append(world.workspace.store, [row(key, NOON - 200 * DAY, cost=usd(9))])
    ledger = world.workspace.ledger
    ledger.sync()
    ledger.root.remove(kept(ledger))
    steady(world, key)
    by_key, _ = outlook.month_end(ledger, NOON)
    assert by_key["spent"].tolist() == [usd(22.4)]


@pytest.mark.any_store
def test_disabled_keys_and_suspended_organisations_cost_nothing_more(world: World) -> None:
    """Who admits no calls is not foretold any."""
    app = world.key("app").key
    steady(world, app)
    with world.workspace.write() as tx:
        keys.disable(tx, app.id, confirm=app.name, reason="a pause")
    assert only(outlook.month_end(world.workspace.ledger, NOON)[0])["forecast"] == usd(22.4)
    with world.workspace.write() as tx:
        keys.enable(tx, app.id, confirm=app.name, reason="work goes on")
    assert only(outlook.month_end(world.workspace.ledger, NOON)[0])["forecast"] == usd(29.9)


def test_days_at_the_limit_are_left_out(world: World) -> None:
    """A day on which many calls were refused for want of money does not count; one with a single refusal does."""
    app = world.key("app").key
    steady(world, app, until=6)
    refused = {"outcome": "refused", "refusal": "api_key_quota_exceeded", "status": 402}
    append(world.workspace.store, [row(app, NOON - day * DAY, **refused) for day in range(1, 6)])
    append(world.workspace.store, [row(app, NOON - 10 * DAY, cost=0) for _ in range(20)])
    append(world.workspace.store, [row(app, NOON - 10 * DAY, **refused)])
    found, _, _ = outlook.outlook(world.workspace.ledger, NOON)
    assert found.cut_short is not None
    assert found.cut_short[app.id].sum() == 5
    wanted = only(found.by_key())
    assert wanted["wanted"] - wanted["spent"] == usd(7.5)


@pytest.mark.any_store
def test_an_organisations_analyst_sees_its_own(world: World) -> None:
    """Keys, money and wallets of other organisations are in no forecast of an organisation's analyst."""
    steady(world, world.key("app").key)
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Other")
        theirs = keys.create(tx, world.workspace.keyring, org=other.id, name="theirs", plan=world.plan_id).key
    steady(world, theirs)
    ledger = world.workspace.acting_as(Actor("eve@example.com", Role.ANALYST, other.id)).ledger
    by_key, by_org = outlook.month_end(ledger, NOON)
    assert by_key["key"].tolist() == ["theirs"]
    assert by_org["org"].tolist() == ["Other"]


def test_an_empty_ledger_foretells_nothing(world: World) -> None:
    """Without a call each key ends the month at nothing; without a key there are no rows."""
    assert [frame.empty for frame in outlook.month_end(world.workspace.ledger, NOON)] == [True, True]
    world.key("app")
    found = only(outlook.month_end(world.workspace.ledger, NOON)[0])
    assert (found["spent"], found["forecast"], found["method"]) == (0, 0, "never used")


def test_the_command_says_what_the_month_will_cost(world: World, run: Run) -> None:
    """For people a table with a total; with --json exact amounts, an organisation's being its keys'."""
    app = world.key("app", monthly_limit=usd(500)).key
    now = utc_now()
    append(world.workspace.store, [row(app, now - day * DAY, cost=usd(1)) for day in range(40)])
    text = run("forecast")
    assert text.exit_code == 0, text.output
    assert text.stdout.splitlines()[0].split()[:4] == ["KEY", "ORGANISATION", "SPENT", "FORECAST"]
    assert text.stdout.splitlines()[-1].startswith("total")
    assert "not this month" in text.stdout
    (by_key,) = json.loads(run("forecast", "--json", "--org", "Acme").stdout)
    (by_org,) = json.loads(run("forecast", "--by", "org", "--json").stdout)
    assert Decimal(by_key["spent_usd"]) == now.day
    assert by_key["limit_usd"] == "500"
    assert by_key["spent_usd"] == by_org["spent_usd"]
    later = abs(Decimal(by_key["forecast_usd"]) - Decimal(by_org["forecast_usd"]))  # the second run came later
    assert later < Decimal("0.01")
    assert by_org["available_usd"] == "100"
    assert by_key["low_usd"] is not None


def test_the_command_says_when_there_is_nothing(world: World, run: Run) -> None:
    """No keys, an unknown organisation and a wrong dimension are said plainly."""
    assert run("forecast").stdout == "There are no keys yet.\n"
    assert run("forecast", "--org", "Nobody").exit_code == 1
    assert run("forecast", "--by", "model").exit_code == 2
