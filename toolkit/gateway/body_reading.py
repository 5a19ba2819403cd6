"""Reading a request's body as it comes: within the key's limits, in memory if it is small, in its room if it is large.

How long a body may take is the connection's matter (`connection`).
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from toolkit.core.errors import Refusal
from toolkit.core.policy import KeyFacts
from toolkit.dialects.skim import LIGHT_SIZE, is_light
from toolkit.gateway import body_decoding
from toolkit.gateway.body_limits import MEDIA_ALLOWANCE, check_size
from toolkit.gateway.byte_blocks import ByteBlocks
from toolkit.gateway.key_cache import KeyCache
from toolkit.gateway.large_bodies import LargeBodies, LargeBody
from toolkit.gateway.reader_process import Headers
from toolkit.gateway.request import CallRequest


class BodyReader:
    """Reads the bodies of all calls.

    Args:
        key_cache: what keys may call, and with what context.
        bodies: where large ones are kept.
        body_limit: bytes that the gateway takes from anybody.
    """

    def __init__(self, key_cache: KeyCache, bodies: LargeBodies, body_limit: int) -> None:
        self._key_cache = key_cache
        self._bodies = bodies
        self._body_limit = body_limit
        self._certain = min(body_limit, MEDIA_ALLOWANCE)
        self._small = min(self._certain, LIGHT_SIZE)

    async def read(self, receive: Receive, request: CallRequest, key: KeyFacts) -> bytes | LargeBody:
        """Return a request's body; a large one is to be closed.

        Args:
            receive: gives its parts, as they come.
            request: whose headers announce it.
            key: who sends it.

        Raises:
            Refusal: it cannot be unpacked, is larger than any call of the key could need, or there is no room for long.
            ClientDisconnect: the caller has left, or was too slow.
        """
        size, encoding = _announced(request.headers)
        await self._check_size(size, request, key)
        stream = _parts(receive)
        if encoding:
            body_decoding.check(encoding)
            stream, size = body_decoding.decoded(stream, encoding, self._body_limit), 0
        elif size <= self._small:
            first = await receive()
            body, more = first.get("body", b""), first.get("more_body", False)
            if first["type"] == "http.request" and not more and len(body) <= self._small:
                return self._read_small(body, key)  # it came in one part, as nearly all do
            stream = _parts(receive, first)
        async with aclosing(stream):
            if size > LIGHT_SIZE:
                return await self._read_large(await self._bodies.begin(key, size), stream, request, key)
            came = ByteBlocks()
            async for part in stream:
                came.add(part)
                await self._check_size(came.size, request, key)
                if came.size > LIGHT_SIZE:  # it did not say how large it is
                    large = await self._bodies.begin(key, self._body_limit)
                    large.add(b"".join(came.take()))
                    return await self._read_large(large, stream, request, key)
        return self._read_small(b"".join(came.take()), key)

    def _read_small(self, whole: bytes, key: KeyFacts) -> bytes | LargeBody:
        return whole if is_light(whole) else self._bodies.heavy(key, whole)

    async def _read_large(
        self, body: LargeBody, stream: AsyncGenerator[bytes, None], request: CallRequest, key: KeyFacts
    ) -> LargeBody:
        try:
            async for part in stream:
                body.add(part)
                await self._check_size(body.size, request, key)
        except BaseException:
            body.drop()
            raise
        return body

    async def _check_size(self, size: int, request: CallRequest, key: KeyFacts) -> None:
        if size <= self._certain:  # whatever the key may call; most bodies are smaller
            return
        for last in (False, True):
            try:
                check_size(size, key, self._key_cache.catalog, self._key_cache.now(), self._body_limit)
                return
            except Refusal:
                if last:
                    raise
                key = await self._key_cache.current_key(request.digests)  # nobody is refused by what was so once


async def _parts(receive: Receive, first: Message | None = None) -> AsyncGenerator[bytes, None]:
    """Yield the parts of a body, whose first message may have come.

    Raises:
        ClientDisconnect: the caller has left.
    """
    message = first or await receive()
    while message["type"] == "http.request":
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return
        message = await receive()
    raise ClientDisconnect


def _announced(headers: Headers) -> tuple[int, str]:
    """Return the size of a body as it comes, 0 if it is not told, and how it is packed, "" if it is not."""
    named, encoding = dict(headers), ""
    if b"content-encoding" in named:
        for name, value in headers:
            if name == b"content-encoding" and value.lower() != b"identity":
                encoding = value.decode("latin-1").strip().lower()
    size = named.get(b"content-length", b"")
    return int(size) if size.isdigit() else 0, encoding
