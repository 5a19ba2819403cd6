"""Where browsers have the dashboard: at the root of a host, or below a path of it that a reverse proxy serves.

What the dashboard says of its own addresses is relative to the one that was asked. So it need not know of a path that
the proxy takes off. One that the proxy leaves is named in `KEYDESK_DASHBOARD_URL`, and taken off here, before anything
else looks at an address.
"""

from collections.abc import Iterable
from urllib.parse import quote

from starlette.types import Scope

from toolkit.core.errors import InvalidInput
from toolkit.dashboard.headers import FORMS, INVITATION, KEY, SIGN_IN, STATIC
from toolkit.dashboard.pages import PAGES

_TAKEN = {path.split("/")[1] for path in (SIGN_IN, INVITATION, KEY, STATIC, *FORMS)}
_STREAMLITS = {"_stcore", "component", "media", "app"}


def check(paths: Iterable[str]) -> None:
    """Refuse a path that begins as one of the dashboard's own addresses: nobody could tell the two apart.

    Args:
        paths: of the setting, without a slash at their end.

    Raises:
        InvalidInput: there is one.
    """
    taken = _TAKEN | _STREAMLITS | {page.name for page in PAGES}
    for path in paths:
        if path.split("/")[1] in taken:
            raise InvalidInput(
                f"KEYDESK_DASHBOARD_URL: {path} begins as an address of the dashboard's own. Choose another path, such "
                "as /keydesk, there and in the proxy."
            )


def inside(scope: Scope, paths: Iterable[str]) -> Scope:
    """Return the scope of a connection as the dashboard sees it: without the path that it lies below.

    Args:
        scope: of HTTP or a websocket.
        paths: below which proxies ask for it.
    """
    asked = scope["path"]
    for path in paths:
        if asked.startswith(f"{path}/"):
            raw = scope.get("raw_path", b"")
            kept = {"raw_path": raw[len(path) :]} if raw.startswith(path.encode()) else {}
            return {**scope, **kept, "path": asked[len(path) :]}
    return scope


def without_slash(scope: Scope, paths: Iterable[str]) -> str | None:
    """Return where to go, relatively, from a path without the slash that makes it the front page; None elsewhere."""
    return f"{quote(scope['path'].rpartition('/')[2])}/" if scope["path"] in paths else None


def root(path: str) -> str:
    """Return the front page as an address relative to one of the dashboard's.

    Args:
        path: that was asked for, as `inside` returns it.
    """
    return "../" * (path.count("/") - 1) or "./"


def relative(location: str, path: str) -> str:
    """Return where to go as an address relative to the one that was asked for.

    Args:
        location: of a redirect; what is not of the dashboard itself stays.
        path: that was asked for, as `inside` returns it.
    """
    return root(path) + location[1:] if location.startswith("/") and not location.startswith("//") else location
