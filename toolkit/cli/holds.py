"""`keydesk holds`: what is set aside for calls under way."""

import click

from toolkit.cli.app import App, Command, pass_app
from toolkit.core.marked import Usd


@click.command(cls=Command)
@click.option("--org", metavar="ORG", help="Only this organisation's.")
@click.option("--orphaned", is_flag=True, help="Only holds whose gateway has ended.")
@pass_app
def holds_command(app: App, org: str | None, orphaned: bool) -> None:
    """List open holds: the money set aside for calls under way, the oldest first."""
    from toolkit.store import holds

    org_id, _ = app.ids(org)
    with app.workspace.read() as tx:
        found = [hold for hold in holds.open_holds(tx, org=org_id) if hold.orphaned or not orphaned]
    rows = [
        {
            "admitted_at": hold.admitted_at,
            "age_seconds": max(int(hold.age.total_seconds()), 0),
            "request_id": hold.request_id,
            "key_id": hold.key_id,
            "key": hold.key,
            "org": hold.org,
            "model": hold.model,
            "amount_usd": Usd(hold.amount),
            "instance_id": hold.instance_id,
            "lease_until": hold.lease_until,
            "orphaned": hold.orphaned,
        }
        for hold in found
    ]
    columns = {
        "admitted_at": "since (UTC)",
        "age_seconds": "seconds",
        "request_id": "request",
        "key": "key",
        "org": "organisation",
        "model": "model",
        "amount_usd": "held",
        "instance_id": "gateway",
        "orphaned": "orphaned",
    }
    app.rows(rows, columns, empty="No hold is orphaned." if orphaned else "Nothing is held: no call is under way.")
