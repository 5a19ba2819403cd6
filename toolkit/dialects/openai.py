"""OpenAI's wire format: Chat Completions, Responses and Embeddings, as the API reference describes them."""

import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from toolkit.core.errors import Refusal
from toolkit.core.service_tier import NOT_SAID, Served, word
from toolkit.core.usage import Report
from toolkit.dialects import hosted_tool_items, hosted_tools, openai_usage
from toolkit.dialects.hosted_tools import Left
from toolkit.dialects.meter import MOST_LOOKS_FOR_ID, Fate, StreamMeter, length_of
from toolkit.dialects.model_pages import ALL
from toolkit.dialects.openai_fields import CHAT, COMPACTION, EMBEDDINGS, RESPONSES, TOOLS
from toolkit.dialects.openai_request import ENDPOINTS, inspect, rewrite
from toolkit.dialects.reading import count_of, object_of, objects_of, tells_error, text_of
from toolkit.dialects.shape import ModelInfo
from toolkit.dialects.sse import data_of, name_of

__all__ = [
    "ENDPOINTS",
    "Meter",
    "auth_headers",
    "deployment_path",
    "error_body",
    "error_event",
    "inspect",
    "listed",
    "listing",
    "response_id_of",
    "rewrite",
    "served_by",
    "text_bytes_of",
    "upstream_path",
    "usage_of",
    "with_hosted_items_as_text",
    "without_hosted_tools",
]


def without_hosted_tools(endpoint: str, body: dict[str, Any]) -> Left:
    """Return the body without the tools that it merely offers and the provider would run, and their names."""
    return (body, ()) if endpoint == EMBEDDINGS else hosted_tools.of_openai(body, TOOLS)


def with_hosted_items_as_text(endpoint: str, body: dict[str, Any]) -> Left:
    """Return the body with what tools of the provider did earlier as text, and the names of such items."""
    return hosted_tool_items.of_openai(body, TOOLS) if endpoint in (RESPONSES, COMPACTION) else (body, ())


def upstream_path(endpoint: str, upstream_model: str, stream: bool, *, alt_sse: bool = False) -> str:  # noqa: ARG001
    """Return the path below a base URL that ends in `/v1`."""
    return f"/{endpoint}"


def deployment_path(endpoint: str, deployment: str, api_version: str) -> str:
    """Return the path of Azure's older API, below a base URL that ends in `/openai`.

    Chats and embeddings stand below their deployment, responses beside all; Azure OpenAI, "REST API reference".
    """
    below = f"/deployments/{quote(deployment, safe='')}" if endpoint in (CHAT, EMBEDDINGS) else ""
    return f"{below}/{endpoint}?api-version={api_version}"


def auth_headers(credential: str) -> dict[str, str]:
    """Return the headers that authenticate us to the upstream."""
    return {"authorization": f"Bearer {credential}"}


def usage_of(endpoint: str, answer: dict[str, Any]) -> Report | None:  # noqa: ARG001
    """Return the usage that an answer reports, or None; `openai_usage` says where it may be. Never raises."""
    return openai_usage.usage_of(answer)


def text_bytes_of(endpoint: str, answer: dict[str, Any]) -> int:
    """Return the UTF-8 length of what a whole answer says: text, reasoning and tool arguments."""
    if endpoint not in (RESPONSES, COMPACTION):
        return sum(_spoken(object_of(choice, "message")) for choice in objects_of(answer, "choices"))
    total = 0
    for item in objects_of(answer, "output"):
        total += length_of(item.get("arguments")) + length_of(item.get("input"))
        for name in ("content", "summary"):
            for part in objects_of(item, name):
                total += length_of(part.get("text")) + length_of(part.get("refusal"))
    return total


def served_by(answer: dict[str, Any]) -> Served:
    """Return the tier that served an answer, or an event of a stream.

    Vertex says it inside the usage: Google, "Using OpenAI libraries with Vertex AI".
    """
    tier = answer.get("service_tier")
    if tier is None and isinstance(usage := answer.get("usage"), dict) and "extra_properties" in usage:
        tier = object_of(object_of(usage, "extra_properties"), "google").get("traffic_type")
    return NOT_SAID if tier is None else Served(word(tier))


