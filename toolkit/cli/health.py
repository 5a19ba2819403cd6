"""`keydesk health`: which processes are alive, how the stores stand, and which settings hold."""

from dataclasses import asdict
from typing import Any

import click

from toolkit import environment
from toolkit.cli.app import App, Command, pass_app
from toolkit.cli.command_line import to_paste
from toolkit.core.wording import counted, stamp


@click.command(cls=Command)
@click.option("--settings", is_flag=True, help="Show the settings that hold in this process instead.")
@pass_app
def health_command(app: App, settings: bool) -> None:
    """Show which processes run, how the stores stand, and which settings hold. Nothing secret is shown."""
    if settings:
        rows = [asdict(each) for each in environment.in_force()]
        shown = rows if app.as_json else [row | {"from": "given" if row["is_given"] else "default"} for row in rows]
        app.rows(shown, {"name": "variable", "value": "value", "from": "from"}, empty="There are none.")
        return
    from toolkit.checks import health

    found = health.read(app.workspace.ledger)
    if app.as_json:
        app.facts(asdict(found) | {"faults": found.faults})
        return
    alive = [gateway for gateway in found.gateways if gateway.alive]
    facts: dict[str, Any] = {
        "version": f"{found.version}, Python {found.python}",
        "gateways": "; ".join(
            f"{gateway.id} ({gateway.version or 'older'}) since {stamp(gateway.started_at)}, "
            f"{counted(gateway.open_calls, 'open call')}"
            for gateway in alive
        )
        or "none",
        "alerts": "sent" if found.alerts_until else "nobody sends",
        "key store": f"{found.store.kind}, {found.store.size / 1e6:,.1f} MB, schema {found.store.schema}",
        "at": found.store.name,
        "ledger": f"{found.ledger.rows:,} rows, {found.ledger.size / 1e6:,.1f} MB, "
        f"{counted(found.ledger.segments, 'segment')}",
        "kept in": found.ledger_root,
        "rows waiting": f"{found.ledger.waiting:,}"
        + (f", the oldest for {found.ledger.oldest_seconds:,.0f} s" if found.ledger.waiting else ""),
        "last reconciled": stamp(found.last_run.started_at) if found.last_run else "never",
        "packages": ", ".join(f"{name} {version}" for name, version in found.packages.items()),
    }
    app.facts(facts)
    for fault in found.faults:
        click.echo(f"! {to_paste(fault)}")
