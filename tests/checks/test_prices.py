"""Changed prices, multipliers and plans are told with who changed them and by how much."""

import pytest
from sqlalchemy import update

from tests.audits import BEGINNING, DAY, HOUR, NOW, Scene, scene
from tests.conftest import OPENAI_SHEET, usd
from toolkit.admin import keys, plans
from toolkit.admin.models import add_model
from toolkit.admin.prices import set_price
from toolkit.checks.finding import Severity
from toolkit.core.pricing import MILLION, PriceSheet, Tier
from toolkit.store.tables import Plan, Price

__all__ = ["scene"]  # a fixture

MARIA = "maria@keydesk.local"


def test_a_price_change_is_told_per_million_tokens(scene: Scene) -> None:
    """Who, when, from when on, and each price before and after; the input price by half is a jump."""
    sheet = PriceSheet.flat(input=usd(3), cached_input=usd(0.5), cache_write_5m=usd(2), output=usd(10), request=5)
    with scene.acting(NOW - 3 * DAY, MARIA) as tx:
        set_price(tx, "gpt-test", sheet, valid_from=NOW + DAY)
    (finding,) = scene.found("price-change")
    assert (finding.kind, finding.subject, finding.severity) == ("model", "gpt-test", Severity.MEDIUM)
    assert finding.since == NOW - 3 * DAY
    assert finding.evidence == {
        "actor": MARIA,
        "recorded_at": NOW - 3 * DAY,
        "valid_from": NOW + DAY,
        "source": "given",
        "changes": [
            {"price": "input", "above_tokens": 0, "per": "million tokens", "before_nano": usd(2), "after_nano": usd(3)},
            {"price": "request", "above_tokens": 0, "per": "request", "before_nano": 0, "after_nano": 5},
        ],
    }
    assert finding.sentence == (
        f"{MARIA} entered a price at 2026-11-20 12:00 UTC (source: given), valid from 2026-11-24 12:00 UTC: input "
        "$2.00 → $3.00 per million tokens and request $0.00 → $0.000000005 per request."
    )


@pytest.mark.parametrize(
    ("output", "severity"),
    [(14.99, Severity.INFO), (15, Severity.MEDIUM), (5.01, Severity.INFO), (5, Severity.MEDIUM), (0, Severity.MEDIUM)],
)
def test_a_change_by_half_is_a_jump(scene: Scene, output: float, severity: Severity) -> None:
    """Up or down by half or more, or to nothing, asks for a decision; less is a note."""
    with scene.acting(NOW - DAY) as tx:
        sheet = PriceSheet.flat(input=usd(2), cached_input=usd(0.5), output=usd(output))
        set_price(tx, "gpt-test", sheet, valid_from=NOW)
    (finding,) = scene.found("price-change")
    assert finding.severity is severity
    assert [change["price"] for change in finding.evidence["changes"]] == ["output"]


def test_a_price_is_compared_with_what_held_when_it_was_entered(scene: Scene) -> None:
    """A second entry for the same moment is compared with the first; a tier's price with that of the tier it was in."""
    tiered = PriceSheet(
        (Tier(0, usd(2), usd(0.5), usd(2), usd(2), usd(10)), Tier(1000, usd(2), usd(0.5), usd(2), usd(2), usd(12)))
    )
    with scene.acting(NOW - 3 * DAY) as tx:
        set_price(tx, "gpt-test", tiered, valid_from=NOW)
    with scene.acting(NOW - DAY) as tx:
        set_price(tx, "gpt-test", OPENAI_SHEET, valid_from=NOW)
    back, there = scene.found("price-change")
    pair = {"before_nano": usd(10), "after_nano": usd(12)}
    change = {"price": "output", "above_tokens": 1000, "per": "million tokens"}
    assert there.evidence["changes"] == [change | pair]
    assert back.evidence["changes"] == [change | {"before_nano": usd(12), "after_nano": usd(10)}]
    assert "output above 1,000 tokens $10.00 → $12.00 per million tokens." in there.sentence


