"""The page Findings: what each role is shown, its filters, and the act that a finding asks for."""

from collections.abc import Callable

import pytest

from tests.conftest import World, usd
from tests.dashboard.conftest import Visit
from toolkit.admin import keys, organisations
from toolkit.core.policy import Role
from toolkit.dashboard import finding_acts
from toolkit.store.tables import ApiKey

Open = Callable[..., Visit]


@pytest.fixture
def other(world: World) -> str:
    """The id of another organisation, which has a key without a limit."""
    with world.workspace.write() as tx:
        org = organisations.add(tx, "Borealis")
        keys.create(tx, world.workspace.keyring, org=org.id, name="their-key", plan=world.plan_id)
        return org.id


def seen(page: Visit) -> str:
    """Return the table's cells."""
    return " ".join(str(frame.value.to_csv()) for frame in page.app.dataframe)


def opened(page: Visit, check: str, key: ApiKey) -> Visit:
    """Open an audit's finding on a key, as choosing its row does."""
    rows = page.app.dataframe[0].value
    row = rows[(rows["Audit"] == check) & (rows["Subject"] == key.name)].iloc[0]
    since = row["Since"].to_pydatetime().isoformat()
    page.app.session_state["dialog"] = ("Finding", f"{check}/key/{key.id}/{since}")
    return page.run()


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_an_organisation_sees_its_own_findings_only(visit: Open, world: World, other: str, role: Role) -> None:
    """Neither the table nor the filters name another organisation, and the platform's audits are left out."""
    world.key("our-key")
    page = visit("findings", role, world.org_id)
    assert "our-key" in seen(page)
    offered = [option for box in page.app.selectbox for option in box.options]
    for foreign in ("their-key", "Borealis", "books-unreconciled"):
        assert foreign not in seen(page)
        assert foreign not in offered
    assert "are for the platform alone" in page.text
    page.app.query_params = {"check": "books-unreconciled"}
    assert "Not found." in page.run().text


def test_the_platform_filters_by_severity_audit_and_organisation(visit: Open, world: World, other: str) -> None:
    """What is chosen stands in the address."""
    world.key("our-key")
    page = visit("findings")
    assert "their-key" in seen(page)
    assert "books-unreconciled" in seen(page)
    page.app.selectbox(key="filter_org").set_value("Borealis")
    page.run()
    assert page.app.query_params == {"org": "Borealis"}
    assert "their-key" in seen(page)
    assert "our-key" not in seen(page)
    page.app.segmented_control(key="severity").set_value("High")
    assert "No finding matches." in page.run().text


@pytest.mark.parametrize("role", Role)
def test_each_role_is_offered_what_it_may_do(visit: Open, world: World, role: Role) -> None:
    """An analyst looks; who has a shell is shown the command to copy."""
    key = world.key("unbounded").key
    page = opened(visit("findings", role, None if role is Role.PLATFORM_ADMIN else world.org_id), "key-no-limit", key)
    assert "it may spend all of the wallet" in page.text
    assert page.has_button("act_Edit") is (role is not Role.ANALYST)
    assert page.has_button("act_Details") is (role is Role.ANALYST)
    commands = [code.value for code in page.app.code]
    assert bool(commands) is (role is Role.PLATFORM_ADMIN)
    assert all(command.startswith("keydesk keys update unbounded --monthly-limit ") for command in commands)


def test_a_finding_opens_the_dialog_that_ends_it(visit: Open, world: World) -> None:
    """A key without a limit is given one; then the finding is gone, for the audits are made anew."""
    key = world.key("unbounded").key
    page = visit("findings", Role.ORG_ADMIN, world.org_id)
    opened(page, "key-no-limit", key)
    assert "it may spend all of the wallet" in page.text
    page.click("act_Edit")
    page.type("key_limit", "25")
    assert "unbounded saved" in page.click("confirm").text
    with world.workspace.read() as tx:
        assert keys.find(tx, key.id).monthly_limit == usd(25)
    assert "key-no-limit" not in seen(page)


def test_what_was_found_is_kept_until_somebody_looks_again(visit: Open, world: World) -> None:
    """Another person's change shows after the button."""
    key = world.key("unbounded").key
    page = visit("findings")
    with world.workspace.write() as tx:
        keys.update(tx, key.id, monthly_limit=usd(1))
    assert "key-no-limit" in seen(page.run())
    assert "key-no-limit" not in seen(page.click("findings_refresh"))


def test_commands_to_copy_can_be_run_as_they_stand() -> None:
    """One with a word to fill in is only told."""
    action = "`keydesk keys rotate app`; or `keydesk keys rotate KEY`, and see `?key=`."
    assert finding_acts.commands_in(action) == ["keydesk keys rotate app"]
