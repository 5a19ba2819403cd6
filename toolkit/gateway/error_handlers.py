"""What callers are told when a request ends with an exception: in their dialect's envelope, with our request id.

Starlette calls these handlers. What is unexpected it raises again once it has been answered, so that the server's log
gets its traceback.
"""

import logging
import time
from collections.abc import Iterable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ExceptionHandler

from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType, Unavailable
from toolkit.gateway.arrival import arrival_of
from toolkit.gateway.call_failures import CallFailed, internal_error
from toolkit.gateway.endpoint import Endpoint, dialect_of
from toolkit.gateway.head_parsing import no_websocket, wanted_websocket
from toolkit.gateway.responses import refusal_response
from toolkit.gateway.unknown_paths import has_stray_slash, no_such_action, no_such_path, wrong_method

logger = logging.getLogger("keydesk.gateway")


class ErrorHandlers:
    """The exception handlers of one gateway."""

    def __init__(self) -> None:
        self._complained = float("-inf")

    def all(self) -> dict[Any, ExceptionHandler]:
        """Return each by the exception that it answers."""
        handlers: dict[Any, Any] = {  # Starlette's types know no handler that says nothing
            Refusal: self.refused,
            Unavailable: self.unavailable,
            HTTPException: self.no_route,
            ClientDisconnect: self.nobody,
            Exception: self.unexpected,
        }
        return handlers

    async def refused(self, request: Request, error: Exception) -> Response:
        """Say no."""
        assert isinstance(error, Refusal)  # noqa: S101 - so it is registered
        return _told(request, error)

    async def unavailable(self, request: Request, error: Exception) -> Response:
        """Admit nothing unchecked while the key store is away, and log it once a second."""
        if time.monotonic() - self._complained > 1:  # thousands of calls may meet the same
            self._complained = time.monotonic()
            logger.error("%s", error)
        message = "The gateway cannot reach its key store. Try again shortly."
        return _told(request, Refusal(RefusalType.UNAVAILABLE, message))

    async def no_route(self, request: Request, error: Exception) -> Response:
        """Say what is wrong with path or method."""
        assert isinstance(error, HTTPException)  # noqa: S101 - so it is registered
        path, method, endpoint = request.scope["path"], request.method, request.scope.get("endpoint")
        if wanted_websocket(request.scope["headers"]):
            return _told(request, no_websocket())
        if error.status_code == 404 or has_stray_slash(path):
            return _told(request, no_such_path(path, lambda other: _is_offered(other, request.app.routes)))
        colon, action = path.rpartition("/")[2].rpartition(":")[1:]
        offers_actions = isinstance(endpoint, Endpoint) and endpoint.dialect in {None, Dialect.GEMINI}
        if colon and method == "POST" and offers_actions:
            return _told(request, no_such_action(action))
        allowed = sorted((error.headers or {})["Allow"].split(", "))
        return _told(request, wrong_method(method, path, ", ".join(allowed)))

    async def nobody(self, _request: Request, _error: Exception) -> None:
        """Say nothing: the caller has left."""

    async def unexpected(self, request: Request, error: Exception) -> Response:
        """Own up to a fault of ours; the server logs it with the request's id."""
        error.add_note(f"This was request {arrival_of(request.scope).request_id}.")
        closing = {"connection": "close"}  # as the server does then
        if isinstance(error, CallFailed):
            return _told(request, error.refusal, error.headers | closing)
        return _told(request, internal_error(sent=False), closing)


def _told(request: Request, refusal: Refusal, extra: dict[str, str] | None = None) -> Response:
    scope = request.scope
    number, dialect = arrival_of(scope).request_id, dialect_of(scope)
    return refusal_response(refusal, number, dialect, extra, asked=scope["headers"])


def _is_offered(path: str, routes: Iterable[Route]) -> bool:
    scope = {"type": "http", "method": "POST", "path": path}
    return not path.endswith("/") and any(route.matches(scope)[0] is not Match.NONE for route in routes)
