"""Which tier a request leaves open, how the priced one is asked for, and what an answer says of the one that served."""

import json
from typing import Any

import pytest

from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal
from toolkit.core.service_tier import NOT_SAID, Served
from toolkit.dialects import MODULES, anthropic, gemini, openai

HELLO = [{"role": "user", "content": "hello"}]
BODIES: dict[str, tuple[Dialect, dict[str, Any]]] = {
    "chat/completions": (Dialect.OPENAI, {"model": "m", "messages": HELLO}),
    "responses": (Dialect.OPENAI, {"model": "m", "input": "hello"}),
    "embeddings": (Dialect.OPENAI, {"model": "m", "input": "hello"}),
    "messages": (Dialect.ANTHROPIC, {"model": "m", "max_tokens": 9, "messages": HELLO}),
    "messages/count_tokens": (Dialect.ANTHROPIC, {"model": "m", "messages": HELLO}),
    "generateContent": (Dialect.GEMINI, {"contents": [{"parts": [{"text": "hello"}]}]}),
}
STANDARD = {"chat/completions": "default", "responses": "default", "messages": "standard_only"}


def standard_tier(endpoint: str, **fields: Any) -> str:
    """Return what would ask for the priced tier in place of a request."""
    dialect, body = BODIES[endpoint]
    return MODULES[dialect].inspect(endpoint, {**body, **fields}, 99, "m").standard_tier


@pytest.mark.parametrize("endpoint", BODIES)
def test_a_request_that_names_no_tier_leaves_it_open(endpoint: str) -> None:
    """Where there are tiers; free counting, embeddings and Gemini have none that a default could choose."""
    assert standard_tier(endpoint) == STANDARD.get(endpoint, "")


@pytest.mark.parametrize("endpoint", STANDARD)
def test_auto_names_no_tier(endpoint: str) -> None:
    """It lets the provider's account decide, as null does; the standard one leaves nothing open."""
    assert standard_tier(endpoint, service_tier="auto") == STANDARD[endpoint]
    assert standard_tier(endpoint, service_tier=None) == STANDARD[endpoint]
    assert standard_tier(endpoint, service_tier=STANDARD[endpoint]) == ""


@pytest.mark.parametrize("endpoint", STANDARD)
@pytest.mark.parametrize("tier", ["priority", "flex", "fast", "scale", "batch", "AUTO", ["auto"], {"tier": "auto"}, 1])
def test_a_tier_without_a_price_is_refused(endpoint: str, tier: object) -> None:
    """Whoever asks for it by name is told, and not given another one."""
    with pytest.raises(Refusal, match="service_tier"):
        standard_tier(endpoint, service_tier=tier)


@pytest.mark.parametrize("endpoint", STANDARD)
@pytest.mark.parametrize("open_tier", [{}, {"service_tier": "auto"}, {"service_tier": None}])
def test_the_priced_tier_is_put_in_and_nothing_else(endpoint: str, open_tier: dict[str, Any]) -> None:
    """The caller's body is as it was; without a tier to ask for it goes on as it came."""
    dialect, body = BODIES[endpoint]
    body = {**body, **open_tier, "store": False} if endpoint == "responses" else {**body, **open_tier}
    options: dict[str, Any] = {"upstream_model": "m", "output_bound": None, "include_usage": False}
    rewrite, before = MODULES[dialect].rewrite, json.dumps(body)
    assert rewrite(endpoint, body, **options, service_tier="x") == {**body, "service_tier": "x"}
    assert rewrite(endpoint, body, **options) is None
    assert json.dumps(body) == before


@pytest.mark.parametrize(
    ("answer", "served"),
    [
        ({"service_tier": "priority"}, Served("priority")),
        ({"service_tier": "Default", "usage": {}}, Served("default")),
        ({"service_tier": "auto"}, NOT_SAID),
        ({"usage": {"extra_properties": {"google": {"traffic_type": "ON_DEMAND"}}}}, Served("on_demand")),
        ({"usage": {"extra_properties": []}, "service_tier": {}}, NOT_SAID),
        ({}, NOT_SAID),
    ],
)
def test_openai_says_the_tier_beside_the_usage(answer: dict[str, Any], served: Served) -> None:
    """Groq's and OpenRouter's stand there, too; Vertex's stands inside."""
    assert openai.served_by(answer) == served


@pytest.mark.parametrize(
    ("usage", "served"),
    [
        ({"service_tier": "standard", "inference_geo": "global"}, Served("standard", "global")),
        ({"service_tier": "priority", "inference_geo": "us"}, Served("priority", "us")),
        ({"service_tier": "standard", "inference_geo": "not_available"}, Served("standard")),
        ({"service_tier": "standard", "speed": "fast"}, Served("fast")),
        ({"service_tier": "standard", "speed": "standard"}, Served("standard")),
        (None, NOT_SAID),
        ([], NOT_SAID),
    ],
)
def test_anthropic_says_tier_region_and_speed_in_the_usage(usage: object, served: Served) -> None:
    """Fast mode has a price of its own, as a tier has."""
    assert anthropic.served_by({"usage": usage}) == served


@pytest.mark.parametrize(
    ("usage", "served"),
    [
        ({"serviceTier": "flex"}, Served("flex")),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, Served("provisioned_throughput")),
        ({"trafficType": "TRAFFIC_TYPE_UNSPECIFIED"}, NOT_SAID),
        ("flex", NOT_SAID),
    ],
)
def test_gemini_says_tier_or_traffic_in_the_usage(usage: object, served: Served) -> None:
    """The Gemini API the one, Vertex the other."""
    assert gemini.served_by({"usageMetadata": usage}) == served


def events(*found: dict[str, Any]) -> bytes:
    """Return server-sent events."""
    lines = ((f"event: {one['type']}\n" if "type" in one else "") + f"data: {json.dumps(one)}\n\n" for one in found)
    return "".join(lines).encode()


SAID: list[tuple[str, list[dict[str, Any]], Served]] = [
    (
        "chat/completions",
        [
            {"id": "x", "choices": [{"index": 0, "delta": {"content": "hi"}}], "service_tier": "auto"},
            {"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"id": "x", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}, "service_tier": "flex"},
        ],
        Served("flex"),
    ),
    (
        "responses",
        [
            {"type": "response.created", "response": {"id": "x", "service_tier": "default"}},
            {"type": "response.completed", "response": {"id": "x", "service_tier": "priority"}},
        ],
        Served("priority"),
    ),
    (
        "messages",
        [
            {"type": "message_start", "message": {"id": "x", "usage": {"input_tokens": 1, "inference_geo": "us"}}},
            {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 1, "service_tier": "priority"}},
            {"type": "message_stop"},
        ],
        Served("priority", "us"),
    ),
    (
        "streamGenerateContent",
        [
            {"candidates": [{}], "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1}},
            {
                "candidates": [{"finishReason": "STOP"}],
                "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2, "serviceTier": "PRIORITY"},
            },
        ],
        Served("priority"),
    ),
]


@pytest.mark.parametrize(("endpoint", "stream", "served"), SAID, ids=[said[0] for said in SAID])
def test_a_stream_says_it_in_its_last_word(endpoint: str, stream: list[dict[str, Any]], served: Served) -> None:
    """Its first event may repeat what was asked for."""
    dialect = BODIES[endpoint][0] if endpoint in BODIES else Dialect.GEMINI
    meter = MODULES[dialect].Meter(endpoint, sse=True)
    meter.feed(events(*stream))
    meter.finish()
    assert meter.report is not None or endpoint == "responses"
    assert meter.served == served
