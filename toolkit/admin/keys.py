"""API keys: create, update, rotate, disable, enable, delete, list, look up.

Every verb checks the actor's rights, changes the key and writes its audit row in one transaction, and raises the
key's version, so that the next admission is judged by the new state. A secret is returned once, by `create` and
`rotate`, and kept nowhere.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import or_, select

from toolkit.admin import organisations, plans, rights
from toolkit.admin.models import unserved
from toolkit.core import words
from toolkit.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from toolkit.core.hosted_tools import HostedTools, checked
from toolkit.core.ids import new_id
from toolkit.core.money import check_amount, usd
from toolkit.core.policy import HoldPolicy, KeyStatus, Role, has_expired
from toolkit.core.secrets import Keyring, display_form, new_secret
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

    Raises:
        InvalidInput, NotFound, Conflict, Forbidden: an option cannot be used, the name is taken or the pepper is
            not the store's, no right.
    """
    lock_catalog(tx)  # what the plan includes must not change under the key's scope
    org_id = organisations.find(tx, org).id
    rights.require_key_admin(tx, org_id)
    lock_orgs(tx, org_id)
    name = words.check_name(name, "key's name")
    _require_free_name(tx, org_id, name)
    plan_id = _assignable_plan(tx, org_id, plan)
    _require_known_pepper(tx, keyring)
    secret = new_secret()
    key = ApiKey(
        id=new_id("key"),
        org_id=org_id,
        name=name,
        status=KeyStatus.ACTIVE,
        plan_id=plan_id,
        scope=_scope(tx, org_id, plan_id, models or []),
        monthly_limit=_limit(monthly_limit),
        hold_policy=_policy(hold_policy),
        expires_at=_expiry(tx, expires_at),
        display=display_form(secret),
        created_at=tx.now,
        created_by=tx.actor.name,
        rotated_at=None,
        deleted_at=None,
        version=1,
        hosted_tools=checked(hosted_tools),
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
    reason: str = "",
) -> ApiKey:
    """Change options of a key; what is not given stays. The next call is judged by the new options.

    Args are those of `create`. A scope that the new plan does not include must be given anew.
    """
    lock_catalog(tx)  # what the plan includes must not change under the key's scope
    key = _for_change(tx, key_id)
    before = describe(tx, key)
    if not isinstance(name, Unset):
        name = words.check_name(name, "key's name")
        if name != key.name:
            _require_free_name(tx, key.org_id, name)
        key.name = name
    if not isinstance(plan, Unset):
        key.plan_id = _assignable_plan(tx, key.org_id, plan)
    scope = json.loads(key.scope)
    key.scope = _scope(tx, key.org_id, key.plan_id, scope if isinstance(models, Unset) else models, kept=scope)
    if not isinstance(monthly_limit, Unset):
        key.monthly_limit = _limit(monthly_limit)
    if not isinstance(expires_at, Unset) and expires_at != key.expires_at:
        key.expires_at = _expiry(tx, expires_at)
    if not isinstance(hold_policy, Unset):
        key.hold_policy = _policy(hold_policy)
    if not isinstance(hosted_tools, Unset):
        key.hosted_tools = checked(hosted_tools)
    after = describe(tx, key)
    if after == before:
        return key
    return _changed(tx, key, "key.update", before, reason)


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


def _require_free_name(tx: Transaction, org_id: str, name: str) -> None:
    query = select(ApiKey).where(ApiKey.org_id == org_id, ApiKey.name == name, ApiKey.status != KeyStatus.DELETED)
    if tx.session.scalar(query):
        raise Conflict(f"This organisation already has an API key named {name!r}. Choose another name.")


def _assignable_plan(tx: Transaction, org_id: str, plan: str) -> str:
    found = plans.find(tx, plan)
    if tx.actor.role is Role.PLATFORM_ADMIN or found.id in assigned_plans(tx, org_id):
        return found.id
    raise Forbidden(f"The plan {found.name!r} is not assigned to this organisation. Ask a platform admin.")


def assigned_plans(tx: Transaction, org_id: str) -> set[str]:
    """Return the ids of the plans that the organisation's live keys have: those an org admin may choose from.

    Plans are assigned by the platform: its admin creates the organisation's first key on each plan. A deleted key
    assigns nothing, or an organisation could go back to a plan that the platform took away.
    """
    live = select(ApiKey.plan_id).where(ApiKey.org_id == org_id, ApiKey.status != KeyStatus.DELETED)
    return set(tx.session.scalars(live.distinct()))


def _scope(tx: Transaction, org_id: str, plan_id: str, models: list[str], kept: Sequence[str] = ()) -> str:
    """Return a scope as it can be kept.

    Args:
        tx: behind the catalog's lock.
        org_id: whose key it is of.
        plan_id: of the key.
        models: their ids.
        kept: what the scope had, and may have still though the organisation is not served it any more.
    """
    included = plans.models(tx, plan_id, org_id)
    outside = set(models) - set(included)
    if outside and (still := outside & set(kept)):
        outside -= still & unserved(tx, org_id)
    if outside:
        raise InvalidInput(
            f"The plan does not include {', '.join(sorted(outside))}. Its models are: {', '.join(included)}. "
            "An empty model scope allows all of them."
        )
    return json.dumps(sorted(set(models)))


def _limit(monthly_limit: int | None) -> int | None:
    if monthly_limit is None:
        return None
    if check_amount(monthly_limit, "monthly limit") < 0:
        raise InvalidInput("A monthly limit cannot be negative. 0 allows nothing paid; leave it out for no limit.")
    return monthly_limit


def _policy(hold_policy: HoldPolicy) -> HoldPolicy:
    try:
        return HoldPolicy(hold_policy)  # a notebook may give the plain word
    except ValueError:
        raise InvalidInput(f"There is no hold policy {hold_policy!r}. Choose strict or expected.") from None


def _expiry(tx: Transaction, expires_at: datetime | None) -> datetime | None:
    if expires_at is None:
        return None
    if expires_at.tzinfo is None:
        raise InvalidInput("The expiry needs a time zone: write it in UTC, such as 2027-01-31T00:00:00Z.")
    if has_expired(expires_at, tx.now):
        raise InvalidInput(f"The expiry {expires_at.isoformat()} has passed already.")
    try:
        return expires_at.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(f"The expiry {expires_at.isoformat()} is beyond the year 9999. Leave it out.") from None
