"""People who sign in, their sessions, and the throttle's memory."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from toolkit.store.tables.base import Base


class Operator(Base):
    """A person who signs in, unless disabled. Who is removed has no row: the audit log goes on to name them."""

    __tablename__ = "operator"
    __table_args__ = (UniqueConstraint("email", name="operator_email_unique"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str]
    role: Mapped[str]
    org_id: Mapped[str | None] = mapped_column(ForeignKey("organisation.id"))
    password_hash: Mapped[str]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    last_sign_in_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]


class SignInSession(Base):
    """A signed-in browser: a digest of what its cookie carries, and the network that it came from."""

    __tablename__ = "sign_in_session"

    digest: Mapped[str] = mapped_column(primary_key=True)
    operator_id: Mapped[str] = mapped_column(ForeignKey("operator.id"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    address: Mapped[str | None]


class SignInFailure(Base):
    """A failed sign-in, kept for the throttle. `subject` is a digest of the e-mail, an address, or the two together."""

    __tablename__ = "sign_in_failure"
    __table_args__ = (Index("sign_in_failure_subject", "subject", "failed_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str]
    failed_at: Mapped[datetime]


class Invitation(Base):
    """A one-time link by which a person sets a password: open until used, withdrawn or replaced, or too old."""

    __tablename__ = "invitation"
    __table_args__ = (
        UniqueConstraint("digest", name="invitation_digest_unique"),
        Index("invitation_email", "email"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]  # of the token that the link carries
    email: Mapped[str]
    role: Mapped[str]
    org_id: Mapped[str | None] = mapped_column(ForeignKey("organisation.id"))
    operator_id: Mapped[str | None]  # who gets a new password; NULL = a new operator
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
