"""Reconciliation: do the books balance, which holds are stuck, which calls cost more than was held for them?"""

from datetime import datetime, timedelta
from html import escape

import streamlit as st

from toolkit.checks import reconcile, reconcile_runs
from toolkit.checks.reconcile_runs import CheckResult, Run
from toolkit.core.policy import Role
from toolkit.dashboard import figures, shared
from toolkit.dashboard.figures import View
from toolkit.store import holds
from toolkit.store.holds import OpenHold
from toolkit.store.transaction import utc_now
from toolkit.workspace import Workspace

HOLDS_EVERY = "10s"
OLD = timedelta(hours=1)
"""Age from which on an open hold is worth a look: by default no call takes longer."""

MOST_HOLDS = 50
MOST_OVERRUNS = 25
MOST_ACCURACIES = 25


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    org_id, count = shared.page_head(workspace, "Reconciliation", "reconciliation")
    _books(workspace)
    st.space("small")
    stuck_holds(org_id)
    st.space("small")
    _overruns(workspace, org_id, count)
    st.space("small")
    _accuracy(workspace, org_id, count)


def _books(workspace: Workspace) -> None:
    """Draw what the last run found; a platform admin may run it again."""
    with workspace.read() as tx:
        last, now = reconcile_runs.last_run(tx), tx.now
    with st.container(horizontal=True, vertical_alignment="center"):
        shared.heading(
            "Do the books balance?", "of all organisations, whatever is chosen above" if _sees_all(workspace) else ""
        )
        pressed = False
        if workspace.actor.role is Role.PLATFORM_ADMIN:
            st.space("stretch")
            pressed = st.button("Run now", icon=":material/play_arrow:", type="primary", key="run_now")
    if pressed:
        _run_now(workspace)
    if last is None:
        next_step = "Press <b>Run now</b>; it reads only, and calls go on meanwhile."
        if workspace.actor.role is not Role.PLATFORM_ADMIN:
            next_step = "A platform admin starts the check here, or with <code>keydesk reconcile</code>."
        shared.empty("The books have not been checked yet.", next_step)
        return
    st.html(shared.cards(_cards(workspace, last, now)))
    broken = [result for result in last.results if result.violations]
    if broken:
        st.html(
            shared.table(
                [("What must hold", "left"), ("What is wrong", "left")],
                [[_titled(result), _listed(result.violations)] for result in broken],
                css="kd-broken",
            )
        )
    if last.results:
        with st.expander("All checks"):
            columns = [("What must hold", "left"), ("Checked", "right"), ("", "right")]
            st.html(shared.table(columns, [_check_row(result) for result in last.results]))


def _sees_all(workspace: Workspace) -> bool:
    return workspace.actor.org_id is None


def _run_now(workspace: Workspace) -> None:
    """Check the books while a bar shows how far it is, and say how it went."""
    bar = st.progress(0.0, "Checking the books …")

    def show(done: int, total: int, name: str) -> None:
        bar.progress(done / total, shared.plain(name) or "Done")

    with shared.problems():
        results = reconcile.run(workspace, show)
        if not any(result.violations for result in results):
            shared.flash("The books balance.")
        st.rerun()


def _cards(workspace: Workspace, last: Run, now: datetime) -> list[tuple[str, str, str]]:
    failed = sum(bool(result.violations) for result in last.results)
    if last.clean:
        verdict = '<span class="kd-sum">Clean</span>', "no violation was found"
    elif failed:
        verdict = f'<span class="kd-neg">{failed} failed</span>', f"of {len(last.results)} checks; details below"
    else:
        verdict = '<span class="kd-neg">Not clean</span>', "a platform admin sees the details"
    when = shared.ago(last.started_at, now)
    if not _sees_all(workspace):
        return [("Last run", when, "by the platform"), ("Result", *verdict)]
    return [
        ("Last run", when, f"by {escape(last.actor)}"),
        ("Result", *verdict),
        ("Rows checked", shared.short_count(last.rows), "of the request log"),
        ("Took", f'<span class="kd-num">{last.duration_ms / 1000:,.1f}\u202fs</span>', "while calls went on"),
    ]


def _titled(result: CheckResult) -> str:
    return f'{escape(result.title)}<span class="kd-sub">invariant {result.invariant}</span>'


def _listed(violations: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(violation)}</li>" for violation in violations) + "</ul>"


def _check_row(result: CheckResult) -> list[str]:
    verdict = shared.badge("failed", "bad") if result.violations else shared.badge("ok", "good")
    return [_titled(result), shared.count(result.checked), verdict]


