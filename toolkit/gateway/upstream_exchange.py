"""One request to a provider and its answer: its time limits, and what can go wrong in words of ours."""

import asyncio
import re
import zlib
from collections.abc import Awaitable, Mapping
from types import TracebackType

from toolkit.core.account_fault import AccountFault
from toolkit.core.settings import Settings
from toolkit.dialects.sse import has_begun
from toolkit.gateway.connection_faults import REDIRECTS, Misconfigured, redirected
from toolkit.gateway.connection_pool import ConnectionPool
from toolkit.gateway.proxy_tunnel import WANTS_USER, fault_of_user
from toolkit.gateway.request_writing import absolute, request_bytes, split_url
from toolkit.gateway.upstream_connection import UpstreamConnection
from toolkit.gateway.upstream_retry import ask_again_if_closed

LARGEST_ANSWER = 256 * 1024 * 1024
"""Bytes of a non-streamed answer that are taken before the upstream is given up."""

_WHEN = {
    "retry-after": re.compile(r"\d{1,7}(?:\.\d{1,6})?|[A-Z][a-z]{2}, [0-9A-Za-z :]{20,30}"),
    "retry-after-ms": re.compile(r"\d{1,10}(?:\.\d{1,6})?"),
}
"""Headers that say when to try again, and what they can say: RFC 9110, 10.2.3; milliseconds as OpenAI's SDKs read."""

LONGEST_BEGINNING = 64 * 1024
"""Bytes of white space that are waited through for what an answer is; some servers send lines while they work."""

LARGEST_PIECE = 1024 * 1024
"""Bytes that are decompressed at a time."""


_NO_HEADERS: Mapping[bytes, bytes] = {}

Body = bytes | list[bytes]
"""Of a request: in one piece, or in blocks if it is large."""


class UpstreamBroke(Exception):  # an event of the wire, turned into a refusal by `call_failures`
    """The upstream could not be reached, or its answer ended before its end."""


class NotConfigured(UpstreamBroke):
    """The upstream was not asked: our credential for it is missing or cannot be sent.

    Attributes:
        fault: what an operator has to mend.
    """

    fault = AccountFault.UNCONFIGURED


class NoWay(NotConfigured):
    """There is no way to the upstream until an operator has mended it: a proxy, a certificate, or its address."""

    fault = AccountFault.CONNECTION


class UpstreamSlow(Exception):
    """The upstream passed a time limit."""


