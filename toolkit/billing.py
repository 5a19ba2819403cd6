"""The rules of money: look up, admit (hold), settle (charge and release), refuse, sweep.

Every function works on one connection of the driver's own, inside a transaction that its caller has begun with
BEGIN IMMEDIATE and will commit. Many calls share one transaction (`cashier`), each judged in turn from the state
that the ones before it left. SQLAlchemy would cost more here than the statements themselves.

Hold → settle → release: an admission puts aside the most that the call can cost; its settlement deletes the hold
(and goes on only if there was one), charges the real usage, and appends the request-log row, all at once. So each
admitted call is charged exactly once or, if its gateway died, written off exactly once by `sweep`.
"""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from toolkit.credentials import redact
from toolkit.errors import Refusal, RefusalType
from toolkit.estimate import HoldBound
from toolkit.models import OutboxRow, micros, moment
from toolkit.policy import HoldPolicy, KeyFacts, KeyStatus, Outcome
from toolkit.pricing import PriceSheet, billing_month, charge
from toolkit.receipts import quota_exceeded, wallet_shortfall
from toolkit.usage import Usage

REFUSAL_ROWS_PER_MINUTE = 60
"""Rows of the request log that one key gets for one reason in one minute; further refusals are only counted."""

RECENT_WEIGHT = 8
"""Weight of the past in the moving average of policy `expected`: about the last dozen calls."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is fixed about a call when it is judged, and stored with its charge.

    Args:
        request_id: time-ordered, unique.
        received_at: the moment of admission, UTC; decides the billing month.
    """

    request_id: str
    key: KeyFacts
    received_at: datetime
    dialect: str
    endpoint: str
    stream: bool
    model: str | None = None
    upstream: str | None = None
    price_id: str | None = None
    sheet: PriceSheet | None = None
    multiplier: int = 0


@dataclass(frozen=True, slots=True)
class Admitted:
    """A hold was placed.

    Args:
        hold: against the wallet, nano-USD.
        output_bound: what one choice may produce; the caller's own, the default, or what was fitted.
        fitted: whether the default bound was lowered to fit what is left.
    """

    hold: int
    output_bound: int
    fitted: bool


class Stale(Exception):
    """The key or the catalog changed after its facts were read."""


_FACTS = (
    "SELECT k.id, k.org_id, k.plan_id, k.version, k.status, k.scope, k.monthly_limit, k.hold_policy, k.expires_at,"
    " o.suspended FROM {table} s JOIN api_key k ON k.id = s.key_id JOIN organisation o ON o.id = k.org_id"
    " WHERE s.digest = :digest"
)


def lookup(connection: sqlite3.Connection, digests: Iterable[str]) -> KeyFacts | None:
    """Return the facts of the key that one of these digests admits, or None."""
    return _find(connection, "live_secret", digests)


def lookup_retired(connection: sqlite3.Connection, digests: Iterable[str], now: datetime) -> KeyFacts | None:
    """Return the facts of the key that one of these digests once admitted, and count the use; or None.

    Such a secret admits nothing: its key was rotated or deleted, and operators want to know who still has it.
    """
    digests = list(digests)
    facts = _find(connection, "retired_secret", digests)
    if facts is not None:
        note_retired(connection, digests, now)
    return facts


def _find(connection: sqlite3.Connection, table: str, digests: Iterable[str]) -> KeyFacts | None:
    for digest in digests:
        row = connection.execute(_FACTS.format(table=table), {"digest": digest}).fetchone()
        if row is not None:
            return KeyFacts(
                key_id=row["id"],
                org_id=row["org_id"],
                plan_id=row["plan_id"],
                version=row["version"],
                status=KeyStatus(row["status"]),
                org_suspended=bool(row["suspended"]),
                scope=frozenset(json.loads(row["scope"])),
                monthly_limit=row["monthly_limit"],
                hold_policy=HoldPolicy(row["hold_policy"]),
                expires_at=None if row["expires_at"] is None else moment(row["expires_at"]),
            )
    return None


def note_retired(connection: sqlite3.Connection, digests: Iterable[str], now: datetime) -> None:
    """Count a use of a rotated or deleted secret."""
    for digest in digests:
        connection.execute(
            "UPDATE retired_secret SET uses = uses + 1, last_used_at = :now WHERE digest = :digest",
            {"digest": digest, "now": micros(now)},
        )