def response_id_of(answer: dict[str, Any]) -> str | None:
    """Return the provider's id of an answer."""
    return text_of(answer, "id")


# What a plain delta of a chat stream does not have; values that are null, or empty, are in every chunk of some servers.
# An error is a name or a value: vLLM sends {"object": "error", …}. MiniMax tells its own in `base_resp`.
# Alternatives that begin with different letters are passed over in half the time.
_CHAT_NEWS = re.compile(
    rb'"(?:finish_reason"\s*+:\s*+(?!null|"")|usage"\s*+:\s*+(?!null)|error"(?!\s*+:\s*+null)|base_resp")'
)
_MAY_FAIL = re.compile(rb'"error"(?!\s*+:\s*+null)')
_RESPONSES_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class Meter(StreamMeter):
    """Watches a chat or Responses stream. See `StreamMeter`."""

    def __init__(self, endpoint: str, *, sse: bool, drop_usage: bool = False, choices: int = 1) -> None:
        super().__init__(endpoint, sse=sse, drop_usage=drop_usage, choices=choices)
        self._finished: set[int] = set()
        self._looks = 0
        self._judge_event = self._judge_response if endpoint == RESPONSES else self._judge_chat

    def _judge(self, piece: bytes) -> Fate:
        return self._judge_event(piece)

    def _judge_chat(self, piece: bytes) -> Fate:
        if b"[DONE]" in piece and (data_of(piece) or b"").startswith(b"[DONE]"):
            self.complete = self.ended = not self.failed
            return Fate.HOLD
        looking = self.response_id is None and self._looks < MOST_LOOKS_FOR_ID
        if not looking and _CHAT_NEWS.search(piece) is None:
            self._keep(piece)
            return Fate.PASS
        event = self._parse(piece)
        if event is None:
            self._keep(piece)
            return Fate.PASS
        self._looks += 1
        self.response_id = self.response_id or response_id_of(event)
        self.served = self.served.followed_by(served_by(event))
        if tells_error(event):
            return self._fails(piece)
        self._keep(piece)
        reported = usage_of(CHAT, event)
        self._note_report(reported)
        for choice in objects_of(event, "choices"):
            if choice.get("finish_reason"):  # some send an empty one until there is a reason
                self._finished.add(count_of(choice, "index") or 0)
        # Some servers never send [DONE]: their stream is whole when every choice has finished.
        self.complete = self.complete or len(self._finished) >= self._choices
        if self._drop_usage and reported is not None and not event.get("choices"):
            return Fate.DROP
        return Fate.PASS

    def _judge_response(self, piece: bytes) -> Fate:
        name = (name_of(piece) or b"").decode("ascii", "replace")
        if b'"error"' not in piece or _MAY_FAIL.search(piece) is None:
            if name.endswith(".delta"):
                self._keep(piece)
                return Fate.PASS
            if name and name != "error" and name not in _RESPONSES_ENDS and self.response_id is not None:
                return Fate.PASS
        event = self._parse(piece)
        if event is None:
            if name == "error":
                return self._fails(piece)
            return Fate.HOLD if b"[DONE]" in piece else Fate.PASS
        kind = text_of(event, "type")
        response = object_of(event, "response")
        self.response_id = self.response_id or response_id_of(response)
        self.served = self.served.followed_by(served_by(response))
        if kind is not None and kind.endswith(".delta"):
            self._keep(piece)
        if kind in _RESPONSES_ENDS:
            if kind == "response.failed" and not self.ended:
                self._fails(piece)
            self.complete = self.ended = True
            self._note_report(usage_of(RESPONSES, response))
            return Fate.HOLD
        if name == "error" or tells_error(event):
            return self._fails(piece)
        return Fate.PASS

    def _is_end(self, piece: bytes) -> bool:
        if self.endpoint != RESPONSES:
            return (data_of(piece) or b"").startswith(b"[DONE]")
        name = name_of(piece)
        kind = name.decode("ascii", "replace") if name else text_of(self._parse(piece) or {}, "type")
        return kind in _RESPONSES_ENDS

    def _text_bytes(self, event: dict[str, Any]) -> int:
        if self.endpoint == RESPONSES:
            self._shows_reasoning = self._shows_reasoning or event.get("type") == "response.reasoning_text.delta"
            return length_of(event.get("delta"))
        deltas = [object_of(choice, "delta") for choice in objects_of(event, "choices")]
        if not self._shows_reasoning:
            self._shows_reasoning = any(delta.get("reasoning_content") or delta.get("reasoning") for delta in deltas)
        return sum(map(_spoken, deltas))


