"""What is known of an upstream by where it is, and what cannot be said of one."""

import pytest

from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput
from toolkit.core.upstream_traits import OnLeave, UpstreamTraits, check, defaults


@pytest.mark.parametrize(
    ("dialect", "url", "free", "pinned"),
    [
        (Dialect.OPENAI, "https://api.openai.com/v1", False, True),
        (Dialect.OPENAI, "https://API.OpenAI.com:443/v1", False, True),
        (Dialect.OPENAI, "https://eu.api.openai.com/v1", False, True),
        (Dialect.ANTHROPIC, "https://api.anthropic.com", True, True),
        # Others, however alike their names are; Anthropic's other API; and who has no tiers.
        (Dialect.OPENAI, "https://api.openai.com.example/v1", False, False),
        (Dialect.OPENAI, "https://example.com/api.openai.com/v1", False, False),
        (Dialect.OPENAI, "https://notapi.openai.com/v1", False, False),
        (Dialect.OPENAI, "https://mine.openai.azure.com/openai/v1", False, False),
        (Dialect.OPENAI, "https://api.anthropic.com/v1", False, False),
        (Dialect.ANTHROPIC, "https://bedrock-runtime.us-east-1.amazonaws.com", False, False),
        (Dialect.ANTHROPIC, "http://127.0.0.1:8090/anthropic", False, False),
        (Dialect.GEMINI, "https://generativelanguage.googleapis.com", False, False),
    ],
)
def test_what_is_usual_goes_by_the_host(dialect: Dialect, url: str, free: bool, pinned: bool) -> None:
    """Free refusals and a pinned tier at the makers' own hosts; a stream that is left is cancelled everywhere."""
    assert defaults(dialect, url) == UpstreamTraits(OnLeave.CANCEL, free, pinned, 200)


@pytest.mark.parametrize(
    ("dialect", "traits", "words"),
    [
        (Dialect.OPENAI, UpstreamTraits(refusal_free=True), "Anthropic's"),
        (Dialect.GEMINI, UpstreamTraits(refusal_free=True), "Anthropic's"),
        (Dialect.GEMINI, UpstreamTraits(pin_tier=True), "openai and anthropic"),
        (Dialect.OPENAI, UpstreamTraits(reckon_rate=-1), "0 to 100,000"),
        (Dialect.OPENAI, UpstreamTraits(reckon_rate=100_001), "0 to 100,000"),
    ],
)
def test_what_cannot_be_true_is_refused(dialect: Dialect, traits: UpstreamTraits, words: str) -> None:
    """In words that say where it could be."""
    with pytest.raises(InvalidInput, match=words):
        check(dialect, traits)


def test_what_can_be_true_is_taken() -> None:
    """Anthropic's dialect has all of it."""
    check(Dialect.ANTHROPIC, UpstreamTraits(OnLeave.READ_ON, refusal_free=True, pin_tier=True, reckon_rate=0))
