"""`keydesk operators`: add, invite, list, reset-password, sign-out, disable, enable, remove, set-role.

A password is never an argument: others could see it.
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import click

from toolkit.admin import invitations, operators, organisations
from toolkit.cli.app import App, Group, pass_app
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role
from toolkit.core.wording import stamp
from toolkit.store.tables import Operator
from toolkit.store.transaction import Transaction

_PASSWORD_STDIN = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input instead of asking."
)
_YES = click.option("--yes", is_flag=True, help="Confirm; needed where there is no terminal.")
_REASON = click.option("--reason", default="", metavar="TEXT", help="Why, for the audit log.")
_ROLE = click.Choice([role.value for role in Role])


@click.group(cls=Group)
def operators_command() -> None:
    """Add, change and remove people who may sign in."""


def _facts(operator: Operator) -> dict[str, Any]:
    return {
        "id": operator.id,
        "email": operator.email,
        "role": str(operator.role),
        "org_id": operator.org_id,
        "disabled_at": operator.disabled_at,
        "last_sign_in_at": operator.last_sign_in_at,
        "created_at": operator.created_at,
        "created_by": operator.created_by,
    }


@operators_command.command("add")
@click.argument("email")
@click.option("--role", required=True, type=_ROLE, help="What they may do.")
@click.option("--org", metavar="ORG", help="Whose keys and spend they see; an org admin needs one.")
@_PASSWORD_STDIN
@pass_app
def add(app: App, email: str, role: str, org: str | None, password_stdin: bool) -> None:
    """Add a person who may sign in to the dashboard."""
    password = hash_password(app.new_password(from_stdin=password_stdin))
    with app.workspace.write() as tx:
        operator = operators.add(tx, email, Role(role), password, org_id=_org_id(tx, org))
    app.done(f"Added {operator.email} as {operator.role}.", _facts(operator))


@operators_command.command("reset-password")
@click.argument("email")
@_PASSWORD_STDIN
@pass_app
def reset_password(app: App, email: str, password_stdin: bool) -> None:
    """Give an operator a new password and sign them out everywhere."""
    password = hash_password(app.new_password(from_stdin=password_stdin))
    with app.workspace.write() as tx:
        operator = operators.reset_password(tx, email, password)
    app.done(f"{operator.email} has a new password and is signed out everywhere.", _facts(operator))


@operators_command.command("invite")
@click.argument("email")
@click.option("--role", required=True, type=_ROLE, help="What they may do.")
@click.option("--org", metavar="ORG", help="Whose keys and spend they see; an org admin needs one.")
@pass_app
def invite(app: App, email: str, role: str, org: str | None) -> None:
    """Make a one-time link by which a person sets a password and can sign in.

    It works for three days, and ends an earlier one for the same person.
    """
    with app.workspace.write() as tx:
        made = invitations.invite(tx, email, Role(role), org_id=_org_id(tx, org))
    _show_link(app, made)


@operators_command.command("password-link")
@click.argument("email")
@pass_app
def password_link(app: App, email: str) -> None:
    """Make a one-time link by which an operator sets a new password; until then the present one holds."""
    with app.workspace.write() as tx:
        made = invitations.password_link(tx, email)
    _show_link(app, made)


def _show_link(app: App, made: invitations.Invited) -> None:
    from toolkit.cli.parts import url

    settings, found = app.workspace.settings, made.invitation
    base = next(iter(settings.dashboard_urls), url(settings.host, settings.dashboard_port))
    link = f"{base.rstrip('/')}/invitation?{urlencode({'token': made.token})}"
    app.done(
        f"Send this link to {found.email} by a way that only they read. It works once, until "
        f"{stamp(found.expires_at)}, and is shown this once:\n{link}",
        {"id": found.id, "email": found.email, "role": found.role, "link": link, "expires_at": found.expires_at},
    )


@operators_command.command("invitations")
@pass_app
def list_invitations(app: App) -> None:
    """List the links that have not been used yet."""
    with app.workspace.read() as tx:
        orgs = {org.id: org.name for org in organisations.list_all(tx)}
        rows = [
            {
                "id": each.id,
                "email": each.email,
                "purpose": "new password" if each.operator_id else each.role,
                "org": orgs.get(each.org_id or ""),
                "created_at": each.created_at,
                "created_by": each.created_by,
                "expires_at": each.expires_at,
            }
            for each in invitations.list_open(tx)
        ]
    columns = {"id": "id", "email": "e-mail", "purpose": "for", "org": "organisation", "expires_at": "ends (UTC)"}
    app.rows(rows, columns, empty="No link is open. Make one: keydesk operators invite --help")


@operators_command.command("withdraw")
@click.argument("invitation")
@_REASON
@pass_app
def withdraw(app: App, invitation: str, reason: str) -> None:
    """End a link, by its id, so that it does nothing any more."""
    with app.workspace.write() as tx:
        found = invitations.withdraw(tx, invitation, reason=reason)
    app.done(f"The link for {found.email} is withdrawn.", {"id": found.id, "email": found.email})


@operators_command.command("sign-out")
@click.argument("email")
@_REASON
@pass_app
def sign_out(app: App, email: str, reason: str) -> None:
    """Sign an operator out everywhere; the password stays."""
    with app.workspace.write() as tx:
        operator = operators.end_sessions(tx, email, reason=reason)
    app.done(f"{operator.email} is signed out everywhere.", _facts(operator))


@operators_command.command("disable")
@click.argument("email")
@_YES
@_REASON
@pass_app
def disable(app: App, email: str, yes: bool, reason: str) -> None:
    """Keep an operator from signing in until enabled again, and sign them out everywhere."""
    question = "Disable {}? They are signed out everywhere and cannot sign in."
    _change(app, email, operators.disable, question, "Disabled {}, who is signed out everywhere.", yes, reason)


@operators_command.command("enable")
@click.argument("email")
@_YES
@_REASON
@pass_app
def enable(app: App, email: str, yes: bool, reason: str) -> None:
    """Let a disabled operator sign in again, with the password they had."""
    _change(app, email, operators.enable, "Enable {}?", "Enabled {}; the old password holds.", yes, reason)


@operators_command.command("remove")
@click.argument("email")
@_YES
@_REASON
@pass_app
def remove(app: App, email: str, yes: bool, reason: str) -> None:
    """Take an operator away for good; the audit log goes on to name them."""
    found = _confirmed(app, email, "Remove {} for good?", yes=yes, type_name=True)
    with app.workspace.write() as tx:
        gone = _facts(operators.remove(tx, found.email, confirm=found.email, reason=reason))
    app.done(f"Removed {found.email}. The audit log goes on to name them.", gone)


@operators_command.command("set-role")
@click.argument("email")
@click.argument("role", type=_ROLE, metavar="ROLE")
@click.option("--org", metavar="ORG", help="The organisation for the new role.  [default: the present one]")
@_YES
@_REASON
@pass_app
def set_role(app: App, email: str, role: str, org: str | None, yes: bool, reason: str) -> None:
    """Give an operator another role, and sign them out everywhere.

    ROLE is platform_admin, org_admin or analyst.
    """

    def verb(tx: Transaction, email: str, *, confirm: str, reason: str) -> Operator:
        org_id = _org_id(tx, org)
        return operators.set_role(tx, email, Role(role), org_id=org_id, confirm=confirm, reason=reason)

    question = f"Make {{}} {role}? They are signed out everywhere."
    _change(app, email, verb, question, f"{{}} is {role} now, and signed out everywhere.", yes, reason)


def _org_id(tx: Transaction, org: str | None) -> str | None:
    return organisations.find(tx, org).id if org else None


def _confirmed(app: App, email: str, question: str, *, yes: bool, type_name: bool = False) -> Operator:
    """Return the operator who was meant, once the change is confirmed. No transaction is open while a person thinks."""
    with app.workspace.read() as tx:
        found = operators.find(tx, email)
    app.confirm(question.format(found.email), yes=yes, type_name=found.email if type_name else None)
    return found


def _change(
    app: App, email: str, verb: Callable[..., Operator], question: str, sentence: str, yes: bool, reason: str
) -> None:
    found = _confirmed(app, email, question, yes=yes)
    with app.workspace.write() as tx:
        facts = _facts(verb(tx, found.email, confirm=found.email, reason=reason))
    app.done(sentence.format(found.email), facts)


@operators_command.command("list")
@pass_app
def list_operators(app: App) -> None:
    """List the people who may sign in."""
    with app.workspace.read() as tx:
        org_names = {org.id: org.name for org in organisations.list_all(tx)}
        rows = [
            {**_facts(operator), "org": org_names[operator.org_id] if operator.org_id else None}
            for operator in operators.list_all(tx)
        ]
    columns = {
        "email": "e-mail",
        "role": "role",
        "org": "organisation",
        "disabled_at": "disabled (UTC)",
        "last_sign_in_at": "last sign-in (UTC)",
        "created_at": "added (UTC)",
    }
    app.rows(rows, columns, empty="No operators yet. Add one: keydesk operators add EMAIL --role platform_admin")
