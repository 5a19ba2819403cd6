"""Upstreams, models and the dated price book, which gateways keep in memory as `core.catalog.Catalog`.

A price entry is never edited: a new one supersedes it from its `valid_from` on. Prices may be copied from the
`genai-prices` package when a model is added or on `prices refresh`; charging never reads the package, so an
upgrade reprices nothing.
"""

import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, update

from toolkit import environment
from toolkit.admin import accounts
from toolkit.admin.public_prices import public_price
from toolkit.core import words
from toolkit.core.base_url import check_base_url
from toolkit.core.catalog import Catalog, DatedSheet, ModelFacts, PlanFacts
from toolkit.core.destinations import fault_of_url
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Conflict, InvalidInput, NotFound
from toolkit.core.ids import new_id
from toolkit.core.pricing import PriceSheet
from toolkit.core.unknown_fields import UnknownFields
from toolkit.store import audit
from toolkit.store.database import Transaction, lock_catalog
from toolkit.store.tables import CatalogVersion, Model, Plan, PlanModel, Price, Upstream

UNKNOWN_CONTEXT_WINDOW = 131_072
LARGEST_DEFAULT_OUTPUT = 16_384
UNKNOWN_MAX_OUTPUT = 16_384
LARGEST_TOKEN_COUNT = 100_000_000
LONGEST_UPSTREAM_MODEL = 256
"""Characters."""

PRICE_PROVIDER = {Dialect.OPENAI: "openai", Dialect.ANTHROPIC: "anthropic", Dialect.GEMINI: "google"}
"""Which provider of genai-prices a dialect's models are looked up at, unless `price_as` says otherwise."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def changed(tx: Transaction) -> None:
    """Tell every gateway that upstreams, models, prices or plans are to be read anew."""
    tx.session.execute(update(CatalogVersion).values(version=CatalogVersion.version + 1))


def _begin_change(tx: Transaction) -> None:
    accounts.require_platform_admin(tx)
    lock_catalog(tx)


def add_upstream(
    tx: Transaction,
    name: str,
    dialect: Dialect,
    base_url: str,
    credential_env: str,
    *,
    unknown_fields: UnknownFields = UnknownFields.PASS,
) -> Upstream:
    """Add a provider endpoint.

    Args:
        tx: as a platform admin.
        name: how models refer to it.
        dialect: the wire format it speaks.
        base_url: what the provider's own SDK uses, e.g. https://api.openai.com/v1, https://api.anthropic.com,
            https://generativelanguage.googleapis.com.
        credential_env: name of the environment variable, or of the line in the secrets file, with its credential.
        unknown_fields: what becomes of request fields, betas and headers that Keydesk does not know.

    Raises:
        InvalidInput: a value cannot be used.
        Conflict: the name is taken.
    """
    _begin_change(tx)
    name = accounts.check_name(name, "upstream's name")
    check_base_url(base_url, dialect)
    _check_credential_name(credential_env)
    if tx.session.get(Upstream, name):
        raise Conflict(f"There is already an upstream named {name!r}.")
    upstream = Upstream(
        name=name,
        dialect=dialect,
        base_url=base_url.rstrip("/"),
        credential_env=credential_env,
        unknown_fields=unknown_fields,
        created_at=tx.now,
        created_by=tx.actor.name,
    )
    tx.session.add(upstream)
    tx.session.flush()
    changed(tx)
    audit.record(tx, "upstream.add", name, after={"dialect": dialect, **_describe_upstream(upstream)})
    return upstream


def update_upstream(
    tx: Transaction,
    name: str,
    *,
    base_url: str | None = None,
    credential_env: str | None = None,
    unknown_fields: UnknownFields | None = None,
) -> Upstream:
    """Change where an upstream is, its credential, or what becomes of unknown fields; what is not given stays.

    The next call goes by it.

    Raises:
        NotFound: no such upstream.
        InvalidInput: a value cannot be used.
    """
    _begin_change(tx)
    upstream = tx.session.get(Upstream, name)
    if upstream is None:
        raise NotFound(f"There is no upstream named {name!r}. `keydesk upstreams list` shows them.")
    before = _describe_upstream(upstream)
    if base_url is not None:
        check_base_url(base_url, Dialect(upstream.dialect))
        upstream.base_url = base_url.rstrip("/")
    if credential_env is not None:
        _check_credential_name(credential_env)
        upstream.credential_env = credential_env
    if unknown_fields is not None:
        upstream.unknown_fields = unknown_fields
    after = _describe_upstream(upstream)
    if after != before:
        changed(tx)
        audit.record(tx, "upstream.update", name, before=before, after=after)
    return upstream


def _describe_upstream(upstream: Upstream) -> dict[str, Any]:
    return {
        "base_url": upstream.base_url,
        "credential": upstream.credential_env,
        **describe_unknown_fields(upstream),
    }


def describe_unknown_fields(subject: Upstream | Plan) -> dict[str, str]:
    """Return what an audit row says of an upstream or plan that does not let unknown fields pass."""
    return {} if subject.unknown_fields == UnknownFields.PASS else {"unknown_fields": str(subject.unknown_fields)}


def _check_credential_name(name: str) -> None:
    if _VARIABLE.fullmatch(name) is None:
        raise InvalidInput(f"{name!r} cannot be the name of an environment variable. Give the name, not the value.")
    if fault := environment.credential_fault(environment.read_settings(), name):
        raise InvalidInput(f"{fault}.")


def upstream_fault(upstream: Upstream) -> str | None:
    """Return why a gateway with this process's settings never calls an upstream, in words; None if it does."""
    return fault_of_url(upstream.base_url) or environment.credential_fault(
        environment.read_settings(), upstream.credential_env
    )


