"""The page Operators, and the page behind an invitation's link."""

import re
from collections.abc import Callable, Iterator

import pytest
from starlette.testclient import TestClient

from tests.conftest import World, variables_of
from tests.dashboard.conftest import PASSWORD, Visit
from toolkit.admin import invitations, operators, organisations, sessions
from toolkit.admin.sign_in import open_session
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role
from toolkit.dashboard import gate, identity
from toolkit.store.tables import Operator

Open = Callable[..., Visit]
ADA = "ada@example.com"


def person(world: World, email: str = ADA) -> Operator | None:
    with world.workspace.read() as tx:
        return operators.with_email(tx, email)


def add(world: World, email: str = ADA, role: Role = Role.ANALYST, org_id: str | None = None) -> Operator:
    with world.workspace.write() as tx:
        return operators.add(tx, email, role, hash_password(PASSWORD, cost=4), org_id=org_id or world.org_id)


def opened(page: Visit, dialog: str, subject: str = "") -> Visit:
    """Open a dialog, as its button or choosing a row does."""
    page.app.session_state["dialog"] = (dialog, subject)
    return page.run()


def seen(page: Visit) -> str:
    return " ".join(str(frame.value.to_csv()) for frame in page.app.dataframe)


@pytest.fixture
def browser(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A browser at the dashboard, with nobody signed in."""
    for name, value in variables_of(world.workspace.settings).items():
        monkeypatch.setenv(name, value)
    from starlette.applications import Starlette

    with TestClient(Starlette(routes=gate.routes(), middleware=gate.middleware()), follow_redirects=False) as client:
        yield client
    identity.workspace().close()


def test_an_org_admin_invites_and_the_person_gets_in(visit: Open, world: World, browser: TestClient) -> None:
    """The link is shown once; behind it the password is set, and then the link is gone."""
    page = visit("operators", Role.ORG_ADMIN, world.org_id).click("invite")
    page.type("invite_email", ADA)
    text = page.click("confirm").text
    (token,) = set(re.findall(r"/invitation\?token=([\w-]+)", text))
    assert token not in page.click("link_sent").text
    assert ADA in seen(page)
    form = browser.get("/invitation", params={"token": token})
    assert "Welcome to Keydesk" in form.text
    assert "<script" not in form.text
    assert form.headers["cache-control"] == "no-store"
    fields = {"token": token, "password": PASSWORD, "again": "another"}
    assert "differ" in browser.post("/invitation", data=fields).text
    assert "too short" in browser.post("/invitation", data=fields | {"password": "short", "again": "short"}).text
    done = browser.post("/invitation", data=fields | {"again": PASSWORD})
    assert "The password is set" in done.text
    assert browser.post("/invitation", data=fields | {"again": PASSWORD}).status_code == 404
    actor = sessions.find(world.workspace.store, open_session(world.workspace.store, ADA, PASSWORD, "test"))
    assert actor is not None
    assert (actor.role, actor.org_id) == (Role.ANALYST, world.org_id)


@pytest.mark.parametrize(
    "token", ["", "x" * 43, "../../etc", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")]
)
def test_a_link_that_never_was_says_so(browser: TestClient, token: str) -> None:
    """As one that was used does."""
    answer = browser.get("/invitation", params={"token": token})
    assert answer.status_code == 404
    assert "not valid any more" in answer.text


def test_the_page_takes_no_foreign_and_no_large_form(browser: TestClient) -> None:
    """As the sign-in page."""
    assert browser.post("/invitation", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert browser.post("/invitation", data={"token": "x" * 20_000}).status_code == 413


def test_a_person_is_re_roled_disabled_enabled_and_removed(visit: Open, world: World) -> None:
    """Removing wants the e-mail typed."""
    ada = add(world)
    page = opened(visit("operators"), "Role", ada.id)
    page.app.selectbox(key="operator_role").select(Role.ORG_ADMIN)
    assert "is Org admin now" in page.click("confirm").text
    opened(page, "Disable", ada.id).click("confirm")
    assert (found := person(world)) is not None
    assert found.disabled_at is not None
    opened(page, "Enable", ada.id).click("confirm")
    opened(page, "Remove", ada.id).type("confirm_name", "eve@example.com")
    page.click("confirm")
    assert person(world) is not None
    page.type("confirm_name", ADA)
    assert "is removed" in page.click("confirm").text
    assert person(world) is None


def test_a_person_is_signed_out_and_gets_a_password_link(visit: Open, world: World) -> None:
    """Where they are signed in is shown first."""
    ada = add(world)
    session = open_session(world.workspace.store, ADA, PASSWORD, "192.0.2.7")
    page = opened(visit("operators"), "Operator", ada.id)
    assert "192.0.2.7" in page.text
    page.click("sign_out").click("confirm")
    assert sessions.find(world.workspace.store, session) is None
    assert "/invitation?token=" in opened(page, "Password link", ada.id).click("confirm").text
    page.click("link_sent")
    with world.workspace.read() as tx:
        (link,) = invitations.list_open(tx)
    assert "is withdrawn" in opened(page, "Link", link.id).click("confirm").text


def test_each_role_sees_and_does_what_it_may(visit: Open, world: World) -> None:
    """Another organisation's people, and the platform's, are not there; an analyst has no such page."""
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Borealis").id
    theirs = add(world, "their@example.com", org_id=other)
    add(world)
    page = visit("operators", Role.ORG_ADMIN, world.org_id)
    assert ADA in seen(page)
    assert "their@example.com" not in seen(page)
    for dialog in ("Operator", "Role", "Disable", "Remove", "Password link"):
        assert not opened(page, dialog, theirs.id).has_button("confirm")
    opened(page, "Invite")
    assert page.app.selectbox(key="operator_role").options == ["Org admin", "Analyst"]
    assert "their@example.com" in seen(visit("operators"))
    analyst = visit("operators", Role.ANALYST, world.org_id)
    assert "Operators" not in [title.value for title in analyst.app.title]


def test_nobody_shuts_the_own_way_in(visit: Open, world: World) -> None:
    """The buttons are not there, and the service refuses whoever asks all the same."""
    page = visit("operators")
    me = person(world, "platform_admin-none@keydesk.test")
    assert me is not None
    opened(page, "Operator", me.id)
    assert page.has_button("password_link")
    assert not page.has_button("disable")
    assert "Nobody disables" in opened(page, "Disable", me.id).click("confirm").text
