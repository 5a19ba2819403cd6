"""Health: what is alive, how the stores stand, and what is said where something is missing."""

from datetime import timedelta

import pytest

from tests.conftest import Run, World
from toolkit import environment
from toolkit.alerts import queue
from toolkit.billing import leases
from toolkit.checks import health, reconcile
from toolkit.core.errors import Forbidden
from toolkit.core.policy import Role
from toolkit.store import steps
from toolkit.store.actor import Actor

pytestmark = pytest.mark.any_store


def test_what_is_missing_is_said_with_what_to_do(world: World) -> None:
    """Nothing runs in a new store; a gateway, a sender of alerts and a reconciliation end the complaints."""
    found = health.read(world.workspace.ledger)
    assert [fault.partition(":")[0] for fault in found.faults] == [
        "No gateway runs, so no call is answered",
        "Nobody sends alerts",
        "The books were never reconciled",
    ]
    with world.workspace.write() as tx:
        leases.renew(tx, "instance_a", timedelta(minutes=1), environment.version())
        queue.take_lease(tx, "runner_a", timedelta(minutes=1))
    reconcile.run(world.workspace)
    found = health.read(world.workspace.ledger)
    assert found.faults == []
    assert [(each.id, each.version, each.alive) for each in found.gateways] == [
        ("instance_a", environment.version(), True)
    ]
    assert (found.store.schema, found.store.size > 0) == (steps.STEPS[-1].version, True)
    assert {"duckdb", "streamlit", "psycopg"} <= found.packages.keys()
    with world.workspace.write() as tx:
        leases.renew(tx, "instance_b", timedelta(minutes=1), "0.0.9")
    assert "the same version" in health.read(world.workspace.ledger).faults[0]


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_it_is_for_platform_admins_alone(world: World, role: Role) -> None:
    """Of one organisation or of none."""
    actor = Actor("ann@example.com", role, None if role is Role.ANALYST else world.org_id)
    with pytest.raises(Forbidden):
        health.read(world.workspace.acting_as(actor).ledger)


def test_the_command_says_it_too(run: Run, world: World) -> None:
    """To people and as JSON; the settings with where they come from."""
    shown = run("health")
    assert "Nobody sends alerts" in shown.output
    assert "schema" in shown.output
    assert '"faults"' in run("health", "--json").output
    assert "KEYDESK_DATA_DIR" in run("health", "--settings").output
