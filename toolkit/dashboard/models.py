"""Models & prices: what keys may call, where it is served, what it costs and did cost; and what a call would."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from toolkit.admin import catalog, model_routes, models, prices
from toolkit.admin.prices import Published
from toolkit.core.catalog import Catalog
from toolkit.core.marked import Price
from toolkit.core.policy import Role
from toolkit.core.pricing import PriceSheet
from toolkit.core.wording import counted
from toolkit.dashboard import dialog, filters, model_dialogs, price_calculator, shared, table
from toolkit.store.tables import Model
from toolkit.store.tables import Price as PriceRow
from toolkit.workspace import Workspace

SHOWN = ("All", "Without a price", "To look at")
"""What the list can be narrowed to. To be looked at is what genai-prices has otherwise by now, which a platform admin
is told of."""


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    may_change = workspace.actor.role is Role.PLATFORM_ADMIN
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Models & prices", anchor=False)
        st.space("stretch")
        st.button("Refresh", icon=":material/refresh:", key="models_refresh", help="Look for newer models and prices")
        if may_change:
            if st.button("Compare prices", icon=":material/published_with_changes:", key="compare", help=_COMPARE):
                dialog.show("Compare prices")
            if st.button("Add model", type="primary", icon=":material/add:", key="add_model"):
                dialog.show("Add model")
    with workspace.read() as tx:
        listed = models.list_models(tx)
        book: dict[str, list[PriceRow]] = {model.id: [] for model in listed}
        for entry in prices.list_prices(tx):
            if entry.model_id in book:  # others' own models have prices, too
                book[entry.model_id].append(entry)
        known, now, priced = catalog.load(tx), tx.now, model_routes.prices_in_force(tx)
    stands: dict[str, Published] = {}
    if workspace.actor.org_id is None:
        stands = _published(workspace, workspace.settings.store_url, known.version, str(now.date()))
    if not listed:
        shared.empty("There is no model yet.", _first_step(may_change))
    else:
        in_force = {name: priced.get(name) for name in book}
        _list(listed, in_force, known, stands)
        shared.heading("What would a call cost?", "by the price in force, as a call is charged")
        with workspace.read() as tx:
            price_calculator.draw(tx, {name: entry for name, entry in in_force.items() if entry})
    model_dialogs.draw(workspace, {model.id: model for model in listed}, book, stands, now)


_COMPARE = "With the public prices of genai-prices, for models whose price was copied from there"


@st.cache_data(max_entries=4, show_spinner=False)
def _published(_workspace: Workspace, store: str, version: int, day: str) -> dict[str, Published]:  # noqa: ARG001
    """Return how copied prices stand to what is published; kept by catalog version and day."""
    with _workspace.read() as tx:
        return prices.published(prices.copied_prices(tx))


def _first_step(may_change: bool) -> str:
    if may_change:
        return "Add an upstream first, then press <b>Add model</b>: prices of public models are known."
    return "A platform admin adds models."


def _list(
    listed: list[Model], in_force: dict[str, PriceRow | None], known: Catalog, stands: Mapping[str, Published]
) -> None:
    without = {name for name, entry in in_force.items() if entry is None}
    odd = {name for name, state in stands.items() if state is not Published.SAME}
    offered = SHOWN if stands else SHOWN[:2]
    wanted = filters.one_of("prices", "Prices", list(offered), "All")
    among = {"All": set(in_force), "Without a price": without, "To look at": odd}[wanted]
    shown = [model for model in listed if model.id in among]
    notes = [counted(len(listed), "model"), "in USD per million tokens"]
    if without:
        notes.append(f"<b>{counted(len(without), 'model')} without a price: nobody can call it</b>")
    if odd:
        notes.append(f"{counted(len(odd), 'model')} to look at: genai-prices has another price, or the end of it")
    st.html(f'<p class="kd-count">{" · ".join(notes)}</p>')
    if not shown:
        right = "Every model has a price." if wanted == "Without a price" else "Copied prices are as published."
        shared.empty("No model matches.", right, slim=True)
        return
    table.draw(
        [_cells(model, in_force[model.id], known, stands) for model in shown],
        key="models",
        alt="Models, by id, with their prices per million tokens",
        on_open=lambda position: dialog.show("Model", shown[position].id),
    )


def _cells(model: Model, entry: PriceRow | None, known: Catalog, stands: Mapping[str, Published]) -> dict[str, Any]:
    tiers = PriceSheet.from_json(entry.sheet).tiers if entry else ()
    first = tiers[0] if tiers else None
    facts = known.models.get(model.id)
    ways = len(facts.places) if facts else 1
    return {
        "Model": model.id,
        "Input": Price(first.input) if first else None,
        "Cached input": Price(first.cached_input) if first else None,
        "Output": Price(first.output) if first else None,
        "Tiers": len(tiers) or None,
        **({"Published": stands.get(model.id, "")} if stands else {}),
        "Since": entry.valid_from if entry else None,
        "Source": _source(model, entry),
        "Upstream": model.upstream + (f" and {ways - 1} more" if ways > 1 else ""),
        "Context window": model.context_window,
        "Most output": model.max_output,
    }


def _source(model: Model, entry: PriceRow | None) -> str:
    if entry is None:
        return "no price"
    return entry.source if entry.model_id == model.id else f"the price of {entry.model_id}, by its route"


if __name__ == "__main__":
    main()
