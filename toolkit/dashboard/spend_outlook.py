"""Of the page Spend: what this month will cost and when limits and wallets run out; when a key did the unusual."""

from typing import TYPE_CHECKING, Any

import streamlit as st

from toolkit.core.marked import Usd
from toolkit.core.wording import counted
from toolkit.dashboard import filters, shared, table
from toolkit.dashboard.figures import View
from toolkit.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

    from toolkit.forecast.runway import Outlook

_LATER = 600
"""Seconds that a forecast is kept while no call ends: it moves with the clock, slowly."""


@st.cache_data(max_entries=32, ttl=_LATER, show_spinner="Looking ahead …")
def _outlook(_workspace: Workspace, view: View) -> tuple["Outlook", "pd.DataFrame", "pd.DataFrame"]:  # noqa: ARG001
    """Return the outlook, and what comes of it per key and per organisation; kept by the view."""
    from toolkit.forecast import outlook

    with _workspace.read() as tx:
        now = tx.now
    return outlook.outlook(_workspace.ledger, now)[0], *outlook.month_end(_workspace.ledger, now)


@st.cache_data(max_entries=32, ttl=_LATER, show_spinner="Looking for what is unusual …")
def _anomalies(_workspace: Workspace, view: View, days: int) -> "pd.DataFrame":  # noqa: ARG001 - kept by the view
    from toolkit.forecast import anomalies

    with _workspace.read() as tx:
        now = tx.now
    return anomalies.anomalies(_workspace.ledger, now, "day", days=days)


def forecast(workspace: Workspace, view: View, *, several: bool) -> None:
    """Draw what this month will cost, with its interval, and how wrong such forecasts were.

    Args:
        workspace: of whoever looks.
        view: whose spend.
        several: whether organisations are told apart.
    """
    from toolkit.forecast.charts import month_fan

    found, by_key, by_org = _outlook(workspace, view)
    rows = by_key if view.org is None else by_key[by_key["org_id"] == view.org]
    if rows.empty:
        shared.empty("There is nothing to look ahead by.", "A forecast begins with the first call of a key.")
        return
    if view.org is not None:
        shared.heading("This month", "likely range: four in five months end within it")
        shared.plot(month_fan(found.fan(view.org)), "month_fan", "This month's spend so far, and where it is going")
    else:
        shared.heading("Organisations", "this month")
        table.draw(
            [_org_cells(row) for row in _records(by_org)],
            key="forecast_orgs",
            alt="Forecast by organisation",
            on_open=None,
        )
    shared.heading("Keys", "this month, the costliest first")
    table.draw(
        [_key_cells(row, several=several) for row in _records(rows)],
        key="forecast_keys",
        alt="Forecast by key, the costliest first",
        on_open=None,
    )


def _records(frame: "pd.DataFrame") -> list[dict[Any, Any]]:
    """Return rows as mappings; what is missing is None."""
    return list(frame.astype(object).where(frame.notna(), None).to_dict("records"))


def _org_cells(row: dict[Any, Any]) -> dict[str, Any]:
    return {
        "Organisation": row["org"],
        **_figures(row),
        "Available": _usd(row["available"]),
        "Wallet lasts": _days(row),
    }


def _key_cells(row: dict[Any, Any], *, several: bool) -> dict[str, Any]:
    return {
        "Key": row["key_label"],
        **({"Organisation": row["org"]} if several else {}),
        **_figures(row),
        "Limit": _usd(row["limit"]),
        "Reaches it": _days(row),
        "Made from": row["method"],
    }


def _figures(row: dict[Any, Any]) -> dict[str, Any]:
    return {
        "Spent": _usd(row["spent"]),
        "Forecast": _usd(row["forecast"]),
        "At least": _usd(row["low"]),
        "At most": _usd(row["high"]),
        "Past error": _usd(row["error"]),
    }


def _usd(amount: Any) -> Usd | None:
    return None if amount is None else Usd(int(amount))


def _days(row: dict[Any, Any]) -> str:
    soonest, days, latest = (row[name] for name in ("days_low", "days", "days_high"))
    if days is None:
        return "" if soonest is None else f"in {counted(int(soonest), 'day')} at the earliest"
    words = f"in {counted(int(days), 'day')}" if days else "today"
    if soonest is None or soonest == latest:
        return words
    return f"{words} ({soonest:.0f} to {latest:.0f})" if latest is not None else f"{words} ({soonest:.0f} at least)"


def unusual(workspace: Workspace, view: View, *, several: bool) -> None:
    """Draw when a key spent far more than usual, fell silent, or was refused in bursts.

    Args:
        workspace: of whoever looks.
        view: whose calls.
        several: whether organisations are told apart.
    """
    days = shared.PERIODS[filters.one_of("period", "Period", list(shared.PERIODS), "30 days")]
    found = _anomalies(workspace, view, days)
    rows = _records(found if view.org is None else found[found["org_id"] == view.org])
    if not rows:
        shared.empty(f"Nothing unusual in the last {days} days.", "Each key's days are compared with those before.")
        return
    table.draw(
        [
            {
                "Day": f"{row['bucket']:%Y-%m-%d}",
                "Key": row["key_label"],
                **({"Organisation": row["org"]} if several else {}),
                "Severity": row["severity"].capitalize(),
                "What": row["kind"],
                "In words": row["sentence"],
            }
            for row in rows
        ],
        key="anomalies",
        alt="What was unusual, the newest first",
        on_open=None,
    )