@st.fragment(run_every=HOLDS_EVERY)
def stuck_holds(org_id: str | None) -> None:
    """Draw the open holds that may never be settled: their gateway has ended, or they are old."""
    with shared.problems():
        workspace = shared.workspace()
        with workspace.read() as tx:
            open_, now = holds.open_holds(tx, org=org_id), tx.now
        stuck = [hold for hold in open_ if hold.orphaned or hold.age > OLD]
        shared.heading("Stuck holds", "open holds whose gateway has ended, or that are older than an hour")
        if not stuck:
            held = shared.money(sum(hold.amount for hold in open_))
            state = f"Held for {_number(len(open_), 'call')} under way: {held}" if open_ else "No call is under way."
            shared.empty("No hold is stuck.", state, slim=True)
            return
        columns = [
            ("Key", "left"),
            ("Model", "left"),
            ("Held", "right"),
            ("Since", "left"),
            ("Gateway", "left"),
            ("", "right"),
        ]
        st.html(shared.table(columns, [_hold_row(workspace, hold, now) for hold in stuck[:MOST_HOLDS]]))
        total = f"{shared.money(sum(hold.amount for hold in stuck))} in {_number(len(stuck), 'stuck hold')}"
        more = f"; the {MOST_HOLDS} oldest are shown" if len(stuck) > MOST_HOLDS else ""
        cure = "A running gateway releases holds of one that has ended within seconds."
        st.html(f'<p class="kd-count">{total}{more}. {cure}</p>')


def _key(workspace: Workspace, name: str, org: str) -> str:
    return escape(name) + (f'<span class="kd-sub">{escape(org)}</span>' if _sees_all(workspace) else "")


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count != 1 else ''}"


def _hold_row(workspace: Workspace, hold: OpenHold, now: datetime) -> list[str]:
    state = shared.badge("orphaned", "bad") if hold.orphaned else shared.badge("old", "warn")
    return [
        _key(workspace, hold.key, hold.org),
        escape(hold.model),
        shared.money(hold.amount),
        shared.ago(hold.admitted_at, now),
        f"<code>{escape(hold.instance_id)}</code>",
        state,
    ]


def _overruns(workspace: Workspace, org_id: str | None, days: int) -> None:
    """Draw the calls that cost more than was held for them."""
    now = utc_now()
    shared.heading("Overruns", f"calls that cost more than was held, last {days} days")
    found = figures.overruns(workspace, View.of(workspace, org_id), shared.period(days), MOST_OVERRUNS + 1)
    if found.empty:
        shared.empty(
            "No call cost more than its hold in this period.",
            "Every hold was the upper bound that it should be.",
            slim=True,
        )
        return
    rows = [
        [
            _link(str(row["request_id"])),
            shared.ago(row["admitted_at"].to_pydatetime(), now),
            _key(workspace, str(row["key_label"]), str(row["org"])),
            escape(str(row["model"])),
            shared.money(int(row["held"])),
            shared.money(int(row["cost"])),
            shared.money(int(row["overrun"]), css="kd-neg"),
        ]
        for row in found.head(MOST_OVERRUNS).to_dict("records")
    ]
    columns = [("Request", "left"), ("When", "left"), ("Key", "left"), ("Model", "left")]
    columns += [("Held", "right"), ("Charged", "right"), ("Beyond", "right")]
    accuracy = figures.hold_accuracy(workspace, View.of(workspace, org_id), shared.period(days))
    overruns, beyond = int(accuracy["overruns"].sum()), int(accuracy["overrun"].sum())
    total = f"{_number(overruns, 'overrun')}, {shared.money(beyond)} beyond what was held; all was charged."
    more = f" The newest {MOST_OVERRUNS} are shown." if len(found) > MOST_OVERRUNS else ""
    note = "An overrun is a defect of the estimate: please report what the call was like."
    st.html(shared.table(columns, rows) + f'<p class="kd-count">{total}{more} {note}</p>')


def _link(request_id: str) -> str:
    name = escape(request_id)
    return f'<a href="requests?id={name}" {shared.SAME_TAB}><code>{name}</code></a>'


def _accuracy(workspace: Workspace, org_id: str | None, days: int) -> None:
    """Draw how well holds foretold charges."""
    shared.heading("Hold accuracy", f"held ÷ charged per key and model, last {days} days")
    found = figures.hold_accuracy(workspace, View.of(workspace, org_id), shared.period(days))
    if found.empty:
        shared.empty("No call was charged in this period.", "Choose a longer period above.", slim=True)
        return
    rows = [
        [
            _key(workspace, str(row["key_label"]), str(row["org"])),
            escape(str(row["model"])),
            shared.short_count(int(row["calls"])),
            shared.money(int(row["held"])),
            shared.money(int(row["cost"])),
            f'<span class="kd-num">{row["ratio"]}×</span>' if row["ratio"] is not None else "–",
            _beyond(int(row["overruns"]), int(row["overrun"])),
        ]
        for row in found.head(MOST_ACCURACIES).to_dict("records")
    ]
    columns = [("Key", "left"), ("Model", "left"), ("Calls", "right"), ("Held", "right"), ("Charged", "right")]
    columns += [("Ratio", "right"), ("Overruns", "right")]
    more = len(found) - MOST_ACCURACIES
    rest = f'<p class="kd-count">{more:,} more: <code>keydesk accuracy</code> lists all.</p>' if more > 0 else ""
    st.html(shared.table(columns, rows) + rest)


def _beyond(overruns: int, amount: int) -> str:
    return f"{shared.count(overruns)} · {shared.money(amount, css='kd-neg')}" if overruns else shared.count(0)


if __name__ == "__main__":
    main()
