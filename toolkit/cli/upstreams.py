"""`keydesk upstreams`: the provider endpoints that calls are forwarded to."""

import shlex
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from toolkit import environment
from toolkit.admin import gateway_reports, organisations, upstream_credentials, upstreams
from toolkit.admin.catalog import traits_of
from toolkit.cli.app import App, Group, pass_app
from toolkit.cli.options import UNKNOWN_FIELDS, require_one
from toolkit.cli.upstream_test import test_upstream
from toolkit.cli.values import OneOf
from toolkit.core.account_fault import AccountFault, sentence_of
from toolkit.core.dialect import Dialect
from toolkit.core.token_command import TokenCommand
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.upstream_traits import MOST_RECKON_RATE, RECKON_RATE, CredentialHeader, OnLeave, OutputBound
from toolkit.core.wording import stamp
from toolkit.providers import presets
from toolkit.providers.preset import Preset
from toolkit.providers.usual import preset_at, usual
from toolkit.store.incidents import open_incidents
from toolkit.store.tables import Upstream, UpstreamIncident
from toolkit.store.transaction import Transaction

_PRESET = click.option(
    "--preset",
    metavar="P",
    help="The provider's name, which says all that is not said by other options; `upstreams presets` lists them.",
)
_TRAITS = (
    click.option(
        "--on-leave",
        type=OneOf(OnLeave),
        help="What becomes of a stream whose caller has left.",
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
    click.option(
        "--credential-header",
        type=OneOf(CredentialHeader),
        help="Which header shows our credential; `usual` is that of the dialect's SDK.",
    ),
    click.option(
        "--api-version",
        metavar="VERSION",
        help="Azure's, for its older API with deployments in the path; empty for the one below /openai/v1.",
    ),
    click.option(
        "--output-bound",
        type=OneOf(OutputBound),
        help="The one name under which a chat's bound on output is taken; a bound under the other is renamed.",
    ),
    click.option(
        "--add-stream-options/--no-add-stream-options",
        default=None,
        help="Whether a stream's usage is asked for where its caller did not.",
    ),
    click.option(
        "--add-store/--no-add-store",
        default=None,
        help="Whether `store: false` is said of a response whose caller said nothing of it.",
    ),
    click.option(
        "--add-include/--no-add-include",
        default=None,
        help="Whether a response that is not stored is asked for its reasoning in encrypted form.",
    ),
    click.option(
        "--billed-errors",
        metavar="NAME,…",
        help="Types, codes and statuses of errors that are billed though they answer nothing, as at Azure.",
    ),
    click.option(
        "--max-connections",
        type=click.IntRange(0, upstreams.MOST_CONNECTIONS),
        metavar="N",
        help="Calls that a gateway process may have under way there at once; 0 is any number, as new ones have.",
    ),
)


def _known(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options by which it is said what is known of an upstream."""
    for option in reversed((_PRESET, *_TRAITS)):
        command = option(command)
    return command


@click.group(cls=Group)
def upstreams_command() -> None:
    """Add, change and list provider endpoints."""


@upstreams_command.command("add")
@click.argument("name")
@click.option("--dialect", type=OneOf(Dialect), help="What it speaks, where no preset says it, or its other one.")
@click.option("--base-url", metavar="URL", help="As the provider's SDK has it.")
@click.option("--credential-env", metavar="VAR", help="Variable, or line of the secrets file, with its key.")
@click.option("--org", metavar="ORG", help="Whose own account it is: its keys alone are served there.")
@UNKNOWN_FIELDS
@_known
@pass_app
def add_upstream(app: App, /, name: str, unknown_fields: str | None, **given: Any) -> None:
    """Add a provider endpoint, by its provider's name or by what is said. Its credential is named, never given."""
    with app.workspace.write() as tx:
        upstream = upstreams.add_upstream(tx, name, unknown_fields=_unknown_fields(unknown_fields), **given)
        whose = f" for API keys of {_org(tx, upstream)!r} alone" if upstream.org_id else ""
    sentence = f"Added the upstream {upstream.name!r} at {upstream.base_url}{whose}; {_described(upstream)}."
    app.done(sentence + _next_steps(app, upstream), _upstream(upstream))


def _next_steps(app: App, upstream: Upstream) -> str:
    """Return what is left to do for a new upstream, as sentences."""
    steps = ""
    if environment.upstream_credential(app.workspace.settings, upstream.credential_env) is None:
        steps += f" Set {upstream.credential_env} where the gateway runs."
    if upstream.preset is None:
        preset = preset_at(Dialect(upstream.dialect), upstream.base_url)
        if preset is not None and preset.traits != usual(preset.dialect, upstream.base_url):
            command = f"keydesk upstreams update {upstream.name} --preset {preset.name}"
            steps += f" This is {preset.title}: `{command}` sets what is known of it."
    else:
        note = presets.find(upstream.preset, Dialect(upstream.dialect)).note
        steps += f" {note}" if note else ""
    return f"{steps} With a gateway running, `keydesk upstreams test {shlex.quote(upstream.name)}` tries it."


@upstreams_command.command("update")
@click.argument("name")
@click.option("--base-url", metavar="URL", help="As the provider's SDK has it.")
@click.option("--credential-env", metavar="VAR", help="Variable, or line of the secrets file, with its key.")
@UNKNOWN_FIELDS
@_known
@pass_app
def update_upstream(app: App, /, name: str, unknown_fields: str | None, **given: Any) -> None:
    """Change where an endpoint is, its credential, or what is known of it. The next call goes by it."""
    changes = {**given, "unknown_fields": _unknown_fields(unknown_fields)}
    require_one(changes)
    with app.workspace.write() as tx:
        upstream = upstreams.update_upstream(tx, name, **changes)
    app.done(
        f"The upstream {upstream.name!r} is at {upstream.base_url}, with the credential {upstream.credential_env}; "
        f"{_described(upstream)}.",
        _upstream(upstream),
    )


def _unknown_fields(given: str | None) -> UnknownFields | None:
    return UnknownFields(given) if given else None


@upstreams_command.command("credentials")
@click.argument("name")
@click.argument("names", metavar="VAR…", nargs=-1, required=True)
@pass_app
def set_credentials(app: App, name: str, names: tuple[str, ...]) -> None:
    """Say which credentials an endpoint has: API keys are spread over them, and each stays with its own."""
    with app.workspace.write() as tx:
        found = upstream_credentials.set_credentials(tx, name, names)
        facts = _with_incidents(app, tx, upstreams.find(tx, name), open_incidents(tx))
    missing = [one for one in found if environment.upstream_credential(app.workspace.settings, one) is None]
    hint = f" Set {', '.join(missing)} where the gateway runs." if missing else ""
    app.done(f"The upstream {name!r} is called with {' and '.join(found)}.{hint}", facts)


@upstreams_command.command("retire")
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT", help="For the audit log.")
@click.option("--yes", is_flag=True, help="Confirm; needed where there is no terminal.")
@pass_app
def retire(app: App, name: str, reason: str, yes: bool) -> None:
    """Take an endpoint away that serves no model any more; logs keep its name."""
    app.confirm(f"Retire the upstream {name!r}? Its settings and the names of its credentials are gone.", yes=yes)
    with app.workspace.write() as tx:
        upstreams.retire_upstream(tx, name, confirm=name, reason=reason)
    app.done(f"The upstream {name!r} is retired.", {"name": name})


@upstreams_command.command("presets")
@pass_app
def list_presets(app: App) -> None:
    """List the providers that are known by name, and what is known of each."""
    columns = {
        "name": "preset",
        "title": "provider",
        "dialect": "dialect",
        "base_url": "base URL",
        "credential_env": "credential",
        "output_bound": "output bound",
        "on_leave": "on leave",
        "price_list": "prices",
    }
    app.rows([_preset(preset) for preset in presets.FORMS.values()], columns, empty="There are none.")


def _preset(preset: Preset) -> dict[str, Any]:
    """Return what a preset says, as JSON has it."""
    facts = asdict(preset)
    traits: dict[str, Any] = facts.pop("traits")
    return facts | traits


upstreams_command.add_command(test_upstream)


@upstreams_command.command("list")
@pass_app
def list_upstreams(app: App) -> None:
    """List provider endpoints."""
    with app.workspace.read() as tx:
        found = open_incidents(tx)
        rows = [_with_incidents(app, tx, upstream, found) for upstream in upstreams.list_upstreams(tx)]
    columns = {
        "name": "name",
        "org": "only for",
        "incidents": "incident",
        "preset": "preset",
        "dialect": "dialect",
        "base_url": "base URL",
        "credentials": "credentials",
        "unknown_fields": "unknown fields",
        "on_leave": "on leave",
        "refusal_free": "free refusals",
        "pin_tier": "tier pinned",
        "reckon_rate": "reckoned/s",
        "output_bound": "output bound",
        "max_connections": "at once",
    }
    app.rows(rows, columns, empty="No upstreams yet. Add one: keydesk upstreams add --help")


@upstreams_command.command("show")
@click.argument("name")
@pass_app
def show_upstream(app: App, name: str) -> None:
    """Show one provider endpoint: what is known of it, and why that holds."""
    with app.workspace.read() as tx:
        upstream = upstreams.find(tx, name)
        facts = _with_incidents(app, tx, upstream, open_incidents(tx))
        known = upstreams.where_holds(upstream) + upstreams.what_holds(upstream)
        aside = [each for report in gateway_reports.reports(tx) for each in report.aside if each.upstream == name]
    if app.as_json:
        facts["set_aside"] = [each._asdict() for each in aside]
        facts["why"] = {one.name: one.why for one in known}
    else:
        until = [f"{each.what} until {each.until:%H:%M:%S} UTC" for each in aside]
        facts["set aside"] = "; ".join(until) or "nothing"
        facts |= {one.name: f"{one.word} ({one.why})" for one in known}
    app.facts(facts)


def _with_incidents(app: App, tx: Transaction, upstream: Upstream, found: list[UpstreamIncident]) -> dict[str, Any]:
    """Return what an upstream is, and why it does not serve our account: as a list in JSON, else in words.

    So are its credentials, each with what is wrong with it, and whether a command prints it here.
    """
    incidents = [_incident(incident) for incident in found if incident.upstream == upstream.name]
    words = "; ".join(f"since {stamp(one['first_at'])}: {one['sentence']}" for one in incidents) or "none"
    facts = _upstream(upstream) | {"org": _org(tx, upstream), "incidents": incidents if app.as_json else words}
    names = upstream_credentials.credentials_of(tx, upstream.name)
    faults = {name: [one["fault"] for one in incidents if one["credential"] == name] for name in names}
    held = {name: environment.upstream_credential(app.workspace.settings, name) for name in names}
    printed = {name: isinstance(held[name], TokenCommand) for name in names}
    if app.as_json:
        facts["credentials"] = [{"name": name, "command": printed[name], "faults": faults[name]} for name in names]
    else:
        said = {name: [*(["printed by a command"] if printed[name] else []), *faults[name]] for name in names}
        facts["credentials"] = ", ".join(f"{name} ({', '.join(said[name])})" if said[name] else name for name in names)
    return facts


def _org(tx: Transaction, upstream: Upstream) -> str | None:
    """Return the name of the organisation whose own account an upstream is; None if it is everybody's."""
    return organisations.find(tx, upstream.org_id).name if upstream.org_id else None


def _incident(incident: UpstreamIncident) -> dict[str, Any]:
    return {
        "fault": incident.fault,
        "model": incident.model or None,
        "credential": incident.credential or None,
        "sentence": sentence_of(AccountFault(incident.fault), incident.model),
        "first_at": incident.first_at,
        "last_at": incident.last_at,
        "calls": incident.calls,
        "words": incident.words,
    }


def _described(upstream: Upstream) -> str:
    """Return what is known of an upstream, for people: the preset, and what is not as it, or as usual."""
    known = upstreams.what_holds(upstream)
    at_once = [f"calls at once: {upstream.max_connections}"] if upstream.max_connections else []
    said = [f"{one.name.replace('_', ' ')}: {one.word}" for one in known if one.is_given]
    return "; ".join([f"preset {upstream.preset}" if upstream.preset else "no preset", *said, *at_once])


def _upstream(upstream: Upstream) -> dict[str, Any]:
    """Return what an upstream is, as JSON has it."""
    return {
        "name": upstream.name,
        "preset": upstream.preset,
        "dialect": str(upstream.dialect),
        "base_url": upstream.base_url,
        "credential_env": upstream.credential_env,
        "org_id": upstream.org_id,
        "unknown_fields": str(upstream.unknown_fields),
        "max_connections": upstream.max_connections,
        **asdict(traits_of(upstream)),
        "created_at": upstream.created_at,
        "created_by": upstream.created_by,
    }
