"""What a plan's change would have done to a month is told of the calls of its keys alone."""

from tests.conftest import World, usd
from tests.reports.test_attribution import called
from tests.reports.test_whatif import NOW
from tests.rows import append
from toolkit.core.pricing import MILLION
from toolkit.reports.plan_effects import PlanEffect, plan_effect


def test_calls_of_the_plans_keys_are_charged_anew(world: World) -> None:
    """Those of models that go are refused; other keys' calls and other months' do not count."""
    app, other = world.key("app").key, world.key("other").key
    rows = [called(app, NOW, MILLION), called(app, NOW, MILLION, model="claude-test"), called(other, NOW, MILLION)]
    append(world.workspace.store, rows)
    world.workspace.ledger.sync()
    ledger, models = world.workspace.ledger, ["gpt-test", "claude-test"]
    assert plan_effect(ledger, "2026-11", {app.id}, 2 * MILLION, models) == PlanEffect(2, usd(4), usd(8), 0, 0)
    refused = plan_effect(ledger, "2026-11", {app.id}, MILLION, models[:1])
    assert refused == PlanEffect(2, usd(4), usd(2), 1, usd(2))
    assert plan_effect(ledger, "2026-10", {app.id}, MILLION, models) == PlanEffect(0, 0, 0, 0, 0)
