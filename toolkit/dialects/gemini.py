"""Gemini's wire format: the Gemini API's REST mapping, as its reference describes it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from toolkit.core.errors import Refusal
from toolkit.core.service_tier import NOT_SAID, Served, word
from toolkit.core.usage import Report
from toolkit.dialects import gemini_usage, hosted_tool_items, hosted_tools
from toolkit.dialects.gemini_fields import TOOL
from toolkit.dialects.gemini_request import (
    BATCH_EMBED,
    COUNT_TOKENS,
    EMBED,
    ENDPOINTS,
    GENERATE,
    STREAM,
    inspect,
    rewrite,
)
from toolkit.dialects.hosted_tools import Left
from toolkit.dialects.meter import MOST_LOOKS_FOR_ID, Fate, StreamMeter, length_of
from toolkit.dialects.model_pages import ALL, page_size
from toolkit.dialects.reading import count_of, object_of, objects_of, text_of
from toolkit.dialects.shape import ModelInfo
from toolkit.dialects.sse import element_of

_VERSION = "/v1beta"

__all__ = [
    "ENDPOINTS",
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


def without_hosted_tools(endpoint: str, body: dict[str, Any]) -> Left:
    """Return the body without the tools that it merely offers and the provider would run, and their names."""
    if endpoint not in (GENERATE, STREAM, COUNT_TOKENS):
        return body, ()
    body, left_out = hosted_tools.of_gemini(body, TOOL)
    for name in ("generateContentRequest", "generate_content_request"):
        if isinstance(inner := body.get(name), dict):
            inner, inside = hosted_tools.of_gemini(inner, TOOL)
            if inside:
                body, left_out = {**body, name: inner}, left_out + inside
    return body, left_out


def with_hosted_items_as_text(endpoint: str, body: dict[str, Any]) -> Left:  # noqa: ARG001
    """Return the body with what tools of the provider did earlier as text, and the names of such parts."""
    return hosted_tool_items.of_gemini(body)


def upstream_path(endpoint: str, upstream_model: str, stream: bool, *, alt_sse: bool = False) -> str:
    """Return the path below a base URL without a version."""
    model = quote(upstream_model.removeprefix("models/"), safe="")
    return f"{_VERSION}/models/{model}:{endpoint}" + ("?alt=sse" if alt_sse and stream else "")


def url_below(base_url: str, path: str) -> str:
    """Return where a path is; a base URL of Vertex AI, which ends with a publisher, has a version in it already.

    Google Cloud, "REST reference" of generative AI on Vertex AI: projects.locations.publishers.models.
    """
    return base_url + (path.removeprefix(_VERSION) if base_url.endswith("/publishers/google") else path)


def auth_headers(credential: str) -> dict[str, str]:
    """Return the headers that authenticate us to the upstream."""
    return {"x-goog-api-key": credential}


def usage_of(endpoint: str, answer: dict[str, Any]) -> Report | None:
    """Return the usage that an answer reports, or None; token counting is free. Never raises."""
    return None if endpoint == COUNT_TOKENS else gemini_usage.usage_of(answer)


def text_bytes_of(endpoint: str, answer: dict[str, Any]) -> int:  # noqa: ARG001
    """Return the UTF-8 length of what an answer, or a piece of one, says: text, thoughts and tool arguments."""
    total = 0
    for candidate in objects_of(answer, "candidates"):
        for part in objects_of(object_of(candidate, "content"), "parts"):
            total += length_of(part.get("text"))
            call = part.get("functionCall")
            if isinstance(call, dict):
                arguments = json.dumps(call.get("args"), ensure_ascii=False, separators=(",", ":"))
                total += length_of(arguments)
    return total


def served_by(answer: dict[str, Any]) -> Served:
    """Return the tier that served an answer, or a piece of a stream.

    Google, "UsageMetadata": `serviceTier` of the Gemini API, `trafficType` of Vertex.
    """
    usage = object_of(answer, "usageMetadata")
    return Served(word(usage.get("serviceTier")) or word(usage.get("trafficType")))


def response_id_of(answer: dict[str, Any]) -> str | None:
    """Return the provider's id of an answer."""
    return text_of(answer, "responseId")


