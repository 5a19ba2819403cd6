"""Routes of models: the upstreams that can serve a model's calls, in order or by weight, and whose prices they have."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import delete, select

from toolkit.admin import catalog, models, prices, upstreams
from toolkit.core.errors import InvalidInput, NotFound
from toolkit.store import audit
from toolkit.store.tables import Model, ModelWay, Price, Upstream
from toolkit.store.transaction import Transaction

MOST_WAYS = 8
"""Upstreams of one model for one caller: a call that fails at all of them tries them one after the other."""

LARGEST_WEIGHT = 1_000


@dataclass(frozen=True, slots=True)
class RouteWay:
    """One of the upstreams that serve a model.

    Args:
        upstream: its name.
        upstream_model: what it calls the model; None for what the model is called upstream now.
        weight: the share of callers that it serves first; 0 where the order counts.
        price_model: the model whose prices its calls have; None for the model's own.
    """

    upstream: str
    upstream_model: str | None = None
    weight: int = 0
    price_model: str | None = None


def set_route(tx: Transaction, model_id: str, ways: Sequence[RouteWay]) -> Model:
    """Say which upstreams serve a model; the next call goes by it.

    A call is held at the price of the dearest, and charged by the price of the one that answered it. An organisation's
    own account serves its keys alone, and them first; accounts of several organisations may stand in one route.

    Args:
        tx: as a platform admin.
        model_id: the public id.
        ways: in the order in which they are tried, all with weights or none; a single one ends the route, and is where
            the model is served.

    Raises:
        NotFound: no such model or upstream.
        InvalidInput: an upstream of another dialect, or named twice; a weight or a price that cannot be used.
    """
    catalog.begin_change(tx)
    model = models.find(tx, model_id)
    before = _describe(tx, model)
    given = [_checked(tx, model, way) for way in ways]
    names = [way.upstream for way in given]
    if not 1 <= (most := _most_ways(tx, names)) <= MOST_WAYS:
        raise InvalidInput(f"A model has 1 to {MOST_WAYS} upstreams, not {most}, that serve the same API keys.")
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidInput(f"The upstream {min(twice)!r} is named twice; it can be one way of the model only.")
    if len({way.weight > 0 for way in given}) > 1:
        raise InvalidInput("Give a weight for each upstream, or for none: then their order counts.")
    if len(given) == 1 and given[0].price_model:
        raise InvalidInput("An upstream that serves a model alone has the model's own prices: `keydesk prices set`.")
    model.upstream, model.upstream_model = given[0].upstream, str(given[0].upstream_model)
    tx.session.execute(delete(ModelWay).where(ModelWay.model_id == model_id))
    if len(given) > 1:
        tx.session.add_all(
            ModelWay(model_id=model_id, position=position, **asdict(way)) for position, way in enumerate(given)
        )
    tx.session.flush()
    after = _describe(tx, model)
    if after != before:
        catalog.changed(tx)
        audit.record(tx, "model.route", model_id, before=before, after=after)
    return model


def _most_ways(tx: Transaction, names: Sequence[str]) -> int:
    """Return how many of these upstreams may serve the same caller: everybody's, and those of one organisation."""
    owners = dict(tx.session.execute(select(Upstream.name, Upstream.org_id).where(Upstream.name.in_(names))).all())
    counts = Counter(owners[name] for name in names)
    return counts.pop(None, 0) + max(counts.values(), default=0)


def route_of(tx: Transaction, model: Model) -> list[RouteWay]:
    """Return the upstreams that serve a model, in their order; one alone where it has no route.

    People of one organisation are not told of other ones' own accounts.
    """
    query = select(ModelWay).where(ModelWay.model_id == model.id).order_by(ModelWay.position)
    found = [
        RouteWay(way.upstream, way.upstream_model, way.weight, way.price_model) for way in tx.session.scalars(query)
    ] or [RouteWay(model.upstream, model.upstream_model)]
    known = {upstream.name for upstream in upstreams.list_upstreams(tx)}
    return [way for way in found if way.upstream in known]


