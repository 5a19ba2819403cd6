"""Upstreams: provider endpoints, each with its dialect, base URL and the name of its credential."""

import re
from typing import Any

from sqlalchemy import select

from toolkit import environment
from toolkit.admin import catalog
from toolkit.core import words
from toolkit.core.base_url import check_base_url
from toolkit.core.destinations import fault_of_url
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Conflict, InvalidInput, NotFound
from toolkit.core.unknown_fields import UnknownFields
from toolkit.store import audit
from toolkit.store.tables import Plan, Upstream
from toolkit.store.transaction import Transaction

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def add_upstream(
    tx: Transaction,
    name: str,
    dialect: Dialect,
    base_url: str,
    credential_env: str,
    *,
    unknown_fields: UnknownFields = UnknownFields.PASS,
) -> Upstream:
    """Add a provider endpoint.

    Args:
        tx: as a platform admin.
        name: how models refer to it.
        dialect: the wire format it speaks.
        base_url: what the provider's own SDK uses, e.g. https://api.openai.com/v1, https://api.anthropic.com,
            https://generativelanguage.googleapis.com.
        credential_env: name of the environment variable, or of the line in the secrets file, with its credential.
        unknown_fields: what becomes of request fields, betas and headers that Keydesk does not know.

    Raises:
        InvalidInput: a value cannot be used.
        Conflict: the name is taken.
    """
    catalog.begin_change(tx)
    name = words.check_name(name, "upstream's name")
    check_base_url(base_url, dialect)
    _check_credential_name(credential_env)
    if tx.session.get(Upstream, name):
        raise Conflict(f"There is already an upstream named {name!r}.")
    upstream = Upstream(
        name=name,
        dialect=dialect,
        base_url=base_url.rstrip("/"),
        credential_env=credential_env,
        unknown_fields=unknown_fields,
        created_at=tx.now,
        created_by=tx.actor.name,
    )
    tx.session.add(upstream)
    tx.session.flush()
    catalog.changed(tx)
    audit.record(tx, "upstream.add", name, after={"dialect": dialect, **_describe_upstream(upstream)})
    return upstream


def update_upstream(
    tx: Transaction,
    name: str,
    *,
    base_url: str | None = None,
    credential_env: str | None = None,
    unknown_fields: UnknownFields | None = None,
) -> Upstream:
    """Change where an upstream is, its credential, or what becomes of unknown fields; what is not given stays.

    The next call goes by it.

    Raises:
        NotFound: no such upstream.
        InvalidInput: a value cannot be used.
    """
    catalog.begin_change(tx)
    upstream = tx.session.get(Upstream, name)
    if upstream is None:
        raise NotFound(f"There is no upstream named {name!r}. `keydesk upstreams list` shows them.")
    before = _describe_upstream(upstream)
    if base_url is not None:
        check_base_url(base_url, Dialect(upstream.dialect))
        upstream.base_url = base_url.rstrip("/")
    if credential_env is not None:
        _check_credential_name(credential_env)
        upstream.credential_env = credential_env
    if unknown_fields is not None:
        upstream.unknown_fields = unknown_fields
    after = _describe_upstream(upstream)
    if after != before:
        catalog.changed(tx)
        audit.record(tx, "upstream.update", name, before=before, after=after)
    return upstream


def _describe_upstream(upstream: Upstream) -> dict[str, Any]:
    return {
        "base_url": upstream.base_url,
        "credential": upstream.credential_env,
        **describe_unknown_fields(upstream),
    }


def describe_unknown_fields(subject: Upstream | Plan) -> dict[str, str]:
    """Return what an audit row says of an upstream or plan that does not let unknown fields pass."""
    return {} if subject.unknown_fields == UnknownFields.PASS else {"unknown_fields": str(subject.unknown_fields)}


def _check_credential_name(name: str) -> None:
    if _VARIABLE.fullmatch(name) is None:
        raise InvalidInput(f"{name!r} cannot be the name of an environment variable. Give the name, not the value.")
    if fault := environment.credential_fault(environment.read_settings(), name):
        raise InvalidInput(f"{fault}.")


def upstream_fault(upstream: Upstream) -> str | None:
    """Return why a gateway with this process's settings never calls an upstream, in words; None if it does."""
    return fault_of_url(upstream.base_url) or environment.credential_fault(
        environment.read_settings(), upstream.credential_env
    )


def list_upstreams(tx: Transaction) -> list[Upstream]:
    """Return all upstreams, by name."""
    return list(tx.session.scalars(select(Upstream).order_by(Upstream.name)))
