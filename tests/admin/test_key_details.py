"""What people note of keys: kept, searched by, handed over, and judged by nothing."""

import pytest

from tests.conftest import World, usd
from tests.rows import append, row
from toolkit.admin import keys, organisations
from toolkit.core import key_details
from toolkit.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from toolkit.core.policy import Role
from toolkit.reports import spend
from toolkit.store import audit
from toolkit.store.actor import Actor
from toolkit.store.tables import ApiKey
from toolkit.store.transaction import utc_now

pytestmark = pytest.mark.any_store

DETAILS = {"owner": "search team", "environment": "production", "note": "for\nthe site", "labels": ["b", "a=1", "b"]}


def stored(world: World, key_id: str) -> ApiKey:
    with world.workspace.read() as tx:
        return keys.find(tx, key_id)


def test_details_are_kept_and_changed(world: World) -> None:
    """Labels are sorted, each once; the audit log has what was before."""
    key = world.key("app", **DETAILS).key
    assert (key.owner, key.environment, key.note, key.labels) == (
        "search team",
        "production",
        "for\nthe site",
        '["a=1", "b"]',
    )
    with world.workspace.write() as tx:
        keys.update(tx, key.id, owner="", labels=[])
    assert (stored(world, key.id).owner, stored(world, key.id).labels) == ("", "[]")
    with world.workspace.read() as tx:
        act = audit.rows(tx, subject=key.id)[0]
    assert '"owner": "search team"' in str(act.before).replace('":"', '": "')


@pytest.mark.parametrize(
    "details",
    [
        {"owner": "x" * 81},
        {"environment": "x" * 41},
        {"owner": "a\u202eb"},
        {"note": "x" * 501},
        {"labels": ["x" * 61]},
        {"labels": ["a,b"]},
        {"labels": [str(number) for number in range(21)]},
    ],
)
def test_what_cannot_be_shown_is_refused(world: World, details: dict[str, object]) -> None:
    """And nothing is made."""
    with pytest.raises(InvalidInput):
        world.key("app", **details)
    with world.workspace.read() as tx, pytest.raises(NotFound):
        keys.find(tx, "app")


def test_all_keys_of_an_owner_are_handed_over(world: World) -> None:
    """Live ones alone, in one transaction; those of another organisation only by who may."""
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Borealis").id
        keys.create(tx, world.workspace.keyring, org=other, name="theirs", plan=world.plan_id, owner="ada")
    world.key("one", owner="ada")
    world.key("two", owner="ada")
    world.key("three", owner="eve")
    boss = Actor("boss@example.com", Role.ORG_ADMIN, world.org_id)
    with world.workspace.store.write(boss) as tx:
        assert [key.name for key in keys.hand_over(tx, "ada", "grace")] == ["one", "two"]
    with world.workspace.store.write(boss) as tx, pytest.raises(NotFound):
        keys.hand_over(tx, "ada", "grace")
    with world.workspace.write() as tx:
        assert [key.name for key in keys.hand_over(tx, "ada", "grace")] == ["theirs"]
    with (
        world.workspace.store.write(Actor("eyes@example.com", Role.ANALYST, world.org_id)) as tx,
        pytest.raises(Forbidden),
    ):
        keys.hand_over(tx, "eve", "grace")


def test_a_key_that_was_changed_since_it_was_seen_is_left_alone(world: World) -> None:
    """Both values are told; facts that were not asked about may differ."""
    key = world.key("app", monthly_limit=usd(5)).key
    with world.workspace.write() as tx:
        keys.update(tx, key.id, monthly_limit=usd(7), owner="eve")
    with world.workspace.write() as tx, pytest.raises(Conflict, match="monthly limit usd is 7, and was 5"):
        keys.update(tx, key.id, monthly_limit=usd(9), seen={"monthly_limit_usd": "5"})
    with world.workspace.write() as tx:
        keys.update(tx, key.id, monthly_limit=usd(9), seen={"monthly_limit_usd": "7"})
    assert stored(world, key.id).monthly_limit == usd(9)


@pytest.mark.only_store("sqlite")
def test_spend_is_grouped_by_owner_and_environment(world: World) -> None:
    """As they are today, also in rows of before."""
    key, nobodys = world.key("app", owner="ada", environment="production").key, world.key("other").key
    append(world.workspace.store, [row(key, utc_now(), cost=3), row(nobodys, utc_now(), cost=1)])
    world.workspace.ledger.sync()
    with world.workspace.write() as tx:
        keys.update(tx, key.id, owner="grace")
    found = spend.table(world.workspace.ledger, ["owner", "environment"])
    assert found[["owner", "environment", "cost"]].to_numpy().tolist() == [
        ["grace", "production", 3],
        ["(none)", "(none)", 1],
    ]


def test_labels_are_words() -> None:
    """Empty ones are none."""
    assert key_details.check_labels(["", " a ", "b=1"]) == ["a", "b=1"]
