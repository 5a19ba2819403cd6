"""`keydesk prices refresh`: what it shows, that it asks, and what it enters."""

import json
from datetime import UTC, datetime

import pytest

from tests.conftest import OPENAI_SHEET, Run, World, usd
from tests.reports.test_attribution import called
from tests.rows import append
from toolkit.admin import prices
from toolkit.admin.prices import list_prices
from toolkit.admin.public_prices import PublicPrice, public_price
from toolkit.core.errors import Conflict, NotFound
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.core.settings import Settings

pytestmark = pytest.mark.any_store

OLD = "genai-prices 0.0.1: openai/gpt-5"
NEW = PriceSheet.flat(input=usd(3), cached_input=usd(0.5), cache_write_5m=usd(2), output=usd(10))
NOVEMBER = datetime(2026, 11, 15, 12, tzinfo=UTC)


def published(world: World, monkeypatch: pytest.MonkeyPatch, model: str, source: str, sheet: PriceSheet | None) -> None:
    """Let a model's price have been copied from a source, which has another one now, or none."""
    with world.workspace.write() as tx:
        prices.enter(tx, model, OPENAI_SHEET, source, tx.now)
    real = public_price

    def look_up(reference: str, at: datetime) -> PublicPrice:
        if reference != source.partition(": ")[2]:
            return real(reference, at)
        if sheet is None:
            raise NotFound("no such model")
        return PublicPrice(sheet, None, f"genai-prices 9.9.9: {reference}")

    monkeypatch.setattr(prices, "public_price", look_up)


def entries(world: World) -> list[str]:
    """Return the sources of gpt-test's price entries."""
    with world.workspace.read() as tx:
        return [price.source for price in list_prices(tx, "gpt-test")]


@pytest.fixture
def used(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two calls of a million tokens of gpt-test, whose input price went from 2 to 3 USD, and one of another model."""
    key = world.key("app").key
    rows = [called(key, NOVEMBER, MILLION), called(key, NOVEMBER, MILLION)]
    append(world.workspace.store, [*rows, called(key, NOVEMBER, MILLION, model="claude-test")])
    published(world, monkeypatch, "gpt-test", OLD, NEW)
    return world


def test_a_refresh_shows_what_it_does_and_enters_nothing_unasked(used: World, run: Run) -> None:
    """Each changed price, the last month's calls by the present price and by the new one; a closed input is a no."""
    before = entries(used)
    result = run("prices", "refresh")
    assert result.exit_code == 1
    assert "calls of 2026-11" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("gpt-test")]
    assert line.split("  ", 1)[1].strip().startswith("input $2.00 → $3.00 per million tokens")
    assert line.split()[-4:] == ["2", "$4.00", "$6.00", "$2.00"]
    assert "claude-test" not in result.stdout
    assert "confirm with --yes. Nothing was changed." in result.stderr
    assert entries(used) == before
    assert json.loads(run("prices", "refresh", "--json").stderr)["error"]["type"] == "not_confirmed"
    assert entries(used) == before


def test_a_refresh_that_is_agreed_to_enters_the_prices(used: World, run: Run) -> None:
    """As JSON it tells the same, with the entries; after that there is nothing left."""
    (row,) = json.loads(run("prices", "refresh", "--yes", "--json").stdout)
    assert (row["model"], row["month"], row["calls"]) == ("gpt-test", "2026-11", 2)
    assert (row["before_usd"], row["after_usd"], row["difference_usd"]) == ("4", "6", "2")
    assert (row["source_before"], row["source"]) == (OLD, "genai-prices 9.9.9: openai/gpt-5")
    assert row["changes"] == [
        {"price": "input", "above_tokens": 0, "per": "million tokens", "before_usd": "2", "after_usd": "3"}
    ]
    with used.workspace.read() as tx:
        entry = list_prices(tx, "gpt-test")[-1]
    assert (row["id"], row["valid_from"]) == (entry.id, entry.valid_from.isoformat())
    assert PriceSheet.from_json(entry.sheet) == NEW
    assert "nothing was entered" in run("prices", "refresh").stdout


def test_a_model_that_is_not_published_any_more_keeps_its_price(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and does not stop the others; months without calls are no obstacle."""
    published(world, monkeypatch, "claude-test", "genai-prices 0.0.1: anthropic/gone", None)
    published(world, monkeypatch, "gpt-test", OLD, NEW)
    result = run("prices", "refresh", "--yes")
    assert result.exit_code == 0
    assert "genai-prices has no price any more of claude-test: those in force stay." in result.stderr
    assert "Entered 1 new price" not in result.stdout
    assert "Entered 1 price." in result.stdout
    assert entries(world)[-1] == "genai-prices 9.9.9: openai/gpt-5"


def test_prices_that_change_while_somebody_decides_are_not_entered(
    used: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was agreed to is what is entered, or nothing."""
    with used.workspace.read() as tx:
        seen = prices.price_updates(prices.copied_prices(tx))
    with used.workspace.write() as tx:
        prices.enter(tx, "gpt-test", NEW, OLD, tx.now)
    with used.workspace.write() as tx, pytest.raises(Conflict, match="meanwhile"):
        prices.refresh_prices(tx, seen)


def test_the_package_is_asked_for_what_was_copied(world: World, run: Run) -> None:
    """Without a stand-in: a price that is the package's own is left alone."""
    public = public_price("openai/gpt-5", NOVEMBER)
    with world.workspace.write() as tx:
        prices.enter(tx, "gpt-test", public.sheet, public.source, tx.now)
    assert json.loads(run("prices", "refresh", "--json").stdout) == []