def list_upstreams(tx: Transaction) -> list[Upstream]:
    """Return all upstreams, by name."""
    return list(tx.session.scalars(select(Upstream).order_by(Upstream.name)))


def add_model(
    tx: Transaction,
    model_id: str,
    upstream: str,
    *,
    upstream_model: str | None = None,
    sheet: PriceSheet | None = None,
    price_as: str | None = None,
    valid_from: datetime | None = None,
    context_window: int | None = None,
    default_output: int | None = None,
    max_output: int | None = None,
) -> Model:
    """Add a model that keys may call, with its first price.

    Args:
        tx: as a platform admin.
        model_id: the public id that callers name.
        upstream: name of the upstream that serves it.
        upstream_model: what the upstream calls it; the public id by default.
        sheet: prices; without them they are copied from genai-prices.
        price_as: `PROVIDER/MODEL` to copy prices of; by default the dialect's provider and the upstream model.
        valid_from: from when the price holds, UTC; now by default.
        context_window: tokens; from genai-prices, else 131,072.
        default_output: output bound injected when a caller gives none, in tokens; else the smaller of
            the maximum and 16,384.
        max_output: the most output tokens of one answer; else 16,384.

    Raises:
        InvalidInput, NotFound, Conflict: a value cannot be used, the upstream or price is unknown, the id is taken.
    """
    _begin_change(tx)
    if _ID.fullmatch(model_id) is None:
        raise InvalidInput(f"The model id {model_id!r} must be 1 to 128 letters, digits or . _ : @ / + -")
    endpoint = tx.session.get(Upstream, upstream)
    if endpoint is None:
        raise NotFound(f"There is no upstream named {upstream!r}. Add it first: keydesk upstreams add.")
    if tx.session.get(Model, model_id):
        raise Conflict(f"There is already a model {model_id!r}. `keydesk prices set` gives it a new price.")
    start = _start(tx, valid_from)
    source = "given"
    if sheet is None:
        reference = price_as or f"{PRICE_PROVIDER[Dialect(endpoint.dialect)]}/{upstream_model or model_id}"
        public = public_price(reference, start)
        sheet, source = public.sheet, public.source
        context_window = public.context_window if context_window is None else context_window
    elif price_as is not None:
        raise InvalidInput("Give prices, or a model to copy them from, not both.")
    if context_window is None:
        context_window = UNKNOWN_CONTEXT_WINDOW
    max_output = _tokens(UNKNOWN_MAX_OUTPUT if max_output is None else max_output, "maximum output")
    if default_output is None:
        default_output = min(max_output, LARGEST_DEFAULT_OUTPUT)
    model = Model(
        id=model_id,
        upstream=upstream,
        upstream_model=_upstream_model(upstream_model or model_id),
        context_window=_tokens(context_window, "context window"),
        default_output=_tokens(default_output, "default output"),
        max_output=max_output,
        created_at=tx.now,
        created_by=tx.actor.name,
    )
    _check_default_output(model.default_output, max_output)
    tx.session.add(model)
    tx.session.flush()
    audit.record(tx, "model.add", model_id, after={"upstream": upstream, "upstream_model": model.upstream_model})
    _enter_price(tx, model_id, sheet, source, start)
    return model


