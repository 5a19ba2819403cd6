"""Requests: find calls by id, key, model, outcome and time."""

from collections.abc import Hashable, Iterable, Mapping
from datetime import datetime
from html import escape
from typing import Any, NamedTuple

import streamlit as st

from toolkit.admin import plans
from toolkit.admin.key_summaries import KeySummary, summaries
from toolkit.admin.models import list_models
from toolkit.core.policy import KeyStatus, Outcome
from toolkit.dashboard import dialog, shared
from toolkit.dashboard.request_details import OUTCOMES, detail_dialog, draw, seconds, text_of
from toolkit.reports import requests
from toolkit.store.transaction import Transaction, utc_now
from toolkit.workspace import Workspace

PAGE_SIZE = 25
ID_WIDTH = 150
"""Pixels of the column with the request's id."""

PERIODS = {"24 hours": 1, "7 days": 7, "30 days": 30, "90 days": 90, "All": 0}


class Filters(NamedTuple):
    """What is looked for; None is any. With a request id the rest does not count.

    A tuple, since it is compared with that of the run before, when this class was another object.

    Args:
        days: UTC days up to now; 0 is all.
    """

    request_id: str
    key: str | None
    model: str | None
    outcome: str | None
    days: int
    org: str | None


def main() -> None:
    """Draw the page."""
    workspace, now = shared.workspace(), utc_now()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Requests", anchor=False)
        st.space("stretch")
        st.button("Refresh", icon=":material/refresh:", key="request_refresh", help="Look for newer requests")
    filters = _filters(workspace)
    if filters.request_id:
        _one(workspace, filters.request_id, now)
        return
    if st.session_state.get(_FILTERS) != filters:
        st.session_state[_FILTERS], st.session_state[_PAGES] = filters, []
    pages: list[Place] = st.session_state[_PAGES]
    rows = requests.search(
        workspace.ledger,
        key=filters.key,
        model=filters.model,
        outcome=filters.outcome,
        period=shared.period(filters.days) if filters.days else None,
        org=filters.org,
        limit=PAGE_SIZE + 1,
        before=pages[-1] if pages else None,
    ).to_dict("records")
    if not rows:
        _nothing(filters)
        return
    with st.container(key="request_list", gap=None):
        _head()
        for row in rows[:PAGE_SIZE]:
            _row(row, now)
    _paging(pages, rows)
    name, request_id = dialog.shown() or ("", "")
    if name == "Request":
        detail_dialog(request_id)


Place = tuple[datetime, str]
"""Where a page ends: admission and id of its last row. The next goes on from there: to count past all rows before it
would cost more with each page, and show a row twice when a newer one has come."""

_PAGES = "request_pages"
_FILTERS = "request_filters"


def _filters(workspace: Workspace) -> Filters:
    with st.container(horizontal=True, vertical_alignment="center", key="request_search"):
        request_id = st.text_input(
            "Request id",
            key="id",
            bind="query-params",
            placeholder="Request id: req_…",
            label_visibility="collapsed",
            width=280,
        )
        period = st.segmented_control(
            "Period",
            list(PERIODS),
            default="7 days",
            required=True,
            key="request_period",
            label_visibility="collapsed",
            persist_state="session",
        )
    columns = st.columns(4 if workspace.actor.org_id is None else 3)
    org = workspace.actor.org_id
    if org is None:
        with columns.pop(0):
            chosen = shared.org_choice(workspace, "request_org")
            org = chosen.id if chosen else None
    with workspace.read() as tx:
        known = {summary.key.id: summary for summary in summaries(tx, org=org, deleted=True)}
        models = _models(tx, known.values())

    def key_label(key_id: str) -> str:
        if not key_id:
            return "Any key"
        summary = known[key_id]
        org_name = f" · {summary.org_name}" if org is None else ""
        gone = " (deleted)" if summary.key.status == KeyStatus.DELETED else ""
        return f"{summary.key.name}{gone}{org_name}"

    with columns[0]:
        key = st.selectbox("Key", ["", *known], format_func=key_label, key="request_key", label_visibility="collapsed")
    with columns[1]:
        model = st.selectbox(
            "Model",
            ["", *models],
            format_func=lambda each: each or "Any model",
            key="request_model",
            label_visibility="collapsed",
        )
    with columns[2]:
        outcome = st.selectbox(
            "Outcome",
            ["", *OUTCOMES],
            format_func=lambda each: OUTCOMES[Outcome(each)][0] if each else "Any outcome",
            key="request_outcome",
            label_visibility="collapsed",
        )
    return Filters(request_id.strip(), key or None, model or None, outcome or None, PERIODS[str(period)], org)


