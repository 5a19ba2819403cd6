"""What holds of an upstream that is made without a preset."""

import pytest

from toolkit.core.dialect import Dialect
from toolkit.core.upstream_traits import OnLeave, UpstreamTraits
from toolkit.providers.usual import preset_at, usual


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
        (Dialect.OPENAI, "https://api.mistral.ai/v1", False, False),
    ],
)
def test_what_is_usual_goes_by_the_host(dialect: Dialect, url: str, free: bool, pinned: bool) -> None:
    """Free refusals and a pinned tier at the makers' own hosts; all else is left to whoever names a preset."""
    assert usual(dialect, url) == UpstreamTraits(OnLeave.CANCEL, free, pinned, 200)


@pytest.mark.parametrize(
    ("dialect", "url", "name"),
    [
        (Dialect.OPENAI, "https://api.groq.com/openai/v1", "groq"),
        (Dialect.OPENAI, "https://eu.api.openai.com/v1", "openai"),
        (Dialect.OPENAI, "https://api.together.xyz/v1", "together"),
        (Dialect.OPENAI, "https://ws1.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1", "qwen"),
        (Dialect.ANTHROPIC, "https://api.groq.com/openai/v1", None),
        (Dialect.OPENAI, "http://127.0.0.1:8000/v1", None),
        (Dialect.OPENAI, "https://mine.openai.azure.com/openai/v1", None),
        (Dialect.OPENAI, "nonsense", None),
    ],
)
def test_a_provider_is_known_by_its_host(dialect: Dialect, url: str, name: str | None) -> None:
    """Where everybody has the same one; a server of one's own could be any."""
    found = preset_at(dialect, url)
    assert (found.name if found else None) == name
