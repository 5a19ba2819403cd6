"""Balances: what is in the wallets, and how it got there."""

from datetime import UTC, datetime

import pytest

from tests.conftest import ADMIN, World, usd
from tests.rows import append, row
from toolkit.admin import wallet
from toolkit.core.period import Period
from toolkit.reports import balances

MAY = Period.month("2020-05")
APRIL_30, MAY_1, MAY_31, JUNE_1 = (
    datetime(2020, month, day, hour, tzinfo=UTC)
    for month, day, hour in ((4, 30, 23), (5, 1, 0), (5, 31, 23), (6, 1, 0))
)


@pytest.fixture
def moved(world: World) -> World:
    """A wallet with a credit, an adjustment and a call before, in and after a May, and 100 USD of today."""
    for at, number in ((APRIL_30, 1), (MAY_1, 10), (MAY_31, 100), (JUNE_1, 1000)):
        with world.workspace.store.write(ADMIN, now=at) as tx:
            wallet.credit(tx, world.org_id, 7 * number, f"credit {number}")
            wallet.adjust(tx, world.org_id, -2 * number, f"adjustment {number}", "a test")
    key = world.key().key
    calls = [row(key, at, cost=cost) for at, cost in ((APRIL_30, 1), (MAY_1, 10), (MAY_31, 100), (JUNE_1, 1000))]
    append(world.workspace.store, calls[:2])
    world.workspace.ledger.sync()
    append(world.workspace.store, calls[2:])
    return world


def test_a_bridge_leads_from_the_balance_before_to_the_one_of_now(moved: World) -> None:
    """Calls and entries stand before, in or after the month, by its first and last moment, and each amount once."""
    (bridge,) = balances.bridge(moved.workspace.ledger, MAY).to_dict("records")
    assert bridge == {
        "org_id": moved.org_id,
        "org": "Acme",
        "opening": 7 - 2 - 1,
        "credits": 770,
        "adjustments": -220,
        "charged": -110,
        "closing": 4 + 770 - 220 - 110,
        "since": 7000 - 2000 - 1000 + usd(100),
        "balance": 4444 + usd(100),
    }


def test_a_bridge_without_bounds_has_nothing_before_or_after(moved: World) -> None:
    """Of all time, everything is in the period."""
    (bridge,) = balances.bridge(moved.workspace.ledger, Period.all()).to_dict("records")
    assert (bridge["opening"], bridge["since"]) == (0, 0)
    assert bridge["closing"] == bridge["balance"] == 4444 + usd(100)


def test_wallets_are_the_running_totals_the_emptiest_first(moved: World) -> None:
    """What is available is what was paid in, less what was charged and what is held."""
    with moved.workspace.store.write(ADMIN) as tx:
        tx.session.connection().exec_driver_sql("UPDATE organisation SET settled = 1111, held = 30")
    frame = balances.wallets(moved.workspace.ledger)
    assert frame.to_dict("records") == [
        {
            "org_id": moved.org_id,
            "org": "Acme",
            "credited": 5555 + usd(100),
            "settled": 1111,
            "balance": 4444 + usd(100),
            "held": 30,
            "available": 4414 + usd(100),
        }
    ]


def test_a_course_ends_each_day_with_what_was_left(moved: World) -> None:
    """Days without movement are left out, but for the first and last; the sum of all is the bridge's."""
    frame = balances.daily(moved.workspace.ledger, moved.org_id, MAY)
    found = [(f"{row['day']:%m-%d}", row["credits"], row["charged"], row["balance"]) for _, row in frame.iterrows()]
    assert found == [("05-01", 50, 10, 44), ("05-31", 500, 100, 444)]
    assert balances.daily(moved.workspace.ledger, "org_of_nobody", MAY)["balance"].tolist() == [0, 0]
