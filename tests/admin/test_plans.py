"""Plans: what they include and what they multiply by."""

from functools import partial
from typing import Any

import pytest

from tests.conftest import World, at_once
from toolkit.admin import catalog, keys, plans
from toolkit.admin.key_summaries import summaries
from toolkit.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from toolkit.core.hosted_tools import HostedTools
from toolkit.core.policy import Role
from toolkit.core.pricing import MILLION
from toolkit.store import audit
from toolkit.store.actor import Actor

pytestmark = pytest.mark.any_store


def test_a_plan_has_its_models_and_multiplier(world: World) -> None:
    """Models are listed sorted and once; the audit row shows the multiplier for people."""
    with world.workspace.write() as tx:
        made = plans.add(tx, " gold ", 1_500_000, ["gpt-test", "claude-test", "gpt-test"])
        assert plans.models(tx, made.id) == ["claude-test", "gpt-test"]
        assert [plan.name for plan in plans.list_all(tx)] == ["gold", "standard"]
        (act,) = audit.rows(tx, subject=made.id)
    assert act.after == '{"models": ["claude-test", "gpt-test"], "multiplier": "1.50×", "name": "gold"}'


def test_a_plan_is_found_by_id_and_name(world: World) -> None:
    """An unknown one is not found, by either."""
    with world.workspace.read() as tx:
        assert plans.find(tx, "standard").id == plans.find(tx, world.plan_id).id == world.plan_id
        with pytest.raises(NotFound, match="no plan named 'gold'"):
            plans.find(tx, "gold")


def test_an_id_finds_the_plan_that_has_it(world: World) -> None:
    """Whatever other plans are named."""
    with world.workspace.write() as tx:
        plans.add(tx, world.plan_id, 0, ["gpt-test"])
        assert plans.find(tx, world.plan_id).name == "standard"


@pytest.mark.parametrize("multiplier", [-1, 1000 * MILLION + 1, 1.25, True, "1.25", None])
def test_a_multiplier_that_is_none_is_refused(world: World, multiplier: Any) -> None:
    """Negative, absurd or inexact: nothing that would pay callers or make a float of money."""
    with world.workspace.write() as tx, pytest.raises(InvalidInput, match="multiplier"):
        plans.add(tx, "gold", multiplier, ["gpt-test"])


def test_a_plan_leaves_hosted_tools_out_or_refuses_them(world: World) -> None:
    """The catalog has it for gateways, and the audit log tells the change; they cannot be allowed without a price."""
    with world.workspace.write() as tx:
        made = plans.add(tx, "gold", MILLION, ["gpt-test"])
        before = catalog.load(tx)
        plans.update(tx, "gold", hosted_tools=HostedTools.REFUSE)
        after = catalog.load(tx)
        assert (before.plans[made.id].hosted_tools, after.plans[made.id].hosted_tools) == ("leave_out", "refuse")
        assert after.version > before.version
        assert '"hosted_tools": "refuse"' in str(audit.rows(tx, subject=made.id)[0].after)
        for change in (partial(plans.update, tx, "gold"), partial(plans.add, tx, "new", MILLION, ["gpt-test"])):
            with pytest.raises(InvalidInput, match="cannot be allowed yet"):
                change(hosted_tools=HostedTools.ALLOW)


def test_a_plan_needs_models_that_exist(world: World) -> None:
    """None, or unknown ones, are refused, and no half of a plan stays."""
    with world.workspace.write() as tx:
        with pytest.raises(InvalidInput, match="at least one model"):
            plans.add(tx, "gold", MILLION, [])
        with pytest.raises(NotFound, match="no model 'gpt-9'"):
            plans.add(tx, "gold", MILLION, ["gpt-test", "gpt-9"])
        assert [plan.name for plan in plans.list_all(tx)] == ["standard"]


def test_a_plans_name_is_taken_once(world: World) -> None:
    """The message names it."""
    with world.workspace.write() as tx, pytest.raises(Conflict, match="'standard'"):
        plans.add(tx, "standard", MILLION, ["gpt-test"])


