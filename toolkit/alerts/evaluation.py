"""What there is to tell: one statement finds it, by the store's running totals and never by the ledger.

A candidate is a subject with what it is measured by (`basis`) and how far it has come (`reached`: percent of a limit,
else 1 or 0). `alert_state` has what was told last. It is told when it has come further than that, or as far with
another basis or in another period; and what is over is forgotten, so that it is told when it comes again.
"""

from datetime import datetime, timedelta

from sqlalchemy import delete, insert, select, text

from toolkit.alerts import messages, queue
from toolkit.alerts.occasion import Occasion
from toolkit.core.ids import new_id
from toolkit.core.moments import micros
from toolkit.core.period import billing_month
from toolkit.core.policy import KeyStatus
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.locks import lock_name
from toolkit.store.tables import Alert, AlertDelivery, AlertDestination
from toolkit.store.transaction import Transaction

THRESHOLDS = (100, 95, 80, 50)
"""Percent of a key's monthly limit. A key that passes several at once is told of by the highest."""

EXPIRES_WITHIN = timedelta(days=7)
"""How long before its end a key's expiry is told."""

LATE = timedelta(minutes=15)
"""How long a row may wait for the ledger; the drain moves rows once a second."""

MOST = 500
"""Occasions of one round; further ones are found in the next."""

KEPT = timedelta(days=90)
"""How long an alert is kept once nobody waits for it."""


def _passed(percent: int) -> str:
    """Return as SQL whether so much of a limit is spent: without a product that a BIGINT would not hold."""
    part = f"k.monthly_limit / 100 * {percent} + (k.monthly_limit % 100 * {percent} + 99) / 100"
    return f"WHEN m.spent + m.corrected >= {part} THEN {percent}"


_CANDIDATES = f"""
    SELECT 'limit' AS kind, k.id AS subject, k.org_id AS org_id, o.name AS org, k.name AS name, '' AS detail,
        '' AS model, m.month AS period, COALESCE(k.monthly_limit, 0) AS basis, m.spent + m.corrected AS amount,
        CASE WHEN COALESCE(k.monthly_limit, 0) = 0 THEN 0 {" ".join(map(_passed, THRESHOLDS))} ELSE 0 END AS reached
    FROM key_month m JOIN api_key k ON k.id = m.key_id JOIN organisation o ON o.id = k.org_id
    WHERE m.month = :month AND k.status = :active
    UNION ALL
    SELECT 'wallet', id, id, name, name, '', '', '', COALESCE(low_balance, 0), credited - settled,
        CASE WHEN credited - settled < low_balance THEN 1 ELSE 0 END
    FROM organisation
    UNION ALL
    SELECT 'expiry', k.id, k.org_id, o.name, k.name, '', '', '', COALESCE(k.expires_at, 0), 0,
        CASE WHEN k.expires_at > :now AND k.expires_at <= :soon THEN 1 ELSE 0 END
    FROM api_key k JOIN organisation o ON o.id = k.org_id
    WHERE k.status = :active
    UNION ALL
    SELECT 'upstream', i.upstream || '/' || i.fault || '/' || i.model || '/' || i.credential, u.org_id,
        COALESCE(o.name, ''), i.upstream, i.fault, i.model, '', i.first_at, i.calls,
        CASE WHEN i.ended_at IS NULL THEN 1 ELSE 0 END
    FROM upstream_incident i LEFT JOIN upstream u ON u.name = i.upstream LEFT JOIN organisation o ON o.id = u.org_id
    UNION ALL
    SELECT 'unpriced', m.id, CAST(NULL AS TEXT), '', m.id, '', '', '', 0, 0,
        CASE WHEN EXISTS (SELECT 1 FROM price p WHERE p.valid_from <= :now AND (p.model_id = m.id
            OR p.model_id IN (SELECT w.price_model FROM model_way w WHERE w.model_id = m.id))) THEN 0 ELSE 1 END
    FROM model m
    UNION ALL
    SELECT 'drain', 'ledger', CAST(NULL AS TEXT), '', 'ledger', '', '', '', 0, COALESCE(waits.since, 0),
        CASE WHEN waits.since < :late THEN 1 ELSE 0 END
    FROM (SELECT (SELECT settled_at FROM outbox ORDER BY request_id LIMIT 1) AS since) waits
"""
_FIND = text(
    f"SELECT c.* FROM ({_CANDIDATES}) c"
    " LEFT JOIN alert_state s ON s.kind = c.kind AND s.subject = c.subject"
    " WHERE (c.reached > 0 AND (s.subject IS NULL OR s.period <> c.period OR s.basis <> c.basis"
    " OR c.reached > s.reached))"
    # A correction that takes a key below a threshold does not make it pass that threshold anew; and an incident that
    # comes back soon has the beginning that it had.
    " OR (c.reached = 0 AND s.subject IS NOT NULL AND (c.kind NOT IN ('limit', 'upstream') OR s.period <> c.period OR"
    " s.basis <> c.basis)) ORDER BY c.kind, c.subject LIMIT :most"
)
_TOLD = text(
    "INSERT INTO alert_state (kind, subject, period, basis, reached) VALUES (:kind, :subject, :period, :basis,"
    " :reached) ON CONFLICT (kind, subject) DO UPDATE SET period = excluded.period, basis = excluded.basis,"
    " reached = excluded.reached"
)
_OVER = text("DELETE FROM alert_state WHERE kind = :kind AND subject = :subject")


