"""API keys: create, update, rotate, disable, enable, delete, list, look up.

Every verb checks the actor's rights, changes the key and writes its audit row in one transaction, and raises the
key's version, so that the next admission is judged by the new state. A secret is returned once, by `create` and
`rotate`, and kept nowhere.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import or_, select

from toolkit.admin import key_options, organisations, plans, rights
from toolkit.core import key_details, words
from toolkit.core.errors import Conflict, NotFound
from toolkit.core.hosted_tools import HostedTools, checked
from toolkit.core.ids import new_id
from toolkit.core.money import usd
from toolkit.core.policy import HoldPolicy, KeyStatus
from toolkit.core.secrets import Keyring, display_form, new_secret
from toolkit.core.stale import require_unchanged
from toolkit.store import audit
from toolkit.store.locks import lock_catalog, lock_orgs
from toolkit.store.tables import ApiKey, LiveSecret, RetiredSecret
from toolkit.store.transaction import Transaction


class Unset:
    """The type of `UNSET`, which tells "leave as it is" from None."""


UNSET: Final = Unset()

NO_SECRET = "none: rotate"  # noqa: S105 - there is none
"""What is shown for the secret of a key that has none, since its pepper was retired."""


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A key with its secret, which is shown this once. The secret is in no repr and no equality."""

    key: ApiKey
    secret: str = field(repr=False, compare=False)


def create(
    tx: Transaction,
    keyring: Keyring,
    *,
    org: str,
    name: str,
    plan: str,
    models: list[str] | None = None,
    monthly_limit: int | None = None,
    expires_at: datetime | None = None,
    hold_policy: HoldPolicy = HoldPolicy.STRICT,
    hosted_tools: HostedTools = HostedTools.LEAVE_OUT,
    owner: str = "",
    environment: str = "",
    note: str = "",
    labels: Sequence[str] = (),
) -> NewSecret:
    """Create an API key.

    Args:
        tx: as a platform admin, or an admin of the organisation.
        keyring: whose current pepper the secret is stored under.
        org: id or name.
        name: unique among the organisation's live keys.
        plan: id or name; assigned by the platform, but an org admin may pick one of those its keys have.
        models: model scope; none or empty = all models of the plan.
        monthly_limit: nano-USD; None = unlimited, 0 = nothing paid.
        expires_at: UTC; None = never.
        hold_policy: how much is held against the monthly limit.
        hosted_tools: what becomes of tools that the provider would run; the plan may be stricter.
        owner, environment, note, labels: for people, who find and group keys by them (`key_details`).

    Raises:
        InvalidInput, NotFound, Conflict, Forbidden: an option cannot be used, the name is taken or the pepper is
            not the store's, no right.
    """
    lock_catalog(tx)  # what the plan includes must not change under the key's scope
    org_id = organisations.find(tx, org).id
    rights.require_key_admin(tx, org_id)
    lock_orgs(tx, org_id)
    name = words.check_name(name, "key's name")
    key_options.require_free_name(tx, org_id, name)
    plan_id = key_options.assignable_plan(tx, org_id, plan)
    _require_known_pepper(tx, keyring)
    secret = new_secret()
    key = ApiKey(
        id=new_id("key"),
        org_id=org_id,
        name=name,
        status=KeyStatus.ACTIVE,
        plan_id=plan_id,
        scope=key_options.scope(tx, org_id, plan_id, models or []),
        monthly_limit=key_options.limit(monthly_limit),
        hold_policy=key_options.policy(hold_policy),
        expires_at=key_options.expiry(tx, expires_at),
        display=display_form(secret),
        created_at=tx.now,
        created_by=tx.actor.name,
        rotated_at=None,
        deleted_at=None,
        version=1,
        hosted_tools=checked(hosted_tools),
        owner=key_details.check_owner(owner),
        environment=key_details.check_environment(environment),
        note=key_details.check_note(note),
        labels=json.dumps(key_details.check_labels(labels)),
    )
    tx.session.add(key)
    tx.session.flush()
    _store_secret(tx, keyring, key, secret)
    audit.record(tx, "key.create", key.id, org_id=org_id, after=describe(tx, key))
    return NewSecret(key, secret)


