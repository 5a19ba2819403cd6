"""The page Month close: drafts, closing, statements; who may what."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import update

from tests.conftest import World
from tests.dashboard.conftest import Visit
from toolkit.admin import organisations
from toolkit.core.period import Period, billing_month
from toolkit.core.policy import Role
from toolkit.statements import month_close
from toolkit.store.tables import Organisation, WalletEntry
from toolkit.store.transaction import utc_now

Open = Callable[..., Visit]


def last_month() -> str:
    start = Period.month(billing_month(utc_now())).start
    assert start is not None
    return billing_month(start - timedelta(days=1))


@pytest.fixture
def over(world: World) -> World:
    """An organisation that was made, and paid, in the month before this one, which waits to be closed."""
    start = Period.month(last_month()).start
    with world.workspace.write() as tx:
        tx.session.execute(update(Organisation).values(created_at=start))
        tx.session.execute(update(WalletEntry).values(created_at=start))
    return world


def opened(page: Visit, name: str, world: World, month: str | None = None) -> Visit:
    """Open a dialog about a month, as choosing its row does."""
    page.app.session_state["dialog"] = (name, f"{world.org_id}/{month or last_month()}")
    return page.run()


def seen(page: Visit) -> str:
    return " ".join(str(frame.value.to_csv()) for frame in page.app.dataframe)


def test_a_month_is_closed_once_its_name_is_typed(visit: Open, over: World) -> None:
    """Then it stands among the closed ones, and holds."""
    page = visit("month_close")
    assert last_month() in seen(page)
    opened(page, "Statement", over).click("close_month")
    page.type("confirm_name", "2020-01")
    page.click("confirm")
    with over.workspace.read() as tx:
        assert month_close.list_all(tx) == []
    page.type("confirm_name", last_month())
    assert "is closed" in page.click("confirm").text
    with over.workspace.read() as tx:
        (statement,) = month_close.list_all(tx)
    assert statement.month == last_month()
    opened(page, "Statement", over).click("check_statement")
    assert "the books agree" in " ".join(each.value for each in page.app.success)
    assert not page.has_button("close_month")


def test_the_month_under_way_is_a_draft_that_cannot_be_closed(visit: Open, world: World) -> None:
    """It says why; its files are drafts."""
    page = opened(visit("month_close"), "Statement", world, billing_month(utc_now()))
    assert not page.has_button("close_month")
    assert "Close it then" in " ".join(each.value for each in page.app.warning)


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_others_read_their_own_and_close_nothing(visit: Open, over: World, role: Role) -> None:
    """Another organisation's month does not open; the closing does not, either."""
    page = opened(visit("month_close", role, over.org_id), "Statement", over)
    assert "Closing balance" in page.text
    assert not page.has_button("close_month")
    assert not opened(page, "Close the month", over).has_button("confirm")
    with over.workspace.write() as tx:
        other = organisations.add(tx, "Borealis").id
    theirs = opened(visit("month_close", role, other), "Statement", over)
    assert "Closing balance" not in theirs.text
    assert last_month() not in seen(theirs)
