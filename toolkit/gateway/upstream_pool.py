"""The upstreams behind one small interface: an exchange with its time limits, and what can go wrong in words of ours.

The HTTP client is our own, on the parser that also reads the callers' requests: it was chosen by measurement, see
benchmarks/clients.py.
"""

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Mapping
from types import TracebackType

from toolkit import environment
from toolkit.core.settings import Settings
from toolkit.gateway.http_client import Connection, Pool, request_bytes, split_url

LARGEST_ANSWER = 256 * 1024 * 1024
"""Bytes of a non-streamed answer that are taken before the upstream is given up."""

_WHEN = {
    "retry-after": re.compile(r"\d{1,7}(?:\.\d{1,6})?|[A-Z][a-z]{2}, [0-9A-Za-z :]{20,30}"),
    "retry-after-ms": re.compile(r"\d{1,10}(?:\.\d{1,6})?"),
}
"""Headers that say when to try again, and what they can say: RFC 9110, 10.2.3; milliseconds as OpenAI's SDKs read."""

LARGEST_PIECE = 1024 * 1024
"""Bytes that are decompressed at a time."""


Body = bytes | list[bytes]
"""Of a request: in one piece, or in blocks if it is large."""


class UpstreamBroke(Exception):  # an event of the wire, turned into a refusal by `call`
    """The upstream could not be reached, or its answer ended before its end."""


class NotConfigured(UpstreamBroke):
    """The upstream was not asked: our credential for it is missing or cannot be sent."""


class UpstreamSlow(Exception):
    """The upstream passed a time limit."""