def update_model(
    tx: Transaction,
    model_id: str,
    *,
    upstream: str | None = None,
    upstream_model: str | None = None,
    context_window: int | None = None,
    default_output: int | None = None,
    max_output: int | None = None,
) -> Model:
    """Change where a model is served, or its limits; what is not given stays, and so does its price.

    Args are those of `add_model`. The next call goes by them; callers go on to name the same public id.

    Raises:
        NotFound: no such model or upstream.
        InvalidInput: the upstream speaks another dialect, or a limit cannot be used.
    """
    _begin_change(tx)
    model = tx.session.get(Model, model_id)
    if model is None:
        raise NotFound(f"There is no model {model_id!r}. `keydesk models list` shows them.")
    before = _describe_model(model)
    after = before | {
        "upstream": _same_dialect(tx, model, upstream or model.upstream),
        "upstream_model": _upstream_model(upstream_model or model.upstream_model),
        "context_window": _kept(context_window, model.context_window, "context window"),
        "default_output": _kept(default_output, model.default_output, "default output"),
        "max_output": _kept(max_output, model.max_output, "maximum output"),
    }
    _check_default_output(after["default_output"], after["max_output"])
    if after != before:
        for name, value in after.items():
            setattr(model, name, value)
        tx.session.flush()
        changed(tx)
        audit.record(tx, "model.update", model_id, before=before, after=after)
    return model


def _upstream_model(name: str) -> str:
    return words.check_line(name, "name of the model at the upstream", LONGEST_UPSTREAM_MODEL)


def _describe_model(model: Model) -> dict[str, Any]:
    names = ("upstream", "upstream_model", "context_window", "default_output", "max_output")
    return {name: getattr(model, name) for name in names}


def _same_dialect(tx: Transaction, model: Model, name: str) -> str:
    present, other = tx.session.get_one(Upstream, model.upstream), tx.session.get(Upstream, name)
    if other is None:
        raise NotFound(f"There is no upstream named {name!r}. Add it first: keydesk upstreams add.")
    if other.dialect != present.dialect:
        raise InvalidInput(
            f"The model {model.id!r} speaks {present.dialect}, but the upstream {name!r} {other.dialect}. "
            "Callers would have to change: add another model instead."
        )
    return name


def _kept(count: int | None, present: int, what: str) -> int:
    return present if count is None else _tokens(count, what)


def _check_default_output(default_output: int, max_output: int) -> None:
    if default_output > max_output:
        raise InvalidInput(f"The default output ({default_output}) is above the maximum output ({max_output}).")


def _start(tx: Transaction, valid_from: datetime | None) -> datetime:
    if valid_from is None:
        return tx.now
    if valid_from.tzinfo is None:
        raise InvalidInput("The price's start needs a time zone: write it in UTC, such as 2027-01-31T00:00:00Z.")
    return valid_from.astimezone(UTC)


def _tokens(count: int, what: str) -> int:
    if not 1 <= count <= LARGEST_TOKEN_COUNT:
        raise InvalidInput(f"The {what} must be between 1 and {LARGEST_TOKEN_COUNT:,} tokens.")
    return count


