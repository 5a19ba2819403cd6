"""`keydesk keys`: create, list, hand-over, show, update, rotate, disable, enable, delete."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click
from click.core import ParameterSource

from toolkit.admin import client_settings, key_summaries, keys
from toolkit.admin.key_summaries import KeySummary
from toolkit.cli.app import App, Group, pass_app
from toolkit.cli.options import HOSTED_TOOLS
from toolkit.cli.values import Moment, Names
from toolkit.cli.values import Usd as UsdType
from toolkit.core.hosted_tools import HostedTools
from toolkit.core.marked import Usd
from toolkit.core.policy import HoldPolicy, has_expired
from toolkit.core.wording import counted, listed
from toolkit.store.tables import ApiKey
from toolkit.store.transaction import Transaction

_POLICIES = click.Choice([policy.value for policy in HoldPolicy])
_COLUMNS = {
    "name": "name",
    "id": "id",
    "org": "organisation",
    "plan": "plan",
    "status": "status",
    "owner": "owner",
    "monthly_limit_usd": "limit",
    "spent_usd": "spent",
    "expires_at": "expires (UTC)",
    "last_used_at": "last used (UTC)",
    "display": "secret",
}
_YES = click.option("--yes", is_flag=True, help="Confirm; needed where there is no terminal.")
_REASON = click.option("--reason", default="", metavar="TEXT", help="Why, for the audit log.")
_KEY = click.argument("key", metavar="KEY")


@click.group(cls=Group)
def keys_command() -> None:
    """Create, change, rotate, disable and delete API keys.

    KEY is an id, or a name where that is unambiguous.
    """


def _facts(tx: Transaction, summary: KeySummary) -> dict[str, Any]:
    key = summary.key
    return {
        "id": key.id,
        "name": key.name,
        "org": summary.org_name,
        "org_id": key.org_id,
        "plan": summary.plan_name,
        "status": str(key.status),
        "org_suspended": summary.org_suspended,
        "expired": has_expired(key.expires_at, tx.now),
        "models": json.loads(key.scope),
        "monthly_limit_usd": None if key.monthly_limit is None else Usd(key.monthly_limit),
        "month": summary.month,
        "calls": summary.calls,
        "spent_usd": Usd(summary.spent),
        "corrected_usd": Usd(summary.corrected),
        "held_usd": Usd(summary.held),
        "policy": str(key.hold_policy),
        "hosted_tools": str(key.hosted_tools),
        "owner": key.owner,
        "environment": key.environment,
        "note": key.note,
        "labels": json.loads(key.labels),
        "expires_at": key.expires_at,
        "last_used_at": summary.last_used_at,
        "old_secret_uses": summary.old_secret_uses,
        "display": key.display,
        "created_at": key.created_at,
        "created_by": summary.created_by,
        "rotated_at": key.rotated_at,
        "deleted_at": key.deleted_at,
        "version": key.version,
    }


def _facts_of(tx: Transaction, key: ApiKey) -> dict[str, Any]:
    summaries = key_summaries.summaries(tx, org=key.org_id, deleted=True)
    return _facts(tx, next(summary for summary in summaries if summary.key.id == key.id))


def _hand_over(app: App, sentence: str, facts: dict[str, Any], new: keys.NewSecret) -> None:
    """Write a secret, the one time that it is known, and what SDKs and tools need to use it."""
    from toolkit.cli import parts

    settings, secret = app.workspace.settings, new.secret
    with app.workspace.read() as tx:
        models = client_settings.callable_models(tx, new.key)
    base = settings.public_url or parts.url(settings.host, settings.gateway_port)
    told = f"{sentence}\n\n{secret}\n\nCopy the secret now: it is not stored and cannot be shown again."
    if models:
        told += f"\n\nFor SDKs and tools (others: docs/clients.md):\n\n{client_settings.exports(models, base, secret)}"
    app.done(told, {**facts, "secret": secret})


def _details(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of what people note of a key."""
    for option in (
        click.option("--labels", type=Names(), metavar="A,B", help="Words, such as team=search,batch; '' for none."),
        click.option("--note", metavar="TEXT", help="A note."),
        click.option("--environment", metavar="NAME", help="Where it is used, such as production."),
        click.option("--owner", metavar="WHO", help="Whose key it is: a person, a team, an e-mail."),
    ):
        command = option(command)
    return command


