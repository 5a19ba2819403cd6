"""Which answers can have reasoning that is billed and not shown."""

from typing import Any

import pytest

from toolkit.core.dialect import Dialect
from toolkit.dialects import MODULES
from toolkit.dialects.openai import Meter
from toolkit.dialects.unseen_reasoning import can_be, openai_asks


@pytest.mark.parametrize(
    ("dialect", "model", "hides"),
    [
        (Dialect.OPENAI, "o3", True),
        (Dialect.OPENAI, "gpt-5-mini", True),
        (Dialect.OPENAI, "openai/gpt-5.6", True),
        (Dialect.OPENAI, "gpt-5-chat-latest", False),
        (Dialect.OPENAI, "gpt-4.1", False),
        (Dialect.OPENAI, "openai/gpt-oss-120b", False),
        (Dialect.OPENAI, "grok-4", True),
        (Dialect.OPENAI, "grok-4-fast-non-reasoning", False),
        (Dialect.OPENAI, "google/gemini-2.5-pro", True),
        (Dialect.OPENAI, "deepseek-reasoner", False),
        (Dialect.ANTHROPIC, "claude-opus-5", True),
        (Dialect.ANTHROPIC, "claude-sonnet-5-5", True),
        (Dialect.ANTHROPIC, "us.anthropic.claude-opus-5-v1:0", True),
        (Dialect.ANTHROPIC, "claude-fable-5", True),
        (Dialect.ANTHROPIC, "claude-opus-4-8", False),
        (Dialect.ANTHROPIC, "claude-haiku-4-5-20251001", False),
        (Dialect.ANTHROPIC, "claude-3-5-sonnet-20241022", False),
        (Dialect.GEMINI, "gemini-2.5-flash", True),
        (Dialect.GEMINI, "gemini-3-pro-preview", True),
        (Dialect.GEMINI, "gemini-2.5-flash-lite", False),
        (Dialect.GEMINI, "gemini-2.5-flash-image", False),
        (Dialect.GEMINI, "gemini-2.0-flash", False),
        (Dialect.GEMINI, "gpt-5", False),
    ],
)
def test_a_model_is_known_by_its_name(dialect: Dialect, model: str, hides: bool) -> None:
    """A request that turns reasoning off has none whatever the model; what is asked for is there whatever the name."""
    assert can_be(dialect, model, None, shown=False) is hides
    assert can_be(dialect, model, None, shown=True) is hides
    assert can_be(dialect, model, False, shown=False) is False
    assert can_be(dialect, model, True, shown=False) is True
    assert can_be(dialect, model, True, shown=True) is hides


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({}, None),
        ({"reasoning_effort": "high"}, True),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": None}, None),
        ({"reasoning": {"effort": "low"}}, True),
        ({"reasoning": {"effort": "none"}}, False),
        ({"reasoning": {"max_tokens": 2_000}}, True),
        ({"reasoning": {"enabled": True}}, True),
        ({"reasoning": {"enabled": False}}, False),
        ({"reasoning": {"exclude": True}}, True),
        ({"reasoning": {"summary": "auto"}}, None),
        ({"reasoning": "high"}, None),
        ({"include_reasoning": False}, True),
        ({"reasoning_format": "hidden"}, True),
        ({"reasoning_format": "parsed"}, None),
        ({"enable_thinking": False}, False),
        ({"enable_thinking": True}, None),
        ({"reasoning_effort": ["high"]}, True),
    ],
)
def test_what_a_request_asks_for(fields: dict[str, Any], asked: bool | None) -> None:
    """Reasoning, its not being shown, or none; in the words of whoever speaks OpenAI's format."""
    assert openai_asks(fields) is asked


@pytest.mark.parametrize(
    ("dialect", "fields", "asked"),
    [
        (Dialect.ANTHROPIC, {}, None),
        (Dialect.ANTHROPIC, {"thinking": {"type": "enabled", "budget_tokens": 1_024}}, True),
        (Dialect.ANTHROPIC, {"thinking": {"type": "adaptive"}}, True),
        (Dialect.ANTHROPIC, {"thinking": {"type": "disabled"}}, False),
        (Dialect.GEMINI, {}, None),
        (Dialect.GEMINI, {"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}}, False),
        (Dialect.GEMINI, {"generationConfig": {"thinkingConfig": {"thinkingBudget": -1}}}, True),
        (Dialect.GEMINI, {"generation_config": {"thinking_config": {"thinking_budget": 0}}}, False),
        (Dialect.GEMINI, {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW"}}}, True),
        (Dialect.GEMINI, {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}}, None),
        (Dialect.OPENAI, {"reasoning_effort": "none"}, False),
        (Dialect.OPENAI, {"reasoning_effort": "low"}, True),
    ],
)
def test_each_dialect_reads_it(dialect: Dialect, fields: dict[str, Any], asked: bool | None) -> None:
    """Where it stands in a request."""
    messages = [{"role": "user", "content": "hello"}]
    endpoints: dict[Dialect, tuple[str, dict[str, Any]]] = {
        Dialect.OPENAI: ("chat/completions", {"model": "m", "messages": messages}),
        Dialect.ANTHROPIC: ("messages", {"model": "m", "max_tokens": 2_000, "messages": messages}),
        Dialect.GEMINI: ("generateContent", {"contents": [{"parts": [{"text": "hello"}]}]}),
    }
    endpoint, body = endpoints[dialect]
    assert MODULES[dialect].inspect(endpoint, {**body, **fields}, 99, "m").reasoning is asked


@pytest.mark.parametrize(
    ("endpoint", "event", "shows"),
    [
        ("chat/completions", b'data: {"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}\n\n', True),
        ("chat/completions", b'data: {"choices":[{"index":0,"delta":{"reasoning":"hm"}}]}\n\n', True),
        ("chat/completions", b'data: {"choices":[{"index":0,"delta":{"content":"hi","reasoning":null}}]}\n\n', False),
        (
            "responses",
            b'event: response.reasoning_text.delta\ndata: {"type":"response.reasoning_text.delta"}\n\n',
            True,
        ),
        (
            "responses",
            b'event: response.reasoning_summary_text.delta\ndata: {"type":"response.reasoning_summary_text.delta"}\n\n',
            False,
        ),
    ],
)
def test_a_stream_tells_whether_it_shows_reasoning(endpoint: str, event: bytes, shows: bool) -> None:
    """In full, as open models' servers send it; a summary is not all."""
    meter = Meter(endpoint, sse=True)
    meter.feed(event)
    assert meter.shows_reasoning is shows