def _models(tx: Transaction, known: Iterable[KeySummary]) -> list[str]:
    """Return the models to choose from: for people of one organisation those of its keys' plans, deleted keys' too."""
    if tx.actor.org_id is None:
        return [model.id for model in list_models(tx)]
    return sorted({model for plan_id in {each.key.plan_id for each in known} for model in plans.models(tx, plan_id)})


def _nothing(filters: Filters) -> None:
    if filters.key or filters.model or filters.outcome or filters.days:
        shared.empty("No request matches.", "Take a filter away, or choose a longer period.")
    else:
        shared.empty(
            "No requests yet.",
            "Create a key on the page <b>Keys</b> and paste the <code>curl</code> that comes with its secret.",
        )


def _one(workspace: Workspace, request_id: str, now: datetime) -> None:
    found = requests.search(workspace.ledger, request_id=request_id, limit=1).to_dict("records")
    if not found:
        shared.empty(
            "No request has this id.",
            "Ids look like <code>req_…</code> and stand in the header <code>X-Request-ID</code> of every answer. "
            "A call is listed once it has ended.",
        )
        return
    with st.container(border=True):
        draw(workspace, found[0], now)


def _head() -> None:
    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small", key="row_head"):
        st.html('<span class="kd-sub">Request</span>', width=ID_WIDTH)
        st.html(
            '<div class="kd-row kd-request kd-head"><span>When</span><span>Key</span><span>Model</span>'
            '<span>Outcome</span><span class="kd-right">Tokens in</span><span class="kd-right">out</span>'
            '<span class="kd-right">Time</span><span class="kd-right">Cost</span></div>'
        )


def _row(row: Mapping[Hashable, Any], now: datetime) -> None:
    request_id = str(row["request_id"])
    stream = '<span class="kd-sub">stream</span>' if row["stream"] else ""
    refusal = escape(text_of(row["refusal"]))
    # In words, which a narrow column can wrap.
    reason = f'<span class="kd-sub" title="{refusal}">{refusal.replace("_", " ")}</span>' if refusal else ""
    cells = (
        shared.ago(row["admitted_at"].to_pydatetime(), now),
        f'{escape(row["key_label"])}<span class="kd-sub">{escape(row["org"])}</span>',
        f"{escape(text_of(row['model']) or '–')}{stream}",
        f"{shared.badge(*OUTCOMES[Outcome(row['outcome'])])}{reason}",
    )
    numbers = (
        shared.count(int(row["input_tokens"])),
        shared.count(int(row["output_tokens"])),
        seconds(row["duration_ms"]),
        shared.money(int(row["cost"]), decimals=6),
    )
    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small", key=f"row_{request_id}"):
        st.button(
            shared.plain(_short(request_id)),
            help=f"`{request_id}`",
            type="tertiary",
            key=f"open_{request_id}",
            on_click=dialog.show,
            args=("Request", request_id),
            width=ID_WIDTH,
        )
        st.html(
            '<div class="kd-row kd-request">'
            + "".join(f"<span>{cell}</span>" for cell in cells)
            + "".join(f'<span class="kd-right">{number}</span>' for number in numbers)
            + "</div>"
        )


def _short(request_id: str) -> str:
    # Ids begin with the time, so neighbours differ at their end.
    return request_id if len(request_id) <= 18 else f"{request_id[:8]}…{request_id[-6:]}"


def _paging(pages: list[Place], rows: list[dict[Hashable, Any]]) -> None:
    def older(last: Place) -> None:
        st.session_state[_PAGES] = [*pages, last]

    def newer() -> None:
        st.session_state[_PAGES] = pages[:-1]

    if not pages and len(rows) <= PAGE_SIZE:
        return
    shown = rows[:PAGE_SIZE]
    last = shown[-1]["admitted_at"].to_pydatetime(), str(shown[-1]["request_id"])
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="right"):
        first = len(pages) * PAGE_SIZE + 1
        st.html(
            f'<span class="kd-count">{first:,}–{first + len(shown) - 1:,}, newest first</span>',
            width="content",
        )
        st.button("Newer", icon=":material/chevron_left:", key="newer", disabled=not pages, on_click=newer)
        more = len(rows) > PAGE_SIZE
        st.button(
            "Older", icon=":material/chevron_right:", key="older", disabled=not more, on_click=older, args=(last,)
        )


if __name__ == "__main__":
    main()
