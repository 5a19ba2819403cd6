"""Whatever JSON a provider sends, an answer is read without an exception, and its counts stay what counts can be."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import examples
from toolkit.core.dialect import Dialect
from toolkit.dialects import MODULES

READ = [
    (Dialect.OPENAI, "chat/completions"),
    (Dialect.OPENAI, "responses"),
    (Dialect.OPENAI, "embeddings"),
    (Dialect.ANTHROPIC, "messages"),
    (Dialect.GEMINI, "generateContent"),
]
NAMES = [
    *("choices", "message", "content", "delta", "thinking", "text", "tool_calls", "function", "arguments", "reasoning"),
    *("usage", "timings", "x_groq", "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "prompt_n"),
    *("prompt_tokens_details", "output_tokens_details", "cache_creation", "usageMetadata", "promptTokenCount"),
    *("candidatesTokenCount", "candidates", "parts", "functionCall", "args", "finishReason", "finish_reason"),
    *("promptFeedback", "type", "index", "response", "output", "error", "stop_reason", "content_block", "service_tier"),
    *("inference_geo", "input", "summary", "id"),
]
"""Of what the readers look for."""

WORDS = [
    *("error", "message_start", "message_delta", "message_stop", "content_block_delta", "response.completed"),
    *("response.failed", "response.output_text.delta", "STOP", "stop", "refusal", "thinking"),
]
LEAVES = st.none() | st.booleans() | st.integers(-3, 10**20) | st.text(max_size=5) | st.sampled_from(WORDS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=20,
)
ANSWERS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)


@examples(60)
@given(ANSWERS)
def test_a_whole_answer(answer: dict[str, Any]) -> None:
    """Its text, id, tier and usage are read."""
    for dialect, endpoint in READ:
        module = MODULES[dialect]
        assert module.text_bytes_of(endpoint, answer) >= 0
        module.response_id_of(answer)
        module.served_by(answer)
        report = module.usage_of(endpoint, answer)
        if report is not None:
            used = report.usage
            assert 0 <= used.cached_input_tokens <= used.input_tokens
            assert 0 <= used.reasoning_tokens <= used.output_tokens


@examples(60)
@given(st.lists(ANSWERS, min_size=1, max_size=3))
def test_events_of_a_stream(events: list[dict[str, Any]]) -> None:
    """Each is judged, and what is kept back is let go at the end."""
    written = [json.dumps(event).encode() for event in events]
    for dialect, endpoint in READ:
        for sse in (True, False) if dialect is Dialect.GEMINI else (True,):
            meter = MODULES[dialect].Meter(endpoint, sse=sse)
            body = b"".join(b"data: " + one + b"\n\n" for one in written) if sse else b"[" + b",".join(written) + b"]"
            passed = meter.feed(body)
            meter.end()
            assert b"".join(passed + meter.finish()) == body
            assert meter.output_seen >= 0
            assert meter.report is None or meter.report.usage.input_tokens >= 0


@pytest.mark.parametrize("kind", [[], {}, 7])
def test_a_type_that_is_none(kind: object) -> None:
    """A Responses event whose type is no text is one that nobody knows."""
    meter = MODULES[Dialect.OPENAI].Meter("responses", sse=True)
    piece = b"data: " + json.dumps({"type": kind}).encode() + b"\n\n"
    assert meter.feed(piece) == [piece]
