"""Organisations: their wallet's running totals, and whose names their people may read."""

from datetime import datetime

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from toolkit.store.tables.base import Base


class Organisation(Base):
    """A customer: owns keys and one wallet. The wallet's running totals stand in its row."""

    __tablename__ = "organisation"
    __table_args__ = (UniqueConstraint("name", name="organisation_name_unique"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    suspended: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    credited: Mapped[int] = mapped_column(default=0)  # credits + adjustments
    settled: Mapped[int] = mapped_column(default=0)  # all settlements ever
    held: Mapped[int] = mapped_column(default=0)  # open holds
    low_balance: Mapped[int | None]  # a balance below it is alerted; NULL = none is

    @property
    def balance(self) -> int:
        """Credits + adjustments − settlements, in nano-USD."""
        return self.credited - self.settled

    @property
    def available(self) -> int:
        """Balance − open holds, in nano-USD: what a new call may hold."""
        return self.balance - self.held


class OrgPerson(Base):
    """A name that its people may read: of who is or was an operator of one organisation, or acted with its rights.

    They read "platform" for everybody else's. It stays when the operator is removed or moves on.
    """

    __tablename__ = "org_person"

    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