def update(
    tx: Transaction,
    key_id: str,
    *,
    name: str | Unset = UNSET,
    plan: str | Unset = UNSET,
    models: list[str] | Unset = UNSET,
    monthly_limit: int | Unset | None = UNSET,
    expires_at: datetime | Unset | None = UNSET,
    hold_policy: HoldPolicy | Unset = UNSET,
    hosted_tools: HostedTools | Unset = UNSET,
    owner: str | Unset = UNSET,
    environment: str | Unset = UNSET,
    note: str | Unset = UNSET,
    labels: Sequence[str] | Unset = UNSET,
    reason: str = "",
    seen: Mapping[str, Any] | None = None,
) -> ApiKey:
    """Change options of a key; what is not given stays. The next call is judged by the new options.

    Args are those of `create`. A scope that the new plan does not include must be given anew.

    Args:
        reason: for the audit log.
        seen: some of what `describe` said when the change was thought out; it must be so still.

    Raises:
        Conflict: somebody has changed it since; and what `create` raises.
    """
    lock_catalog(tx)  # what the plan includes must not change under the key's scope
    key = _for_change(tx, key_id)
    before = describe(tx, key)
    if seen is not None:
        require_unchanged(f"API key {key.name!r}", seen, {fact: before[fact] for fact in seen})
    if not isinstance(name, Unset):
        name = words.check_name(name, "key's name")
        if name != key.name:
            key_options.require_free_name(tx, key.org_id, name)
        key.name = name
    if not isinstance(plan, Unset):
        key.plan_id = key_options.assignable_plan(tx, key.org_id, plan)
    scope = json.loads(key.scope)
    key.scope = key_options.scope(
        tx, key.org_id, key.plan_id, scope if isinstance(models, Unset) else models, kept=scope
    )
    if not isinstance(monthly_limit, Unset):
        key.monthly_limit = key_options.limit(monthly_limit)
    if not isinstance(expires_at, Unset) and expires_at != key.expires_at:
        key.expires_at = key_options.expiry(tx, expires_at)
    if not isinstance(hold_policy, Unset):
        key.hold_policy = key_options.policy(hold_policy)
    if not isinstance(hosted_tools, Unset):
        key.hosted_tools = checked(hosted_tools)
    if not isinstance(owner, Unset):
        key.owner = key_details.check_owner(owner)
    if not isinstance(environment, Unset):
        key.environment = key_details.check_environment(environment)
    if not isinstance(note, Unset):
        key.note = key_details.check_note(note)
    if not isinstance(labels, Unset):
        key.labels = json.dumps(key_details.check_labels(labels))
    after = describe(tx, key)
    if after == before:
        return key
    return _changed(tx, key, "key.update", before, reason)


def of_owner(tx: Transaction, owner: str, *, org: str | None = None) -> list[ApiKey]:
    """Return the live keys of an owner that the actor may see, by name.

    Args:
        tx: any actor.
        owner: as the keys have it.
        org: id or name, to look at that organisation alone.

    Raises:
        NotFound: no such organisation, or it has no key of that owner.
    """
    query = select(ApiKey).where(ApiKey.owner == owner, ApiKey.status != KeyStatus.DELETED)
    seen = organisations.find(tx, org).id if org else tx.actor.org_id
    if seen is not None:
        query = query.where(ApiKey.org_id == seen)
    found = list(tx.session.scalars(query.order_by(ApiKey.name, ApiKey.id)))
    if not owner or not found:
        raise NotFound(f"No live API key has the owner {owner!r}. `keydesk keys list` shows owners.")
    return found


