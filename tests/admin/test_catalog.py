"""The catalog as a whole: its version, what gateways load, and who may change it."""

import pytest

from tests.conftest import OPENAI_SHEET, World
from toolkit.admin import catalog, plans
from toolkit.admin.models import add_model, update_model
from toolkit.admin.prices import refresh_prices, set_price
from toolkit.admin.upstreams import add_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Forbidden, NotFound
from toolkit.core.policy import Role
from toolkit.core.pricing import MILLION
from toolkit.store.actor import Actor
from toolkit.store.transaction import Transaction

pytestmark = pytest.mark.any_store


def test_only_what_exists_is_changed_and_only_by_the_platform(world: World) -> None:
    """An unknown model or upstream is not found; an org admin may not."""
    with world.workspace.write() as tx:
        with pytest.raises(NotFound, match="no model 'gpt-9'"):
            update_model(tx, "gpt-9", max_output=5)
        with pytest.raises(NotFound, match="no upstream named 'nowhere'"):
            update_model(tx, "gpt-test", upstream="nowhere")
    admin = world.workspace.acting_as(Actor("a@acme.example", Role.ORG_ADMIN, world.org_id))
    with admin.write() as tx, pytest.raises(Forbidden):
        update_model(tx, "gpt-test", max_output=9_000)


def test_every_change_raises_the_catalog_version(world: World) -> None:
    """Gateways notice a new upstream, model, price and plan by it; a failed change leaves it."""

    def version(tx: Transaction) -> int:
        return catalog.load(tx).version

    with world.workspace.write() as tx:
        seen = [version(tx)]
        add_upstream(tx, "more", Dialect.OPENAI, "https://api.example.com", "SOME_API_KEY")
        seen.append(version(tx))
        add_model(tx, "more", "more", sheet=OPENAI_SHEET)
        seen.append(version(tx))
        set_price(tx, "more", OPENAI_SHEET)
        seen.append(version(tx))
        plans.add(tx, "more", MILLION, ["more"])
        seen.append(version(tx))
    assert seen == sorted(set(seen))
    with world.workspace.write() as tx, pytest.raises(NotFound):
        set_price(tx, "none", OPENAI_SHEET)
    with world.workspace.read() as tx:
        assert version(tx) == seen[-1]


def test_the_catalog_holds_what_a_gateway_needs(world: World) -> None:
    """Model, upstream, limits, prices and plans, in one snapshot."""
    with world.workspace.read() as tx:
        loaded = catalog.load(tx)
    model = loaded.models["gemini-test"]
    assert (model.dialect, model.upstream, model.base_url) == (
        Dialect.GEMINI,
        "test-gemini",
        "http://127.0.0.1:9/gemini",
    )
    assert (model.context_window, model.default_output, model.max_output) == (100_000, 4_096, 8_192)
    assert len(model.prices) == 1
    assert loaded.plans[world.plan_id].models == loaded.models.keys() - {"other-test"}
    assert loaded.plans[world.plan_id].multiplier == MILLION * 5 // 4


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_only_the_platform_changes_the_catalog(world: World, role: Role) -> None:
    """Upstreams, models, prices and plans are the platform's alone."""
    with world.workspace.acting_as(Actor("x@example.com", role, world.org_id)).write() as tx:
        for act in (
            lambda: add_upstream(tx, "mine", Dialect.OPENAI, "https://api.example.com", "SOME_API_KEY"),
            lambda: add_model(tx, "mine", "test-openai", sheet=OPENAI_SHEET),
            lambda: set_price(tx, "gpt-test", OPENAI_SHEET),
            lambda: refresh_prices(tx),
            lambda: plans.add(tx, "mine", 0, ["gpt-test"]),
        ):
            with pytest.raises(Forbidden):
                act()
