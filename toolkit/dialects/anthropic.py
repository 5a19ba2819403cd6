"""Anthropic's wire format: the Messages API, as its reference describes it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.core.errors import Refusal
from toolkit.core.service_tier import Served, word
from toolkit.core.usage import Report
from toolkit.dialects import anthropic_usage, hosted_tool_items, hosted_tools
from toolkit.dialects.anthropic_fields import TOOLS
from toolkit.dialects.anthropic_request import COUNT_TOKENS, ENDPOINTS, MESSAGES, inspect, rewrite
from toolkit.dialects.body import invalid
from toolkit.dialects.hosted_tools import Left
from toolkit.dialects.meter import Fate, StreamMeter, length_of
from toolkit.dialects.model_pages import ALL, page_size
from toolkit.dialects.reading import object_of, objects_of, tells_error, text_of
from toolkit.dialects.shape import ModelInfo
from toolkit.dialects.sse import name_of

__all__ = [
    "COUNT_TOKENS",
    "ENDPOINTS",
    "MESSAGES",
    "Meter",
    "auth_headers",
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

REFUSAL = "refusal"
"""Why an answer stopped that classifiers ended; Anthropic, "Handle streaming refusals"."""


def without_hosted_tools(endpoint: str, body: dict[str, Any]) -> Left:  # noqa: ARG001
    """Return the body without the tools that it merely offers and the provider would run, and their names."""
    return hosted_tools.of_anthropic(body, TOOLS)


def with_hosted_items_as_text(endpoint: str, body: dict[str, Any]) -> Left:  # noqa: ARG001
    """Return the body with what tools of the provider did earlier as text, and the names of such blocks."""
    return hosted_tool_items.of_anthropic(body, TOOLS)


def upstream_path(endpoint: str, upstream_model: str, stream: bool, *, alt_sse: bool = False) -> str:  # noqa: ARG001
    """Return the path below a base URL without `/v1`."""
    return f"/v1/{endpoint}"


def auth_headers(credential: str) -> dict[str, str]:
    """Return the headers that authenticate us to the upstream."""
    return {"x-api-key": credential}


def usage_of(endpoint: str, answer: dict[str, Any]) -> Report | None:
    """Return the usage that an answer reports, or None; token counting is free. Never raises."""
    if endpoint == COUNT_TOKENS:
        return None
    usage = answer.get("usage")
    report = anthropic_usage.usage_of(usage) if isinstance(usage, dict) else None
    if answer.get("stop_reason") == REFUSAL and not any(map(_is_output, objects_of(answer, "content"))):
        return anthropic_usage.refused(report)
    return report


def _is_output(block: dict[str, Any]) -> bool:
    """Whether a block of an answer holds anything: all but an empty text do, though thinking may not be shown."""
    return block.get("type") != "text" or bool(block.get("text"))


def text_bytes_of(endpoint: str, answer: dict[str, Any]) -> int:  # noqa: ARG001
    """Return the UTF-8 length of what a whole answer says: text, thinking and tool arguments."""
    total = 0
    for block in objects_of(answer, "content"):
        total += sum(length_of(block.get(name)) for name in ("text", "thinking"))
        if block.get("input") is not None:
            total += length_of(json.dumps(block["input"], ensure_ascii=False, separators=(",", ":")))
    return total


def served_by(answer: dict[str, Any]) -> Served:
    """Return the tier and region that served an answer, or an event of a stream that has a usage.

    Fast mode is priced as a tier is, and is said beside it; Anthropic, "Fast mode".
    """
    usage = object_of(answer, "usage")
    tier = "fast" if usage.get("speed") == "fast" else word(usage.get("service_tier"))
    return Served(tier, word(usage.get("inference_geo")))


def response_id_of(answer: dict[str, Any]) -> str | None:
    """Return the provider's id of an answer."""
    return text_of(answer, "id")


