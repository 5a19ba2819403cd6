"""Streamlit's own sessions: whose each is, and how a browser tab is sent to the sign-in page.

Streamlit gives a tab that reconnects its old session back, with all that is on its pages, to whoever names the
session's id, unless the two connections differ in what `server.trustedUserHeaders` takes from their headers. So the
gate gives each websocket a header of its own making, which holds the cookie that it was let in with: a session is
resumed with that cookie or not at all. Both this and the message that sends a tab away are Streamlit's inner workings
(1.67), hence here and tested.
"""

from typing import Any

from streamlit import config
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime import Runtime

HEADER = "x-keydesk-session"
"""The header with a websocket's cookie, as the gate has judged it; a script reads there who it runs for."""

_OWNER = "keydesk"


def trust_owner_header() -> None:
    """Tell Streamlit to whom its sessions belong; before the first of them."""
    config.set_option("server.trustedUserHeaders", {HEADER: _OWNER})


def with_owner(scope: Any, cookie: str) -> dict[str, Any]:
    """Return a websocket's scope as Streamlit is to see it.

    The gate has judged the page that speaks; Streamlit would judge it again, and knows less.
    """
    ours = {HEADER.encode(), b"origin"}
    kept = [(name, value) for name, value in scope["headers"] if name.lower() not in ours]
    return {**scope, "headers": [*kept, (HEADER.encode(), cookie.encode("latin-1"))]}


def drop_tabs(cookie: str) -> None:
    """Drop the state of every tab that was let in with a cookie; on the event loop of the server."""
    if not Runtime.exists():
        return
    runtime = Runtime.instance()
    for info in runtime._session_mgr.list_sessions():  # noqa: SLF001 - there is no other way to their owners
        if info.session.matches_user_info({_OWNER: cookie}):
            runtime.close_session(info.session.id)


def redirect_message(url: str) -> bytes:
    """Return the message that makes a tab go to a page of ours."""
    message = ForwardMsg()
    message.auth_redirect.url = url
    return bytes(message.SerializeToString())