def found(tx: Transaction) -> list[Occasion]:
    """Return what differs from what was told last."""
    values = {
        "month": billing_month(tx.now),
        "active": KeyStatus.ACTIVE.value,
        "now": micros(tx.now),
        "soon": micros(tx.now + EXPIRES_WITHIN),
        "late": micros(tx.now - LATE),
        "most": MOST,
    }
    return [Occasion(*row) for row in tx.session.execute(_FIND, values)]


def tell(store: Store, holder: str, now: datetime | None = None) -> int:
    """Queue an alert for each thing that there is to tell; return how many.

    Costs one statement while there is none.

    Args:
        store: the key store.
        holder: who has the lease of `queue`; without it nothing is queued.
        now: UTC; the present by default.

    Raises:
        Unavailable: the store cannot be reached.
    """
    with store.read(SYSTEM, now) as tx:
        occasions = found(tx)
    if not occasions:
        return 0
    with store.write(SYSTEM, now) as tx:
        lock_name(tx, queue.DESTINATIONS)  # none goes before it has its alerts
        if not queue.holds_lease(tx, holder):
            return 0
        _forget(tx)
        over = [occasion._asdict() for occasion in occasions if occasion.reached == 0]
        told = [occasion for occasion in occasions if occasion.reached > 0]
        if over:
            tx.session.execute(_OVER, over)
        if told:
            tx.session.execute(_TOLD, [occasion._asdict() for occasion in told])
            _queue(tx, told)
        return len(told)


def _queue(tx: Transaction, told: list[Occasion]) -> None:
    destinations = tx.session.execute(select(AlertDestination.id, AlertDestination.org_id)).all()
    alerts, deliveries = [], []
    for occasion in told:
        alert_id = new_id("alert")
        alerts.append(
            {
                "id": alert_id,
                "org_id": occasion.org_id,
                "kind": occasion.kind,
                "subject": occasion.subject,
                "fired_at": tx.now,
                "body": messages.body(occasion, alert_id, tx.now),
            }
        )
        deliveries += [
            {"alert_id": alert_id, "destination_id": to, "queued_at": tx.now, "due_at": tx.now, "tries": 0}
            for to, org_id in destinations
            if org_id in {None, occasion.org_id}
        ]
    tx.session.execute(insert(Alert), alerts)
    if deliveries:
        tx.session.execute(insert(AlertDelivery), deliveries)


def _forget(tx: Transaction) -> None:
    """Delete alerts that are old: by then each delivery has ended."""
    old = select(Alert.id).where(Alert.fired_at < tx.now - KEPT)
    tx.session.execute(delete(AlertDelivery).where(AlertDelivery.alert_id.in_(old)))
    tx.session.execute(delete(Alert).where(Alert.fired_at < tx.now - KEPT))