@keys_command.command("create")
@click.option("--org", required=True, metavar="ORG", help="Id or name of the organisation.")
@click.option("--name", required=True, help="Unique among the organisation's live keys.")
@click.option("--plan", required=True, metavar="PLAN", help="Id or name of the plan.")
@click.option("--models", type=Names(all=True), metavar="A,B", help="Model scope.  [default: all of the plan]")
@click.option(
    "--monthly-limit", type=UsdType(none=True), metavar="USD", help="Most that a month may cost; 0 = nothing."
)
@click.option("--expires", "expires_at", type=Moment(never=True), metavar="TIME", help="UTC, such as 2027-01-31.")
@click.option("--policy", "hold_policy", type=_POLICIES, default="strict", show_default=True, help="What is held.")
@HOSTED_TOOLS
@_details
@pass_app
def create(
    app: App,
    org: str,
    name: str,
    plan: str,
    models: list[str] | None,
    monthly_limit: int | None,
    expires_at: datetime | None,
    hold_policy: str,
    hosted_tools: str | None,
    owner: str | None,
    environment: str | None,
    note: str | None,
    labels: list[str] | None,
) -> None:
    """Create an API key and print its secret, this once."""
    keyring = app.workspace.keyring
    with app.workspace.write() as tx:
        new = keys.create(
            tx,
            keyring,
            org=org,
            name=name,
            plan=plan,
            models=models,
            monthly_limit=monthly_limit,
            expires_at=expires_at,
            hold_policy=HoldPolicy(hold_policy),
            hosted_tools=HostedTools(hosted_tools or HostedTools.LEAVE_OUT),
            owner=owner or "",
            environment=environment or "",
            note=note or "",
            labels=labels or (),
        )
        facts = _facts_of(tx, new.key)
    _hand_over(app, f"Created the API key {name!r} ({new.key.id}).", facts, new)


@keys_command.command("list")
@click.option("--org", metavar="ORG", help="Only this organisation's.")
@click.option("--deleted", is_flag=True, help="Deleted keys too.")
@pass_app
def list_keys(app: App, org: str | None, deleted: bool) -> None:
    """List API keys with what they spent this month."""
    with app.workspace.read() as tx:
        rows = [_facts(tx, summary) for summary in key_summaries.summaries(tx, org=org, deleted=deleted)]
    suspended = {"org_suspended": "org suspended"} if any(row["org_suspended"] for row in rows) else {}
    app.rows(rows, _COLUMNS | suspended, empty="No API keys yet. Create one: keydesk keys create --help")


@keys_command.command("hand-over")
@click.argument("from_owner", metavar="FROM")
@click.argument("to_owner", metavar="TO")
@click.option("--org", metavar="ORG", help="Only this organisation's keys.")
@_YES
@_REASON
@pass_app
def hand_over(app: App, from_owner: str, to_owner: str, org: str | None, yes: bool, reason: str) -> None:
    """Give all live API keys of the owner FROM the owner TO."""
    with app.workspace.read() as tx:
        names = [key.name for key in keys.of_owner(tx, from_owner, org=org)]
    app.confirm(f"Hand {counted(len(names), 'API key')} over to {to_owner!r}: {listed(names)}?", yes=yes)
    with app.workspace.write() as tx:
        changed = keys.hand_over(tx, from_owner, to_owner, org=org, reason=reason)
        rows = [{"id": key.id, "name": key.name} for key in changed]
    app.done(f"Handed {counted(len(rows), 'API key')} over to {to_owner}.", {"owner": to_owner, "keys": rows})


@keys_command.command("show")
@_KEY
@pass_app
def show(app: App, key: str) -> None:
    """Show one API key; a deleted one by its id."""
    with app.workspace.read() as tx:
        facts = _facts_of(tx, keys.find(tx, key))
    app.facts(facts if app.as_json else facts | {"models": facts["models"] or "all models"})


