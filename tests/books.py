"""Books that balance, written straight into the store: settled calls, refusals, holds and their gateway."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text

from tests.conftest import World
from tests.rows import NOON, append, row
from toolkit.core.period import billing_month
from toolkit.store.tables import ApiKey, GatewayInstance, HoldRow, KeyMonth, Organisation
from toolkit.store.transaction import utc_now

INSTANCE = "gateway_test"


@dataclass
class Books:
    """The books of one world, and what a test does to them."""

    world: World
    numbers: int = field(default=0)

    def execute(self, statement: str, **values: object) -> int:
        """Do to the store what no service would; return how many rows it met."""
        with self.world.workspace.write() as tx:
            return int(tx.session.execute(text(statement), values).rowcount)  # type: ignore[attr-defined]

    def settle(self, key: ApiKey, cost: int, *, held: int | None = None, at: datetime = NOON, **columns: Any) -> str:
        """Log a call that cost `cost` and had held `held` (as much, by default), and charge it; return its id."""
        held = cost if held is None else held
        priced = {"usage_source": "reported", "request_price": cost, "cost": cost, "held": held}
        (request_id,) = append(
            self.world.workspace.store, [row(key, at, **priced | {"overrun": max(cost - held, 0)} | columns)]
        )
        with self.world.workspace.write() as tx:
            org, month = tx.session.get_one(Organisation, key.org_id), billing_month(at)
            totals = tx.session.get(KeyMonth, (key.id, month))
            if totals is None:
                totals = KeyMonth(key_id=key.id, month=month, calls=0, spent=0, held=0, last_call_at=at)
                tx.session.add(totals)
            org.settled += cost
            totals.calls += 1
            totals.spent += cost
        return request_id

    def refuse(self, key: ApiKey, at: datetime = NOON, refusal: str = "api_key_quota_exceeded") -> str:
        """Log a refused call; return its id."""
        refused = row(key, at, outcome="refused", refusal=refusal, status=402, multiplier=0)
        return append(self.world.workspace.store, [refused])[0]

    def hold(
        self,
        key: ApiKey,
        amount: int,
        *,
        limit_amount: int | None = None,
        at: datetime = NOON,
        instance: str = INSTANCE,
    ) -> str:
        """Place a hold, as an admission does; return the request id."""
        self.numbers += 1
        request_id, month = f"req_hold_{self.numbers:04}", billing_month(at)
        limit_amount = amount if limit_amount is None else limit_amount
        with self.world.workspace.write() as tx:
            tx.session.get_one(Organisation, key.org_id).held += amount
            totals = tx.session.get(KeyMonth, (key.id, month))
            if totals is None:
                totals = KeyMonth(key_id=key.id, month=month, calls=0, spent=0, held=0, last_call_at=at)
                tx.session.add(totals)
            totals.held += limit_amount
            tx.session.add(
                HoldRow(
                    request_id=request_id,
                    instance_id=instance,
                    org_id=key.org_id,
                    key_id=key.id,
                    plan_id=key.plan_id,
                    month=month,
                    admitted_at=at,
                    amount=amount,
                    limit_amount=limit_amount,
                    dialect="openai",
                    endpoint="chat/completions",
                    stream=False,
                    model="gpt-test",
                    upstream="test-openai",
                    price_id="price_test",
                    multiplier=1_000_000,
                )
            )
        return request_id

    def gateway(self, instance: str = INSTANCE, lease: timedelta = timedelta(days=365)) -> None:
        """Let a gateway live for `lease` from now; a negative one ended that long ago."""
        now = utc_now()
        with self.world.workspace.write() as tx:
            tx.session.merge(GatewayInstance(id=instance, started_at=now, lease_until=now + lease))
