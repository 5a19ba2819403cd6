"""Do the books balance? Each invariant of the design that data can show, checked against the data itself.

Every check is one query in one snapshot of the key store, so it holds while gateways are at work. Revocation (I1),
secrecy (I7) and tenancy (I8) cannot be seen in data; the tests check them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from sqlalchemy import func, select

from toolkit import audit
from toolkit.desk import Desk
from toolkit.errors import Unavailable
from toolkit.models import AuditRow, GatewayInstance, Hold, Segment
from toolkit.pricing import usd

MOST_SHOWN = 20
"""Violations of one check that are spelled out; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Args:
        invariant: "I2" to "I6".
        title: what must hold.
        checked: how many things were looked at.
        violations: a sentence for each thing that is wrong.
    """

    invariant: str
    title: str
    checked: int
    violations: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Check:
    """A check as SQL: `checked` counts what is looked at, `wrong` selects ids and the amounts that disagree."""

    invariant: str
    title: str
    checked: str
    wrong: str
    say: Callable[..., str]


def _money(nano: int | None) -> str:
    return f"{usd(nano or 0)} USD"


_CHARGE = """
    (greatest(input_tokens - cached_input_tokens - cache_write_5m_tokens - cache_write_1h_tokens, 0)::HUGEINT
     * input_price
     + cached_input_tokens::HUGEINT * cached_input_price
     + cache_write_5m_tokens::HUGEINT * cache_write_5m_price
     + cache_write_1h_tokens::HUGEINT * cache_write_1h_price
     + output_tokens::HUGEINT * output_price
     + request_price::HUGEINT * 1000000) * multiplier