class Meter(StreamMeter):
    """Watches a stream of messages. See `StreamMeter`."""

    missing_end = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'

    def __init__(self, endpoint: str, *, sse: bool, drop_usage: bool = False, choices: int = 1) -> None:
        super().__init__(endpoint, sse=sse, drop_usage=drop_usage, choices=choices)
        self._refused = False
        self._unseen_output = False

    @property
    def report(self) -> Report | None:
        """What the upstream has reported so far, and whether it refused before any output."""
        if self._refused and not self._unseen_output and not self.output_seen:
            return anthropic_usage.refused(self._report)
        return self._report

    def _judge(self, piece: bytes) -> Fate:
        if piece.startswith(b"event: content_block_delta"):
            self._keep(piece)
            return Fate.PASS
        name = name_of(piece)
        if name in (b"ping", b"content_block_stop"):
            return Fate.PASS
        if name == b"error":
            return self._fails(piece)
        event = self._parse(piece)
        if event is None:
            return Fate.PASS
        kind = event.get("type")
        if kind == "message_start":
            message = object_of(event, "message")
            self.response_id = response_id_of(message)
            self._note(message, first=True)
        elif kind == "message_delta":
            self._note(event)
            # All has been said then, and usage is final; some servers forget the event behind it.
            self.complete = self.complete or bool(object_of(event, "delta").get("stop_reason"))
        elif kind == "content_block_start":
            self._unseen_output = self._unseen_output or _is_output(object_of(event, "content_block"))
            self._keep(piece)
        elif kind == "content_block_delta":
            self._keep(piece)
        elif kind == "message_stop":
            self.complete = self.ended = not self.failed
            return Fate.HOLD
        elif tells_error(event):
            return self._fails(piece)
        return Fate.PASS

    def _is_end(self, piece: bytes) -> bool:
        return name_of(piece) == b"message_stop" or (self._parse(piece) or {}).get("type") == "message_stop"

    def _note(self, part: dict[str, Any], *, first: bool = False) -> None:
        self.served = self.served.followed_by(served_by(part))
        reasons = part.get("stop_reason"), object_of(part, "delta").get("stop_reason")
        self._refused = self._refused or REFUSAL in reasons
        report = anthropic_usage.usage_of(object_of(part, "usage"), self._report)
        if report is not None and first:
            report.output_missing = True  # it is made from now on
        self._note_report(report)

    def _text_bytes(self, event: dict[str, Any]) -> int:
        delta = object_of(event, "delta") or object_of(event, "content_block")
        return sum(length_of(delta.get(name)) for name in ("text", "partial_json", "thinking"))


_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    414: "invalid_request_error",
    415: "invalid_request_error",
    426: "invalid_request_error",
    429: "rate_limit_error",
    431: "request_too_large",
    500: "api_error",
    502: "api_error",
    422: "invalid_request_error",
    503: "overloaded_error",
    529: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic, "Errors": the broad type of each status."""


_OBEYED_CODES = {"thread": "thread_unsupported_request"}
"""What the SDKs act upon, by the field at fault: told this, their tool runners send the whole conversation themselves.

Source: anthropic-sdk-typescript, `ThreadUnsupportedRequestErrorDetails`; the Python SDK's runner does the same.
"""


def error_body(refusal: Refusal, request_id: str) -> dict[str, Any]:
    """Return the body of an error answer; `error.details.error_code` is our own type, or a code that the SDKs obey."""
    details: dict[str, Any] = {"error_code": _OBEYED_CODES.get(refusal.param or "", refusal.type.value)}
    if refusal.param is not None:
        details["param"] = refusal.param
    return {
        "type": "error",
        "error": {
            "type": _ERROR_TYPES.get(refusal.status, "api_error"),
            "message": refusal.message,
            "details": {**details, **refusal.details},
        },
        "request_id": request_id,
    }


def error_event(refusal: Refusal, request_id: str, *, sse: bool, endpoint: str, started: bool) -> bytes:  # noqa: ARG001
    """Return what ends a stream that broke, so that the official SDK raises; Anthropic, "Streaming", errors."""
    return b"event: error\ndata: " + json.dumps(error_body(refusal, request_id)).encode() + b"\n\n"


def listing(models: Sequence[ModelInfo], asked: Mapping[str, str] = ALL) -> dict[str, Any]:
    """Return the answer of `GET models`: the page that is asked for, or all of them; Anthropic, "List models".

    Args:
        models: by their ids, so that a page goes on where it should though its neighbour is gone meanwhile.
        asked: the fields of the query.

    Raises:
        Refusal: invalid_request; the page cannot be told.
    """
    after, before = asked.get("after_id"), asked.get("before_id")
    if after and before:
        raise invalid("'after_id' and 'before_id' exclude each other. Give one.", "before_id")
    size = page_size(asked, "limit")
    if before:
        found = [model for model in models if model.id < before]
        page = found[max(len(found) - size, 0) :]
    else:
        found = [model for model in models if not after or model.id > after]
        page = found[:size]
    return {
        "data": [listed(model) for model in page],
        "has_more": len(page) < len(found),
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
    }


def listed(model: ModelInfo) -> dict[str, Any]:
    """Return the answer of `GET models/{id}`."""
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.display_name,
        "created_at": model.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": model.context_window,
        "max_tokens": model.max_output,
    }
