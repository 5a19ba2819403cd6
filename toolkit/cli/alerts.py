"""`keydesk alerts`: who is told when a threshold is passed, and the process that tells."""

import asyncio
import time
from typing import Any

import click

from toolkit import environment
from toolkit.admin import organisations
from toolkit.alerts import destinations, mail
from toolkit.alerts.mail import Mailbox, Security
from toolkit.cli.app import App, Group, keep_private, pass_app
from toolkit.cli.values import PORT, OneOf
from toolkit.core.errors import Unavailable
from toolkit.store.tables import AlertDelivery, AlertDestination

_LOOK = 0.2
"""Seconds between two looks at what became of a test."""

_ONE = click.argument("destination")
_YES = click.option("--yes", is_flag=True, help="Confirm; needed where there is no terminal.")


@click.group(cls=Group)
def alerts_command() -> None:
    """Say who is told when a threshold is passed; tell them."""


@alerts_command.command("run")
@pass_app
def run(app: App) -> None:
    """Look for alerts and send them, until Ctrl-C or SIGTERM; of several such processes one does."""
    from toolkit.alerts.runner import Runner
    from toolkit.cli.supervisor import StopSignals

    settings = environment.read_settings()
    keep_private(settings)
    workspace = app.workspace
    keyring = workspace.keyring

    async def work(stop: StopSignals) -> None:
        await Runner(workspace.store, settings, keyring).run(lambda: stop.count)

    with StopSignals() as stop:
        asyncio.run(work(stop))


@alerts_command.command("add")
@click.argument("name")
@click.argument("url")
@click.option("--org", metavar="ORG", help="Whose alerts: id or name.  [default: everybody's, and the platform's]")
@pass_app
def add(app: App, name: str, url: str, org: str | None) -> None:
    """Add a destination: a webhook that gets alerts as signed JSON. Its secret is shown."""
    with app.workspace.write() as tx:
        row, secret = destinations.add(tx, app.workspace.keyring, name, url, org)
    app.done(
        f"Added {row.name}. Its receiver verifies signatures with this secret:\n{secret}\n"
        f"Try it: keydesk alerts test {row.id}",
        {"id": row.id, "name": row.name, "secret": secret},
    )


@alerts_command.command("add-mail")
@click.argument("name")
@click.option("--to", required=True, metavar="ADDRESS,…", help="Who gets it.")
@click.option("--from", "sender", required=True, metavar="ADDRESS", help="Whom it is from.")
@click.option("--host", required=True, metavar="HOST", help="Of the mail server.")
@click.option("--port", type=PORT, help="Of the mail server.  [default: as --security has it: 465, 587 or 25]")
@click.option("--security", type=OneOf(Security), default="starttls", show_default=True, help="Of the connection.")
@click.option("--user", metavar="USER", help="That the mail server wants; without it nobody signs in.")
@click.option("--password-name", metavar="NAME", help="Line of KEYDESK_ALERTS_SECRETS_FILE with the user's password.")
@click.option("--org", metavar="ORG", help="Whose alerts: id or name.  [default: everybody's, and the platform's]")
@pass_app
def add_mail(
    app: App,
    name: str,
    to: str,
    sender: str,
    host: str,
    port: int | None,
    security: str,
    user: str | None,
    password_name: str | None,
    org: str | None,
) -> None:
    """Add a destination that gets alerts by e-mail. Its password is named, never given."""
    recipients = tuple(filter(None, map(str.strip, to.split(","))))
    kept = Security(security)
    mailbox = Mailbox(host, port or mail.PORTS[kept], kept, user, password_name, sender, recipients)
    with app.workspace.write() as tx:
        row = destinations.add_mailbox(tx, name, mailbox, org)
    app.done(
        f"Added {row.name}, which mails to {to}. Try it: keydesk alerts test {row.id}", {"id": row.id, "name": row.name}
    )