def names_at(tx: Transaction, upstream: str) -> dict[str, str]:
    """Return what an upstream calls the models, by our public id.

    Those that it does not serve have the name that they have where they are served.
    """
    names = dict(tx.session.execute(select(Model.id, Model.upstream_model)).all())
    routed = select(ModelWay.model_id, ModelWay.upstream_model).where(ModelWay.upstream == upstream)
    return names | dict(tx.session.execute(routed).all())


def served_at(tx: Transaction, upstream: str) -> dict[str, str]:
    """Return which models an upstream serves, alone or as one of several: our public ids, by what it calls them."""
    alone = select(Model.upstream_model, Model.id).where(Model.upstream == upstream)
    routed = select(ModelWay.upstream_model, ModelWay.model_id).where(ModelWay.upstream == upstream)
    return dict(tx.session.execute(alone).all()) | dict(tx.session.execute(routed).all())


def price_models(tx: Transaction) -> dict[str, frozenset[str]]:
    """Return the models whose prices the calls of a routed model can have beside its own, by the routed model's id."""
    found: dict[str, set[str]] = {}
    query = select(ModelWay.model_id, ModelWay.price_model).where(ModelWay.price_model.is_not(None))
    for model_id, price_model in tx.session.execute(query):
        found.setdefault(model_id, set()).add(str(price_model))
    return {model_id: frozenset(names) for model_id, names in found.items()}


def prices_in_force(tx: Transaction) -> dict[str, Price]:
    """Return the price that calls of each model have now: its own, or until it has one that of a way of its route."""
    entries: dict[str, list[Price]] = {}
    for entry in prices.list_prices(tx):
        entries.setdefault(entry.model_id, []).append(entry)
    own = {name: price for name, its in entries.items() if (price := prices.price_at(its, tx.now))}
    query = select(ModelWay.model_id, ModelWay.price_model).order_by(ModelWay.model_id, ModelWay.position)
    by_route: dict[str, Price] = {}
    for model_id, price_model in tx.session.execute(query):
        if price_model in own:
            by_route.setdefault(model_id, own[price_model])
    return by_route | own


def parse_way(tx: Transaction, text: str) -> tuple[str, str | None]:
    """Return upstream and model of a way as it is typed: NAME, or NAME:MODEL.

    A name with a colon in it counts as a whole if an upstream has it.
    """
    text = text.strip()
    if tx.session.get(Upstream, text) is not None:
        return text, None
    name, colon, model = text.partition(":")
    return name.strip(), model if colon else None


def _checked(tx: Transaction, model: Model, way: RouteWay) -> RouteWay:
    """Return a way as it can be kept."""
    name = models.check_upstream(tx, model, way.upstream)
    called = model.upstream_model if way.upstream_model is None else way.upstream_model
    if not 0 <= way.weight <= LARGEST_WEIGHT:
        raise InvalidInput(f"A weight is a whole number from 1 to {LARGEST_WEIGHT:,}, not {way.weight}.")
    price_model = way.price_model if way.price_model != model.id else None
    if price_model is not None:
        if tx.session.get(Model, price_model) is None:
            raise NotFound(f"There is no model {price_model!r} to take prices from. `keydesk models list` shows them.")
        if prices.price_at(prices.list_prices(tx, price_model), tx.now) is None:
            raise InvalidInput(
                f"The model {price_model!r} has no price in force now. `keydesk prices list` shows them."
            )
    return RouteWay(name, models.check_upstream_model(called), way.weight, price_model)


def _describe(tx: Transaction, model: Model) -> dict[str, Any]:
    """Return what an audit row says of a model's ways."""
    return {"ways": [{name: said for name, said in asdict(way).items() if said} for way in route_of(tx, model)]}
