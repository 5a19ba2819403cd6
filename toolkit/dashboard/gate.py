"""The gate: nothing of the dashboard, its websocket included, is served without a session.

A pure ASGI class, since Starlette's BaseHTTPMiddleware lets websockets through unseen. A session is looked up
again at each message that a browser sends, so that a sign-out ends every open tab at its next click, before any
callback or fragment of the script has run. Public are the sign-in page, the health check, and Streamlit's own
static bundle, which is the same for everybody.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import streamlit
from anyio import to_thread
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from toolkit import sessions
from toolkit.dashboard import identity
from toolkit.errors import KeydeskError, SignInFailed

SIGN_IN = "/sign-in"
ENDED = "/sign-in?ended=1"
LARGEST_FORM = 16_384
"""Bytes of a sign-in form; e-mail, password and the page to go to need far less."""

_PUBLIC = {SIGN_IN, "/auth/sign-in", "/auth/sign-out", "/_stcore/health", "/_stcore/host-config", "/favicon.png"}
_PUBLIC_FOLDER = "/static/"
# Browsers read a backslash as a slash and drop control characters, so that /\host leads away as //host does.
_LOCAL_PATH = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")
_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; font-src 'self'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
}


def routes() -> list[Route]:
    """Return the routes of signing in and out."""
    return [
        Route(SIGN_IN, sign_in_page, methods=["GET"]),
        Route("/auth/sign-in", sign_in, methods=["POST"]),
        Route("/auth/sign-out", sign_out, methods=["POST"]),
    ]


def middleware() -> list[Middleware]:
    """Return the gate, as the outermost middleware."""
    return [Middleware(Gate)]


@asynccontextmanager
async def lifespan(_app: object) -> AsyncIterator[None]:
    """Open the key store before the first request, so that a wrong setting stops the start, and close it last."""
    desk = await to_thread.run_sync(identity.desk)
    try:
        yield
    finally:
        await to_thread.run_sync(desk.close)


def local_path(target: str | None) -> str:
    """Return where to go after signing in: a path of this site, or the front page for anything else."""
    return target if target and _LOCAL_PATH.fullmatch(target) else "/"


async def sign_in_page(request: Request) -> Response:
    """GET /sign-in: the form, or straight on for somebody who is signed in."""
    target = local_path(request.query_params.get("next"))
    if await _is_signed_in(request):
        return RedirectResponse(target, 303)
    notice = "Your session has ended. Sign in again." if "ended" in request.query_params else ""
    return _page(target, notice=notice)


async def sign_in(request: Request) -> Response:
    """POST /auth/sign-in: check e-mail and password, set the cookie, go where the person was heading."""
    if not _is_same_site(request):
        return PlainTextResponse("Sign in from the sign-in page of this site.", 403)
    form = await _form(request)
    if form is None:
        return PlainTextResponse("The form is too large.", 413)
    email, target = form.get("email", ""), local_path(form.get("next"))
    address = request.client.host if request.client else "unknown"
    try:
        session_id = await to_thread.run_sync(
            sessions.sign_in, identity.desk().store, email, form.get("password", ""), address
        )
    except SignInFailed as error:
        return _page(target, email=email, problem=str(error), status=401)
    except KeydeskError:
        return _page(target, email=email, problem="Keydesk cannot reach its key store just now.", status=503)
    response = RedirectResponse(target, 303, headers={"Cache-Control": "no-store"})
    response.set_cookie(
        identity.COOKIE,
        identity.seal(session_id),
        max_age=int(identity.COOKIE_LIFETIME.total_seconds()),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    return response


async def sign_out(request: Request) -> Response:
    """POST /auth/sign-out: end the session everywhere and drop the cookie."""
    if not _is_same_site(request):
        return PlainTextResponse("Sign out from the dashboard itself.", 403)
    session_id = identity.unseal(request.cookies.get(identity.COOKIE))
    if session_id:
        await to_thread.run_sync(sessions.sign_out, identity.desk().store, session_id)
    response = RedirectResponse(SIGN_IN, 303, headers={"Cache-Control": "no-store"})
    response.delete_cookie(identity.COOKIE, path="/", httponly=True, samesite="lax")
    return response


class Gate:
    """ASGI middleware that lets through what is public and what a session has asked for.

    Args:
        app: the dashboard behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def unframed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-frame-options", b"DENY")]
            await send(message)

        request = Request(scope)
        path = scope["path"]
        if path in _PUBLIC or path.startswith(_PUBLIC_FOLDER) or await _is_signed_in(request):
            await self.app(scope, receive, unframed)
        elif request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            asked = path + (f"?{request.url.query}" if request.url.query else "")
            target = SIGN_IN if asked == "/" else f"{SIGN_IN}?{urlencode({'next': asked})}"
            await RedirectResponse(target, 303, headers={"Cache-Control": "no-store"})(scope, receive, unframed)
        else:
            await PlainTextResponse("Sign in first.", 401)(scope, receive, unframed)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        if not await _is_signed_in(connection):
            await receive()
            if identity.unseal(connection.cookies.get(identity.COOKIE)):
                # A tab that slept while its session ended: it gets the way to the sign-in page and nothing else.
                await send({"type": "websocket.accept", "subprotocol": "streamlit"})
                await send({"type": "websocket.send", "bytes": _leave()})
            await send({"type": "websocket.close", "code": 1008})
            return

        async def receive_checked() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive" and not await _is_signed_in(connection):
                await send({"type": "websocket.send", "bytes": _leave()})
                await send({"type": "websocket.close", "code": 1008})
                return {"type": "websocket.disconnect", "code": 1008}
            return message

        await self.app(scope, receive_checked, send)


async def _is_signed_in(connection: HTTPConnection) -> bool:
    cookie = connection.cookies.get(identity.COOKIE)
    return cookie is not None and await to_thread.run_sync(identity.find, cookie) is not None


def _is_same_site(request: Request) -> bool:
    # SameSite=Lax keeps the cookie off cross-site posts; this also keeps others from signing somebody in or out.
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


async def _form(request: Request) -> dict[str, str] | None:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            return None
    return {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def _leave() -> bytes:
    """Return the message that makes a Streamlit tab go to the sign-in page; its format is Streamlit's own."""
    message = ForwardMsg()
    message.auth_redirect.url = ENDED
    return bytes(message.SerializeToString())


@cache
def _template() -> tuple[Template, str]:
    # The dashboard's font comes with Streamlit, under a name that changes with its version.
    fonts = Path(streamlit.__file__).parent / "static/static/media"
    font = next((path.name for path in sorted(fonts.glob("SourceSansVF-Upright*.woff2"))), "")
    return Template(Path(__file__).with_name("sign_in.html").read_text(encoding="utf-8")), f"/static/media/{font}"


def _page(target: str, *, email: str = "", notice: str = "", problem: str = "", status: int = 200) -> Response:
    template, font = _template()
    values: dict[str, Any] = {
        "font": font,
        "next": escape(target),
        "email": escape(email[:256]),
        "notice": f'<p class="notice">{escape(notice)}</p>' if notice else "",
        "problem": f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else "",
        "focus_email": "" if email else "autofocus",
        "focus_password": "autofocus" if email else "",
    }
    return HTMLResponse(template.substitute(values), status, headers=_PAGE_HEADERS)
