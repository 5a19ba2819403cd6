"""Plans: which models a key may call and at which multiple of the price; what that comes to."""

from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any

import streamlit as st

from toolkit.admin import model_routes, models, plans
from toolkit.admin.key_summaries import KeySummary, summaries
from toolkit.core.hosted_tools import HostedTools
from toolkit.core.marked import Multiplier, Price, Usd
from toolkit.core.money import half_even
from toolkit.core.policy import Role
from toolkit.core.pricing import MILLION, PriceSheet, parse_multiplier, show_multiplier
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.wording import counted, listed
from toolkit.dashboard import dialog, shared, table
from toolkit.store import audit
from toolkit.store.tables import Plan
from toolkit.store.transaction import Transaction
from toolkit.workspace import Workspace

HOSTED_TOOLS = {
    HostedTools.LEAVE_OUT: "left out when merely offered, refused when insisted on",
    HostedTools.REFUSE: "refused",
}
PRICES = {
    "input": "Input",
    "cached_input": "Cached input",
    "output": "Output",
    "cache_write_5m": "Cache write, 5 min",
    "cache_write_1h": "Cache write, 1 h",
}
"""Columns of prices, by what a tier calls them."""
UNKNOWN_FIELDS = {
    UnknownFields.PASS: "passed on",
    UnknownFields.LEAVE_OUT: "left out",
    UnknownFields.REFUSE: "refused",
}


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    may_change = workspace.actor.role is Role.PLATFORM_ADMIN
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Plans", anchor=False)
        st.space("stretch")
        if may_change and st.button("Add plan", type="primary", icon=":material/add:", key="add_plan"):
            dialog.show("Add plan")
    with workspace.read() as tx:
        all_plans = plans.list_all(tx)
        included = {plan.id: plans.models(tx, plan.id) for plan in all_plans}
        holders = summaries(tx)
        shown = audit.names_shown(tx)
    keys = Counter(summary.key.plan_id for summary in holders)
    spent: Counter[str] = Counter()
    for summary in holders:
        spent[summary.key.plan_id] += summary.counted
    if not all_plans:
        step = "Press <b>Add plan</b>: a key needs one." if may_change else "A platform admin adds plans."
        shared.empty("There is no plan yet.", step)
    else:
        table.draw(
            [
                {
                    "Plan": plan.name,
                    "Multiplier": Multiplier(plan.multiplier),
                    "Models": len(included[plan.id]),
                    "Keys": keys[plan.id],
                    "Spent this month": Usd(spent[plan.id]),
                    "Includes": ", ".join(included[plan.id]),
                    "Added": plan.created_at,
                    "By": shown(plan.created_by),
                }
                for plan in all_plans
            ],
            key="plans",
            alt="Plans, by name",
            on_open=lambda position: dialog.show("Plan", all_plans[position].id),
        )
    _dialog(workspace, {plan.id: plan for plan in all_plans}, holders, may_change=may_change)


def _dialog(workspace: Workspace, by_id: Mapping[str, Plan], holders: list[KeySummary], *, may_change: bool) -> None:
    name, plan_id = dialog.shown() or ("", "")
    if name == "Plan" and plan_id in by_id:
        plan_dialog(workspace, by_id[plan_id], [each for each in holders if each.key.plan_id == plan_id], may_change)
    elif name == "Add plan" and may_change:
        add_dialog()
    elif name == "Change plan" and may_change and plan_id in by_id:
        change_dialog(by_id[plan_id], [each for each in holders if each.key.plan_id == plan_id])


@st.dialog("Plan", width="large", position="right", on_dismiss=dialog.close)
def plan_dialog(workspace: Workspace, plan: Plan, holders: list[KeySummary], may_change: bool) -> None:
    """Show what a key of the plan may call, and what that costs it."""
    with workspace.read() as tx:
        preview = _preview(tx, plan)
    hosted, unknown = HostedTools(plan.hosted_tools), UnknownFields(plan.unknown_fields)
    st.html(
        shared.facts(
            [
                ("Plan", f"<b>{escape(plan.name)}</b>"),
                ("Id", f"<code>{plan.id}</code>"),
                ("Multiplier", show_multiplier(plan.multiplier)),
                ("Keys", f"{len(holders):,}{_whose(holders)}"),
                ("Provider's own tools", HOSTED_TOOLS.get(hosted, str(hosted))),
                ("Unknown fields", UNKNOWN_FIELDS.get(unknown, str(unknown))),
            ]
        )
    )
    if may_change and st.button("Change", icon=":material/edit:", type="primary", key="change_plan"):
        dialog.show("Change plan", plan.id)
        st.rerun()
    shared.heading("What a key pays", f"USD per million tokens: the price in force, {show_multiplier(plan.multiplier)}")
    table.draw(preview, key="plan_prices", alt="What a key pays, by model and by tier of context size", on_open=None)


