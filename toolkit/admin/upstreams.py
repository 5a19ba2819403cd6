"""Upstreams: provider endpoints, each with its dialect, base URL, credential by name, and what is known of it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Unpack

from sqlalchemy import delete, select, union

from toolkit import environment
from toolkit.admin import catalog, organisations, rights
from toolkit.core import upstream_traits, words
from toolkit.core.base_url import check_base_url
from toolkit.core.destinations import fault_of_url
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Conflict, InvalidInput, NotFound
from toolkit.core.stale import require_unchanged
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.upstream_traits import GivenTraits, UpstreamTraits
from toolkit.core.wording import listed
from toolkit.providers import presets
from toolkit.providers.preset import Preset
from toolkit.providers.usual import usual
from toolkit.store import audit, incidents
from toolkit.store.tables import Model, ModelWay, Plan, RefusedField, SmallerLimit, Upstream, UpstreamCredential
from toolkit.store.transaction import Transaction

MOST_CONNECTIONS = 10_000
"""The largest bound of connections to one upstream: as many as a gateway process has open at all (docs/security.md)."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def add_upstream(
    tx: Transaction,
    name: str,
    dialect: Dialect | None = None,
    base_url: str | None = None,
    credential_env: str | None = None,
    *,
    org: str | None = None,
    preset: str | None = None,
    unknown_fields: UnknownFields | None = None,
    max_connections: int | None = None,
    **given: Unpack[GivenTraits],
) -> Upstream:
    """Add a provider endpoint: by the name of its provider, by what is said of it, or by both, where what is said wins.

    Args:
        tx: as a platform admin.
        name: how models refer to it.
        dialect: the wire format it speaks; with a preset that of the preset, or another that its provider speaks.
        base_url: what the provider's own SDK uses, e.g. https://api.openai.com/v1, https://api.anthropic.com,
            https://generativelanguage.googleapis.com; with a preset that of the preset, if it has one for everybody.
        credential_env: name of the environment variable, or of the line in the secrets file, with its credential; with
            a preset the customary one, unless it is an organisation's own.
        org: id or name of the organisation whose own account it is: its keys alone are served there. It stays so.
        preset: a name of `presets.PRESETS`.
        unknown_fields: what becomes of request fields, betas and headers that Keydesk does not know; they pass unless
            the preset says otherwise.
        max_connections: calls of one gateway process that may be under way there at once; any number by default.
        given: as in `UpstreamTraits`; what is not given is as the preset has it, else as is `usual`.

    Raises:
        InvalidInput: a value cannot be used, or one that no preset gives is missing.
        NotFound: no such organisation.
        Conflict: the name is taken.
    """
    catalog.begin_change(tx)
    org_id = None if org is None else organisations.find(tx, org).id
    if org_id is not None and credential_env is None:
        raise InvalidInput(
            "Name the organisation's own credential with --credential-env; the customary one is everybody's."
        )
    name = words.check_name(name, "upstream's name")
    row = presets.find(preset, dialect) if preset is not None else None
    dialect, base_url, credential_env = _address(row, dialect, base_url, credential_env)
    check_base_url(base_url, dialect)
    check_credential_name(credential_env)
    _check_max_connections(max_connections or 0)
    traits = _traits(dialect, row.traits if row else usual(dialect, base_url), given)
    if tx.session.get(Upstream, name):
        raise Conflict(f"There is already an upstream named {name!r}.")
    check_owner_of(tx, [credential_env], org_id)
    upstream = Upstream(
        name=name,
        dialect=dialect,
        base_url=base_url.rstrip("/"),
        credential_env=credential_env,
        unknown_fields=unknown_fields or (row.unknown_fields if row else UnknownFields.PASS),
        created_at=tx.now,
        created_by=tx.actor.name,
        preset=preset,
        max_connections=max_connections or 0,
        org_id=org_id,
        **asdict(traits),
    )
    tx.session.add(upstream)
    tx.session.flush()
    catalog.changed(tx)
    audit.record(tx, "upstream.add", name, after={"dialect": dialect, **described(upstream)})
    return upstream


def _address(
    preset: Preset | None, dialect: Dialect | None, base_url: str | None, credential_env: str | None
) -> tuple[Dialect, str, str]:
    """Return what an upstream needs, from what is given and what its preset says.

    Raises:
        InvalidInput: something is missing.
    """
    if preset is None:
        if dialect is None or base_url is None or credential_env is None:
            raise InvalidInput(
                "Name the provider with --preset (`keydesk upstreams presets` lists them), or give --dialect, "
                "--base-url and --credential-env."
            )
        return dialect, base_url, credential_env
    if base_url is None and not preset.has_address:
        raise InvalidInput(f"Give the address of your own {preset.title}: --base-url {preset.base_url}")
    return preset.dialect, base_url or preset.base_url, credential_env or preset.credential_env