"""
# Half to even, in integers: one more than the quotient if the rest is above one half, or is it and the quotient is odd.
_RECHARGED = """
    (exact // 1000000000000 + CASE WHEN exact % 1000000000000 > 500000000000
     OR (exact % 1000000000000 = 500000000000 AND exact // 1000000000000 % 2 = 1) THEN 1 ELSE 0 END)
"""

_CHECKS = (
    _Check(
        "I2",
        "No strict key is over its monthly limit, but for recorded overruns or a lowered limit",
        "SELECT count(*) FROM key_months",
        """
        SELECT k.name, m.month, m.spent + m.held AS used, k.monthly_limit, coalesce(o.overrun, 0) AS overrun, k.id
        FROM key_months m JOIN keys k ON k.id = m.key_id
        LEFT JOIN (SELECT key_id, month, sum(overrun)::BIGINT AS overrun FROM usage GROUP BY ALL) o
          ON o.key_id = m.key_id AND o.month = m.month
        WHERE k.hold_policy = 'strict' AND m.spent + m.held - coalesce(o.overrun, 0) > k.monthly_limit
        """,
        lambda name, month, used, limit, overrun, _id: (
            f"Key {name} in {month}: {_money(used)} spent and held, limit {_money(limit)}, overruns {_money(overrun)}."
        ),
    ),
    _Check(
        "I3",
        "Each wallet's credits are the sum of its entries",
        "SELECT count(*) FROM orgs",
        """
        SELECT o.name, o.credited, coalesce(e.amount, 0) FROM orgs o
        LEFT JOIN (SELECT org_id, sum(amount)::BIGINT AS amount FROM wallet_entries GROUP BY ALL) e ON e.org_id = o.id
        WHERE o.credited <> coalesce(e.amount, 0)
        """,
        lambda name, kept, summed: f"{name}: the wallet says {_money(kept)}, its entries sum to {_money(summed)}.",
    ),
    _Check(
        "I3",
        "Each wallet's settlements are the sum of its calls",
        "SELECT count(*) FROM orgs",
        """
        SELECT o.name, o.settled, coalesce(u.cost, 0) FROM orgs o
        LEFT JOIN (SELECT org_id, sum(cost)::BIGINT AS cost FROM usage GROUP BY ALL) u ON u.org_id = o.id
        WHERE o.settled <> coalesce(u.cost, 0)
        """,
        lambda name, kept, summed: f"{name}: the wallet settled {_money(kept)}, its calls cost {_money(summed)}.",
    ),
    _Check(
        "I3",
        "What a wallet holds is the sum of its open holds",
        "SELECT count(*) FROM orgs",
        """
        SELECT o.name, o.held, coalesce(h.amount, 0) FROM orgs o
        LEFT JOIN (SELECT org_id, sum(amount)::BIGINT AS amount FROM holds GROUP BY ALL) h ON h.org_id = o.id
        WHERE o.held <> coalesce(h.amount, 0)
        """,
        lambda name, kept, summed: f"{name}: the wallet holds {_money(kept)}, its open holds sum to {_money(summed)}.",
    ),
    _Check(
        "I3",
        "No wallet is below zero, but for recorded overruns and adjustments",
        "SELECT count(*) FROM orgs",
        """
        SELECT o.name, o.credited - o.settled - o.held AS available, coalesce(u.overrun, 0) AS overrun FROM orgs o
        LEFT JOIN (SELECT org_id, sum(overrun)::BIGINT AS overrun FROM usage GROUP BY ALL) u ON u.org_id = o.id
        LEFT JOIN (SELECT org_id, sum(amount)::BIGINT AS taken FROM wallet_entries WHERE amount < 0 GROUP BY ALL) e
          ON e.org_id = o.id
        WHERE o.credited - o.settled - o.held + coalesce(u.overrun, 0) - coalesce(e.taken, 0) < 0
        """,
        lambda name, left, overrun: f"{name}: {_money(left)} available, overruns {_money(overrun)}.",
    ),
    _Check(
        "I4",
        "Each request id occurs once, and no call that ended still holds money",
        "SELECT count(*) FROM usage",
        """
        SELECT request_id, count(*)::BIGINT FROM usage GROUP BY request_id HAVING count(*) > 1
        UNION ALL SELECT request_id, 0 FROM holds WHERE request_id IN (SELECT request_id FROM usage)
        """,
        lambda request_id, times: (
            f"{request_id} {f'occurs {times} times' if times else 'ended, but still holds money'}."
        ),
    ),
    _Check(
        "I4",
        "Each key's monthly totals are the sums of its calls",
        "SELECT count(*) FROM key_months",
        """
        SELECT coalesce(k.name, s.key_id), s.month, s.calls, coalesce(m.calls, 0), s.cost, coalesce(m.spent, 0) FROM (
            SELECT key_id, month, count(*)::BIGINT AS calls, sum(cost)::BIGINT AS cost FROM usage
            WHERE outcome <> 'refused' GROUP BY ALL
            UNION ALL
            SELECT key_id, month, 0, 0 FROM key_months WHERE (key_id, month) NOT IN
              (SELECT (key_id, month) FROM usage WHERE outcome <> 'refused')
        ) s LEFT JOIN key_months m ON m.key_id = s.key_id AND m.month = s.month LEFT JOIN keys k ON k.id = s.key_id
        WHERE s.calls <> coalesce(m.calls, 0) OR s.cost <> coalesce(m.spent, 0)
        """,
        lambda name, month, rows, calls, cost, spent: (
            f"Key {name} in {month}: {rows} calls in the log and {calls} in the totals, "
            f"costing {_money(cost)} and {_money(spent)}."
        ),
    ),
    _Check(
        "I4",
        "What a key holds in a month is the sum of its open holds",
        "SELECT count(*) FROM key_months",
        """
        SELECT m.key_id, m.month, m.held, coalesce(h.amount, 0) FROM key_months m
        LEFT JOIN (SELECT key_id, month, sum(limit_amount)::BIGINT AS amount FROM holds GROUP BY ALL) h
          ON h.key_id = m.key_id AND h.month = m.month
        WHERE m.held <> coalesce(h.amount, 0)
        """,
        lambda key, month, kept, summed: (
            f"Key {key} in {month}: totals hold {_money(kept)}, open holds sum to {_money(summed)}."
        ),
    ),
    _Check(
        "I4",
        "Each charge is its tokens × prices × multiplier, rounded once",
        "SELECT count(*) FROM usage WHERE usage_source IS NOT NULL",
        f"""
        SELECT request_id, cost, {_RECHARGED}::BIGINT AS right_cost
        FROM (SELECT *, {_CHARGE} AS exact FROM usage WHERE usage_source IS NOT NULL)
        WHERE cost <> {_RECHARGED}
        UNION ALL SELECT request_id, cost, 0 FROM usage WHERE usage_source IS NULL AND cost <> 0
        """,
        lambda request_id, cost, right: f"{request_id} was charged {_money(cost)}; its tokens make {_money(right)}.",
    ),
    _Check(
        "I4",
        "Each overrun is what a charge exceeds its hold by",
        "SELECT count(*) FROM usage",
        "SELECT request_id, cost, held, overrun FROM usage WHERE overrun <> greatest(cost - held, 0)",
        lambda request_id, cost, held, overrun: (
            f"{request_id} cost {_money(cost)} with {_money(held)} held; its overrun says {_money(overrun)}."
        ),
    ),
)


def run(desk: Desk, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Check every invariant that data can show.

    Args:
        desk: opened as a platform admin.
        progress: called with checks done and checks in all.

    Raises:
        Forbidden: the actor may not see all organisations.
        Unavailable: the key store cannot be read. A damaged ledger is a finding.
    """
    total = len(_CHECKS) + 3
    findings: list[Finding] = []

    def done(finding: Finding) -> None:
        findings.append(finding)
        if progress is not None:
            progress(len(findings), total)

    for check in _CHECKS:
        done(_run_check(desk, check))

    with desk.read() as tx:
        segments = tx.session.scalar(select(func.count()).select_from(Segment)) or 0
        holds = tx.session.scalar(select(func.count()).select_from(Hold)) or 0
        orphans = [
            f"Hold of {usd(hold.amount)} USD for {hold.request_id}: its gateway {hold.instance_id} has ended. "
            "A running gateway sweeps it within seconds."
            for hold in tx.session.scalars(
                select(Hold).where(
                    Hold.instance_id.not_in(select(GatewayInstance.id).where(GatewayInstance.lease_until >= tx.now))
                )
            )
        ]
        acts = tx.session.scalar(select(func.count()).select_from(AuditRow)) or 0
        broken = [f"Chain {link.chain}, row {link.seq}: {link.problem}." for link in audit.verify(tx)]
    done(Finding("I4", "Each ledger segment is the file that was written", segments, _shown(desk.ledger.verify())))
    done(Finding("I5", "No hold belongs to a gateway that has ended", holds, _shown(orphans)))
    done(Finding("I6", "The audit log's chains are whole", acts, _shown(broken)))
    return findings


def _run_check(desk: Desk, check: _Check) -> Finding:
    import duckdb

    try:
        checked = desk.ledger.sql(check.checked).column(0)[0].as_py()
        rows = [tuple(row.values()) for row in desk.ledger.sql(check.wrong).to_pylist()]
    except (duckdb.Error, Unavailable) as error:
        damage = str(error).partition("\n")[0]
        return Finding(check.invariant, check.title, 0, [f"Not checked, for the ledger cannot be read: {damage}"])
    if check.invariant == "I2":
        rows = [row for row in rows if not _limit_was_lowered(desk, key_id=row[-1], month=row[1])]
    return Finding(check.invariant, check.title, checked, _shown([check.say(*row) for row in rows]))


def _shown(violations: list[str]) -> list[str]:
    more = len(violations) - MOST_SHOWN
    return [*violations[:MOST_SHOWN], f"and {more:,} more"] if more > 0 else violations


def _limit_was_lowered(desk: Desk, *, key_id: str, month: str) -> bool:
    """Whether the audit log tells of a lower limit, or of a stricter policy, since the month began."""
    with desk.read() as tx:
        for row in audit.rows(tx, subject=key_id, limit=10_000):
            if row.action != "key.update" or f"{row.at:%Y-%m}" < month:
                continue
            before, after = json.loads(row.before or "{}"), json.loads(row.after or "{}")
            old, new = before.get("monthly_limit_usd"), after.get("monthly_limit_usd")
            if new is not None and (old is None or Decimal(new) < Decimal(old)):
                return True
            if before.get("policy") != after.get("policy"):
                return True
    return False
