"""What the genai-prices package says of a model. Its figures are copied into the price book, never charged by."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING

from toolkit.core.errors import NotFound
from toolkit.core.money import parse_usd
from toolkit.core.pricing import PriceSheet, Tier

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo


@dataclass(frozen=True, slots=True)
class PublicPrice:
    """What genai-prices says of a model.

    Args:
        sheet: its prices.
        context_window: tokens, if it says so.
        source: where that stands: the version, and `PROVIDER/MODEL`.
        deprecated: whether its provider has said that it will end; it still works.
    """

    sheet: PriceSheet
    context_window: int | None
    source: str
    deprecated: bool = False


def public_price(reference: str, at: datetime) -> PublicPrice:
    """Look a model up in the genai-prices package.

    A model that its provider's list lacks is looked up in those that the package falls back to for it: Azure's
    has few of OpenAI's models, which cost there what they do at OpenAI.

    Args:
        reference: `PROVIDER/MODEL`, such as "openai/gpt-5-mini"; the model's name may begin with the provider's again.
        at: the moment whose prices are wanted, UTC.

    Raises:
        NotFound: the package does not know it, or has no price per token for it.
    """
    from genai_prices.types import TieredPrices

    provider_id, found = _find(reference)
    if found is None:
        raise NotFound(
            f"genai-prices knows no price of {reference!r}. Give the prices yourself (--input-price, --output-price), "
            "or name a model it knows with --price-as PROVIDER/MODEL."
        )
    prices = found.get_prices(at)

    def at_tier(name: str, above: int, fallback: int | None) -> int | None:
        price = getattr(prices, name, None)
        if price is None:
            return fallback
        if isinstance(price, TieredPrices):
            return _published(next((t.price for t in reversed(price.tiers) if t.start <= above), price.base))
        return _published(price)

    fields = ("input_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok", "output_mtok")
    tiered = [price for name in fields if isinstance(price := getattr(prices, name, None), TieredPrices)]
    tiers = []
    for above in sorted({0, *(tier.start for price in tiered for tier in price.tiers)}):
        fresh = at_tier("input_mtok", above, None)
        if fresh is None:
            raise NotFound(f"genai-prices has no price per input token for {reference!r}. Give the prices yourself.")
        write_5m = at_tier("cache_write_mtok", above, fresh)
        tiers.append(
            Tier(
                above=above,
                input=fresh,
                cached_input=at_tier("cache_read_mtok", above, fresh) or 0,
                cache_write_5m=write_5m or 0,
                cache_write_1h=at_tier("cache_write_1h_mtok", above, write_5m) or 0,
                output=at_tier("output_mtok", above, 0) or 0,
            )
        )
    per_thousand = getattr(prices, "requests_kcount", None)
    return PublicPrice(
        PriceSheet(tuple(tiers), _published(per_thousand / 1000) if per_thousand else 0),
        found.context_window,
        f"genai-prices {version('genai-prices')}: {provider_id}/{found.id}",
        bool(found.deprecated),
    )


def _find(reference: str) -> "tuple[str, ModelInfo | None]":
    """Return the model that a reference names, and in whose list it is."""
    from genai_prices import data

    own_id, _, name = reference.partition("/")
    lists = {provider.id: provider for provider in data.providers}
    own = lists.get(own_id)
    for provider in [own, *(lists[id_] for id_ in own.fallback_model_providers or ())] if own else []:
        for model_id in dict.fromkeys((name, name.removeprefix(f"{own_id}/"))):
            exact = next((model for model in provider.models if model.id == model_id), None)
            found = exact or next((model for model in provider.models if model.is_match(model_id)), None)
            if found is not None:
                return provider.id, found
    return own_id, None


def _published(price: Decimal) -> int:
    # Some prices of the package were computed in floats (0.18000000000000002): the noise is far below a nano-USD.
    return parse_usd(round(price, 9), "published price")