def test_a_models_first_price_is_a_note_and_an_old_one_nothing(scene: Scene) -> None:
    """Prices of the beginning are older than the period; a model added in it has no price before."""
    assert scene.found("price-change") == []
    with scene.acting(NOW - DAY) as tx:
        add_model(tx, "new-test", "test-openai", sheet=OPENAI_SHEET)
    (finding,) = scene.found("price-change")
    assert (finding.severity, finding.evidence["changes"]) == (Severity.INFO, [])
    assert finding.sentence.endswith("the model's first price.")


def test_a_plans_change_is_told(scene: Scene) -> None:
    """Its multiplier before and after, and what came and went; a new plan is no change."""
    with scene.acting(NOW - 31 * DAY) as tx:
        plans.update(tx, "standard", multiplier=MILLION)
    with scene.acting(NOW - 2 * DAY, MARIA) as tx:
        plans.add(tx, "other", MILLION, ["gpt-test"])
        plans.update(tx, "standard", multiplier=1_499_999, models=["gpt-test", "other-test"])
    (finding,) = scene.found("plan-change")
    assert (finding.subject, finding.severity, finding.since) == ("standard", Severity.INFO, NOW - 2 * DAY)
    assert finding.evidence == {
        "actor": MARIA,
        "multiplier_before": "1.00×",
        "multiplier_after": "1.499999×",
        "models_added": ["other-test"],
        "models_removed": ["claude-test", "embed-test", "gemini-embed-test", "gemini-test"],
    }
    with scene.acting(NOW - DAY) as tx:
        plans.update(tx, "standard", multiplier=0)
    assert [finding.severity for finding in scene.found("plan-change")] == [Severity.MEDIUM, Severity.INFO]


def test_a_key_on_another_plan_is_told(scene: Scene) -> None:
    """From which to which, with their multipliers; another change of the key is not."""
    key = scene.key("app").key
    with scene.acting(BEGINNING) as tx:
        plans.add(tx, "cheap", MILLION // 2, ["gpt-test"])
    with scene.acting(NOW - HOUR, MARIA) as tx:
        keys.update(tx, key.id, monthly_limit=usd(5))
        keys.update(tx, key.id, plan="cheap", reason="negotiated")
    (finding,) = scene.found("key-plan-change")
    assert (finding.subject, finding.severity, finding.since) == ("app", Severity.INFO, NOW - HOUR)
    assert finding.evidence == {
        "actor": MARIA,
        "plan_before": "standard",
        "plan_after": "cheap",
        "reason": "negotiated",
    }
    assert "from plan standard (1.25×) to cheap (0.50×)" in finding.sentence


def test_prices_and_multipliers_written_into_the_store_are_found(scene: Scene) -> None:
    """A changed sheet, an entry that no act made, and a changed multiplier; honest ones are not, however old."""
    with scene.acting(NOW - 40 * DAY) as tx:
        plans.update(tx, "standard", multiplier=MILLION)
    assert scene.found("catalog-unlogged") == []
    free = PriceSheet.flat(input=0, output=0).to_json()
    with scene.workspace.write() as tx:
        tx.session.execute(update(Price).where(Price.model_id == "claude-test").values(sheet=free))
        moments = {"valid_from": NOW, "recorded_at": NOW - DAY}
        tx.session.add(Price(id="price_x", model_id="gpt-test", recorded_by="x", source="given", sheet=free, **moments))
        tx.session.execute(update(Plan).values(multiplier=1))
    found = {finding.subject: finding for finding in scene.found("catalog-unlogged")}
    assert {name: (finding.kind, finding.evidence["logged"]) for name, finding in found.items()} == {
        "claude-test": ("model", True),
        "gpt-test": ("model", False),
        "standard": ("plan", True),
    }
    assert {finding.severity for finding in found.values()} == {Severity.HIGH}
    assert found["standard"].sentence == (
        "The multiplier 0.000001× of the plan standard is not what admin@keydesk.local entered."
    )
