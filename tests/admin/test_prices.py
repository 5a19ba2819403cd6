"""The price book: which entry holds at a moment, and what may be entered."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from tests.conftest import OPENAI_SHEET, World, usd
from toolkit.admin import catalog, prices
from toolkit.admin.models import add_model
from toolkit.admin.prices import list_prices, price_at, refresh_prices, set_price
from toolkit.admin.public_prices import PublicPrice, public_price
from toolkit.core.errors import InvalidInput, NotFound
from toolkit.core.pricing import PriceSheet
from toolkit.store import audit
from toolkit.store.tables import Price

pytestmark = pytest.mark.any_store


def test_the_latest_price_that_has_begun_holds(world: World) -> None:
    """A price for the future waits for its moment; what was charged before keeps its own entry."""
    future = datetime(2100, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    with world.workspace.write() as tx:
        later = set_price(tx, "gpt-test", PriceSheet.flat(input=9, output=9), valid_from=future)
        now = set_price(tx, "gpt-test", PriceSheet.flat(input=5, output=5))
        entries = list_prices(tx, "gpt-test")
        facts = catalog.load(tx).models["gpt-test"]
        moments = [tx.now - timedelta(days=1), tx.now, future - timedelta(microseconds=1), future]
    assert len(entries) == 3
    assert later.valid_from == datetime(2099, 12, 31, 23, tzinfo=UTC)
    wanted = [None, now.id, now.id, later.id]
    assert [price and price.id for price in (price_at(entries, moment) for moment in moments)] == wanted
    assert [price and price.id for price in (facts.price(moment) for moment in moments)] == wanted


def test_no_price_starts_in_the_past(world: World) -> None:
    """Calls of that time have been charged."""
    with world.workspace.write() as tx:
        with pytest.raises(InvalidInput, match="past"):
            set_price(tx, "gpt-test", OPENAI_SHEET, valid_from=tx.now - timedelta(microseconds=1))
        with pytest.raises(InvalidInput, match="time zone"):
            set_price(tx, "gpt-test", OPENAI_SHEET, valid_from=datetime(2100, 1, 1))  # noqa: DTZ001
        with pytest.raises(NotFound, match="no model 'none'"):
            set_price(tx, "none", OPENAI_SHEET)


def test_a_refresh_enters_what_has_changed_and_only_that(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied prices follow the package; given ones are left alone; a second refresh finds nothing new."""
    cheaper = PriceSheet.flat(input=1, output=1)
    with world.workspace.write() as tx:
        add_model(tx, "gpt-5", "test-openai")
        add_model(tx, "gpt-5-mini", "test-openai")
        assert refresh_prices(tx) == []
    real = public_price

    def repriced(reference: str, at: datetime) -> PublicPrice:
        public = real(reference, at)
        if reference != "openai/gpt-5":
            return public
        return PublicPrice(cheaper, public.context_window, public.source)

    monkeypatch.setattr(prices, "public_price", repriced)
    with world.workspace.write() as tx:
        (entry,) = refresh_prices(tx)
        assert (entry.model_id, PriceSheet.from_json(entry.sheet), entry.valid_from) == ("gpt-5", cheaper, tx.now)
    with world.workspace.write() as tx:
        assert refresh_prices(tx) == []


def test_a_price_entry_is_audited_and_holds_its_sheet(world: World) -> None:
    """The first price of a model has its own act, and reads back as it was given."""
    with world.workspace.read() as tx:
        (price,) = list_prices(tx, "gpt-test")
        acts = [row.action for row in audit.rows(tx, subject=price.id)]
    assert acts == ["price.set"]
    assert isinstance(price, Price)
    assert PriceSheet.from_json(price.sheet).tier(0).output == usd(10)