def _require_current(connection: sqlite3.Connection, call: Call, catalog_version: int) -> sqlite3.Row:
    """Return the locked state that a call is judged from; raise Stale if its facts are no longer those."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT k.version, k.monthly_limit, o.suspended, o.credited - o.settled AS balance, o.held AS org_held,"
        " coalesce(m.spent, 0) AS spent, coalesce(m.held, 0) AS key_held,"
        " (SELECT version FROM catalog_version) AS catalog, r.cost AS recent"
        " FROM api_key k JOIN organisation o ON o.id = k.org_id"
        " LEFT JOIN key_month m ON m.key_id = k.id AND m.month = :month"
        " LEFT JOIN recent_cost r ON r.key_id = k.id AND r.model = :model"
        " WHERE k.id = :key_id",
        {"key_id": call.key.key_id, "month": billing_month(call.received_at), "model": call.model},
    ).fetchone()
    if (
        row is None
        or row["version"] != call.key.version
        or bool(row["suspended"]) != call.key.org_suspended
        or row["catalog"] != catalog_version
    ):
        raise Stale
    return row


def admit(
    connection: sqlite3.Connection, call: Call, bound: HoldBound, *, catalog_version: int, instance_id: str
) -> Admitted:
    """Place a hold for a call, or refuse it.

    Args:
        connection: in a write transaction.
        call: with its price and multiplier.
        bound: the most it can cost, as a function of its output bound.
        catalog_version: of the catalog that call and bound were made from.
        instance_id: the gateway that will settle it.

    Raises:
        Stale: key or catalog have changed; look up and try again.
        Refusal: the monthly limit or the wallet does not allow it. Nothing is held.
    """
    state = _require_current(connection, call, catalog_version)
    month = billing_month(call.received_at)
    limit: int | None = state["monthly_limit"]
    limit_room = None if limit is None else limit - state["spent"] - state["key_held"]
    wallet_room = state["balance"] - state["org_held"]
    amount = bound.amount()
    likely = min(amount, max(state["recent"], 1)) if state["recent"] is not None else None

    if amount == 0:
        output_bound: int | None = bound.output_bound
    elif call.key.hold_policy is HoldPolicy.EXPECTED and likely is not None:
        if limit_room is not None and likely > limit_room:
            raise _quota_exceeded(state, month, likely, None)
        output_bound = bound.fitted(wallet_room)
    else:
        if limit_room is not None and bound.fitted(limit_room) is None:
            raise _quota_exceeded(state, month, bound.least(), bound.would_fit(limit_room))
        output_bound = bound.fitted(wallet_room if limit_room is None else min(limit_room, wallet_room))
    if output_bound is None:
        raise wallet_shortfall(state["balance"], state["org_held"], bound.least(), bound.would_fit(wallet_room))

    hold = bound.amount(output_bound)
    limit_hold = min(hold, likely) if call.key.hold_policy is HoldPolicy.EXPECTED and likely is not None else hold
    connection.execute(
        "INSERT INTO hold (request_id, instance_id, org_id, key_id, plan_id, month, admitted_at, amount, limit_amount,"
        " dialect, endpoint, stream, model, upstream, price_id, multiplier) VALUES (:request_id, :instance_id, :org_id,"
        " :key_id, :plan_id, :month, :admitted_at, :amount, :limit_amount, :dialect, :endpoint, :stream, :model,"
        " :upstream, :price_id, :multiplier)",
        {
            "request_id": call.request_id,
            "instance_id": instance_id,
            "org_id": call.key.org_id,
            "key_id": call.key.key_id,
            "plan_id": call.key.plan_id,
            "month": month,
            "admitted_at": micros(call.received_at),
            "amount": hold,
            "limit_amount": limit_hold,
            "dialect": call.dialect,
            "endpoint": call.endpoint,
            "stream": call.stream,
            "model": call.model,
            "upstream": call.upstream,
            "price_id": call.price_id,
            "multiplier": call.multiplier,
        },
    )
    connection.execute(
        "UPDATE organisation SET held = held + :amount WHERE id = :org_id",
        {"amount": hold, "org_id": call.key.org_id},
    )
    connection.execute(
        "INSERT INTO key_month (key_id, month, calls, spent, held, last_call_at) VALUES (:key_id, :month, 0, 0,"
        " :amount, :now) ON CONFLICT (key_id, month) DO UPDATE SET held = key_month.held + excluded.held,"
        " last_call_at = max(key_month.last_call_at, excluded.last_call_at)",
        {"key_id": call.key.key_id, "month": month, "amount": limit_hold, "now": micros(call.received_at)},
    )
    return Admitted(hold, output_bound, fitted=output_bound < bound.output_bound)


@dataclass(frozen=True, slots=True)
class Ending:
    """How an admitted call ended.

    Args:
        outcome: what happened.
        ended_at: UTC.
        status: HTTP status that the caller got.
        usage: what is charged; None charges nothing.
        refusal: the reason that the caller was given, if there was one.
        response_id: the provider's own id of its answer.
        first_byte_ms, duration_ms: milliseconds since admission.
        error: detail for operators; must hold no secret.
    """

    outcome: Outcome
    ended_at: datetime
    status: int
    usage: Usage | None = None
    refusal: RefusalType | None = None
    response_id: str | None = None
    first_byte_ms: int | None = None
    duration_ms: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a settled call cost, nano-USD."""

    cost: int
    overrun: int = field(default=0)


