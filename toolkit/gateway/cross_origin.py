"""Pages in browsers that call the gateway (CORS): those of the origins that KEYDESK_CORS_ORIGINS lists.

Where none is listed nothing of this runs, and a browser shows no page what the gateway answers. Cookies mean nothing
here: a page needs an API key as every caller does, so credentials of the browser's own are never allowed.
"""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]

_METHODS = ("GET", "HEAD", "POST")

_SHOWN = (
    *("X-Request-ID", "request-id", "X-Hold-ID", "X-Cost-USD", "X-Max-Tokens-Fitted", "X-Keydesk-Left-Out"),
    "X-Keydesk-Pinned",
    *("Retry-After", "retry-after-ms", "x-should-retry"),
)
"""Headers of an answer that a page may read: ours, and those that the SDKs obey."""

_REMEMBERED = 7_200
"""Seconds that a browser need not ask again; Chromium's own limit."""


def shown_to_pages(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """Return an application whose answers, errors too, pages of these origins may read.

    Pages of other origins get what they would get without it: their preflights are no request of ours.
    """
    allowed = CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=("*",),  # the SDKs have many, and which ones are read is our matter
        allow_private_network=True,
        expose_headers=_SHOWN,
        max_age=_REMEMBERED,
    )

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        of_page = scope["type"] == "http" and _origin(scope["headers"], origins) is not None
        await (allowed if of_page else app)(scope, receive, send)

    return answer


def headers_for_page(asked: Headers, origins: tuple[str, ...]) -> Headers:
    """Return what lets a page read an answer that the application has not given; nothing if it may not.

    Args:
        asked: headers of the request, names in lower case.
        origins: those that may.
    """
    origin = _origin(asked, origins)
    if origin is None:
        return []
    return [
        (b"access-control-allow-origin", origin.encode()),
        (b"access-control-expose-headers", ", ".join(_SHOWN).encode()),
        (b"vary", b"Origin"),
    ]


def _origin(headers: Headers, origins: tuple[str, ...]) -> str | None:
    for name, value in headers:
        if name == b"origin" and (origin := value.decode("latin-1")) in origins:
            return origin
    return None
