"""Upstreams, models, the price book and plans: what gateways keep in memory."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from toolkit.store.tables.base import Base


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
    on_leave: Mapped[str]  # core.upstream_traits.OnLeave
    refusal_free: Mapped[bool]  # whether a refusal before any output is not billed
    pin_tier: Mapped[bool]  # whether a request that names no service tier asks for the priced one
    reckon_rate: Mapped[int]  # tokens a second that a model is taken to make unseen
    preset: Mapped[str | None]  # name of a row of providers.presets that the upstream was made by
    credential_header: Mapped[str]  # core.upstream_traits.CredentialHeader
    api_version: Mapped[str]  # of Azure's deployments; empty elsewhere
    output_bound: Mapped[str]  # core.upstream_traits.OutputBound
    add_stream_options: Mapped[bool]  # whether a stream's usage is asked for where its caller did not
    add_store: Mapped[bool]  # whether store: false is said of a response where its caller said nothing
    billed_errors: Mapped[str]  # types, codes and statuses of errors that are billed, with commas
    add_include: Mapped[bool]  # whether a response that is not stored is asked for its reasoning in encrypted form
    max_connections: Mapped[int]  # calls of one gateway process that may be under way there at once; 0 is any number
    org_id: Mapped[str | None] = mapped_column(ForeignKey("organisation.id"))  # whose account it is; NULL = everybody's


class RefusedField(Base):
    """A field that gateways add to requests, and how often a model of an upstream has refused it."""

    __tablename__ = "refused_field"

    upstream: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)  # the upstream's name of it
    name: Mapped[str] = mapped_column(primary_key=True)  # of the field, at the top of the request
    seen: Mapped[int]
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]


class SmallerLimit(Base):
    """A limit of a model that its upstream has smaller than it is set here, as it said of a bound that we had added."""

    __tablename__ = "smaller_limit"

    upstream: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)  # the upstream's name of it
    name: Mapped[str] = mapped_column(primary_key=True)  # the column of `model`: max_output or context_window
    most: Mapped[int]  # tokens, as the upstream said last
    seen: Mapped[int]
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]


class UpstreamCredential(Base):
    """A further credential of an upstream: calls are spread over all of them."""

    __tablename__ = "upstream_credential"

    upstream: Mapped[str] = mapped_column(ForeignKey("upstream.name"), primary_key=True)
    credential_env: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]  # 1 is the first behind the upstream's own


class UpstreamIncident(Base):
    """That a provider does not serve our account: the last incident of upstream, fault, model and credential."""

    __tablename__ = "upstream_incident"

    upstream: Mapped[str] = mapped_column(primary_key=True)
    fault: Mapped[str] = mapped_column(primary_key=True)  # core.account_fault.AccountFault
    model: Mapped[str] = mapped_column(primary_key=True)  # the upstream's name of it; empty where all are concerned
    credential: Mapped[str] = mapped_column(primary_key=True)  # the name of ours; empty where all are concerned
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
    calls: Mapped[int]  # that were refused
    words: Mapped[str]  # what the provider said last, scrubbed
    ended_at: Mapped[datetime | None]  # when a call succeeded again


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


class ModelWay(Base):
    """One of several upstreams that serve a model; none where there is one alone. The first is the model's own."""

    __tablename__ = "model_way"

    model_id: Mapped[str] = mapped_column(ForeignKey("model.id"), primary_key=True)
    upstream: Mapped[str] = mapped_column(ForeignKey("upstream.name"), primary_key=True)
    position: Mapped[int]  # 0 is the first
    upstream_model: Mapped[str]  # what that upstream calls it
    weight: Mapped[int]  # share of the callers that it serves first; 0 = the order counts
    price_model: Mapped[str | None] = mapped_column(ForeignKey("model.id"))  # whose prices it has; NULL = its own


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
    hosted_tools: Mapped[str]  # hosted_tools.HostedTools; the stricter of plan and key wins


class PlanModel(Base):
    """A model that a plan includes."""

    __tablename__ = "plan_model"

    plan_id: Mapped[str] = mapped_column(ForeignKey("plan.id"), primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("model.id"), primary_key=True)


class CatalogVersion(Base):
    """One row, raised by every change to upstreams, models, prices or plans: tells gateways to read them anew."""

    __tablename__ = "catalog_version"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int]