def hand_over(tx: Transaction, owner: str, to: str, *, org: str | None = None, reason: str = "") -> list[ApiKey]:
    """Give all live keys of an owner another one, in one transaction; return them. Args and errors as `of_owner`.

    Args:
        to: the new owner.
        reason: for the audit log.
    """
    found = of_owner(tx, owner, org=org)
    lock_catalog(tx)
    lock_orgs(tx, *{key.org_id for key in found})
    # Somebody may have given one away before the locks were taken.
    return [update(tx, key.id, owner=to, reason=reason, seen={"owner": owner}) for key in found]


def rotate(tx: Transaction, keyring: Keyring, key_id: str, *, confirm: str, reason: str = "") -> NewSecret:
    """Give a key a new secret; the old one is dead when this transaction has committed.

    Id, options, month spend and history stay. Calls already admitted finish and are charged.

    Args:
        tx, keyring: as in `create`.
        key_id: the key's id.
        confirm: must equal the key's name.
        reason: for the audit log.

    Raises:
        NotConfirmed: `confirm` is not the key's name.
    """
    key = _for_change(tx, key_id, confirm)
    before = describe(tx, key)
    _require_known_pepper(tx, keyring)
    _retire_secret(tx, key)
    secret = new_secret()
    key.display = display_form(secret)
    key.rotated_at = tx.now
    _store_secret(tx, keyring, key, secret)
    return NewSecret(_changed(tx, key, "key.rotate", before, reason), secret)


def disable(tx: Transaction, key_id: str, *, confirm: str, reason: str = "") -> ApiKey:
    """Stop a key until it is enabled again; `confirm` must equal its name."""
    return _set_status(tx, key_id, KeyStatus.ACTIVE, KeyStatus.DISABLED, "key.disable", confirm, reason)


def enable(tx: Transaction, key_id: str, *, confirm: str, reason: str = "") -> ApiKey:
    """Let a disabled key call again; `confirm` must equal its name."""
    return _set_status(tx, key_id, KeyStatus.DISABLED, KeyStatus.ACTIVE, "key.enable", confirm, reason)


def delete(tx: Transaction, key_id: str, *, confirm: str, reason: str = "") -> ApiKey:
    """Delete a key for ever; `confirm` must equal its name.

    Its digest leaves the table of live secrets. The row stays as a tombstone that names its history.
    """
    key = _for_change(tx, key_id, confirm)
    before = describe(tx, key)
    _retire_secret(tx, key)
    key.status = KeyStatus.DELETED
    key.deleted_at = tx.now
    return _changed(tx, key, "key.delete", before, reason)


def retire_secret(tx: Transaction, key_id: str, *, reason: str = "") -> ApiKey:
    """End a key's secret without another one, as when its pepper is gone; `rotate` gives the key a new one."""
    key = _for_change(tx, key_id)
    before = describe(tx, key)
    _retire_secret(tx, key)
    key.display = NO_SECRET
    return _changed(tx, key, "key.retire_secret", before, reason)


def find(tx: Transaction, id_or_name: str) -> ApiKey:
    """Return a key by id, or by name where that is unambiguous; a deleted one by id alone, or if none lives.

    Raises:
        NotFound: none that the actor may see.
        Conflict: the name is borne by several keys.
    """
    query = select(ApiKey).where(or_(ApiKey.id == id_or_name, ApiKey.name == id_or_name))
    if tx.actor.org_id is not None:
        query = query.where(ApiKey.org_id == tx.actor.org_id)
    found = list(tx.session.scalars(query))
    exact = [key for key in found if key.id == id_or_name]
    live = [key for key in found if key.status != KeyStatus.DELETED]
    candidates = exact or live or found
    if not candidates:
        raise NotFound(f"There is no API key {id_or_name!r}. `keydesk keys list` shows them.")
    if len(candidates) > 1:
        ids = ", ".join(sorted(key.id for key in candidates))
        raise Conflict(f"Several API keys are named {id_or_name!r}: use an id ({ids}).")
    return candidates[0]


