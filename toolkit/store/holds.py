"""Open holds: the money set aside for calls under way, and whether the gateway that is to settle them still lives."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from toolkit.core.policy import KeyStatus
from toolkit.store.tables import ApiKey, GatewayInstance, HoldRow, Organisation
from toolkit.store.transaction import Transaction, store_now

SWEPT_WITHIN = timedelta(minutes=2)
"""How long a hold may outlive its gateway's lease: gateways sweep every few seconds, and clocks may differ a minute."""


@dataclass(frozen=True, slots=True)
class OpenHold:
    """Money set aside for a call under way.

    Args:
        key, org: names.
        amount: against the wallet, nano-USD.
        instance_id: the gateway that is to settle it.
        lease_until: until when that gateway is known to live; None if it is not known any more.
        orphaned: whether that gateway has ended. A living one releases such holds.
        overdue: whether one should have done so by now.
    """

    request_id: str
    key_id: str
    key: str
    org: str
    model: str
    amount: int
    admitted_at: datetime
    age: timedelta
    instance_id: str
    lease_until: datetime | None
    orphaned: bool
    overdue: bool


def open_holds(tx: Transaction, *, org: str | None = None) -> list[OpenHold]:
    """Return the open holds that the actor may see, the oldest first.

    Args:
        tx: leases and ages are judged by its store's clock.
        org: id, for those of that organisation alone.
    """
    now = store_now(tx)
    query = (
        select(HoldRow, ApiKey.name, ApiKey.status, Organisation.name, GatewayInstance.lease_until)
        .join(ApiKey, ApiKey.id == HoldRow.key_id)
        .join(Organisation, Organisation.id == HoldRow.org_id)
        .outerjoin(GatewayInstance, GatewayInstance.id == HoldRow.instance_id)
        .order_by(HoldRow.admitted_at, HoldRow.request_id)
    )
    for org_id in {tx.actor.org_id, org} - {None}:
        query = query.where(HoldRow.org_id == org_id)
    return [
        OpenHold(
            request_id=hold.request_id,
            key_id=hold.key_id,
            key=f"{key} (deleted)" if status == KeyStatus.DELETED else key,
            org=org_name,
            model=hold.model,
            amount=hold.amount,
            admitted_at=hold.admitted_at,
            age=now - hold.admitted_at,
            instance_id=hold.instance_id,
            lease_until=lease_until,
            orphaned=lease_until is None or lease_until < now,
            overdue=now - (lease_until or hold.admitted_at) > SWEPT_WITHIN,
        )
        for hold, key, status, org_name, lease_until in tx.session.execute(query)
    ]
