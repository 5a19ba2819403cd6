"""The catalog: upstreams, models, prices and plans as a gateway keeps them in memory. Pure."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from toolkit.core.dialect import Dialect
from toolkit.core.hosted_tools import HostedTools
from toolkit.core.policy import KeyFacts
from toolkit.core.pricing import PriceSheet
from toolkit.core.rendezvous import score
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.upstream_traits import UpstreamTraits

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DatedSheet:
    """A price entry as the gateway keeps it."""

    id: str
    valid_from: datetime
    sheet: PriceSheet


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model with its upstream and prices, as the gateway keeps it.

    Args:
        ways: where its calls can be served, if there are several places; this is the first of them.
        max_connections: calls that may be under way at its upstream at once; 0 is any number.
    """

    id: str
    dialect: Dialect
    upstream: str
    base_url: str
    credential_env: str
    upstream_model: str
    context_window: int
    default_output: int
    max_output: int
    created_at: datetime
    unknown_fields: UnknownFields
    traits: UpstreamTraits
    prices: tuple[DatedSheet, ...]
    ways: "tuple[Way, ...]" = ()
    max_connections: int = 0

    @property
    def places(self) -> "list[ModelFacts]":
        """The model as each of the upstreams has it that can serve it."""
        return [way.model for way in self.ways] or [self]

    def price(self, now: datetime) -> DatedSheet | None:
        """Return the price in force at a moment, its own or else that of the first way that has one; or None."""
        for entry in reversed(self.prices):
            if entry.valid_from <= now:
                return entry
        for way in self.ways:
            dated = way.model.price(now)
            if dated is not None:
                return dated
        return None


@dataclass(frozen=True, slots=True)
class Way:
    """One of several places where a model's calls can be served: an upstream, and our credential there.

    Args:
        model: as it is there: upstream, name, credential, prices.
        position: its place in the order in which upstreams are tried; the same for all where weights choose.
        weight: the share of callers that it serves first; 0 where the order alone counts.
    """

    model: ModelFacts
    position: int
    weight: int = 0

    def rank(self, key_id: str, conversation: str) -> tuple[int, float, float]:
        """Return what the ways of a caller are sorted by: who comes again is served at the same place, if it can be.

        Providers keep their caches for an account, so a caller who is sent elsewhere pays for a cold one.

        Args:
            key_id: who stays with one of our credentials.
            conversation: what stays at one of several upstreams that have weights.
        """
        upstream = -score(conversation, self.model.upstream, self.weight) if self.weight else 0.0
        return self.position, upstream, -score(key_id, self.model.credential_env)


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """A plan as the gateway keeps it; `multiplier` in millionths."""

    id: str
    name: str
    multiplier: int
    models: frozenset[str]
    unknown_fields: UnknownFields
    hosted_tools: HostedTools


@dataclass(frozen=True, slots=True)
class Catalog:
    """All upstreams, models, prices and plans at one catalog version.

    Args:
        models: by id, as whoever has no provider account of its own is served; without those that only such accounts
            serve.
        own: by organisation and id, the models that an account of its own serves, with all the ways that it has.
        read_at: by the store's clock, UTC: a price that was set to hold from then on holds now, whatever the reader's
            own clock says.
    """

    version: int
    models: dict[str, ModelFacts]
    plans: dict[str, PlanFacts]
    own: dict[str, dict[str, ModelFacts]] = field(default_factory=dict)
    read_at: datetime = field(default=_LONG_AGO, compare=False)

    def model(self, name: str, org_id: str) -> ModelFacts | None:
        """Return a model as an organisation is served it: in ways that are everybody's or its own, and no other's.

        Returns:
            None if there is no such model, or none for this organisation.
        """
        own = self.own.get(org_id)
        if own is not None and name in own:
            return own[name]
        return self.models.get(name)

    def callable_by(self, key: KeyFacts) -> list[ModelFacts]:
        """Return the models that a key may call, by its plan and its scope."""
        plan = self.plans.get(key.plan_id)
        names = key.callable_models(plan.models) if plan else ()
        return [facts for name in names if (facts := self.model(name, key.org_id)) is not None]

    def places(self) -> list[ModelFacts]:
        """Return all models as each of the upstreams has them, whoever may call them there."""
        everybodys = [*self.models.values(), *(facts for own in self.own.values() for facts in own.values())]
        return [place for facts in everybodys for place in facts.places]
