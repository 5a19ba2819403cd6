"""Settings & health: which processes are alive, how the stores stand, and which settings hold."""

from html import escape

import streamlit as st

from toolkit import environment
from toolkit.admin import rights
from toolkit.checks import health
from toolkit.checks.health import Health
from toolkit.core.wording import counted
from toolkit.dashboard import shared, table


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Settings & health", anchor=False)
        st.space("stretch")
        st.button("Refresh", icon=":material/refresh:", key="health_refresh", help="Look again")
    with workspace.read() as tx:
        rights.require_platform_admin(tx)
    found = health.read(workspace.ledger)
    for fault in found.faults:
        st.html(f'<div class="kd-warning">{shared.prose(fault)}</div>')
    if not found.faults:
        st.success("Everything runs, and the books balance.", icon=":material/check_circle:")
    st.html(shared.cards(_cards(found)))
    st.space("small")
    _gateways(found)
    st.space("small")
    _places(found)
    st.space("small")
    _settings()
    st.space("small")
    with st.expander("Versions"):
        rows = {"Keydesk": found.version, "Python": found.python} | found.packages
        st.html(shared.facts([(name, f"<code>{escape(version)}</code>") for name, version in rows.items()]))


def _cards(found: Health) -> list[tuple[str, str, str]]:
    alive = [gateway for gateway in found.gateways if gateway.alive]
    lag = found.ledger.oldest_seconds
    run = found.last_run
    return [
        ("Gateways", shared.count(len(alive)), f"{counted(sum(each.open_calls for each in alive), 'call')} under way"),
        (
            "Ledger's lag",
            f'<span class="kd-num">{lag:,.0f}\u202fs</span>',
            f"{counted(found.ledger.waiting, 'row')} wait to be moved",
        ),
        (
            "Alerts",
            "Sent" if found.alerts_until else '<span class="kd-neg">Nobody sends</span>',
            "one process looks every 10 seconds" if found.alerts_until else "what is noticed waits",
        ),
        (
            "Last reconciled",
            shared.ago(run.started_at if run else None, found.at),
            ("clean" if run.clean else '<span class="kd-neg">not clean</span>') if run else "the books are unchecked",
        ),
    ]


def _gateways(found: Health) -> None:
    shared.heading("Gateways", "heard of by their heartbeat; one that has ended is gone once its holds are released")
    if not found.gateways:
        shared.empty("No gateway runs.", "Start one with <code>keydesk gateway</code>, or <code>keydesk up</code>.")
        return
    columns = [("Gateway", "left"), ("", "left"), ("Version", "left"), ("Started", "left"), ("Lease", "left")]
    rows = [
        [
            f"<code>{escape(each.id)}</code>",
            shared.badge("alive", "good") if each.alive else shared.badge("ended", "bad"),
            escape(each.version or "older"),
            shared.ago(each.started_at, found.at),
            shared.ago(each.lease_until, found.at),
            shared.count(each.open_calls),
        ]
        for each in found.gateways
    ]
    st.html(shared.table([*columns, ("Calls", "right")], rows))


def _places(found: Health) -> None:
    store, ledger = found.store, found.ledger
    shared.heading("Stores")
    merge = f", {ledger.mergeable:,} of them small enough to merge" if ledger.mergeable else ""
    st.html(
        shared.facts(
            [
                ("Key store", f"{store.kind}, {_size(store.size)}, schema {store.schema}"),
                ("at", f"<code>{escape(store.name)}</code>"),
                ("Ledger", f"{ledger.rows:,} rows, {_size(ledger.size)}, {counted(ledger.segments, 'segment')}{merge}"),
                ("at", f"<code>{escape(found.ledger_root)}</code>"),
                ("Last drained", shared.ago(ledger.drained_at, found.at)),
            ]
        )
    )


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f}\u202fMB" if size < 1e9 else f"{size / 1e9:,.1f}\u202fGB"


def _settings() -> None:
    shared.heading("Settings", "that hold in the dashboard's process; secrets are not shown")
    rows = [
        {
            "Setting": each.name,
            "Value": each.value or "–",
            "From": "environment" if each.is_given else "default",
            "What it does": each.help,
        }
        for each in environment.in_force()
    ]
    table.draw(rows, key="settings", alt="Settings in force", on_open=None)


if __name__ == "__main__":
    main()
