"""The price book: dated prices of models.

A price entry is never edited: a new one supersedes it from its `valid_from` on. Prices may be copied from the
`genai-prices` package when a model is added or on `prices refresh`; charging never reads the package, so an
upgrade reprices nothing.
"""

from datetime import UTC, datetime

from sqlalchemy import select

from toolkit.admin import catalog
from toolkit.admin.public_prices import public_price
from toolkit.core.errors import InvalidInput, NotFound
from toolkit.core.ids import new_id
from toolkit.core.pricing import PriceSheet
from toolkit.store import audit
from toolkit.store.tables import Model, Price
from toolkit.store.transaction import Transaction


def enter(tx: Transaction, model_id: str, sheet: PriceSheet, source: str, valid_from: datetime) -> Price:
    """Enter a price of a model that is there, behind the catalog's lock; `source` says where it was taken from."""
    price = Price(
        id=new_id("price"),
        model_id=model_id,
        valid_from=valid_from,
        recorded_at=tx.now,
        recorded_by=tx.actor.name,
        source=source,
        sheet=sheet.to_json(),
    )
    tx.session.add(price)
    tx.session.flush()
    catalog.changed(tx)
    after = {"model": model_id, "valid_from": valid_from.isoformat(), "source": source, "sheet": price.sheet}
    audit.record(tx, "price.set", price.id, after=after)
    return price


def set_price(tx: Transaction, model_id: str, sheet: PriceSheet, *, valid_from: datetime | None = None) -> Price:
    """Enter a new price, valid from a moment on (now by default). Calls admitted before keep theirs.

    Raises:
        NotFound: no such model.
        InvalidInput: the moment lies in the past; calls of that time have been charged already.
    """
    catalog.begin_change(tx)
    if tx.session.get(Model, model_id) is None:
        raise NotFound(f"There is no model {model_id!r}. `keydesk models list` shows them.")
    start = start_of(tx, valid_from)
    if start < tx.now:
        raise InvalidInput("A price cannot start in the past: calls of that time have been charged already.")
    return enter(tx, model_id, sheet, "given", start)


def refresh_prices(tx: Transaction) -> list[Price]:
    """Copy the present prices of all models whose price came from genai-prices; return the entries that are new."""
    catalog.begin_change(tx)
    entered = []
    for model_id in tx.session.scalars(select(Model.id).order_by(Model.id)):
        current = price_at(list_prices(tx, model_id), tx.now)
        if current is None or not current.source.startswith("genai-prices"):
            continue
        public = public_price(current.source.partition(": ")[2], tx.now)
        if public.sheet.to_json() != current.sheet:
            entered.append(enter(tx, model_id, public.sheet, public.source, tx.now))
    return entered


def start_of(tx: Transaction, valid_from: datetime | None) -> datetime:
    """Return when a price begins, UTC: now, unless a moment is given.

    Raises:
        InvalidInput: the moment has no time zone.
    """
    if valid_from is None:
        return tx.now
    if valid_from.tzinfo is None:
        raise InvalidInput("The price's start needs a time zone: write it in UTC, such as 2027-01-31T00:00:00Z.")
    return valid_from.astimezone(UTC)


def list_prices(tx: Transaction, model_id: str | None = None) -> list[Price]:
    """Return price entries, oldest first; of one model or of all."""
    query = select(Price).order_by(Price.model_id, Price.valid_from, Price.recorded_at)
    return list(tx.session.scalars(query.where(Price.model_id == model_id) if model_id else query))


def price_at(entries: list[Price], now: datetime) -> Price | None:
    """Return the entry in force at a moment, from one model's entries oldest first."""
    return next((price for price in reversed(entries) if price.valid_from <= now), None)
