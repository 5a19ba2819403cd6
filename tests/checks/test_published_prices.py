"""Models without a price, and prices and models that what is published has left behind, are found."""

from datetime import datetime

import pytest
from sqlalchemy import delete, update

from tests.audits import DAY, NOW, Scene, scene
from tests.conftest import OPENAI_SHEET, usd
from toolkit.admin import catalog, prices
from toolkit.admin.model_routes import RouteWay, set_route
from toolkit.admin.models import add_model
from toolkit.admin.public_prices import PublicPrice, public_price
from toolkit.admin.upstreams import add_upstream
from toolkit.checks.finding import Severity
from toolkit.core.dialect import Dialect
from toolkit.core.errors import NotFound
from toolkit.core.pricing import PriceSheet
from toolkit.store.tables import Price

__all__ = ["scene"]  # a fixture

OLD = "genai-prices 0.0.1: openai/gpt-5"
DEARER = PriceSheet.flat(input=usd(3), cached_input=usd(0.5), cache_write_5m=usd(2), output=usd(10))


def copied(scene: Scene, monkeypatch: pytest.MonkeyPatch, public: PublicPrice | None) -> None:
    """Let gpt-test's price have been copied from genai-prices, which says this now."""
    with scene.acting(NOW - 3 * DAY) as tx:
        prices.enter(tx, "gpt-test", OPENAI_SHEET, OLD, tx.now)

    def look_up(reference: str, at: datetime) -> PublicPrice:
        assert (reference, at) == ("openai/gpt-5", NOW)
        if public is None:
            raise NotFound("no such model")
        return public

    monkeypatch.setattr(prices, "public_price", look_up)


def test_a_price_that_is_published_otherwise_is_found(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """With both versions, each price before and after, and the command."""
    copied(scene, monkeypatch, PublicPrice(DEARER, None, "genai-prices 9.9.9: openai/gpt-5"))
    (finding,) = scene.found("price-outdated")
    assert (finding.kind, finding.subject, finding.severity) == ("model", "gpt-test", Severity.MEDIUM)
    assert finding.since == NOW - 3 * DAY
    assert finding.sentence == (
        f"Its price was copied from {OLD}; genai-prices 9.9.9: openai/gpt-5 has another one: input $2.00 → $3.00 per "
        "million tokens."
    )
    assert "`keydesk prices refresh`" in finding.action
    assert [change["price"] for change in finding.evidence["changes"]] == ["input"]


def test_what_is_published_as_it_was_copied_is_no_finding(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though by a newer version."""
    copied(scene, monkeypatch, PublicPrice(OPENAI_SHEET, None, "genai-prices 9.9.9: openai/gpt-5"))
    assert scene.found("price-outdated") == scene.found("model-superseded") == []


def test_an_entry_that_was_made_unreadable_stops_no_audit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another check finds it."""
    copied(scene, monkeypatch, PublicPrice(DEARER, None, "genai-prices 9.9.9: openai/gpt-5"))
    with scene.workspace.write() as tx:
        tx.session.execute(update(Price).where(Price.source == OLD).values(sheet="[]"))
    assert scene.found("price-outdated") == []
    assert scene.found("catalog-unlogged")


@pytest.mark.parametrize("published", [True, False], ids=["deprecated", "gone"])
def test_a_model_that_is_about_to_end_is_found(scene: Scene, monkeypatch: pytest.MonkeyPatch, published: bool) -> None:
    """Its provider has said so, or it is not published any more; the command moves its callers."""
    public = PublicPrice(OPENAI_SHEET, None, "genai-prices 9.9.9: openai/gpt-5", deprecated=True)
    copied(scene, monkeypatch, public if published else None)
    (finding,) = scene.found("model-superseded")
    assert (finding.subject, finding.severity, finding.since) == ("gpt-test", Severity.LOW, NOW - 3 * DAY)
    assert ("has declared that it will end" if published else "does not have it any more") in finding.sentence
    assert "`keydesk models update gpt-test --upstream-model NEW`" in finding.action
    assert finding.evidence["deprecated"] is published


def test_the_package_says_which_models_are_deprecated() -> None:
    """As its own data have it."""
    from genai_prices import data

    (google,) = [provider for provider in data.providers if provider.id == "google"]
    marked = {model.id: bool(model.deprecated) for model in google.models if model.id.startswith("gemini-2")}
    assert set(marked.values()) == {True, False}
    assert {name: public_price(f"google/{name}", NOW).deprecated for name in marked} == marked


def test_a_model_without_a_price_is_found(scene: Scene) -> None:
    """One whose first price is to come, and one whose price somebody took away."""
    assert scene.found("model-unpriced") == []
    with scene.acting(NOW - DAY) as tx:
        add_model(tx, "later-test", "test-openai", sheet=OPENAI_SHEET, valid_from=NOW + DAY)
    with scene.workspace.write() as tx:
        tx.session.execute(delete(Price).where(Price.model_id == "claude-test"))
    found = {finding.subject: finding for finding in scene.found("model-unpriced")}
    assert set(found) == {"later-test", "claude-test"}
    assert "no price before 2026-11-24 12:00 UTC" in found["later-test"].sentence
    assert "It has no price" in found["claude-test"].sentence
    assert "`keydesk prices set claude-test`" in found["claude-test"].action


def test_a_model_that_has_prices_of_another_on_a_way_is_none_without(scene: Scene) -> None:
    """As the gateway has it: such a model can be called."""
    with scene.acting(NOW - DAY) as tx:
        add_model(tx, "later-test", "test-openai", sheet=OPENAI_SHEET, valid_from=NOW + DAY)
        add_upstream(tx, "second", Dialect.OPENAI, "http://127.0.0.1:9", "SECOND_API_KEY")
        ways = [RouteWay("test-openai"), RouteWay("second", price_model="gpt-test")]
        set_route(tx, "later-test", ways)
    assert scene.found("model-unpriced") == []
    with scene.acting(NOW) as tx:
        facts = catalog.load(tx).models["later-test"]
        sheet = facts.price(NOW)
        assert sheet is not None
        assert sheet.id == prices.list_prices(tx, "gpt-test")[-1].id
        set_route(tx, "later-test", ways[:1])
        assert catalog.load(tx).models["later-test"].price(NOW) is None
    assert [finding.subject for finding in scene.found("model-unpriced")] == ["later-test"]
