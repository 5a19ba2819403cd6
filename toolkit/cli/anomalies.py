"""`keydesk anomalies`: when a key spent far more than usual, fell silent, or was refused in bursts."""

from typing import Any, Literal, cast

import click

from toolkit.cli.app import App, Command, pass_app
from toolkit.cli.output import days_of, records
from toolkit.core.marked import Usd


@click.command(cls=Command)
@click.option("--by", type=click.Choice(["day", "hour"]), default="day", show_default=True, help="What is compared.")
@click.option("--days", type=click.IntRange(1, 366), default=30, show_default=True, help="How many, today included.")
@click.option("--org", metavar="ORG", help="Only this organisation's.")
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
    app.rows(rows, columns, empty=f"Nothing unusual in {'the last ' if days > 1 else ''}{days_of(days)}.")


def _anomaly(row: dict[str, Any]) -> dict[str, Any]:
    """Return an anomaly's fields; amounts are money, or calls where calls were refused."""
    refused = row["kind"] == "refusals"
    amounts = {name: row.pop(name) for name in ("expected", "actual")}
    money = {f"{name}_usd": None if refused else Usd(value) for name, value in amounts.items()}
    calls = {f"{name}_calls": value if refused else None for name, value in amounts.items()}
    return row | {"bucket": row["bucket"].to_pydatetime()} | money | calls
