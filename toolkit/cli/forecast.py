"""`keydesk forecast`: what the month will cost, and when limits and wallets run out."""

from decimal import Decimal
from typing import Any

import click

from toolkit.cli.app import App, Command, pass_app
from toolkit.cli.output import days_of, records
from toolkit.core.marked import Usd

_MONEY = ("spent", "forecast", "low", "high", "wanted", "limit", "available", "error")


@click.command(cls=Command)
@click.option(
    "--by", type=click.Choice(["key", "org"]), default="key", show_default=True, help="Whose month is foretold."
)
@click.option("--org", metavar="ORG", help="Only this organisation's.")
@pass_app
def forecast_command(app: App, by: str, org: str | None) -> None:
    """Say what this month will cost, and when limits and wallets run out.

    The past error is that of forecasts for as many days ahead, and its share of this month's.
    """
    from toolkit.forecast import outlook
    from toolkit.forecast.runway import WALLET_DAYS

    org_id, _ = app.ids(org)
    with app.workspace.read() as tx:
        now = tx.now
    by_key, by_org = outlook.month_end(app.workspace.ledger, now)
    frame = by_key if by == "key" else by_org
    rows = records(frame[frame["org_id"] == org_id] if org_id else frame, _MONEY)
    if not app.as_json:
        ceiling, never = (
            ("limit_usd", "not this month") if by == "key" else ("available_usd", f"not within {WALLET_DAYS} days")
        )
        rows = [row | {"runs_out": _when(row, ceiling, never), "past_error": _error(row)} for row in rows]
    columns = {
        **({"key_label": "key"} if by == "key" else {}),
        "org": "organisation",
        "spent_usd": "spent",
        "forecast_usd": "forecast",
        "low_usd": "at least",
        "high_usd": "at most",
        "past_error": "past error",
        **({"limit_usd": "limit"} if by == "key" else {"available_usd": "wallet"}),
        "runs_out": "runs out",
        **({"method": "made from"} if by == "key" else {}),
    }
    sums = {name: Usd(sum(row[name] for row in rows)) for name in ("spent_usd", "forecast_usd")}
    app.rows(rows, columns, empty="There are no keys yet.", total={next(iter(columns)): "total"} | sums)


def _when(row: dict[str, Any], ceiling: str, never: str) -> str | None:
    """Return in how many days a limit or wallet runs out: "in 5 days (3 to 9)"."""
    soonest, days, latest = row["days_low"], row["days"], row["days_high"]
    if row[ceiling] is None:
        return None
    if days is None:
        return never if soonest is None else f"{never}, or in {days_of(soonest)} at the earliest"
    words = f"in {days_of(days)}" if days else "today"
    if soonest is None or soonest == latest:
        return words
    return f"{words} ({soonest} to {latest})" if latest is not None else f"{words} ({soonest} at the earliest)"


def _error(row: dict[str, Any]) -> str | None:
    """Return how wrong past forecasts were, and how much of this month's that is: "± $1.20, 8 %"."""
    if row["error_usd"] is None:
        return None
    from toolkit.core.money import show_usd

    share = f", {Decimal(row['error_of_month']) * 100:.0f} %" if row["error_of_month"] is not None else ""
    return f"± {show_usd(row['error_usd'])}{share}"