class Exchange:
    """One request to an upstream and its answer. Use as a context manager: leaving it early closes the connection.

    Attributes:
        status, content_type, retry: of the answer, once `send` has returned; `retry` has `Retry-After` and
            `retry-after-ms`, if they say when.
        resent: whether the request was sent a second time.
    """

    def __init__(self, pool: Pool, settings: Settings, url: str, headers: Mapping[str, str], body: Body) -> None:
        self._pool = pool
        self._settings = settings
        self._url = url
        self._headers = headers
        self._body = body
        self._clock = asyncio.get_running_loop().time
        self._deadline = 0.0
        self._connection: Connection | None = None
        self._decoder: zlib._Decompress | None = None
        self.status = 0
        self.content_type = b""
        self.retry: dict[str, str] = {}
        self.resent = False
        self._received = 0
        self._over = False

    @property
    def sent(self) -> bool:
        """Whether the upstream has got the request, or a part of it."""
        return self._connection is not None

    @property
    def announced(self) -> int | None:
        """Bytes that the answer's body says it has; None if it does not say."""
        length = self._connection.headers.get(b"content-length", b"") if self._connection is not None else b""
        return int(length) if length.isdigit() and self._decoder is None else None

    @property
    def received(self) -> int:
        """Bytes of the answer's body that have come, as they were sent."""
        if self._connection is None or self._over:
            return self._received
        return self._connection.received

    def __enter__(self) -> "Exchange":
        self._deadline = self._clock() + self._settings.call_timeout
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._received, self._over = self._connection.received, True  # the next call's bytes are not this one's
            self._connection.release()  # keeps it if the answer was read to its end

    async def send(self) -> None:
        """Send the request and wait for the answer's head.

        Raises:
            UpstreamBroke, UpstreamSlow: no answer.
        """
        limit = self._limit(self._settings.first_byte_timeout)
        try:
            address, opening = split_url(self._url)
            body, self._body = self._body, b""
            first, rest = (body, []) if isinstance(body, bytes) else (b"", body)
            request = request_bytes(opening, self._headers, first, len(first) + sum(map(len, rest)))
            kept = self._pool.kept(address)
            if kept is None or not await self._ask_kept(kept, request, rest, limit):
                fresh = await self._pool.connect(address, min(limit, self._limit(self._settings.connect_timeout)))
                self.resent = kept is not None
                await self._ask(fresh, request, rest, limit)
        except TimeoutError:
            raise UpstreamSlow("no answer within the time limit") from None
        except (OSError, ValueError) as error:  # ValueError: a header or the URL cannot be sent as it is
            raise UpstreamBroke(f"no answer: {_reason(error)}") from None
        assert self._connection is not None  # noqa: S101 - it has answered
        self.status = self._connection.status
        if self.status in {204, 205}:  # whatever it sends behind this, no server may pass it on
            raise UpstreamBroke(f"no answer: its status {self.status} has no content")
        headers = self._connection.headers
        self.content_type = headers.get(b"content-type", b"application/octet-stream")
        if self.status >= 300:
            found = ((name, headers.get(name.encode(), b"").decode("latin-1")) for name in _WHEN)
            self.retry = {name: value for name, value in found if _WHEN[name].fullmatch(value)}
        encoding = headers.get(b"content-encoding", b"identity").lower()
        if encoding in {b"gzip", b"x-gzip", b"deflate"}:  # though we asked for none
            self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)
        elif encoding != b"identity":
            raise UpstreamBroke("no answer: it is encoded in a way that was not asked for")

    async def _ask_kept(self, connection: Connection, request: bytes, rest: list[bytes], limit: float) -> bool:
        """Ask over a connection that served calls before; return False if it was closed without a byte of an answer.

        Servers close what has been idle for long, now and then just as it is used again, and do not say which request
        they have read last. So the request is sent once more, though a provider may have begun on it: a call changes
        nothing there, and the caller would do the same. Where a new connection is closed, the provider's at fault.
        """
        try:
            await self._ask(connection, request, list(rest), limit)
        except ConnectionError:
            if connection.is_answered:
                raise
            return False
        return True

    async def _ask(self, connection: Connection, request: bytes, rest: list[bytes], limit: float) -> None:
        """Send a request, whose `rest` is forgotten as it is sent, and wait for the answer's head."""
        self._connection = connection
        connection.send(request)
        if rest:
            await connection.send_rest(rest, limit)
        await connection.read_head(limit)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the answer's body as it arrives.

        Raises:
            UpstreamBroke, UpstreamSlow: it ended before its end, or paused too long.
        """
        while chunk := await self._next():
            yield chunk

    async def _next(self) -> bytes:
        assert self._connection is not None  # noqa: S101 - `send` comes first
        try:
            # The clock runs while we wait for the upstream, not while a slow caller takes what has come.
            if self._decoder is not None:
                return await self._decoded(self._connection, self._decoder)
            part = self._connection.take()
            return await self._connection.read(self._limit(self._settings.idle_timeout)) if part is None else part
        except TimeoutError:
            raise UpstreamSlow("the answer paused longer than the time limit") from None
        except (ConnectionError, zlib.error) as error:
            raise UpstreamBroke(f"the answer broke off: {_reason(error)}") from None

    async def _decoded(self, connection: Connection, decoder: "zlib._Decompress") -> bytes:
        while True:
            data = decoder.unconsumed_tail or await connection.read(self._limit(self._settings.idle_timeout))
            if decoder.eof:
                if data or decoder.unused_data:  # zlib would keep all of it
                    raise ConnectionError("more than the compressed data came")
                return b""
            if not data:
                raise ConnectionError("the compressed data have no end")
            piece = decoder.decompress(data, LARGEST_PIECE)
            if piece:
                return piece

    async def read_error(self, limit: int) -> bytes:
        """Return the body of an error, or its first `limit` bytes and a little more.

        Raises as `chunks`.
        """
        parts, size = [], 0
        while size <= limit and (chunk := await self._next()):
            size += len(chunk)
            parts.append(chunk)
        return b"".join(parts)

    def _limit(self, seconds: float) -> float:
        return min(self._clock() + seconds, self._deadline)


def _reason(error: Exception) -> str:
    """Return what happened in words that hold nothing of the request or the answer."""
    return str(error) if type(error) is ConnectionError else type(error).__name__


class UpstreamPool:
    """The pool of connections to all upstreams; opened and closed with the gateway."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool: Pool | None = None

    async def open(self) -> None:
        """Make the pool; needs the running event loop."""
        self._pool = Pool()

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            self._pool.close()

    @property
    def call_timeout(self) -> float:
        """Seconds that a whole call may take."""
        return self._settings.call_timeout

    def credential(self, name: str) -> str | None:
        """Return our credential for an upstream, as it stands now: it may be rotated without a restart.

        Raises:
            NotConfigured: the name is none of an upstream's credential; an older row may have any.
        """
        if fault := environment.credential_fault(self._settings, name):
            raise NotConfigured(f"{fault}. `keydesk upstreams update` names another one")
        return environment.upstream_credential(self._settings, name)

    def exchange(self, url: str, headers: Mapping[str, str], body: Body) -> Exchange:
        """Prepare a POST to an upstream."""
        assert self._pool is not None  # noqa: S101 - opened with the gateway
        return Exchange(self._pool, self._settings, url, headers, body)
