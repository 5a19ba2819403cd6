"""Wallet: what there is, how long it lasts, and each payment and correction; of one organisation, or of all."""

from typing import TYPE_CHECKING, Any

import streamlit as st

from toolkit.admin import organisations, wallet
from toolkit.core.marked import Usd
from toolkit.core.period import Period
from toolkit.core.policy import Role
from toolkit.core.wording import counted
from toolkit.dashboard import dialog, filters, shared, table, wallet_dialogs
from toolkit.dashboard.figures import View
from toolkit.forecast.runway import WALLET_DAYS
from toolkit.reports.balance_chart import balance_over_time
from toolkit.store.tables import Organisation, WalletEntry
from toolkit.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

DAYS = {"30 days": 30, "90 days": 90, "1 year": 365}
KINDS = {"credit": "Credit", "adjustment": "Adjustment", "correction": "Correction of a call"}


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    with workspace.read() as tx:
        orgs = {org.id: org for org in organisations.list_all(tx)}
    head = st.container(horizontal=True, vertical_alignment="center")
    with head:
        st.title("Wallet", anchor=False)
        st.space("stretch")
    chosen: str | None = workspace.actor.org_id
    if chosen is None:
        names = {org.id: org.name for org in orgs.values()}
        chosen = filters.choice(st.columns([1, 2])[0], "org", "Organisation", names, "All organisations")
    if not orgs:
        shared.empty("There is no wallet yet.", "Each organisation has one: add the first on the page Organisations.")
        return
    ahead = _runways(workspace, View.of(workspace, chosen))
    runways = {row["org_id"]: row for row in ahead.astype(object).where(ahead.notna(), None).to_dict("records")}
    if chosen is None:
        _all(list(orgs.values()), runways)
    else:
        with head:
            _acts(workspace.actor.role)
        _one(workspace, orgs[chosen], runways.get(chosen))
        wallet_dialogs.draw(orgs[chosen])


def _acts(role: Role) -> None:
    if role is Role.ANALYST:
        return
    if st.button("Low balance", icon=":material/notifications:", key="low", help="From when on an alert is sent"):
        dialog.show("Low balance")
    if role is not Role.PLATFORM_ADMIN:
        return
    if st.button("Adjust", icon=":material/tune:", key="adjust", help="Correct the balance, with a reason"):
        dialog.show("Adjust")
    if st.button("Credit", icon=":material/add:", type="primary", key="credit", help="Book a payment that came in"):
        dialog.show("Credit")


@st.cache_data(max_entries=64, ttl=600, show_spinner="Looking ahead …")
def _runways(_workspace: Workspace, view: View) -> "pd.DataFrame":  # noqa: ARG001 - the view is what it is kept by
    """Return `outlook.month_end` per organisation."""
    from toolkit.forecast import outlook

    with _workspace.read() as tx:
        now = tx.now
    return outlook.month_end(_workspace.ledger, now)[1]


@st.cache_data(max_entries=64, ttl=600, show_spinner=False)
def _daily(_workspace: Workspace, view: View, org_id: str, period: Period, entries: int) -> "pd.DataFrame":  # noqa: ARG001
    """Return `balances.daily`; kept by the view and the number of entries, too."""
    from toolkit.reports import balances

    return balances.daily(_workspace.ledger, org_id, period)


def _lasts(runway: dict[Any, Any] | None) -> str:
    """Return how long a wallet lasts, in words; an organisation without keys spends nothing."""
    bounds = ("days_low", "days", "days_high")
    soonest, days, latest = (
        None if runway is None or runway[name] != runway[name] else runway[name] for name in bounds
    )
    if days is None:
        return f"over {WALLET_DAYS} days" if soonest is None else f"{soonest:.0f} days or more"
    words = counted(int(days), "day") if days else "not a day"
    if soonest is None or soonest == latest:
        return words
    return f"{words} ({soonest:.0f} to {latest:.0f})" if latest is not None else f"{words} ({soonest:.0f} at least)"