def _spoken(said: dict[str, Any]) -> int:
    """Return how much text a chat message, or a delta of one, carries."""
    # Compatible servers send reasoning under either of the last two names.
    total = sum(_text_length(said.get(name)) for name in ("content", "refusal"))
    total += _text_length(said.get("reasoning_content")) or _text_length(said.get("reasoning"))
    total += length_of(object_of(said, "function_call").get("arguments"))
    for call in objects_of(said, "tool_calls"):
        total += length_of(object_of(call, "function").get("arguments"))
        total += length_of(object_of(call, "custom").get("input"))
    return total


def _text_length(value: object) -> int:
    """Return the length of text, which may come in chunks: Mistral, "Reasoning", `text` and `thinking`."""
    if not isinstance(value, list):
        return length_of(value)
    chunks = [chunk for chunk in value if isinstance(chunk, dict)]
    thoughts = [thought for chunk in chunks for thought in objects_of(chunk, "thinking")]
    return sum(length_of(chunk.get("text")) for chunk in chunks + thoughts)


def error_body(refusal: Refusal, request_id: str) -> dict[str, Any]:
    """Return the body of an error answer; OpenAI, "Error codes"."""
    error: dict[str, Any] = {
        "message": refusal.message,
        "type": refusal.type.value,
        "code": refusal.type.value,
        "param": refusal.param,
        "request_id": request_id,
    }
    if refusal.details:
        error["details"] = refusal.details
    return {"error": error}


def error_event(refusal: Refusal, request_id: str, *, sse: bool, endpoint: str, started: bool) -> bytes:  # noqa: ARG001
    """Return what ends a stream that broke, so that the official SDK raises.

    The SDKs look for `error` in the data of any event. Of a Responses stream Codex ignores the event `error`: it reads
    `response.failed`, whose `response.error.code` decides whether it asks again; so both are said in one event.
    """
    if endpoint != RESPONSES:
        return b"data: " + json.dumps(error_body(refusal, request_id)).encode() + b"\n\n"
    return failed_response(refusal, request_id, _failure_code(refusal))


def failed_response(refusal: Refusal, request_id: str, code: str) -> bytes:
    """Return the event that ends a Responses stream with a code of the API's."""
    error = error_body(refusal, request_id)["error"] | {"code": code}
    response = {"id": request_id, "object": "response", "status": "failed", "error": error, "output": [], "usage": None}
    event = {"type": "response.failed", "sequence_number": 0, "response": response, "error": error}
    return b"event: response.failed\ndata: " + json.dumps(event).encode() + b"\n\n"


def _failure_code(refusal: Refusal) -> str:
    """Return the code of a response that failed, as the API has it; OpenAI, "The response object", error.

    Codex asks again after `server_error`, and gives up after the two others.
    """
    if refusal.status == HTTPStatus.PAYMENT_REQUIRED:
        return "insufficient_quota"
    return "server_error" if refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_prompt"


def listing(models: Sequence[ModelInfo], asked: Mapping[str, str] = ALL) -> dict[str, Any]:  # noqa: ARG001
    """Return the answer of `GET models`, which has no pages."""
    return {"object": "list", "data": [listed(model) for model in models]}


def listed(model: ModelInfo) -> dict[str, Any]:
    """Return the answer of `GET models/{id}`."""
    return {
        "id": model.id,
        "object": "model",
        "created": int(model.created_at.timestamp()),
        "owned_by": model.owned_by,
    }
