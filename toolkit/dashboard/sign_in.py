"""Signing in and out: the form, and the routes that it is sent to."""

import re
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from toolkit.admin import sessions
from toolkit.admin.sign_in import open_session
from toolkit.core.errors import KeydeskError, SignInFailed
from toolkit.dashboard import base_path, forms, headers, identity, streamlit_sessions
from toolkit.dashboard.headers import FORMS, SIGN_IN
from toolkit.dashboard.visitor import Visitor

PASSWORDS_AT_ONCE = 2
"""Comparing one takes a core for 0.25 s; the pages of those who are signed in need the others."""

MOST_WAITING = 16
"""Sign-ins that wait for their turn: two seconds' worth. More are told to come again."""

_UNREACHABLE = "Keydesk cannot reach its key store just now."
_FOREIGN = (
    "{act} from the dashboard itself. If you did, its address is none of those in KEYDESK_DASHBOARD_URL, or that is "
    "not set and a proxy changes the Host header."
)
_BUSY = "Too many people are signing in at this moment. Try again in a few seconds."


# Browsers read a backslash as a slash and drop control characters, so that /\\host leads away as //host does.
_LOCAL_PATH = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")


class SignIns:
    """The routes of signing in and out, and who waits to have a password compared."""

    def __init__(self) -> None:
        self._turns = CapacityLimiter(PASSWORDS_AT_ONCE)
        self._here = 0  # counted by hand: whoever is about to wait is in no statistics of the limiter yet

    def routes(self) -> list[Route]:
        """Return the routes."""
        sign_in, sign_out = FORMS
        return [
            Route(SIGN_IN, self.page, methods=["GET"]),
            Route(sign_in, self.sign_in, methods=["POST"]),
            Route(sign_out, self.sign_out, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """GET /sign-in: the form, or straight on for somebody who is signed in."""
        target = local_path(request.query_params.get("next"))
        if await to_thread.run_sync(identity.find_in, request, _visitor(request)):
            return RedirectResponse(target, 303)
        notice = "Your session has ended. Sign in again." if "ended" in request.query_params else ""
        return _page(request, target, notice=notice)

    async def sign_in(self, request: Request) -> Response:
        """POST /auth/sign-in: check e-mail and password, set the cookie, go where the person was heading."""
        visitor = _visitor(request)
        if visitor.own_page is False:
            return PlainTextResponse(_FOREIGN.format(act="Sign in"), 403)
        form = await forms.read(request)
        if form is None:
            return PlainTextResponse("The form is too large.", 413)
        email, target = form.get("email", ""), local_path(form.get("next"))
        if self._here >= PASSWORDS_AT_ONCE + MOST_WAITING:
            return _page(request, target, email=email, problem=_BUSY, status=503, wait=5)
        self._here += 1
        try:
            session_id = await to_thread.run_sync(
                open_session,
                identity.workspace().store,
                email,
                form.get("password", ""),
                visitor.address or "unknown",
                limiter=self._turns,
            )
        except SignInFailed as error:
            return _page(request, target, email=email, problem=str(error), status=401)
        except KeydeskError:
            return _page(request, target, email=email, problem=_UNREACHABLE, status=503, wait=5)
        finally:
            self._here -= 1
        response = RedirectResponse(target, 303)
        response.set_cookie(
            identity.cookie_name(secure=visitor.secure),
            identity.seal(session_id),
            max_age=int(identity.COOKIE_LIFETIME.total_seconds()),
            path="/",
            secure=visitor.secure,
            httponly=True,
            samesite="lax",
        )
        return response

    async def sign_out(self, request: Request) -> Response:
        """POST /auth/sign-out: end the session everywhere, with what its tabs held, and drop the cookie."""
        visitor = _visitor(request)
        if visitor.own_page is False:
            return PlainTextResponse(_FOREIGN.format(act="Sign out"), 403)
        cookie = identity.cookie_of(request, visitor)
        if cookie is not None and (session_id := identity.unseal(cookie)):
            await to_thread.run_sync(sessions.sign_out, identity.workspace().store, session_id)
            streamlit_sessions.drop_tabs(cookie)
        response = RedirectResponse(SIGN_IN, 303)
        for secure in (True, False):
            name = identity.cookie_name(secure=secure)
            if name in request.cookies:
                response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")
        return response


def local_path(target: str | None) -> str:
    """Return where to go after signing in: a path of this site, or the front page for anything else."""
    return target if target and _LOCAL_PATH.fullmatch(target) else "/"


def _visitor(request: Request) -> Visitor:
    return Visitor.of(request.scope, identity.workspace().settings)


@cache
def _template() -> tuple[Template, str]:
    # The dashboard's font comes with Streamlit, under a name that changes with its version.
    fonts = headers.static_folder() / "static/media"
    font = next((path.name for path in sorted(fonts.glob("SourceSansVF-Upright*.woff2"))), "")
    return Template(Path(__file__).with_name("sign_in.html").read_text(encoding="utf-8")), f"static/media/{font}"


def _page(
    request: Request,
    target: str,
    *,
    email: str = "",
    notice: str = "",
    problem: str = "",
    status: int = 200,
    wait: int | None = None,
) -> Response:
    template, font = _template()
    root = base_path.root(request.scope["path"])
    values: dict[str, Any] = {
        "root": root,
        "font": root + font,
        "next": escape(target),
        "email": escape(email[:256]),
        "notice": f'<p class="notice">{escape(notice)}</p>' if notice else "",
        "problem": f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else "",
        "focus_email": "" if email else "autofocus",
        "focus_password": "autofocus" if email else "",
    }
    retry = {"Retry-After": str(wait)} if wait is not None else None
    return HTMLResponse(template.substitute(values), status, headers=retry)
