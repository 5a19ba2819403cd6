"""Do the books balance? Each invariant of the design that data can show, checked against the data itself.

Every check reads one snapshot of the key store, so it holds while gateways are at work. DuckDB does the adding up, and
request ids are compared a million at a time, so memory does not grow with the ledger. Revocation (I1), secrecy (I7)
and tenancy (I8) cannot be seen in data; the tests check them.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import delete, func, select, text

from toolkit.checks import limits_history
from toolkit.checks.limits_history import Caps
from toolkit.core.errors import Forbidden, Unavailable
from toolkit.core.ids import new_id
from toolkit.core.money import usd
from toolkit.core.policy import Role
from toolkit.ledger import segments
from toolkit.store import audit, holds
from toolkit.store.tables import AuditRow, Reconciliation, Segment
from toolkit.store.transaction import Transaction, utc_now
from toolkit.workspace import Workspace

MOST_SHOWN = 20
"""Violations of one check that are spelled out; the rest are counted."""

RUNS_KEPT = 100
"""Runs that stay on record; older ones are dropped."""

IDS_AT_ONCE = 1_000_000
"""Request ids that are compared with each other at a time."""


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
class Run:
    """A run on record.

    Args:
        started_at: UTC.
        actor: who ran it.
        duration_ms: how long it took.
        rows: of the request log that were checked.
        clean: whether nothing was wrong.
        findings: one for each check.
    """

    started_at: datetime
    actor: str
    duration_ms: int
    rows: int
    clean: bool
    findings: list[Finding]


def run(workspace: Workspace, progress: Callable[[int, int, str], None] | None = None) -> list[Finding]:
    """Check every invariant that data can show, within what the actor may see; a platform admin's run is recorded.

    Args:
        workspace: opened as anybody who may look. Files of the ledger, which hold everybody's rows, are checked only
            for an actor of no single organisation.
        progress: called before each check with checks done, checks in all and the name of this one; then once more
            at the end, with no name.

    Raises:
        Unavailable: the key store cannot be read. A damaged ledger is a finding.
    """
    started, clock = utc_now(), time.monotonic()
    steps = _steps(workspace)
    findings: list[Finding] = []
    for invariant, title, step in steps:
        if progress is not None:
            progress(len(findings), len(steps), title)
        try:
            checked, violations = step()
        except Unavailable as error:
            if not (findings and findings[0].title == _SOUND and findings[0].violations):
                raise
            checked, violations = 0, [f"Not checked, for the key store is damaged: {error}"]
        findings.append(Finding(invariant, title, checked, violations))
    if progress is not None:
        progress(len(steps), len(steps), "")
    if workspace.actor.role is Role.PLATFORM_ADMIN:
        duration_ms = round((time.monotonic() - clock) * 1000)
        try:
            with workspace.write() as tx:
                _record(tx, started, duration_ms, findings)
        except (Unavailable, Forbidden):
            pass  # a copy of the store that cannot be written is checked all the same, and a workspace that only reads
    return findings


def _record(tx: Transaction, started: datetime, duration_ms: int, findings: list[Finding]) -> None:
    record = Reconciliation(
        id=new_id("run"),
        started_at=started,
        actor=tx.actor.name,
        duration_ms=duration_ms,
        rows=next(finding.checked for finding in findings if finding.title == _ONCE),
        clean=not any(finding.violations for finding in findings),
        findings=json.dumps([asdict(finding) for finding in findings], ensure_ascii=False),
    )
    tx.session.add(record)
    tx.session.flush()
    newest = select(Reconciliation.id).order_by(Reconciliation.started_at.desc(), Reconciliation.id).limit(RUNS_KEPT)
    kept = list(tx.session.scalars(newest))
    tx.session.execute(delete(Reconciliation).where(Reconciliation.id.not_in(kept)))


def last_run(tx: Transaction) -> Run | None:
    """Return the newest run on record; None if there is none.

    An actor of one organisation learns when it was and whether all was well, and nothing of what others' books hold.
    """
    record = tx.session.scalar(select(Reconciliation).order_by(Reconciliation.started_at.desc()).limit(1))
    if record is None:
        return None
    if tx.actor.org_id is not None:
        return Run(record.started_at, "", 0, 0, record.clean, [])
    findings = [Finding(**finding) for finding in json.loads(record.findings)]
    return Run(record.started_at, record.actor, record.duration_ms, record.rows, record.clean, findings)


@dataclass(frozen=True, slots=True)
class _Check:
    """A check as SQL: `checked` counts what is looked at, `wrong` selects what disagrees, for `say` to put in words."""

    invariant: str
    title: str
    checked: str
    wrong: str
    say: Callable[..., str]


def _money(nano: int | None) -> str:
    return f"{usd(nano or 0)} USD"


_SOUND = "The key store's own check of its pages finds nothing"
_ONCE = "Each request id occurs once, and no call that ended still holds money"

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
        SELECT coalesce(o.name, u.org_id), coalesce(o.settled, 0), coalesce(u.cost, 0) FROM orgs o
        FULL JOIN (SELECT org_id, sum(cost)::BIGINT AS cost FROM usage GROUP BY ALL) u ON u.org_id = o.id
        WHERE coalesce(o.settled, 0) <> coalesce(u.cost, 0)
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
        "What corrections add to a key's month is what they take from its wallet",
        "SELECT count(*) FROM key_months",
        """
        SELECT coalesce(k.name, e.key_id, m.key_id), coalesce(e.month, m.month),
               coalesce(m.corrected, 0), coalesce(e.amount, 0)
        FROM key_months m
        FULL JOIN (SELECT key_id, month, -sum(amount)::BIGINT AS amount FROM wallet_entries
                   WHERE request_id IS NOT NULL GROUP BY ALL) e ON e.key_id = m.key_id AND e.month = m.month
        LEFT JOIN keys k ON k.id = coalesce(e.key_id, m.key_id)
        WHERE coalesce(m.corrected, 0) <> coalesce(e.amount, 0)
        """,
        lambda name, month, kept, summed: (
            f"Key {name} in {month}: totals are corrected by {_money(kept)}, the wallet's corrections sum to "
            f"{_money(summed)}."
        ),
    ),
    _Check(
        "I3",
        "Each correction is of a call of its key that ended, and leaves a charge of zero or more",
        "SELECT count(*) FROM wallet_entries WHERE request_id IS NOT NULL",
        """
        SELECT e.request_id, count(u.request_id) > 0 AS known, coalesce(max(u.cost), 0) - max(e.amount) AS charge
        FROM (SELECT request_id, org_id, key_id, call_month, min(month) AS month, sum(amount)::BIGINT AS amount
              FROM wallet_entries WHERE request_id IS NOT NULL GROUP BY ALL) e
        LEFT JOIN usage u ON u.request_id = e.request_id AND u.org_id = e.org_id AND u.key_id = e.key_id
                         AND u.month = e.call_month AND e.call_month <= e.month AND u.outcome <> 'refused'
        GROUP BY e.request_id HAVING NOT known OR charge < 0
        """,
        lambda request_id, known, charge: (
            f"{request_id} was corrected to {_money(charge)}."
            if known
            else f"{request_id} was corrected, but is no call of that key and organisation that ended by that month."
        ),
    ),
    _Check(
        "I4",
        "Each key's monthly totals are the sums of its calls",
        "SELECT count(*) FROM key_months",
        """
        SELECT coalesce(k.name, u.key_id, m.key_id), coalesce(u.month, m.month),
               coalesce(u.calls, 0), coalesce(m.calls, 0), coalesce(u.cost, 0), coalesce(m.spent, 0)
        FROM (SELECT key_id, month, count(*)::BIGINT AS calls, sum(cost)::BIGINT AS cost FROM usage
              WHERE outcome <> 'refused' GROUP BY ALL) u
        FULL JOIN key_months m ON m.key_id = u.key_id AND m.month = u.month
        LEFT JOIN keys k ON k.id = coalesce(u.key_id, m.key_id)
        WHERE coalesce(u.calls, 0) <> coalesce(m.calls, 0) OR coalesce(u.cost, 0) <> coalesce(m.spent, 0)
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
        SELECT k.name, coalesce(m.month, h.month), coalesce(m.held, 0), coalesce(h.amount, 0) FROM key_months m
        FULL JOIN (SELECT key_id, month, sum(limit_amount)::BIGINT AS amount FROM holds GROUP BY ALL) h
          ON h.key_id = m.key_id AND h.month = m.month
        LEFT JOIN keys k ON k.id = coalesce(m.key_id, h.key_id)
        WHERE coalesce(m.held, 0) <> coalesce(h.amount, 0)
        """,
        lambda name, month, kept, summed: (
            f"Key {name} in {month}: totals hold {_money(kept)}, open holds sum to {_money(summed)}."
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

_Result = tuple[int, list[str]]


def _steps(workspace: Workspace) -> list[tuple[str, str, Callable[[], _Result]]]:
    """Return each check: its invariant, its title, and what does it."""
    steps: list[tuple[str, str, Callable[[], _Result]]] = [
        (
            "I2",
            "No strict key was let beyond its limit, but for recorded overruns",
            partial(_beyond, workspace, limits_history.KEYS),
        ),
        (
            "I3",
            "No wallet was let below zero, but for overruns and adjustments",
            partial(_beyond, workspace, limits_history.WALLETS),
        ),
        *(
            (check.invariant, check.title, partial(_ask, workspace, check.checked, check.wrong, check.say))
            for check in _CHECKS
        ),
        ("I4", _ONCE, partial(_once, workspace)),
        ("I5", "No hold outlives its gateway", partial(_orphans, workspace)),
        ("I6", "The audit log's chains are whole", partial(_chains, workspace)),
        ("I6", "Limits and wallet entries are those that the audit log tells", partial(_untold, workspace)),
    ]
    if workspace.actor.org_id is None:
        steps.insert(0, ("I4", _SOUND, partial(_sound, workspace)))
        steps.insert(-3, ("I4", "Each ledger segment is the file that was written", partial(_files, workspace)))
    return steps


def _ask(
    workspace: Workspace, checked: str, wrong: str, say: Callable[..., str], params: dict[str, Any] | None = None
) -> _Result:
    import duckdb

    query = f"""
        WITH wrong AS MATERIALIZED ({wrong})
        SELECT ({checked}) AS checked, (SELECT count(*) FROM wrong) AS found,
               (SELECT list(w) FROM (FROM wrong LIMIT {MOST_SHOWN}) w) AS shown
    """
    try:
        (row,) = workspace.ledger.sql(query, params).to_pylist()
    except (duckdb.Error, Unavailable) as error:
        return 0, [f"Not checked, for the ledger cannot be read: {str(error).partition(chr(10))[0]}"]
    shown = [say(*fields.values()) for fields in row["shown"] or []]
    return row["checked"], _cut(shown, row["found"])


def _cut(violations: list[str], found: int | None = None) -> list[str]:
    """Return the first violations and how many more there are."""
    more = (len(violations) if found is None else found) - MOST_SHOWN
    return [*violations[:MOST_SHOWN], f"and {more:,} more"] if more > 0 else violations


def _beyond(workspace: Workspace, capped: Caps) -> _Result:
    with workspace.read() as tx:
        query, params = limits_history.beyond(tx, capped)
    return _ask(workspace, "SELECT len($owner)", query, capped.say, params)


def _once(workspace: Workspace) -> _Result:
    with workspace.read() as tx:
        # Sorted here: PostgreSQL may sort text as a language does, DuckDB compares bytes.
        listed = sorted(tx.session.execute(select(Segment.first_request_id, Segment.rows)).all())
    cuts, rows = [""], 0
    for first_id, of_segment in listed:
        if rows + of_segment > IDS_AT_ONCE and rows:
            cuts.append(first_id)
            rows = 0
        rows += of_segment
    checked, violations = 0, list[str]()
    for start, end in zip(cuts, [*cuts[1:], None], strict=True):
        within = "request_id >= $start" + ("" if end is None else " AND request_id < $end")
        of_range, wrong = _ask(
            workspace,
            f"SELECT count(*) FROM usage WHERE {within}",
            f"""
            SELECT request_id, count(*) AS times FROM usage WHERE {within} GROUP BY request_id HAVING count(*) > 1
            UNION ALL
            SELECT request_id, 0 FROM holds
            WHERE {within} AND request_id IN (SELECT request_id FROM usage WHERE {within})
            """,
            lambda request_id, times: (
                f"{request_id} {f'occurs {times} times' if times else 'ended, but still holds money'}."
            ),
            {"start": start} | ({} if end is None else {"end": end}),
        )
        checked += of_range
        violations += wrong
    return checked, _cut(violations)


def _sound(workspace: Workspace) -> _Result:
    """Ask the database whether it is whole: what it reads from an overwritten page may look like any other row."""
    repair = "Stop Keydesk and restore the key store from a backup."
    try:
        with workspace.read() as tx:
            if workspace.store.is_postgres:  # which notes what a page's checksum has shown to whoever read it
                query = "SELECT coalesce(checksum_failures, 0) FROM pg_stat_database WHERE datname = current_database()"
                failures = tx.session.scalars(text(query)).one()
                return 1, [f"{failures:,} pages did not match their checksums. {repair}"] if failures else []
            pages = tx.session.scalars(text("PRAGMA page_count")).one()
            told = tx.session.scalars(text(f"PRAGMA integrity_check({MOST_SHOWN})")).all()
    except Unavailable as error:
        return 0, [str(error)]  # with its own cure
    return pages, [] if told == ["ok"] else [f"{line}. {repair}" for line in told]


def _files(workspace: Workspace) -> _Result:
    with workspace.read() as tx:
        listed = tx.session.scalars(select(Segment).order_by(Segment.path)).all()
    violations = []
    for segment in listed:
        try:
            segments.read(workspace.ledger.root, segment)
        except Unavailable as damage:
            violations.append(str(damage))
    return len(listed), _cut(violations)


def _orphans(workspace: Workspace) -> _Result:
    with workspace.read() as tx:
        found = holds.open_holds(tx)
    return len(found), _cut(
        [
            f"Hold of {_money(hold.amount)} for {hold.request_id} by key {hold.key}: its gateway {hold.instance_id} "
            "has ended, and no other one has released it. A running gateway does so within seconds."
            for hold in found
            if hold.overdue
        ]
    )


def _chains(workspace: Workspace) -> _Result:
    with workspace.read() as tx:
        query = select(func.count()).select_from(AuditRow)
        if tx.actor.org_id is not None:
            query = query.where(AuditRow.chain == tx.actor.org_id)
        acts = tx.session.scalar(query) or 0
        broken = [f"Chain {link.chain}, row {link.seq}: {link.problem}." for link in audit.verify(tx)]
    return acts, _cut(broken)


def _untold(workspace: Workspace) -> _Result:
    with workspace.read() as tx:
        looked, wrong = limits_history.untold(tx)
    return looked, _cut(wrong)