def update_upstream(
    tx: Transaction,
    name: str,
    *,
    base_url: str | None = None,
    credential_env: str | None = None,
    preset: str | None = None,
    unknown_fields: UnknownFields | None = None,
    max_connections: int | None = None,
    seen: Mapping[str, Any] | None = None,
    reason: str = "",
    **given: Unpack[GivenTraits],
) -> Upstream:
    """Change where an upstream is, its credential, what becomes of unknown fields, its bound, or what is known of it.

    What is not given stays; but with a preset all that is known of the upstream becomes as that has it, and of one
    without, what was usual at its old address becomes what is usual at the new one. The next call goes by it.

    Args:
        tx: as a platform admin.
        name: of the upstream.
        base_url, credential_env, preset, unknown_fields, max_connections, given: as in `add_upstream`.
        seen: what `described` said of it when the change was thought out; by default whatever holds now.
        reason: for the audit log.

    Raises:
        NotFound: no such upstream.
        InvalidInput: a value cannot be used.
        Conflict: it is not any more what was seen.
    """
    catalog.begin_change(tx)
    upstream = find(tx, name)
    before = described(upstream)
    if seen is not None:
        require_unchanged(f"upstream {name!r}", seen, before)
    dialect, traits = Dialect(upstream.dialect), catalog.traits_of(upstream)
    if base_url is not None:
        check_base_url(base_url, dialect)
        if upstream.preset is None:
            old, new = (usual(dialect, url) for url in (upstream.base_url, base_url))
            moved = {name: value for name, value in asdict(new).items() if getattr(traits, name) == getattr(old, name)}
            traits = replace(traits, **moved)
        upstream.base_url = base_url.rstrip("/")
    if preset is not None:
        row = presets.find(preset, dialect)
        upstream.preset, traits = preset, row.traits
        unknown_fields = unknown_fields or row.unknown_fields
    if credential_env is not None:
        check_credential_name(credential_env)
        if tx.session.get(UpstreamCredential, (name, credential_env)) is not None:
            raise InvalidInput(
                f"{credential_env} is one of the credentials of {name!r} already. `keydesk upstreams credentials` sets "
                "them all."
            )
        check_owner_of(tx, [credential_env], upstream.org_id)
        incidents.end_with(tx, name, {upstream.credential_env} - {credential_env})
        upstream.credential_env = credential_env
    if unknown_fields is not None:
        upstream.unknown_fields = unknown_fields
    if max_connections is not None:
        _check_max_connections(max_connections)
        upstream.max_connections = max_connections
    for trait, value in asdict(_traits(dialect, traits, given)).items():
        setattr(upstream, trait, value)
    after = described(upstream)
    if after != before:
        catalog.changed(tx)
        audit.record(tx, "upstream.update", name, before=before, after=after, reason=reason)
    return upstream


def retire_upstream(tx: Transaction, name: str, *, confirm: str, reason: str = "") -> None:
    """Take an upstream away that serves no model any more; what it was called with stays in the logs under its name.

    Args:
        tx: as a platform admin.
        name: of the upstream.
        confirm: its name once more.
        reason: for the audit log.

    Raises:
        Forbidden: the actor is no platform admin.
        NotFound: no such upstream.
        NotConfirmed: `confirm` is another name.
        Conflict: models are served there.
    """
    catalog.begin_change(tx)
    upstream = find(tx, name)
    words.check_confirmed(confirm, upstream.name, "upstream's name")
    alone = tx.session.scalars(select(Model.id).where(Model.upstream == name))
    routed = tx.session.scalars(select(ModelWay.model_id).where(ModelWay.upstream == name))
    if served := sorted({*alone, *routed}):
        raise Conflict(
            f"{name!r} serves {listed(served)}. Have another upstream serve them first: `keydesk models update MODEL "
            "--upstream NAME`, or `keydesk models route`."
        )
    before = described(upstream)
    for table in (UpstreamCredential, RefusedField, SmallerLimit):
        tx.session.execute(delete(table).where(table.upstream == name))
    incidents.end_all(tx, name)
    tx.session.delete(upstream)
    tx.session.flush()
    catalog.changed(tx)
    audit.record(tx, "upstream.retire", name, before={"dialect": upstream.dialect, **before}, reason=reason)


def described(upstream: Upstream) -> dict[str, Any]:
    """Return what an audit row says of an upstream, and what a form is made from."""
    return {
        "base_url": upstream.base_url,
        "credential": upstream.credential_env,
        **({"org": upstream.org_id} if upstream.org_id else {}),
        **({"preset": upstream.preset} if upstream.preset else {}),
        **describe_unknown_fields(upstream),
        **({"max_connections": upstream.max_connections} if upstream.max_connections else {}),
        **asdict(catalog.traits_of(upstream)),
    }


