"""Addresses that Keydesk is known by outside: URLs that people paste, origins that browsers send. Pure.

An origin is scheme, host and port of a page (RFC 6454), spelled as browsers spell it: in lower case, without the
scheme's own port. Desktop applications and browser extensions have origins too, such as `app://obsidian.md`.
"""

import re
from urllib.parse import SplitResult, urlsplit

from toolkit.core.errors import InvalidInput

_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
_PATH = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)*")


def parse_url(text: str, name: str) -> str:
    """Return a URL without the slash at its end.

    Args:
        text: e.g. "https://llm.example.com" or "https://example.com/keydesk/".
        name: of the setting, for the message.

    Raises:
        InvalidInput: it is no URL of a web server, or has more than scheme, host, port and path.
    """
    parts = _split(text)
    if parts is None:
        raise InvalidInput(f"{name}: {text!r} is no address. Write for example https://llm.example.com")
    return _origin(parts) + parts.path.rstrip("/")


def parse_pages(text: str, name: str) -> tuple[str, ...]:
    """Return addresses of a web application with commas between, each once, in their order, without slashes at the end.

    Args:
        text: e.g. "https://example.com/keydesk, http://127.0.0.1:8501".
        name: of the setting, for the message.

    Raises:
        InvalidInput: an entry is no such address, or its path has more than plain words.
    """
    pages = []
    for entry in filter(None, map(str.strip, text.split(","))):
        parts = _split(entry)
        if parts is None or _PATH.fullmatch(parts.path.rstrip("/")) is None:
            raise InvalidInput(
                f"{name}: {entry!r} is no address of a dashboard. Write scheme, host, port and path alone, for example "
                "https://keydesk.example.com, https://example.com/keydesk, http://127.0.0.1:8501"
            )
        pages.append(_origin(parts) + parts.path.rstrip("/"))
    return tuple(dict.fromkeys(pages))


def split_page(page: str) -> tuple[str, str]:
    """Return the origin of an address that `parse_pages` has read, and its path, which may be empty."""
    scheme, _, rest = page.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}", slash + path


def parse_origins(text: str, name: str, *, of_apps: bool = False) -> tuple[str, ...]:
    """Return origins with commas between, each once, in their order.

    Args:
        text: e.g. "https://keydesk.example.com, http://127.0.0.1:8501".
        name: of the setting, for the message.
        of_apps: whether those of applications and extensions are taken, too.

    Raises:
        InvalidInput: an entry is no origin.
    """
    origins = []
    for entry in filter(None, map(str.strip, text.split(","))):
        parts = _split(entry, of_apps=of_apps)
        if parts is None or parts.path not in {"", "/"}:
            raise InvalidInput(
                f"{name}: {entry!r} is no origin. Write scheme, host and port alone, for example "
                "https://keydesk.example.com, http://127.0.0.1:8501"
            )
        origins.append(_origin(parts))
    return tuple(dict.fromkeys(origins))


def origin(text: str) -> str | None:
    """Return an `Origin` header in the usual spelling; None for what is none, such as "null"."""
    parts = _split(text)
    return _origin(parts) if parts is not None and parts.path == "" else None


def is_of_host(page: str, host: str) -> bool:
    """Whether an origin has the host and port that a `Host` header names.

    Args:
        page: an origin in its usual spelling.
        host: the header as it was sent; without a port it means that of the origin's scheme.
    """
    return origin(f"{page.partition('://')[0]}://{host}") == page


def _split(text: str, *, of_apps: bool = False) -> SplitResult | None:
    """Return the parts of a URL in lower case but for its path; None where it has others than we know."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return None
    plain = not parts.query and not parts.fragment and "?" not in text and "#" not in text and text.isascii()
    netloc = parts.netloc.lower()
    host = netloc.removesuffix(f":{parts.port}") if parts.port is not None else netloc
    scheme = parts.scheme in _PORTS or (of_apps and _SCHEME.fullmatch(parts.scheme) is not None)
    known = scheme and _HOST.fullmatch(host) is not None
    return parts._replace(netloc=netloc) if plain and known and re.search(r"[\s\\]", text) is None else None


def _origin(parts: SplitResult) -> str:
    netloc = parts.netloc.removesuffix(f":{_PORTS.get(parts.scheme)}")
    return f"{parts.scheme}://{netloc}"
