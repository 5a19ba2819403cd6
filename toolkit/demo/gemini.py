"""Gemini's dialect of the demo upstream: generated content, token counts, embeddings, models.

Source: Gemini API reference, "Generating content", "Tokens", "Embeddings", "Thinking", "Troubleshooting".
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from toolkit.demo import text
from toolkit.demo.answer import (
    EFFORT_TOKENS,
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
    dump,
    records,
    said,
    sse,
    whole_number,
)
from toolkit.demo.openai import vector

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "NOT_IMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_THINKING_TOKENS = 64
_STOP = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP"}


def error(status: int, message: str) -> Json:
    """Return Gemini's error body."""
    name = _STATUS.get(status, "UNKNOWN" if status >= 500 else "FAILED_PRECONDITION")
    return {"error": {"code": status, "message": message, "status": name}}


def models() -> Json:
    """List the demo models; any other name is answered too."""
    generate, embed = ["generateContent", "countTokens"], ["embedContent", "batchEmbedContents"]
    kinds = {"demo-gemini": generate, "demo-gemini-mini": generate, "demo-gemini-embedding": embed}
    return {
        "models": [
            {
                "name": f"models/{name}",
                "version": "001",
                "displayName": name.replace("-", " ").title(),
                "description": "Answers from this machine.",
                "inputTokenLimit": 1_048_576,
                "outputTokenLimit": 65_536,
                "supportedGenerationMethods": methods,
            }
            for name, methods in kinds.items()
        ]
    }


def _get(value: object, name: str) -> Any:
    """Return a field in either of the two spellings that the provider takes."""
    if not isinstance(value, dict):
        return None
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return value.get(name, value.get(snake))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def read(body: Json) -> Ask:
    """Read a request for content; the path's model is its field `model`."""
    contents = records(body.get("contents"), "contents")
    if not contents:
        raise BadRequest("GenerateContentRequest.contents: contents is not specified")
    tools = records(body.get("tools"), "tools")
    prompt: list[Block] = blocks(tools, overhead=0) if tools else []
    system = _get(body, "systemInstruction")
    if system is not None:
        prompt += blocks(_get(system, "parts") or system)
    for content in contents:
        prompt += blocks(content.get("parts"))
    functions = [
        Tool(one["name"], _get(one, "parametersJsonSchema") or one.get("parameters"))
        for tool in tools
        for one in _list(_get(tool, "functionDeclarations"))
        if isinstance(one, dict) and isinstance(one.get("name"), str)
    ]
    config = _get(body, "generationConfig")
    calling = _get(_get(body, "toolConfig"), "functionCallingConfig")
    mode = str(_get(calling, "mode") or "AUTO").upper()
    allowed = _get(calling, "allowedFunctionNames")
    return Ask(
        model=body["model"],
        body=body,
        prompt=tuple(prompt),
        turns=tuple(_turns(contents)),
        limit=whole_number(_get(config, "maxOutputTokens"), "maxOutputTokens"),
        choices=whole_number(_get(config, "candidateCount"), "candidateCount", most=8) or 1,
        tools=() if mode == "NONE" else tuple(functions),
        must_call=(str(allowed[0]) if isinstance(allowed, list) and allowed else "") if mode == "ANY" else None,
        reasoning=_thinking(_get(config, "thinkingConfig")),
        schema=_get(config, "responseJsonSchema") or _get(config, "responseSchema"),
    )


def _turns(contents: list[Json]) -> Iterator[Turn]:
    for content in contents:
        parts = content.get("parts")
        words = said(parts)
        if content.get("role", "user") == "user" and words is not None:
            yield Turn(words)
        for part in _list(parts):
            given = _get(part, "functionResponse")
            if isinstance(given, dict):
                answer = given.get("response")
                output = answer.get("output") if isinstance(answer, dict) else None
                yield Turn(output if isinstance(output, str) else dump(answer), result=True)


def read_array(body: Json) -> Ask:
    """Read a request for content that is streamed as the elements of one JSON array."""
    return replace(read(body), stream=True, framed=False)


def read_events(body: Json) -> Ask:
    """Read a request for content that is streamed as server-sent events."""
    return replace(read(body), stream=True)


def _thinking(config: object) -> int:
    level = _get(config, "thinkingLevel")
    if isinstance(level, str):
        return EFFORT_TOKENS.get(level.lower(), 0)
    budget = whole_number(_get(config, "thinkingBudget"), "thinkingBudget", least=-1) or 0
    return _THINKING_TOKENS if budget < 0 else min(budget, _THINKING_TOKENS)


def usage(_ask: Ask, answer: Answer) -> Json | None:
    """Report the tokens of a call; thoughts are counted beside the candidates."""
    return _usage(answer, None)


def _usage(answer: Answer, visible: int | None) -> Json | None:
    counts = answer.counts
    if counts is None:
        return None
    shown = counts.visible if visible is None else visible
    reported = {
        "promptTokenCount": counts.input,
        "candidatesTokenCount": shown,
        "totalTokenCount": counts.input + shown + counts.reasoning,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": counts.input}],
    }
    if counts.cached:
        reported["cachedContentTokenCount"] = counts.cached
        reported["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": counts.cached}]
    if counts.reasoning:
        reported["thoughtsTokenCount"] = counts.reasoning
    return reported


def whole(ask: Ask, answer: Answer) -> Json:
    """Write the content of all candidates."""
    candidates = [
        _candidate(place, [part for part, _ in _parts(ask, choice_place=place, answer=answer)], _STOP[choice.finish])
        for place, choice in enumerate(answer.choices)
    ]
    return _body(ask, answer, candidates, usage(ask, answer))


