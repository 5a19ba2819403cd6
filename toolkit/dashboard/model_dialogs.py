"""The dialogs of the page Models & prices: a model and its prices; add one, enter a price, compare with public ones."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from html import escape
from typing import Any, Literal

import streamlit as st

from toolkit.admin import model_routes, models, prices, upstreams
from toolkit.admin.prices import Published
from toolkit.core.errors import InvalidInput
from toolkit.core.marked import Price
from toolkit.core.money import parse_usd, usd
from toolkit.core.policy import Role
from toolkit.core.price_changes import in_words, price_changes
from toolkit.core.pricing import PriceSheet
from toolkit.core.wording import counted, listed
from toolkit.dashboard import dialog, shared, table
from toolkit.store.tables import Model
from toolkit.store.tables import Price as PriceRow
from toolkit.workspace import Workspace

_FIELDS = {
    "input": "Input",
    "output": "Output",
    "cached_input": "Input read from a cache",
    "cache_write_5m": "Cache write, 5 minutes",
    "cache_write_1h": "Cache write, 1 hour",
}
_LIMITS = {
    "context_window": "Context window",
    "default_output": "Output unless asked for",
    "max_output": "Most output",
}
"""Tokens, by what the service calls them."""


def draw(
    workspace: Workspace,
    by_id: Mapping[str, Model],
    book: Mapping[str, list[PriceRow]],
    stands: Mapping[str, Published],
    now: datetime,
) -> None:
    """Draw the dialog that is open, if any.

    Args:
        workspace: of whoever looks.
        by_id: the models that are listed.
        book: their prices, the oldest first.
        stands: how those that were copied stand to what is published; the platform's.
        now: UTC.
    """
    name, subject = dialog.shown() or ("", "")
    may_change = workspace.actor.role is Role.PLATFORM_ADMIN
    if name == "Model" and subject in by_id:
        model_dialog(workspace, by_id[subject], book[subject], stands.get(subject, Published.SAME), now)
    elif not may_change:
        return
    elif name == "Add model":
        add_dialog()
    elif name == "Compare prices":
        compare_dialog()
    elif name == "Enter price" and subject in by_id:
        price_dialog(by_id[subject], book[subject], now)
    elif name == "Change model" and subject in by_id:
        change_dialog(by_id[subject])


@st.dialog("Model", width="large", position="right", on_dismiss=dialog.close)
def model_dialog(
    workspace: Workspace, model: Model, entries: Sequence[PriceRow], stands: Published, now: datetime
) -> None:
    """Show where a model is served, and each price that it had, has and will have."""
    with workspace.read() as tx:
        ways = model_routes.route_of(tx, model)
    places = [f"{escape(way.upstream)}: <code>{escape(way.upstream_model or model.id)}</code>" for way in ways]
    served = f"{escape(model.upstream)}: <code>{escape(model.upstream_model)}</code>"
    st.html(
        shared.facts(
            [
                ("Id", f"<code>{escape(model.id)}</code>"),
                ("Served by", "<br>".join(places) or served),
                ("Context window", f"{model.context_window:,} tokens"),
                ("Output", f"{model.default_output:,} tokens unless asked for, {model.max_output:,} at most"),
                ("Added", shared.utc(model.created_at)),
            ]
        )
    )
    if stands is not Published.SAME:
        st.warning(_ADVICE[stands], icon=":material/published_with_changes:")
    if workspace.actor.role is Role.PLATFORM_ADMIN:
        acts = [("Enter price", "Enter a price", "sell", model.id), ("Change model", "Change", "edit", model.id)]
        if stands is Published.OTHERWISE:
            acts.insert(0, ("Compare prices", "Compare prices", "published_with_changes", ""))
        with st.container(horizontal=True):
            for position, (name, label, icon, subject) in enumerate(acts):
                kind: Literal["primary", "secondary"] = "secondary" if position else "primary"
                key = name.lower().replace(" ", "_") + "_here"
                if st.button(label, icon=f":material/{icon}:", type=kind, key=key):
                    dialog.show(name, subject)
                    st.rerun()
    shared.heading("Prices", "USD per million tokens, the newest first")
    current = prices.price_at(list(entries), now)
    if not entries:
        shared.empty("It has no price.", "Until it has one, its calls are refused.", slim=True)
    if len(entries) > 1:
        from toolkit.reports.price_chart import price_steps

        steps = [(entry.valid_from, PriceSheet.from_json(entry.sheet)) for entry in entries]
        shared.plot(price_steps(steps, now), "price_steps", f"Prices of {model.id} per million tokens over time")
    if entries:
        rows = [row for entry in reversed(entries) for row in _history(entry, entry is current, now)]
        table.draw(rows, key="price_history", alt=f"Prices of {model.id}, the newest first", on_open=None)


def _history(entry: PriceRow, in_force: bool, now: datetime) -> list[dict[str, Any]]:
    """Return an entry of the price book: a row for each tier."""
    sheet = PriceSheet.from_json(entry.sheet)
    return [
        {
            "State": "in force" if in_force else "to come" if entry.valid_from > now else "past",
            "Above tokens": tier.above,
            "Input": Price(tier.input),
            "Cached input": Price(tier.cached_input),
            "Output": Price(tier.output),
            "Cache write, 5 min": Price(tier.cache_write_5m),
            "Cache write, 1 h": Price(tier.cache_write_1h),
            **({"Each request": Price(sheet.request)} if sheet.request else {}),
            "Holds from": entry.valid_from,
            "Source": entry.source,
        }
        for tier in sheet.tiers
    ]


_ADVICE = {
    Published.OTHERWISE: "genai-prices has another price of it by now.",
    Published.ENDING: "Its provider has declared that it will end. See there until when it is served, and what comes "
    "after it; a change of what it is called at the upstream moves its callers.",
    Published.GONE: "genai-prices does not have it any more: it may have been renamed, or ended. See at the provider.",
}


@st.dialog("Add a model", width="medium", on_dismiss=dialog.close)
def add_dialog() -> None:
    """Ask for a model; its price is copied from the public ones, or given."""
    dialog.leave_if_closed()
    workspace = shared.workspace()
    with workspace.read() as tx:
        places = [upstream.name for upstream in upstreams.list_upstreams(tx)]
    if not places:
        st.warning("There is no upstream yet. Add one on the page Upstreams.")
        return
    with st.form("add_model_form", border=False):
        model_id = st.text_input("Id that callers name", key="model_id", placeholder="gpt-5-mini", autocomplete="off")
        upstream = st.selectbox("Upstream", places, key="model_upstream")
        at_upstream = st.text_input(
            "What the upstream calls it", key="upstream_model", placeholder="the same", autocomplete="off"
        )
        st.caption("Without prices, the public ones are copied, if genai-prices knows the model.")
        given = _price_fields({})
        pressed = dialog.form_button("Add model")
    if pressed:
        with shared.problems():
            sheet = _sheet(given)
            with workspace.write() as tx:
                model = models.add_model(
                    tx, model_id.strip(), upstream, upstream_model=at_upstream.strip() or None, sheet=sheet
                )
                source = prices.list_prices(tx, model.id)[0].source
            dialog.finish(f"{model.id} is added, priced from {source}. Plans may include it now.")


@st.dialog("Enter a price", width="medium", on_dismiss=dialog.close)
def price_dialog(model: Model, entries: list[PriceRow], now: datetime) -> None:
    """Ask for a price and from when it holds."""
    dialog.leave_if_closed()
    seen = dialog.as_opened(prices.describe(entries, now))
    current = prices.price_at(entries, now)
    sheet = PriceSheet.from_json(current.sheet) if current else None
    lost = " The present one has tiers by context size." if sheet and len(sheet.tiers) > 1 else ""
    st.html(
        f"<p>Calls of <b>{escape(model.id)}</b> that are admitted before keep their price. The price entered "
        f"here has no tiers.{lost}</p>"
    )
    with st.form("price_form", border=False):
        given = _price_fields({name: getattr(sheet.tiers[0], name) for name in _FIELDS} if sheet else {})
        left, right = st.columns(2)
        day = left.date_input(
            "Holds from (UTC)", None, key="price_from", format="YYYY-MM-DD", help="Empty: from now on"
        )
        at = right.time_input("At (UTC)", time(), key="price_at", step=900)
        pressed = dialog.form_button("Enter the price")
    if pressed:
        with shared.problems():
            wanted = _sheet(given)
            if wanted is None:
                raise InvalidInput("Give at least the prices of input and output.")
            start = datetime.combine(day, at, UTC) if isinstance(day, date) else None
            with shared.workspace().write() as tx:
                entry = prices.set_price(tx, model.id, wanted, valid_from=start, seen=seen)
            dialog.finish(f"The price of {model.id} holds from {entry.valid_from:%Y-%m-%d %H:%M:%S} UTC.")


@st.dialog("Change the model", width="medium", on_dismiss=dialog.close)
def change_dialog(model: Model) -> None:
    """Change where a model is served and its limits, as they were seen when the dialog opened."""
    dialog.leave_if_closed()
    workspace = shared.workspace()
    seen = dialog.as_opened(models.describe(model))
    with workspace.read() as tx:
        routed = models.has_route(tx, model.id)
        places = sorted({upstream.name for upstream in upstreams.list_upstreams(tx)} | {seen["upstream"]})
    where = (
        "Several upstreams serve it: `keydesk models route` says which." if routed else "Its next call goes by this."
    )
    st.html(f"<p>Callers go on to name <b>{escape(model.id)}</b>, at the same price. {shared.prose(where)}</p>")
    with st.form("change_model_form", border=False):
        upstream = st.selectbox(
            "Upstream", places, places.index(seen["upstream"]), key="changed_upstream", disabled=routed
        )
        called = st.text_input(
            "What the upstream calls it",
            seen["upstream_model"],
            key="changed_upstream_model",
            autocomplete="off",
            disabled=routed,
        )
        limits = {
            name: int(
                place.number_input(label, 0, models.LARGEST_TOKEN_COUNT, seen[name], key=f"changed_{name}", step=1)
            )
            for place, (name, label) in zip(st.columns(len(_LIMITS)), _LIMITS.items(), strict=True)
        }
        pressed = dialog.form_button("Save")
    if pressed:
        with shared.problems():
            with workspace.write() as tx:
                models.update_model(
                    tx,
                    model.id,
                    upstream=None if routed else upstream,
                    upstream_model=None if routed else called.strip(),
                    context_window=limits["context_window"],
                    default_output=limits["default_output"],
                    max_output=limits["max_output"],
                    seen=seen,
                )
            dialog.finish(f"{model.id} is saved.")


def _price_fields(present: Mapping[str, int]) -> dict[str, str]:
    """Draw the fields of a price, in USD per million tokens; return what was typed."""
    typed = {}
    columns = st.columns(2)
    for place, (name, label) in enumerate(_FIELDS.items()):
        typed[name] = columns[place % 2].text_input(
            f"{label}, USD per million tokens",
            usd(present[name]) if name in present else "",
            key=f"price_{name}",
            placeholder="as input" if place > 1 else "",
            autocomplete="off",
        )
    return typed


def _sheet(typed: Mapping[str, str]) -> PriceSheet | None:
    """Return the price that was typed; None if nothing was.

    Raises:
        InvalidInput: one of input and output is missing, or one is no amount.
    """
    given = {name: parse_usd(text, f"price of {name}") for name, text in typed.items() if text.strip()}
    if not given:
        return None
    if "input" not in given or "output" not in given:
        raise InvalidInput("Give the prices of both input and output (0 for embeddings).")
    return PriceSheet.flat(**given)


@st.dialog("Compare with public prices", width="large", on_dismiss=dialog.close)
def compare_dialog() -> None:
    """Show what genai-prices has otherwise by now, and what it would have done to last month; enter it on a click."""
    dialog.leave_if_closed()
    workspace = shared.workspace()
    with workspace.read() as tx:
        copied = prices.copied_prices(tx)
    updates = prices.price_updates(copied)
    if gone := [current.model_id for current, public in copied if public is None]:
        st.info(shared.plain(f"genai-prices has no price any more of {listed(gone)}: those in force stay."))
    if not updates:
        shared.empty("All copied prices are as genai-prices has them.", "Nothing is to be entered.", slim=True)
        return
    from toolkit.reports.price_effects import price_effects
    from toolkit.reports.spend import last_full_month

    with st.spinner("Replaying last month's calls …"):
        month = last_full_month(workspace.ledger)
        sides = ({each.model: each.before for each in updates}, {each.model: each.after for each in updates})
        effects = price_effects(workspace.ledger, month, *sides)
    rows = []
    for update in updates:
        effect = effects[update.model]
        words = "<br>".join(escape(in_words(change)) for change in price_changes(update.before, update.after))
        difference = effect.after - effect.before
        rows.append([escape(update.model), words, shared.count(effect.calls), shared.money(difference)])
    columns = [("Model", "left"), ("Change", "left"), (f"Calls in {month}", "right"), ("Would have cost more", "right")]
    st.html(shared.table(columns, rows))
    with st.form("compare_form", border=False):
        pressed = dialog.form_button(f"Enter {counted(len(updates), 'price')}")
    if pressed:
        with shared.problems():
            with workspace.write() as tx:
                entered = prices.refresh_prices(tx, updates)
            dialog.finish(f"{counted(len(entered), 'price')} entered. Calls admitted before keep theirs.")
