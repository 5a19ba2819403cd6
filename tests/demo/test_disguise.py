"""The demo upstream in the disguise of a provider, without any server."""

import pytest
from click.testing import CliRunner

from toolkit.cli.demo import demo_command
from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput
from toolkit.demo.disguise import Disguise
from toolkit.providers.presets import PRESETS

CHAT = "/openai/v1/chat/completions"


@pytest.mark.parametrize(
    ("preset", "path", "dialect"),
    [
        ("deepseek", CHAT, Dialect.OPENAI),
        ("deepseek", "/openai/v1/models", Dialect.OPENAI),
        ("deepseek", "/openai/v1/responses", None),
        ("deepseek", "/anthropic/v1/messages", Dialect.ANTHROPIC),
        ("deepseek", "/anthropic/v1/messages/count_tokens", None),
        ("groq", "/anthropic/v1/messages", None),
        ("google", "/gemini/v1beta/models/gemini-test:generateContent", Dialect.GEMINI),
        ("vertex", "/gemini/v1beta/models/gemini-test:embedContent", None),
    ],
)
def test_it_has_the_endpoints_of_its_preset(preset: str, path: str, dialect: Dialect | None) -> None:
    """In all dialects that the provider speaks."""
    form = Disguise(PRESETS[preset]).form(path)
    assert (form.dialect if form else None) == dialect


@pytest.mark.parametrize(
    ("preset", "refuses", "unknown", "taken"),
    [
        ("mistral", (), {"stream_options", "max_completion_tokens"}, {"max_tokens"}),
        ("groq", (), {"max_tokens"}, {"max_completion_tokens", "stream_options"}),
        ("groq", ("max_completion_tokens",), {"max_completion_tokens"}, {"max_tokens"}),
        ("openai", ("store",), {"store"}, {"max_tokens", "max_completion_tokens", "stream_options"}),
    ],
)
def test_it_takes_the_fields_of_its_preset(
    preset: str, refuses: tuple[str, ...], unknown: set[str], taken: set[str]
) -> None:
    """But for those that it is told to refuse; one name of a bound is always taken."""
    disguise, form = Disguise(PRESETS[preset], frozenset(refuses)), PRESETS[preset]
    assert {name for name in unknown | taken if disguise.unknown_field(form, {"messages": [], name: 1})} == unknown


def test_usage_that_comes_unasked_and_another_header() -> None:
    """Groq's streams tell it; Azure reads `api-key`."""
    chat = {"messages": [], "stream": True}
    groq, azure = (Disguise(PRESETS[name]) for name in ("groq", "azure-openai"))
    assert groq.asked(groq.preset, chat)["stream_options"] == {"include_usage": True}
    assert azure.asked(azure.preset, chat) == chat
    assert azure.shows_credential(azure.preset, {"api-key": "k"}, usually=False)
    assert not azure.shows_credential(azure.preset, {"authorization": "Bearer k"}, usually=True)
    assert groq.shows_credential(groq.preset, {}, usually=True)


def test_a_quirk_without_a_provider_is_refused() -> None:
    """Before anything listens."""
    told = CliRunner().invoke(demo_command, ["--refuse", "store"])
    assert isinstance(told.exception, InvalidInput) or "--refuse is for the disguise" in told.output