def _enter_price(tx: Transaction, model_id: str, sheet: PriceSheet, source: str, valid_from: datetime) -> Price:
    price = Price(
        id=new_id("price"),
        model_id=model_id,
        valid_from=valid_from,
        recorded_at=tx.now,
        recorded_by=tx.actor.name,
        source=source,
        sheet=sheet.to_json(),
    )
    tx.session.add(price)
    tx.session.flush()
    changed(tx)
    after = {"model": model_id, "valid_from": valid_from.isoformat(), "source": source, "sheet": price.sheet}
    audit.record(tx, "price.set", price.id, after=after)
    return price


def set_price(tx: Transaction, model_id: str, sheet: PriceSheet, *, valid_from: datetime | None = None) -> Price:
    """Enter a new price, valid from a moment on (now by default). Calls admitted before keep theirs.

    Raises:
        NotFound: no such model.
        InvalidInput: the moment lies in the past; calls of that time have been charged already.
    """
    _begin_change(tx)
    if tx.session.get(Model, model_id) is None:
        raise NotFound(f"There is no model {model_id!r}. `keydesk models list` shows them.")
    start = _start(tx, valid_from)
    if start < tx.now:
        raise InvalidInput("A price cannot start in the past: calls of that time have been charged already.")
    return _enter_price(tx, model_id, sheet, "given", start)


def refresh_prices(tx: Transaction) -> list[Price]:
    """Copy the present prices of all models whose price came from genai-prices; return the entries that are new."""
    _begin_change(tx)
    entered = []
    for model in list_models(tx):
        current = price_at(list_prices(tx, model.id), tx.now)
        if current is None or not current.source.startswith("genai-prices"):
            continue
        public = public_price(current.source.partition(": ")[2], tx.now)
        if public.sheet.to_json() != current.sheet:
            entered.append(_enter_price(tx, model.id, public.sheet, public.source, tx.now))
    return entered


def list_models(tx: Transaction) -> list[Model]:
    """Return all models, by id."""
    return list(tx.session.scalars(select(Model).order_by(Model.id)))


def list_prices(tx: Transaction, model_id: str | None = None) -> list[Price]:
    """Return price entries, oldest first; of one model or of all."""
    query = select(Price).order_by(Price.model_id, Price.valid_from, Price.recorded_at)
    return list(tx.session.scalars(query.where(Price.model_id == model_id) if model_id else query))


def price_at(entries: list[Price], now: datetime) -> Price | None:
    """Return the entry in force at a moment, from one model's entries oldest first."""
    return next((price for price in reversed(entries) if price.valid_from <= now), None)


def load(tx: Transaction) -> Catalog:
    """Read the whole catalog; an admission goes on only while its version is still the store's."""
    session = tx.session
    prices: dict[str, list[DatedSheet]] = {}
    for price in list_prices(tx):
        dated = DatedSheet(price.id, price.valid_from, PriceSheet.from_json(price.sheet))
        prices.setdefault(price.model_id, []).append(dated)
    upstreams = {upstream.name: upstream for upstream in list_upstreams(tx)}
    models: dict[str, ModelFacts] = {}
    for model in list_models(tx):
        upstream = upstreams[model.upstream]
        models[model.id] = ModelFacts(
            id=model.id,
            dialect=Dialect(upstream.dialect),
            upstream=upstream.name,
            base_url=upstream.base_url,
            credential_env=upstream.credential_env,
            upstream_model=model.upstream_model,
            context_window=model.context_window,
            default_output=model.default_output,
            max_output=model.max_output,
            created_at=model.created_at,
            unknown_fields=UnknownFields(upstream.unknown_fields),
            prices=tuple(prices.get(model.id, ())),
        )
    included: dict[str, set[str]] = {}
    for plan_id, model_id in session.execute(select(PlanModel.plan_id, PlanModel.model_id)):
        included.setdefault(plan_id, set()).add(model_id)
    plans = {
        plan.id: PlanFacts(
            plan.id,
            plan.name,
            plan.multiplier,
            frozenset(included.get(plan.id, ())),
            UnknownFields(plan.unknown_fields),
        )
        for plan in session.scalars(select(Plan))
    }
    return Catalog(session.scalars(select(CatalogVersion.version)).one(), models, plans, tx.now)
