"""Organisations as lists show them: with their numbers of keys and people, this month's spend, and calls under way."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from toolkit.admin import organisations
from toolkit.core.period import billing_month
from toolkit.core.policy import KeyStatus
from toolkit.store.tables import ApiKey, HoldRow, KeyMonth, Operator, Organisation
from toolkit.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class OrgSummary:
    """An organisation as lists show it.

    Args:
        org: itself.
        keys: how many may call, but for its suspension and their expiry.
        operators: how many people of its own may sign in.
        spent: nano-USD of this billing month, as corrected since.
        under_way: calls that have not ended.
    """

    org: Organisation
    keys: int
    operators: int
    spent: int
    under_way: int


def summaries(tx: Transaction) -> list[OrgSummary]:
    """Return the organisations that the actor may see, by name."""

    def by_org(query: Any) -> dict[str, int]:
        return {row[0]: int(row[1] or 0) for row in tx.session.execute(query)}

    active = select(ApiKey.org_id, func.count()).where(ApiKey.status == KeyStatus.ACTIVE).group_by(ApiKey.org_id)
    people = select(Operator.org_id, func.count()).where(Operator.disabled_at.is_(None)).group_by(Operator.org_id)
    spent = (
        select(ApiKey.org_id, func.sum(KeyMonth.spent + KeyMonth.corrected))
        .join(KeyMonth, KeyMonth.key_id == ApiKey.id)
        .where(KeyMonth.month == billing_month(tx.now))
        .group_by(ApiKey.org_id)
    )
    open_holds = select(HoldRow.org_id, func.count()).group_by(HoldRow.org_id)
    keys, operators, costs, holds = (by_org(query) for query in (active, people, spent, open_holds))
    return [
        OrgSummary(org, keys.get(org.id, 0), operators.get(org.id, 0), costs.get(org.id, 0), holds.get(org.id, 0))
        for org in organisations.list_all(tx)
    ]
