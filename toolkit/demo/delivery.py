"""How the demo upstream's answers are sent: at their pace, with the faults that were asked for, and noted."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Literal

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from toolkit.demo.answer import Answer, Ask, Dialect, Endpoint, Json, Stream, dump
from toolkit.demo.text import Directives

FIRST_TOKEN_SECONDS = 0.15
TOKENS_PER_SECOND = 60


@dataclass(slots=True)
class Call:
    """What the witness says about one call.

    Args:
        request_id: the header `x-request-id` as it arrived.
        method: the HTTP method.
        path: the path without its query.
        query: names of the query's parameters.
        headers: names of the headers.
        model: as the caller named it.
        body: the JSON that arrived; None for what is no JSON or larger than 1 MB.
        body_sha256: digest of the bytes that arrived.
        state: how far the call has come.
        status: the HTTP status answered.
        chunks_sent: chunks of a stream that were sent, or 1 for a whole body.
        tokens_sent: tokens in them, hidden reasoning left out.
        usage: the usage object that was reported, in the provider's words.
    """

    request_id: str | None
    method: str
    path: str
    query: list[str]
    headers: list[str]
    model: str | None = None
    body: object = None
    body_sha256: str | None = None
    state: Literal["running", "finished", "disconnected", "error"] = "running"
    status: int | None = None
    chunks_sent: int = 0
    tokens_sent: int = 0
    usage: Json | None = None


def refuse(dialect: Dialect, call: Call, status: int, message: str) -> Response:
    """Answer with the provider's error, and say so to the witness."""
    call.state, call.status = "error", status
    body: object = dialect.error(status, message)
    if call.path.endswith(":streamGenerateContent") and "alt" not in call.query:
        body = [body]
    headers = dialect.headers | ({"retry-after": "1"} if status == 429 else {})
    return Response(dump(body).encode("utf-8", "replace"), status, headers, "application/json")


class Late:
    """An answer that waits, unless the client leaves before."""

    def __init__(self, response: Response, call: Call, seconds: float) -> None:
        self._response, self._call, self._seconds = response, call, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer() -> None:
            await asyncio.sleep(self._seconds)
            await self._response(scope, receive, send)

        if not await _unless_gone(answer(), receive):
            self._call.state = "disconnected"


class Delivery:
    """Sends one answer at its pace, fails where it was told to, and notices when the client leaves."""

    def __init__(
        self,
        pace: float,
        call: Call,
        dialect: Dialect,
        kind: Endpoint,
        ask: Ask,
        orders: Directives,
        answer: Answer,
    ) -> None:
        self._call, self._dialect, self._kind = call, dialect, kind
        self._ask, self._orders, self._answer = ask, orders, answer
        self._token_seconds = pace / TOKENS_PER_SECOND
        self._first_seconds = orders.delay + pace * FIRST_TOKEN_SECONDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = self._kind.stream if self._ask.stream else None
        sending = self._send_events(stream, send) if stream else self._send_whole(scope, receive, send)
        if not await _unless_gone(sending, receive):
            self._call.state = "disconnected"

    async def _send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        call, orders, choices = self._call, self._orders, self._answer.choices
        # The choices of one call are written side by side.
        tokens = max((choice.reasoning_tokens + choice.visible_tokens for choice in choices), default=0)
        await asyncio.sleep(self._first_seconds + tokens * self._token_seconds)
        if orders.error_event is not None:
            await refuse(self._dialect, call, 500, "The demo upstream was told to fail.")(scope, receive, send)
            return
        body = dump(self._kind.whole(self._ask, self._answer)).encode("utf-8", "replace")
        half = body[: len(body) // 2]
        call.status = 200
        if orders.break_ is not None:
            call.state = "error"
            await send(_start(self._dialect, "application/json", len(body)))
            await send({"type": "http.response.body", "body": half, "more_body": True})
            return
        if orders.truncate is not None:
            call.state, body = "error", half
        else:
            call.state, call.chunks_sent, call.usage = "finished", 1, self._kind.usage(self._ask, self._answer)
            call.tokens_sent = sum(choice.visible_tokens for choice in choices)
        await send(_start(self._dialect, "application/json", len(body)))
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _send_events(self, stream: Stream, send: Send) -> None:
        call, orders = self._call, self._orders
        await asyncio.sleep(self._first_seconds)
        call.status = 200
        await send(_start(self._dialect, "text/event-stream" if self._ask.framed else "application/json", None))
        faults = [orders.break_, orders.truncate, orders.error_event]
        fault = min((after for after in faults if after is not None), default=None)
        for sent, event in enumerate(stream.events(self._ask, self._answer)):
            if fault is not None and (event.terminal or call.chunks_sent >= fault):
                call.state = "error"
                # Returning without a last part makes the server drop the connection with the body unfinished.
                if orders.break_ is None:
                    failed = orders.error_event is not None
                    last = stream.failure(self._ask, self._answer, sent) if failed else b""
                    await send({"type": "http.response.body", "body": last, "more_body": False})
                return
            if event.tokens:
                if call.chunks_sent:
                    usual = event.tokens * self._token_seconds
                    await asyncio.sleep(usual if orders.chunk_delay is None else orders.chunk_delay)
                call.chunks_sent += 1
                call.tokens_sent += event.tokens
            await send({"type": "http.response.body", "body": event.data, "more_body": True})
        call.state, call.usage = "finished", self._kind.usage(self._ask, self._answer)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _start(dialect: Dialect, media_type: str, length: int | None) -> Json:
    given = {"content-type": media_type, **dialect.headers}
    headers = [(name.encode(), value.encode()) for name, value in given.items()]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return {"type": "http.response.start", "status": 200, "headers": headers}


async def _unless_gone(sending: Awaitable[None], receive: Receive) -> bool:
    """Run `sending` to its end and return True, or cancel it and return False when the client leaves before."""

    async def leaving() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    sender, watcher = asyncio.ensure_future(sending), asyncio.ensure_future(leaving())
    try:
        await asyncio.wait({sender, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if sender.done():
            await sender
            return True
        return False
    finally:
        sender.cancel()
        watcher.cancel()
        await asyncio.gather(sender, watcher, return_exceptions=True)
