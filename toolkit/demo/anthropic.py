"""Anthropic's dialect of the demo upstream: messages, token counts, models.

Source: Anthropic API reference, "Messages", "Streaming messages", "Prompt caching", "Extended thinking", "Errors".
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from toolkit.demo import text
from toolkit.demo.answer import (
    Answer,
    Ask,
    BadRequest,
    Block,
    Dialect,
    Endpoint,
    Event,
    Json,
    Stream,
    Tool,
    Turn,
    blocks,
    cache_life,
    records,
    said,
    sse,
    whole_number,
)

_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_CUMULATIVE = (
    *("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
    *("output_tokens", "output_tokens_details"),
)
_THINKING_TOKENS = 64
_STOP = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def error(status: int, message: str) -> Json:
    """Return Anthropic's error body."""
    kind = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": None}


def models() -> Json:
    """List the demo models; any other name is answered too."""
    names = ("demo-claude", "demo-claude-mini")
    data = [
        {
            "type": "model",
            "id": name,
            "display_name": name.replace("-", " ").title(),
            "created_at": "2026-01-01T00:00:00Z",
            "lifecycle": "active",
        }
        for name in names
    ]
    return {"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}


def read(body: Json) -> Ask:
    """Read a messages request."""
    if body.get("max_tokens") is None:
        raise BadRequest("max_tokens: Field required")
    return _read(body)


def _read(body: Json) -> Ask:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("model: must be the name of a model")
    messages = records(body.get("messages"), "messages")
    if not messages:
        raise BadRequest("messages: at least one message is required")
    tools = records(body.get("tools"), "tools")
    prompt: list[Block] = [block for tool in tools for block in blocks(tool, overhead=0)]
    if body.get("system") is not None:
        prompt += blocks(body["system"])
    for message in messages:
        prompt += blocks(message.get("content"))
    if isinstance(body.get("cache_control"), dict) and prompt:
        prompt[-1] = replace(prompt[-1], ttl=cache_life(body["cache_control"]))

    given = body.get("tool_choice")
    choice: Json = given if isinstance(given, dict) else {}
    named = [tool for tool in tools if isinstance(tool.get("name"), str)]
    return Ask(
        model=model,
        body=body,
        prompt=tuple(prompt),
        turns=tuple(_turns(messages)),
        stream=body.get("stream") is True,
        limit=whole_number(body.get("max_tokens"), "max_tokens"),
        tools=()
        if choice.get("type") == "none"
        else tuple(Tool(tool["name"], tool.get("input_schema")) for tool in named),
        must_call=str(choice.get("name", "")) if choice.get("type") in {"any", "tool"} else None,
        parallel=choice.get("disable_parallel_tool_use") is not True,
        reasoning=_thinking(body),
        schema=_schema(body),
    )


def _turns(messages: list[Json]) -> Iterator[Turn]:
    for message in messages:
        if message.get("role") == "user":
            content = message.get("content")
            words = said(content)
            if words is not None:
                yield Turn(words)
            for part in content if isinstance(content, list) else []:
                if isinstance(part, dict) and part.get("type") == "tool_result":
                    yield Turn(said(part.get("content")) or "", result=True)


def _schema(body: Json) -> Any:
    config = body.get("output_config")
    wanted = config.get("format") if isinstance(config, dict) else None
    return wanted.get("schema") if isinstance(wanted, dict) else None


def _thinking(body: Json) -> int:
    given = body.get("thinking")
    thinking: Json = given if isinstance(given, dict) else {}
    match thinking.get("type"):
        case "enabled":
            return min(_THINKING_TOKENS, whole_number(thinking.get("budget_tokens"), "thinking.budget_tokens") or 0)
        case "adaptive":
            return _THINKING_TOKENS
    return 0


def usage(_ask: Ask, answer: Answer) -> Json | None:
    """Report the tokens of a message; the input leaves out what the cache was read or written for."""
    counts = answer.counts
    if counts is None:
        return None
    return {
        "input_tokens": counts.input,
        "cache_creation_input_tokens": counts.cache_write_5m + counts.cache_write_1h,
        "cache_read_input_tokens": counts.cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": counts.cache_write_5m,
            "ephemeral_1h_input_tokens": counts.cache_write_1h,
        },
        "output_tokens": counts.output,
        "output_tokens_details": {"thinking_tokens": counts.reasoning},
        "service_tier": "standard",
    }


def whole(ask: Ask, answer: Answer) -> Json:
    """Write a message."""
    message = _message(ask, answer) | {"content": _content(ask, answer)}
    message["stop_reason"] = _STOP[answer.choices[0].finish]
    reported = usage(ask, answer)
    return message | {"usage": reported} if reported else message