class Meter(StreamMeter):
    """Watches a stream of partial answers. See `StreamMeter`.

    Nothing marks the last chunk for sure: one with a `finishReason` may be followed by one that brings only
    usage. So from the first such chunk on, the latest chunk is the one that waits.
    """

    def __init__(self, endpoint: str, *, sse: bool, drop_usage: bool = False, choices: int = 1) -> None:
        super().__init__(endpoint, sse=sse, drop_usage=drop_usage, choices=choices)
        self._announces_end = not sse
        self._reports: list[bytes] = []
        self._finished: set[int] = set()
        self._looks = 0

    @property
    def report(self) -> Report | None:
        """What the upstream has reported so far: the last `usageMetadata`; those before it where it has gaps."""
        self._read_reports()
        return self._report

    def _read_reports(self) -> None:
        later: Report | None = None
        served = NOT_SAID
        while self._reports and (later is None or later.has_gaps):
            event = self._parse(self._reports.pop())
            if event:
                served = served_by(event).followed_by(served)
            earlier = usage_of(self.endpoint, event) if event else None
            later = earlier.followed_by(later) if earlier and later else later or earlier
        self._reports.clear()
        self.served = self.served.followed_by(served)
        self._note_report(later)

    def _judge(self, piece: bytes) -> Fate:
        if self._is_end(piece):
            self.ended = True
            return Fate.HOLD
        if self.failed:
            return Fate.HOLD
        if b'"usageMetadata"' in piece:
            self._reports.append(piece)
        news = b'"finishReason"' in piece or b'"promptFeedback"' in piece or b'"error"' in piece
        if news or (self.response_id is None and self._looks < MOST_LOOKS_FOR_ID):
            self._looks += 1
            event = self._parse(piece)
            if event is None:
                self._keep(piece)
                return Fate.PASS
            self.response_id = self.response_id or response_id_of(event)
            if event.get("error"):
                self.complete = False
                return self._fails(piece)
            self._note_end(event)
        self._keep(piece)
        return Fate.NEXT if self.complete or self._finished else Fate.PASS

    def _note_end(self, event: dict[str, Any]) -> None:
        for candidate in objects_of(event, "candidates"):
            if candidate.get("finishReason") not in (None, "", "FINISH_REASON_UNSPECIFIED"):
                self._finished.add(count_of(candidate, "index") or 0)
        blocked = bool(object_of(event, "promptFeedback").get("blockReason"))
        self.complete = self.complete or blocked or len(self._finished) >= self._choices

    def _is_end(self, piece: bytes) -> bool:
        return not self.sse and not element_of(piece)

    def _fold(self) -> None:
        super()._fold()
        self._read_reports()  # and let go of them

    def _text_bytes(self, event: dict[str, Any]) -> int:
        return text_bytes_of(self.endpoint, event)


_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    414: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    426: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    431: "INVALID_ARGUMENT",
    500: "INTERNAL",
    502: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}
"""Google, "google.rpc.Code": the canonical name of each status; 402 has none of its own."""


def error_body(refusal: Refusal, request_id: str) -> dict[str, Any]:
    """Return the body of an error answer; our own type is the `reason` of its ErrorInfo."""
    metadata = {"request_id": request_id, **refusal.details}
    if refusal.param is not None:
        metadata["param"] = refusal.param
    return {
        "error": {
            "code": refusal.status,
            "message": refusal.message,
            "status": _STATUSES.get(refusal.status, "UNKNOWN"),
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": refusal.type.value,
                    "domain": "keydesk",
                    "metadata": metadata,
                }
            ],
        }
    }


def error_event(refusal: Refusal, request_id: str, *, sse: bool, endpoint: str, started: bool) -> bytes:  # noqa: ARG001
    """Return what ends a stream that broke, so that the official SDK raises.

    Args:
        refusal: what went wrong.
        request_id: ours.
        sse: whether the body is server-sent events; else the error is the array's last element.
        endpoint: not used.
        started: whether an element of the array has been sent.
    """
    body = json.dumps(error_body(refusal, request_id)).encode()
    if sse:
        return b"data: " + body + b"\n\n"
    return (b"," if started else b"[") + body + b"]"


def listing(models: Sequence[ModelInfo], asked: Mapping[str, str] = ALL) -> dict[str, Any]:
    """Return the answer of `GET models`: the page that is asked for, or all of them; Google, "models.list".

    Args:
        models: by their ids; a page's token is the last id before it.
        asked: the fields of the query.

    Raises:
        Refusal: invalid_request; the page cannot be told.
    """
    found = [model for model in models if model.id > asked.get("pageToken", "")]
    page = found[: page_size(asked, "pageSize")]
    answer: dict[str, Any] = {"models": [listed(model) for model in page]}
    return answer | {"nextPageToken": page[-1].id} if len(page) < len(found) else answer


def listed(model: ModelInfo) -> dict[str, Any]:
    """Return the answer of `GET models/{id}`; limits that are not known are left out."""
    embeds = model.max_output == 0
    entry: dict[str, Any] = {
        "name": f"models/{model.id}",
        "version": model.id,
        "displayName": model.display_name,
        "supportedGenerationMethods": [EMBED, BATCH_EMBED] if embeds else [GENERATE, STREAM, COUNT_TOKENS],
    }
    if model.context_window is not None:
        entry["inputTokenLimit"] = model.context_window
    if model.max_output:
        entry["outputTokenLimit"] = model.max_output
    return entry
