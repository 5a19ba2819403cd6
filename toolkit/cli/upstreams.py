"""`keydesk upstreams`: the provider endpoints that calls are forwarded to."""

from collections.abc import Callable
from typing import Any

import click

from toolkit import environment
from toolkit.admin import upstreams
from toolkit.cli.app import App, Group, pass_app
from toolkit.cli.options import UNKNOWN_FIELDS, require_one
from toolkit.core.account_fault import AccountFault, sentence_of
from toolkit.core.dialect import Dialect
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.upstream_traits import MOST_RECKON_RATE, RECKON_RATE, OnLeave
from toolkit.core.wording import stamp
from toolkit.store.incidents import open_incidents
from toolkit.store.tables import Upstream, UpstreamIncident

_TRAITS = (
    click.option(
        "--on-leave",
        type=click.Choice([choice.value for choice in OnLeave]),
        help="What becomes of a stream whose caller has left. New ones have `cancel`.",
    ),
    click.option(
        "--refusal-free/--no-refusal-free",
        default=None,
        help="Whether a refusal before any output costs nothing, as on Anthropic's own API.",
    ),
    click.option(
        "--pin-tier/--no-pin-tier",
        default=None,
        help="Whether a request that names no service tier asks for the one that is priced, as at OpenAI's and "
        "Anthropic's own hosts.",
    ),
    click.option(
        "--reckon-rate",
        type=click.IntRange(0, MOST_RECKON_RATE),
        metavar="N",
        help=f"Tokens a second that a model is taken to reason unseen. New ones have {RECKON_RATE}.",
    ),
)


def _traits(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_TRAITS):
        command = option(command)
    return command


@click.group(cls=Group)
def upstreams_command() -> None:
    """Add, change and list provider endpoints."""


@upstreams_command.command("add")
@click.argument("name")
@click.option(
    "--dialect", required=True, type=click.Choice([dialect.value for dialect in Dialect]), help="What it speaks."
)
@click.option("--base-url", required=True, metavar="URL", help="As the provider's SDK has it.")
@click.option(
    "--credential-env", required=True, metavar="VAR", help="Variable, or line of the secrets file, with its key."
)
@UNKNOWN_FIELDS
@_traits
@pass_app
def add_upstream(
    app: App,
    /,
    name: str,
    dialect: str,
    base_url: str,
    credential_env: str,
    unknown_fields: str | None,
    on_leave: str | None,
    **traits: Any,
) -> None:
    """Add a provider endpoint. Its credential is named, never given."""
    with app.workspace.write() as tx:
        upstream = upstreams.add_upstream(
            tx,
            name,
            Dialect(dialect),
            base_url,
            credential_env,
            unknown_fields=UnknownFields(unknown_fields or UnknownFields.PASS),
            on_leave=OnLeave(on_leave) if on_leave else None,
            **traits,
        )
    set_now = environment.upstream_credential(app.workspace.settings, credential_env) is not None
    hint = "" if set_now else f" Set {credential_env} where the gateway runs."
    app.done(f"Added the upstream {upstream.name!r}; {_described(upstream)}.{hint}", _upstream(upstream))


@upstreams_command.command("update")
@click.argument("name")
@click.option("--base-url", metavar="URL", help="As the provider's SDK has it.")
@click.option("--credential-env", metavar="VAR", help="Variable, or line of the secrets file, with its key.")
@UNKNOWN_FIELDS
@_traits
@pass_app
def update_upstream(
    app: App,
    /,
    name: str,
    base_url: str | None,
    credential_env: str | None,
    unknown_fields: str | None,
    on_leave: str | None,
    **traits: Any,
) -> None:
    """Change where an endpoint is, its credential, or what is known of it. The next call goes by it."""
    changes = {
        "base_url": base_url,
        "credential_env": credential_env,
        "unknown_fields": UnknownFields(unknown_fields) if unknown_fields else None,
        "on_leave": OnLeave(on_leave) if on_leave else None,
        **traits,
    }
    require_one(changes)
    with app.workspace.write() as tx:
        upstream = upstreams.update_upstream(tx, name, **changes)
    app.done(
        f"The upstream {upstream.name!r} is at {upstream.base_url}, with the credential {upstream.credential_env}; "
        f"{_described(upstream)}.",
        _upstream(upstream),
    )


@upstreams_command.command("list")
@pass_app
def list_upstreams(app: App) -> None:
    """List provider endpoints."""
    with app.workspace.read() as tx:
        found = open_incidents(tx)
        rows = [_with_incidents(app, upstream, found) for upstream in upstreams.list_upstreams(tx)]
    columns = {
        "name": "name",
        "incidents": "incident",
        "dialect": "dialect",
        "base_url": "base URL",
        "credential_env": "credential",
        "unknown_fields": "unknown fields",
        "on_leave": "on leave",
        "refusal_free": "free refusals",
        "pin_tier": "tier pinned",
        "reckon_rate": "reckoned/s",
    }
    app.rows(rows, columns, empty="No upstreams yet. Add one: keydesk upstreams add --help")


@upstreams_command.command("show")
@click.argument("name")
@pass_app
def show_upstream(app: App, name: str) -> None:
    """Show one provider endpoint."""
    with app.workspace.read() as tx:
        app.facts(_with_incidents(app, upstreams.find(tx, name), open_incidents(tx)))


def _with_incidents(app: App, upstream: Upstream, found: list[UpstreamIncident]) -> dict[str, Any]:
    """Return what an upstream is, and why it does not serve our account: as a list in JSON, else in words."""
    incidents = [_incident(incident) for incident in found if incident.upstream == upstream.name]
    words = "; ".join(f"since {stamp(one['first_at'])}: {one['sentence']}" for one in incidents)
    return _upstream(upstream) | {"incidents": incidents if app.as_json else words}


def _incident(incident: UpstreamIncident) -> dict[str, Any]:
    return {
        "fault": incident.fault,
        "model": incident.model or None,
        "sentence": sentence_of(AccountFault(incident.fault), incident.model),
        "first_at": incident.first_at,
        "last_at": incident.last_at,
        "calls": incident.calls,
        "words": incident.words,
    }


def _described(upstream: Upstream) -> str:
    """Return what is known of an upstream, for people."""
    return (
        f"unknown fields: {upstream.unknown_fields}; on leave: {upstream.on_leave}; "
        f"free refusals: {_yes(upstream.refusal_free)}; tier pinned: {_yes(upstream.pin_tier)}; "
        f"reckoned: {upstream.reckon_rate} tokens/s"
    )


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"


def _upstream(upstream: Upstream) -> dict[str, Any]:
    """Return what an upstream is, as JSON has it."""
    return {
        "name": upstream.name,
        "dialect": str(upstream.dialect),
        "base_url": upstream.base_url,
        "credential_env": upstream.credential_env,
        "unknown_fields": str(upstream.unknown_fields),
        "on_leave": str(upstream.on_leave),
        "refusal_free": upstream.refusal_free,
        "pin_tier": upstream.pin_tier,
        "reckon_rate": upstream.reckon_rate,
        "created_at": upstream.created_at,
        "created_by": upstream.created_by,
    }