def settle(connection: sqlite3.Connection, call: Call, ending: Ending) -> Receipt | None:
    """Charge an admitted call and release its hold; None if it holds nothing any more (swept: a lost settlement).

    The whole real cost is charged; what exceeds the hold is recorded as an overrun.
    """
    hold = connection.execute("DELETE FROM hold WHERE request_id = :id RETURNING *", {"id": call.request_id}).fetchone()
    if hold is None:
        return None
    priced = ending.usage is not None and call.sheet is not None
    cost = charge(ending.usage, call.sheet, call.multiplier) if ending.usage and call.sheet else 0
    overrun = max(cost - hold["amount"], 0)
    _release(connection, hold, cost)
    if priced and ending.outcome is Outcome.COMPLETED:
        connection.execute(
            "INSERT INTO recent_cost (key_id, model, cost) VALUES (:key_id, :model, :cost)"
            " ON CONFLICT (key_id, model) DO UPDATE SET"
            f" cost = (recent_cost.cost * {RECENT_WEIGHT - 1} + excluded.cost) / {RECENT_WEIGHT}",
            {"key_id": call.key.key_id, "model": call.model, "cost": cost},
        )
    _append(connection, _row(call, ending) | {"cost": cost, "held": hold["amount"], "overrun": overrun})
    return Receipt(cost, overrun)


def _release(connection: sqlite3.Connection, hold: sqlite3.Row, cost: int) -> None:
    connection.execute(
        "UPDATE organisation SET held = held - :amount, settled = settled + :cost WHERE id = :org_id",
        {"amount": hold["amount"], "cost": cost, "org_id": hold["org_id"]},
    )
    connection.execute(
        "UPDATE key_month SET held = held - :amount, spent = spent + :cost, calls = calls + 1"
        " WHERE key_id = :key_id AND month = :month",
        {"amount": hold["limit_amount"], "cost": cost, "key_id": hold["key_id"], "month": hold["month"]},
    )


