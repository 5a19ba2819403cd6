"""Which tier and region of a provider served a call, and whether that is what the price book prices. Pure."""

import re
from typing import NamedTuple

from toolkit.core.dialect import Dialect

_WORD = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,39}")

_UNSAID = frozenset({"auto", "unspecified", "service_tier_unspecified", "traffic_type_unspecified", "not_available"})
"""Words that name none. Anthropic says `not_available` of models that run in one region alone ("Data residency")."""

_PRICED_TIERS = {
    # OpenAI, "Create chat completion"; Groq, "Service tiers", has `on_demand`, and so has Vertex's traffic type.
    Dialect.OPENAI: frozenset({"default", "standard", "on_demand"}),
    Dialect.ANTHROPIC: frozenset({"standard"}),  # Anthropic, "Service tiers"
    Dialect.GEMINI: frozenset({"standard", "service_tier_standard", "on_demand"}),  # Google, "Priority inference"
}

_PRICED_GEOS = frozenset({"global"})
"""Anthropic, "Data residency": any other costs more."""


class Served(NamedTuple):
    """What served a call, as its provider says it, in lower case; None where it says nothing."""

    tier: str | None = None
    geo: str | None = None

    def followed_by(self, later: "Served") -> "Served":
        """Return what two parts of one answer say together: the later one counts."""
        return Served(later.tier or self.tier, later.geo or self.geo)


NOT_SAID = Served()
"""What a provider who names neither says."""


def word(value: object) -> str | None:
    """Return a provider's word for a tier or region; None if it is none, or says that there is none."""
    if not isinstance(value, str):
        return None
    lower = value.lower()
    return lower if _WORD.fullmatch(lower) and lower not in _UNSAID else None


def unpriced(dialect: Dialect, served: Served) -> list[str]:
    """Return the tier and the region that are not those which the price book prices: none, one or both."""
    found = []
    if served.tier is not None and served.tier not in _PRICED_TIERS[dialect]:
        found.append(served.tier)
    if served.geo is not None and served.geo not in _PRICED_GEOS:
        found.append(served.geo)
    return found