def describe(tx: Transaction, key: ApiKey) -> dict[str, Any]:
    """Return a key's options as plain values: money as decimal USD, moments as ISO 8601 UTC. Never a secret."""
    return {
        "id": key.id,
        "org": key.org_id,
        "name": key.name,
        "status": str(key.status),
        "plan": plans.find(tx, key.plan_id).name,
        "models": json.loads(key.scope),
        "monthly_limit_usd": None if key.monthly_limit is None else usd(key.monthly_limit),
        "policy": str(key.hold_policy),
        "hosted_tools": str(key.hosted_tools),
        "owner": key.owner,
        "environment": key.environment,
        "note": key.note,
        "labels": json.loads(key.labels),
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "display": key.display,
        "created_at": key.created_at.isoformat(),
        "created_by": key.created_by,
        "rotated_at": key.rotated_at.isoformat() if key.rotated_at else None,
        "deleted_at": key.deleted_at.isoformat() if key.deleted_at else None,
        "version": key.version,
    }


def _for_change(tx: Transaction, key_id: str, confirm: str | None = None) -> ApiKey:
    org_id = tx.session.scalar(select(ApiKey.org_id).where(ApiKey.id == key_id))
    if org_id is None or tx.actor.org_id not in {None, org_id}:
        raise NotFound(f"There is no API key {key_id!r}. `keydesk keys list` shows them.")
    rights.require_key_admin(tx, org_id)
    lock_orgs(tx, org_id)
    key = tx.session.get_one(ApiKey, key_id, populate_existing=True)
    if key.status == KeyStatus.DELETED:
        raise Conflict(f"The API key {key.name!r} is deleted; that is final. Create a new one.")
    if confirm is not None:
        words.check_confirmed(confirm, key.name, "key's name")
    return key


def _changed(tx: Transaction, key: ApiKey, action: str, before: dict[str, Any], reason: str) -> ApiKey:
    key.version += 1
    tx.session.flush()
    audit.record(tx, action, key.id, org_id=key.org_id, before=before, after=describe(tx, key), reason=reason)
    return key


def _set_status(
    tx: Transaction, key_id: str, old: KeyStatus, new: KeyStatus, action: str, confirm: str, reason: str
) -> ApiKey:
    key = _for_change(tx, key_id, confirm)
    if key.status != old:
        raise Conflict(f"The API key {key.name!r} is already {new}.")
    before = describe(tx, key)
    key.status = new
    return _changed(tx, key, action, before, reason)


def _require_known_pepper(tx: Transaction, keyring: Keyring) -> None:
    strange = set(tx.session.scalars(select(LiveSecret.pepper_id).distinct())) - set(keyring.pepper_ids)
    if strange:
        raise Conflict(
            f"The pepper here is not the one that the store's API keys were made under ({', '.join(sorted(strange))}): "
            "the gateway would refuse this key. Set KEYDESK_PEPPER, or KEYDESK_DATA_DIR, as for the gateway."
        )


def _store_secret(tx: Transaction, keyring: Keyring, key: ApiKey, secret: str) -> None:
    digest = keyring.digest(secret)
    tx.session.add(LiveSecret(digest=digest.value, key_id=key.id, pepper_id=digest.pepper_id, created_at=tx.now))
    tx.session.flush()


def _retire_secret(tx: Transaction, key: ApiKey) -> None:
    live = tx.session.scalars(select(LiveSecret).where(LiveSecret.key_id == key.id)).one_or_none()
    if live is None:  # it went with its pepper
        return
    tx.session.add(
        RetiredSecret(
            digest=live.digest, key_id=key.id, display=key.display, retired_at=tx.now, uses=0, last_used_at=None
        )
    )
    tx.session.delete(live)
    tx.session.flush()
