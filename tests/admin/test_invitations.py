"""Invitations: one-time links by which people set the password that they sign in with."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from tests.conftest import World, at_once
from toolkit.admin import invitations, operators, organisations, sessions
from toolkit.admin.sign_in import open_session
from toolkit.core.errors import Conflict, Forbidden, InvalidInput, NotFound, SignInFailed
from toolkit.core.passwords import PasswordHash, hash_password
from toolkit.core.policy import Role
from toolkit.store import audit
from toolkit.store.actor import Actor
from toolkit.store.tables import Invitation

pytestmark = pytest.mark.any_store

ADA = "ada@example.com"
PASSWORD = "a password of hers"


def hashed(password: str = PASSWORD) -> PasswordHash:
    return hash_password(password, cost=4)


def invite(world: World, email: str = ADA, role: Role = Role.ANALYST, *, org: bool = True) -> str:
    """Invite as the platform; return the token."""
    with world.workspace.write() as tx:
        return invitations.invite(tx, email, role, org_id=world.org_id if org else None).token


def org_admin(world: World, org_id: str | None = None) -> Actor:
    return Actor("boss@example.com", Role.ORG_ADMIN, org_id or world.org_id)


def test_who_accepts_can_sign_in_with_the_role_of_the_invitation(world: World) -> None:
    """And the audit log says who invited and who accepted."""
    token = invite(world)
    assert invitations.accept(world.workspace.store, token, hashed()) == ADA
    actor = sessions.find(world.workspace.store, open_session(world.workspace.store, ADA, PASSWORD, "1.2.3.4"))
    assert actor == Actor(ADA, Role.ANALYST, world.org_id)
    with world.workspace.read() as tx:
        acts = [(act.action, act.actor == ADA) for act in audit.rows(tx) if act.action.startswith("operator.")]
    assert acts == [("operator.sign_in", True), ("operator.accept_invitation", True), ("operator.invite", False)]


def test_a_link_works_once(world: World) -> None:
    """Also when it is used twice at once: one sets the password, the other is told nothing but that it is gone."""
    token = invite(world)
    results = at_once(*[lambda: invitations.accept(world.workspace.store, token, hashed())] * 2)
    assert sorted(map(type, results), key=str) == sorted([str, NotFound], key=str)
    with pytest.raises(NotFound), world.workspace.read() as tx:
        invitations.guest_of(tx, token)


@pytest.mark.parametrize("end", ["withdrawn", "replaced", "too old", "never made"])
def test_a_link_that_has_ended_sets_nothing(world: World, end: str) -> None:
    """Why is not told."""
    token = invite(world)
    with world.workspace.write() as tx:
        if end == "withdrawn":
            invitations.withdraw(tx, invitations.list_open(tx)[0].id)
        elif end == "replaced":
            invitations.invite(tx, ADA, Role.ANALYST, org_id=world.org_id)
        elif end == "too old":
            tx.session.execute(update(Invitation).values(expires_at=tx.now - timedelta(seconds=1)))
    with pytest.raises(NotFound) as refused:
        invitations.accept(world.workspace.store, "x" * 43 if end == "never made" else token, hashed())
    assert str(refused.value) == invitations.GONE


def test_a_password_link_sets_a_new_one_and_ends_all_sessions(world: World) -> None:
    """Until it is used the present one holds."""
    store = world.workspace.store
    invitations.accept(store, invite(world), hashed())
    with world.workspace.write() as tx:
        token = invitations.password_link(tx, ADA).token
    session = open_session(store, ADA, PASSWORD, "1.2.3.4")
    assert invitations.accept(store, token, hashed("another one of hers")) == ADA
    assert sessions.find(store, session) is None
    with pytest.raises(SignInFailed):
        open_session(store, ADA, PASSWORD, "1.2.3.4")
    assert open_session(store, ADA, "another one of hers", "1.2.3.4")


@pytest.mark.parametrize("act", ["disable", "remove", "reset_password", "end_sessions"])
def test_a_password_link_ends_with_what_is_done_to_the_operator(world: World, act: str) -> None:
    """Nobody gets in by a link from before."""
    invitations.accept(world.workspace.store, invite(world), hashed())
    with world.workspace.write() as tx:
        token = invitations.password_link(tx, ADA).token
        if act == "reset_password":
            operators.reset_password(tx, ADA, hashed())
        elif act == "end_sessions":
            operators.end_sessions(tx, ADA)
        else:
            getattr(operators, act)(tx, ADA, confirm=ADA)
    with pytest.raises(NotFound):
        invitations.accept(world.workspace.store, token, hashed())


def test_an_operator_added_meanwhile_keeps_the_password(world: World) -> None:
    """The link of before makes nobody, and changes nobody."""
    token = invite(world)
    with world.workspace.write() as tx:
        operators.add(tx, ADA, Role.ANALYST, hashed("the password of another"), org_id=world.org_id)
    with pytest.raises(NotFound):
        invitations.accept(world.workspace.store, token, hashed())
    assert open_session(world.workspace.store, ADA, "the password of another", "1.2.3.4")


def test_nobody_invites_above_or_beside_the_own_rights(world: World) -> None:
    """An org admin invites people of the own organisation, an analyst nobody; others' links are not there."""
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Borealis").id
    theirs = invite(world)
    store = world.workspace.store
    with store.write(org_admin(world)) as tx:
        for role, org_id in ((Role.PLATFORM_ADMIN, None), (Role.ANALYST, None), (Role.ANALYST, other)):
            with pytest.raises(Forbidden):
                invitations.invite(tx, "eve@example.com", role, org_id=org_id)
        assert [each.email for each in invitations.list_open(tx)] == [ADA]
    with store.write(org_admin(world, other)) as tx:
        assert invitations.list_open(tx) == []
        with pytest.raises(Conflict, match="invited by others"):
            invitations.invite(tx, ADA, Role.ANALYST, org_id=other)
        with pytest.raises(NotFound):
            invitations.password_link(tx, "boss@example.com")
    with store.write(Actor("eyes@example.com", Role.ANALYST, world.org_id)) as tx:
        with pytest.raises(Forbidden):
            invitations.invite(tx, "eve@example.com", Role.ANALYST, org_id=world.org_id)
        with pytest.raises(Forbidden):
            invitations.list_open(tx)
    assert invitations.accept(store, theirs, hashed()) == ADA


def test_the_store_holds_no_token(world: World) -> None:
    """A copy of it accepts no invitation."""
    token = invite(world)
    with world.workspace.read() as tx:
        (row,) = invitations.list_open(tx)
    assert token not in repr(vars(row))


def test_only_a_hash_is_taken(world: World) -> None:
    """Never the password itself."""
    with pytest.raises(InvalidInput):
        invitations.accept(world.workspace.store, invite(world), PASSWORD)  # type: ignore[arg-type]
