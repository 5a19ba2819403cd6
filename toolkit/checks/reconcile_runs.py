"""What a reconciliation found, and the record of the last runs in the key store."""

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime

from sqlalchemy import delete, select

from toolkit.core.ids import new_id
from toolkit.store.tables import Reconciliation
from toolkit.store.transaction import Transaction

RUNS_KEPT = 100
"""Runs that stay on record; older ones are dropped."""


@dataclass(frozen=True, slots=True)
class CheckResult:
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
        results: one for each check.
    """

    started_at: datetime
    actor: str
    duration_ms: int
    rows: int
    clean: bool
    results: list[CheckResult]


def record(tx: Transaction, started: datetime, duration_ms: int, rows: int, results: list[CheckResult]) -> None:
    """Put a run on record; the arguments are as in `Run`, whose actor is the transaction's."""
    record = Reconciliation(
        id=new_id("run"),
        started_at=started,
        actor=tx.actor.name,
        duration_ms=duration_ms,
        rows=rows,
        clean=not any(result.violations for result in results),
        findings=json.dumps([asdict(result) for result in results], ensure_ascii=False),
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
    results = [CheckResult(**result) for result in json.loads(record.findings)]
    return Run(record.started_at, record.actor, record.duration_ms, record.rows, record.clean, results)
