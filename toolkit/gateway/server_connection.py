"""Connections as callers make them: HTTP/1.1 read within bounds, on uvicorn's own protocol.

Bounded is what uvicorn leaves open: how large a head, a target, a body and what frames it may be, and how long they
may take. Trailers are dropped, an offer to speak another protocol is declined, and what cannot be read is refused
before the application is asked.
"""

import asyncio
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from toolkit.core.errors import Refusal, RefusalType
from toolkit.gateway import head_parsing
from toolkit.gateway.connection_limits import NEVER, STATE, ConnectionGuard
from toolkit.gateway.flow_control import PIECE
from toolkit.gateway.head_parsing import Stop, unreadable
from toolkit.gateway.response_cycle import ResponseCycle
from toolkit.gateway.timed_connection import TimedConnection
from toolkit.gateway.unframed_cycle import UnframedCycle


class ServerConnection(TimedConnection):
    """One connection. The application finds it in the scope's state, see `connection_limits.prove`."""

    def __init__(
        self,
        guard: ConnectionGuard,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(guard, config, server_state, app_state, _loop)
        self.parser = httptools.HttpRequestParser(self)  # without uvicorn's leniency
        self._watched: head_parsing.Headers = []
        self._offer = b""
        self._chunked = False
        self._chunk = 0  # bytes of the data being parsed
        self._fresh = True  # whether no request has ended in them
        self._framing = 0  # bytes of data since the last that held a part of the body

    # -- called by the transport --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._ending:
            self._let_go(len(data))
        elif len(data) > PIECE and self._is_dense:
            self.flow.divide(data, self._read)
        else:
            self._read(data)

    def _read(self, data: bytes) -> None:
        if self._ending:
            return
        self._chunk = len(data)
        self._fresh = True
        before = self._body_size
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._answer_offer(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse(head_parsing.refusal_of(error))
            return
        self._fed += self._chunk
        cycle = self.cycle
        if self._in_head or cycle is None or not cycle.more_body:
            if self._fed > self._limits.head:
                self._refuse(head_parsing.too_large(self._limits.head, self._limits.headers))
            elif self._in_head and self._resting:
                self._resting = False
                self.deadline = self.loop.time() + self._limits.head_time
        else:
            self._framing = 0 if self._body_size > before else self._framing + self._chunk
            if max(self._framing, self._fed - 2 * self._body_size) > self._limits.head:
                self._refuse(head_parsing.badly_framed())
            elif self._body_begun is None and cycle is self._active:
                self._time_body()

    @property
    def _is_dense(self) -> bool:
        """Whether what comes may be many small things."""
        return self._in_head or self._chunked or self.cycle is None or not self.cycle.more_body

    # -- called by the parser -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._in_head = True
        self._fed = 0 if self._fresh else 1 - self._chunk
        self._watched = []
        self.url = b""
        self.headers = []
        state = self.app_state.copy()
        state[STATE] = self
        self.scope = {  # type: ignore[typeddict-item]
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,  # type: ignore[typeddict-item]
            "root_path": "",
            "headers": self.headers,
            "state": state,
        }

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self.url += url
        if len(self.url) > self._limits.target:
            words = f"The URL is too long: at most {self._limits.target:,} bytes are read."
            raise Stop(Refusal(RefusalType.URI_TOO_LONG, words))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. A trailer comes here too, and goes where nobody looks: it must not pass for a header."""
        name = name.lower()
        if name in head_parsing.WATCHED:
            self._watched.append((name, value))
        self.headers.append((name, value))
        if len(self.headers) > self._limits.headers:  # not when all have been read: thousands come in one piece
            limits = self._limits
            raise Stop(
                head_parsing.too_large(limits.head, limits.headers) if self._in_head else head_parsing.badly_framed()
            )

    def on_headers_complete(self) -> None:
        """Have the request answered, after the one before."""
        self._in_head = self._resting = False
        headers, scope, limits = self.headers, self.scope, self._limits
        # A head that came in one piece is no larger than the piece.
        in_pieces = self._fed > 0 or self._chunk > limits.head
        if in_pieces and head_parsing.size(self.url, headers) > limits.head:
            raise Stop(head_parsing.too_large(limits.head, limits.headers))
        self._fed = -self._chunk
        self._framing = self._body_size = 0
        self._body_begun = None
        version = self.parser.get_http_version()
        if version != "1.1":
            scope["http_version"] = version
        method = scope["method"] = self.parser.get_method().decode("ascii")
        if version not in {"1.1", "1.0"} or method == "CONNECT":
            raise Stop(unreadable("Only HTTP/1.1 is spoken here, and this is no proxy."))
        self._offer, expects, self._chunked = head_parsing.read(self._watched, version)
        if self._offer:
            if self.parser.should_upgrade():
                head_parsing.check_offer(
                    self._offer, takes_websockets=self.ws_protocol_class is not None, busy=self.busy
                )
                return
            self._offer = b""
        raw_path, scope["query_string"] = head_parsing.split(self.url)
        path = raw_path.decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = raw_path
        if self.behind_proxy:
            scope["client"], scope["scheme"] = self._origin()
        self.headers = []  # for trailers
        made = ResponseCycle if version == "1.1" else UnframedCycle
        # Who waits for 100 Continue may send the body or not when the answer comes without it.
        keep_alive = version == "1.1" and not expects and self.parser.should_keep_alive()
        cycle = self.cycle = made(  # by position: Python 3.11 makes a dictionary of a class's keywords
            scope,
            cast("asyncio.Transport", self),
            self.flow,
            self.logger,
            self.access_logger,
            self.access_log,
            self.server_state.default_headers,
            asyncio.Event(),
            expects,
            keep_alive,
            self.on_response_complete,
        )
        if not self.busy:
            self._start(cycle)
        elif len(self.pipeline) < limits.queued:
            self.pipeline.appendleft((cycle, self.app))
            self.flow.hold()
        else:
            raise Stop(unreadable("Wait for answers: too many requests have been sent ahead."))

    def on_body(self, body: bytes) -> None:
        """Take a part of a body; what has been answered already is let go."""
        self._body_size += len(body)
        cycle = self.cycle
        if cycle.response_complete:
            if self._body_size > self._limits.swallowed:
                self.transport.abort()
            self.flow.yield_turn()
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        if self._offer:
            return
        self._fresh = False
        self._fed = -self._chunk
        cycle = self.cycle
        cycle.more_body = False
        if cycle.response_complete:
            self._rest()
            return
        cycle.message_event.set()
        self.deadline = NEVER if self.proven else self.loop.time() + self._limits.answer_time

    # -- called by the request being answered, whose transport this is ------------------------------------------

    def on_response_complete(self) -> None:
        """Go on to the next request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            cycle, _ = self.pipeline.pop()
            self.flow.held = bool(self.pipeline)
            self._start(cycle)
            if cycle.more_body:
                self._time_body()
        elif not self.cycle.more_body and not self._ending:
            self._rest()
        self.flow.resume_reading()

    # -- requests -----------------------------------------------------------------------------------------------

    def _start(self, cycle: RequestResponseCycle) -> None:
        self._active = cycle
        task = self.loop.create_task(cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _answer_offer(self, rest: bytes) -> None:
        """Turn into a websocket; or read a request again without its offer of another protocol, and what follows.

        The parser stops at an offer and takes the body for the other protocol's. But who offers may be answered in
        HTTP/1.1 (RFC 9110, "Upgrade"), and then the body is the request's.
        """
        words = (self.scope["method"].encode(), self.url, self.scope["http_version"].encode())
        opening = b"%b %b HTTP/%b\r\n" % words
        if head_parsing.WEBSOCKET in self._offer:
            self._become_websocket(head_parsing.written(opening, self.headers))
        else:
            self.parser = httptools.HttpRequestParser(self)
            self._read(head_parsing.without_offer(opening, self.headers) + rest)

    def _become_websocket(self, head: bytes) -> None:
        """Hand the connection over to uvicorn's protocol for websockets, which reads the head itself."""
        self._guard.leave(self)
        self.connections.discard(self)
        make: Any = self.ws_protocol_class
        state = {**self.app_state, STATE: self}
        websocket = make(config=self.config, server_state=self.server_state, app_state=state)
        websocket.connection_made(self.transport)
        websocket.client, scheme = self._origin() if self.behind_proxy else (self.client, self.scheme)
        websocket.scheme = "wss" if scheme == "https" else "ws"
        self.transport.set_protocol(websocket)
        websocket.data_received(head)

    def _origin(self) -> tuple[tuple[str, int], str]:
        """Return the client's address and scheme as a trusted proxy tells them; the client's port it does not."""
        peer, port = self._peer
        origin = self._guard.proxies.origin(peer, self.scheme or "http", self.scope["headers"])
        return (origin.address, port if origin.address == peer else 0), origin.scheme
