"""The page Account: one's own sessions and password."""

from collections.abc import Callable

import pytest

from tests.conftest import World
from tests.dashboard.conftest import PASSWORD, Visit
from toolkit.admin import account, sessions
from toolkit.admin.sign_in import open_session
from toolkit.core.errors import NotFound, SignInFailed
from toolkit.core.policy import Role
from toolkit.store import audit

Open = Callable[..., Visit]
NEW = "another long passphrase"


def test_the_password_is_changed_by_who_knows_it(visit: Open, world: World) -> None:
    """Other browsers are signed out, this one is not; the audit log says so."""
    page = visit("account", Role.ANALYST, world.org_id)
    me = f"analyst-{world.org_id}@keydesk.test".lower()
    other = open_session(world.workspace.store, me, PASSWORD, "192.0.2.1")
    page.click("change_password")
    for old, new, again, words in (
        ("wrong", NEW, NEW, "password is wrong"),
        (PASSWORD, NEW, "x", "two new passwords differ"),
        (PASSWORD, "short", "short", "too short"),
    ):
        page.type("old_password", old)
        page.type("new_password", new)
        page.type("new_again", again)
        assert words in page.click("confirm").text
    assert sessions.find(world.workspace.store, other) is not None
    page.type("old_password", PASSWORD)
    page.type("new_password", NEW)
    page.type("new_again", NEW)
    assert "Your password is changed" in page.click("confirm").text
    assert sessions.find(world.workspace.store, other) is None
    assert "Account" in [title.value for title in page.run().app.title]
    with pytest.raises(SignInFailed):
        open_session(world.workspace.store, me, PASSWORD, "192.0.2.1")
    assert open_session(world.workspace.store, me, NEW, "192.0.2.1")
    with world.workspace.read() as tx:
        assert "operator.change_password" in [act.action for act in audit.rows(tx)]


def test_other_sessions_end_one_by_one_or_all(visit: Open, world: World) -> None:
    """Nobody else's can be named."""
    page = visit("account")
    me = "platform_admin-none@keydesk.test"
    store = world.workspace.store
    first, second = (open_session(store, me, PASSWORD, "192.0.2.1") for _ in range(2))
    page.run().app.session_state["dialog"] = ("Session", sessions.digest(first))
    assert "The session is ended" in page.run().click("confirm").text
    assert sessions.find(store, first) is None
    page.click("sign_out_others")
    assert "1 session ended" in page.click("confirm").text
    assert sessions.find(store, second) is None
    stranger = visit("account", Role.ANALYST, world.org_id)
    theirs = open_session(store, me, PASSWORD, "192.0.2.1")
    stranger.app.session_state["dialog"] = ("Session", sessions.digest(theirs))
    assert not stranger.run().has_button("confirm")
    assert sessions.find(store, theirs) is not None


def test_a_process_has_no_account(world: World) -> None:
    """Only who has signed in does."""
    with world.workspace.read() as tx, pytest.raises(NotFound, match="only who has signed in"):
        account.mine(tx)
