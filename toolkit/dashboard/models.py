"""Models & prices: what keys may call, where it is served, what it costs and did cost; and what a call would."""

from typing import Any

import streamlit as st

from toolkit.admin import catalog, models, prices
from toolkit.core.catalog import Catalog
from toolkit.core.marked import Price
from toolkit.core.policy import Role
from toolkit.core.pricing import PriceSheet
from toolkit.core.wording import counted
from toolkit.dashboard import dialog, filters, model_dialogs, price_calculator, shared, table
from toolkit.store.tables import Model
from toolkit.store.tables import Price as PriceRow

SHOWN = {"All": None, "Without a price": False}


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
        known, now = catalog.load(tx), tx.now
    if not listed:
        shared.empty("There is no model yet.", _first_step(may_change))
    else:
        in_force = {name: prices.price_at(entries, now) for name, entries in book.items()}
        _list(listed, in_force, known)
        shared.heading("What would a call cost?", "by the price in force, as a call is charged")
        with workspace.read() as tx:
            price_calculator.draw(tx, {name: entry for name, entry in in_force.items() if entry})
    model_dialogs.draw(workspace, {model.id: model for model in listed}, book, now)


_COMPARE = "With the public prices of genai-prices, for models whose price was copied from there"


def _first_step(may_change: bool) -> str:
    if may_change:
        return "Add an upstream first, then press <b>Add model</b>: prices of public models are known."
    return "A platform admin adds models."


def _list(listed: list[Model], in_force: dict[str, PriceRow | None], known: Catalog) -> None:
    without = sum(1 for entry in in_force.values() if entry is None)
    wanted = SHOWN[filters.one_of("prices", "Prices", list(SHOWN), "All")]
    shown = [model for model in listed if wanted is None or in_force[model.id] is None]
    missing = f" · <b>{counted(without, 'model')} without a price: nobody can call it</b>" if without else ""
    st.html(f'<p class="kd-count">{counted(len(listed), "model")}, in USD per million tokens{missing}</p>')
    if not shown:
        shared.empty("No model matches.", "Every model has a price.", slim=True)
        return
    table.draw(
        [_cells(model, in_force[model.id], known) for model in shown],
        key="models",
        alt="Models, by id, with their prices per million tokens",
        on_open=lambda position: dialog.show("Model", shown[position].id),
    )


def _cells(model: Model, entry: PriceRow | None, known: Catalog) -> dict[str, Any]:
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
        "Since": entry.valid_from if entry else None,
        "Source": entry.source if entry else "no price",
        "Upstream": model.upstream + (f" and {ways - 1} more" if ways > 1 else ""),
        "Context window": model.context_window,
        "Most output": model.max_output,
    }


if __name__ == "__main__":
    main()
