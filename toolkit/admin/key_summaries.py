"""API keys as lists show them: with their running totals of the month, and when they were last used."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from toolkit.admin import organisations, plans
from toolkit.core.period import billing_month
from toolkit.core.policy import KeyStatus
from toolkit.store import audit
from toolkit.store.tables import ApiKey, KeyMonth, RetiredSecret
from toolkit.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class KeySummary:
    """A key as lists show it, with its running totals of one billing month (nano-USD).

    Args:
        created_by: as the actor reads it; the key's own is for the platform alone.
    """

    key: ApiKey
    org_name: str
    plan_name: str
    month: str
    calls: int
    spent: int
    held: int
    last_used_at: datetime | None
    old_secret_uses: int
    org_suspended: bool
    created_by: str
    corrected: int = 0

    @property
    def counted(self) -> int:
        """What counts against the monthly limit beside open holds: what was spent, as corrected since."""
        return self.spent + self.corrected


def summaries(tx: Transaction, *, org: str | None = None, deleted: bool = False) -> list[KeySummary]:
    """Return the keys that the actor may see, by organisation and name, with this month's totals.

    Args:
        tx: any actor; others' organisations are left out.
        org: id or name of one organisation; None is all.
        deleted: include deleted keys.
    """
    query = select(ApiKey)
    if org is not None:
        query = query.where(ApiKey.org_id == organisations.find(tx, org).id)
    elif tx.actor.org_id is not None:
        query = query.where(ApiKey.org_id == tx.actor.org_id)
    if not deleted:
        query = query.where(ApiKey.status != KeyStatus.DELETED)
    month = billing_month(tx.now)
    chosen = query.with_only_columns(ApiKey.id)
    this_month = select(KeyMonth).where(KeyMonth.month == month, KeyMonth.key_id.in_(chosen))
    totals = {row.key_id: row for row in tx.session.scalars(this_month)}
    last_used = select(KeyMonth.key_id, func.max(KeyMonth.last_call_at)).where(KeyMonth.key_id.in_(chosen))
    used = dict(tx.session.execute(last_used.group_by(KeyMonth.key_id)).all())
    retired_uses = select(RetiredSecret.key_id, func.sum(RetiredSecret.uses)).group_by(RetiredSecret.key_id)
    retired_uses = retired_uses.where(RetiredSecret.key_id.in_(chosen))
    old_uses = dict(tx.session.execute(retired_uses).all())
    orgs = {org_row.id: org_row for org_row in organisations.list_all(tx)}
    plan_names = {plan.id: plan.name for plan in plans.list_all(tx)}
    shown = audit.names_shown(tx)
    result = []
    for key in tx.session.scalars(query):
        row = totals.get(key.id)
        result.append(
            KeySummary(
                key=key,
                org_name=orgs[key.org_id].name,
                plan_name=plan_names[key.plan_id],
                month=month,
                calls=row.calls if row else 0,
                spent=row.spent if row else 0,
                held=row.held if row else 0,
                last_used_at=used.get(key.id),
                old_secret_uses=int(old_uses.get(key.id) or 0),
                org_suspended=orgs[key.org_id].suspended,
                corrected=row.corrected if row else 0,
                created_by=shown(key.created_by),
            )
        )
    return sorted(result, key=lambda summary: (summary.org_name, summary.key.name, summary.key.created_at))
