"""One request in full: what became of it, and how its cost came about."""

import json
from collections.abc import Hashable, Mapping
from datetime import datetime
from decimal import Decimal
from html import escape
from typing import Any

import streamlit as st

from toolkit.admin.prices import list_prices
from toolkit.core.errors import RefusalType
from toolkit.core.money import NANO, usd
from toolkit.core.policy import Outcome
from toolkit.core.pricing import MILLION, show_multiplier
from toolkit.dashboard import cost_breakdown, dialog, shared
from toolkit.reports import requests
from toolkit.statements import corrections
from toolkit.store.transaction import utc_now
from toolkit.workspace import Workspace

OUTCOMES = {
    Outcome.COMPLETED: ("Completed", "good"),
    Outcome.REFUSED: ("Refused", "warn"),
    Outcome.UPSTREAM_ERROR: ("Upstream error", "bad"),
    Outcome.ABORTED: ("Aborted", "quiet"),
    Outcome.ABANDONED: ("Abandoned", "quiet"),
    Outcome.QUEUE_FULL: ("Queue full", "warn"),
}
MEANING = {
    Outcome.COMPLETED: "The upstream answered and the caller got all of it.",
    Outcome.REFUSED: "The gateway said no before calling the upstream; nothing was charged.",
    Outcome.UPSTREAM_ERROR: "The upstream failed.",
    Outcome.ABORTED: "The caller left before the end; what had been produced was charged.",
    Outcome.ABANDONED: "The gateway process died during the call; its hold was released and nothing was charged.",
    Outcome.QUEUE_FULL: "Too many calls were under way to the upstream; it was not called, and nothing was charged.",
}
REASON = {
    RefusalType.MODEL_NOT_ALLOWED: "The model is not in the key's plan or model scope.",
    RefusalType.API_KEY_QUOTA_EXCEEDED: "The key's monthly limit has no room for this call.",
    RefusalType.BILLING_SHORTFALL: "The organisation's wallet has no room for this call.",
    RefusalType.MODEL_NOT_FOUND: "There is no such model.",
    RefusalType.WRONG_DIALECT: "The model is served under another provider's paths.",
    RefusalType.UNSUPPORTED_FEATURE: "The request asks for something that cannot be priced or kept apart.",
    RefusalType.INVALID_REQUEST: "The request was malformed.",
    RefusalType.REQUEST_TOO_LARGE: "The request was over the size limit.",
    RefusalType.UPSTREAM_ERROR: "The upstream answered with an error.",
    RefusalType.UPSTREAM_TIMEOUT: "The upstream took too long.",
    RefusalType.UPSTREAM_OVERLOADED: "The upstream had too much to do.",
    RefusalType.UPSTREAM_RATE_LIMITED: "The upstream limits how much this gateway may ask for in a time.",
    RefusalType.INTERNAL_ERROR: "The gateway itself failed on this call; its log says why.",
}
SOURCE = {"reported": "reported by the upstream", "estimated": "estimated, the upstream's cannot be relied upon"}
NOTES = {"Doubt": "usage_doubt", "Upstream's report": "provider_usage", "Beyond the hold for": "overrun_reason"}
"""Facts of a charge that only some rows have, by their column."""


@st.dialog("Request", width="medium", position="right", on_dismiss=dialog.close)
def detail_dialog(request_id: str) -> None:
    """Show one request."""
    dialog.leave_if_closed()
    workspace = shared.workspace()
    found = requests.search(workspace.ledger, request_id=request_id, limit=1).to_dict("records")
    if found:
        draw(workspace, found[0], utc_now())


