"""HTTP/1.1 as the gateway speaks it to providers: one connection, with one POST at a time.

llhttp (Node's parser) reads, asyncio writes. There is nothing here that a gateway must turn off: no redirects,
cookies, credentials from files, or headers of its own but Host and Content-Length. A call that is given up
closes its connection at once. Whether a request is sent again is up to `upstream_retry`.
"""

import asyncio
import select
import socket
from typing import TYPE_CHECKING, cast

import httptools

from toolkit.gateway.connection_faults import fault_of_break
from toolkit.gateway.request_writing import Address

if TYPE_CHECKING:
    from toolkit.gateway.connection_pool import ConnectionPool

READ_AHEAD = 256 * 1024
"""Bytes of an answer that may wait for a slow caller before the upstream is made to wait."""

LARGEST_HEAD = 256 * 1024
"""Bytes after which a head that does not end is given up."""

SWITCHING = 101
"""Status of an answer that is not HTTP from there on."""

NO_CONTENT = frozenset({204, 304})
"""Statuses whose answers have no body, whatever their heads announce (RFC 9112, 6.3)."""


class UpstreamConnection(asyncio.Protocol):
    """One connection. It belongs to one call from when the pool gives it out until `release`.

    Args:
        pool: where it is kept between calls.
        address: where it leads.
        wire: its socket.

    Attributes:
        status, headers: of the answer, once `read_head` has returned; names in lower case, the last of a name wins.
        received: bytes of the answer's body that have come.
    """

    def __init__(self, pool: "ConnectionPool", address: Address, wire: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self.address = address
        self._unread = select.poll()
        self._unread.register(wire, select.POLLIN)
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._limit = 0.0
        self._idle = True
        self._full = False
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._head_size = 0
        self._has_head = False
        self._parts: list[bytes] = []
        self.received = 0
        self._taken = 0
        self._paused = False
        self._done = False
        self._unsent = False
        self._reusable = False
        self._error: ConnectionError | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is not being closed."""
        return not self._transport.is_closing()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come that the loop has not read yet.

        Of a kept connection that would be its end, or bytes that could be taken for the answer of the next call.
        """
        return not self._unread.poll(0)

    @property
    def is_answered(self) -> bool:
        """Whether a byte has come since the request."""
        return self._head_size > 0

    # -- the call -----------------------------------------------------------------------------------------------

    def send(self, request: bytes) -> None:
        """Send a request."""
        self._begin()
        self._idle = False
        self._transport.write(request)

    async def send_rest(self, blocks: list[bytes], limit: float) -> None:
        """Send a large body, as fast as the other side takes it; stop when the answer comes first.

        Args:
            blocks: which are forgotten as they are sent.
            limit: on the loop's clock.

        Raises:
            ConnectionError, TimeoutError: it was not taken.
        """
        blocks.reverse()
        while blocks:
            while self._full and not self._error and not self._has_head:
                await self.news(limit)
            if self._error:
                raise self._error
            if self._has_head:
                self._unsent = True
                return
            self._transport.write(blocks.pop())

    async def read_head(self, limit: float) -> None:
        """Wait for the answer's head.

        Args:
            limit: on the loop's clock.

        Raises:
            ConnectionError, TimeoutError: it did not come.
        """
        while not self._has_head:
            if self._error:
                raise self._error
            await self.news(limit)

    async def read(self, limit: float) -> bytes:
        """Return what has come of the body, waiting for it if need be; b"" at its end.

        Raises:
            ConnectionError, TimeoutError: it ended before its end, or nothing came until `limit`.
        """
        while (part := self.take()) is None:
            await self.news(limit)
        return part

    def take(self) -> bytes | None:
        """Return what has come of the body, b"" at its end; None if there is nothing to return yet.

        Raises:
            ConnectionError: it ended before its end.
        """
        if not self._parts:
            if self._error:
                raise self._error
            return b"" if self._done else None
        parts = self._parts
        self._parts, self._taken = [], self.received
        if self._paused:
            self._resume()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def release(self) -> None:
        """Give the connection back, if its call is over in every respect; else close it."""
        self._idle = True
        if self._reusable and self.is_open and not self._unsent and not self._transport.get_write_buffer_size():
            self._parts = []
            if self._paused:
                self._resume()
            self._pool.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._reusable = False
        self._transport.abort()

    def _resume(self) -> None:
        if self.is_open:
            self._paused = False
            self._transport.resume_reading()

    # -- waiting ------------------------------------------------------------------------------------------------

    def news(self, limit: float) -> "asyncio.Future[None]":
        """Return what is done when anything has happened, or fails with TimeoutError; for one who waits at once.

        Args:
            limit: on the loop's clock.
        """
        waiter = self._waiter = self._loop.create_future()
        self._limit = limit
        if self._timer is None:
            self._timer = self._loop.call_at(limit, self._look)
        elif limit < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(limit, self._look)
        return waiter

    def _look(self) -> None:
        """Fail who waits too long. One timer serves many waits: a stream waits thousands of times, each for long."""
        self._timer, waiter = None, self._waiter
        if waiter is None or waiter.done():
            return
        if self._loop.time() < self._limit:
            self._timer = self._loop.call_at(self._limit, self._look)
        else:
            waiter.set_exception(TimeoutError())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, why: str) -> None:
        if self._error is None:
            self._error = ConnectionError(why)
        self.abort()
        self._wake()

    # -- called by the transport --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class

    def data_received(self, data: bytes) -> None:
        """Read a part of the answer."""
        if self._idle:
            self.abort()  # nothing was asked: what came could be taken for the answer of the next call
            return
        if not self._has_head:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("what came is not HTTP")
            return
        if not self._has_head and self._head_size > LARGEST_HEAD:
            self._fail("the head does not end")
        self._wake()

    def pause_writing(self) -> None:
        """Note that what was written is not taken yet."""
        self._full = True

    def resume_writing(self) -> None:
        """Note that more may be written."""
        self._full = False
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """Note that no more will come: the end of an answer that tells no length, else its break."""
        self._pool.forget(self)
        self._reusable = False
        framed = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        if self._has_head and not framed and error is None and self._error is None:
            self._done = True
        elif not self._done and self._error is None:
            self._error = fault_of_break(error)
        self._wake()
        if self._timer is not None:
            self._timer.cancel()  # it would keep this object until then
            self._timer = None

    # -- called by the parser -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Refuse a second answer."""
        if self._done:
            raise ConnectionError("more than the answer came")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header; trailers do not count."""
        if not self._has_head:
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Note the status; an interim answer (1xx) is none.

        Raises:
            ConnectionError: it is no status of HTTP, or of another protocol that was not asked for (RFC 9110).
        """
        self.status = self._parser.get_status_code()
        if not 100 <= self.status < 600 or self.status == SWITCHING:
            raise ConnectionError("no status of HTTP")
        self._has_head = self.status >= 200

    def on_body(self, part: bytes) -> None:
        """Keep a part of the body until it is read."""
        self._parts.append(part)
        self.received += len(part)
        if self.received - self._taken > READ_AHEAD and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Note the end."""
        if self._has_head:
            self._done = True
            # A server that sends a body where there is none would send it to the next call.
            self._reusable = self._parser.should_keep_alive() and self.status not in NO_CONTENT
        else:
            self.headers = {}
