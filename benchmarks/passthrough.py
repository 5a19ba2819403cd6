"""What a gateway in Python costs before it does anything: bare pass-throughs on the gateway's own server.

    python -m benchmarks.passthrough --port PORT --kind wire|aiohttp|bare|server --upstream URL

No key is asked for; nothing is looked into, counted or logged. `wire` and `aiohttp` are Starlette applications with the
gateway's own HTTP client and with the usual one. `bare` is the first without Starlette, for whole answers only.
`server` has no upstream either and answers by itself: what is left is the server.
"""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.upstream import WHOLE
from toolkit.gateway.connection_pool import ConnectionPool
from toolkit.gateway.request_writing import request_bytes, split_url
from toolkit.gateway.upstream_connection import UpstreamConnection

if TYPE_CHECKING:
    import aiohttp

HEADERS = {"authorization": "Bearer upstream-key", "content-type": "application/json"}
PATH = "/v1/chat/completions"
PATIENCE = 600.0
EVENT_STREAM = "text/event-stream"
CONNECTIONS = 256


class WireForward:
    """Forwards by the gateway's HTTP client."""

    def __init__(self, upstream: str) -> None:
        self._address, self._opening = split_url(upstream + PATH)
        self._pool: ConnectionPool | None = None

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        """Keep the client's connections while the server runs."""
        self._pool = ConnectionPool()
        yield
        self._pool.close()

    async def __call__(self, request: Request) -> Response:
        connection, limit = await self._post(await request.body())
        kind = connection.headers[b"content-type"].decode()
        if kind == EVENT_STREAM:
            return StreamingResponse(self._chunks(connection, limit), connection.status, {"content-type": kind})
        parts = [part async for part in self._chunks(connection, limit)]
        return Response(b"".join(parts), connection.status, {"content-type": kind})

    async def _post(self, body: bytes) -> tuple[UpstreamConnection, float]:
        assert self._pool is not None  # the lifespan comes first
        limit = asyncio.get_running_loop().time() + PATIENCE
        connection = self._pool.kept(self._address) or await self._pool.connect(self._address, limit)
        connection.send(request_bytes(self._opening, HEADERS, body))
        await connection.read_head(limit)
        return connection, limit

    async def _chunks(self, connection: UpstreamConnection, limit: float) -> AsyncIterator[bytes]:
        try:
            while part := await connection.read(limit):
                yield part
        finally:
            connection.release()


class AiohttpForward:
    """Forwards by aiohttp, set up for speed: nothing is decoded, no cookies are kept."""

    def __init__(self, upstream: str) -> None:
        self._url = upstream + PATH
        self._session: aiohttp.ClientSession | None = None

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        """Keep the client's connections while the server runs."""
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_read=PATIENCE),
        )
        yield
        await self._session.close()

    async def __call__(self, request: Request) -> Response:
        assert self._session is not None  # the lifespan comes first
        answer = await self._session.post(self._url, data=await request.body(), headers=HEADERS)
        kind = answer.headers["content-type"]
        if kind == EVENT_STREAM:
            return StreamingResponse(self._chunks(answer), answer.status, {"content-type": kind})
        return Response(await answer.read(), answer.status, {"content-type": kind})

    async def _chunks(self, answer: "aiohttp.ClientResponse") -> AsyncIterator[bytes]:
        async for part in answer.content.iter_any():
            yield part


class BareForward(WireForward):
    """Forwards by the gateway's HTTP client, as an ASGI application without Starlette."""

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward one request."""
        if scope["type"] == "lifespan":
            async with self.lifespan(None):
                await _live(receive, send)
        else:
            connection, limit = await self._post(await _body(receive))
            parts = [part async for part in self._chunks(connection, limit)]
            await _answer(send, b"".join(parts))


async def answer_alone(scope: Scope, receive: Receive, send: Send) -> None:
    """Read a request and answer it, as an ASGI application without anything."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    else:
        await _body(receive)
        await _answer(send, WHOLE)


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _answer(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def create_app(kind: str, upstream: str) -> ASGIApp:
    """Return a pass-through of that kind to an upstream."""
    if kind == "server":
        return answer_alone
    if kind == "bare":
        return BareForward(upstream).app
    forward = WireForward(upstream) if kind == "wire" else AiohttpForward(upstream)

    async def handle(request: Request) -> Response:
        return await forward(request)

    return Starlette(routes=[Route(PATH, handle, methods=["POST"])], lifespan=forward.lifespan)


def main() -> None:
    """Serve until the process is told to stop, with the options that the gateway's server has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--kind", choices=["wire", "aiohttp", "bare", "server"], required=True)
    parser.add_argument("--upstream", required=True)
    given = parser.parse_args()
    options: dict[str, Any] = {"access_log": False, "server_header": False, "proxy_headers": False, "ws": "none"}
    options["interface"] = "asgi3"
    uvicorn.run(create_app(given.kind, given.upstream), port=given.port, log_level="warning", **options)


if __name__ == "__main__":
    main()
