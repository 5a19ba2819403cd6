"""`keydesk pepper`: list, retire. A pepper itself is never shown; its id tells nothing of it."""

import click

from toolkit.admin import peppers
from toolkit.cli.app import App, Group, pass_app
from toolkit.core.wording import counted


@click.group(cls=Group)
def pepper_command() -> None:
    """See which peppers the API keys need, and retire one that is gone."""


@pepper_command.command("list")
@pass_app
def list_peppers(app: App) -> None:
    """List the peppers that are here or that API keys were made under, by id."""
    with app.workspace.read() as tx:
        listed = peppers.listed(tx, app.workspace.settings)
    rows = [{"id": p.id, "keys": p.keys, "here": p.is_here, "current": p.is_current} for p in listed]
    columns = {"id": "pepper", "keys": "live keys", "here": "is here", "current": "signs new keys"}
    app.rows(rows, columns, empty="No pepper yet. The first start makes one: keydesk up")


@pepper_command.command("retire")
@click.argument("pepper_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Confirm; needed where there is no terminal.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for the audit log.")
@pass_app
def retire(app: App, pepper_id: str, yes: bool, reason: str) -> None:
    """End the secrets made under a pepper that leaked or is lost; their keys wait to be rotated."""
    with app.workspace.read() as tx:
        listed = {pepper.id: pepper for pepper in peppers.listed(tx, app.workspace.settings)}
    number = listed[pepper_id].keys if pepper_id in listed else 0
    if number:
        question = f"Retire the pepper {pepper_id}? The secrets of {counted(number, 'API key')} are dead then."
        app.confirm(question, yes=yes, type_name=pepper_id)
    current = next((pepper.id for pepper in listed.values() if pepper.is_current), None)
    with app.workspace.write() as tx:
        ended = peppers.retire(tx, pepper_id, current=current, confirm=pepper_id, reason=reason)
    app.done(
        f"Retired the pepper {pepper_id}: {counted(ended, 'API key')} without a secret. Give them new ones: "
        "keydesk keys rotate KEY",
        {"id": pepper_id, "keys": ended},
    )
