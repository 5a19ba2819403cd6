"""Organisations and operators, and who may see or make them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import at_once
from toolkit.admin import operators, organisations
from toolkit.core.errors import Conflict, Forbidden, InvalidInput, NotConfirmed, NotFound
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role
from toolkit.core.words import check_name
from toolkit.store import audit
from toolkit.store.actor import Actor
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store

PASSWORD = "correct horse battery"


def acting(workspace: Workspace, role: Role, org_id: str | None = None) -> Workspace:
    """Return the workspace with another actor."""
    return workspace.acting_as(Actor("x@example.com", role, org_id))


@pytest.fixture
def orgs(workspace: Workspace) -> tuple[str, str]:
    """The ids of two organisations, Acme and Rival."""
    with workspace.write() as tx:
        return organisations.add(tx, "Acme").id, organisations.add(tx, "Rival").id


def test_an_organisation_is_found_by_id_and_name(workspace: Workspace, orgs: tuple[str, str]) -> None:
    """Either finds the same one; its wallet starts empty."""
    with workspace.read() as tx:
        found = [organisations.find(tx, wanted) for wanted in (orgs[0], "Acme")]
    assert [(org.id, org.balance, org.available, org.suspended) for org in found] == [(orgs[0], 0, 0, False)] * 2


def test_an_organisation_named_like_anothers_id_does_not_shadow_it(workspace: Workspace, orgs: tuple[str, str]) -> None:
    """An id always means the organisation that has it."""
    with workspace.write() as tx:
        impostor = organisations.add(tx, orgs[0])
        assert organisations.find(tx, orgs[0]).name == "Acme"
        assert organisations.find(tx, impostor.id).name == orgs[0]


@pytest.mark.parametrize("name", [" Acme ", "ACME", "acme", "\uff21cme"])
def test_names_of_organisations_are_unique(workspace: Workspace, orgs: tuple[str, str], name: str) -> None:
    """With or without spaces around them, whatever the case or width of their letters; to add and to rename."""
    with workspace.write() as tx:
        with pytest.raises(Conflict, match="already an organisation named 'Acme'"):
            organisations.add(tx, name)
        with pytest.raises(Conflict, match="already an organisation named 'Acme'"):
            organisations.rename(tx, "Rival", name)


def test_case_is_unicodes(workspace: Workspace) -> None:
    """Not only that of ASCII."""
    with workspace.write() as tx:
        organisations.add(tx, "Straße")
        with pytest.raises(Conflict):
            organisations.add(tx, "STRASSE")


def test_an_organisation_is_renamed(workspace: Workspace, orgs: tuple[str, str]) -> None:
    """It is found by its new name and by its id; its own name in another case is no other's. The log tells of it."""
    with workspace.write() as tx:
        organisations.rename(tx, "Acme", "ACME", reason="as they write it")
        organisations.rename(tx, orgs[0], "ACME")
    with workspace.read() as tx:
        assert organisations.find(tx, "ACME").id == orgs[0]
        row, *others = audit.rows(tx, subject=orgs[0])
    assert (row.action, row.before, row.after, row.reason) == (
        "org.rename",
        '{"name": "Acme"}',
        '{"name": "ACME"}',
        "as they write it",
    )
    assert [other.action for other in others] == ["org.add"]


def test_an_organisation_is_suspended_and_resumed(workspace: Workspace, orgs: tuple[str, str]) -> None:
    """Once confirmed by its name; each has its row in the organisation's chain, and twice is a conflict."""
    with workspace.write() as tx:
        with pytest.raises(NotConfirmed):
            organisations.suspend(tx, "Acme", confirm="acme")
        assert organisations.suspend(tx, "Acme", confirm="Acme", reason="unpaid").suspended
        with pytest.raises(Conflict, match="already suspended"):
            organisations.suspend(tx, "Acme", confirm="Acme")
        assert not organisations.resume(tx, orgs[0], confirm="Acme").suspended
        with pytest.raises(Conflict, match="not suspended"):
            organisations.resume(tx, "Acme", confirm="Acme")
    with acting(workspace, Role.ORG_ADMIN, orgs[0]).read() as tx:
        acts = [(row.action, row.reason) for row in audit.rows(tx, subject=orgs[0])]
    assert acts == [("org.resume", ""), ("org.suspend", "unpaid"), ("org.add", "")]


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_an_organisation_sees_itself_only(workspace: Workspace, orgs: tuple[str, str], role: Role) -> None:
    """Another one is not found, by id or name, in the words used for one that does not exist."""
    with acting(workspace, role, orgs[0]).read() as tx:
        assert [org.name for org in organisations.list_all(tx)] == ["Acme"]
        for wanted in (orgs[1], "Rival", "Nobody"):
            with pytest.raises(NotFound, match="No organisation is named"):
                organisations.find(tx, wanted)


def test_an_analyst_of_all_sees_all(workspace: Workspace, orgs: tuple[str, str]) -> None:
    """Given no organisation, an analyst reads every one."""
    with acting(workspace, Role.ANALYST).read() as tx:
        assert [org.name for org in organisations.list_all(tx)] == ["Acme", "Rival"]


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_only_the_platform_changes_organisations_and_lets_in_others(
    workspace: Workspace, orgs: tuple[str, str], role: Role
) -> None:
    """Nobody else adds, renames or suspends one, the own included, or adds people of another or of none."""
    with acting(workspace, role, orgs[0]).write() as tx:
        for act in (
            lambda: organisations.add(tx, "Mine"),
            lambda: organisations.rename(tx, "Acme", "Mine"),
            lambda: organisations.suspend(tx, "Acme", confirm="Acme"),
            lambda: organisations.resume(tx, "Acme", confirm="Acme"),
            lambda: organisations.suspend(tx, "Rival", confirm="Rival"),
            lambda: operators.add(tx, "me@example.com", Role.ANALYST, hash_password(PASSWORD), org_id=orgs[1]),
            lambda: operators.add(tx, "me@example.com", Role.ANALYST, hash_password(PASSWORD)),
            lambda: operators.add(tx, "me@example.com", Role.PLATFORM_ADMIN, hash_password(PASSWORD)),
        ):
            with pytest.raises(Forbidden):
                act()


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


@given(st.text(max_size=90))
def test_a_name_is_clean_or_refused(text: str) -> None:
    """What passes has 1 to 80 printable characters, no space around it, and passes again unchanged."""
    try:
        name = check_name(text, "name")
    except InvalidInput:
        return
    assert 1 <= len(name) <= 80
    assert name == name.strip()
    assert name.isprintable()
    assert check_name(name, "name") == name


@pytest.mark.both_stores
def test_a_name_that_many_take_at_once_is_taken_once(workspace: Workspace) -> None:
    """One gets it; the others are told what they would be told later."""

    def add() -> None:
        with workspace.write() as tx:
            organisations.add(tx, "Acme")

    names = iter(["Umbrella", "UMBRELLA", "umbrella", "umbrellA", "uMBRELLa", "UmbrellA"])

    def add_in_another_case() -> None:
        with workspace.write() as tx:
            organisations.add(tx, next(names))

    def add_operator() -> None:
        with workspace.write() as tx:
            operators.add(tx, "ada@example.com", Role.PLATFORM_ADMIN, hash_password(PASSWORD))

    for act in (add, add_in_another_case, add_operator):
        results = at_once(*[act] * 6)
        assert results.count(None) == 1
        assert {type(result) for result in results if result is not None} == {Conflict}


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
