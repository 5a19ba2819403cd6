"""The page Audit log: what each role sees of it, its filters in the address, an act's facts, and the chains' check."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from tests.conftest import World
from tests.dashboard.conftest import Visit
from toolkit.admin import keys, organisations
from toolkit.core.policy import Role
from toolkit.store import audit

Open = Callable[..., Visit]


@pytest.fixture
def theirs(world: World) -> str:
    """The id of a key of another organisation."""
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Borealis")
        return keys.create(tx, world.workspace.keyring, org=other.id, name="their-key", plan=world.plan_id).key.id


def seen(page: Visit) -> str:
    """Return the table's cells."""
    return " ".join(str(frame.value.to_csv()) for frame in page.app.dataframe)


def at(page: Visit, **address: str) -> Visit:
    """Return the page as it is under an address with these parameters."""
    page.app.query_params = dict(address)
    return page.run()


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_an_organisation_sees_its_own_acts_only(visit: Open, world: World, theirs: str, role: Role) -> None:
    """In the table and in what the filters offer; an id of another organisation is not found, as an unknown one."""
    mine = world.key("our-key").key.id
    page = visit("audit_log", role, world.org_id)
    assert "our-key" in seen(page)
    offered = [option for box in page.app.selectbox for option in box.options]
    for foreign in ("their-key", "Borealis", "admin@keydesk.local", theirs):
        assert foreign not in seen(page)
        assert foreign not in offered
    assert "our-key" in seen(at(page, object=mine))
    refused = at(page, object=theirs).text
    assert "Not found." in refused
    assert not page.app.dataframe
    assert at(page, object="key_nobodys").text == refused
    assert "our-key" in seen(page.click("filter_clear"))


def test_the_platform_sees_and_filters_all(visit: Open, world: World, theirs: str) -> None:
    """What is chosen stands in the address, and the address chooses."""
    world.key("our-key")
    page = visit("audit_log")
    assert "their-key" in seen(page)
    page.app.selectbox(key="filter_object").set_value(theirs)
    page.run()
    assert page.app.query_params == {"object": theirs}
    assert "their-key" in seen(page)
    assert "our-key" not in seen(page)
    assert "our-key" in seen(at(page, action="key.create"))
    assert "operator.add" not in seen(page)


def test_an_act_shows_its_facts_side_by_side(visit: Open, world: World) -> None:
    """What was, what is, who did it and why."""
    key = world.key("switch").key
    with world.workspace.write() as tx:
        keys.disable(tx, key.id, confirm="switch", reason="holidays")
        acts = len(audit.rows(tx, org_id=world.org_id))
    page = visit("audit_log", Role.ORG_ADMIN, world.org_id)
    assert seen(page).index("key.disable") < seen(page).index("key.create")
    page.app.session_state["dialog"] = ("Act", f"{world.org_id}:{acts}")
    shown = page.run().text
    assert "status active disabled" in shown
    assert "holidays" in shown
    assert "Who platform" in shown


def test_the_check_says_whether_the_chains_hold(visit: Open, world: World) -> None:
    """A changed row is named with its chain."""
    world.key("app")
    page = visit("audit_log").click("verify")
    assert [message.value for message in page.app.success] == ["2 chains hold: no row was changed, removed or moved."]
    with world.workspace.write() as tx:
        tx.session.execute(text("UPDATE audit SET reason = 'forged' WHERE chain = 'platform' AND seq = 1"))
    assert "platform 1 was changed" in page.click("verify").text
