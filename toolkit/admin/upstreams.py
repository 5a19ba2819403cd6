"""Upstreams: provider endpoints, each with its dialect, base URL, credential by name, and what is known of it."""

import re
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import select

from toolkit import environment
from toolkit.admin import catalog
from toolkit.core import upstream_traits, words
from toolkit.core.base_url import check_base_url
from toolkit.core.destinations import fault_of_url
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Conflict, InvalidInput, NotFound
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.upstream_traits import OnLeave, UpstreamTraits
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
    on_leave: OnLeave | None = None,
    refusal_free: bool | None = None,
    pin_tier: bool | None = None,
    reckon_rate: int | None = None,
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
        on_leave, refusal_free, pin_tier, reckon_rate: as in `UpstreamTraits`; what is not given is as its `defaults`.

    Raises:
        InvalidInput: a value cannot be used.
        Conflict: the name is taken.
    """
    catalog.begin_change(tx)
    name = words.check_name(name, "upstream's name")
    check_base_url(base_url, dialect)
    _check_credential_name(credential_env)
    given = {"on_leave": on_leave, "refusal_free": refusal_free, "pin_tier": pin_tier, "reckon_rate": reckon_rate}
    traits = _traits(dialect, upstream_traits.defaults(dialect, base_url), given)
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
        **asdict(traits),
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
    on_leave: OnLeave | None = None,
    refusal_free: bool | None = None,
    pin_tier: bool | None = None,
    reckon_rate: int | None = None,
) -> Upstream:
    """Change where an upstream is, its credential, what becomes of unknown fields, or what is known of it.

    What is not given stays; but what was the default at its old address becomes the default at the new one. The next
    call goes by it.

    Raises:
        NotFound: no such upstream.
        InvalidInput: a value cannot be used.
    """
    catalog.begin_change(tx)
    upstream = find(tx, name)
    before = _describe_upstream(upstream)
    dialect, traits = Dialect(upstream.dialect), catalog.traits_of(upstream)
    if base_url is not None:
        check_base_url(base_url, dialect)
        old, new = (upstream_traits.defaults(dialect, url) for url in (upstream.base_url, base_url))
        moved = {name: value for name, value in asdict(new).items() if getattr(traits, name) == getattr(old, name)}
        traits = replace(traits, **moved)
        upstream.base_url = base_url.rstrip("/")
    if credential_env is not None:
        _check_credential_name(credential_env)
        upstream.credential_env = credential_env
    if unknown_fields is not None:
        upstream.unknown_fields = unknown_fields
    given = {"on_leave": on_leave, "refusal_free": refusal_free, "pin_tier": pin_tier, "reckon_rate": reckon_rate}
    for trait, value in asdict(_traits(dialect, traits, given)).items():
        setattr(upstream, trait, value)
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
        **asdict(catalog.traits_of(upstream)),
    }


def _traits(dialect: Dialect, before: UpstreamTraits, given: dict[str, Any]) -> UpstreamTraits:
    """Return what is known of an upstream once the given values have taken their place."""
    traits = replace(before, **{name: value for name, value in given.items() if value is not None})
    upstream_traits.check(dialect, traits)
    return traits


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


def find(tx: Transaction, name: str) -> Upstream:
    """Return an upstream.

    Raises:
        NotFound: no such upstream.
    """
    upstream = tx.session.get(Upstream, name)
    if upstream is None:
        raise NotFound(f"There is no upstream named {name!r}. `keydesk upstreams list` shows them.")
    return upstream


def list_upstreams(tx: Transaction) -> list[Upstream]:
    """Return all upstreams, by name."""
    return list(tx.session.scalars(select(Upstream).order_by(Upstream.name)))
