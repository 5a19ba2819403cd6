"""Money into wallets and corrections of it, and closed months."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from toolkit.store.tables.base import Base


class WalletEntry(Base):
    """Money in (credit) or a correction (adjustment).

    A reference is used once for each kind and organisation, and for a credit once in the whole store. An adjustment
    that corrects the charge of a call names the call, its key and its month.
    """

    __tablename__ = "wallet_entry"
    __table_args__ = (
        UniqueConstraint("org_id", "kind", "reference", name="wallet_entry_reference_unique"),
        Index("wallet_entry_credited_once", "reference_key", unique=True),
        CheckConstraint("kind IN ('credit', 'adjustment')", name="wallet_entry_kind"),
        Index("wallet_entry_request", "request_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"))
    kind: Mapped[str]
    amount: Mapped[int]
    reference: Mapped[str]
    reason: Mapped[str]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    request_id: Mapped[str | None]
    key_id: Mapped[str | None]
    call_month: Mapped[str | None]  # the call's own
    month: Mapped[str | None]  # the month that it counts for: another one if the call's was closed
    # See `core.payment_reference`; NULL for adjustments, and for credits that repeat another's.
    reference_key: Mapped[str | None]
    same_reference: Mapped[bool] = mapped_column(default=False)  # repeated on purpose


class Statement(Base):
    """A closed billing month of one organisation. Neither its row nor its figures are ever changed."""

    __tablename__ = "statement"
    __table_args__ = (UniqueConstraint("org_id", "month", name="statement_month_unique"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"))
    month: Mapped[str]
    figures: Mapped[str]  # canonical JSON, see `statements.figures`
    sha256: Mapped[str]  # of the figures; the audit log's row has it too
    audit_seq: Mapped[int]  # of that row, in the organisation's chain
    closed_at: Mapped[datetime]
    closed_by: Mapped[str]