def test_a_plan_is_changed_for_every_gateway(world: World) -> None:
    """What is given changes, the rest stays, the catalog has a new version, and the audit row has before and after."""
    with world.workspace.write() as tx:
        made = plans.add(tx, "gold", MILLION, ["gpt-test", "claude-test"])
        before = catalog.load(tx).version
        plans.update(tx, "gold", multiplier=2 * MILLION)
        plans.update(tx, made.id, models=["other-test", "gpt-test"])
        now = catalog.load(tx)
        acts = [act for act in audit.rows(tx, subject=made.id) if act.action == "plan.update"]
    assert now.version == before + 2
    assert (now.plans[made.id].multiplier, now.plans[made.id].models) == (
        2 * MILLION,
        frozenset({"gpt-test", "other-test"}),
    )
    assert [(act.before, act.after) for act in acts if "other-test" in (act.after or "")] == [
        (
            '{"models": ["claude-test", "gpt-test"], "multiplier": "2.00×", "name": "gold"}',
            '{"models": ["gpt-test", "other-test"], "multiplier": "2.00×", "name": "gold"}',
        )
    ]


def test_a_change_that_changes_nothing_leaves_no_trace(world: World) -> None:
    """No audit row and no new version of the catalog."""
    with world.workspace.write() as tx:
        before = (catalog.load(tx), len(audit.rows(tx)))
        plans.update(tx, "standard", models=plans.models(tx, world.plan_id))
        assert (catalog.load(tx), len(audit.rows(tx))) == before


def test_a_model_that_a_live_key_names_stays_in_its_plan(world: World) -> None:
    """The key is named; keys without a scope, and deleted ones, hold nothing back."""
    world.key("free")
    scoped = world.key("scoped", models=["gpt-test"]).key
    with world.workspace.write() as tx:
        rest = [model for model in plans.models(tx, world.plan_id) if model != "gpt-test"]
        with pytest.raises(InvalidInput, match=f"gpt-test: 'scoped' .{scoped.id}."):
            plans.update(tx, "standard", models=rest)
        assert "gpt-test" in plans.models(tx, world.plan_id)
        keys.delete(tx, scoped.id, confirm="scoped")
        plans.update(tx, "standard", models=rest)
        assert plans.models(tx, world.plan_id) == rest


def test_a_plan_is_not_changed_to_what_could_not_be_added(world: World) -> None:
    """No models, unknown models, an impossible multiplier, an unknown plan."""
    with world.workspace.write() as tx:
        with pytest.raises(InvalidInput, match="at least one model"):
            plans.update(tx, "standard", models=[])
        with pytest.raises(NotFound, match="no model 'gpt-9'"):
            plans.update(tx, "standard", models=["gpt-9"])
        with pytest.raises(InvalidInput, match="between 0 and 1000"):
            plans.update(tx, "standard", multiplier=-MILLION)
        with pytest.raises(NotFound, match="no plan named 'gold'"):
            plans.update(tx, "gold", multiplier=MILLION)


def test_an_org_admin_changes_no_plan(world: World) -> None:
    """Plans are the platform's."""
    admin = world.workspace.acting_as(Actor("a@acme.example", Role.ORG_ADMIN, world.org_id))
    with admin.write() as tx, pytest.raises(Forbidden):
        plans.update(tx, "standard", multiplier=0)


@pytest.mark.both_stores
def test_a_model_leaves_a_plan_or_is_named_by_a_key_but_not_both(world: World) -> None:
    """Whoever comes second, the plan's change or the key's scope, is told; with the key new or updated."""
    existing = world.key("existing").key.id

    def update_plan() -> None:
        with world.workspace.write() as tx:
            plans.update(
                tx, "standard", models=[name for name in plans.models(tx, world.plan_id) if name != "gpt-test"]
            )

    def update_key() -> None:
        with world.workspace.write() as tx:
            keys.update(tx, existing, models=["gpt-test"])

    for number in range(4):
        acts = (update_plan, partial(world.key, f"new-{number}", models=["gpt-test"]), update_key)
        results = at_once(*acts)
        with world.workspace.write() as tx:
            included = "gpt-test" in plans.models(tx, world.plan_id)
            holders = [summary.key for summary in summaries(tx) if "gpt-test" in summary.key.scope]
            assert included or not holders
            assert isinstance(results[0], InvalidInput) is included
            plans.update(tx, "standard", models=sorted({*plans.models(tx, world.plan_id), "gpt-test"}))
            for holder in holders:
                keys.update(tx, holder.id, models=[])
