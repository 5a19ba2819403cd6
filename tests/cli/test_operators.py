"""`keydesk operators`: links that are used once, and sessions that are ended; in process on a real store."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import Run, World
from toolkit.admin import invitations, sessions
from toolkit.admin.sign_in import open_session
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role

pytestmark = pytest.mark.any_store

ADA, PASSWORD = "ada@example.com", "a password of hers"


def token_of(link: str) -> str:
    """Return what a link carries."""
    return parse_qs(urlsplit(link).query)["token"][0]


def invite(run: Run, *options: str) -> str:
    """Invite Ada; return the token."""
    made = json.loads(run("operators", "invite", ADA, "--role", "analyst", *options, "--json").stdout)
    assert urlsplit(made["link"]).path == "/invitation"
    return token_of(made["link"])


def test_a_link_lets_its_person_in(run: Run, world: World) -> None:
    """With the role and organisation that were given; then it is no more in the list."""
    token = invite(run, "--org", "Acme")
    listed = json.loads(run("operators", "invitations", "--json").stdout)
    assert [(each["email"], each["purpose"], each["org"]) for each in listed] == [(ADA, "analyst", "Acme")]
    invitations.accept(world.workspace.store, token, hash_password(PASSWORD, cost=4))
    actor = sessions.find(world.workspace.store, open_session(world.workspace.store, ADA, PASSWORD, "192.0.2.1"))
    assert actor is not None
    assert (actor.role, actor.org_id) == (Role.ANALYST, world.org_id)
    assert "No link is open" in run("operators", "invitations").stdout


def test_a_link_is_withdrawn_by_its_id(run: Run, world: World) -> None:
    """Then it does nothing."""
    invite(run)
    (listed,) = json.loads(run("operators", "invitations", "--json").stdout)
    assert run("operators", "withdraw", listed["id"]).stdout == f"The link for {ADA} is withdrawn.\n"
    assert run("operators", "withdraw", listed["id"]).exit_code == 1


def test_a_password_link_and_a_sign_out(run: Run, world: World) -> None:
    """The one says how to use it; the other ends it, and every session."""
    store = world.workspace.store
    invitations.accept(store, invite(run), hash_password(PASSWORD, cost=4))
    session = open_session(store, ADA, PASSWORD, "192.0.2.1")
    told = run("operators", "password-link", ADA).stdout
    assert "It works once, until" in told
    assert run("operators", "sign-out", ADA).stdout == f"{ADA} is signed out everywhere.\n"
    assert sessions.find(store, session) is None
    assert "No link is open" in run("operators", "invitations").stdout


def test_who_is_there_already_is_not_invited(run: Run, world: World) -> None:
    """Nor is a role given that does not fit."""
    invitations.accept(world.workspace.store, invite(run), hash_password(PASSWORD, cost=4))
    assert "already an operator" in run("operators", "invite", ADA, "--role", "analyst").stderr
    assert "say which" in run("operators", "invite", "eve@example.com", "--role", "org_admin").stderr
