"""OpenAI's dialect of the demo upstream: chat completions, responses, embeddings, models.

Source: OpenAI API reference, "Chat completions", "Responses", "Streaming events", "Embeddings", "Error codes".
"""

import base64
import hashlib
import struct
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from toolkit.demo import text
from toolkit.demo.answer import (
    EFFORT_TOKENS,
    Answer,
    Ask,
    BadRequest,
    Choice,
    Counts,
    Dialect,
    Endpoint,
    Event,
    Json,
    Stream,
    Tool,
    Turn,
    blocks,
    records,
    said,
    sse,
    whole_number,
)

_ERRORS = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
    503: ("server_error", "service_unavailable"),
}


def error(status: int, message: str) -> Json:
    """Return OpenAI's error body."""
    kind, code = _ERRORS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def models() -> Json:
    """List the demo models; any other name is answered too."""
    names = ("demo-gpt", "demo-gpt-mini", "demo-embedding")
    return {"object": "list", "data": [_model(name) for name in names]}


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 1_767_225_600, "owned_by": "demo"}


def read_chat(body: Json) -> Ask:
    """Read a chat completion request."""
    messages = records(body.get("messages"), "messages")
    if not messages:
        raise BadRequest("messages must hold at least one message")
    tools = [tool["function"] for tool in records(body.get("tools"), "tools") if _is_named(tool.get("function"))]
    prompt = blocks(body["tools"], overhead=0) if body.get("tools") else []
    for message in messages:
        prompt += blocks(message.get("content"))
        if message.get("tool_calls"):
            prompt += blocks(message["tool_calls"], overhead=0)
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        choice = choice.get("function", choice)
    limits = [
        limit
        for name in ("max_tokens", "max_completion_tokens")
        if (limit := whole_number(body.get(name), name)) is not None
    ]
    return Ask(
        model=_named(body),
        body=body,
        prompt=tuple(prompt),
        turns=tuple(_turns(messages)),
        stream=body.get("stream") is True,
        limit=min(limits, default=None),
        choices=whole_number(body.get("n"), "n", most=128) or 1,
        tools=() if choice == "none" else tuple(Tool(tool["name"], tool.get("parameters")) for tool in tools),
        must_call=_must_call(choice),
        parallel=body.get("parallel_tool_calls") is not False,
        reasoning=EFFORT_TOKENS.get(str(body.get("reasoning_effort")), 0),
        schema=_schema(body.get("response_format")),
    )


def _is_named(tool: object) -> bool:
    return isinstance(tool, dict) and isinstance(tool.get("name"), str)


def _named(body: Json) -> str:
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise BadRequest("model must be the name of a model")
    return name


def _must_call(choice: object) -> str | None:
    if isinstance(choice, dict):
        return str(choice.get("name", ""))
    return "" if choice == "required" else None


def _turns(messages: list[Json]) -> Iterator[Turn]:
    for message in messages:
        words = said(message.get("content"))
        if message.get("role") in ("tool", "function"):
            yield Turn(words or "", result=True)
        elif message.get("role") == "user" and words is not None:
            yield Turn(words)


def _schema(wanted: object) -> Any:
    named = wanted.get("json_schema") if isinstance(wanted, dict) else None
    return named.get("schema") if isinstance(named, dict) else None


