"""The page Organisations: add, rename, suspend, resume; the platform's alone."""

from collections.abc import Callable

import pytest

from tests.conftest import World
from tests.dashboard.conftest import Visit
from toolkit.admin import keys, organisations
from toolkit.core.policy import Role
from toolkit.store.tables import Organisation

Open = Callable[..., Visit]


def org_of(world: World, name: str = "Acme") -> Organisation:
    with world.workspace.read() as tx:
        return organisations.find(tx, name)


def opened(page: Visit, dialog: str, subject: str = "") -> Visit:
    """Open a dialog, as its button or choosing a row does."""
    page.app.session_state["dialog"] = (dialog, subject)
    return page.run()


def test_an_organisation_is_added_and_renamed(visit: Open, world: World) -> None:
    """A name that is taken is refused in the form."""
    page = visit("organisations").click("add_org")
    page.type("org_name", "acme")
    assert "already an organisation named" in page.click("confirm").text
    page.type("org_name", "Borealis")
    assert "Borealis is added" in page.click("confirm").text
    opened(page, "Rename", org_of(world, "Borealis").id)
    page.type("org_name", "Aurora")
    assert "now called Aurora" in page.click("confirm").text


def test_suspending_says_what_stops_and_wants_the_name(visit: Open, world: World) -> None:
    """Resuming says what starts."""
    world.key("app")
    page = opened(visit("organisations"), "Suspend", world.org_id)
    assert "1 key of Acme may call now" in page.text
    page.type("confirm_name", "acne")
    page.click("confirm")
    assert not org_of(world).suspended
    page.type("confirm_name", "Acme")
    assert "Acme is suspended" in page.click("confirm").text
    assert org_of(world).suspended
    opened(page, "Resume", world.org_id).click("confirm")
    assert not org_of(world).suspended


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_others_have_no_such_page(visit: Open, world: World, role: Role) -> None:
    """Nor do dialogs open that a browser asks for: the page that is shown instead knows none of them."""
    page = visit("organisations", role, world.org_id)
    assert "Organisations" not in [title.value for title in page.app.title]
    opened(page, "Suspend", world.org_id)
    assert not page.has_button("confirm")
    assert not org_of(world).suspended


def test_an_organisation_is_shown_with_what_can_be_done(visit: Open, world: World) -> None:
    """Its keys and money; its buttons lead to the dialogs that change it."""
    world.key("app")
    page = opened(visit("organisations"), "Organisation", world.org_id)
    for part in ("Acme", world.org_id, "active", "$100.00"):
        assert part in page.text
    page.click("suspend")
    assert page.app.session_state["dialog"] == ("Suspend", world.org_id)
    page.app.segmented_control(key="state").set_value("Suspended")
    assert "No organisation matches." in page.run().text


def test_keys_that_are_stopped_are_not_counted(visit: Open, world: World) -> None:
    """Only those that may call are."""
    world.key("app")
    stopped = world.key("stopped").key
    with world.workspace.write() as tx:
        keys.disable(tx, stopped.id, confirm="stopped")
    assert visit("organisations").app.dataframe[0].value["Keys that may call"].tolist() == [1]
