"""The catalog as a whole: what gateways keep in memory of upstreams, models, prices and plans, and the version it has.

The version tells them when to load it anew: every change of the four raises it, in its own transaction.
"""

from dataclasses import replace
from functools import reduce

from sqlalchemy import select, update

from toolkit.admin import rights
from toolkit.core.catalog import Catalog, DatedSheet, ModelFacts, PlanFacts, Way
from toolkit.core.dialect import Dialect
from toolkit.core.hosted_tools import HostedTools
from toolkit.core.pricing import PriceSheet
from toolkit.core.strictness import stricter
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.upstream_traits import CredentialHeader, OnLeave, OutputBound, UpstreamTraits
from toolkit.store.locks import lock_catalog
from toolkit.store.tables import CatalogVersion, Model, ModelWay, Plan, PlanModel, Price, Upstream, UpstreamCredential
from toolkit.store.transaction import Transaction


def changed(tx: Transaction) -> None:
    """Tell every gateway that upstreams, models, prices or plans are to be read anew."""
    tx.session.execute(update(CatalogVersion).values(version=CatalogVersion.version + 1))


def begin_change(tx: Transaction) -> None:
    """Begin a change of upstreams, models, prices or plans: ask for the right, and take the lock.

    Raises:
        Forbidden: the actor is no platform admin.
    """
    rights.require_platform_admin(tx)
    lock_catalog(tx)


def traits_of(upstream: Upstream) -> UpstreamTraits:
    """Return what is known of an upstream beside its address."""
    return UpstreamTraits(
        on_leave=OnLeave(upstream.on_leave),
        refusal_free=upstream.refusal_free,
        pin_tier=upstream.pin_tier,
        reckon_rate=upstream.reckon_rate,
        credential_header=CredentialHeader(upstream.credential_header),
        api_version=upstream.api_version,
        output_bound=OutputBound(upstream.output_bound),
        add_stream_options=upstream.add_stream_options,
        add_store=upstream.add_store,
        add_include=upstream.add_include,
        billed_errors=upstream.billed_errors,
    )


def _served(model: Model, upstream: Upstream, upstream_model: str, prices: tuple[DatedSheet, ...]) -> ModelFacts:
    """Return a model as an upstream serves it."""
    return ModelFacts(
        id=model.id,
        dialect=Dialect(upstream.dialect),
        upstream=upstream.name,
        base_url=upstream.base_url,
        credential_env=upstream.credential_env,
        upstream_model=upstream_model,
        context_window=model.context_window,
        default_output=model.default_output,
        max_output=model.max_output,
        created_at=model.created_at,
        unknown_fields=UnknownFields(upstream.unknown_fields),
        traits=traits_of(upstream),
        prices=prices,
        max_connections=upstream.max_connections,
    )


def _routed(ways: list[Way], prices: tuple[DatedSheet, ...], further: dict[str, list[str]]) -> ModelFacts:
    """Return a model as one or several upstreams serve it, each with one or several credentials.

    A request is judged once, so the strictest upstream says what becomes of unknown fields.

    Args:
        ways: the upstreams, the first one first.
        prices: of the model itself; an upstream may have another's.
        further: by upstream, the credentials that it has beside its own.
    """
    first = ways[0].model
    if len(ways) == 1 and first.upstream not in further:
        return first
    strictest = reduce(stricter, (way.model.unknown_fields for way in ways))
    every = tuple(
        replace(way, model=replace(way.model, unknown_fields=strictest, credential_env=credential))
        for way in ways
        for credential in (way.model.credential_env, *further.get(way.model.upstream, ()))
    )
    return replace(first, unknown_fields=strictest, ways=every, prices=prices)


BEHIND_OWN = 1_000
"""What is added to the positions of everybody's upstreams where an organisation has its own, which comes first."""


def offers(
    ways: list[tuple[Way, str | None]], prices: tuple[DatedSheet, ...], further: dict[str, list[str]]
) -> tuple[ModelFacts | None, dict[str, ModelFacts]]:
    """Return a model as everybody is served it, and as those are whose own provider accounts serve it.

    Args:
        ways: the upstreams, in their order, each with the organisation whose own account it is.
        prices, further: as `_routed` takes them.
    """
    everybodys = [way for way, owner in ways if owner is None]
    behind = [replace(way, position=way.position + BEHIND_OWN) for way in everybodys]
    own = {
        org_id: _routed([way for way, owner in ways if owner == org_id] + behind, prices, further)
        for org_id in {owner for _, owner in ways if owner is not None}
    }
    return (_routed(everybodys, prices, further) if everybodys else None), own


def load(tx: Transaction) -> Catalog:
    """Read the whole catalog; an admission goes on only while its version is still the store's."""
    session = tx.session
    prices: dict[str, list[DatedSheet]] = {}
    for price in session.scalars(select(Price).order_by(Price.valid_from, Price.recorded_at)):
        dated = DatedSheet(price.id, price.valid_from, PriceSheet.from_json(price.sheet))
        prices.setdefault(price.model_id, []).append(dated)
    upstreams = {upstream.name: upstream for upstream in session.scalars(select(Upstream))}
    routes: dict[str, list[ModelWay]] = {}
    for way in session.scalars(select(ModelWay).order_by(ModelWay.model_id, ModelWay.position)):
        routes.setdefault(way.model_id, []).append(way)
    further: dict[str, list[str]] = {}
    for credential in session.scalars(select(UpstreamCredential).order_by(UpstreamCredential.position)):
        further.setdefault(credential.upstream, []).append(credential.credential_env)
    models: dict[str, ModelFacts] = {}
    own: dict[str, dict[str, ModelFacts]] = {}
    for model in session.scalars(select(Model).order_by(Model.id)):
        its_prices = tuple(prices.get(model.id, ()))
        ways = [
            Way(
                _served(
                    model,
                    upstreams[way.upstream],
                    way.upstream_model,
                    tuple(prices.get(way.price_model or model.id, ())),
                ),
                0 if way.weight else way.position,
                way.weight,
            )
            for way in routes.get(model.id, ())
        ] or [Way(_served(model, upstreams[model.upstream], model.upstream_model, its_prices), 0)]
        owned = [(way, upstreams[way.model.upstream].org_id) for way in ways]
        everybodys, own_ones = offers(owned, its_prices, further)
        if everybodys is not None:
            models[model.id] = everybodys
        for org_id, facts in own_ones.items():
            own.setdefault(org_id, {})[model.id] = facts
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
            HostedTools(plan.hosted_tools),
        )
        for plan in session.scalars(select(Plan))
    }
    return Catalog(session.scalars(select(CatalogVersion.version)).one(), models, plans, own, tx.now)