def chat_usage(_ask: Ask, answer: Answer) -> Json | None:
    """Report the tokens of a chat completion."""
    counts = answer.counts
    if counts is None:
        return None
    return {
        "prompt_tokens": counts.input,
        "completion_tokens": counts.output,
        "total_tokens": counts.input + counts.output,
        "prompt_tokens_details": _input_details(counts) | {"audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": counts.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _input_details(counts: Counts) -> Json:
    written = counts.cache_write_5m + counts.cache_write_1h
    return {"cached_tokens": counts.cached, "cache_write_tokens": written}


def streamed_chat_usage(ask: Ask, answer: Answer) -> Json | None:
    """Report the tokens of a chat completion where its form allows: a stream reports them only when asked to."""
    options = ask.body.get("stream_options")
    asked = isinstance(options, dict) and options.get("include_usage") is True
    return chat_usage(ask, answer) if asked or not ask.stream else None


def whole_chat(ask: Ask, answer: Answer) -> Json:
    """Write a chat completion."""
    body = _chat(ask, answer, "chat.completion") | {
        "choices": [
            {"index": place, "message": _message(choice), "logprobs": None, "finish_reason": choice.finish}
            for place, choice in enumerate(answer.choices)
        ]
    }
    usage = chat_usage(ask, answer)
    return body | {"usage": usage} if usage else body


def _chat(ask: Ask, answer: Answer, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{answer.id}",
        "object": kind,
        "created": answer.created,
        "model": ask.model,
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }


def _message(choice: Choice) -> Json:
    message: Json = {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []}
    if choice.calls:
        message["content"] = None
        message["tool_calls"] = [
            {"id": f"call_{call.id}", "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in choice.calls
        ]
    return message


def chat_events(ask: Ask, answer: Answer) -> Iterator[Event]:
    """Stream a chat completion: deltas, finish reasons, the usage chunk when asked for, `[DONE]`."""
    base = _chat(ask, answer, "chat.completion.chunk")
    # While the caller wants usage, every other chunk says that it has none.
    options = ask.body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage") is True:
        base["usage"] = None

    def event(place: int, delta: Json, *, tokens: int = 0, finish: str | None = None) -> Event:
        choice = {"index": place, "delta": delta, "logprobs": None, "finish_reason": finish}
        return Event(sse(base | {"choices": [choice]}), tokens, terminal=finish is not None)

    for place in range(len(answer.choices)):
        yield event(place, {"role": "assistant", "content": "", "refusal": None})
    streams = [[(place, *delta) for delta in _deltas(choice)] for place, choice in enumerate(answer.choices)]
    for together in zip_longest(*streams):
        for one in together:
            if one is not None:
                yield event(one[0], one[1], tokens=one[2])
    for place, choice in enumerate(answer.choices):
        yield event(place, {}, finish=choice.finish)
    usage = streamed_chat_usage(ask, answer)
    if usage:
        yield Event(sse(base | {"choices": [], "usage": usage}), terminal=True)
    yield Event(b"data: [DONE]\n\n", terminal=True)


def _deltas(choice: Choice) -> Iterator[tuple[Json, int]]:
    for piece, tokens in text.chunks(choice.text):
        yield {"content": piece}, tokens
    for place, call in enumerate(choice.calls):
        head = {"index": place, "id": f"call_{call.id}", "type": "function"}
        yield {"tool_calls": [head | {"function": {"name": call.name, "arguments": ""}}]}, text.count(call.name)
        for piece, tokens in text.chunks(call.arguments):
            yield {"tool_calls": [{"index": place, "function": {"arguments": piece}}]}, tokens


def chat_failure(_ask: Ask, _answer: Answer, _sent: int) -> bytes:
    """End a chat stream in an error."""
    return sse(error(500, "The server had an error while processing your request."))


def read_embeddings(body: Json) -> Ask:
    """Read an embeddings request; the directives are those of its last text."""
    texts = _texts(body.get("input"))
    whole_number(body.get("dimensions"), "dimensions", most=3_072)
    return Ask(
        model=_named(body),
        body=body,
        prompt=tuple(block for one in texts for block in blocks(one, overhead=0)),
        turns=(Turn(texts[-1]),),
        choices=0,
    )


def _texts(value: object) -> list[str]:
    values: list[Any] = value if isinstance(value, list) else [value]
    if values and all(isinstance(one, int) for one in values):
        values = [values]
    # Callers may send token numbers; each is one token here as well.
    texts = [" ".join("x" for _ in one) if isinstance(one, list) else one for one in values]
    if not 0 < len(texts) <= 2_048 or not all(isinstance(one, str) and one for one in texts):
        raise BadRequest("input must be a text, or a list of 1 to 2,048 texts, none of them empty")
    return texts


def embeddings_usage(_ask: Ask, answer: Answer) -> Json | None:
    """Report the tokens of an embeddings call."""
    counts = answer.counts
    return {"prompt_tokens": counts.input, "total_tokens": counts.input} if counts else None


def whole_embeddings(ask: Ask, answer: Answer) -> Json:
    """Write the embeddings, as numbers or in base64."""
    size = ask.body.get("dimensions") or 1_536
    vectors: list[list[float] | str] = [vector(one, size) for one in _texts(ask.body.get("input"))]
    if ask.body.get("encoding_format") == "base64":
        vectors = [base64.b64encode(struct.pack(f"<{size}f", *one)).decode() for one in vectors]
    data = [{"object": "embedding", "index": place, "embedding": one} for place, one in enumerate(vectors)]
    body: Json = {"object": "list", "data": data, "model": ask.model}
    usage = embeddings_usage(ask, answer)
    return body | {"usage": usage} if usage else body


def vector(content: str, size: int) -> list[float]:
    """Make a vector of length 1 that depends on the text alone."""
    shown = text.without_directives(content).encode("utf-8", "replace")
    numbers = struct.unpack(f"<{size}h", hashlib.shake_128(shown).digest(2 * size))
    length = sum(number * number for number in numbers) ** 0.5 or 1.0
    return [number / length for number in numbers]


_HEADERS = {
    "openai-organization": "demo-organisation",
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-remaining-requests": "9999",
    "set-cookie": "demo=1; HttpOnly",
}

DIALECT = Dialect(("authorization",), error, models, _HEADERS, marked_cache=False)
CHAT = Endpoint(read_chat, whole_chat, streamed_chat_usage, Stream(chat_events, chat_failure))
EMBEDDINGS = Endpoint(read_embeddings, whole_embeddings, embeddings_usage)