@keys_command.command("update")
@_KEY
@click.option("--name", help="A new name.")
@click.option("--plan", metavar="PLAN", help="Id or name of another plan.")
@click.option("--models", type=Names(all=True), metavar="A,B|all", help="A new model scope.")
@click.option("--monthly-limit", type=UsdType(none=True), metavar="USD|none", help="A new monthly limit.")
@click.option("--expires", "expires_at", type=Moment(never=True), metavar="TIME|never", help="A new expiry, UTC.")
@click.option("--policy", "hold_policy", type=_POLICIES, help="Another hold policy.")
@HOSTED_TOOLS
@_details
@_REASON
@click.pass_context
def update(ctx: click.Context, /, key: str, reason: str, **options: Any) -> None:
    """Change options of an API key; the next call is judged by them."""
    # None is a value here (no limit, no expiry), so what was given is told by where the value comes from.
    changes = {name: value for name, value in options.items() if ctx.get_parameter_source(name) is not _DEFAULT}
    if not changes:
        raise click.UsageError("Nothing to change: give at least one option.", ctx)
    if "hold_policy" in changes:
        changes["hold_policy"] = HoldPolicy(changes["hold_policy"])
    if "hosted_tools" in changes:
        changes["hosted_tools"] = HostedTools(changes["hosted_tools"])
    app = ctx.find_object(App)
    assert app is not None  # noqa: S101 - the root made it
    with app.workspace.write() as tx:
        changed = keys.update(tx, keys.find(tx, key).id, reason=reason, **changes)
        facts = _facts_of(tx, changed)
    app.done(f"Updated the API key {changed.name!r}.", facts)


_DEFAULT = ParameterSource.DEFAULT


@keys_command.command("rotate")
@_KEY
@_YES
@_REASON
@pass_app
def rotate(app: App, key: str, yes: bool, reason: str) -> None:
    """Give an API key a new secret and print it, this once; the old one is dead at once."""
    found = _confirmed(app, key, "Rotate {}? The old secret stops working at once.", yes=yes)
    keyring = app.workspace.keyring
    with app.workspace.write() as tx:
        new = keys.rotate(tx, keyring, found.id, confirm=found.name, reason=reason)
        facts = _facts_of(tx, new.key)
    _hand_over(app, f"Rotated the API key {found.name!r}; its old secret is dead.", facts, new)


@keys_command.command("disable")
@_KEY
@_YES
@_REASON
@pass_app
def disable(app: App, key: str, yes: bool, reason: str) -> None:
    """Stop an API key until it is enabled again."""
    found = _confirmed(app, key, "Disable {}? Its calls are refused until it is enabled.", yes=yes)
    _change(app, keys.disable, found, reason, "Disabled the API key {!r}.")


@keys_command.command("enable")
@_KEY
@_YES
@_REASON
@pass_app
def enable(app: App, key: str, yes: bool, reason: str) -> None:
    """Let a disabled API key call again."""
    found = _confirmed(app, key, "Enable {}?", yes=yes)
    _change(app, keys.enable, found, reason, "Enabled the API key {!r}.")


@keys_command.command("delete")
@_KEY
@_YES
@_REASON
@pass_app
def delete(app: App, key: str, yes: bool, reason: str) -> None:
    """Delete an API key for ever; its history stays."""
    found = _confirmed(app, key, "Delete {} for ever?", yes=yes, type_name=True)
    _change(app, keys.delete, found, reason, "Deleted the API key {!r}. Its history stays.")


def _confirmed(app: App, key: str, question: str, *, yes: bool, type_name: bool = False) -> ApiKey:
    """Return the key that was meant, once its change is confirmed. No transaction stays open while a person thinks."""
    with app.workspace.read() as tx:
        found = keys.find(tx, key)
    app.confirm(
        question.format(f"the API key {found.name!r} ({found.id})"),
        yes=yes,
        type_name=found.name if type_name else None,
    )
    return found


def _change(app: App, verb: Callable[..., ApiKey], found: ApiKey, reason: str, sentence: str) -> None:
    with app.workspace.write() as tx:
        changed = verb(tx, found.id, confirm=found.name, reason=reason)
        facts = _facts_of(tx, changed)
    app.done(sentence.format(changed.name), facts)