@alerts_command.command("remove")
@_ONE
@click.option("--reason", default="", metavar="TEXT", help="For the audit log.")
@_YES
@pass_app
def remove(app: App, destination: str, reason: str, yes: bool) -> None:
    """Remove a destination. What waits to be sent to it is dropped."""
    with app.workspace.read() as tx:
        row = destinations.find(tx, destination)
        waiting = destinations.count_open(tx).get(row.id, 0)
    app.confirm(f"Remove {row.name!r}? {waiting:,} alerts wait to be sent to it.", yes=yes)
    with app.workspace.write() as tx:
        destinations.remove(tx, row.id, reason)
    app.done(f"Removed {row.name}.", {"id": row.id, "dropped": waiting})


@alerts_command.command("secret")
@_ONE
@pass_app
def secret(app: App, destination: str) -> None:
    """Show the secret that a receiver verifies signatures with; the audit log says so."""
    with app.workspace.write() as tx:
        found = destinations.secret(tx, app.workspace.keyring, destination)
    app.done(found, {"secret": found})


@alerts_command.command("list")
@pass_app
def list_destinations(app: App) -> None:
    """List destinations, and how many alerts wait for each."""
    with app.workspace.read() as tx:
        orgs = {org.id: org.name for org in organisations.list_all(tx)}
        waiting = destinations.count_open(tx)
        rows: list[dict[str, Any]] = [
            {
                "id": row.id,
                "name": row.name,
                "org": orgs[row.org_id] if row.org_id else None,
                "org_id": row.org_id,
                "url": destinations.shown_url(tx, row),
                "waiting": waiting.get(row.id, 0),
                "created_at": row.created_at,
                "created_by": row.created_by,
            }
            for row in destinations.list_all(tx)
        ]
    columns = {"id": "id", "name": "name", "org": "alerts of", "url": "URL", "waiting": "waiting"}
    app.rows(rows, columns, empty="Nobody is told anything yet. Name a receiver: keydesk alerts add --help")


@alerts_command.command("log")
@click.option("--org", metavar="ORG", help="Only alerts of this organisation: id or name.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Lines at most.")
@pass_app
def log(app: App, org: str | None, limit: int) -> None:
    """List the alerts of the last 90 days, newest first, and what became of each."""
    with app.workspace.read() as tx:
        rows = [
            {
                "id": one.alert.id,
                "fired_at": one.alert.fired_at,
                "kind": one.alert.kind,
                "subject": one.alert.subject,
                "message": one.message,
                "destination": one.destination,
                "tries": one.delivery.tries if one.delivery else 0,
                "state": one.state,
                "failure": one.delivery.failure if one.delivery else None,
            }
            for one in destinations.history(tx, org=org, limit=limit)
        ]
    columns = {
        "fired_at": "noticed (UTC)",
        "message": "what",
        "destination": "to",
        "state": "state",
        "tries": "tries",
        "failure": "last failure",
    }
    app.rows(rows, columns, empty="Nothing has passed a threshold. What is looked at: keydesk alerts --help")


@alerts_command.command("test")
@_ONE
@click.option("--wait", type=click.IntRange(1, 3600), default=30, show_default=True, help="Seconds to wait for it.")
@pass_app
def test(app: App, destination: str, wait: int) -> None:
    """Send a test alert to a destination, and say whether it was taken."""
    with app.workspace.write() as tx:
        row = destinations.find(tx, destination)
        alert_id = destinations.test(tx, row.id)
    delivery = _outcome(app, row, alert_id, wait)
    taken = delivery.failure is None
    app.done(
        f"{row.name} has taken the test alert {alert_id}."
        if taken
        else f"{row.name} has not taken the test alert {alert_id}: {delivery.failure}. It is tried again.",
        {"alert": alert_id, "taken": taken, "failure": delivery.failure},
    )
    if not taken:
        click.get_current_context().exit(1)


def _outcome(app: App, row: AlertDestination, alert_id: str, seconds: float) -> AlertDelivery:
    """Return what became of a test alert's first try.

    Raises:
        Unavailable: it was not tried in time, or the destination was removed meanwhile.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with app.workspace.read() as tx:
            found = destinations.history(tx, alert_id=alert_id)
        delivery = found[0].delivery if found else None
        if delivery is None:
            raise Unavailable(f"The destination {row.name!r} was removed meanwhile.")
        if delivery.tries:
            return delivery
        time.sleep(_LOOK)
    raise Unavailable(f"The test alert was not tried within {seconds} s: other alerts for {row.name!r} come first.")