def _message(ask: Ask, answer: Answer) -> Json:
    return {
        "id": f"msg_{answer.id}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _content(ask: Ask, answer: Answer) -> list[Json]:
    choice = answer.choices[0]
    content: list[Json] = []
    if choice.reasoning:
        shown = "" if _omits_thinking(ask) else choice.reasoning
        content.append({"type": "thinking", "thinking": shown, "signature": f"demo{answer.id}"})
    if choice.text:
        content.append({"type": "text", "text": choice.text})
    content += [
        {"type": "tool_use", "id": f"toolu_{call.id}", "name": call.name, "input": json.loads(call.arguments)}
        for call in choice.calls
    ]
    return content


def _omits_thinking(ask: Ask) -> bool:
    thinking = ask.body.get("thinking")
    return isinstance(thinking, dict) and thinking.get("display") == "omitted"


def events(ask: Ask, answer: Answer) -> Iterator[Event]:
    """Stream a message: start, blocks, then the stop reason with the cumulative usage, stop."""
    reported = usage(ask, answer)
    message = _message(ask, answer)
    if reported:
        # Like the provider's, the first count of output is that of the token with which the message starts.
        begun = {"output_tokens": min(1, reported["output_tokens"]), "output_tokens_details": {"thinking_tokens": 0}}
        message["usage"] = reported | begun
    yield _event("message_start", message=message)
    yield _event("ping")
    calls = iter(answer.choices[0].calls)
    for place, block in enumerate(_content(ask, answer)):
        match block["type"]:
            case "thinking":
                yield _start(place, {"type": "thinking", "thinking": "", "signature": ""})
                for piece, tokens in text.chunks(block["thinking"]):
                    yield _delta(place, {"type": "thinking_delta", "thinking": piece}, tokens)
                yield _delta(place, {"type": "signature_delta", "signature": block["signature"]}, 0)
            case "text":
                yield _start(place, {"type": "text", "text": ""})
                for piece, tokens in text.chunks(block["text"]):
                    yield _delta(place, {"type": "text_delta", "text": piece}, tokens)
            case _:
                yield _start(place, block | {"input": {}}, text.count(block["name"]))
                for piece, tokens in text.chunks(next(calls).arguments):
                    yield _delta(place, {"type": "input_json_delta", "partial_json": piece}, tokens)
        yield _event("content_block_stop", index=place)
    ended: Json = {"delta": {"stop_reason": _STOP[answer.choices[0].finish], "stop_sequence": None}}
    if reported:
        ended["usage"] = {name: reported[name] for name in _CUMULATIVE}
    yield Event(sse({"type": "message_delta"} | ended, "message_delta"), terminal=True)
    yield Event(sse({"type": "message_stop"}, "message_stop"), terminal=True)


def _event(name: str, tokens: int = 0, **more: object) -> Event:
    return Event(sse({"type": name, **more}, name), tokens)


def _start(place: int, block: Json, tokens: int = 0) -> Event:
    return _event("content_block_start", tokens, index=place, content_block=block)


def _delta(place: int, delta: Json, tokens: int) -> Event:
    return _event("content_block_delta", tokens, index=place, delta=delta)


def failure(_ask: Ask, _answer: Answer, _sent: int) -> bytes:
    """End a stream in an error."""
    return sse(error(529, "Overloaded"), "error")


def read_count(body: Json) -> Ask:
    """Read a request to count tokens: a messages request without `max_tokens`."""
    ask = _read(body)
    return Ask(ask.model, body, ask.prompt, ask.turns, choices=0)


def whole_count(_ask: Ask, answer: Answer) -> Json:
    """Write the number of input tokens, cached ones included."""
    counts = answer.counts
    kept = counts.cached + counts.cache_write_5m + counts.cache_write_1h if counts else 0
    return {"input_tokens": (counts.input if counts else 0) + kept}


_HEADERS = {
    "anthropic-organization-id": "demo-organisation",
    "anthropic-ratelimit-requests-limit": "10000",
    "anthropic-ratelimit-requests-remaining": "9999",
    "set-cookie": "demo=1; HttpOnly",
}

DIALECT = Dialect(("x-api-key", "authorization"), error, models, _HEADERS, marked_cache=True)
MESSAGES = Endpoint(read, whole, usage, Stream(events, failure))
COUNT_TOKENS = Endpoint(read_count, whole_count, lambda _ask, _answer: None)