def _preview(tx: Transaction, plan: Plan) -> list[dict[str, Any]]:
    """Return what the plan's models cost a key: a row for each model and tier."""
    in_force = model_routes.prices_in_force(tx)
    rows = []
    for model in plans.models(tx, plan.id):
        entry = in_force.get(model)
        for tier in PriceSheet.from_json(entry.sheet).tiers if entry else (None,):
            amounts = {
                label: Price(half_even(getattr(tier, name) * plan.multiplier, MILLION)) if tier else None
                for name, label in PRICES.items()
            }
            rows.append({"Model": model, "Above tokens": tier.above if tier else None, **amounts})
    return rows


@st.dialog("Add a plan", width="medium", on_dismiss=dialog.close)
def add_dialog() -> None:
    """Ask for a new plan."""
    dialog.leave_if_closed()
    workspace = shared.workspace()
    with workspace.read() as tx:
        known = [model.id for model in models.list_models(tx)]
    with st.form("add_plan_form", border=False):
        name = st.text_input("Name", key="plan_name", placeholder="Standard", autocomplete="off")
        multiplier, included = _fields(known, "1", [])
        pressed = dialog.form_button("Add plan")
    if pressed:
        with shared.problems():
            with workspace.write() as tx:
                plan = plans.add(tx, name, parse_multiplier(multiplier), included)
            dialog.finish(f"The plan {plan.name} is added: keys may have it now.")


@st.dialog("Change the plan", width="medium", on_dismiss=dialog.close)
def change_dialog(plan: Plan, holders: list[KeySummary]) -> None:
    """Change models and multiplier, as they were seen when the dialog opened."""
    dialog.leave_if_closed()
    workspace = shared.workspace()
    with workspace.read() as tx:
        known = [model.id for model in models.list_models(tx)]
        opened: dict[str, Any] = dialog.as_opened({"plan": plans.describe(tx, plan), "effect": None})
    seen, effect = opened["plan"], opened["effect"]
    have = "has" if len(holders) == 1 else "have"
    st.html(
        f"<p>{counted(len(holders), 'key')}{_whose(holders)} {have} <b>{escape(plan.name)}</b>. "
        "Their next calls are judged and charged by what you save here; calls admitted before keep their price.</p>"
    )
    with st.form("change_plan_form", border=False):
        multiplier, included = _fields(known, seen["multiplier"].removesuffix("×"), seen["models"])
        if effect:
            st.html(effect[1])
        pressed = dialog.form_button("Save" if effect else "Show the effect")
    if pressed:
        with shared.problems():
            wanted = parse_multiplier(multiplier), included
            if effect and effect[0] == wanted:
                with workspace.write() as tx:
                    plans.update(tx, plan.id, multiplier=wanted[0], models=included, seen=seen)
                dialog.finish(f"The plan {plan.name} is saved.")
            with st.spinner("Replaying last month's calls …"):
                keys = frozenset(each.key.id for each in holders)
                opened["effect"] = wanted, _effect(workspace, keys, *wanted)
            st.rerun()


def _whose(holders: list[KeySummary]) -> str:
    """Return of which organisations keys are, as HTML."""
    orgs = sorted({each.org_name for each in holders})
    return f" of {escape(listed(orgs))}" if orgs else ""


def _effect(workspace: Workspace, keys: frozenset[str], multiplier: int, included: list[str]) -> str:
    """Return what the last month with calls would have cost the plan's keys, as HTML."""
    from toolkit.reports.plan_effects import plan_effect
    from toolkit.reports.spend import last_full_month

    month = last_full_month(workspace.ledger)
    effect = plan_effect(workspace.ledger, month, keys, multiplier, included)
    chosen = f"{show_multiplier(multiplier)} with {counted(len(included), 'model')}"
    if not effect.calls:
        return f"<p>{chosen}: these keys made no call in {month} that was charged.</p>"
    difference = effect.after - effect.before
    more = f"{shared.money(abs(difference))} {'more' if difference > 0 else 'less'}" if difference else "the same"
    gone = (
        f" {counted(effect.refused, 'call')}, charged {shared.money(effect.refused_cost)}, would have been refused for "
        "the model."
        if effect.refused
        else ""
    )
    return (
        f"<p>{chosen}: the {counted(effect.calls, 'call')} of {month} were charged {shared.money(effect.before)}, and "
        f"would have cost <b>{shared.money(effect.after)}</b>: {more}.{gone}</p>"
    )


def _fields(known: list[str], multiplier: str, included: list[str]) -> tuple[str, list[str]]:
    """Draw the fields of a plan; return the multiplier as typed, and the models."""
    typed = st.text_input(
        "Multiplier", multiplier, key="plan_multiplier", autocomplete="off", help="Of the price: 1, 1.25, 0.9 …"
    )
    chosen = st.multiselect("Models", known, included, key="plan_models", placeholder="at least one")
    return typed, list(chosen)


if __name__ == "__main__":
    main()
