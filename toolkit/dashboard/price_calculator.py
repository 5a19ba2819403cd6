"""What a call would cost: tokens of each kind, a model and a plan in; the lines of its charge out."""

from collections.abc import Hashable, Mapping
from dataclasses import asdict
from decimal import Decimal
from html import escape
from typing import Any, cast

import streamlit as st

from toolkit.admin import plans
from toolkit.core.money import NANO
from toolkit.core.pricing import PriceSheet, charge, show_multiplier
from toolkit.core.usage import Usage
from toolkit.dashboard import cost_breakdown, filters, shared
from toolkit.store.tables import Price
from toolkit.store.transaction import Transaction

MOST = 100_000_000
"""Tokens of one kind; no context window comes near."""

KINDS = {
    "fresh": "Input",
    "cached": "Read from cache",
    "write_5m": "Cache write, 5 min",
    "write_1h": "Cache write, 1 h",
    "output": "Output",
}
_EXAMPLE = {"fresh": 10_000, "output": 1_000}


def draw(tx: Transaction, in_force: Mapping[str, Price]) -> None:
    """Draw the fields and what comes of them.

    Args:
        tx: of whoever looks.
        in_force: the present price of each model that has one, by the model's id.
    """
    if not in_force:
        shared.empty("No model has a price.", "A platform admin enters one.", slim=True)
        return
    by_id = {plan.id: plan for plan in plans.list_all(tx)}
    left, right = st.columns(2)
    model = str(left.selectbox("Model", list(in_force), key="calculated_model"))
    names = filters.distinct({plan.id: plan.name for plan in by_id.values()})
    plan_id = right.selectbox(
        "Plan",
        ["", *by_id],
        format_func=lambda each: f"{names[each]}, {show_multiplier(by_id[each].multiplier)}" if each else "None: 1×",
        key="calculated_plan",
    )
    tokens = {
        kind: int(place.number_input(label, 0, MOST, _EXAMPLE.get(kind, 0), step=1_000, key=f"calculated_{kind}"))
        for place, (kind, label) in zip(st.columns(len(KINDS)), KINDS.items(), strict=True)
    }
    usage = Usage(
        input_tokens=tokens["fresh"] + tokens["cached"] + tokens["write_5m"] + tokens["write_1h"],
        cached_input_tokens=tokens["cached"],
        cache_write_5m_tokens=tokens["write_5m"],
        cache_write_1h_tokens=tokens["write_1h"],
        output_tokens=tokens["output"],
    )
    multiplier = by_id[plan_id].multiplier if plan_id else 1_000_000
    st.html(lines(PriceSheet.from_json(in_force[model].sheet), usage, multiplier))


def lines(sheet: PriceSheet, usage: Usage, multiplier: int) -> str:
    """Return a charge line by line, as HTML; the last line is what `charge` makes of it."""
    tier = sheet.tier(usage.input_tokens)
    at = {f"{name}_price": price for name, price in asdict(tier).items() if name != "above"}
    row = asdict(usage) | at | {"request_price": sheet.request, "multiplier": multiplier}
    found = cost_breakdown.of(cast("dict[Hashable, Any]", row))
    rows = [
        [
            escape(line.label),
            shared.count(line.tokens) if line.tokens is not None else "",
            shared.money(line.price) + (" per million" if line.tokens is not None else ""),
            shared.exact_money(line.amount),
        ]
        for line in found.lines
    ]
    if multiplier != 1_000_000:
        rows.append([f"Plan, {show_multiplier(multiplier)}", "", "", shared.exact_money(found.exact - found.base)])
    charged = charge(usage, sheet, multiplier)
    rows.append(["<b>Charge</b>", "", "", f"<b>{shared.exact_money(Decimal(charged) / NANO)}</b>"])
    columns = [("What", "left"), ("Tokens", "right"), ("Price", "right"), ("Amount", "right")]
    note = (
        f'<p class="kd-muted">Prices of a request with more than {tier.above:,} input tokens.</p>' if tier.above else ""
    )
    return shared.table(columns, rows) + note
