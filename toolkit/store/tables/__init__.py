"""The key store's tables: columns and named constraints, no behaviour.

Moments are BIGINT microseconds UTC (`Moment` turns them into datetimes); money is BIGINT nano-USD. A change here
needs a step in `steps`; a test compares the two.
"""

from toolkit.store.tables.alerts import Alert, AlertDelivery, AlertDestination, AlertMailbox, AlertRunner, AlertState
from toolkit.store.tables.audit import AuditHead, AuditRow, Reconciliation
from toolkit.store.tables.base import Base, Moment
from toolkit.store.tables.calls import GatewayInstance, HoldRow, OutboxRow, RefusalCount, RefusalDay, UnknownField
from toolkit.store.tables.catalog import (
    CatalogVersion,
    Model,
    ModelWay,
    Plan,
    PlanModel,
    Price,
    RefusedField,
    SmallerLimit,
    Upstream,
    UpstreamCredential,
    UpstreamIncident,
)
from toolkit.store.tables.keys import ApiKey, KeyMonth, LiveSecret, RecentCost, RetiredSecret
from toolkit.store.tables.ledger import Segment, SupersededSegment
from toolkit.store.tables.operators import Invitation, Operator, SignInFailure, SignInSession
from toolkit.store.tables.organisations import Organisation, OrgPerson
from toolkit.store.tables.upstream_tests import UpstreamTest
from toolkit.store.tables.wallets import Statement, WalletEntry

__all__ = [
    "Alert",
    "AlertDelivery",
    "AlertDestination",
    "AlertMailbox",
    "AlertRunner",
    "AlertState",
    "ApiKey",
    "AuditHead",
    "AuditRow",
    "Base",
    "CatalogVersion",
    "GatewayInstance",
    "HoldRow",
    "Invitation",
    "KeyMonth",
    "LiveSecret",
    "Model",
    "ModelWay",
    "Moment",
    "Operator",
    "OrgPerson",
    "Organisation",
    "OutboxRow",
    "Plan",
    "PlanModel",
    "Price",
    "RecentCost",
    "Reconciliation",
    "RefusalCount",
    "RefusalDay",
    "RefusedField",
    "RetiredSecret",
    "Segment",
    "SignInFailure",
    "SignInSession",
    "SmallerLimit",
    "Statement",
    "SupersededSegment",
    "UnknownField",
    "Upstream",
    "UpstreamCredential",
    "UpstreamIncident",
    "UpstreamTest",
    "WalletEntry",
]
