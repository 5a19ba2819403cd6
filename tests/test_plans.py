"""Plans: what they include and what they multiply by."""

from typing import Any

import pytest

from tests.conftest import World
from toolkit import audit, plans
from toolkit.errors import Conflict, InvalidInput, NotFound
from toolkit.pricing import MILLION


def test_a_plan_has_its_models_and_multiplier(world: World) -> None:
    """Models are listed sorted and once; the audit row shows the multiplier for people."""
    with world.desk.write() as tx:
        made = plans.add(tx, " gold ", 1_500_000, ["gpt-test", "claude-test", "gpt-test"])
        assert plans.models(tx, made.id) == ["claude-test", "gpt-test"]
        assert [plan.name for plan in plans.list_all(tx)] == ["gold", "standard"]
        (act,) = audit.rows(tx, subject=made.id)
    assert act.after == '{"models": ["claude-test", "gpt-test"], "multiplier": "1.50×", "name": "gold"}'


def test_a_plan_is_found_by_id_and_name(world: World) -> None:
    """An unknown one is not found, by either."""
    with world.desk.read() as tx:
        assert plans.find(tx, "standard").id == plans.find(tx, world.plan_id).id == world.plan_id
        with pytest.raises(NotFound, match="no plan named 'gold'"):
            plans.find(tx, "gold")


def test_an_id_finds_the_plan_that_has_it(world: World) -> None:
    """Whatever other plans are named."""
    with world.desk.write() as tx:
        plans.add(tx, world.plan_id, 0, ["gpt-test"])
        assert plans.find(tx, world.plan_id).name == "standard"


@pytest.mark.parametrize("multiplier", [-1, 1000 * MILLION + 1, 1.25, True, "1.25", None])
def test_a_multiplier_that_is_none_is_refused(world: World, multiplier: Any) -> None:
    """Negative, absurd or inexact: nothing that would pay callers or make a float of money."""
    with world.desk.write() as tx, pytest.raises(InvalidInput, match="multiplier"):
        plans.add(tx, "gold", multiplier, ["gpt-test"])


def test_a_plan_needs_models_that_exist(world: World) -> None:
    """None, or unknown ones, are refused, and no half of a plan stays."""
    with world.desk.write() as tx:
        with pytest.raises(InvalidInput, match="at least one model"):
            plans.add(tx, "gold", MILLION, [])
        with pytest.raises(NotFound, match="no model 'gpt-9'"):
            plans.add(tx, "gold", MILLION, ["gpt-test", "gpt-9"])
        assert [plan.name for plan in plans.list_all(tx)] == ["standard"]


def test_a_plans_name_is_taken_once(world: World) -> None:
    """The message names it."""
    with world.desk.write() as tx, pytest.raises(Conflict, match="'standard'"):
        plans.add(tx, "standard", MILLION, ["gpt-test"])
