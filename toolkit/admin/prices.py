"""The price book: dated prices of models.

A price entry is never edited: a new one supersedes it from its `valid_from` on. Prices may be copied from the
`genai-prices` package when a model is added or on `prices refresh`; charging never reads the package, so an
upgrade reprices nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import groupby

from sqlalchemy import select

from toolkit.admin import catalog
from toolkit.admin.public_prices import PublicPrice, public_price
from toolkit.core.errors import Conflict, InvalidInput, NotFound
from toolkit.core.ids import new_id
from toolkit.core.price_changes import in_brief
from toolkit.core.pricing import PriceSheet
from toolkit.core.stale import require_unchanged
from toolkit.core.wording import stamp
from toolkit.store import audit
from toolkit.store.tables import Model, Price
from toolkit.store.transaction import Transaction

COPIED = "genai-prices"
"""What the source of a copied price begins with; the package's version follows, and `: PROVIDER/MODEL`."""


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


def set_price(
    tx: Transaction,
    model_id: str,
    sheet: PriceSheet,
    *,
    valid_from: datetime | None = None,
    seen: Mapping[str, str] | None = None,
) -> Price:
    """Enter a new price, valid from a moment on (now by default). Calls admitted before keep theirs.

    Args:
        tx: as a platform admin.
        model_id: whose price it is.
        sheet: the price.
        valid_from: from when it holds.
        seen: the model's prices as whoever enters this one saw them, by `describe`; they must be so still.

    Raises:
        NotFound: no such model.
        InvalidInput: the moment lies in the past; calls of that time have been charged already.
        Conflict: somebody has entered a price since they were seen.
    """
    catalog.begin_change(tx)
    if tx.session.get(Model, model_id) is None:
        raise NotFound(f"There is no model {model_id!r}. `keydesk models list` shows them.")
    if seen is not None:
        require_unchanged(f"price of {model_id!r}", seen, describe(list_prices(tx, model_id), tx.now))
    start = start_of(tx, valid_from)
    if start < tx.now:
        raise InvalidInput("A price cannot start in the past: calls of that time have been charged already.")
    return enter(tx, model_id, sheet, "given", start)


@dataclass(frozen=True, slots=True)
class PriceUpdate:
    """A price that genai-prices has otherwise than the price book.

    Args:
        model: its id.
        entry_id: of the entry in force.
        before, after: what it says, and what the package does.
        source_before, source: where each stands.
    """

    model: str
    entry_id: str
    before: PriceSheet
    after: PriceSheet
    source_before: str
    source: str


def copied_prices(tx: Transaction) -> list[tuple[Price, PublicPrice | None]]:
    """Return the entries in force that were copied from genai-prices, by model, each with what the package says now.

    It says nothing (None) of a model that it has no more.
    """
    found = []
    for _, entries in groupby(list_prices(tx), key=lambda entry: entry.model_id):
        current = price_at(list(entries), tx.now)
        if current is not None and current.source.startswith(COPIED):
            try:
                public = public_price(current.source.partition(": ")[2], tx.now)
            except NotFound:
                public = None
            found.append((current, public))
    return found


def price_updates(copied: Sequence[tuple[Price, PublicPrice | None]]) -> list[PriceUpdate]:
    """Return the `copied_prices` that genai-prices has otherwise by now."""
    return [
        PriceUpdate(
            current.model_id,
            current.id,
            PriceSheet.from_json(current.sheet),
            public.sheet,
            current.source,
            public.source,
        )
        for current, public in copied
        if public is not None and public.sheet.to_json() != current.sheet
    ]


class Published(StrEnum):
    """How a price that was copied from genai-prices stands to what the package says by now."""

    SAME = "as published"
    OTHERWISE = "published otherwise"
    ENDING = "provider will end it"
    GONE = "published no more"


def published(copied: Sequence[tuple[Price, PublicPrice | None]]) -> dict[str, Published]:
    """Return how each of the `copied_prices` stands, by model; another price matters more than an end to come."""
    otherwise = {update.model for update in price_updates(copied)}
    found = {}
    for current, public in copied:
        state = Published.ENDING if public is not None and public.deprecated else Published.SAME
        if current.model_id in otherwise:
            state = Published.OTHERWISE
        found[current.model_id] = Published.GONE if public is None else state
    return found


def refresh_prices(tx: Transaction, expected: Sequence[PriceUpdate] | None = None) -> list[Price]:
    """Copy the present prices of all models whose price came from genai-prices.

    Args:
        tx: as a platform admin.
        expected: the updates that somebody has looked at and agreed to; any by default.

    Returns:
        The entries that are new.

    Raises:
        Conflict: there are other updates by now than those expected.
    """
    catalog.begin_change(tx)
    updates = price_updates(copied_prices(tx))
    if expected is not None and updates != list(expected):
        raise Conflict("Prices were changed meanwhile. Nothing was entered: look again.")
    return [enter(tx, update.model, update.after, update.source, tx.now) for update in updates]


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


def describe(entries: list[Price], now: datetime) -> dict[str, str]:
    """Return what holds at a moment and what will, in words; of one model's entries, the oldest first."""
    current = price_at(entries, now)
    held = {"price in force": in_brief(PriceSheet.from_json(current.sheet))} if current else {}
    later = [entry for entry in entries if entry.valid_from > now]
    return held | {
        f"price from {stamp(entry.valid_from)}": in_brief(PriceSheet.from_json(entry.sheet)) for entry in later
    }


def price_at(entries: list[Price], now: datetime) -> Price | None:
    """Return the entry in force at a moment, from one model's entries oldest first."""
    return next((price for price in reversed(entries) if price.valid_from <= now), None)
