"""`keydesk upstreams`: the provider endpoints that calls are forwarded to."""

from typing import Any

import click

from toolkit import environment
from toolkit.admin import upstreams
from toolkit.cli.app import App, Group, pass_app
from toolkit.cli.options import UNKNOWN_FIELDS, require_one
from toolkit.core.dialect import Dialect
from toolkit.core.unknown_fields import UnknownFields
from toolkit.store.tables import Upstream


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
@pass_app
def add_upstream(
    app: App, name: str, dialect: str, base_url: str, credential_env: str, unknown_fields: str | None
) -> None:
    """Add a provider endpoint. Its credential is named, never given."""
    unknown = UnknownFields(unknown_fields or UnknownFields.PASS)
    with app.workspace.write() as tx:
        upstream = upstreams.add_upstream(tx, name, Dialect(dialect), base_url, credential_env, unknown_fields=unknown)
    set_now = environment.upstream_credential(app.workspace.settings, credential_env) is not None
    hint = "" if set_now else f" Set {credential_env} where the gateway runs."
    app.done(f"Added the upstream {upstream.name!r}.{hint}", _upstream(upstream))


@upstreams_command.command("update")
@click.argument("name")
@click.option("--base-url", metavar="URL", help="As the provider's SDK has it.")
@click.option("--credential-env", metavar="VAR", help="Variable, or line of the secrets file, with its key.")
@UNKNOWN_FIELDS
@pass_app
def update_upstream(
    app: App, name: str, base_url: str | None, credential_env: str | None, unknown_fields: str | None
) -> None:
    """Change where an endpoint is, its credential, or what becomes of unknown fields. The next call goes by it."""
    require_one({"base_url": base_url, "credential_env": credential_env, "unknown_fields": unknown_fields})
    unknown = UnknownFields(unknown_fields) if unknown_fields else None
    with app.workspace.write() as tx:
        upstream = upstreams.update_upstream(
            tx, name, base_url=base_url, credential_env=credential_env, unknown_fields=unknown
        )
    app.done(
        f"The upstream {upstream.name!r} is at {upstream.base_url}, with the credential {upstream.credential_env}; "
        f"unknown fields: {upstream.unknown_fields}.",
        _upstream(upstream),
    )


@upstreams_command.command("list")
@pass_app
def list_upstreams(app: App) -> None:
    """List provider endpoints."""
    with app.workspace.read() as tx:
        rows = [_upstream(upstream) for upstream in upstreams.list_upstreams(tx)]
    columns = {
        "name": "name",
        "dialect": "dialect",
        "base_url": "base URL",
        "credential_env": "credential",
        "unknown_fields": "unknown fields",
    }
    app.rows(rows, columns, empty="No upstreams yet. Add one: keydesk upstreams add --help")


def _upstream(upstream: Upstream) -> dict[str, Any]:
    return {
        "name": upstream.name,
        "dialect": str(upstream.dialect),
        "base_url": upstream.base_url,
        "credential_env": upstream.credential_env,
        "unknown_fields": str(upstream.unknown_fields),
        "created_at": upstream.created_at,
        "created_by": upstream.created_by,
    }
