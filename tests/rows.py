"""Request-log rows for the tests of ledger, reports and notebooks."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from sqlalchemy import BigInteger, Boolean

from toolkit.core.moments import micros
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.tables import ApiKey, OutboxRow

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
_numbers = count()


def row(key: ApiKey | str = "key_none", at: datetime = NOON, **columns: Any) -> dict[str, Any]:
    """Return a completed call's row; what is not given is 0, false or missing, and the request id is new."""
    values: dict[str, Any] = {
        column.name: None if column.nullable else {BigInteger: 0, Boolean: False}.get(type(column.type), "")
        for column in OutboxRow.__table__.columns
    }
    values |= {
        "request_id": f"{micros(at) // 1000:012x}-{next(_numbers):08x}",
        "key_id": key if isinstance(key, str) else key.id,
        "org_id": "org_none" if isinstance(key, str) else key.org_id,
        "plan_id": "plan_none" if isinstance(key, str) else key.plan_id,
        "admitted_at": at,
        "settled_at": at + timedelta(seconds=1),
        "outcome": "completed",
        "status": 200,
        "dialect": "openai",
        "endpoint": "chat/completions",
        "model": "gpt-test",
        "multiplier": 1_000_000,
    }
    unknown = set(columns) - set(values)
    assert not unknown, f"no such column: {unknown}"
    return values | columns


def append(store: Store, rows: Iterable[dict[str, Any]]) -> list[str]:
    """Put rows into the outbox, as settlements do; return their request ids."""
    rows = list(rows)
    if rows:
        with store.write(SYSTEM) as tx:
            tx.session.execute(OutboxRow.__table__.insert(), rows)  # type: ignore[attr-defined]
    return [row["request_id"] for row in rows]
