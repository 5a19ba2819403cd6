"""API keys, the digests of their secrets, and what each has spent."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from toolkit.store.tables.base import Base


class ApiKey(Base):
    """An API key. A deleted one stays as a tombstone so that logs, charts and the ledger still name it."""

    __tablename__ = "api_key"
    __table_args__ = (
        Index(
            "api_key_live_name_unique",
            "org_id",
            "name",
            unique=True,
            sqlite_where=text("status <> 'deleted'"),
            postgresql_where=text("status <> 'deleted'"),
        ),
        CheckConstraint("monthly_limit >= 0", name="api_key_monthly_limit"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"))
    name: Mapped[str]
    status: Mapped[str]
    plan_id: Mapped[str] = mapped_column(ForeignKey("plan.id"))
    scope: Mapped[str]  # JSON list of model ids; [] = every model of the plan
    monthly_limit: Mapped[int | None]
    hold_policy: Mapped[str]
    expires_at: Mapped[datetime | None]
    display: Mapped[str]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    rotated_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    version: Mapped[int]
    hosted_tools: Mapped[str]  # hosted_tools.HostedTools; the stricter of key and plan wins
    owner: Mapped[str] = mapped_column(default="")  # this and what follows is for people: no call is judged by it
    environment: Mapped[str] = mapped_column(default="")
    note: Mapped[str] = mapped_column(default="")
    labels: Mapped[str] = mapped_column(default="[]")  # JSON list


class LiveSecret(Base):
    """The digest that admits; and when its secret was seen in a URL.

    An active or disabled key has one, unless the pepper it was made under was retired: then it waits to be rotated.
    """

    __tablename__ = "live_secret"
    __table_args__ = (UniqueConstraint("key_id", name="live_secret_key_unique"),)

    digest: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_key.id"))
    pepper_id: Mapped[str]
    created_at: Mapped[datetime]
    first_in_url_at: Mapped[datetime | None]
    last_in_url_at: Mapped[datetime | None]  # to the hour: see `gateway.key_cache`


class RetiredSecret(Base):
    """The digest of a rotated or deleted secret: admits nothing, tells operators who still uses it."""

    __tablename__ = "retired_secret"
    __table_args__ = (Index("retired_secret_key", "key_id"),)

    digest: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_key.id"))
    display: Mapped[str]
    retired_at: Mapped[datetime]
    uses: Mapped[int] = mapped_column(default=0)
    last_used_at: Mapped[datetime | None]


class KeyMonth(Base):
    """Running totals of one key in one billing month, updated by each admission and settlement."""

    __tablename__ = "key_month"

    key_id: Mapped[str] = mapped_column(ForeignKey("api_key.id"), primary_key=True)
    month: Mapped[str] = mapped_column(primary_key=True)
    calls: Mapped[int]  # admitted calls that ended
    spent: Mapped[int]
    held: Mapped[int]  # against the monthly limit; under policy `expected` less than what the wallet holds
    last_call_at: Mapped[datetime]
    corrected: Mapped[int] = mapped_column(default=0)  # what corrections added to `spent`, or took from it


class RecentCost(Base):
    """What a call of this key to this model lately cost (moving average): the hold of policy `expected`."""

    __tablename__ = "recent_cost"

    key_id: Mapped[str] = mapped_column(ForeignKey("api_key.id"), primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    cost: Mapped[int]
