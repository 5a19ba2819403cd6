"""Who may be added as an operator, and that no plain password is kept."""

from typing import Any

import pytest

from toolkit.admin import operators, organisations
from toolkit.core.errors import Conflict, InvalidInput, NotFound
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store
PASSWORD = "correct horse battery"


@pytest.fixture
def orgs(workspace: Workspace) -> tuple[str, str]:
    """The ids of two organisations, Acme and Rival."""
    with workspace.write() as tx:
        return organisations.add(tx, "Acme").id, organisations.add(tx, "Rival").id


def test_an_operator_is_stored_with_a_hash(workspace: Workspace, orgs: tuple[str, str]) -> None:
    """The e-mail is normalised; the password is verified by its hash and found nowhere."""
    with workspace.write() as tx:
        made = operators.add(tx, " Ada@Example.com ", Role.ORG_ADMIN, hash_password(PASSWORD), org_id=orgs[0])
    assert (made.email, made.role, made.org_id) == ("ada@example.com", "org_admin", orgs[0])
    assert PASSWORD not in repr(vars(made))
    assert operators.password_matches(made, PASSWORD)
    assert not operators.password_matches(made, PASSWORD + "!")
    assert not operators.password_matches(None, PASSWORD)


def test_an_e_mail_is_taken_once(workspace: Workspace) -> None:
    """Whatever its case."""
    with workspace.write() as tx:
        operators.add(tx, "root@example.com", Role.PLATFORM_ADMIN, hash_password(PASSWORD))
        with pytest.raises(Conflict):
            operators.add(tx, "ROOT@example.com", Role.ANALYST, hash_password(PASSWORD))


@pytest.mark.parametrize(
    ("role", "of_org"),
    [(Role.ORG_ADMIN, False), ("org_admin", False), (Role.PLATFORM_ADMIN, True), ("platform_admin", True)],
)
def test_a_role_that_does_not_fit_is_refused(
    workspace: Workspace, orgs: tuple[str, str], role: Any, of_org: bool
) -> None:
    """An org admin of nothing would be an admin of all; given as a plain word it is refused just the same."""
    with workspace.write() as tx, pytest.raises(InvalidInput):
        operators.add(tx, "x@example.com", role, hash_password(PASSWORD), org_id=orgs[0] if of_org else None)


def test_an_operator_of_an_organisation_that_is_not_there_is_refused(workspace: Workspace) -> None:
    """The message says so."""
    with workspace.write() as tx, pytest.raises(NotFound, match="no organisation 'org_none'"):
        operators.add(tx, "x@example.com", Role.ANALYST, hash_password(PASSWORD), org_id="org_none")


@pytest.mark.parametrize("email", ["", "x", "@", "a@", "@b", "a b@c", "a@b@c", "a@b\nc", "<a@b>", "x" * 65 + "@b"])
def test_what_is_no_e_mail_is_refused(workspace: Workspace, email: str) -> None:
    """An operator that could never sign in is not made."""
    with workspace.write() as tx, pytest.raises(InvalidInput, match="e-mail address"):
        operators.add(tx, email, Role.PLATFORM_ADMIN, hash_password(PASSWORD))


@pytest.mark.parametrize("password", ["", "short", "aaaaaaaaaaaaaaaa", "abababababab"])
def test_a_weak_password_is_refused(workspace: Workspace, password: str) -> None:
    """No operator is made."""
    with workspace.write() as tx, pytest.raises(InvalidInput):
        operators.add(tx, "x@example.com", Role.PLATFORM_ADMIN, hash_password(password))


@pytest.mark.parametrize("email", ["a\0b@example.com", "\ud800@example.com", "nobody"])
def test_what_can_be_no_address_finds_nobody(workspace: Workspace, email: str) -> None:
    """Whatever is typed into the sign-in form, the store takes it."""
    with workspace.read() as tx:
        assert operators.with_email(tx, email) is None


def test_a_plain_password_is_never_stored(workspace: Workspace) -> None:
    """Where a hash is wanted the password itself is refused, and the message shows nothing of it."""
    plain: Any = PASSWORD
    with workspace.write() as tx:
        with pytest.raises(InvalidInput, match="hash_password") as add:
            operators.add(tx, "y@example.com", Role.PLATFORM_ADMIN, plain)
        operators.add(tx, "y@example.com", Role.PLATFORM_ADMIN, hash_password(PASSWORD))
        with pytest.raises(InvalidInput, match="hash_password"):
            operators.reset_password(tx, "y@example.com", plain)
    assert PASSWORD not in str(add.value)
