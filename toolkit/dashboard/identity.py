"""Who is at the dashboard: the opened Keydesk, and the signed cookie that names a session.

The cookie outlives the session on purpose: whether a session still holds is the key store's word alone, and a
browser that still brings a well-signed cookie of an ended one can be led back to the sign-in page.
"""

from datetime import timedelta
from functools import lru_cache

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import HTTPConnection

from toolkit import environment
from toolkit.admin import sessions
from toolkit.core.settings import Settings
from toolkit.dashboard.visitor import Visitor
from toolkit.store.actor import Actor
from toolkit.workspace import Workspace

COOKIE_LIFETIME = timedelta(days=30)


@lru_cache(maxsize=8)
def _opened(settings: Settings) -> Workspace:
    return Workspace.open(settings)


@lru_cache(maxsize=64)
def _acting(settings: Settings, actor: Actor) -> Workspace:
    return _opened(settings).acting_as(actor)


def workspace() -> Workspace:
    """Return the Keydesk that the environment names, opened once in this process.

    Raises:
        KeydeskError: a setting is wrong, or the key store cannot be opened.
    """
    return _opened(environment.read_settings())


def workspace_of(actor: Actor) -> Workspace:
    """Return the same Keydesk with the actor's rights; its ledger connection is kept between script runs."""
    return _acting(environment.read_settings(), actor)


def cookie_name(*, secure: bool) -> str:
    """Return the cookie's name, which is this installation's own: cookies know hosts, but not ports.

    Args:
        secure: whether the browser has it over TLS; then its prefix keeps other hosts of a domain from setting one.
    """
    return f"{'__Host-' if secure else ''}keydesk_{workspace().keyring.pepper_ids[0]}"


def cookie_of(connection: HTTPConnection, visitor: Visitor) -> str | None:
    """Return the session's cookie that a connection brings, as it was sent; where TLS is known only the safer one."""
    safe = connection.cookies.get(cookie_name(secure=True))
    return safe if safe is not None or visitor.https else connection.cookies.get(cookie_name(secure=False))


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(workspace().keyring.signing_keys("dashboard session"), salt="session")


def seal(session_id: str) -> str:
    """Return the cookie's value for a session."""
    return _serializer().dumps(session_id)


def unseal(cookie: object) -> str | None:
    """Return the session id in a cookie, or None unless we signed it in the last 30 days."""
    if not isinstance(cookie, str):
        return None
    try:
        session_id = _serializer().loads(cookie, max_age=int(COOKIE_LIFETIME.total_seconds()))
    except BadSignature:
        return None
    return session_id if isinstance(session_id, str) else None


def find(cookie: object) -> Actor | None:
    """Return who is signed in with this cookie, or None; asks the key store each time."""
    session_id = unseal(cookie)
    return sessions.find(workspace().store, session_id) if session_id else None


def find_in(connection: HTTPConnection, visitor: Visitor) -> Actor | None:
    """Return who is signed in with the cookie that a connection brings, or None."""
    return find(cookie_of(connection, visitor))
