"""What the gateway sends: whole answers, errors in the dialect's envelope, and the headers of both."""

import asyncio
import contextlib
import json
import time
from typing import Any

from starlette.responses import Response
from starlette.types import Send

from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.ids import new_request_id
from toolkit.dialects import MODULES
from toolkit.gateway.client_habits import is_final, told
from toolkit.gateway.credentials import Headers, dialect_of_shared_path
from toolkit.gateway.cross_origin import headers_for_page
from toolkit.gateway.unknown_paths import likely_dialect

JSON = b"application/json"
EVENTS = b"text/event-stream"

PACE = 16_384
"""Bytes a second that the caller of a large answer must take on average, as fast as bodies must come."""

FIRST = 10.0
"""Seconds before that counts."""

NO_RETRY = {"x-should-retry": "false"}
"""What OpenAI's and Anthropic's SDKs, and Claude Code, obey before the status."""

LEFT_OUT = "x-keydesk-left-out"
"""Names what of a request did not go on to the provider."""

PINNED = "x-keydesk-pinned"
"""Names what was asked of the provider though the request left it open, and how."""


def hold_id(request_id: str) -> str:
    """Return the id of a call's hold: it has at most one, so it shares the request's number."""
    return request_id.replace("req_", "hold_", 1)


def head(request_id: str, dialect: Dialect, content_type: bytes, extra: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """Return an answer's headers."""
    number = request_id.encode()
    headers = [(b"content-type", content_type), (b"x-request-id", number)]
    if dialect is Dialect.ANTHROPIC:
        headers.append((b"request-id", number))
    for name, value in extra.items():
        headers.append((name.encode("latin-1"), value.encode("latin-1", "replace")))
    return headers


async def send_whole(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Send an answer in one piece."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_blocks(send: Send, status: int, headers: list[tuple[bytes, bytes]], blocks: list[bytes]) -> None:
    """Send an answer that may be large, as fast as the caller takes it; who is slower than `PACE` gets a part of it.

    Others may wait for the room that it takes.
    """
    if len(blocks) <= 1:
        await send_whole(send, status, headers, b"".join(blocks))
        return
    size = sum(map(len, blocks))
    length = (b"content-length", str(size).encode())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST + size / PACE):
            await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
            for place, block in enumerate(blocks):
                await send({"type": "http.response.body", "body": block, "more_body": place + 1 < len(blocks)})


async def send_json(
    send: Send, status: int, request_id: str, dialect: Dialect, value: Any, extra: dict[str, str] | None = None
) -> None:
    """Send a JSON answer."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    await send_whole(send, status, head(request_id, dialect, JSON, extra or {}), body)


def early_refusal(
    refusal: Refusal, path: str, headers: list[tuple[bytes, bytes]], origins: tuple[str, ...] = ()
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return headers and body of a refusal that arises before a request has been read.

    Args:
        refusal: what is wrong with it.
        path, headers: as far as they are known; they tell in whose envelope to answer.
        origins: of pages that may read it.
    """
    dialect = likely_dialect(path) or dialect_of_shared_path(headers, b"")
    request_id = new_request_id(time.time_ns() // 1_000_000)
    body = json.dumps(MODULES[dialect].error_body(refusal, request_id)).encode()
    return [*head(request_id, dialect, JSON, refusal.headers), *headers_for_page(headers, origins)], body


def refusal_response(
    refusal: Refusal,
    request_id: str,
    dialect: Dialect,
    extra: dict[str, str] | None = None,
    *,
    asked: Headers = (),
) -> Response:
    """Return a refusal so that the dialect's official SDK raises its own typed exception with our message.

    It lets go of where it was raised: frames and what they hold would wait in a circle for the garbage collector.

    Args:
        refusal, request_id, dialect: what is told, of which call, in whose envelope.
        extra: further headers of the answer.
        asked: headers of the request; they tell who obeys what.
    """
    refusal.__traceback__ = refusal.__context__ = None
    headers = refusal.headers | (extra or {})
    if refusal.type is RefusalType.UNAVAILABLE:
        headers = {"retry-after": "1"} | headers
    elif is_final(refusal):
        headers = NO_RETRY | headers
    status, content_type, body = told(refusal, request_id, dialect, asked)
    response = Response(body, status)
    response.raw_headers += head(request_id, dialect, content_type, headers)
    return response


async def send_refusal(
    send: Send,
    refusal: Refusal,
    request_id: str,
    dialect: Dialect,
    extra: dict[str, str] | None = None,
    *,
    asked: Headers = (),
) -> None:
    """Send what `refusal_response` returns, where nothing of Starlette's is at hand."""
    response = refusal_response(refusal, request_id, dialect, extra, asked=asked)
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body})
