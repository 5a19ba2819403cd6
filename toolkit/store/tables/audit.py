"""The audit log's chains, and runs of `reconcile`."""

from datetime import datetime

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from toolkit.store.tables.base import Base


class AuditRow(Base):
    """One act of an operator, chained by hash to the one before it in its chain."""

    __tablename__ = "audit"
    __table_args__ = (Index("audit_subject", "subject"),)

    chain: Mapped[str] = mapped_column(primary_key=True)  # an organisation's id, or "platform"
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    before: Mapped[str | None]  # JSON
    after: Mapped[str | None]  # JSON
    reason: Mapped[str]
    previous_hash: Mapped[str]
    hash: Mapped[str]


class AuditHead(Base):
    """The last row of each chain; locked while a row is appended."""

    __tablename__ = "audit_head"

    chain: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int]
    hash: Mapped[str]


class Reconciliation(Base):
    """A run of `reconcile`: when, by whom, how long it took and what it found. Only the newest are kept."""

    __tablename__ = "reconciliation"

    id: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[datetime]
    actor: Mapped[str]
    duration_ms: Mapped[int]
    rows: Mapped[int]  # of the request log
    clean: Mapped[bool]
    findings: Mapped[str]  # JSON list of reconcile_runs.CheckResult
