"""An actor of one organisation sees its rows alone."""

# ruff: noqa: F401 - fixtures are imported, and are arguments of tests

import pytest

from tests.conftest import World
from tests.ledgers import bucket, bucket_server, ledger, root, store
from tests.rows import append, row
from toolkit.admin import keys, organisations
from toolkit.core.policy import Role
from toolkit.store.actor import Actor
from toolkit.store.tables import RefusalCount

pytestmark = pytest.mark.both_stores


@pytest.mark.parametrize("drained", [False, True])
def test_actor_of_one_org_sees_only_its_rows(world: World, drained: bool) -> None:
    """An actor of one organisation finds no other's rows, keys, organisations or refusals, drained or not."""
    mine = world.key().key
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Globex")
        theirs = keys.create(tx, world.workspace.keyring, org=other.id, name="secret-project", plan=world.plan_id).key
        for key in (mine, theirs):
            tx.session.add(RefusalCount(key_id=key.id, refusal="unauthorized", minute=1, refused=1))
    append(world.workspace.store, [row(mine, cost=1), row(theirs, cost=10)])
    if drained:
        world.workspace.ledger.sync()
    seen = world.workspace.acting_as(Actor("boss@acme.example", Role.ORG_ADMIN, world.org_id)).ledger
    assert seen.sql("SELECT key_id, cost FROM usage").to_pylist() == [{"key_id": mine.id, "cost": 1}]
    assert seen.sql("SELECT id FROM keys").column(0).to_pylist() == [mine.id]
    assert seen.sql("SELECT id FROM orgs").column(0).to_pylist() == [world.org_id]
    for view in ("refusal_counts", "holds", "key_months", "wallet_entries"):
        owners = {str(value) for found in seen.sql(f"SELECT * FROM {view}").to_pylist() for value in found.values()}
        assert not owners & {theirs.id, other.id}, view
    assert seen.sql("SELECT key_id FROM refusal_counts").column(0).to_pylist() == [mine.id]
