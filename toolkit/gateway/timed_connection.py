"""A caller's connection from its making to its end: how long it may wait, and what it is told when it is refused."""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from toolkit.core.errors import Refusal
from toolkit.gateway import head_parsing
from toolkit.gateway.connection_limits import NEVER, ConnectionGuard, network_of
from toolkit.gateway.flow_control import Flow
from toolkit.gateway.head_parsing import unreadable

UNREAD = "sent what is not HTTP, or too much"
SLOW = "were too slow"


class TimedConnection(HttpToolsProtocol):
    """A connection that the connection guard looks after; what is read of it is told by `ServerConnection`.

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
        self._guard = guard
        self._limits = guard.limits
        self.url = b""
        self.proven = False
        self.owner = ""
        self._active: RequestResponseCycle | None = None
        self._ending = False
        self._in_head = False
        self._resting = False  # between two requests
        self._fed = 0  # bytes of data that held nothing but the present head, or the present body and its framing
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

    # -- called by the transport ----------------------------------------------------------------------------------

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

    def shutdown(self) -> None:
        """End once the present answer has been given; at once if there is none."""
        if self._ending and not self.busy:
            self.transport.close()
        else:
            super().shutdown()

    # -- called by the request being answered, whose transport this is --------------------------------------------

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

    # -- called by the connection guard ---------------------------------------------------------------------------

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

    # -- its time -------------------------------------------------------------------------------------------------

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

    # -- its end --------------------------------------------------------------------------------------------------

    def _let_go(self, size: int) -> None:
        """Read no more of what still comes; it has been refused, or answered."""
        self._fed += size
        in_body = self.cycle is not None and self.cycle.more_body
        if self._fed > (self._limits.swallowed if in_body else self._limits.stray):
            self.transport.abort()
        else:
            self.flow.yield_turn()

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
