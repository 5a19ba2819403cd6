"""Bytes to and from a server, and servers with small limits in a thread of the test's own process."""

import asyncio
import contextlib
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import Receive, Scope, Send

from tests.conftest import wait_until
from toolkit.core.proxies import Proxies
from toolkit.gateway.connection_limits import ConnectionGuard, Limits, prove
from toolkit.gateway.listening import bind
from toolkit.gateway.responses import early_refusal
from toolkit.gateway.server_connection import ServerConnection

PATIENCE = 30.0
"""Seconds for what happens at once on a quiet machine."""

GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


@contextlib.contextmanager
def connected(port: int, host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """Connect; leaving the block hangs up."""
    with socket.create_connection((host, port), timeout=PATIENCE) as client:
        yield client


def to_the_end(client: socket.socket) -> bytes:
    """Return all that comes until the server hangs up, by a reset too."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(1 << 16):
            received += part
    return received


def hung_up(client: socket.socket) -> bool:
    """Whether the server has hung up by now."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def say(port: int, *parts: bytes) -> bytes:
    """Send bytes, one part after the other is on its way, and return all that comes until the server hangs up."""
    with connected(port) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for part in parts:
                client.sendall(part)
        return to_the_end(client)


def answers(received: bytes) -> list[int]:
    """Return the status of each answer in what came, wherever it begins."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def error(received: bytes) -> Any:
    """Return the error in the only answer that came."""
    assert len(answers(received)) == 1, received
    return json.loads(received.partition(b"\r\n\r\n")[2])["error"]


@dataclass
class Seen:
    """A request as an application saw it."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    client: tuple[str, int]
    scheme: str
    body: bytes = b""


@dataclass
class Served:
    """A running server whose application notes what it is asked.

    A request whose path is /prove shows a valid key of the owner that its query names; one for /early is answered
    before its body is read; one for /wait is answered once `go_on` is set; one for /say is answered by `says`.
    """

    port: int
    guard: ConnectionGuard
    seen: list[Seen] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    says: list[Any] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 200 with the body that came."""
        seen = Seen(scope["method"], scope["path"], dict(scope["headers"]), scope["client"], scope["scheme"])
        self.seen.append(seen)
        if scope["path"] == "/prove":
            prove(scope, scope["query_string"].decode())
        if scope["path"] == "/wait":
            await asyncio.to_thread(self.go_on.wait, PATIENCE)
        more = scope["path"] != "/early"
        parts = []
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.append(scope["path"])
                return
            parts.append(message["body"])
            more = message["more_body"]
        seen.body = b"".join(parts)
        if scope["path"] == "/say":
            for message in self.says:
                await send(message)
            return
        length = str(len(seen.body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": seen.body})


class Turns:
    """Counts what happens in each turn of a server's loop, from the first that it is told of."""

    def __init__(self) -> None:
        self.counts = Counter[int]()
        self._turn = 0
        self._over = False

    def note(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count something, in the loop."""
        if not self.counts:
            self._next(loop)
        self.counts[self._turn] += 1

    def most(self) -> int:
        """Return the most that has happened in one turn, and count no more turns."""
        self._over = True
        return max(self.counts.values())

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turn += 1
        if not self._over:
            loop.call_soon(self._next, loop)


@contextlib.contextmanager
def served(limits: Limits, proxies: str = "", host: str = "127.0.0.1", **options: Any) -> Iterator[Served]:
    """Run a server with small limits until the block ends.

    Args:
        limits: what its connections are granted.
        proxies: the networks it trusts.
        host: where it listens.
        options: of uvicorn.
    """
    guard = ConnectionGuard(early_refusal, Proxies.parse(proxies, "proxies"), limits)
    sockets = bind(host, 0)
    running = Served(sockets[0].getsockname()[1], guard)
    http = cast("type[asyncio.Protocol]", partial(ServerConnection, guard))
    usual = {"http": http, "log_level": "warning", "lifespan": "off", "ws": "none"}
    config = uvicorn.Config(running, **{**usual, **options})
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
    thread.start()
    try:
        wait_until(lambda: server.started, "the server to start")
        yield running
    finally:
        server.should_exit = True
        running.go_on.set()
        thread.join(PATIENCE)
