"""Leases: which gateways are alive, and what to do with the holds of those that are not.

A gateway instance owns the holds it placed for as long as it renews its lease, by the key store's own clock, so
machines whose clocks differ agree on who is dead. Any process may sweep.
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, select, text

from toolkit.billing.log_row import LONGEST_RESPONSE_ID, storable
from toolkit.billing.rules import Abandon
from toolkit.billing.state import Hold
from toolkit.billing.stores import BATCH, open_billing_store
from toolkit.core.moments import micros
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.tables import GatewayInstance, HoldRow
from toolkit.store.transaction import Transaction, store_now

DIED = "the gateway that made this call ended without settling it"
UNSETTLED = "the gateway that made this call could not settle it"
FORGOTTEN = "the gateway did not learn that this call had been admitted, and did not forward it"


class Asked(NamedTuple):
    """Which of several upstreams a call was sent to last: it may be another one than the hold was placed for.

    Args:
        upstream: its name.
        credential: the name of ours that it was shown.
        price_id: of the price that the call has there.
    """

    upstream: str
    credential: str
    price_id: str


class Progress(NamedTuple):
    """How far a call under way has come.

    Args:
        response_id: the provider's own id of its answer, once it is known.
        seen_bytes: of the answer's body; 0 when the call was forwarded and nothing has come.
        asked: the upstream that was asked last, where there are several.
    """

    response_id: str | None
    seen_bytes: int
    asked: Asked | None = None


_SET = (
    " SET response_id = at.response_id, seen_bytes = at.seen_bytes, upstream = COALESCE(at.upstream, hold.upstream),"
    " credential = COALESCE(at.credential, hold.credential), price_id = COALESCE(at.price_id, hold.price_id)"
)
_ASKED = "value ->> 3 AS upstream, value ->> 4 AS credential, value ->> 5 AS price_id"
_NOTE_SQLITE = text(
    f"UPDATE hold{_SET}"
    " FROM (SELECT value ->> 0 AS request_id, value ->> 1 AS response_id, value ->> 2 AS seen_bytes,"
    f" {_ASKED} FROM json_each(:rows)) AS at WHERE hold.request_id = at.request_id"
)
# What a settlement is taking away at this moment is left out: nobody waits for anybody.
_NOTE_POSTGRES = text(
    "WITH at AS (SELECT value ->> 0 AS request_id, value ->> 1 AS response_id, (value ->> 2)::bigint AS seen_bytes,"
    f" {_ASKED} FROM json_array_elements(CAST(:rows AS json)) AS value),"
    " mine AS (SELECT h.request_id FROM hold h JOIN at ON at.request_id = h.request_id FOR UPDATE OF h SKIP LOCKED)"
    f" UPDATE hold{_SET}"
    " FROM at JOIN mine ON mine.request_id = at.request_id WHERE hold.request_id = at.request_id"
)


def note_progress(tx: Transaction, calls: Mapping[str, Progress]) -> None:
    """Write how far calls have come onto their holds, in one statement for all.

    Should their gateway die, the provider may bill what it had sent: then the rows that write these calls off say what
    to look for.

    Args:
        tx: a write transaction, at its end: settlements of these calls wait for it.
        calls: by request id; those without a hold are passed over.
    """
    rows = [
        (request_id, storable(response_id)[:LONGEST_RESPONSE_ID] if response_id else None, seen, *(asked or ()))
        for request_id, (response_id, seen, asked) in calls.items()
    ]
    if rows:
        postgres = tx.session.get_bind().dialect.name == "postgresql"
        tx.session.execute(_NOTE_POSTGRES if postgres else _NOTE_SQLITE, {"rows": json.dumps(rows)})


def renew(
    tx: Transaction, instance_id: str, length: timedelta, version: str | None = None, report: str | None = None
) -> datetime:
    """Say that a gateway instance is alive; its holds are safe from the sweep for `length` from now.

    Args:
        tx: a write transaction.
        instance_id: of the gateway.
        length: of the lease.
        version: of Keydesk that it runs, noted when it is first heard of.
        report: what it tells of itself, JSON of `core.gateway_report.GatewayReport`; None leaves what it told before.

    Returns:
        The store's present moment, UTC.
    """
    now = store_now(tx)
    found = tx.session.get(GatewayInstance, instance_id, with_for_update=True)
    if found is None:
        tx.session.add(
            GatewayInstance(id=instance_id, started_at=now, lease_until=now + length, version=version, report=report)
        )
    else:
        found.lease_until = now + length
        found.report = found.report if report is None else report
    return now


def is_known(tx: Transaction, instance_id: str) -> bool:
    """Whether nobody has ended a gateway instance's lease; until the transaction's end nobody does."""
    return tx.session.get(GatewayInstance, instance_id, with_for_update=True) is not None


def touch(tx: Transaction, instance_id: str) -> None:
    """Write a gateway instance's row: a commit that shows whether the key store takes one.

    The lease ends a microsecond later: SQLite writes nothing for a row that stays as it is.
    """
    found = tx.session.get(GatewayInstance, instance_id, with_for_update=True)
    if found is not None:
        found.lease_until += timedelta(microseconds=1)


def end(tx: Transaction, instance_id: str) -> None:
    """Say that a gateway instance has stopped; what it still holds may be swept."""
    tx.session.execute(delete(GatewayInstance).where(GatewayInstance.id == instance_id))


def held_by(tx: Transaction, instance_id: str) -> list[Hold]:
    """Return the open holds of a gateway instance."""
    return _holds(tx, HoldRow.instance_id == instance_id)


def sweep(store: Store) -> int:
    """Release the holds of dead gateway instances and write their calls off as abandoned; return how many.

    An instance is dead when its lease is over. Two sweeps at once write each call off once.

    Raises:
        Unavailable: the key store cannot be reached.
    """
    with store.read(SYSTEM) as tx:
        overdue = GatewayInstance.lease_until < store_now(tx)
        dead = tx.session.scalar(select(GatewayInstance.id).where(overdue).limit(1)) is not None
        orphaned = _orphaned(tx)
    if dead:
        with store.write(SYSTEM) as tx:
            tx.session.execute(delete(GatewayInstance).where(GatewayInstance.lease_until < store_now(tx)))
        with store.read(SYSTEM) as tx:
            orphaned = _orphaned(tx)
    return abandon(store, orphaned, DIED) if orphaned else 0


def _orphaned(tx: Transaction) -> list[Hold]:
    return _holds(tx, HoldRow.instance_id.not_in(select(GatewayInstance.id)))


def abandon(store: Store, holds: Collection[Hold], why: str) -> int:
    """Release holds and write their calls off at cost 0, unless they are settled meanwhile; return how many were.

    Args:
        why: stands in the request log, for operators.

    Raises:
        Unavailable: the key store cannot be reached; what was written off before stays so.
    """
    with store.read(SYSTEM) as tx:
        now = store_now(tx)
    billing_store = open_billing_store(store)
    try:
        jobs = [Abandon(hold, now, why) for hold in holds]
        return sum(sum(billing_store.run(jobs[first : first + BATCH])) for first in range(0, len(jobs), BATCH))
    finally:
        billing_store.close()


def _holds(tx: Transaction, condition: object) -> list[Hold]:
    columns = [getattr(HoldRow, name) for name in Hold._fields]
    rows = tx.session.execute(select(*columns).where(condition))  # type: ignore[arg-type]
    return [Hold(*row)._replace(admitted_at=micros(row.admitted_at)) for row in rows]
