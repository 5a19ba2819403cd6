"""The HTTP client behind one small interface, so that it can be chosen by measurement.

aiohttp: middle of the field on plain calls, best on streams, mature; closing an answer closes its connection, so
an upstream whose caller has gone stops working for us.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import TracebackType

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesPayload

from toolkit.settings import Settings

LARGEST_ANSWER = 256 * 1024 * 1024
"""Bytes of a non-streamed answer that are taken before the upstream is given up."""


class UpstreamBroke(Exception):  # an event of the wire, turned into a refusal by `call`
    """The upstream could not be reached, or its answer ended before its end."""


class NotConfigured(UpstreamBroke):
    """The upstream was not asked: our credential for it is missing or cannot be sent."""


class UpstreamSlow(Exception):
    """The upstream passed a time limit."""


class _Body(BytesPayload):
    """A request body that remembers whether it went out."""

    sent = False

    async def write(self, writer: AbstractStreamWriter) -> None:
        self.sent = True
        await super().write(writer)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self.sent = True
        await super().write_with_length(writer, content_length)


class Exchange:
    """One request to an upstream and its answer. Use as a context manager: leaving it early closes the connection.

    Attributes:
        status, content_type, retry_after: of the answer, once `send` has returned.
    """

    def __init__(
        self, session: aiohttp.ClientSession, settings: Settings, url: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        self._session = session
        self._settings = settings
        self._url = url
        self._headers = headers
        self._body = _Body(body)
        self._answer: aiohttp.ClientResponse | None = None
        self._deadline = 0.0
        self.status = 0
        self.content_type = ""
        self.retry_after: str | None = None

    @property
    def sent(self) -> bool:
        """Whether the upstream has got the request, or a part of it."""
        return self._body.sent

    async def __aenter__(self) -> "Exchange":
        self._deadline = asyncio.get_running_loop().time() + self._settings.call_timeout
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._answer is not None:
            self._answer.close()  # gives the connection back if the body was read to its end

    async def send(self) -> None:
        """Send the request and wait for the answer's head.

        Raises:
            UpstreamBroke, UpstreamSlow: no answer.
        """
        try:
            async with asyncio.timeout_at(self._limit(self._settings.first_byte_timeout)):
                self._answer = await self._session.post(
                    self._url, data=self._body, headers=self._headers, allow_redirects=False
                )
        except TimeoutError:
            raise UpstreamSlow("no answer within the time limit") from None
        except (aiohttp.ClientError, ValueError) as error:  # ValueError: a header or the URL cannot be sent as it is
            raise UpstreamBroke(f"no answer: {type(error).__name__}") from None
        self.status = self._answer.status
        self.content_type = self._answer.headers.get("content-type", "application/octet-stream")
        self.retry_after = self._answer.headers.get("retry-after")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the answer's body as it arrives.

        Raises:
            UpstreamBroke, UpstreamSlow: it ended before its end, or paused too long.
        """
        assert self._answer is not None  # noqa: S101 - `send` comes first
        content = self._answer.content
        try:
            while True:
                # The clock runs while we wait for the upstream, not while a slow caller takes what has come.
                async with asyncio.timeout_at(self._limit(self._settings.idle_timeout)):
                    chunk = await content.readany()
                if not chunk:
                    return
                yield chunk
        except TimeoutError:
            raise UpstreamSlow("the answer paused longer than the time limit") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise UpstreamBroke(f"the answer broke off: {type(error).__name__}") from None

    async def read(self, limit: int = LARGEST_ANSWER) -> bytes:
        """Return the whole body.

        Raises:
            UpstreamBroke, UpstreamSlow: as `chunks`; also when it is larger than `limit` bytes.
        """
        parts, size = [], 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > limit:
                raise UpstreamBroke("the answer is too large")
            parts.append(chunk)
        return b"".join(parts)

    def _limit(self, seconds: float) -> float:
        return min(asyncio.get_running_loop().time() + seconds, self._deadline)


class Upstreams:
    """The pool of connections to all upstreams; opened and closed with the gateway."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the pool; needs the running event loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_timeout),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    @property
    def call_timeout(self) -> float:
        """Seconds that a whole call may take."""
        return self._settings.call_timeout

    def credential(self, name: str) -> str | None:
        """Return our credential for an upstream, as it stands now: it may be rotated without a restart."""
        return self._settings.upstream_credential(name)

    def exchange(self, url: str, headers: Mapping[str, str], body: bytes) -> Exchange:
        """Prepare a POST to an upstream."""
        assert self._session is not None  # noqa: S101 - opened with the gateway
        return Exchange(self._session, self._settings, url, headers, body)
