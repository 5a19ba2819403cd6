"""The page behind the link of an invitation: who was invited sets the password to sign in with.

The link carries the token in its address: it works once, the page leads to nowhere else, and no browser keeps it.
"""

from html import escape

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from toolkit.admin import invitations
from toolkit.admin.invitations import Guest
from toolkit.core.errors import InvalidInput, KeydeskError, NotFound
from toolkit.core.passwords import PASSWORD_MINIMUM, hash_password
from toolkit.dashboard import forms, identity
from toolkit.dashboard.headers import INVITATION, SIGN_IN
from toolkit.dashboard.plain_page import page, problem
from toolkit.dashboard.visitor import Visitor
from toolkit.store.actor import SYSTEM

TITLE = "Your invitation · Keydesk"

_UNREACHABLE = "Keydesk cannot reach its key store just now. Try again in a moment: the link still holds."


class InvitationPages:
    """The route of the page. Passwords are hashed one at a time: each takes a core for a quarter of a second."""

    def __init__(self) -> None:
        self._turn = CapacityLimiter(1)

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route(INVITATION, self.form, methods=["GET"]), Route(INVITATION, self.accept, methods=["POST"])]

    async def form(self, request: Request) -> Response:
        """GET /invitation?token=…: the form, which uses nothing up."""
        return await self._answer(request.query_params.get("token", ""))

    async def accept(self, request: Request) -> Response:
        """POST /invitation: set the password."""
        if Visitor.of(request.scope, identity.workspace().settings).own_page is False:
            return PlainTextResponse("Set the password from the page itself.", 403)
        fields = await forms.read(request)
        if fields is None:
            return PlainTextResponse("The form is too large.", 413)
        token, password = fields.get("token", ""), fields.get("password", "")
        if password != fields.get("again"):
            return await self._answer(token, "The two passwords differ.")
        try:
            guest = await to_thread.run_sync(_guest_of, token)  # before a hash is made for just anybody
            hashed = await to_thread.run_sync(hash_password, password, limiter=self._turn)
            email = await to_thread.run_sync(invitations.accept, identity.workspace().store, token, hashed)
        except InvalidInput as error:
            return page(TITLE, _form(guest, token, str(error)), 422)
        except NotFound as error:
            return page(TITLE, _gone(str(error)), 404)
        except KeydeskError:
            return page(TITLE, _gone(_UNREACHABLE), 503, wait=5)
        return page(TITLE, _done(email))

    async def _answer(self, token: str, wrong: str = "") -> Response:
        try:
            guest = await to_thread.run_sync(_guest_of, token)
        except NotFound as error:
            return page(TITLE, _gone(str(error)), 404)
        except KeydeskError:
            return page(TITLE, _gone(_UNREACHABLE), 503, wait=5)
        return page(TITLE, _form(guest, token, wrong), 422 if wrong else 200)


def _guest_of(token: str) -> Guest:
    with identity.workspace().store.read(SYSTEM) as tx:
        return invitations.guest_of(tx, token)


def _form(guest: Guest, token: str, wrong: str = "") -> str:
    heading = "Welcome to Keydesk" if guest.is_new else "Set a new password"
    return (
        f'<form method="post" action="{INVITATION[1:]}"><h1>{heading}</h1>'
        f'<p class="lead">You sign in as <b>{escape(guest.email)}</b>. Choose a password of at least '
        f"{PASSWORD_MINIMUM} characters.</p>{problem(wrong)}"
        f'<input type="hidden" name="token" value="{escape(token)}">'
        f'<input type="hidden" name="username" autocomplete="username" value="{escape(guest.email)}">'
        '<label for="password">Password</label><input id="password" name="password" type="password" required autofocus '
        f'autocomplete="new-password" minlength="{PASSWORD_MINIMUM}" maxlength="1024">'
        '<label for="again" class="next">Once more</label><input id="again" name="again" type="password" required '
        f'autocomplete="new-password" minlength="{PASSWORD_MINIMUM}" maxlength="1024">'
        '<button type="submit">Set the password</button></form>'
    )


def _done(email: str) -> str:
    return (
        f'<section><h1>The password is set</h1><p class="fine">Sign in as <b>{escape(email)}</b>.</p>'
        f'<p><a href="{SIGN_IN[1:]}">Sign in</a></p></section>'
    )


def _gone(why: str) -> str:
    return f'<section><h1>Your invitation</h1>{problem(why)}<p><a href="{SIGN_IN[1:]}">Sign in</a></p></section>'
