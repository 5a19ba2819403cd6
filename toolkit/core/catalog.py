"""The catalog: upstreams, models, prices and plans as a gateway keeps them in memory. Pure."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from toolkit.core.dialect import Dialect
from toolkit.core.hosted_tools import HostedTools
from toolkit.core.policy import KeyFacts
from toolkit.core.pricing import PriceSheet
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
    """A model with its upstream and prices, as the gateway keeps it."""

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

    def price(self, now: datetime) -> DatedSheet | None:
        """Return the price in force at a moment; None while there is none."""
        for entry in reversed(self.prices):
            if entry.valid_from <= now:
                return entry
        return None


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
        read_at: by the store's clock, UTC: a price that was set to hold from then on holds now, whatever the reader's
            own clock says.
    """

    version: int
    models: dict[str, ModelFacts]
    plans: dict[str, PlanFacts]
    read_at: datetime = field(default=_LONG_AGO, compare=False)

    def callable_by(self, key: KeyFacts) -> list[ModelFacts]:
        """Return the models that a key may call, by its plan and its scope."""
        plan = self.plans.get(key.plan_id)
        return [self.models[name] for name in key.callable_models(plan.models)] if plan else []