def _traits(dialect: Dialect, before: UpstreamTraits, given: GivenTraits) -> UpstreamTraits:
    """Return what is known of an upstream once the given values have taken their place."""
    said: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    traits = replace(before, **said)
    upstream_traits.check(dialect, traits)
    return traits


@dataclass(frozen=True, slots=True)
class Holds:
    """A thing that is known of an upstream.

    Args:
        name: of the column.
        value: what holds.
        is_given: whether somebody has said so, and neither preset nor host.
        why: from where, in words.
    """

    name: str
    value: Any
    is_given: bool
    why: str

    @property
    def word(self) -> str:
        """The value as a person reads it."""
        return _word(self.value)


def what_holds(upstream: Upstream) -> list[Holds]:
    """Return all that is known of an upstream beside where it is, and why it holds."""
    traits = catalog.traits_of(upstream)
    preset = presets.known(upstream.preset, Dialect(upstream.dialect))
    expected = preset.traits if preset else usual(Dialect(upstream.dialect), upstream.base_url)
    source = f"from preset {preset.name}" if preset else "default"
    unknown_fields = UnknownFields(upstream.unknown_fields)
    usually = preset.unknown_fields if preset else UnknownFields.PASS
    found = [_holds("unknown_fields", unknown_fields, usually, source)]
    return found + [_holds(name, value, getattr(expected, name), source) for name, value in asdict(traits).items()]


def where_holds(upstream: Upstream) -> list[Holds]:
    """Return where an upstream is, and why, if it has a preset; without one all of that was given."""
    preset = presets.known(upstream.preset, Dialect(upstream.dialect))
    names = ("base_url", "credential_env") if preset else ()
    source = f"from preset {upstream.preset}"
    return [_holds(name, getattr(upstream, name), getattr(preset, name), source) for name in names]


def _holds(name: str, value: Any, other: Any, source: str) -> Holds:
    is_given = value != other
    return Holds(name, value, is_given, f"given; {source}: {_word(other)}" if is_given else source)


def _word(value: Any) -> str:
    """Return a value of a trait as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value) or "none"


def describe_unknown_fields(subject: Upstream | Plan) -> dict[str, str]:
    """Return what an audit row says of an upstream or plan that does not let unknown fields pass."""
    return {} if subject.unknown_fields == UnknownFields.PASS else {"unknown_fields": str(subject.unknown_fields)}


def check_credential_name(name: str) -> None:
    """Refuse what can be no name of a credential, or names what is never sent to an upstream.

    Raises:
        InvalidInput: it is such a name.
    """
    if _VARIABLE.fullmatch(name) is None:
        raise InvalidInput(f"{name!r} cannot be the name of an environment variable. Give the name, not the value.")
    if fault := environment.credential_fault(environment.read_settings(), name):
        raise InvalidInput(f"{fault}.")


def check_owner_of(tx: Transaction, credentials: Sequence[str], org_id: str | None) -> None:
    """Refuse an organisation the credential of another's account, and everybody that of an organisation's own.

    Args:
        tx: behind the catalog's lock.
        credentials: names that an upstream is to have.
        org_id: whose own account it is; None for everybody's.

    Raises:
        InvalidInput: an upstream that is not the same ones' has one of them.
    """
    first = select(Upstream.credential_env, Upstream.name, Upstream.org_id)
    further = select(UpstreamCredential.credential_env, Upstream.name, Upstream.org_id).join(Upstream)
    for credential, other, owner in tx.session.execute(union(first, further).order_by(Upstream.name)):
        if credential in credentials and owner != org_id:
            whose = "which serves everybody" if owner is None else "an organisation's own account"
            raise InvalidInput(
                f"{credential} is a credential of {other!r}, {whose}. An organisation's own account has credentials of "
                "its own: enter this one's under another name."
            )


def _check_max_connections(count: int) -> None:
    if not 0 <= count <= MOST_CONNECTIONS:
        raise InvalidInput(f"An upstream's bound of connections lies between 1 and {MOST_CONNECTIONS:,}; 0 is none.")


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
    if upstream is None or not rights.may_know(tx, upstream.org_id):
        raise NotFound(f"There is no upstream named {name!r}. `keydesk upstreams list` shows them.")
    return upstream


def list_upstreams(tx: Transaction) -> list[Upstream]:
    """Return the upstreams, by name; to people of one organisation none that is another's own account."""
    query = select(Upstream).order_by(Upstream.name)
    return [upstream for upstream in tx.session.scalars(query) if rights.may_know(tx, upstream.org_id)]
