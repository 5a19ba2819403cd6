"""Who may disable, enable, remove and re-role whom, and that nobody goes on with rights that are gone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import select

from tests.conftest import ADMIN, at_once
from toolkit.admin import operators, organisations, sessions
from toolkit.admin.sign_in import open_session
from toolkit.core import words
from toolkit.core.errors import Conflict, Forbidden, InvalidInput, NotConfirmed, NotFound, SignInFailed
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role
from toolkit.store import audit
from toolkit.store.actor import Actor
from toolkit.store.tables import AuditRow, Operator, SignInSession
from toolkit.store.transaction import Transaction
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store

PASSWORD = "correct horse battery"
ROOT, BOSS = "root@example.com", "boss@example.com"
ADA, ANN, EVE = "ada@acme.example", "ann@acme.example", "eve@rival.example"


@dataclass(frozen=True)
class Staff:
    """Two platform admins; Acme with an admin and an analyst; Rival with an admin."""

    workspace: Workspace
    acme: str
    rival: str

    def acting(self, email: str) -> Workspace:
        """Return Keydesk as somebody who has signed in."""
        with self.workspace.read() as tx:
            operator = operators.find(tx, email)
        return self.workspace.acting_as(Actor(email, Role(operator.role), operator.org_id))

    def sign_in(self, email: str) -> str:
        """Sign somebody in; return the session's id."""
        return open_session(self.workspace.store, email, PASSWORD, "192.0.2.1")

    def last_act(self) -> AuditRow:
        """Return the newest row of the audit log."""
        with self.workspace.read() as tx:
            return audit.rows(tx, limit=1)[0]


@pytest.fixture
def staff(workspace: Workspace) -> Staff:
    """Operators of the platform and of two organisations."""
    with workspace.write() as tx:
        acme, rival = organisations.add(tx, "Acme").id, organisations.add(tx, "Rival").id
        for email in (ROOT, BOSS):
            operators.add(tx, email, Role.PLATFORM_ADMIN, hash_password(PASSWORD))
        operators.add(tx, ADA, Role.ORG_ADMIN, hash_password(PASSWORD), org_id=acme)
        operators.add(tx, ANN, Role.ANALYST, hash_password(PASSWORD), org_id=acme)
        operators.add(tx, EVE, Role.ORG_ADMIN, hash_password(PASSWORD), org_id=rival)
    return Staff(workspace, acme, rival)


Verb = Callable[[Transaction, str], object]

VERBS: dict[str, Verb] = {
    "reset_password": lambda tx, email: operators.reset_password(tx, email, hash_password("another long password")),
    "disable": lambda tx, email: operators.disable(tx, email, confirm=email),
    "enable": lambda tx, email: operators.enable(tx, email, confirm=email),
    "remove": lambda tx, email: operators.remove(tx, email, confirm=email),
    "set_role": lambda tx, email: operators.set_role(tx, email, Role.ANALYST, confirm=email),
}
"""Every verb that changes an operator."""

ENDING = ["reset_password", "disable", "remove", "set_role"]
"""Those after which nobody goes on with the sessions there were."""


@pytest.mark.parametrize("verb", VERBS)
def test_an_org_admin_changes_nobody_elsewhere(staff: Staff, verb: str) -> None:
    """People of another organisation and of the platform are not told from people whom there are not."""
    for email in (EVE, ROOT, "nobody@example.com"):
        with staff.acting(ADA).write() as tx, pytest.raises(NotFound, match=f"There is no operator {email}"):
            VERBS[verb](tx, email)


@pytest.mark.parametrize("verb", VERBS)
def test_an_analyst_changes_nobody(staff: Staff, verb: str) -> None:
    """Neither people of the own organisation nor others, and learns of none."""
    for email in (ADA, EVE, "nobody@example.com"):
        with staff.acting(ANN).write() as tx, pytest.raises(Forbidden):
            VERBS[verb](tx, email)
    with staff.acting(ANN).read() as tx, pytest.raises(Forbidden):
        operators.list_all(tx)


def test_an_org_admin_lists_the_own_organisations_people(staff: Staff) -> None:
    """The platform's and others' are left out."""
    with staff.acting(ADA).read() as tx:
        assert [operator.email for operator in operators.list_all(tx)] == [ADA, ANN]


