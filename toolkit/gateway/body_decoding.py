"""Request bodies that come compressed, as Codex and other clients send them: unpacked piece by piece, within bounds.

No more is unpacked at a time than about `PIECE` bytes, so that what comes out can be counted, and refused, before the
rest is: a small body that unpacks to a huge one costs no more than the limit of any body.
"""

import asyncio
import sys
import zlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Protocol

from toolkit.core.errors import Refusal, RefusalType

ENCODINGS = ("gzip", "deflate", "zstd", "br")
"""What is read; RFC 9110, "Content Codings"; RFC 8878 (Zstandard); RFC 7932 (Brotli)."""

PIECE = 64 * 1024
"""Bytes that are unpacked at a time."""

_TURN = 4
"""Pieces after which others get their turn on the event loop."""

_ZSTD_WINDOW = 23
"""Logarithm of the largest window in bytes: 8 MB; RFC 9659, "Window Sizing for Zstandard Content Encoding"."""

_METHOD, _FRAMED = 0x8F, 8
"""What the first byte of RFC 1950's frame says: method 8, and a window of at most 32 kB."""

_DEFLATE, _GZIP = zlib.MAX_WBITS, zlib.MAX_WBITS + 16


class _Garbled(Exception):
    """What came is not packed as it says."""


class Decoder(Protocol):
    """Unpacks one body."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return about `PIECE` unpacked ones at most; the rest comes by feeding it nothing.

        Raises:
            _Garbled: they cannot be unpacked.
        """

    @property
    def hungry(self) -> bool:
        """Whether no more comes without feeding it."""

    @property
    def ended(self) -> bool:
        """Whether the packed body is complete."""


class _Zlib:
    """gzip, also of several members; deflate, also without the frame of RFC 1950, which some clients leave away."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._unpack = zlib.decompressobj(window)
        self._left = b""
        self._begun = False
        self._full = False

    def feed(self, data: bytes) -> bytes:
        data = self._left + data
        if not self._begun and data:
            self._begun = True
            if self._window == _DEFLATE and data[0] & _METHOD != _FRAMED:
                self._unpack = zlib.decompressobj(-_DEFLATE)
        elif self._unpack.eof and data:
            if self._window != _GZIP:
                raise _Garbled
            self._unpack = zlib.decompressobj(self._window)
        try:
            piece = self._unpack.decompress(data, PIECE)
        except zlib.error:
            raise _Garbled from None
        self._left = self._unpack.unused_data if self._unpack.eof else self._unpack.unconsumed_tail
        self._full = len(piece) == PIECE
        return piece

    @property
    def hungry(self) -> bool:
        return not self._left and not self._full

    @property
    def ended(self) -> bool:
        return self._unpack.eof and not self._left


class _Zstd:
    """Zstandard, also of several frames."""

    def __init__(self) -> None:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd

        self._error = zstd.ZstdError
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
        self._new: Callable[[], Any] = lambda: zstd.ZstdDecompressor(options=options)
        self._unpack = self._new()
        self._left = b""

    def feed(self, data: bytes) -> bytes:
        data = self._left + data
        if self._unpack.eof:
            if not data:
                return b""
            self._unpack = self._new()
        try:
            piece: bytes = self._unpack.decompress(data, PIECE)
        except self._error:
            raise _Garbled from None
        self._left = self._unpack.unused_data if self._unpack.eof else b""
        return piece

    @property
    def hungry(self) -> bool:
        return not self._left and bool(self._unpack.eof or self._unpack.needs_input)

    @property
    def ended(self) -> bool:
        return bool(self._unpack.eof) and not self._left


class _Brotli:
    """Brotli."""

    def __init__(self) -> None:
        import brotli

        self._error = brotli.error
        self._unpack = brotli.Decompressor()
        self._full = False

    def feed(self, data: bytes) -> bytes:
        if self._unpack.is_finished():
            if data:
                raise _Garbled
            return b""
        try:
            piece: bytes = self._unpack.process(data, output_buffer_limit=PIECE)
        except self._error:
            raise _Garbled from None
        self._full = len(piece) >= PIECE
        return piece

    @property
    def hungry(self) -> bool:
        return bool(self._unpack.is_finished() or (self._unpack.can_accept_more_data() and not self._full))

    @property
    def ended(self) -> bool:
        return bool(self._unpack.is_finished())


_DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": lambda: _Zlib(_GZIP),
    "x-gzip": lambda: _Zlib(_GZIP),
    "deflate": lambda: _Zlib(_DEFLATE),
    "zstd": _Zstd,
    "br": _Brotli,
}


def check(encoding: str) -> None:
    """See that a body's `Content-Encoding`, in lower case, is one that is read.

    Raises:
        Refusal: unsupported_encoding, naming those that are.
    """
    if encoding not in _DECODERS:
        known = ", ".join(ENCODINGS)
        raise Refusal(
            RefusalType.UNSUPPORTED_ENCODING,
            f"The body's Content-Encoding is none of {known}, alone. Send it in one of them, or uncompressed.",
            headers={"accept-encoding": known},
        )


async def decoded(stream: AsyncGenerator[bytes, None], encoding: str, most: int) -> AsyncGenerator[bytes, None]:
    """Yield an unpacked body, piece by piece.

    Args:
        stream: the parts of the packed one, as they come.
        encoding: as `check` takes it.
        most: bytes of the packed one.

    Raises:
        Refusal: invalid_request, it cannot be unpacked or is cut; request_too_large, it has more than `most` bytes.
    """
    decoder = _DECODERS[encoding]()
    came = turns = 0
    async with aclosing(stream):
        async for part in stream:
            came += len(part)
            if came > most:
                words = f"The request body is larger than {most:,} bytes, even packed. Send less in one request."
                raise Refusal(RefusalType.REQUEST_TOO_LARGE, words)
            data = part
            while data or not decoder.hungry:
                try:
                    piece = decoder.feed(data)
                except _Garbled:
                    words = (
                        f"The body is no {encoding}, as its Content-Encoding says. Pack it anew, or send it as it is."
                    )
                    raise Refusal(RefusalType.INVALID_REQUEST, words) from None
                data = b""
                if piece:
                    yield piece
                turns += 1
                if turns % _TURN == 0:
                    await asyncio.sleep(0)
    if not decoder.ended:
        words = f"The body ends in the middle of its {encoding} data. Send it whole."
        raise Refusal(RefusalType.INVALID_REQUEST, words)
