"""Calls under way and calls that ended, until the ledger has taken them over; refusals and unknown fields, counted."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from toolkit.store.tables.base import Base


class GatewayInstance(Base):
    """One gateway process. Holds belong to it; when its lease has run out they are swept."""

    __tablename__ = "gateway_instance"

    id: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[datetime]
    lease_until: Mapped[datetime]
    version: Mapped[str | None]  # of Keydesk; NULL before it was noted
    report: Mapped[str | None]  # JSON of core.gateway_report.GatewayReport, as of its last heartbeat


class HoldRow(Base):
    """Money set aside for a call under way, with all that is needed to write its row if its owner dies."""

    __tablename__ = "hold"
    request_id: Mapped[str] = mapped_column(primary_key=True)
    instance_id: Mapped[str]
    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"))
    key_id: Mapped[str] = mapped_column(ForeignKey("api_key.id"))
    plan_id: Mapped[str]
    month: Mapped[str]
    admitted_at: Mapped[datetime]
    amount: Mapped[int]  # against the wallet
    limit_amount: Mapped[int]  # against the monthly limit
    dialect: Mapped[str]
    endpoint: Mapped[str]
    stream: Mapped[bool]
    model: Mapped[str]
    upstream: Mapped[str]
    price_id: Mapped[str]
    multiplier: Mapped[int]
    # How far a call had come at the last heartbeat of its gateway; NULL until then.
    response_id: Mapped[str | None]
    seen_bytes: Mapped[int | None]  # of the answer's body; 0 = forwarded, nothing has come
    credential: Mapped[str | None]  # the name of ours that the upstream is shown


class OutboxRow(Base):
    """A request-log row that the ledger has not taken over yet. The ledger's segments have these very columns."""

    __tablename__ = "outbox"
    request_id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str]
    key_id: Mapped[str]
    plan_id: Mapped[str]
    admitted_at: Mapped[datetime]
    settled_at: Mapped[datetime]
    outcome: Mapped[str]
    refusal: Mapped[str | None]  # errors.RefusalType, for refused calls and upstream errors
    status: Mapped[int]  # HTTP status that the caller got
    dialect: Mapped[str]
    endpoint: Mapped[str]
    stream: Mapped[bool]
    model: Mapped[str | None]
    upstream: Mapped[str | None]
    response_id: Mapped[str | None]  # the provider's own
    usage_source: Mapped[str | None]
    input_tokens: Mapped[int]
    cached_input_tokens: Mapped[int]
    cache_write_5m_tokens: Mapped[int]
    cache_write_1h_tokens: Mapped[int]
    output_tokens: Mapped[int]
    reasoning_tokens: Mapped[int]
    price_id: Mapped[str | None]
    multiplier: Mapped[int]  # millionths
    input_price: Mapped[int]  # prices applied, nano-USD per million tokens
    cached_input_price: Mapped[int]
    cache_write_5m_price: Mapped[int]
    cache_write_1h_price: Mapped[int]
    output_price: Mapped[int]
    request_price: Mapped[int]  # nano-USD a request
    cost: Mapped[int]
    held: Mapped[int]  # the hold, against the wallet
    overrun: Mapped[int]  # cost beyond the hold
    first_byte_ms: Mapped[int | None]
    duration_ms: Mapped[int | None]
    error: Mapped[str | None]  # detail for operators, never a secret
    tags: Mapped[str | None]  # JSON object of what the caller said the call is for, see `core.tags`
    usage_doubt: Mapped[str | None]  # why the token counts may be wrong; NULL = no doubt
    overrun_reason: Mapped[str | None]  # usage.OverrunReason
    provider_usage: Mapped[str | None]  # JSON of what the provider reported, at most 4 kB; only beside a doubt
    seen_bytes: Mapped[int | None]  # of an abandoned call: what its gateway had last noted of the answer's body
    resent: Mapped[bool | None]  # whether the upstream was sent it twice: a kept connection was closed meanwhile
    service_tier: Mapped[str | None]  # that served, as the provider says it, in lower case; NULL = it does not say
    inference_geo: Mapped[str | None]  # the region that served, likewise
    credential: Mapped[str | None]  # the name of ours for the upstream; NULL where none was chosen, or nobody knows


class RefusalCount(Base):
    """Refusals of a key for one reason in one minute; only the first 60 are rows of the request log."""

    __tablename__ = "refusal_count"

    key_id: Mapped[str] = mapped_column(primary_key=True)
    refusal: Mapped[str] = mapped_column(primary_key=True)
    minute: Mapped[int] = mapped_column(primary_key=True)  # minutes since 1970
    refused: Mapped[int]


class RefusalDay(Base):
    """Refusals of a key for one reason on one UTC day: what becomes of its minutes' counts (`refusal_counts.fold`)."""

    __tablename__ = "refusal_day"

    key_id: Mapped[str] = mapped_column(primary_key=True)
    refusal: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[int] = mapped_column(primary_key=True)  # days since 1970
    refused: Mapped[int]
    last_minute: Mapped[int]  # minutes since 1970: the last that had one


class UnknownField(Base):
    """A field, beta or header that Keydesk does not know: how often calls of a plan to an upstream have had it."""

    __tablename__ = "unknown_field"

    upstream: Mapped[str] = mapped_column(primary_key=True)
    plan_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)  # its path; "(other)" for those beyond a number
    seen: Mapped[int]
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
