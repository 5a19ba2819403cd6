"""What a key may do and has spent, as its holder may know it: whoever shows its secret.

Of the organisation that is its name, and whether its wallet lets calls pass: what is in it is for its operators.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, select, true

from toolkit.core.catalog import Catalog
from toolkit.core.errors import RefusalType
from toolkit.core.money import show_usd, usd
from toolkit.core.period import billing_month, next_month
from toolkit.core.policy import KeyFacts
from toolkit.core.strictness import stricter
from toolkit.store.tables import ApiKey, CatalogVersion, KeyMonth, Organisation
from toolkit.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Totals:
    """The row of a key, with its running totals of one billing month (nano-USD), and what proves that facts still hold.

    Args:
        as_of: when they were read, by the store's clock, UTC.
        month: billing month of `as_of`.
        counted: what counts against the monthly limit beside open holds: what was spent, as corrected since.
        wallet_empty: whether the organisation's wallet, less its open holds, has nothing left.
        version, org_suspended, catalog_version: as the store has them.
    """

    as_of: datetime
    name: str
    display: str
    org_name: str
    month: str
    calls: int
    counted: int
    held: int
    wallet_empty: bool
    version: int
    org_suspended: bool
    catalog_version: int

    def proves(self, key: KeyFacts) -> bool:
        """Whether the facts of the key, read before, are still what the store has."""
        return (key.version, key.org_suspended) == (self.version, self.org_suspended)


def totals(tx: Transaction, key_id: str) -> Totals | None:
    """Return a key's totals of this month in one statement; None if there is no such key.

    They are the store's own, which each admission and settlement updates: what it costs does not grow with the calls.
    """
    now = tx.now
    month = billing_month(now)
    found = tx.session.execute(
        select(ApiKey, Organisation, KeyMonth, CatalogVersion.version)
        .join(Organisation, Organisation.id == ApiKey.org_id)
        .join(CatalogVersion, true())
        .outerjoin(KeyMonth, and_(KeyMonth.key_id == ApiKey.id, KeyMonth.month == month))
        .where(ApiKey.id == key_id)
    ).one_or_none()
    if found is None:
        return None
    key, org, row, version = found
    return Totals(
        as_of=now,
        name=key.name,
        display=key.display,
        org_name=org.name,
        month=month,
        calls=row.calls if row else 0,
        counted=row.spent + row.corrected if row else 0,
        held=row.held if row else 0,
        wallet_empty=org.available <= 0,
        version=key.version,
        org_suspended=org.suspended,
        catalog_version=version,
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """What the holder of a key is told.

    Args:
        key, catalog: as they were when the totals were read.
        totals: of the key.
        only_paid: whether there is a model that the key may call, and none whose calls may be free.
    """

    key: KeyFacts
    catalog: Catalog
    totals: Totals
    only_paid: bool

    @property
    def left(self) -> int | None:
        """What is left of the monthly limit, nano-USD; None without a limit."""
        limit = self.key.monthly_limit
        return None if limit is None else max(limit - self.totals.counted - self.totals.held, 0)

    @property
    def hindrance(self) -> tuple[RefusalType, str] | None:
        """Why every call would be refused now, whatever it asks for; None if some may pass."""
        if not self.catalog.callable_by(self.key):
            return RefusalType.MODEL_NOT_ALLOWED, "The plan and the scope of this API key leave it no model."
        if not self.only_paid:
            return None
        if self.left == 0:
            limit = show_usd(self.key.monthly_limit or 0)
            return (
                RefusalType.API_KEY_QUOTA_EXCEEDED,
                f"Nothing is left of this API key's monthly limit of {limit}. An org admin can raise it.",
            )
        if self.totals.wallet_empty:
            return (
                RefusalType.BILLING_SHORTFALL,
                "The organisation's wallet does not cover calls now. Ask an org admin; they know whom to ask.",
            )
        return None

    def facts(self) -> dict[str, Any]:
        """Return it as JSON: names as in `keydesk keys show`; amounts exact, in USD as text and in nano-USD."""
        key, totals, plan = self.key, self.totals, self.catalog.plans[self.key.plan_id]
        hindrance = self.hindrance
        amounts = {
            "monthly_limit": key.monthly_limit,
            "spent": totals.counted,
            "held": totals.held,
            "left": self.left,
        }
        return {
            "object": "api_key",
            "as_of": _iso(totals.as_of),
            "name": totals.name,
            "display": totals.display,
            "org": totals.org_name,
            "plan": plan.name,
            "models": sorted(key.scope),
            "callable_models": [
                {"id": model.id, "dialect": str(model.dialect)}
                for model in sorted(self.catalog.callable_by(key), key=lambda model: model.id)
                if model.price(totals.as_of) is not None
            ],
            "month": totals.month,
            "resets_at": f"{next_month(totals.month)}-01T00:00:00Z",
            "calls": totals.calls,
            **{f"{name}_usd": None if amount is None else usd(amount) for name, amount in amounts.items()},
            **{f"{name}_nano": amount for name, amount in amounts.items()},
            "policy": str(key.hold_policy),
            "expires_at": None if key.expires_at is None else _iso(key.expires_at),
            "hosted_tools": str(stricter(key.hosted_tools, plan.hosted_tools)),
            "unknown_fields": str(plan.unknown_fields),
            "calls_possible": hindrance is None,
            "reason": None if hindrance is None else str(hindrance[0]),
            "message": None if hindrance is None else hindrance[1],
        }


def _iso(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
