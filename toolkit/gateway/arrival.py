"""What is done with every request before its route is looked up: it gets an id, and its query goes out of sight."""

import time
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from toolkit.core.ids import RequestIds
from toolkit.gateway.credentials import secret_in_url
from toolkit.gateway.key_cache import KeyCache
from toolkit.gateway.lifecycle import CallLifecycle

_STATE = "arrival"


@dataclass(slots=True)
class Arrival:
    """What is known of a request whatever it asks for.

    Args:
        request_id: ours.
        query: as it came. A secret may stand in it, so it is shown to nobody.
    """

    request_id: str
    query: bytes = field(repr=False)


def arrival_of(scope: Scope) -> Arrival:
    """Return what `Arrivals` has noted of a request."""
    arrival: Arrival = scope["state"][_STATE]
    return arrival


class Arrivals:
    """Middleware of Starlette that notes each request's arrival.

    Args:
        app: what comes next.
        key_cache: for digests of secrets.
        lifecycle: in which notes are written.
    """

    def __init__(self, app: ASGIApp, key_cache: KeyCache, lifecycle: CallLifecycle) -> None:
        self._app = app
        self._key_cache = key_cache
        self._lifecycle = lifecycle
        self._ids = RequestIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        query: bytes = scope["query_string"]
        state: dict[str, Any] = scope.setdefault("state", {})
        state[_STATE] = Arrival(self._ids.next(time.time_ns() // 1_000_000), query)
        scope["path"] = _path_as_sent(scope)
        if not query:
            await self._app(scope, receive, send)
            return
        # From here on nobody sees `?key=`: not a log, not an exception handler.
        scope["query_string"] = b""
        try:
            await self._app(scope, receive, send)
        finally:
            if (secret := secret_in_url(query)) is not None:
                self._lifecycle.start(self._key_cache.note_in_url(self._key_cache.digests(secret)))


def _path_as_sent(scope: Scope) -> str:
    """Return the path that routes are matched with: still encoded, since a slash of a model's name separates nothing.

    But for the colon before a model's action, which some clients encode.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.decode("latin-1")
    return path.replace("%3A", ":").replace("%3a", ":") if "%3" in path else path
