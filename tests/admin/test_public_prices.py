"""Prices of public models, copied exactly from the genai-prices package."""

from datetime import UTC, datetime

import pytest
from genai_prices import data as public_data

from toolkit.admin.public_prices import public_price
from toolkit.core.errors import NotFound
from toolkit.core.money import parse_usd
from toolkit.core.pricing import PriceSheet, Tier

AT = datetime(2026, 11, 1, tzinfo=UTC)


def cents(*prices: str) -> list[int]:
    """Return prices in USD per million tokens as nano-USD."""
    return [parse_usd(price) for price in prices]


def test_a_price_without_tiers_is_copied_exactly() -> None:
    """GPT-5: 1.25 in, 0.125 cached, 10 out; a cache write costs what fresh input does."""
    copied = public_price("openai/gpt-5", AT)
    assert copied.sheet == PriceSheet.flat(*cents("1.25", "10", "0.125"))
    assert copied.context_window == 400_000
    assert copied.source.startswith("genai-prices ")
    assert copied.source.endswith(": openai/gpt-5")


def test_a_price_with_tiers_and_cache_writes_is_copied_exactly() -> None:
    """Claude Sonnet 4.5: two tiers, each with its reads, 5-minute writes and 1-hour writes."""
    assert public_price("anthropic/claude-sonnet-4-5", AT).sheet.tiers == (
        Tier(0, *cents("3", "0.30", "3.75", "6", "15")),
        Tier(200_000, *cents("6", "0.60", "7.50", "12", "22.50")),
    )


def test_the_second_tier_starts_above_its_mark() -> None:
    """200,000 tokens to Gemini 2.5 Pro still cost the first tier's price, one more the second's."""
    sheet = public_price("google/gemini-2.5-pro", AT).sheet
    assert (sheet.tier(200_000).input, sheet.tier(200_001).input) == tuple(cents("1.25", "2.50"))


def test_an_embedding_model_has_no_output_price() -> None:
    """Output of an embedding costs nothing."""
    assert public_price("openai/text-embedding-3-small", AT).sheet == PriceSheet.flat(*cents("0.02", "0"))


def test_a_dated_name_finds_its_family() -> None:
    """The package knows aliases; the entry's source names what was matched."""
    assert public_price("openai/gpt-4o-2024-08-06", AT).source.endswith(": openai/gpt-4o")


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("azure/o3-mini", "azure/o3-mini"),
        ("azure/gpt-4o", "openai/gpt-4o"),
        ("azure/gpt-5-mini", "openai/gpt-5-mini"),
        ("google/google/gemini-2.5-flash", "google/gemini-2.5-flash"),
        ("openrouter/openai/gpt-5", "openrouter/openai/gpt-5"),
    ],
)
def test_a_model_is_looked_up_as_its_provider_names_it(reference: str, found: str) -> None:
    """In its own list first, then in those that the package has for it; Vertex puts the publisher before the name."""
    assert public_price(reference, AT).source.endswith(f": {found}")


def test_the_price_of_the_moment_is_copied() -> None:
    """o3 became cheaper on 10 June 2025."""
    before, after = (public_price("openai/o3", datetime(2025, 6, day, tzinfo=UTC)).sheet.tier(0) for day in (9, 11))
    assert (before.input, after.input) == tuple(cents("10", "2"))


@pytest.mark.parametrize("reference", ["openai/no-such-model", "nobody/gpt-5", "gpt-5", "", "/"])
def test_an_unknown_public_model_is_not_found(reference: str) -> None:
    """The message says how to give prices oneself."""
    with pytest.raises(NotFound, match="--input-price"):
        public_price(reference, AT)


def test_every_price_of_the_package_is_copied_or_not_found() -> None:
    """No model of the package, with whatever noise in its prices, ends in another error; all prices are integers."""
    copied = 0
    for provider in public_data.providers:
        for model in provider.models:
            try:
                sheet = public_price(f"{provider.id}/{model.id}", AT).sheet
            except NotFound:
                continue
            assert type(sheet.tiers[-1].input) is int
            copied += 1
    assert copied > 1000
