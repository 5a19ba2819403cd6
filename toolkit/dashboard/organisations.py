"""Organisations: who they are, what they have and spend, and whether their keys may call."""

from datetime import timedelta
from html import escape
from typing import Any

import streamlit as st

from toolkit.admin import org_summaries, organisations
from toolkit.admin.org_summaries import OrgSummary
from toolkit.core.errors import KeydeskError
from toolkit.core.marked import Usd
from toolkit.core.period import Period
from toolkit.core.wording import counted
from toolkit.dashboard import dialog, figures, filters, shared, table
from toolkit.dashboard.figures import View

STATES = {"All": None, "Active": False, "Suspended": True}


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Organisations", anchor=False)
        st.space("stretch")
        if st.button("Add organisation", type="primary", icon=":material/add:", key="add_org"):
            dialog.show("Add organisation")
    with workspace.read() as tx:
        found = {summary.org.id: summary for summary in org_summaries.summaries(tx)}
    if found:
        state = STATES[filters.one_of("state", "State", list(STATES), "All")]
        _list([each for each in found.values() if state in {None, each.org.suspended}])
    else:
        shared.empty("There is no organisation yet.", "Press <b>Add organisation</b>, then credit its wallet.")
    _dialog(found)


def _list(shown: list[OrgSummary]) -> None:
    if not shown:
        shared.empty("No organisation matches.", "Choose another state.")
        return
    table.draw(
        [_cells(summary) for summary in shown],
        key="organisations",
        alt="Organisations, by name",
        on_open=lambda position: dialog.show("Organisation", shown[position].org.id),
    )


def _cells(summary: OrgSummary) -> dict[str, Any]:
    org = summary.org
    return {
        "Name": org.name,
        "State": "suspended" if org.suspended else "active",
        "Available": Usd(org.available),
        "Spent this month": Usd(summary.spent),
        "Keys that may call": summary.keys,
        "People": summary.operators,
        "Calls under way": summary.under_way,
        "Added": org.created_at,
        "By": org.created_by,
    }


def _dialog(found: dict[str, OrgSummary]) -> None:
    name, org_id = dialog.shown() or ("", "")
    if name == "Add organisation":
        add_dialog()
    elif name in DIALOGS and org_id in found:
        DIALOGS[name](found[org_id])


@st.dialog("Add an organisation", on_dismiss=dialog.close)
def add_dialog() -> None:
    """Ask for the name of a new one."""
    dialog.leave_if_closed()
    st.html("<p>It begins with an empty wallet: its keys may call once a payment is booked on the page Wallet.</p>")
    with st.form("add_org_form", border=False):
        name = st.text_input("Name", key="org_name", autocomplete="off", placeholder="Acme")
        pressed = dialog.form_button("Add organisation")
    if pressed:
        with shared.problems():
            with shared.workspace().write() as tx:
                org = organisations.add(tx, name)
            dialog.finish(f"{org.name} is added. Next: credit its wallet, and invite its people.")


@st.dialog("Organisation", width="medium", position="right", on_dismiss=dialog.close)
def org_dialog(summary: OrgSummary) -> None:
    """Show an organisation; lead to what can be done with it."""
    org = summary.org
    state = shared.badge("suspended", "bad") if org.suspended else shared.badge("active", "good")
    st.html(
        shared.facts(
            [
                ("Name", f"<b>{escape(org.name)}</b> {state}"),
                ("Id", f"<code>{org.id}</code>"),
                ("Available", shared.money(org.available)),
                ("Spent this month", shared.money(summary.spent)),
                ("Keys that may call", shared.count(summary.keys)),
                ("People", shared.count(summary.operators)),
                ("Calls under way", shared.count(summary.under_way)),
                ("Added", f"{shared.utc(org.created_at)} by {escape(org.created_by)}"),
            ]
        )
    )
    with st.container(horizontal=True):
        for label, icon in (("Rename", "edit"), ("Resume", "play_circle") if org.suspended else ("Suspend", "block")):
            if st.button(label, icon=f":material/{icon}:", key=label.lower()):
                dialog.show(label, org.id)
                st.rerun()
        if st.button("Wallet", icon=":material/payments:", key="open_wallet"):
            dialog.close()
            st.switch_page("toolkit/dashboard/wallet.py", query_params={"org": org.id})


