"""Alerts: where they go, what has been told already, and what waits to be sent."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from toolkit.store.tables.base import Base


class AlertDestination(Base):
    """Where alerts are sent. What signs them is derived from the pepper and the id, and stands nowhere."""

    __tablename__ = "alert_destination"

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str | None] = mapped_column(ForeignKey("organisation.id"))  # whose alerts; NULL = everybody's
    name: Mapped[str]
    url: Mapped[str]
    any_address: Mapped[bool]  # the platform named it: it may lie in a private network
    created_at: Mapped[datetime]
    created_by: Mapped[str]


class AlertMailbox(Base):
    """How a destination's alerts are mailed; its URL is `mailto:` with the recipients."""

    __tablename__ = "alert_mailbox"

    destination_id: Mapped[str] = mapped_column(ForeignKey("alert_destination.id"), primary_key=True)
    host: Mapped[str]  # of the mail server
    port: Mapped[int]
    security: Mapped[str]  # alerts.mail.Security
    login: Mapped[str | None]  # NULL = the server wants none
    password_name: Mapped[str | None]  # of a line in the file that KEYDESK_ALERTS_SECRETS_FILE names
    sender: Mapped[str]
    recipients: Mapped[str]  # with commas between


class Alert(Base):
    """Something that was noticed."""

    __tablename__ = "alert"
    __table_args__ = (Index("alert_fired", "fired_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str | None] = mapped_column(ForeignKey("organisation.id"))  # NULL = the platform's
    kind: Mapped[str]
    subject: Mapped[str]  # id of what it is about
    fired_at: Mapped[datetime]
    body: Mapped[str]  # JSON, as it is sent


class AlertDelivery(Base):
    """An alert on its way to one destination: open until it was taken or given up."""

    __tablename__ = "alert_delivery"
    __table_args__ = (
        Index(
            "alert_delivery_open",
            "destination_id",
            "due_at",
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )

    alert_id: Mapped[str] = mapped_column(ForeignKey("alert.id"), primary_key=True)
    destination_id: Mapped[str] = mapped_column(ForeignKey("alert_destination.id"), primary_key=True)
    queued_at: Mapped[datetime]
    due_at: Mapped[datetime]  # of the next try
    tries: Mapped[int]
    ended_at: Mapped[datetime | None]
    failure: Mapped[str | None]  # of the last try, in words; NULL once it was taken


class AlertState(Base):
    """The last thing told of a subject: it is told again when its period or what it is measured by has changed."""

    __tablename__ = "alert_state"

    kind: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    period: Mapped[str]  # the month of a limit; else empty
    basis: Mapped[int]  # what it is measured by: nano-USD of a limit, microseconds of a moment
    reached: Mapped[int]  # the highest threshold told: percent of a limit, else 1


class AlertRunner(Base):
    """One row: the process that looks for alerts and sends them, for as long as it renews its lease."""

    __tablename__ = "alert_runner"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    holder: Mapped[str]
    lease_until: Mapped[datetime]
