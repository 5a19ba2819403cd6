"""The dialogs of the page Month close: a month's statement or draft, its files, and the closing."""

from collections.abc import Mapping
from html import escape
from typing import Any

import streamlit as st

from toolkit.core.errors import KeydeskError
from toolkit.core.money import show_usd
from toolkit.core.policy import Role
from toolkit.core.words import check_confirmed
from toolkit.dashboard import dialog, shared
from toolkit.statements import month_close, render
from toolkit.statements.month_close import Standing
from toolkit.workspace import Workspace

FORMS = {"html": "text/html", "csv": "text/csv", "json": "application/json"}
_GROUPS = [("Key", "left"), ("Calls", "right"), ("At list price", "right"), ("Charged", "right")]


def draw(workspace: Workspace, orgs: Mapping[str, str]) -> None:
    """Draw the dialog that is open, if any."""
    name, subject = dialog.shown() or ("", "")
    org_id, _, month = subject.partition("/")
    if org_id not in orgs:
        return
    if name == "Statement":
        statement_dialog(workspace, org_id, month)
    elif name == "Close the month" and workspace.actor.role is Role.PLATFORM_ADMIN:
        close_dialog(workspace, org_id, month)


@st.dialog("Statement", width="large", position="right", on_dismiss=dialog.close)
def statement_dialog(workspace: Workspace, org_id: str, month: str) -> None:
    """Show what a month came to, or comes to so far, and whether it can be closed."""
    try:
        with st.spinner("Adding up …"):
            found = month_close.standing(workspace, org_id, month)
    except KeydeskError as error:
        st.error(shared.plain(str(error)), icon=":material/error:")
        return
    tone = {"closed": "good", "draft": "info"}.get(found.state, "warn")
    state = found.state if found.state in {"closed", "draft"} else "not its turn"
    st.html(f"<p><b>{escape(found.org)}</b>, {escape(month)} {shared.badge(state, tone)}</p>")
    if found.obstacle:
        st.warning(shared.plain(found.obstacle), icon=":material/hourglass_top:")
    if found.figures is None:
        return
    _figures(found.figures)
    with st.container(horizontal=True):
        for form, kind in FORMS.items():
            st.download_button(
                form.upper(),
                render.written(found.figures, form),
                f"keydesk-{month}-{org_id}{'' if found.state == 'closed' else '-draft'}.{form}",
                kind,
                icon=":material/download:",
                key=f"statement_{form}",
                on_click="ignore",
            )
        if (
            found.closable
            and workspace.actor.role is Role.PLATFORM_ADMIN
            and st.button("Close the month", icon=":material/lock:", type="primary", key="close_month")
        ):
            dialog.show("Close the month", f"{org_id}/{month}")
            st.rerun()
    if found.state == "closed":
        _check(workspace, found)


def _figures(figures: Mapping[str, Any]) -> None:
    wallet = figures["wallet"]
    parts = [("Opening", "opening"), ("Credits", "credits"), ("Adjustments", "adjustments")]
    st.html(
        shared.facts(
            [
                *((label, shared.money(wallet[name])) for label, name in parts),
                ("Charged", shared.money(-wallet["charged"])),
                ("Closing balance", f"<b>{shared.money(wallet['closing'])}</b>"),
            ]
        )
    )
    rows = [
        [
            escape(group["key"]),
            shared.count(group["calls"]),
            *(shared.money(group[n]) for n in ("list_cost", "charged")),
        ]
        for group in figures["keys"]
    ]
    totals = figures["totals"]
    sums = [shared.count(totals["calls"]), shared.money(totals["list_cost"]), shared.money(totals["charged"])]
    rows.append(["<b>All keys</b>", *(f"<b>{cell}</b>" for cell in sums)])
    st.html(shared.table(_GROUPS, rows))
    if words := month_close.say_written_off(dict(figures)):
        st.caption(shared.plain(words))


def _check(workspace: Workspace, found: Standing) -> None:
    st.caption(f"SHA-256 {found.sha256}")
    if not st.button("Check it", icon=":material/verified:", key="check_statement", help="Against audit log and books"):
        return
    with workspace.read() as tx:
        problems = month_close.verify(tx, month_close.find(tx, found.org_id, found.month))
    for problem in problems:
        st.error(shared.plain(problem), icon=":material/error:")
    if not problems:
        st.success("It is what was closed, by the audit log, and the books agree.", icon=":material/check_circle:")


@st.dialog("Close the month", width="medium", on_dismiss=dialog.close)
def close_dialog(workspace: Workspace, org_id: str, month: str) -> None:
    """Say what closing freezes, have the month typed, and close it."""
    dialog.leave_if_closed()
    with shared.problems():
        figures = month_close.draft(workspace, org_id, month)
        before = figures["before"]
        left_out = (
            f"<p><b>{before['calls']:,} calls of earlier months</b>, charged {show_usd(before['charged'])}, will never "
            "have a statement.</p>"
            if before and before["calls"]
            else ""
        )
        st.html(
            f'<div class="kd-warning"><b>{escape(month)} of {escape(figures["org"]["name"])}</b>: '
            f"{figures['totals']['calls']:,} calls, charged {show_usd(figures['totals']['charged'])}, balance "
            f"{show_usd(figures['wallet']['closing'])}. Nothing of it can be changed later; corrections stand in the "
            f"next statement.</div>{left_out}<p>To confirm, type the month: <b>{escape(month)}</b></p>"
        )
        with st.form("close_form", border=False):
            typed = st.text_input("Month", key="confirm_name", autocomplete="off")
            pressed = dialog.form_button("Close the month")
        if pressed:
            check_confirmed(typed, month, "month")
            month_close.close(workspace, org_id, month)
            dialog.finish(f"{month} of {figures['org']['name']} is closed.")
