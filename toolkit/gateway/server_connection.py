"""Connections as callers make them: HTTP/1.1 read within bounds, on uvicorn's own protocol.

Bounded is what uvicorn leaves open: how large a head, a target, a body and what frames it may be, and how long they
may take. Trailers are dropped, an offer to speak another protocol is declined, and what cannot be read is refused
before the application is asked.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from toolkit.core.errors import Refusal, RefusalType
from toolkit.gateway import head_parsing
from toolkit.gateway.connection_limits import NEVER, STATE, ConnectionGuard, network_of
from toolkit.gateway.flow_control import PIECE, Flow
from toolkit.gateway.head_parsing import Stop, unreadable
from toolkit.gateway.unframed_cycle import UnframedCycle

UNREAD = "sent what is not HTTP, or too much"
SLOW = "were too slow"


class ServerConnection(HttpToolsProtocol):
    """One connection. The application finds it in the scope's state, see `connection_limits.prove`.

    Attributes:
        proven: whether a valid key or session has come over it; owner says whose.
        deadline: on the loop's clock, when `expire` is called.
        since: on the loop's clock, when it was made.
        network: what its address is counted under.
        behind_proxy: whether its other end is a trusted proxy.
    """

    write: Callable[[bytes], None]
    flow: Flow

    def __init__(
        self,
        guard: ConnectionGuard,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser = httptools.HttpRequestParser(self)  # without uvicorn's leniency
        self._guard = guard
        self._limits = guard.limits
        self.url = b""
        self.proven = False
        self.owner = ""
        self._active: RequestResponseCycle | None = None
        self._ending = False
        self._in_head = False
        self._resting = False  # between two requests
        self._watched: head_parsing.Headers = []
        self._offer = b""
        self._chunked = False
        self._chunk = 0  # bytes of the data being parsed
        self._fresh = True  # whether no request has ended in them
        self._fed = 0  # bytes of data that held nothing but the present head, or the present body and its framing
        self._framing = 0  # bytes of data since the last that held a part of the body
        self._body_size = 0
        self._body_begun: float | None = None
        self._unsent = 0

    @property
    def busy(self) -> bool:
        """Whether a request is being read or answered."""
        return self._active is not None and not self._active.response_complete

    @property
    def waits(self) -> bool:
        """Whether its caller has to send something before there is something to do."""
        return self._active is None or self._active.response_complete or self._active.more_body

    # -- called by the transport --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the time for the first head."""
        super().connection_made(transport)
        self.flow = Flow(transport, self.loop)
        self.write = transport.write
        peer, port = self.client or ("", 0)
        address, _, self.behind_proxy = self._guard.proxies.origin(peer, "http", ())
        self.client = self._peer = (address, port)
        self.network = network_of(address)
        self.since = self.loop.time()
        self.deadline = self.since + self._limits.head_time
        self._guard.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application, if it is answering."""
        self._guard.leave(self)
        super().connection_lost(exc)
        if self._active is not None and not self._active.response_complete:  # uvicorn has told the last one read
            self._active.disconnected = True
            self._active.message_event.set()
        # What refers to this in a circle would wait for the garbage collector, whose look stops everybody.
        self.scope = self.cycle = self._active = None  # type: ignore[assignment]
        self.pipeline.clear()

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

    def _let_go(self, size: int) -> None:
        """Read no more of what still comes; it has been refused, or answered."""
        self._fed += size
        in_body = self.cycle is not None and self.cycle.more_body
        if self._fed > (self._limits.swallowed if in_body else self._limits.stray):
            self.transport.abort()
        else:
            self.flow.yield_turn()

    def shutdown(self) -> None:
        """End once the present answer has been given; at once if there is none."""
        if self._ending and not self.busy:
            self.transport.close()
        else:
            super().shutdown()

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
        made = RequestResponseCycle if version == "1.1" else UnframedCycle
        cycle = self.cycle = made(
            scope=scope,
            transport=cast("asyncio.Transport", self),
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=expects,
            # Who waits for 100 Continue may send the body or not when the answer comes without it.
            keep_alive=version == "1.1" and not expects and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
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

    def is_closing(self) -> bool:
        """Whether no more is read."""
        return self._ending or self.transport.is_closing()

    def close(self) -> None:
        """Close; a caller who still sends gets a moment to read first, for what was sent is lost on a reset."""
        if self.transport.is_closing():
            return
        if self._ending or self.cycle.more_body:
            self._linger()
        else:
            self.deadline = self.loop.time() + self._limits.idle_time
            self.transport.close()

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

    # -- called by the connection guard --------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Do what is due at `deadline`."""
        unsent = self.transport.get_write_buffer_size()
        if unsent not in {0, self._unsent}:  # an answer is being taken, however slowly
            self._unsent = unsent
            self.deadline = now + self._limits.idle_time
        elif self._ending or self.transport.is_closing():
            self.transport.abort()
        elif self._body_begun is not None and self.cycle.more_body:
            self._judge_body(self._body_begun, now)
        elif self.busy and self.proven:
            self.deadline = NEVER
        else:
            if not self._resting:
                self._guard.note(SLOW)
            self.transport.abort()

    # -- requests -----------------------------------------------------------------------------------------------

    def _start(self, cycle: RequestResponseCycle) -> None:
        self._active = cycle
        task = self.loop.create_task(cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _rest(self) -> None:
        """Wait for the next request, whose head may have begun."""
        self._resting = not self._in_head
        limits = self._limits
        self.deadline = self.loop.time() + (limits.idle_time if self.proven and self._resting else limits.head_time)

    def _time_body(self) -> None:
        self._body_begun = self.loop.time()
        self.deadline = self._body_begun + self._limits.body_time

    def _judge_body(self, begun: float, now: float) -> None:
        limits = self._limits
        due = begun + limits.body_time + self._body_size / limits.body_pace
        if self.flow.read_paused:  # it is we who do not read
            self._time_body()
        elif now < due:
            self.deadline = due
        else:
            words = (
                f"The request body came too slowly: it has {limits.body_time:g} seconds, and one more for each "
                f"{limits.body_pace:,} bytes. Send less, or over a faster connection."
            )
            self._refuse(unreadable(words), SLOW)

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

    # -- refusals -----------------------------------------------------------------------------------------------

    def _refuse(self, refusal: Refusal, why: str = UNREAD) -> None:
        """Read no more, and say why unless an answer is under way or has been given."""
        self._guard.note(why)
        self._ending = True
        self._fed = 0
        active = self._active
        if active is None or (active.response_complete and not self.cycle.more_body):
            self._answer(refusal)
        elif active is not self.cycle or not active.more_body:
            # It came after requests that could be read: they are answered.
            if self.pipeline and self.pipeline[0][0].more_body:
                self.pipeline.popleft()
            (self.pipeline[0][0] if self.pipeline else active).keep_alive = False
            self.flow.hold()
        elif active.response_complete:
            self._linger()
        else:
            active.disconnected = True
            active.message_event.set()
            if active.response_started:
                self.transport.abort()
            else:
                self._answer(refusal)

    def _answer(self, refusal: Refusal) -> None:
        path = self.url.partition(b"?")[0].decode("latin-1")
        headers, body = self._guard.front(refusal, path, list(self.scope["headers"]) if self.scope else [])
        length = (b"content-length", str(len(body)).encode())
        lines = [*self.server_state.default_headers, *headers, length, (b"connection", b"close")]
        self.transport.write(head_parsing.written(STATUS_LINE[refusal.status], lines) + body)
        self._linger()

    def _linger(self) -> None:
        """Say that this was all; let go of what still comes for a moment, and close."""
        self._ending = True
        self._fed = 0
        self.deadline = self.loop.time() + self._limits.linger
        self.transport.write_eof()
        self.flow.held = False
        self.flow.resume_reading()
