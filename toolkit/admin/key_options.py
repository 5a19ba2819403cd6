"""The options of a key as they can be kept: each checked, and refused in words."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import select

from toolkit.admin import plans
from toolkit.admin.models import unserved
from toolkit.core.errors import Conflict, Forbidden, InvalidInput
from toolkit.core.money import check_amount
from toolkit.core.policy import HoldPolicy, KeyStatus, Role, has_expired
from toolkit.store.tables import ApiKey
from toolkit.store.transaction import Transaction


def require_free_name(tx: Transaction, org_id: str, name: str) -> None:
    """Raise Conflict if a live key of the organisation has the name."""
    query = select(ApiKey).where(ApiKey.org_id == org_id, ApiKey.name == name, ApiKey.status != KeyStatus.DELETED)
    if tx.session.scalar(query):
        raise Conflict(f"This organisation already has an API key named {name!r}. Choose another name.")


def assignable_plan(tx: Transaction, org_id: str, plan: str) -> str:
    """Return the id of a plan that the actor may give keys of the organisation.

    Raises:
        NotFound: no such plan.
        Forbidden: it is not assigned to the organisation.
    """
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


def scope(tx: Transaction, org_id: str, plan_id: str, models: list[str], kept: Sequence[str] = ()) -> str:
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


def limit(monthly_limit: int | None) -> int | None:
    """Return a monthly limit as it can be kept, nano-USD or None.

    Raises:
        InvalidInput: it is below zero, or out of range.
    """
    if monthly_limit is None:
        return None
    if check_amount(monthly_limit, "monthly limit") < 0:
        raise InvalidInput("A monthly limit cannot be negative. 0 allows nothing paid; leave it out for no limit.")
    return monthly_limit


def policy(hold_policy: HoldPolicy) -> HoldPolicy:
    """Return a hold policy.

    Raises:
        InvalidInput: there is no such one.
    """
    try:
        return HoldPolicy(hold_policy)  # a notebook may give the plain word
    except ValueError:
        raise InvalidInput(f"There is no hold policy {hold_policy!r}. Choose strict or expected.") from None


def expiry(tx: Transaction, expires_at: datetime | None) -> datetime | None:
    """Return an expiry in UTC, or None.

    Raises:
        InvalidInput: it has no time zone, has passed, or is beyond the year 9999.
    """
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
