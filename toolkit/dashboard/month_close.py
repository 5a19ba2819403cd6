"""Month close: which months wait to be closed, what their statements would say, and those that are closed."""

from typing import Any

import streamlit as st

from toolkit.admin import organisations
from toolkit.core.errors import Conflict
from toolkit.core.marked import Usd
from toolkit.core.period import billing_month
from toolkit.dashboard import dialog, filters, shared, statement_dialogs, table
from toolkit.statements import month_close
from toolkit.store import audit
from toolkit.store.tables import Statement

_BRIDGE = {"opening": "Opening", "credits": "Credits", "adjustments": "Adjustments", "closing": "Closing"}


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    st.title("Month close", anchor=False)
    with workspace.read() as tx:
        orgs = {org.id: org.name for org in organisations.list_all(tx)}
    org = workspace.actor.org_id
    if org is None:
        org = filters.choice(st.columns([1, 2])[0], "org", "Organisation", orgs, "All organisations")
    with workspace.read() as tx:
        due = month_close.due(tx, org=org)
        closed = month_close.list_all(tx, org=org)
        shown, this_month = audit.names_shown(tx), billing_month(tx.now)
    ids = {name: org_id for org_id, name in orgs.items()}
    _due([(each.month, each.org, ids[each.org]) for each in due], this_month, orgs, org)
    shared.heading("Closed", "the newest first; each is frozen, and its hash stands in the audit log")
    if closed:
        table.draw(
            [_cells(statement, orgs, shown(statement.closed_by), several=org is None) for statement in closed],
            key="statements",
            alt="Closed months, the newest first",
            on_open=lambda place: dialog.show("Statement", f"{closed[place].org_id}/{closed[place].month}"),
        )
    else:
        shared.empty("No month is closed yet.", "A platform admin closes each once it is over.", slim=True)
    statement_dialogs.draw(workspace, orgs)


def _due(waiting: list[tuple[str, str, str]], this_month: str, orgs: dict[str, str], org: str | None) -> None:
    """Draw the months that are over and wait, and below them the month under way of one organisation."""
    shared.heading("To be closed", "months that are over, the oldest first")
    if waiting:
        table.draw(
            [{"Month": month, "Organisation": name} for month, name, _ in waiting],
            key="months_due",
            alt="Months to be closed",
            on_open=lambda place: dialog.show("Statement", f"{waiting[place][2]}/{waiting[place][0]}"),
        )
    else:
        shared.empty("Nothing waits to be closed.", "Every month that is over has its statement.", slim=True)
    if org in orgs and st.button(
        f"Draft of {this_month}", icon=":material/draft:", key="draft", help="What it is so far"
    ):
        dialog.show("Statement", f"{org}/{this_month}")


def _cells(statement: Statement, orgs: dict[str, str], by: str, *, several: bool) -> dict[str, Any]:
    named = {"Organisation": orgs[statement.org_id]} if several else {}
    try:
        figures = month_close.figures_of(statement)
    except Conflict:  # somebody changed it: the dialog says so
        figures = None
    amounts = {shown: None if figures is None else Usd(figures["wallet"][name]) for name, shown in _BRIDGE.items()}
    return {
        "Month": statement.month,
        **named,
        "Calls": figures["totals"]["calls"] if figures else None,
        "Charged": None if figures is None else Usd(figures["totals"]["charged"]),
        **amounts,
        "Closed": statement.closed_at,
        "By": by,
    }


if __name__ == "__main__":
    main()
