"""`keydesk forecast` and `anomalies`: what the month will cost, and what was unusual."""

from decimal import Decimal
from typing import Any, Literal, cast

import click

from toolkit.cli.app import App, Command, pass_app
from toolkit.cli.output import Usd, records

_MONEY = ("spent", "forecast", "low", "high", "wanted", "limit", "available", "error")
_ORG = click.option("--org", metavar="ORG", help="Only this organisation's.")


@click.command(cls=Command)
@click.option(
    "--by", type=click.Choice(["key", "org"]), default="key", show_default=True, help="Whose month is foretold."
)
@_ORG
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


@click.command(cls=Command)
@click.option("--by", type=click.Choice(["day", "hour"]), default="day", show_default=True, help="What is compared.")
@click.option("--days", type=click.IntRange(1, 366), default=30, show_default=True, help="How many, today included.")
@_ORG
@click.option("--key", metavar="KEY", help="Only this API key's.")
@pass_app
def anomalies_command(app: App, by: str, days: int, org: str | None, key: str | None) -> None:
    """Show when a key spent far more than usual, fell silent, or was refused in bursts."""
    from toolkit.forecast import anomalies

    org_id, key_id = app.ids(org, key)
    with app.workspace.read() as tx:
        now = tx.now
    found = anomalies.anomalies(app.workspace.ledger, now, cast("Literal['day', 'hour']", by), days=days)
    for column, wanted in (("org_id", org_id), ("key_id", key_id)):
        found = found[found[column] == wanted] if wanted else found
    rows = [_anomaly(row) for row in records(found)]
    columns = {
        "bucket": f"{by} (UTC)",
        "key_label": "key",
        "org": "organisation",
        "severity": "severity",
        "kind": "what",
        "sentence": "in words",
    }
    if by == "day" and not app.as_json:
        rows = [row | {"bucket": f"{row['bucket']:%Y-%m-%d}"} for row in rows]
    app.rows(rows, columns, empty=f"Nothing unusual in {'the last ' if days > 1 else ''}{_days(days)}.")


def _when(row: dict[str, Any], ceiling: str, never: str) -> str | None:
    """Return in how many days a limit or wallet runs out: "in 5 days (3 to 9)"."""
    soonest, days, latest = row["days_low"], row["days"], row["days_high"]
    if row[ceiling] is None:
        return None
    if days is None:
        return never if soonest is None else f"{never}, or in {_days(soonest)} at the earliest"
    words = f"in {_days(days)}" if days else "today"
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


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _anomaly(row: dict[str, Any]) -> dict[str, Any]:
    """Return an anomaly's fields; amounts are money, or calls where calls were refused."""
    refused = row["kind"] == "refusals"
    amounts = {name: row.pop(name) for name in ("expected", "actual")}
    money = {f"{name}_usd": None if refused else Usd(value) for name, value in amounts.items()}
    calls = {f"{name}_calls": value if refused else None for name, value in amounts.items()}
    return row | {"bucket": row["bucket"].to_pydatetime()} | money | calls
