"""Which key does a secret admit? Asked when a gateway first meets a secret, and when what it knew is stale."""

import json
from collections.abc import Iterable, Mapping

from sqlalchemy import func, literal, select, text, update

from toolkit.core.hosted_tools import HostedTools
from toolkit.core.moments import micros
from toolkit.core.policy import HoldPolicy, KeyFacts, KeyStatus
from toolkit.store.tables import ApiKey, LiveSecret, Moment, Organisation, PlanModel, RetiredSecret
from toolkit.store.tally import Counted
from toolkit.store.transaction import Transaction


def find_live(tx: Transaction, digests: Iterable[str]) -> KeyFacts | None:
    """Return the facts of the key that one of these digests admits, or None."""
    return next(iter(all_live(tx, digests).values()), None)


def find_retired(tx: Transaction, digests: Iterable[str]) -> KeyFacts | None:
    """Return the facts of the key that one of these digests once admitted, or None.

    Such a secret admits nothing: its key was rotated or deleted.
    """
    return next(iter(all_retired(tx, digests).values()), None)


def all_live(tx: Transaction, digests: Iterable[str]) -> dict[str, KeyFacts]:
    """Return the facts of the keys that these digests admit, by digest."""
    return _find(tx, LiveSecret, digests)


def all_retired(tx: Transaction, digests: Iterable[str]) -> dict[str, KeyFacts]:
    """Return the facts of the keys that these digests once admitted, by digest."""
    return _find(tx, RetiredSecret, digests)


_NOTE_RETIRED = text(
    "UPDATE retired_secret SET uses = uses + :times, last_used_at ="
    " CASE WHEN last_used_at > :last_at THEN last_used_at ELSE :last_at END WHERE digest = :digest"
)


def note_retired(tx: Transaction, uses: Mapping[str, Counted]) -> None:
    """Add uses of rotated or deleted secrets, for operators who want to know who still has them; for a `tally`.

    Args:
        tx: a write transaction.
        uses: by digest; those of no retired secret are passed over.
    """
    tx.session.execute(
        _NOTE_RETIRED,
        [
            {"digest": digest, "times": uses[digest].times, "last_at": micros(uses[digest].last_at)}
            for digest in sorted(uses)  # in one order, so that no two processes wait for each other
        ],
    )


def note_in_url(tx: Transaction, digests: Iterable[str]) -> None:
    """Note that a key's present secret came in a URL, where proxies log it, for the audits.

    The note goes with the secret: a rotated key begins without one.
    """
    first = func.coalesce(LiveSecret.first_in_url_at, literal(tx.now, Moment()))
    tx.session.execute(
        update(LiveSecret)
        .where(LiveSecret.digest.in_(list(digests)))
        .values(first_in_url_at=first, last_in_url_at=tx.now)
    )


def org_has(tx: Transaction, org_id: str, model: str) -> bool:
    """Return whether a model is in the plan of any of the organisation's keys that are not deleted."""
    live = select(ApiKey.plan_id).where(ApiKey.org_id == org_id, ApiKey.status != KeyStatus.DELETED)
    included = select(PlanModel.model_id).where(PlanModel.model_id == model, PlanModel.plan_id.in_(live))
    return tx.session.scalar(included.limit(1)) is not None


def _find(
    tx: Transaction, table: type[LiveSecret] | type[RetiredSecret], digests: Iterable[str]
) -> dict[str, KeyFacts]:
    rows = tx.session.execute(
        select(table.digest, ApiKey, Organisation.suspended)
        .join(table, table.key_id == ApiKey.id)
        .join(Organisation, Organisation.id == ApiKey.org_id)
        .where(table.digest.in_(list(digests)))
    )
    return {digest: _facts(key, suspended=suspended) for digest, key, suspended in rows}


def _facts(key: ApiKey, *, suspended: bool) -> KeyFacts:
    return KeyFacts(
        key_id=key.id,
        org_id=key.org_id,
        plan_id=key.plan_id,
        version=key.version,
        status=KeyStatus(key.status),
        org_suspended=suspended,
        scope=frozenset(json.loads(key.scope)),
        monthly_limit=key.monthly_limit,
        hold_policy=HoldPolicy(key.hold_policy),
        expires_at=key.expires_at,
        hosted_tools=HostedTools(key.hosted_tools),
    )
