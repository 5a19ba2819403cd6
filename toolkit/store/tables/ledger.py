"""The list of the ledger's files."""

from datetime import datetime

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from toolkit.store.tables.base import Base


class Segment(Base):
    """One immutable Parquet file of the ledger. The list of segments is the ledger."""

    __tablename__ = "segment"
    __table_args__ = (Index("segment_day", "day"),)

    path: Mapped[str] = mapped_column(primary_key=True)  # below the ledger root
    day: Mapped[str]  # UTC day of admission
    rows: Mapped[int]
    size: Mapped[int]  # bytes
    sha256: Mapped[str]
    schema_version: Mapped[int]
    first_admitted_at: Mapped[datetime]
    last_admitted_at: Mapped[datetime]
    first_request_id: Mapped[str]
    last_request_id: Mapped[str]
    created_at: Mapped[datetime]


class SupersededSegment(Base):
    """A file that compaction replaced; it stays until no query can still be reading it."""

    __tablename__ = "superseded_segment"

    path: Mapped[str] = mapped_column(primary_key=True)
    superseded_at: Mapped[datetime]
