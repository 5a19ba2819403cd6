"""The key store's tables: columns and named constraints, no behaviour.

Moments are BIGINT microseconds UTC (`Moment` turns them into datetimes); money is BIGINT nano-USD. A change here
needs a step in `migrations.py`; a test compares the two.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Index,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from toolkit.core.moments import micros, moment


class Moment(TypeDecorator[datetime]):
    """A UTC datetime kept as an integer of microseconds: exact, ordered, and alike on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return None if value is None else micros(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else moment(value)


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {str: Text, int: BigInteger, bool: Boolean, datetime: Moment}  # noqa: RUF012 - SQLAlchemy's own form


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

    @property
    def balance(self) -> int:
        """Credits + adjustments − settlements, in nano-USD."""
        return self.credited - self.settled

    @property
    def available(self) -> int:
        """Balance − open holds, in nano-USD: what a new call may hold."""
        return self.balance - self.held


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
    reference_key: Mapped[str | None]  # see `reference`; NULL for adjustments, and for credits that repeat another's
    same_reference: Mapped[bool] = mapped_column(default=False)  # repeated on purpose


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


class OrgPerson(Base):
    """A name that its people may read: of who is or was an operator of one organisation, or acted with its rights.

    They read "platform" for everybody else's. It stays when the operator is removed or moves on.
    """

    __tablename__ = "org_person"

    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)


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


class Upstream(Base):
    """A provider endpoint. The credential is a reference into the environment or the secrets file."""

    __tablename__ = "upstream"

    name: Mapped[str] = mapped_column(primary_key=True)
    dialect: Mapped[str]
    base_url: Mapped[str]
    credential_env: Mapped[str]
    unknown_fields: Mapped[str]  # dialects.fields.UnknownFields
    created_at: Mapped[datetime]
    created_by: Mapped[str]


class Model(Base):
    """A public model id, where it is served, and its token limits."""

    __tablename__ = "model"

    id: Mapped[str] = mapped_column(primary_key=True)
    upstream: Mapped[str] = mapped_column(ForeignKey("upstream.name"))
    upstream_model: Mapped[str]
    context_window: Mapped[int]
    default_output: Mapped[int]
    max_output: Mapped[int]
    created_at: Mapped[datetime]
    created_by: Mapped[str]


class Price(Base):
    """One dated entry of the price book: never edited, superseded by a later one."""

    __tablename__ = "price"
    __table_args__ = (Index("price_model_valid_from", "model_id", "valid_from", "recorded_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("model.id"))
    valid_from: Mapped[datetime]
    recorded_at: Mapped[datetime]
    recorded_by: Mapped[str]
    source: Mapped[str]
    sheet: Mapped[str]  # JSON of pricing.PriceSheet


class Plan(Base):
    """What a key is bound to: the models it may call and the price multiplier, in millionths."""

    __tablename__ = "plan"
    __table_args__ = (UniqueConstraint("name", name="plan_name_unique"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    multiplier: Mapped[int]
    unknown_fields: Mapped[str]  # dialects.fields.UnknownFields; the stricter of plan and upstream wins
    created_at: Mapped[datetime]
    created_by: Mapped[str]


class PlanModel(Base):
    """A model that a plan includes."""

    __tablename__ = "plan_model"

    plan_id: Mapped[str] = mapped_column(ForeignKey("plan.id"), primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("model.id"), primary_key=True)


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


class GatewayInstance(Base):
    """One gateway process. Holds belong to it; when its lease has run out they are swept."""

    __tablename__ = "gateway_instance"

    id: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[datetime]
    lease_until: Mapped[datetime]


class Hold(Base):
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
    tags: Mapped[str | None]  # JSON object of what the caller said the call is for, see `tags`
    usage_doubt: Mapped[str | None]  # why the token counts may be wrong; NULL = no doubt
    overrun_reason: Mapped[str | None]  # usage.OverrunReason
    provider_usage: Mapped[str | None]  # JSON of what the provider reported, at most 4 kB; only beside a doubt
    seen_bytes: Mapped[int | None]  # of an abandoned call: what its gateway had last noted of the answer's body


class RefusalCount(Base):
    """Refusals of a key for one reason in one minute; only the first 60 are rows of the request log."""

    __tablename__ = "refusal_count"

    key_id: Mapped[str] = mapped_column(primary_key=True)
    refusal: Mapped[str] = mapped_column(primary_key=True)
    minute: Mapped[int] = mapped_column(primary_key=True)  # minutes since 1970
    refused: Mapped[int]


class UnknownField(Base):
    """A field, beta or header that Keydesk does not know: how often calls of a plan to an upstream have had it."""

    __tablename__ = "unknown_field"

    upstream: Mapped[str] = mapped_column(primary_key=True)
    plan_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)  # its path; "(other)" for those beyond a number
    seen: Mapped[int]
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]


class RefusalDay(Base):
    """Refusals of a key for one reason on one UTC day: what becomes of its minutes' counts (`refusal_counts.fold`)."""

    __tablename__ = "refusal_day"

    key_id: Mapped[str] = mapped_column(primary_key=True)
    refusal: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[int] = mapped_column(primary_key=True)  # days since 1970
    refused: Mapped[int]
    last_minute: Mapped[int]  # minutes since 1970: the last that had one


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
    findings: Mapped[str]  # JSON list of reconcile.Finding


class Statement(Base):
    """A closed billing month of one organisation. Neither its row nor its figures are ever changed."""

    __tablename__ = "statement"
    __table_args__ = (UniqueConstraint("org_id", "month", name="statement_month_unique"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"))
    month: Mapped[str]
    figures: Mapped[str]  # canonical JSON, see `statements`
    sha256: Mapped[str]  # of the figures; the audit log's row has it too
    audit_seq: Mapped[int]  # of that row, in the organisation's chain
    closed_at: Mapped[datetime]
    closed_by: Mapped[str]


class CatalogVersion(Base):
    """One row, raised by every change to upstreams, models, prices or plans: tells gateways to read them anew."""

    __tablename__ = "catalog_version"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int]
