"""Request heads: what of them llhttp (Node's parser) lets pass though it could be read in two ways. Pure.

llhttp itself refuses bare line breaks, folded headers, white space before a colon, two lengths, and a length beside
chunks. Two readings of one request are how a stranger's bytes come to stand before another's call (request smuggling).
"""

import contextlib
from collections.abc import Iterable
from typing import NamedTuple

import httptools

from toolkit.core.errors import Refusal, RefusalType

Headers = list[tuple[bytes, bytes]]

WATCHED = frozenset({b"expect", b"host", b"transfer-encoding", b"upgrade"})
"""Headers that say how the rest of a request is to be read; `Content-Length` is the parser's matter."""

WEBSOCKET = b"websocket"

_OFFERS = frozenset({b"upgrade", b"http2-settings"})
"""What offers another protocol, and is named in `Connection` too (RFC 9110, "Upgrade"; RFC 7540, section 3.2)."""


class Stop(Exception):
    """Ends parsing: from within the parser it cannot be told otherwise.

    Args:
        refusal: what the caller is told.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def refusal_of(error: httptools.HttpParserError) -> Refusal:
    """Return what a caller is told whose request the parser, or a callback of its own, has refused."""
    stop = error.__context__
    return stop.refusal if isinstance(stop, Stop) else unreadable("This could not be read as HTTP.")


class Reading(NamedTuple):
    """How the rest of a request is to be read.

    Args:
        offer: the protocols that the caller would rather speak, in lower case; empty if there are none.
        expects: whether the caller waits for 100 Continue before it sends the body.
        chunked: whether the body comes in chunks.
    """

    offer: bytes = b""
    expects: bool = False
    chunked: bool = False


_PLAIN = Reading()


def read(watched: Headers, version: str) -> Reading:
    """Read the headers in `WATCHED`.

    Args:
        watched: in their order, names in lower case.
        version: "1.0" or "1.1".

    Raises:
        Stop: they are no HTTP, or could be read in two ways.
    """
    if len(watched) == 1 and watched[0][0] == b"host":  # as it is with almost all
        return _PLAIN
    hosts = 0
    offer, expects, chunked = b"", False, False
    for name, value in watched:
        if name == b"host":
            hosts += 1
        elif name == b"expect":
            expects = value.lower() == b"100-continue"
        elif name == b"upgrade":
            offer = value.lower()
        elif value.lower() != b"chunked" or version != "1.1":
            raise Stop(unreadable("Transfer-Encoding must be chunked alone, in HTTP/1.1."))
        else:
            chunked = True
    if hosts > 1:
        raise Stop(unreadable("There is more than one Host header."))
    return Reading(offer, expects, chunked)


def check_offer(offer: bytes, *, takes_websockets: bool, busy: bool) -> None:
    """Check an offer of another protocol, by a connection that may still be busy with the request before.

    Raises:
        Stop: a WebSocket cannot be had here, or not yet.
    """
    if WEBSOCKET not in offer:
        return
    if not takes_websockets:
        raise Stop(no_websocket())
    if busy:
        raise Stop(unreadable("Ask for a WebSocket when the answer before has come."))


def wanted_websocket(headers: Headers) -> bool:
    """Tell whether a request offered a WebSocket before a proxy took a part of the offer away.

    Args:
        headers: names in lower case.
    """
    return any(
        name.startswith(b"sec-websocket-") or (name == b"upgrade" and value.lower() == WEBSOCKET)
        for name, value in headers
    )


def no_websocket() -> Refusal:
    """Return the refusal of a WebSocket where there is none; Codex goes on without one after it."""
    words = "There is no WebSocket here. Send plain HTTP requests; streams come as server-sent events."
    return Refusal(RefusalType.UPGRADE_REQUIRED, words, headers={"upgrade": "HTTP/1.1", "connection": "upgrade"})


def split(target: bytes) -> tuple[bytes, bytes]:
    """Return path and query of a request's target, still percent-encoded.

    Raises:
        Stop: it is neither a path nor the URL of one.
    """
    if target.startswith(b"/") and b"#" not in target:
        path, _, query = target.partition(b"?")
        return path, query
    if b"://" in target and b"#" not in target:  # as to a proxy: servers must take it too (RFC 9112, "absolute-form")
        with contextlib.suppress(httptools.HttpParserInvalidURLError):
            url = httptools.parse_url(target)
            return url.path or b"/", url.query or b""
    raise Stop(unreadable("The request target must be a path."))


def without_offer(opening: bytes, headers: Headers) -> bytes:
    """Return the bytes of a head that offers no other protocol.

    Args:
        opening: its first line.
        headers: names in lower case.
    """
    kept: Headers = []
    for name, value in headers:
        if name == b"connection":
            tokens = [token for token in value.split(b",") if token.strip().lower() not in _OFFERS]
            kept.append((name, b",".join(tokens)))
        elif name not in _OFFERS:
            kept.append((name, value))
    return written(opening, kept)


def written(opening: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the bytes of a head."""
    return b"".join([opening, *(b"%b: %b\r\n" % header for header in headers), b"\r\n"])


def size(target: bytes, headers: Headers) -> int:
    """Return the bytes of a head, but for its first line's other words."""
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers)


def unreadable(words: str) -> Refusal:
    """Return the refusal of what is no HTTP, or could be read in two ways."""
    return Refusal(RefusalType.INVALID_REQUEST, words)


def badly_framed() -> Refusal:
    """Return the refusal of a body that is mostly framing."""
    return unreadable("The body's chunks are too small, or what stands between them is too long.")


def too_large(size: int, headers: int) -> Refusal:
    """Return the refusal of a head that is larger than may be.

    Args:
        size: bytes that are read of one at most.
        headers: how many are read of one at most.
    """
    words = f"The request's head is too large: at most {size:,} bytes and {headers:,} headers are read."
    return Refusal(RefusalType.HEADERS_TOO_LARGE, words)