def test_an_org_admin_manages_the_own_organisations_people(staff: Staff) -> None:
    """Add, re-role, disable, enable, reset and remove, each with its row in the organisation's chain."""
    with staff.acting(ADA).write() as tx:
        operators.add(tx, "new@acme.example", Role.ANALYST, hash_password(PASSWORD), org_id=staff.acme)
        operators.set_role(tx, "new@acme.example", Role.ORG_ADMIN, confirm="new@acme.example", reason="promoted")
        operators.disable(tx, "new@acme.example", confirm="new@acme.example")
        operators.enable(tx, "new@acme.example", confirm="new@acme.example")
        operators.reset_password(tx, "new@acme.example", hash_password("another long password"))
        operators.remove(tx, "new@acme.example", confirm="new@acme.example", reason="left")
    with staff.acting(ADA).read() as tx:
        acts = [(row.action, row.actor, row.reason) for row in audit.rows(tx, limit=6)]
        assert audit.verify(tx) == []
    assert acts == [
        ("operator.remove", ADA, "left"),
        ("operator.reset_password", ADA, ""),
        ("operator.enable", ADA, ""),
        ("operator.disable", ADA, ""),
        ("operator.set_role", ADA, "promoted"),
        ("operator.add", ADA, ""),
    ]


def test_an_org_admin_gives_no_role_beyond_the_own_organisation(staff: Staff) -> None:
    """Nobody becomes a platform admin, or somebody of another organisation, by an org admin's word."""
    for role, org_id in ((Role.PLATFORM_ADMIN, None), (Role.ORG_ADMIN, staff.rival), (Role.ANALYST, staff.rival)):
        with staff.acting(ADA).write() as tx, pytest.raises(Forbidden):
            operators.set_role(tx, ANN, role, org_id=org_id, confirm=ANN)


@pytest.mark.parametrize("verb", ["disable", "enable", "remove", "set_role"])
@pytest.mark.parametrize("email", [ROOT, ADA])
def test_nobody_changes_themselves(staff: Staff, verb: str, email: str) -> None:
    """Signed in, or in their name by a process that holds the store."""
    for workspace in (staff.acting(email), staff.workspace.acting_as(Actor.trusted(email))):
        with workspace.write() as tx, pytest.raises(Forbidden, match="Ask another admin"):
            VERBS[verb](tx, email)


@pytest.mark.parametrize("verb", ["disable", "remove", "set_role"])
def test_the_last_platform_admin_stays(staff: Staff, verb: str) -> None:
    """Even the machine's own user cannot lock everybody out; a disabled admin does not count as one."""
    with staff.workspace.write() as tx:
        operators.disable(tx, BOSS, confirm=BOSS)
    with staff.workspace.write() as tx, pytest.raises(Conflict, match="the last platform admin"):
        VERBS[verb](tx, ROOT)
    with staff.workspace.write() as tx:
        operators.enable(tx, BOSS, confirm=BOSS)
    with staff.workspace.write() as tx:
        VERBS[verb](tx, ROOT)


@pytest.mark.both_stores
@pytest.mark.parametrize("verb", ["disable", "remove", "set_role"])
def test_two_admins_who_shut_each_other_out_at_once_leave_one(staff: Staff, verb: str) -> None:
    """Whichever comes second is told that the other is the last."""

    def shut_out(actor: str, email: str) -> Callable[[], object]:
        workspace = staff.acting(actor)

        def act() -> None:
            with workspace.write() as tx:
                VERBS[verb](tx, email)

        return act

    results = at_once(shut_out(ROOT, BOSS), shut_out(BOSS, ROOT))
    assert results.count(None) == 1
    assert {type(result) for result in results} == {type(None), Conflict}
    with staff.workspace.read() as tx:
        left = [
            operator.email
            for operator in operators.list_all(tx)
            if operator.role == Role.PLATFORM_ADMIN and operator.disabled_at is None
        ]
    assert len(left) == 1


@pytest.mark.parametrize("verb", ENDING)
def test_sessions_end_with_the_change(staff: Staff, verb: str) -> None:
    """In the same transaction: one that fails after it ends none, one that commits ends all."""
    session = staff.sign_in(ADA)
    with pytest.raises(InvalidInput), staff.workspace.write() as tx:  # noqa: PT012 - the transaction is what fails
        VERBS[verb](tx, ADA)
        words.check_name("", "name")
    assert sessions.find(staff.workspace.store, session) is not None
    with staff.workspace.write() as tx:
        VERBS[verb](tx, ADA)
    assert sessions.find(staff.workspace.store, session) is None
    with staff.workspace.read() as tx:
        assert tx.session.scalars(select(SignInSession).where(SignInSession.ended_at.is_(None))).all() == []


def test_a_disabled_operator_is_told_what_a_wrong_password_is_told(staff: Staff) -> None:
    """And comes in again, with the same password, once enabled."""
    with pytest.raises(SignInFailed) as wrong:
        open_session(staff.workspace.store, ADA, "wrong password", "192.0.2.1")
    with staff.workspace.write() as tx:
        operators.disable(tx, ADA, confirm=ADA)
    with pytest.raises(SignInFailed) as disabled:
        staff.sign_in(ADA)
    assert str(disabled.value) == str(wrong.value)
    with staff.workspace.write() as tx:
        operators.enable(tx, ADA, confirm=ADA)
    assert staff.sign_in(ADA)


