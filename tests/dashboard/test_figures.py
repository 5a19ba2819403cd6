"""A view's figures are asked anew when something in it has happened, and not when somebody else's calls end."""

import pytest

from tests.conftest import World, usd
from tests.rows import append, row
from toolkit.admin import keys, organisations, wallet
from toolkit.core.policy import Role
from toolkit.dashboard.figures import View
from toolkit.store.actor import Actor
from toolkit.store.tables import ApiKey, Organisation


@pytest.fixture
def theirs(world: World) -> ApiKey:
    """A key of another organisation."""
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Other").id
        wallet.credit(tx, other, usd(5), "their payment")
        return keys.create(tx, world.workspace.keyring, org=other, name="theirs", plan=world.plan_id).key


def call(world: World, key: ApiKey) -> None:
    """Let a call of a key end."""
    append(world.workspace.store, [row(key, cost=7)])
    with world.workspace.write() as tx:
        tx.session.get_one(Organisation, key.org_id).settled += 7


def test_calls_of_others_leave_a_view_as_it_is(world: World, theirs: ApiKey) -> None:
    """For an organisation that a platform admin looks at, and for one whose own analyst looks."""
    analyst = world.workspace.acting_as(Actor("analyst@acme.example", Role.ANALYST, world.org_id))
    before = View.of(world.workspace, world.org_id), View.of(analyst, None)
    call(world, theirs)
    assert (View.of(world.workspace, world.org_id), View.of(analyst, None)) == before


def test_a_call_of_its_own_changes_a_view(world: World, theirs: ApiKey) -> None:
    """And so does any call where all organisations are looked at."""
    mine = world.key("mine").key
    one, whole = View.of(world.workspace, world.org_id), View.of(world.workspace, None)
    call(world, mine)
    assert View.of(world.workspace, world.org_id) != one
    assert View.of(world.workspace, None) != whole
    whole = View.of(world.workspace, None)
    call(world, theirs)
    assert View.of(world.workspace, None) != whole
