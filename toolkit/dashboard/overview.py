"""Overview: wallet, this month, spend over time, top keys and models, refusals; new calls show by themselves."""

from datetime import datetime, timedelta
from html import escape
from typing import TYPE_CHECKING

import streamlit as st

from toolkit.core.money import show_usd, usd
from toolkit.core.period import Period
from toolkit.core.policy import Role
from toolkit.dashboard import figures, shared
from toolkit.dashboard.figures import View
from toolkit.reports import charts
from toolkit.store.transaction import utc_now
from toolkit.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

NUMBERS_EVERY = "2s"
CHARTS_EVERY = "20s"
"""How often numbers and charts are drawn anew. A call's cost must be on screen within 3 seconds."""

TOP = 8


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    org_id, count = shared.page_head(workspace, "Overview", "overview")
    month_cards(org_id)
    if not _has_calls(workspace, org_id):
        first_step(org_id)
        return
    spend_over_time(org_id, count)
    st.space("small")
    top_lists(org_id, count)
    st.space("small")
    refusal_tables(org_id, count)


def _has_calls(workspace: Workspace, org_id: str | None) -> bool:
    ever = figures.totals(workspace, View.of(workspace, org_id), Period.all())
    return bool(ever.calls or ever.refused)


@st.fragment(run_every=NUMBERS_EVERY)
def first_step(org_id: str | None) -> None:
    """Say how the first call comes about; when it is there, draw the whole page."""
    with shared.problems():
        workspace = shared.workspace()
        if _has_calls(workspace, org_id):
            st.rerun()
        if workspace.actor.role is Role.ANALYST:
            shared.empty("No calls yet.", "Once an app calls with one of the keys, its spend shows up here by itself.")
            return
        shared.empty(
            "No calls yet.",
            "Next step: create a key on the page <b>Keys</b>, then paste the <code>curl</code> that comes with its "
            "secret. The spend is here within three seconds of the call.",
        )
        with st.container(horizontal=True, horizontal_alignment="center"):
            st.page_link("toolkit/dashboard/keys.py", label="Go to Keys", icon=":material/key:")


@st.fragment(run_every=NUMBERS_EVERY)
def month_cards(org_id: str | None) -> None:
    """Draw wallet, spend, calls and refusals of this month."""
    with shared.problems():
        workspace, now = shared.workspace(), utc_now()
        wallet = figures.wallets(workspace, org_id)
        month, before, point = figures.this_month(workspace, View.of(workspace, org_id), now)
        label = f"Available in {wallet.count} wallets" if wallet.count > 1 else "Wallet available"
        state = f"{shared.money(wallet.balance)} balance − {shared.money(wallet.held)} held"
        spent_up = wallet.count > 0 and wallet.available <= 0
        if not wallet.count:
            state = "no organisation yet"
        elif spent_up:
            cure = "" if workspace.actor.role is Role.PLATFORM_ADMIN else "ask a platform admin to "
            state += f" · <b>calls are refused: {cure}credit the wallet</b>"
        tokens = f"{shared.short_count(month.input_tokens)} tokens in, {shared.short_count(month.output_tokens)} out"
        errors = f"{month.errors:,} upstream error{'s' if month.errors != 1 else ''}"
        st.html(
            shared.cards(
                [
                    (label, shared.money(wallet.available, css="kd-neg" if spent_up else ""), state),
                    (f"Spent in {now:%B}", shared.money(month.cost), _change(month.cost, before.cost, point)),
                    (f"Calls in {now:%B}", shared.count(month.calls), tokens),
                    (f"Refused in {now:%B}", shared.count(month.refused), errors),
                ]
            )
        )


def _change(cost: int, before: int, point: datetime) -> str:
    last = f"{point - timedelta(microseconds=1):%-d %b}"
    if not before:
        return f"nothing by {last}"
    percent = (cost - before) * 100 // before
    sign = "+" if percent > 0 else "−" if percent < 0 else "±"
    return f"<b>{sign}{abs(percent):,}\u202f%</b> against {shared.money(before)} by {last}"


