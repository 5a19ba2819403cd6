"""`keydesk operators`: add, list, reset-password. A password is never an argument: others could see it."""

from typing import Any

import click

from toolkit import accounts, sessions
from toolkit.cli.app import App, Group, pass_app
from toolkit.credentials import hash_password
from toolkit.models import Operator
from toolkit.policy import Role

_PASSWORD_STDIN = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input instead of asking."
)


@click.group(cls=Group)
def operators_command() -> None:
    """Add people who may sign in, and reset their passwords."""


def _facts(operator: Operator) -> dict[str, Any]:
    return {
        "id": operator.id,
        "email": operator.email,
        "role": str(operator.role),
        "org_id": operator.org_id,
        "last_sign_in_at": operator.last_sign_in_at,
        "created_at": operator.created_at,
        "created_by": operator.created_by,
    }


@operators_command.command("add")
@click.argument("email")
@click.option("--role", required=True, type=click.Choice([role.value for role in Role]), help="What they may do.")
@click.option("--org", metavar="ORG", help="Whose keys and spend they see; an org admin needs one.")
@_PASSWORD_STDIN
@pass_app
def add(app: App, email: str, role: str, org: str | None, password_stdin: bool) -> None:
    """Add a person who may sign in to the dashboard."""
    password = hash_password(app.new_password(from_stdin=password_stdin))
    with app.desk.write() as tx:
        org_id = accounts.find_org(tx, org).id if org else None
        operator = accounts.add_operator(tx, email, Role(role), password, org_id=org_id)
    app.done(f"Added {operator.email} as {operator.role}.", _facts(operator))


@operators_command.command("reset-password")
@click.argument("email")
@_PASSWORD_STDIN
@pass_app
def reset_password(app: App, email: str, password_stdin: bool) -> None:
    """Give an operator a new password and sign them out everywhere."""
    password = hash_password(app.new_password(from_stdin=password_stdin))
    with app.desk.write() as tx:
        operator = accounts.reset_password(tx, email, password)
    sessions.end_all(app.desk.store, operator.id)
    app.done(f"{operator.email} has a new password and is signed out everywhere.", _facts(operator))


@operators_command.command("list")
@pass_app
def list_operators(app: App) -> None:
    """List the people who may sign in."""
    with app.desk.read() as tx:
        org_names = {org.id: org.name for org in accounts.list_orgs(tx)}
        rows = [
            {**_facts(operator), "org": org_names[operator.org_id] if operator.org_id else None}
            for operator in accounts.list_operators(tx)
        ]
    columns = {
        "email": "e-mail",
        "role": "role",
        "org": "organisation",
        "last_sign_in_at": "last sign-in (UTC)",
        "created_at": "added (UTC)",
    }
    app.rows(rows, columns, empty="No operators yet. Add one: keydesk operators add EMAIL --role platform_admin")
