"""The page Alerts: who may name, try and remove a destination, and what became of what was noticed."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.alerts.receiver import receiving
from tests.conftest import World, usd
from tests.dashboard.conftest import Visit
from toolkit.admin import organisations
from toolkit.alerts import destinations, evaluation, queue
from toolkit.alerts.runner import Runner
from toolkit.core.policy import Role
from toolkit.store import audit
from toolkit.store.tables import AlertDestination, KeyMonth

Open = Callable[..., Visit]
PUBLIC = "https://alerts.example.com/hook/of-the-path"


def add(world: World, name: str, url: str = PUBLIC, org: str | None = None) -> AlertDestination:
    """Add a destination as the platform."""
    with world.workspace.write() as tx:
        return destinations.add(tx, world.workspace.keyring, name, url, org)[0]


def lease(world: World, holder: str = "runner_test") -> None:
    """Let some process send alerts."""
    with world.workspace.write() as tx:
        queue.take_lease(tx, holder, timedelta(minutes=5))


def pass_threshold(world: World, name: str = "busy") -> None:
    """Let a key spend 80 % of its limit, and have it noticed."""
    key_id = world.key(name, monthly_limit=usd(10)).key.id
    with world.workspace.write() as tx:
        month = f"{tx.now:%Y-%m}"
        tx.session.add(KeyMonth(key_id=key_id, month=month, calls=1, spent=usd(8), held=0, last_call_at=tx.now))
    lease(world)
    evaluation.tell(world.workspace.store, "runner_test")


def seen(page: Visit) -> str:
    """Return the tables' cells."""
    return " ".join(str(frame.value.to_csv()) for frame in page.app.dataframe)


def opened(page: Visit, dialog: str, subject: str) -> Visit:
    """Open a dialog, as choosing a row does."""
    page.app.session_state["dialog"] = (dialog, subject)
    return page.run()


def test_an_org_admin_adds_a_destination_and_sees_its_secret_once(visit: Open, world: World) -> None:
    """It gets the organisation's alerts; a private address is refused in words."""
    page = visit("alerts", Role.ORG_ADMIN, world.org_id)
    assert "Nobody is told anything yet." in page.text
    page.click("add_destination")
    page.type("destination_name", "on-call")
    page.type("destination_url", "https://10.0.0.1/hook")
    assert "no address of the public internet" in page.click("confirm").text
    page.type("destination_url", PUBLIC)
    assert "whsec_" in page.click("confirm").text
    page.click("secret_stored")
    assert "whsec_" not in page.text
    with world.workspace.read() as tx:
        [row] = destinations.list_all(tx)
    assert (row.org_id, row.any_address) == (world.org_id, False)
    assert "whsec_" in page.click("show_secret").text
    with world.workspace.read() as tx:
        acts = [act.action for act in audit.rows(tx, subject=row.id)]
    assert acts == ["destination.secret", "destination.add"]


def test_a_role_sees_and_does_what_it_may(visit: Open, world: World) -> None:
    """Another organisation's destination and alerts are not there, and the platform's own is not an org admin's."""
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Borealis").id
    theirs, ours = add(world, "their-hook", org=other), add(world, "our-hook", org=world.org_id)
    add(world, "platform-hook")
    pass_threshold(world)
    page = visit("alerts", Role.ORG_ADMIN, other)
    assert "their-hook" in seen(page)
    for foreign in ("our-hook", "platform-hook", "busy"):
        assert foreign not in seen(page)
    opened(page, "Destination", theirs.id)
    assert "ask a platform admin" in page.app.caption[0].value
    assert not page.has_button("test_destination")
    assert "our-hook" not in opened(page, "Destination", ours.id).text
    analyst = visit("alerts", Role.ANALYST, world.org_id)
    assert "our-hook" in seen(analyst)
    assert "of-the-path" not in seen(analyst)
    assert not analyst.has_button("add_destination")
    assert "of-the-path" not in opened(analyst, "Destination", ours.id).text
    assert not analyst.has_button("remove_destination")
    platform = visit("alerts")
    for name in ("their-hook", "our-hook", "platform-hook", "busy"):
        assert name in seen(platform)


def test_a_destination_is_tried_and_removed(visit: Open, world: World) -> None:
    """The test goes the way of every alert, and the page says what became of it."""
    with receiving() as receiver:
        row = add(world, "on-call", receiver.url)
        page = opened(visit("alerts"), "Destination", row.id)
        assert "No process sends alerts" in page.click("test_destination").text
        lease(world)
        page.click("test_destination")
        assert "on its way" in " ".join(info.value for info in page.app.info)
        with world.workspace.write() as tx:
            queue.end_lease(tx, "runner_test")
        asyncio.run(send(world))
        page.run()
        assert [message.value for message in page.app.success] == ["on\\-call has taken the test."]
        assert len(receiver.got) == 1
    page.click("remove_destination")
    page.type("reason", "moved")
    assert "on-call is removed" in page.click("confirm").text
    assert not page.app.dataframe[0].value["To"].str.contains("on-call").any()
    with world.workspace.read() as tx:
        assert destinations.list_all(tx) == []
        assert audit.rows(tx, subject=row.id)[0].reason == "moved"


async def send(world: World) -> None:
    """Look and send, as `keydesk alerts run` does, until what was begun is over."""
    workspace = world.workspace
    runner = Runner(workspace.store, workspace.settings, workspace.keyring)
    await runner.round()
    await runner.sent()
    await runner.close()


def test_a_platform_admin_adds_a_mailbox(visit: Open, world: World) -> None:
    """By the name of its password; org admins are not offered that, and see no secret of it."""
    page = visit("alerts").click("add_destination")
    page.app.segmented_control(key="destination_kind").set_value("E-mail")
    page.run()
    fields = {"name": "ops", "to": "ops@example.com", "from": "keydesk@example.com", "host": "mail.example.com"}
    for field, value in (fields | {"login": "keydesk", "password_name": "the value"}).items():
        page.type(f"mailbox_{field}", value)
    page.app.selectbox(key="mailbox_org").set_value(world.org_id)
    assert "Give the name, not the value" in page.click("confirm").text
    page.type("mailbox_password_name", "MAIL_PASSWORD")
    shown = page.click("confirm").text
    assert "mail.example.com:587 (starttls), from keydesk@example.com, as keydesk" in shown
    assert not page.has_button("show_secret")
    own = visit("alerts", Role.ORG_ADMIN, world.org_id).click("add_destination")
    assert not [each.key for each in own.app.segmented_control if each.key == "destination_kind"]
    assert "mailto:ops@example.com" in seen(own)


@pytest.mark.parametrize("state", ["Waiting", "Nobody"])
def test_the_log_is_filtered_by_what_became_of_an_alert(visit: Open, world: World, state: str) -> None:
    """An alert without a destination was told to nobody; one with waits for it."""
    if state == "Waiting":
        add(world, "on-call")
    pass_threshold(world)
    page = visit("alerts")
    for each in ("Waiting", "Nobody", "Sent"):
        page.app.segmented_control(key="state").set_value(each)
        assert ("has spent $8.00 of its limit" in seen(page.run())) is (each == state)
    page.app.segmented_control(key="state").set_value("All")
    page.run()
    with world.workspace.read() as tx:
        [one] = [line for line in destinations.history(tx) if line.alert.kind == "limit"]
    to = one.delivery.destination_id if one.delivery else ""
    assert "80 % are reached" in opened(page, "Alert", f"{one.alert.id}/{to}").text
    assert [code.value for code in page.app.code] == [f"keydesk keys update {one.alert.subject} --monthly-limit USD"]
