"""Tests of upstreams: asked for by operators, made by a gateway."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from toolkit.store.tables.base import Base


class UpstreamTest(Base):
    """A test of an upstream that somebody asked for, and what became of it."""

    __tablename__ = "upstream_test"

    id: Mapped[str] = mapped_column(primary_key=True)
    upstream: Mapped[str]
    model: Mapped[str | None]  # that is to be called: a public id, or the upstream's name of it; None leaves it open
    asked_at: Mapped[datetime]
    asked_by: Mapped[str]
    tries: Mapped[int]  # gateways that have taken it
    taken_by: Mapped[str | None]  # the last of them, a gateway_instance
    ended_at: Mapped[datetime | None]
    found: Mapped[str | None]  # JSON of core.upstream_test.Found
    failure: Mapped[str | None]  # why nothing was found, in words
