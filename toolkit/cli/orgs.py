"""`keydesk orgs`: add, list, rename, suspend, resume."""

from typing import Any

import click

from toolkit.admin import organisations
from toolkit.cli.app import App, Group, pass_app
from toolkit.core.marked import Usd
from toolkit.store.tables import Organisation

_ORG = click.argument("org", metavar="ORG")
_YES = click.option("--yes", is_flag=True, help="Confirm; needed where there is no terminal.")
_REASON = click.option("--reason", default="", metavar="TEXT", help="Why, for the audit log.")


@click.group(cls=Group)
def orgs_command() -> None:
    """Add, list, rename, suspend and resume organisations.

    ORG is an id or a name.
    """


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
        org = organisations.add(tx, name)
    app.done(
        f"Added the organisation {org.name!r} ({org.id}). Its wallet is empty: keydesk wallet credit --help",
        _facts(org),
    )


@orgs_command.command("list")
@pass_app
def list_orgs(app: App) -> None:
    """List organisations with what their wallets hold."""
    with app.workspace.read() as tx:
        rows = [_facts(org) for org in organisations.list_all(tx)]
    columns = {
        "name": "name",
        "id": "id",
        "balance_usd": "balance",
        "available_usd": "available",
        "suspended": "suspended",
        "created_at": "created (UTC)",
    }
    app.rows(rows, columns, empty="No organisations yet. Add one: keydesk orgs add NAME")


@orgs_command.command("rename")
@_ORG
@click.argument("name")
@_REASON
@pass_app
def rename(app: App, org: str, name: str, reason: str) -> None:
    """Give an organisation another name; its keys, wallet and history stay."""
    with app.workspace.write() as tx:
        renamed = organisations.rename(tx, org, name, reason=reason)
    app.done(f"The organisation {renamed.id} is named {renamed.name!r}.", _facts(renamed))


@orgs_command.command("suspend")
@_ORG
@_YES
@_REASON
@pass_app
def suspend(app: App, org: str, yes: bool, reason: str) -> None:
    """Refuse all calls of an organisation's keys until it is resumed; nothing is lost."""
    found = _confirmed(app, org, "Suspend {}? All calls of its keys are refused until it is resumed.", yes=yes)
    with app.workspace.write() as tx:
        facts = _facts(organisations.suspend(tx, found.id, confirm=found.name, reason=reason))
    app.done(f"Suspended the organisation {found.name!r}; calls under way finish.", facts)


@orgs_command.command("resume")
@_ORG
@_YES
@_REASON
@pass_app
def resume(app: App, org: str, yes: bool, reason: str) -> None:
    """Let the keys of a suspended organisation call again."""
    found = _confirmed(app, org, "Resume {}? Its keys may call again.", yes=yes)
    with app.workspace.write() as tx:
        facts = _facts(organisations.resume(tx, found.id, confirm=found.name, reason=reason))
    app.done(f"Resumed the organisation {found.name!r}.", facts)


def _confirmed(app: App, org: str, question: str, *, yes: bool) -> Organisation:
    with app.workspace.read() as tx:
        found = organisations.find(tx, org)
    app.confirm(question.format(f"the organisation {found.name!r} ({found.id})"), yes=yes)
    return found
