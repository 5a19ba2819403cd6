"""Alerts: who is told when a threshold is passed, what was noticed, and what became of it."""

from html import escape
from typing import Any

import streamlit as st

from toolkit.admin import organisations
from toolkit.alerts import destinations, evaluation, messages, queue
from toolkit.alerts.destinations import Delivered
from toolkit.core.policy import Role
from toolkit.core.wording import counted, listed
from toolkit.dashboard import alert_dialogs, dialog, filters, shared, table
from toolkit.store.tables import AlertDestination, Organisation
from toolkit.workspace import Workspace

MOST = 2_000
"""Lines of the log, the newest."""

STATES = {"All": None, "Waiting": "waiting", "Sent": "sent", "Given up": "given up", "Nobody": destinations.NOBODY}
KINDS = {
    "limit": "Limits of keys",
    "wallet": "Low wallets",
    "expiry": "Expiring keys",
    "upstream": "Upstreams that refuse us",
    "unpriced": "Models without a price",
    "drain": "A late ledger",
    "test": "Tests",
}


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Alerts", anchor=False)
        st.space("stretch")
        st.button("Refresh", icon=":material/refresh:", key="alerts_refresh", help="Look for newer alerts")
        if workspace.actor.role is not Role.ANALYST and st.button(
            "Add destination", type="primary", icon=":material/add:", key="add_destination", help="Who is to be told"
        ):
            dialog.show("Add destination")
    with workspace.read() as tx:
        orgs = {org.id: org for org in organisations.list_all(tx)}
        rows = destinations.list_all(tx)
        waiting, urls = destinations.count_open(tx), {row.id: destinations.shown_url(tx, row) for row in rows}
        nobody_sends, now = queue.is_free(tx), tx.now
        recent = destinations.history(tx, limit=MOST)
    if nobody_sends:
        st.warning(_nobody_sends(workspace), icon=":material/warning:")
    shared.heading("Destinations", "who is told")
    if rows:
        _destinations(rows, orgs, urls, waiting, _last_outcomes(recent))
    else:
        shared.empty("Nobody is told anything yet.", _first_step(workspace), slim=True)
    st.space("small")
    _log(recent, orgs, several=workspace.actor.org_id is None)
    st.space("small")
    _thresholds(orgs, told_how=workspace.actor.org_id is None)
    alert_dialogs.draw(workspace, {row.id: row for row in rows}, orgs, now)


def _nobody_sends(workspace: Workspace) -> str:
    if workspace.actor.org_id is not None:
        return "Alerts are not sent at the moment. Tell whoever runs Keydesk."
    return "No process sends alerts: what is noticed waits. Start one with `keydesk alerts run`, or `keydesk up`."


def _first_step(workspace: Workspace) -> str:
    if workspace.actor.role is Role.ANALYST:
        return "An admin names a receiver here."
    return "Press <b>Add destination</b> and give the URL of a webhook, such as one of your incident tool."


def _destinations(
    rows: list[AlertDestination],
    orgs: dict[str, Organisation],
    urls: dict[str, str],
    waiting: dict[str, int],
    last: dict[str, str],
) -> None:
    cells: list[dict[str, Any]] = [
        {
            "Name": row.name,
            "Alerts of": orgs[row.org_id].name if row.org_id else "everybody, and the platform",
            "Receiver": urls[row.id],
            "Waiting": waiting.get(row.id, 0),
            "Last": last.get(row.id, "nothing sent yet"),
            "Added": row.created_at,
            "By": row.created_by,
        }
        for row in rows
    ]
    table.draw(
        cells,
        key="destinations",
        alt="Destinations of alerts",
        on_open=lambda position: dialog.show("Destination", rows[position].id),
    )


def _last_outcomes(recent: list[Delivered]) -> dict[str, str]:
    """Return what became of the newest alert of each destination, by its id."""
    found: dict[str, str] = {}
    for one in recent:
        if one.delivery is not None:
            failed = f": {one.delivery.failure}" if one.delivery.failure else ""
            found.setdefault(one.delivery.destination_id, f"{one.state}{failed}")
    return found


def _log(recent: list[Delivered], orgs: dict[str, Organisation], *, several: bool) -> None:
    """Draw what was noticed, newest first, and what became of it."""
    shared.heading("What was noticed", f"the last {evaluation.KEPT.days} days")
    state = STATES[filters.one_of("state", "State", list(STATES), "All")]
    places = st.columns(2 if several else 1)
    kind = filters.choice(places[0], "kind", "Kind", KINDS, "Any kind")
    org = None
    if several:
        names = {each.id: each.name for each in orgs.values()}
        org = filters.choice(places[1], "org", "Organisation", names, "Any organisation")
    shown = [
        one
        for one in recent
        if state in {None, one.state} and kind in {None, one.alert.kind} and org in {None, one.alert.org_id}
    ]
    if not shown:
        shared.empty(
            "No alert matches." if recent else "Nothing has passed a threshold.",
            "Take a filter away." if recent else "Thresholds are below; a test of a destination is noticed, too.",
            slim=True,
        )
        return
    most = f", of the newest {MOST:,}" if len(recent) == MOST else ""
    st.html(f'<p class="kd-count">{counted(len(shown), "line")}{most}</p>')
    table.draw(
        [_cells(one, orgs, with_org=several) for one in shown],
        key="alerts",
        alt="Alerts, the newest first",
        on_open=lambda position: dialog.show("Alert", _id(shown[position])),
    )


def _id(one: Delivered) -> str:
    return f"{one.alert.id}/{one.delivery.destination_id if one.delivery else ''}"


def _cells(one: Delivered, orgs: dict[str, Organisation], *, with_org: bool) -> dict[str, Any]:
    org = {"Organisation": orgs[one.alert.org_id].name if one.alert.org_id else "Platform"} if with_org else {}
    return {
        "Noticed": one.alert.fired_at,
        "What": one.message,
        **org,
        "To": one.destination or "–",
        "State": one.state,
        "Tries": one.delivery.tries if one.delivery else 0,
        "Last failure": (one.delivery.failure if one.delivery else None) or "",
        "Type": messages.TYPES[one.alert.kind],
    }


def _thresholds(orgs: dict[str, Organisation], *, told_how: bool) -> None:
    """Draw what is looked at, and from when on it is told."""
    shared.heading("Thresholds", "each is told once, and again when its limit or its month changes")
    percents = listed([f"{each} %" for each in sorted(evaluation.THRESHOLDS)])
    low = [f"{escape(org.name)} {shared.money(org.low_balance)}" for org in orgs.values() if org.low_balance]
    how = ": <code>keydesk wallet low --org ORG --below USD</code> sets one" if told_how else ""
    wallets = ", ".join(low) or f"none is set{how}"
    rows = [
        ("key.limit", f"{percents} of a key's monthly limit are spent"),
        ("key.expires", f"a key expires within {evaluation.EXPIRES_WITHIN.days} days"),
        ("wallet.low", f"a balance falls below its threshold: {wallets}"),
        ("upstream.refuses", "a provider does not serve our account"),
        ("model.unpriced", "a model has no price that holds now"),
        ("drain.late", f"a row has waited {evaluation.LATE.seconds // 60} minutes for the ledger"),
    ]
    st.html(
        shared.table([("Type", "left"), ("Told when", "left")], [[f"<code>{each}</code>", said] for each, said in rows])
    )


if __name__ == "__main__":
    main()