def _all(orgs: list[Organisation], runways: dict[str, dict[Any, Any]]) -> None:
    """Draw the wallets, the emptiest first."""
    orgs.sort(key=lambda org: (org.available, org.name))
    available, balance, held = (sum(getattr(org, name) for org in orgs) for name in ("available", "balance", "held"))
    low = sum(1 for org in orgs if _is_low(org))
    st.html(
        shared.cards(
            [
                (f"Available in {counted(len(orgs), 'wallet')}", shared.money(available), "what new calls may hold"),
                ("Balance", shared.money(balance), "credits and adjustments less charges"),
                ("Held", shared.money(held), "set aside for calls under way"),
                ("Low", shared.count(low), "below the threshold that was set, or empty"),
            ]
        )
    )

    def open_wallet(position: int) -> None:
        st.query_params["org"] = orgs[position].id

    table.draw(
        [
            {
                "Organisation": org.name,
                "Available": Usd(org.available),
                "Balance": Usd(org.balance),
                "Held": Usd(org.held),
                "Lasts": _lasts(runways.get(org.id)),
                "Low below": None if org.low_balance is None else Usd(org.low_balance),
                "State": _state(org),
            }
            for org in orgs
        ],
        key="wallets",
        alt="Wallets, the emptiest first",
        on_open=open_wallet,
    )


def _state(org: Organisation) -> str:
    if org.suspended:
        return "suspended"
    return "empty" if org.available <= 0 else "low" if _is_low(org) else ""


def _is_low(org: Organisation) -> bool:
    return org.available <= 0 or (org.low_balance is not None and org.balance < org.low_balance)


def _one(workspace: Workspace, org: Organisation, runway: dict[Any, Any] | None) -> None:
    """Draw one wallet: its figures, its course, its entries."""
    with workspace.read() as tx:
        entries = wallet.entries(tx, org.id)
        now = tx.now
    low = "no threshold is set" if org.low_balance is None else f"low below {shared.money(org.low_balance)}"
    note = f"<b>{low}</b>" if _is_low(org) and org.low_balance is not None else low
    st.html(
        shared.cards(
            [
                ("Available", shared.money(org.available, css="kd-neg" if org.available <= 0 else ""), _cure(org)),
                ("Balance", shared.money(org.balance), note),
                ("Held", shared.money(org.held), "set aside for calls under way"),
                ("Lasts", _lasts(runway), "at the pace of the days before, limits of keys kept"),
            ]
        )
    )
    shared.heading("Balance", "at the end of each day, UTC")
    days = DAYS[filters.one_of("period", "Period", list(DAYS), "90 days")]
    period = Period.days(days, now)
    course = _daily(workspace, View.of(workspace, org.id), org.id, period, len(entries))
    shared.plot(balance_over_time(course, org.low_balance), "balance", f"Balance of the wallet, last {days} days")
    shared.heading("Booked", "credits and adjustments, newest first; charges are on the page Requests")
    if not entries:
        shared.empty("Nothing was booked yet.", _first_step(workspace), slim=True)
        return
    table.draw(
        [_cells(entry) for entry in entries],
        key="wallet_entries",
        alt="Credits and adjustments, the newest first",
        on_open=lambda position: dialog.show("Entry", entries[position].id),
    )


def _cure(org: Organisation) -> str:
    if org.suspended:
        return "<b>suspended: all calls are refused</b>"
    return "<b>calls are refused until it is credited</b>" if org.available <= 0 else "balance less what is held"


def _first_step(workspace: Workspace) -> str:
    if workspace.actor.role is Role.PLATFORM_ADMIN:
        return "Press <b>Credit</b> and book the first payment: without money no call is admitted."
    return "A platform admin books payments."


def _cells(entry: WalletEntry) -> dict[str, Any]:
    return {
        "Booked": entry.created_at,
        "Kind": KINDS["correction" if entry.request_id else entry.kind],
        "Amount": Usd(entry.amount),
        "Reference": entry.reference,
        "Why": entry.reason,
        "By": entry.created_by,
    }


if __name__ == "__main__":
    main()