def draw(workspace: Workspace, row: Mapping[Hashable, Any], now: datetime) -> None:
    """Draw one request.

    Args:
        workspace: with the rights of whoever looks.
        row: of `requests.search`.
        now: by which it was so long ago.
    """
    outcome = Outcome(row["outcome"])
    refusal, answer_id = text_of(row["refusal"]), text_of(row["response_id"])
    served = text_of(row["service_tier"]), text_of(row["inference_geo"])
    meaning = REASON.get(RefusalType(refusal), "") if refusal and outcome is not Outcome.QUEUE_FULL else ""
    at = row["admitted_at"].to_pydatetime()
    what = [
        ("Request id", f"<code>{escape(row['request_id'])}</code>"),
        ("Outcome", f"{shared.badge(*OUTCOMES[outcome])} HTTP {row['status']}"),
        ("", f'<span class="kd-muted">{MEANING[outcome]} {meaning}</span>'),
    ]
    if refusal:
        what.append(("Reason", f"<code>{escape(refusal)}</code>"))
    if text_of(row["error"]):
        what.append(("Detail", escape(text_of(row["error"]))))
    what += [
        ("When", f"{shared.utc(at)} · {shared.ago(at, now)}"),
        ("Key", f'{escape(row["key_label"])} <span class="kd-muted">{escape(row["key_id"])}</span>'),
        ("Organisation", escape(row["org"])),
        ("Model", escape(text_of(row["model"]) or "–")),
        ("Tags", escape(_tags(row["tags"]))),
        ("Call", f"{escape(row['dialect'])} · {escape(row['endpoint'])}{' · stream' if row['stream'] else ''}"),
        ("Upstream", escape(text_of(row["upstream"]) or "not called")),
        ("Served by", escape(" · ".join(filter(None, served)) or "–")),
        ("Upstream's id", f"<code>{escape(answer_id)}</code>" if answer_id else "–"),
        ("First byte after", seconds(row["first_byte_ms"])),
        ("Took", seconds(row["duration_ms"])),
    ]
    st.html(shared.facts(what))
    st.space("small")
    shared.heading("Cost", f"prices of {escape(row['plan'])}, fixed when the call was admitted")
    _cost(workspace, row)


def _cost(workspace: Workspace, row: Mapping[Hashable, Any]) -> None:
    parts = cost_breakdown.of(row)
    columns = [("", "left"), ("Tokens", "right"), ("USD per million", "right"), ("Amount", "right")]
    lines = [
        [
            escape(line.label),
            shared.count(line.tokens) if line.tokens is not None else "",
            f"${usd(line.price)}" if line.tokens is not None else "per request",
            shared.exact_money(line.amount),
        ]
        for line in parts.lines
    ]
    if parts.multiplier != MILLION:
        lines.append(["Base price", "", "", shared.exact_money(parts.base)])
        multiplier = f"{show_multiplier(parts.multiplier)} price multiplier of {escape(row['plan'])}"
        lines.append([multiplier, "", "", shared.exact_money(parts.exact)])
    charged = shared.exact_money(Decimal(int(row["cost"])) / NANO)
    lines.append(["<b>Charged</b>", "", "", f"<b>{charged}</b>"])
    with workspace.read() as tx:
        entries = corrections.of_call(tx, row["request_id"])
        sources = {price.id: price.source for price in list_prices(tx)}
    present = int(row["cost"])
    for entry in entries:
        present -= entry.amount
        why = f'<span class="kd-muted">{shared.utc(entry.created_at)}, {escape(entry.reason)}</span>'
        amount = shared.exact_money(Decimal(present) / NANO)
        lines.append([f"<b>Corrected to</b> {why}", "", "", f"<b>{amount}</b>"])
    st.html(shared.table(columns, lines))
    if parts.cost != int(row["cost"]):
        st.error(shared.plain(f"These lines make ${usd(parts.cost)}. Run keydesk reconcile."), icon=":material/error:")
    price_id = text_of(row["price_id"])
    rest = [
        ("Held before the call", shared.money(int(row["held"]))),
        ("Beyond the hold", shared.money(int(row["overrun"]))),
        ("Reasoning tokens", f"{shared.count(int(row['reasoning_tokens']))} of the output"),
        ("Token counts", SOURCE.get(text_of(row["usage_source"]), "–")),
        *[(name, escape(text_of(row[column]))) for name, column in NOTES.items() if text_of(row[column])],
        ("Price entry", f"<code>{escape(price_id)}</code> {escape(sources.get(price_id, ''))}" if price_id else "–"),
    ]
    st.html(shared.facts(rest))


def text_of(value: object) -> str:
    """Return a text column's value; a missing one comes out of a data frame as a float."""
    return value if isinstance(value, str) else ""


def _tags(value: object) -> str:
    """Return a call's tags as its caller may have written them: `feature=rerank, team=search`."""
    tags = json.loads(text_of(value) or "{}")
    return ", ".join(f"{name}={text}" for name, text in tags.items()) or "–"


def seconds(milliseconds: Any) -> str:
    """Return a duration in seconds as HTML; "–" for a missing one, which comes out of a data frame as NaN."""
    if not isinstance(milliseconds, int | float) or milliseconds != milliseconds:
        return "–"
    return f'<span class="kd-num">{milliseconds / 1000:,.2f}\u202fs</span>'