def refuse(
    connection: sqlite3.Connection, call: Call, refusal: Refusal, now: datetime, *, catalog_version: int | None
) -> None:
    """Log the refusal of a known key's call at cost 0: at most 60 rows a key, reason and minute, the rest counted.

    Args:
        catalog_version: what the refusal was judged by; None when it does not depend on key or catalog facts.

    Raises:
        Stale: the key or the catalog has changed; the call must be judged anew.
    """
    if catalog_version is not None:
        _require_current(connection, call, catalog_version)
    (count,) = connection.execute(
        "INSERT INTO refusal_count (key_id, refusal, minute, refused) VALUES (:key_id, :refusal, :minute, 1)"
        " ON CONFLICT (key_id, refusal, minute) DO UPDATE SET refused = refusal_count.refused + 1 RETURNING refused",
        {"key_id": call.key.key_id, "refusal": refusal.type, "minute": micros(now) // 60_000_000},
    ).fetchone()
    if count <= REFUSAL_ROWS_PER_MINUTE:
        ending = Ending(Outcome.REFUSED, now, refusal.status, refusal=refusal.type, error=refusal.message)
        _append(connection, _row(call, ending))


def _row(call: Call, ending: Ending) -> dict[str, Any]:
    usage = ending.usage or Usage()
    tier = call.sheet.tier(usage.input_tokens) if call.sheet and ending.usage else None
    return {
        "request_id": call.request_id,
        "org_id": call.key.org_id,
        "key_id": call.key.key_id,
        "plan_id": call.key.plan_id,
        "admitted_at": micros(call.received_at),
        "settled_at": micros(ending.ended_at),
        "outcome": ending.outcome,
        "refusal": ending.refusal,
        "status": ending.status,
        "dialect": call.dialect,
        "endpoint": call.endpoint,
        "stream": call.stream,
        "model": redact(call.model) if call.model else None,  # a caller may mistake their secret for a model's name
        "upstream": call.upstream,
        "response_id": ending.response_id,
        "usage_source": ending.usage.source if ending.usage else None,
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cache_write_5m_tokens": usage.cache_write_5m_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "price_id": call.price_id,
        "multiplier": call.multiplier,
        "input_price": tier.input if tier else 0,
        "cached_input_price": tier.cached_input if tier else 0,
        "cache_write_5m_price": tier.cache_write_5m if tier else 0,
        "cache_write_1h_price": tier.cache_write_1h if tier else 0,
        "output_price": tier.output if tier else 0,
        "request_price": call.sheet.request if call.sheet and ending.usage else 0,
        "cost": 0,
        "held": 0,
        "overrun": 0,
        "first_byte_ms": ending.first_byte_ms,
        "duration_ms": ending.duration_ms,
        "error": redact(ending.error) if ending.error else None,
    }


_COLUMNS = [column.name for column in OutboxRow.__table__.columns]
_INSERT_ROW = f"INSERT INTO outbox ({', '.join(_COLUMNS)}) VALUES ({', '.join(':' + name for name in _COLUMNS)})"


def _append(connection: sqlite3.Connection, row: dict[str, Any]) -> None:
    connection.execute(_INSERT_ROW, row)


def renew_lease(connection: sqlite3.Connection, instance_id: str, now: datetime, until: datetime) -> None:
    """Say that a gateway instance is alive; its holds are safe from the sweep until then."""
    connection.execute(
        "INSERT INTO gateway_instance (id, started_at, lease_until) VALUES (:id, :now, :until)"
        " ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until",
        {"id": instance_id, "now": micros(now), "until": micros(until)},
    )


def end_instance(connection: sqlite3.Connection, instance_id: str) -> None:
    """Say that a gateway instance has stopped; what it still holds may be swept."""
    connection.execute("DELETE FROM gateway_instance WHERE id = :id", {"id": instance_id})


def sweep(connection: sqlite3.Connection, now: datetime) -> int:
    """Release the holds of dead gateway instances and write their calls off as abandoned; return how many."""
    connection.execute("DELETE FROM gateway_instance WHERE lease_until < :now", {"now": micros(now)})
    holds = connection.execute(
        "DELETE FROM hold WHERE instance_id NOT IN (SELECT id FROM gateway_instance) RETURNING *"
    ).fetchall()
    for hold in holds:
        _release(connection, hold, 0)
        empty = {name: 0 for name in _COLUMNS if name.endswith(("_tokens", "_price"))}
        kept = {name: hold[name] for name in set(_COLUMNS).intersection(hold.keys())}
        _append(
            connection,
            dict.fromkeys(_COLUMNS)
            | empty
            | kept
            | {
                "settled_at": micros(now),
                "outcome": Outcome.ABANDONED,
                "status": 0,
                "cost": 0,
                "held": hold["amount"],
                "overrun": 0,
                "error": "the gateway that made this call ended without settling it",
            },
        )
    return len(holds)


def _quota_exceeded(state: sqlite3.Row, month: str, needed: int, fits: int | None) -> Refusal:
    return quota_exceeded(state["monthly_limit"], state["spent"], state["key_held"], needed, month, fits)
