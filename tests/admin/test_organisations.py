"""Organisations: who sees them, who may add, rename and suspend them, and that their names are unique."""

import pytest

from tests.conftest import at_once
from toolkit.admin import operators, organisations
from toolkit.core.errors import Conflict, Forbidden, NotConfirmed, NotFound
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role
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
