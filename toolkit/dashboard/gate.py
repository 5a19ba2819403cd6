"""The gate: nothing of the dashboard, its websocket included, is served without a session.

A pure ASGI class, since Starlette's BaseHTTPMiddleware lets websockets through unseen. A session is looked up
again at each message that a browser sends, so that a sign-out ends every open tab at its next click, before any
callback or fragment of the script has run. Public are the sign-in page, the health check, and Streamlit's own
static bundle, which is the same for everybody.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlencode

from anyio import to_thread
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toolkit.core.errors import KeydeskError
from toolkit.dashboard import base_path, headers, identity, streamlit_sessions
from toolkit.dashboard.headers import FORMS, INVITATION, KEY, SIGN_IN
from toolkit.dashboard.invitation_page import InvitationPages
from toolkit.dashboard.key_page import KeyPages
from toolkit.dashboard.sign_in import SignIns
from toolkit.dashboard.visitor import Visitor
from toolkit.gateway.connection_limits import prove

ENDED = f"{SIGN_IN[1:]}?ended=1"
"""Relative, as from a page."""

UPLOADS = "/_stcore/upload_file/"
LARGEST_MESSAGE = 1_048_576
"""Bytes of a message over the websocket; what all fields of a page hold together is a few thousand."""

_PUBLIC = {SIGN_IN, *FORMS, INVITATION, "/_stcore/health", "/_stcore/host-config", "/favicon.png"}
_READING = {"GET", "HEAD"}
_BAD_TOKEN, _TOO_LARGE, _LATER = 1008, 1009, 1013  # RFC 6455 and its registry of close codes


def routes() -> list[Route]:
    """Return the routes of signing in and out, of invitations, and of the page for holders of keys."""
    return [*SignIns().routes(), *InvitationPages().routes(), *KeyPages().routes()]


def middleware() -> list[Middleware]:
    """Return the gate, as the outermost middleware."""
    return [Middleware(Gate)]


@asynccontextmanager
async def lifespan(_app: object) -> AsyncIterator[None]:
    """Open key store and peppers before the first request, so that what is wrong stops the start; close them last."""
    streamlit_sessions.trust_owner_header()
    workspace = await to_thread.run_sync(identity.workspace)
    base_path.check(workspace.settings.dashboard_paths)
    await to_thread.run_sync(lambda: workspace.keyring)
    try:
        yield
    finally:
        await to_thread.run_sync(workspace.close)


class Gate:
    """ASGI middleware that lets through what is public and what a session has asked for.

    Args:
        app: the dashboard behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        paths = identity.workspace().settings.dashboard_paths
        if scope["type"] == "websocket":
            await self._websocket(base_path.inside(scope, paths), receive, send)
        else:
            await self._http(base_path.inside(scope, paths), receive, send, base_path.without_slash(scope, paths))

    async def _http(self, scope: Scope, receive: Receive, send: Send, front: str | None) -> None:
        visitor = Visitor.of(scope, identity.workspace().settings)
        ours = headers.of(scope["path"], visitor)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message["headers"] if name.lower() not in ours]
                message["headers"] = [*map(_relative_to(scope["path"]), kept), *ours.items()]
            await send(message)

        try:
            refusal = await _refusal(Request(scope), visitor) if front is None else RedirectResponse(front, 307)
        except KeydeskError:
            refusal = PlainTextResponse("Keydesk cannot reach its key store just now.", 503, {"Retry-After": "5"})
        await (refusal or self.app)(scope, receive, with_headers)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        visitor = Visitor.of(scope, identity.workspace().settings)
        await receive()  # the handshake, which is passed on below
        cookie = identity.cookie_of(connection, visitor)
        if visitor.own_page is False:
            await send({"type": "websocket.close", "code": _BAD_TOKEN})
            return
        try:
            signed_in = await to_thread.run_sync(identity.find, cookie)
        except KeydeskError:
            await send({"type": "websocket.close", "code": _LATER})
            return
        if signed_in is None or cookie is None:
            # A tab that slept while its session ended, or that came back from the browser's memory: it gets the way to
            # the sign-in page and nothing else.
            await send({"type": "websocket.accept", "subprotocol": "streamlit"})
            await _send_away(cookie, send)
            return
        prove(scope)
        handed_on = False

        async def receive_checked() -> Message:
            nonlocal handed_on
            if not handed_on:
                handed_on = True
                return {"type": "websocket.connect"}
            message = await receive()
            if message["type"] != "websocket.receive":
                return message
            if len(message.get("bytes") or message.get("text") or "") > LARGEST_MESSAGE:
                await send({"type": "websocket.close", "code": _TOO_LARGE})
                return {"type": "websocket.disconnect", "code": _TOO_LARGE}
            try:
                if await to_thread.run_sync(identity.find, cookie) is not None:
                    return message
            except KeydeskError:
                await send({"type": "websocket.close", "code": _LATER})
                return {"type": "websocket.disconnect", "code": _LATER}
            await _send_away(cookie, send)
            return {"type": "websocket.disconnect", "code": _BAD_TOKEN}

        await self.app(streamlit_sessions.with_owner(scope, cookie), receive_checked, send)


def _relative_to(path: str) -> Callable[[tuple[bytes, bytes]], tuple[bytes, bytes]]:
    """Return what makes a header's value relative where it says where to go."""

    def relative(header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        name, value = header
        return (
            (name, base_path.relative(value.decode("latin-1"), path).encode("latin-1"))
            if name == b"location"
            else header
        )

    return relative


async def _refusal(request: Request, visitor: Visitor) -> Response | None:
    """Return the answer to what is not let through, None for what is."""
    path = request.url.path
    if path in _PUBLIC or path.startswith(headers.STATIC):
        return None
    if path == KEY and identity.workspace().settings.key_page:
        return None
    if await to_thread.run_sync(identity.find_in, request, visitor) is None:
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            asked = path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(SIGN_IN if asked == "/" else f"{SIGN_IN}?{urlencode({'next': asked})}", 303)
        return PlainTextResponse("Sign in first.", 401)
    prove(request.scope)
    if request.method in _READING:
        return None
    # No page takes a file, whoever looks at it, so that nothing is stored and no body is waited for.
    if path.startswith(UPLOADS):
        return PlainTextResponse("No page of the dashboard takes files.", 403, {"Connection": "close"})
    return PlainTextResponse(
        "The dashboard is read here, and changed over its websocket.", 405, {"Connection": "close"}
    )


async def _send_away(cookie: str | None, send: Send) -> None:
    """Make a tab go to the sign-in page, close its websocket, and forget what its pages held."""
    await send({"type": "websocket.send", "bytes": streamlit_sessions.redirect_message(ENDED)})
    await send({"type": "websocket.close", "code": _BAD_TOKEN})
    if cookie is not None:
        streamlit_sessions.drop_tabs(cookie)