@st.dialog("Rename the organisation", on_dismiss=dialog.close)
def rename_dialog(summary: OrgSummary) -> None:
    """Ask for another name; everything else goes by the id."""
    dialog.leave_if_closed()
    org = summary.org
    with st.form("rename_form", border=False):
        name = st.text_input("Name", org.name, key="org_name", autocomplete="off")
        reason = _reason()
        pressed = dialog.form_button("Rename")
    if pressed:
        with shared.problems():
            with shared.workspace().write() as tx:
                organisations.rename(tx, org.id, name, reason=reason)
            dialog.finish(f"{org.name} is now called {name.strip()}.")


@st.dialog("Suspend the organisation", on_dismiss=dialog.close)
def suspend_dialog(summary: OrgSummary) -> None:
    """Say what stops, have the name typed, and suspend."""
    dialog.leave_if_closed()
    org, workspace = summary.org, shared.workspace()
    with workspace.read() as tx:
        minute = tx.now.replace(second=0, microsecond=0) + timedelta(minutes=1)  # so that it is asked once a minute
    try:
        day = Period(minute - timedelta(days=1), minute)
        lately = (
            f"made {counted(figures.totals(workspace, View.of(workspace, org.id), day).calls, 'call')} in the last "
        )
        lately += "24 hours"
    except KeydeskError:  # it must be stopped whether or not the ledger answers
        lately = "what they did in the last 24 hours the ledger does not say now"
    st.html(
        f'<div class="kd-warning"><b>All calls stop.</b> {counted(summary.keys, "key")} of <b>{escape(org.name)}</b> '
        f"may call now and {lately}; from the next one on each is refused, until you resume it.</div>"
        f"<p>{counted(summary.under_way, 'call')} under way will end and be charged. Keys, wallet, history and "
        "sign-ins stay.</p>"
        f"<p>To confirm, type its name: <b>{escape(org.name)}</b></p>"
    )
    with st.form("suspend_form", border=False):
        typed = st.text_input("Name of the organisation", key="confirm_name", autocomplete="off")
        reason = _reason()
        pressed = dialog.form_button("Suspend", danger=True)
    if pressed:
        with shared.problems():
            with workspace.write() as tx:
                organisations.suspend(tx, org.id, confirm=typed, reason=reason)
            dialog.finish(f"{org.name} is suspended: its next calls are refused.")


@st.dialog("Resume the organisation", on_dismiss=dialog.close)
def resume_dialog(summary: OrgSummary) -> None:
    """Let its keys call again."""
    dialog.leave_if_closed()
    org = summary.org
    st.html(
        f"<p>{counted(summary.keys, 'key')} of <b>{escape(org.name)}</b> may call again, each with the secret, "
        f"limit and spend that it had. {shared.money(org.available)} are available.</p>"
    )
    with st.form("resume_form", border=False):
        reason = _reason()
        pressed = dialog.form_button("Resume")
    if pressed:
        with shared.problems():
            with shared.workspace().write() as tx:
                organisations.resume(tx, org.id, confirm=org.name, reason=reason)
            dialog.finish(f"{org.name} is resumed: its keys may call again.")


def _reason() -> str:
    return st.text_input("Reason (for the audit log)", key="reason", placeholder="optional", autocomplete="off")


DIALOGS = {
    "Organisation": org_dialog,
    "Rename": rename_dialog,
    "Suspend": suspend_dialog,
    "Resume": resume_dialog,
}


if __name__ == "__main__":
    main()
