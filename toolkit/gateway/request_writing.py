"""The bytes of a request as the gateway writes it to a provider: nothing in them but what it means to send. Pure."""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, urlsplit


class Address(NamedTuple):
    """Where connections lead."""

    host: str
    port: int
    tls: bool


@lru_cache(maxsize=1024)
def split_url(url: str, method: str = "POST") -> tuple[Address, str]:
    """Return a URL's address, and what the first lines of a request to it say.

    Args:
        url: of the request.
        method: of the request.

    Raises:
        ValueError: it is no URL of an HTTP server.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("not an HTTP URL")
    tls = parts.scheme == "https"
    host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode()
    address = Address(host, parts.port or (443 if tls else 80), tls)
    shown = f"[{host}]" if ":" in host else host
    authority = shown if parts.port in {None, 443 if tls else 80} else f"{shown}:{parts.port}"
    target = quote(f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/", safe="/%:?@!$&'()*+,;=~")
    return address, f"{method} {target} HTTP/1.1\r\nHost: {authority}"


def absolute(opening: str) -> str:
    """Return what the first lines of a request say to a proxy that passes it on (RFC 9112, 3.2.2).

    Args:
        opening: from `split_url`, of a URL of http.
    """
    method, target, rest = opening.split(" ", 2)
    return f"{method} http://{opening.rpartition('Host: ')[2]}{target} {rest}"


def request_bytes(opening: str, headers: Mapping[str, str], body: bytes, length: int | None = None) -> bytes:
    """Return the bytes of a request.

    Args:
        opening: from `split_url`.
        headers: all but Host and Content-Length.
        body: what goes along with the head.
        length: bytes of the whole body, if more of it follows.

    Raises:
        ValueError: a header cannot be sent as it is.
    """
    lines = [
        opening,
        *[f"{name}: {value}" for name, value in headers.items()],
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n",
    ]
    text = "\r\n".join(lines)
    breaks = len(lines) + 2  # the opening and the end have more than their own
    if text.count("\n") != breaks or text.count("\r") != breaks or "\0" in text:
        raise ValueError("a line break in a header")
    return text.encode("latin-1") + body