@st.fragment(run_every=CHARTS_EVERY)
def spend_over_time(org_id: str | None, days: int) -> None:
    """Draw spend per key over time."""
    with shared.problems():
        workspace = shared.workspace()
        shared.heading("Spend per key", f"each day in UTC, last {days} days")
        table = figures.spend(workspace, View.of(workspace, org_id), ("day", "key"), shared.period(days))
        shared.plot(charts.spend_over_time(table, by="key", height=340), "spend_over_time", "Spend per key over time")


@st.fragment(run_every=NUMBERS_EVERY)
def top_lists(org_id: str | None, days: int) -> None:
    """Draw the keys and models that cost most."""
    with shared.problems():
        workspace = shared.workspace()
        view, period = View.of(workspace, org_id), shared.period(days)
        several_orgs = workspace.actor.org_id is None and org_id is None
        left, right = st.columns(2, gap="large")
        with left:
            shared.heading("Top keys", f"last {days} days")
            _top(figures.spend(workspace, view, ("key",), period), "Key", several_orgs)
        with right:
            shared.heading("Top models", f"last {days} days")
            _top(figures.spend(workspace, view, ("model",), period), "Model", several_orgs)


def _top(table: "pd.DataFrame", what: str, several_orgs: bool) -> None:
    if table.empty:
        shared.empty("No calls in this period.", "Choose a longer period above.")
        return
    largest = int(table["cost"].max()) or 1
    rows = []
    shown = TOP if len(table) > TOP + 1 else TOP + 1  # a single one more needs no more room than its name
    for row in table.head(shown).to_dict("records"):
        name = escape(str(row["key_label"] if what == "Key" else row["model"]))
        org = f'<span class="kd-sub">{escape(str(row["org"]))}</span>' if what == "Key" and several_orgs else ""
        cost = int(row["cost"])
        share = shared.bar([(cost / largest, "kd-fill")], f"${usd(cost)}")
        rows.append([f"{name}{org}", share, shared.short_count(int(row["calls"])), shared.money(cost)])
    rest = table.iloc[shown:]
    if len(rest):
        calls, cost = int(rest["calls"].sum()), int(rest["cost"].sum())
        rows.append(
            [f'<span class="kd-muted">{len(rest)} more</span>', "", shared.short_count(calls), shared.money(cost)]
        )
    columns = [(what, "left"), ("", "share"), ("Calls", "right"), ("Spend", "right")]
    total = f"{show_usd(int(table['cost'].sum()))} in all"
    st.html(shared.table(columns, rows) + f'<p class="kd-count kd-right">{total}</p>')


@st.fragment(run_every=CHARTS_EVERY)
def refusal_tables(org_id: str | None, days: int) -> None:
    """Draw why calls were refused, and whose."""
    with shared.problems():
        workspace, now = shared.workspace(), utc_now()
        table = figures.refusals(workspace, View.of(workspace, org_id), shared.period(days))
        shared.heading("Refusals by reason", f"last {days} days; refused calls cost nothing")
        if table.empty:
            shared.empty("No call was refused in this period.", "Nothing to do.")
            return
        left, right = st.columns(2, gap="large")
        with left:
            height = 40 + 52 * min(table["refusal"].nunique(), TOP)
            figure = charts.top_bars(table, "refusal", "calls", limit=TOP, height=height)
            shared.plot(figure, "refusals", "Refusals by reason")
        with right:
            rows = [
                [
                    f"<code>{escape(str(row['refusal']))}</code>",
                    escape(str(row["key_label"])),
                    shared.count(int(row["calls"])),
                    shared.ago(row["last_at"].to_pydatetime(), now),
                ]
                for row in table.head(TOP).to_dict("records")
            ]
            columns = [("Reason", "left"), ("Key", "left"), ("Calls", "right"), ("Last", "right")]
            st.html(shared.table(columns, rows))


if __name__ == "__main__":
    main()
