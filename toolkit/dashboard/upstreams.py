"""Upstreams: the providers that calls go to, how each does, and the dialogs that add, change, try and retire one."""

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import streamlit as st

from toolkit.admin import gateway_reports, model_routes, organisations, rights, upstream_credentials, upstreams
from toolkit.core.account_fault import AccountFault, sentence_of
from toolkit.core.period import Period
from toolkit.dashboard import dialog, figures, filters, shared, table, upstream_dialogs
from toolkit.dashboard.figures import View
from toolkit.dashboard.upstream_dialogs import Seen
from toolkit.store.incidents import open_incidents
from toolkit.workspace import Workspace

LATELY = timedelta(hours=24)
STATES = ["All", "In use", "Set aside", "Refuses us", "Never called", "Serves no model"]


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Upstreams", anchor=False)
        st.space("stretch")
        st.button("Refresh", icon=":material/refresh:", key="upstreams_refresh", help="Look for newer calls")
        if st.button("Add upstream", type="primary", icon=":material/add:", key="add_upstream", help="A provider"):
            dialog.show("Add upstream")
    seen = _read(workspace)
    if seen:
        _list(workspace, seen)
    else:
        shared.empty(
            "No upstreams yet.", "Press <b>Add upstream</b> and choose a provider; its credential stays on the server."
        )
    upstream_dialogs.draw({each.upstream.name: each for each in seen})


def _read(workspace: Workspace) -> list[Seen]:
    with workspace.read() as tx:
        rights.require_platform_admin(tx)
        orgs = {org.id: org.name for org in organisations.list_all(tx)}
        incidents, reports = open_incidents(tx), gateway_reports.reports(tx)
        return [
            Seen(
                upstream=each,
                owner=orgs[each.org_id] if each.org_id else None,
                credentials=upstream_credentials.credentials_of(tx, each.name),
                models=sorted(set(model_routes.served_at(tx, each.name).values())),
                incidents=[one for one in incidents if one.upstream == each.name],
                fault=upstreams.upstream_fault(each),
                reports=reports,
            )
            for each in upstreams.list_upstreams(tx)
        ]


def _list(workspace: Workspace, seen: list[Seen]) -> None:
    state = filters.one_of("state", "State", STATES, "All")
    names = {each.upstream.name: each.upstream.name for each in seen}
    chosen = filters.choice(st.columns(2)[0], "upstream", "Upstream", names, "Any upstream")
    shown = [each for each in seen if chosen in {None, each.upstream.name} and state in {"All", each.state}]
    if not shown:
        shared.empty("No upstream matches.", "Take a filter away.")
        return
    calls = _calls(workspace)
    table.draw(
        [_cells(each, calls.get(each.upstream.name)) for each in shown],
        key="upstreams",
        alt="Upstreams, by name",
        on_open=lambda position: dialog.show("Upstream", shown[position].upstream.name),
    )
    st.html('<p class="kd-count">Calls, failures and times are those of the last 24 hours.</p>')


@dataclass(frozen=True, slots=True)
class Calls:
    """What became of an upstream's calls lately; times in milliseconds, None without any that was completed."""

    calls: int
    failed: int
    first_byte: int | None
    duration: int | None
    slow: int | None
    last_error: str | None
    last_error_at: datetime | None


def _calls(workspace: Workspace) -> dict[str, Calls]:
    found = figures.upstream_calls(workspace, View.of(workspace, None), Period(_minute(workspace) - LATELY))
    return {str(row["upstream"]): _figures(row) for row in found.to_dict("records")}


def _minute(workspace: Workspace) -> datetime:
    """Return the present moment to the minute, so that figures are asked for once a minute."""
    with workspace.read() as tx:
        return tx.now.replace(second=0, microsecond=0)


def _figures(row: dict[Hashable, Any]) -> Calls:
    def known(name: str) -> Any:
        value = row[name]
        return None if pd.isna(value) else value

    def whole(name: str) -> int | None:
        return None if known(name) is None else int(row[name])

    at = known("last_error_at")
    return Calls(
        calls=int(row["calls"]),
        failed=int(row["failed"]),
        first_byte=whole("first_byte_ms"),
        duration=whole("duration_ms"),
        slow=whole("slow_ms"),
        last_error=known("last_error"),
        last_error_at=at.to_pydatetime() if at is not None else None,
    )


def _cells(each: Seen, calls: Calls | None) -> dict[str, Any]:
    upstream = each.upstream
    share = 100 * calls.failed / calls.calls if calls and calls.calls else None
    incidents = [sentence_of(AccountFault(one.fault), one.model) for one in each.incidents]
    return {
        "Name": upstream.name,
        "State": each.state,
        "Account of": each.owner or "everybody",
        "Preset": upstream.preset or "–",
        "Dialect": upstream.dialect,
        "Models": len(each.models),
        "Calls": calls.calls if calls else 0,
        "Failed %": round(share, 2) if share is not None else None,
        "Median ms": calls.duration if calls else None,
        "Slowest 5 % ms": calls.slow if calls else None,
        "First byte ms": calls.first_byte if calls else None,
        "What is wrong": each.fault or "; ".join(incidents) or _aside(each),
        "Last error": (calls.last_error if calls else None) or "",
        "Failed last": calls.last_error_at if calls else None,
        "Credentials": ", ".join(each.credentials),
        "Base URL": upstream.base_url,
    }


def _aside(each: Seen) -> str:
    return "; ".join(f"{one.what} is set aside until {one.until:%H:%M:%S} UTC" for one in each.aside)


if __name__ == "__main__":
    main()
