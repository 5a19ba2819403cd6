"""Models that keys may call: where each is served, under which name, and within which limits of tokens."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select, union_all

from toolkit.admin import catalog, prices, upstreams
from toolkit.admin.public_prices import PublicPrice, public_price
from toolkit.core import words
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Conflict, InvalidInput, NotFound
from toolkit.core.pricing import PriceSheet
from toolkit.core.stale import require_unchanged
from toolkit.providers.presets import PRESETS
from toolkit.providers.usual import preset_at
from toolkit.store import audit
from toolkit.store.tables import Model, ModelWay, Upstream
from toolkit.store.transaction import Transaction

UNKNOWN_CONTEXT_WINDOW = 131_072
LARGEST_DEFAULT_OUTPUT = 16_384
UNKNOWN_MAX_OUTPUT = 16_384
LARGEST_TOKEN_COUNT = 100_000_000
LONGEST_UPSTREAM_MODEL = 256
"""Characters."""

PRICE_PROVIDER = {Dialect.OPENAI: "openai", Dialect.ANTHROPIC: "anthropic", Dialect.GEMINI: "google"}
"""Which list of genai-prices a dialect's models are looked up in, unless the preset or `price_as` says otherwise."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127}")


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
        price_as: `PROVIDER/MODEL` to copy prices of; by default the list of the upstream's preset, or
            of the provider whose host it is at, or of its dialect's maker, and the upstream model.
        valid_from: from when the price holds, UTC; now by default.
        context_window: tokens; from genai-prices, else 131,072.
        default_output: output bound injected when a caller gives none, in tokens; else the smaller of
            the maximum and 16,384.
        max_output: the most output tokens of one answer; else 16,384.

    Raises:
        InvalidInput, NotFound, Conflict: a value cannot be used, the upstream or price is unknown, the id is taken.
    """
    catalog.begin_change(tx)
    if _ID.fullmatch(model_id) is None:
        raise InvalidInput(f"The model id {model_id!r} must be 1 to 128 letters, digits or . _ : @ / + -")
    endpoint = tx.session.get(Upstream, upstream)
    if endpoint is None:
        raise NotFound(f"There is no upstream named {upstream!r}. Add it first: keydesk upstreams add.")
    if tx.session.get(Model, model_id):
        raise Conflict(f"There is already a model {model_id!r}. `keydesk prices set` gives it a new price.")
    start = prices.start_of(tx, valid_from)
    source = "given"
    if sheet is None:
        reference = price_as or f"{_price_list(endpoint)}/{upstream_model or model_id}"
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
        upstream_model=check_upstream_model(upstream_model or model_id),
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
    prices.enter(tx, model_id, sheet, source, start)
    return model


def published(tx: Transaction, upstream: str, upstream_model: str) -> PublicPrice | None:
    """Return the public price that a model of an upstream would be added with; None if there is none.

    Args:
        tx: of whom may see the upstream.
        upstream: its name.
        upstream_model: what it calls the model.

    Raises:
        NotFound: no such upstream.
    """
    endpoint = upstreams.find(tx, upstream)
    try:
        return public_price(f"{_price_list(endpoint)}/{upstream_model}", tx.now)
    except (NotFound, InvalidInput):
        return None


def _price_list(upstream: Upstream) -> str:
    """Return which list of genai-prices an upstream's models are looked up in.

    Raises:
        NotFound: its provider has none.
    """
    preset = PRESETS.get(upstream.preset or "") or preset_at(Dialect(upstream.dialect), upstream.base_url)
    if preset is None:
        return PRICE_PROVIDER[Dialect(upstream.dialect)]
    if preset.price_list is None:
        raise NotFound(
            f"genai-prices has no list of {preset.title}. Give the prices yourself (--input-price, --output-price), or "
            "name a model that it knows with --price-as PROVIDER/MODEL."
        )
    return preset.price_list


def update_model(
    tx: Transaction,
    model_id: str,
    *,
    upstream: str | None = None,
    upstream_model: str | None = None,
    context_window: int | None = None,
    default_output: int | None = None,
    max_output: int | None = None,
    seen: Mapping[str, Any] | None = None,
) -> Model:
    """Change where a model is served, or its limits; what is not given stays, and so does its price.

    Args are those of `add_model`. The next call goes by them; callers go on to name the same public id. What `seen` has
    is the model as whoever changes it saw it, by `describe`; it must be so still.

    Raises:
        NotFound: no such model or upstream.
        InvalidInput: the upstream speaks another dialect, a limit cannot be used, or the model has a route, which says
            where it is served.
        Conflict: somebody has changed it since it was seen.
    """
    catalog.begin_change(tx)
    model = find(tx, model_id)
    before = describe(model)
    if seen is not None:
        require_unchanged(f"model {model_id!r}", seen, before)
    moved = (upstream or model.upstream, upstream_model or model.upstream_model)
    if moved != (model.upstream, model.upstream_model) and has_route(tx, model_id):
        raise InvalidInput(
            f"Several upstreams serve the model {model_id!r}: change them with `keydesk models route {model_id}`."
        )
    after = before | {
        "upstream": check_upstream(tx, model, moved[0]),
        "upstream_model": check_upstream_model(moved[1]),
        "context_window": _kept(context_window, model.context_window, "context window"),
        "default_output": _kept(default_output, model.default_output, "default output"),
        "max_output": _kept(max_output, model.max_output, "maximum output"),
    }
    _check_default_output(after["default_output"], after["max_output"])
    if after != before:
        for name, value in after.items():
            setattr(model, name, value)
        tx.session.flush()
        catalog.changed(tx)
        audit.record(tx, "model.update", model_id, before=before, after=after)
    return model


def find(tx: Transaction, model_id: str) -> Model:
    """Return a model.

    Raises:
        NotFound: no such model.
    """
    model = tx.session.get(Model, model_id)
    if model is None or (tx.actor.org_id is not None and model_id in unserved(tx, tx.actor.org_id)):
        raise NotFound(f"There is no model {model_id!r}. `keydesk models list` shows them.")
    return _as_known(tx, model)


def unserved(tx: Transaction, org_id: str) -> set[str]:
    """Return the ids of models that an organisation is not served, for only accounts of other ones serve them.

    To it there are no such models.
    """
    return {model for model, owners in owned(tx).items() if org_id not in owners}


def owned(tx: Transaction) -> dict[str, frozenset[str]]:
    """Return the models that only organisations' own accounts serve: the organisations, by the model's id."""
    places = union_all(select(Model.id, Model.upstream), select(ModelWay.model_id, ModelWay.upstream)).subquery()
    query = select(places.c.id, Upstream.org_id).join(Upstream, Upstream.name == places.c.upstream)
    found: dict[str, set[str | None]] = {}
    for model, owner in tx.session.execute(query):
        found.setdefault(model, set()).add(owner)
    return {
        model: frozenset(owner for owner in owners if owner is not None)
        for model, owners in found.items()
        if None not in owners
    }


def has_route(tx: Transaction, model_id: str) -> bool:
    """Whether several upstreams serve a model."""
    return tx.session.scalar(select(ModelWay.position).where(ModelWay.model_id == model_id).limit(1)) is not None


def check_upstream_model(name: str) -> str:
    """Return what an upstream calls a model, as it can be kept.

    Raises:
        InvalidInput: it cannot be a name.
    """
    return words.check_line(name, "name of the model at the upstream", LONGEST_UPSTREAM_MODEL)


def describe(model: Model) -> dict[str, Any]:
    """Return what can be changed of a model, as the audit log has it."""
    names = ("upstream", "upstream_model", "context_window", "default_output", "max_output")
    return {name: getattr(model, name) for name in names}


def check_upstream(tx: Transaction, model: Model, name: str) -> str:
    """Return the name of an upstream that can serve a model.

    Raises:
        NotFound: there is none of that name.
        InvalidInput: it speaks another dialect.
    """
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


def _tokens(count: int, what: str) -> int:
    if not 1 <= count <= LARGEST_TOKEN_COUNT:
        raise InvalidInput(f"The {what} must be between 1 and {LARGEST_TOKEN_COUNT:,} tokens.")
    return count


def list_models(tx: Transaction) -> list[Model]:
    """Return the models, by id; to people of one organisation without those that only others' own accounts serve."""
    hidden = unserved(tx, tx.actor.org_id) if tx.actor.org_id is not None else set()
    found = [model for model in tx.session.scalars(select(Model).order_by(Model.id)) if model.id not in hidden]
    return [_as_known(tx, model) for model in found]


def _as_known(tx: Transaction, model: Model) -> Model:
    """Return a model as the actor may know it: with the first upstream that is not another organisation's own."""
    if tx.actor.org_id is not None:
        known = or_(Upstream.org_id.is_(None), Upstream.org_id == tx.actor.org_id)
        ways = select(ModelWay).join(Upstream, Upstream.name == ModelWay.upstream).where(ModelWay.model_id == model.id)
        way = tx.session.scalar(ways.where(known).order_by(ModelWay.position).limit(1))
        if way is not None and way.upstream != model.upstream:
            tx.session.expunge(model)  # what is read here is written nowhere
            model.upstream, model.upstream_model = way.upstream, way.upstream_model
    return model