class Exchange:
    """One request to an upstream and its answer. Use as a context manager: leaving it early closes the connection.

    Attributes:
        status, content_type: of the answer, once `send` has returned.
        resent: whether the request was sent a second time.
        deadline: on the loop's clock, by when all of it must have come; begun with the exchange unless set before.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        settings: Settings,
        url: str,
        headers: Mapping[str, str],
        body: Body,
        method: str = "POST",
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._url = url
        self._method = method
        self._headers = headers
        self._body = body
        self._clock = asyncio.get_running_loop().time
        self.deadline = 0.0
        self._connection: UpstreamConnection | None = None
        self._dead: UpstreamConnection | None = None
        self._decoder: zlib._Decompress | None = None
        self.status = 0
        self.content_type = b""
        self._answer_headers: Mapping[bytes, bytes] = _NO_HEADERS
        self.resent = False
        self._received = 0
        self._over = False
        self._asked_at = self._first_at = self._last_at = 0.0  # on the loop's clock
        self._ahead = b""
        self._idle_limit = settings.idle_timeout

    @property
    def sent(self) -> bool:
        """Whether the upstream has got the request, or a part of it."""
        return self._connection is not None

    @property
    def reached(self) -> bool:
        """Whether the upstream may have made something of the request.

        Not if no connection could be made, or none after a kept one had been closed just as it was used.
        """
        return self._connection is not self._dead

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

    @property
    def asked(self) -> bool:
        """Whether the whole request has been sent, so that the upstream can answer it."""
        return self._asked_at > 0

    @property
    def answering_for(self) -> float:
        """Seconds since the first byte of the answer's body came; while none has, since the whole request was sent."""
        since = self._first_at or self._asked_at
        return self._clock() - since if since else 0.0

    @property
    def silent_for(self) -> float:
        """Seconds since the last bytes of the answer's body came; while none have, since the whole request was sent."""
        since = self._last_at or self._asked_at
        return self._clock() - since if since else 0.0

    @property
    def retry(self) -> dict[str, str]:
        """When the provider says to try again: its `Retry-After` and `retry-after-ms`, once `send` has returned."""
        found = ((name, self.header(name.encode())) for name in _WHEN)
        return {name: value for name, value in found if _WHEN[name].fullmatch(value)}

    def header(self, name: bytes) -> str:
        """Return a header of the answer, once `send` has returned; empty if it has none of that name, in lower case."""
        return self._answer_headers.get(name, b"").decode("latin-1")

    def __enter__(self) -> "Exchange":
        if not self.deadline:
            self.deadline = self._clock() + self._settings.call_timeout
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
            NoWay: nor will there be one.
        """
        limit = self._limit(self._settings.first_byte_timeout)
        try:
            address, opening = split_url(self._url, self._method)
            fields, proxy = self._headers, None
            if self._pool.forwards and not address.tls and (proxy := self._pool.forwarder_of(address)) is not None:
                opening = absolute(opening)
                if proxy.authorization:
                    fields = {**fields, "proxy-authorization": proxy.authorization}
            body, self._body = self._body, b""
            first, rest = (body, []) if isinstance(body, bytes) else (b"", body)
            request = request_bytes(opening, fields, first, len(first) + sum(map(len, rest)))

            def connect() -> Awaitable[UpstreamConnection]:
                self._dead = self._connection
                return self._pool.connect(address, min(limit, self._limit(self._settings.connect_timeout)))

            def ask(connection: UpstreamConnection, *, may_be_repeated: bool) -> Awaitable[None]:
                return self._ask(connection, request, list(rest) if may_be_repeated else rest, limit)

            await ask_again_if_closed(self._pool.kept(address), connect, ask)
        except TimeoutError as error:
            raise UpstreamSlow(str(error) or "no answer within the time limit") from None
        except Misconfigured as error:
            raise NoWay(f"no answer: {error}") from None
        except (OSError, ValueError) as error:  # ValueError: a header or the URL cannot be sent as it is
            raise UpstreamBroke(f"no answer: {_reason(error)}") from None
        assert self._connection is not None  # noqa: S101 - it has answered
        self.status = self._connection.status
        if self.status == WANTS_USER and proxy is not None:
            raise NoWay(f"no answer: {fault_of_user(proxy)}")
        if self.status in {204, 205}:  # whatever it sends behind this, no server may pass it on
            raise UpstreamBroke(f"no answer: its status {self.status} has no content")
        headers = self._answer_headers = self._connection.headers
        if self.status in REDIRECTS:
            raise NoWay(f"no answer: {redirected(self._url, self.status, self.header(b'location'))}")
        self.content_type = headers.get(b"content-type", b"")
        encoding = headers.get(b"content-encoding", b"identity").lower()
        if encoding in {b"gzip", b"x-gzip", b"deflate"}:  # though we asked for none
            self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)
        elif encoding != b"identity":
            raise UpstreamBroke("no answer: it is encoded in a way that was not asked for")

    async def _ask(self, connection: UpstreamConnection, request: bytes, rest: list[bytes], limit: float) -> None:
        """Send a request, whose `rest` is forgotten as it is sent, and wait for the answer's head."""
        self.resent = self._connection is not None
        self._connection = connection
        self._asked_at = 0.0
        connection.send(request)
        if rest:
            await connection.send_rest(rest, limit)
        self._asked_at = self._clock()
        await connection.read_head(limit)

    async def read(self) -> bytes:
        """Return what has come of the answer's body, waiting for it if need be; b"" at its end.

        Raises:
            UpstreamBroke, UpstreamSlow: it ended before its end, or paused too long.
        """
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return ahead
        connection = self._connection
        assert connection is not None  # noqa: S101 - `send` comes first
        try:
            # The clock runs while we wait for the upstream, not while a slow caller takes what has come.
            if self._decoder is None:
                part = connection.take()
                if part is None:
                    limit = self._limit(self._idle_limit)
                    while part is None:
                        await connection.news(limit)
                        part = connection.take()
            else:
                part = await self._decoded(connection, self._decoder)
        except TimeoutError:
            raise UpstreamSlow("the answer paused longer than the time limit") from None
        except (ConnectionError, zlib.error) as error:
            raise UpstreamBroke(f"the answer broke off: {_reason(error)}") from None
        if part:
            self._last_at = self._clock()
            self._first_at = self._first_at or self._last_at
        return part

    async def peek(self) -> bytes:
        """Return the beginning of the answer's body, which `read` returns all the same; b"" if there is none.

        It goes as far as the first byte that is no white space, if that comes soon. Raises as `read`.
        """
        came = await self.read()
        while came and len(came) < LONGEST_BEGINNING and not has_begun(came):
            chunk = await self.read()
            if not chunk:
                break
            came += chunk
        self._ahead = came
        return came

    def expect_end(self, seconds: float, *, at_once: bool = False) -> None:
        """Wait no longer than so many seconds for the next byte: the answer has said all that it had to say.

        Args:
            seconds: which do not extend another limit.
            at_once: it has said so itself, and whatever still comes has so long together.
        """
        self._idle_limit = min(self._idle_limit, seconds)
        if at_once:
            self.deadline = min(self.deadline, self._clock() + seconds)

    async def _decoded(self, connection: UpstreamConnection, decoder: "zlib._Decompress") -> bytes:
        while True:
            data = decoder.unconsumed_tail or await connection.read(self._limit(self._idle_limit))
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

        Raises as `read`.
        """
        parts, size = [], 0
        while size <= limit and (chunk := await self.read()):
            size += len(chunk)
            parts.append(chunk)
        return b"".join(parts)

    def _limit(self, seconds: float) -> float:
        return min(self._clock() + seconds, self.deadline)


def _reason(error: Exception) -> str:
    """Return what happened in words that hold nothing of the request or the answer."""
    return str(error) if type(error) in {ConnectionError, Misconfigured} else type(error).__name__
