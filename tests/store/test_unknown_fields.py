"""Unknown fields in the key store: counts add up, callers cannot fill it, and old names make room."""

from datetime import timedelta

import pytest

from tests.conftest import World
from toolkit.admin import plans
from toolkit.admin.upstreams import update_upstream
from toolkit.core.secrets import new_secret
from toolkit.core.unknown_fields import UnknownFields
from toolkit.store import unknown_fields
from toolkit.store.actor import SYSTEM
from toolkit.store.tally import Tallies
from toolkit.store.unknown_fields import KEPT, MOST_NAMES, OTHER, Seen

pytestmark = pytest.mark.both_stores

UPSTREAM = "test-openai"


def note(world: World, *names: str, times: int = 1, plan: str | None = None, ago: timedelta = timedelta()) -> None:
    """Count that calls had these names, as a gateway of its own does."""
    tallies = Tallies(world.workspace.store)
    tally = tallies.tally(unknown_fields.add)
    with world.workspace.read() as tx:
        at = tx.now - ago
    for name in names:
        tally.count((UPSTREAM, plan or world.plan_id, name), at, times)
    tallies.flush()


def seen(world: World) -> list[Seen]:
    """Return what the store has."""
    with world.workspace.store.read(SYSTEM) as tx:
        return unknown_fields.seen(tx)


def test_counts_of_several_gateways_add_up(world: World) -> None:
    """By plan and name; first and last are kept."""
    with world.workspace.write() as tx:
        other = plans.add(tx, "gold", 10**6, ["gpt-test"]).id
    note(world, "fooBar", times=3, ago=timedelta(days=2))
    note(world, "fooBar", "bar", times=2)
    note(world, "fooBar", plan=other)
    assert [(row.plan, row.name, row.times) for row in seen(world)] == [
        ("standard", "fooBar", 5),
        ("standard", "bar", 2),
        ("gold", "fooBar", 1),
    ]
    first = seen(world)[0]
    assert timedelta(days=2) <= first.last_at - first.first_at < timedelta(days=3)


def test_names_of_an_upstream_have_an_end(world: World) -> None:
    """What comes beyond is counted under one name; those that are there go on to be counted."""
    note(world, *[f"name {number:03}" for number in range(MOST_NAMES + 20)])
    note(world, "name 000", "another", times=5)
    rows = {row.name: row.times for row in seen(world)}
    assert len(rows) == MOST_NAMES + 1
    assert (rows["name 000"], rows[OTHER]) == (6, 25)


def test_names_that_are_not_seen_any_more_make_room(world: World) -> None:
    """After `KEPT`; so made-up names do not hide real ones for ever."""
    note(world, *[f"name {number}" for number in range(MOST_NAMES)], ago=KEPT + timedelta(minutes=1))
    note(world, "fooBar")
    assert [row.name for row in seen(world)] == ["fooBar"]


def test_a_secret_in_a_name_is_not_kept(world: World) -> None:
    """Only its display form is, as everywhere."""
    secret = new_secret()
    note(world, secret)
    (row,) = seen(world)
    assert secret not in row.name
    assert secret[-4:] in row.name


def test_what_becomes_of_a_name_is_the_stricter_of_both(world: World) -> None:
    """As upstream and plan have it now."""
    note(world, "fooBar")
    assert seen(world)[0].treatment is UnknownFields.PASS
    with world.workspace.write() as tx:
        update_upstream(tx, UPSTREAM, unknown_fields=UnknownFields.LEAVE_OUT)
        plans.update(tx, world.plan_id, unknown_fields=UnknownFields.REFUSE)
    assert seen(world)[0].treatment is UnknownFields.REFUSE
