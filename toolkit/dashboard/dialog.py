"""Which dialog is open, and the one that shows a new secret, after create and rotate.

While that dialog is open the secret lies in the browser session's memory, so that a double click shows it twice
instead of losing it. It is dropped before the dialog closes, and when the person goes to another page.
"""

from html import escape
from typing import Any, TypeVar, cast

import streamlit as st

from toolkit.admin import client_settings
from toolkit.admin.keys import NewSecret
from toolkit.dashboard import shared
from toolkit.dashboard.copy_button import copy_button

T = TypeVar("T")

_OPEN = "dialog"
_SEEN = "dialog_seen"
_SECRET = "dialog_secret"  # noqa: S105 - the name of the place, not a secret


def show(name: str, subject: str = "") -> None:
    """Open a dialog about a subject (an id); another one that was open is gone."""
    close()
    st.session_state[_OPEN] = name, subject


def shown() -> tuple[str, str] | None:
    """Return which dialog is open, and about what."""
    return cast("tuple[str, str] | None", st.session_state.get(_OPEN))


def close() -> None:
    """Close the dialog and drop the secret that it showed."""
    secret_place().clear()
    st.session_state.pop(_SEEN, None)
    st.session_state.pop(_OPEN, None)


def dismiss() -> None:
    """Close the dialog, unless a secret was made in the same moment: that is shown first."""
    if not secret_place():
        close()


def as_opened(seen: T) -> T:
    """Return a thing as it was when the dialog opened, whatever others have changed since."""
    return cast("T", st.session_state.setdefault(_SEEN, seen))


def leave_if_closed() -> None:
    """Take a dialog off the screen that is closed or has made its secret: the first thing that a dialog does."""
    if shown() is None or secret_place():
        st.rerun()


def finish(message: str) -> None:
    """Close the dialog, and let the page behind say what was done."""
    close()
    shared.flash(message)
    st.rerun()


def secret_place() -> dict[str, Any]:
    """Return the place for the secret just made, such as a key's under "new"; empty unless its dialog is open.

    Fetch it before making the secret: Streamlit may interrupt a script at any access to its session state, but
    not between a service's commit and an assignment into a plain dict.
    """
    return cast("dict[str, Any]", st.session_state.setdefault(_SECRET, {}))


def buttons(label: str, *, disabled: bool = False, danger: bool = False) -> bool:
    """Draw Cancel and the button that acts; return whether the latter was pressed."""
    with st.container(
        horizontal=True, horizontal_alignment="right", key="dialog_buttons_danger" if danger else "dialog_buttons"
    ):
        st.button("Cancel", key="cancel", on_click=dismiss)
        return st.button(label, type="primary", key="confirm", disabled=disabled)


def form_button(label: str, *, danger: bool = False) -> bool:
    """Draw the button of a form, which Enter presses too; return whether it was pressed. Esc or × leaves."""
    with st.container(
        horizontal=True, horizontal_alignment="right", key="dialog_buttons_danger" if danger else "dialog_buttons"
    ):
        return st.form_submit_button(label, type="primary", key="confirm")


@st.dialog("New secret", width="medium", dismissible=False)
def secret_dialog() -> None:
    """Show the secret just made. Only its button closes the dialog, so that no stray click loses the secret."""
    new: NewSecret | None = secret_place().get("new")
    if new is None:
        st.rerun()
    workspace, base = shared.workspace(), shared.gateway_url()
    st.html(
        '<div class="kd-warning"><b>Copy the secret now.</b> It is stored nowhere and cannot be shown again. '
        "Whoever has it can spend on this key; if it is lost, rotate the key.</div>"
    )
    _to_copy(f"Secret of {new.key.name}", new.secret, "secret", None)
    with workspace.read() as tx:
        models = client_settings.callable_models(tx, new.key)
        command = client_settings.first_call(tx, models, base, new.secret)
    if command:
        _to_copy("Try it: paste into a terminal", command, "curl", "bash")
    if models:
        _to_copy("For SDKs and tools", client_settings.exports(models, base, new.secret), "variables", "bash")
        st.html('<div class="kd-sub">Other clients want the same address and key: docs/clients.md.</div>')
    with st.container(horizontal=True, horizontal_alignment="right"):
        st.button("I have stored it", type="primary", key="secret_stored", on_click=close)


def _to_copy(label: str, text: str, name: str, language: str | None) -> None:
    with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
        st.html(f'<div class="kd-field">{escape(label)}</div>')
        copy_button(text, f"Copy {name}", key=f"copy_{name}")
    st.code(text, language=language, wrap_lines=True)