@pytest.mark.parametrize("verb", ENDING)
def test_a_change_during_the_sign_in_wins(staff: Staff, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """Between the password's check and the session nobody slips through with what they were."""
    real = operators.password_matches

    def change_meanwhile(operator: Operator | None, password: str) -> bool:
        matches = real(operator, password)
        with staff.workspace.write() as tx:
            VERBS[verb](tx, ADA)
        return matches

    monkeypatch.setattr(operators, "password_matches", change_meanwhile)
    with pytest.raises(SignInFailed):
        staff.sign_in(ADA)


def test_a_session_of_somebody_disabled_by_hand_is_nobodys(staff: Staff) -> None:
    """Whoever set the column, and whatever became of the sessions."""
    session = staff.sign_in(ADA)
    with staff.workspace.write() as tx:
        operators.find(tx, ADA).disabled_at = tx.now
    assert sessions.find(staff.workspace.store, session) is None


@pytest.mark.parametrize("verb", ["disable", "enable", "remove"])
def test_the_change_must_be_confirmed(staff: Staff, verb: str) -> None:
    """By the e-mail itself; nothing happens otherwise."""
    with staff.workspace.write() as tx, pytest.raises(NotConfirmed, match="Nothing was changed"):
        getattr(operators, verb)(tx, ADA, confirm="ada")
    with staff.workspace.write() as tx, pytest.raises(NotConfirmed):
        operators.set_role(tx, ADA, Role.ANALYST, confirm="yes")
    assert staff.sign_in(ADA)


def test_what_is_so_already_is_a_conflict(staff: Staff) -> None:
    """The message says what is."""
    with staff.workspace.write() as tx:
        with pytest.raises(Conflict, match="is not disabled"):
            operators.enable(tx, ADA, confirm=ADA)
        with pytest.raises(Conflict, match="is org_admin already"):
            operators.set_role(tx, ADA, Role.ORG_ADMIN, confirm=ADA)
        operators.disable(tx, ADA, confirm=ADA)
        with pytest.raises(Conflict, match="already disabled"):
            operators.disable(tx, ADA, confirm=ADA)


def test_a_removed_operator_stays_named_and_may_come_back(staff: Staff) -> None:
    """The audit log names them in what they did and in their removal; the e-mail is free for a new operator."""
    session = staff.sign_in(ADA)
    with staff.workspace.write() as tx:
        gone = operators.remove(tx, ADA, confirm=ADA, reason="left")
        assert operators.with_email(tx, ADA) is None
    with staff.workspace.read() as tx:
        row, *earlier = [row for row in audit.rows(tx) if row.subject == gone.id]
        assert ADA in {row.actor for row in earlier}
    assert (row.action, row.before, row.after) == (
        "operator.remove",
        f'{{"email": "{ADA}", "role": "org_admin"}}',
        None,
    )
    with staff.workspace.write() as tx:
        back = operators.add(tx, ADA, Role.ANALYST, hash_password(PASSWORD), org_id=staff.acme)
    assert back.id != gone.id
    assert sessions.find(staff.workspace.store, session) is None


def test_a_move_is_told_to_both_organisations(staff: Staff) -> None:
    """Those who lose and those who gain somebody read it in their own chain."""
    with staff.workspace.write() as tx:
        operators.set_role(tx, EVE, Role.ANALYST, org_id=staff.acme, confirm=EVE)
        rows = [row for row in audit.rows(tx) if row.action == "operator.set_role"]
    assert {row.chain for row in rows} == {staff.acme, staff.rival}
    with staff.acting(ADA).read() as tx:
        assert operators.find(tx, EVE).org_id == staff.acme


@pytest.mark.parametrize(
    ("email", "role", "of_acme", "error"),
    [(BOSS, Role.ORG_ADMIN, False, InvalidInput), (ADA, Role.PLATFORM_ADMIN, True, InvalidInput)],
)
def test_a_role_that_does_not_fit_is_refused(
    staff: Staff, email: str, role: Role, of_acme: bool, error: type[Exception]
) -> None:
    """An org admin of none would be one of all; a platform admin belongs to none."""
    with staff.workspace.write() as tx, pytest.raises(error):
        operators.set_role(tx, email, role, org_id=staff.acme if of_acme else None, confirm=email)


def test_a_platform_admin_of_no_organisation_any_more_keeps_none(staff: Staff) -> None:
    """Who becomes a platform admin leaves the organisation."""
    with staff.workspace.write() as tx:
        made: Any = operators.set_role(tx, ADA, Role.PLATFORM_ADMIN, confirm=ADA)
    assert (made.role, made.org_id) == ("platform_admin", None)
    assert staff.last_act().actor == ADMIN.name