def _body(ask: Ask, answer: Answer, candidates: list[Json], reported: Json | None) -> Json:
    body: Json = {"candidates": candidates, "modelVersion": ask.model, "responseId": answer.id}
    return body | {"usageMetadata": reported} if reported else body


def _candidate(place: int, parts: list[Json], finish: str | None = None) -> Json:
    candidate: Json = {"content": {"parts": parts, "role": "model"}, "index": place}
    return candidate | {"finishReason": finish} if finish else candidate


def _parts(ask: Ask, *, answer: Answer, choice_place: int, size: int | None = None) -> Iterator[tuple[Json, int]]:
    """Write a candidate's parts, texts in pieces of `size` tokens; with the tokens that each one shows."""
    choice = answer.choices[choice_place]
    if choice.reasoning and _get(_get(_get(ask.body, "generationConfig"), "thinkingConfig"), "includeThoughts"):
        for piece, _ in text.chunks(choice.reasoning, size or text.MOST_TOKENS):
            yield {"text": piece, "thought": True}, 0
    for piece, tokens in text.chunks(choice.text, size or 2 * text.MOST_TOKENS):
        yield {"text": piece}, tokens
    for call in choice.calls:
        made = {"id": f"call_{call.id}", "name": call.name, "args": json.loads(call.arguments)}
        signed = {"thoughtSignature": base64.b64encode(call.id.encode()).decode()} if choice.reasoning else {}
        yield {"functionCall": made} | signed, text.count(call.name) + text.count(call.arguments)


def events(ask: Ask, answer: Answer) -> Iterator[Event]:
    """Stream the content; every chunk reports the tokens so far, each candidate's last one why it ended."""
    done = sent = 0
    for place, choice in enumerate(answer.choices):
        for part, tokens in _parts(ask, answer=answer, choice_place=place, size=2):
            done += tokens
            chunk = _body(ask, answer, [_candidate(place, [part])], _usage(answer, done))
            yield Event(_frame(ask, chunk, first=sent == 0), tokens)
            sent += 1
        last = place == len(answer.choices) - 1
        ended = _candidate(place, [{"text": ""}], _STOP[choice.finish])
        chunk = _body(ask, answer, [ended], _usage(answer, done))
        yield Event(_frame(ask, chunk, first=sent == 0) + (b"]" if last and not ask.framed else b""), terminal=True)
        sent += 1


def _frame(ask: Ask, chunk: Json, *, first: bool) -> bytes:
    return sse(chunk) if ask.framed else (b"[" if first else b",\r\n") + dump(chunk).encode("utf-8", "replace")


def failure(ask: Ask, _answer: Answer, sent: int) -> bytes:
    """End a stream in an error."""
    frame = _frame(ask, error(503, "The model is overloaded. Please try again later."), first=sent == 0)
    return frame if ask.framed else frame + b"]"


def read_count(body: Json) -> Ask:
    """Read a request to count tokens, of contents alone or of a whole request."""
    inner = _get(body, "generateContentRequest")
    ask = read((inner if isinstance(inner, dict) else body) | {"model": body["model"]})
    return Ask(ask.model, body, ask.prompt, ask.turns, choices=0)


def whole_count(_ask: Ask, answer: Answer) -> Json:
    """Write the number of input tokens."""
    total = answer.counts.input if answer.counts else 0
    return {"totalTokens": total, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": total}]}


def read_embedding(body: Json) -> Ask:
    """Read a request to embed one content."""
    return read_embeddings({"model": body["model"], "requests": [body]})


def read_embeddings(body: Json) -> Ask:
    """Read a request to embed several contents; the directives are those of the last one."""
    requests = records(body.get("requests"), "requests")
    texts = [said(_get(request.get("content"), "parts")) for request in requests]
    if not texts or None in texts:
        raise BadRequest("each request needs a content with a text")
    for request in requests:
        whole_number(_get(request, "outputDimensionality"), "outputDimensionality", most=3_072)
    prompt = tuple(block for one in texts for block in blocks(one, overhead=0))
    return Ask(body["model"], body, prompt, (Turn(texts[-1] or ""),), choices=0)


def _vectors(ask: Ask) -> list[Json]:
    return [
        {"values": vector(said(_get(one["content"], "parts")) or "", _get(one, "outputDimensionality") or 768)}
        for one in ask.body["requests"]
    ]


def embeddings_usage(_ask: Ask, answer: Answer) -> Json | None:
    """Report the tokens of an embeddings call."""
    counts = answer.counts
    return {"promptTokenCount": counts.input, "totalTokenCount": counts.input} if counts else None


def whole_embedding(ask: Ask, answer: Answer) -> Json:
    """Write one embedding."""
    reported = embeddings_usage(ask, answer)
    body: Json = {"embedding": _vectors(ask)[0]}
    return body | {"usageMetadata": reported} if reported else body


def whole_embeddings(ask: Ask, answer: Answer) -> Json:
    """Write several embeddings."""
    reported = embeddings_usage(ask, answer)
    body: Json = {"embeddings": _vectors(ask)}
    return body | {"usageMetadata": reported} if reported else body


_HEADERS = {"server-timing": "gfet4t7; dur=1", "set-cookie": "demo=1; HttpOnly"}

DIALECT = Dialect(("x-goog-api-key", "authorization"), error, models, _HEADERS, marked_cache=False)
GENERATE = Endpoint(read, whole, usage, Stream(events, failure))
STREAM_EVENTS = Endpoint(read_events, whole, usage, Stream(events, failure))
STREAM_ARRAY = Endpoint(read_array, whole, usage, Stream(events, failure))
COUNT_TOKENS = Endpoint(read_count, whole_count, lambda _ask, _answer: None)
EMBED = Endpoint(read_embedding, whole_embedding, embeddings_usage)
BATCH_EMBED = Endpoint(read_embeddings, whole_embeddings, embeddings_usage)
