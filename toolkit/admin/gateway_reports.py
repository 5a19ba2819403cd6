"""What the living gateways tell of themselves, as platform admins read it."""

from sqlalchemy import select

from toolkit.admin import rights
from toolkit.core.gateway_report import GatewayReport
from toolkit.store.tables import GatewayInstance
from toolkit.store.transaction import Transaction, store_now


def reports(tx: Transaction) -> list[GatewayReport]:
    """Return what each living gateway told with its last heartbeat, a third of the lease ago at most.

    Raises:
        Forbidden: the actor is no platform admin.
    """
    rights.require_platform_admin(tx)
    query = select(GatewayInstance.report).where(GatewayInstance.lease_until >= store_now(tx))
    return [GatewayReport.from_json(text) for text in tx.session.scalars(query) if text is not None]
