"""`keydesk orgs`: add, list."""

from typing import Any

import click

from toolkit import accounts
from toolkit.cli.app import App, Group, pass_app
from toolkit.cli.output import Usd
from toolkit.models import Organisation


@click.group(cls=Group)
def orgs_command() -> None:
    """Add and list organisations."""


def _facts(org: Organisation) -> dict[str, Any]:
    return {
        "id": org.id,
        "name": org.name,
        "suspended": org.suspended,
        "balance_usd": Usd(org.balance),
        "available_usd": Usd(org.available),
        "created_at": org.created_at,
        "created_by": org.created_by,
    }


@orgs_command.command("add")
@click.argument("name")
@pass_app
def add(app: App, name: str) -> None:
    """Add an organisation with an empty wallet."""
    with app.open(make=True).write() as tx:
        org = accounts.add_org(tx, name)
    app.done(
        f"Added the organisation {org.name!r} ({org.id}). Its wallet is empty: keydesk wallet credit --help",
        _facts(org),
    )


@orgs_command.command("list")
@pass_app
def list_orgs(app: App) -> None:
    """List organisations with what their wallets hold."""
    with app.desk.read() as tx:
        rows = [_facts(org) for org in accounts.list_orgs(tx)]
    columns = {
        "name": "name",
        "id": "id",
        "balance_usd": "balance",
        "available_usd": "available",
        "suspended": "suspended",
        "created_at": "created (UTC)",
    }
    app.rows(rows, columns, empty="No organisations yet. Add one: keydesk orgs add NAME")
