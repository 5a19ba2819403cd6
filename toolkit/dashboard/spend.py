"""Spend: who and what it went to, what changed against the time before, what is to come, and what was unusual."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import streamlit as st

from toolkit.admin import organisations
from toolkit.core.marked import Share, Usd
from toolkit.core.money import show_usd
from toolkit.core.period import Period, billing_month
from toolkit.core.wording import counted, stamp
from toolkit.dashboard import figures, filters, shared, spend_outlook, table
from toolkit.dashboard.figures import View
from toolkit.reports import charts
from toolkit.store.transaction import utc_now
from toolkit.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

VIEWS = ("Breakdown", "Compare", "Forecast", "Unusual")
PERIODS = ("7 days", "30 days", "90 days", "This month", "Last month")
BY = {
    "Key": "key",
    "Model": "model",
    "Plan": "plan",
    "Owner": "owner",
    "Environment": "environment",
    "Upstream": "upstream",
    "Tag": "tag",
    "Day": "day",
}
NAMES = {"key": "key_label", "plan": "plan", "org": "org", "model": "model", "day": "day"}
_EFFECTS = {"volume": "Volume", "mix": "Mix", "price": "Price", "multiplier": "Multiplier"}


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Spend", anchor=False)
        st.space("stretch")
        st.button("Refresh", icon=":material/refresh:", key="spend_refresh", help="Look for newer calls")
    with workspace.read() as tx:
        orgs = {org.id: org.name for org in organisations.list_all(tx)}
    view = filters.one_of("view", "View", VIEWS, VIEWS[0])
    org = workspace.actor.org_id
    if org is None:
        org = filters.choice(st.columns([1, 2])[0], "org", "Organisation", orgs, "All organisations")
    several = org is None
    if view == "Forecast":
        spend_outlook.forecast(workspace, View.of(workspace, org), several=several)
    elif view == "Unusual":
        spend_outlook.unusual(workspace, View.of(workspace, org), several=several)
    else:
        name = filters.one_of("period", "Period", PERIODS, "30 days")
        by = _by(several)
        if by is None:
            return
        draw = _breakdown if view == "Breakdown" else _compare
        draw(workspace, View.of(workspace, org), by, period_of(name, utc_now()))


def period_of(name: str, now: datetime) -> Period:
    """Return one of `PERIODS`.

    Args:
        name: of it.
        now: UTC; it lies in the last day or month of it, but for the last month.
    """
    if name.endswith("days"):
        return Period.days(int(name.partition(" ")[0]), now)
    this = Period.month(billing_month(now))
    if name == "This month" or this.start is None:
        return this.until(now)
    return Period.month(billing_month(this.start - timedelta(days=1)))


def _by(several: bool) -> str | None:
    """Draw the choice of a dimension; return it as reports name it, or None while the name of a tag is missing."""
    options = {**({"Organisation": "org"} if several else {}), **BY}
    by = options[filters.one_of("by", "By", list(options), "Key")]
    if by != "tag":
        return by
    tag = st.text_input("Name of the tag", key="tag", placeholder="team", bind="query-params", width=280).strip()
    if not tag:
        shared.empty(
            "Which tag?", "Write the name of one that your callers send, such as <code>team</code>.", slim=True
        )
        return None
    return f"tag:{tag}"


def _breakdown(workspace: Workspace, view: View, by: str, period: Period) -> None:
    frame = figures.spend(workspace, view, (by,), period)
    if frame.empty:
        shared.empty("Nothing was spent in this period.", "Choose a longer one.")
        return
    total = int(frame["cost"].sum())
    st.html(
        f'<p class="kd-count"><b>{shared.money(total)}</b> for {counted(int(frame["calls"].sum()), "call")}'
        f"{_span(period)}</p>"
    )
    label = NAMES.get(by, by)
    if by == "day":
        over = figures.spend(workspace, view, ("day", "key"), period)
        shared.plot(charts.spend_over_time(over, by="key", height=340), "spend_days", "Spend per key and day")
    else:
        over = figures.spend(workspace, view, ("day", by), period)
        shared.plot(charts.spend_over_time(over, by=by, height=320), "spend_days", "Spend over time")
    rows: list[dict[str, Any]] = [
        {
            _heading(by): row[label] if by != "day" else f"{row[label]:%Y-%m-%d}",
            **({"Organisation": row["org"]} if by == "key" and view.org is None else {}),
            "Spent": Usd(int(row["cost"])),
            "Share": Share(row["cost"] / total if total else 0),
            "Calls": int(row["calls"]),
            "Cost of a call": Usd(int(row["cost"]) // int(row["calls"])),
            "Input tokens": int(row["input_tokens"]),
            "Of them cached": Share(row["cached_input_tokens"] / row["input_tokens"] if row["input_tokens"] else 0),
            "Output tokens": int(row["output_tokens"]),
        }
        for row in frame.to_dict("records")
    ]
    table.draw(rows, key="spend", alt=f"Spend by {_heading(by).lower()}, the costliest first", on_open=None)


def _heading(by: str) -> str:
    return {"org": "Organisation"}.get(by) or by.removeprefix("tag:").capitalize()


def _span(period: Period) -> str:
    start, end = (stamp(bound) if bound else "" for bound in (period.start, period.end))
    return f", {start} up to {end}"


@st.cache_data(max_entries=64, ttl=60, show_spinner="Comparing …")
def _movers(
    _workspace: Workspace, view: View, by: str, before: Period, after: Period
) -> tuple["pd.DataFrame", list[str]]:
    """Return `attribution.movers`, and what is to be known of it."""
    from toolkit.reports import attribution

    frame = attribution.movers(_workspace.ledger, before, after, by, org=view.org)
    return frame, list(attribution.caveats(_workspace.ledger, before, after, org=view.org))


def _compare(workspace: Workspace, view: View, by: str, period: Period) -> None:
    from toolkit.reports import attribution

    if by == "day":
        shared.empty("Days are not compared with each other.", "Choose another dimension.", slim=True)
        return
    before = attribution.preceding(period)
    frame, caveats = _movers(workspace, view, by, before, period)
    if frame.empty:
        shared.empty("Nothing was spent in these periods.", "Choose longer ones.")
        return
    difference = int(frame["difference"].sum())
    st.html(
        f'<p class="kd-count"><b>{"+" if difference > 0 else ""}{show_usd(difference)}</b> against the time before: '
        f"{shared.money(int(frame['before'].sum()))}{_span(before)}, then {shared.money(int(frame['after'].sum()))}"
        f"{_span(period)}</p>"
    )
    for caveat in caveats:
        st.caption(shared.plain(caveat))
    left, right = st.columns(2)
    label = NAMES.get(by, by)
    with left:
        shared.heading("Why", "volume, mix, price, multiplier")
        shared.plot(charts.effects_bridge(frame), "effects", "From the spend before to that after, effect by effect")
    with right:
        shared.heading("Whose", "the largest differences")
        shared.plot(charts.mover_bars(frame, "key" if by == "key" else label), "movers", "Largest differences")
    table.draw(
        [
            {
                _heading(by): row[label],
                "Before": Usd(int(row["before"])),
                "After": Usd(int(row["after"])),
                "Difference": Usd(int(row["difference"])),
                **{shown: Usd(int(row[name])) for name, shown in _EFFECTS.items()},
                "State": row["status"],
            }
            for row in frame.to_dict("records")
        ],
        key="movers",
        alt="Differences, the largest first",
        on_open=None,
    )


if __name__ == "__main__":
    main()
