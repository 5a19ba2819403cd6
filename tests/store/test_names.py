"""The ledger's rows bear the present names, which are read anew only when one has changed."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event, text

from tests.conftest import World
from tests.rows import append, row
from toolkit.admin import keys, organisations
from toolkit.core.policy import Role
from toolkit.store import names
from toolkit.store.actor import Actor
from toolkit.store.tables import ApiKey

pytestmark = pytest.mark.any_store


@pytest.fixture
def app(world: World) -> ApiKey:
    """A key with a call."""
    key = world.key("app").key
    append(world.workspace.store, [row(key, cost=1)])
    return key


@contextmanager
def statements(world: World) -> Iterator[list[str]]:
    """What the key store is asked while the block lasts."""
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        asked.append(statement)

    event.listen(world.workspace.store.engine, "before_cursor_execute", note)
    yield asked
    event.remove(world.workspace.store.engine, "before_cursor_execute", note)


def label(world: World, actor: Actor | None = None) -> list[tuple[str, str]]:
    """Return what the call's key and organisation are called."""
    workspace = world.workspace.acting_as(actor) if actor else world.workspace
    found = workspace.ledger.sql("SELECT key_label, org FROM usage").to_pylist()
    return [(row["key_label"], row["org"]) for row in found]


def test_names_are_read_once(world: World, app: ApiKey) -> None:
    """The second question about calls asks for no key's name; how many keys there are changes nothing about that."""
    assert label(world) == [("app", "Acme")]
    with statements(world) as asked:
        assert label(world) == [("app", "Acme")]
    assert not [statement for statement in asked if "api_key.name" in statement]


def test_a_change_shows_at_the_next_question(world: World, app: ApiKey) -> None:
    """A deleted key is marked, a new one named, and another organisation's name is the present one."""
    assert label(world) == [("app", "Acme")]
    with world.workspace.write() as tx:
        keys.delete(tx, app.id, confirm="app")
    assert label(world) == [("app (deleted)", "Acme")]
    with world.workspace.write() as tx:
        tx.session.execute(text("UPDATE organisation SET name = 'Apex' WHERE name = 'Acme'"))
    assert label(world) == [("app (deleted)", "Apex")]
    append(world.workspace.store, [row(world.key("later").key)])
    assert sorted(label(world)) == [("app (deleted)", "Apex"), ("later", "Apex")]


def test_an_organisation_gets_its_own_names_alone(world: World, app: ApiKey) -> None:
    """What is kept for the platform is not given to an analyst of one organisation."""
    label(world)
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Other").id
    analyst = Actor("analyst@other.example", Role.ANALYST, other)
    with world.workspace.store.read(analyst) as tx:
        assert names.read(world.workspace.store, tx).keys.num_rows == 0
