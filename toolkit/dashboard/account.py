"""Account: where one is signed in, and one's password."""

from html import escape

import streamlit as st

from toolkit.admin import account, sessions
from toolkit.core.errors import InvalidInput
from toolkit.core.passwords import PASSWORD_MINIMUM, hash_password
from toolkit.core.wording import counted
from toolkit.dashboard import dialog, identity, shared, streamlit_sessions, table
from toolkit.store.tables import SignInSession
from toolkit.workspace import Workspace


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    here = _here()
    st.title("Account", anchor=False)
    with workspace.read() as tx:
        me, mine = account.mine(tx), account.my_sessions(tx)
    st.html(
        shared.facts(
            [
                ("E-mail", f"<b>{escape(me.email)}</b>"),
                ("Role", shared.ROLES[workspace.actor.role]),
                ("Since", shared.utc(me.created_at)),
            ]
        )
    )
    if st.button("Change the password", icon=":material/password:", key="change_password"):
        dialog.show("Password")
    shared.heading("Signed in", "choose one to end it")
    table.draw(
        [
            {
                "Browser": "this one" if each.digest == here else "another",
                "Since": each.created_at,
                "Ends": each.expires_at,
                "From": each.address or "",
            }
            for each in mine
        ],
        key="my_sessions",
        alt="Where you are signed in, the newest first",
        on_open=lambda place: dialog.show("Session", mine[place].digest),
    )
    if len(mine) > 1 and st.button("Sign out everywhere else", icon=":material/logout:", key="sign_out_others"):
        dialog.show("Others")
    name, digest = dialog.shown() or ("", "")
    if name == "Password":
        password_dialog(workspace, here)
    elif name == "Others":
        others_dialog(workspace, here, len(mine) - 1)
    elif name == "Session" and (found := next((each for each in mine if each.digest == digest), None)):
        session_dialog(workspace, found, here)


def _here() -> str | None:
    """Return the digest of this browser's session."""
    session_id = identity.unseal(st.context.headers.get(streamlit_sessions.HEADER))
    return sessions.digest(session_id) if session_id else None


@st.dialog("Change the password", on_dismiss=dialog.close)
def password_dialog(workspace: Workspace, here: str | None) -> None:
    """Ask for the present password and a new one."""
    dialog.leave_if_closed()
    st.html("<p>Your other browsers are signed out.</p>")
    with st.form("password_form", border=False):
        old = st.text_input("Present password", type="password", key="old_password", autocomplete="current-password")
        new = st.text_input(
            "New password",
            type="password",
            key="new_password",
            autocomplete="new-password",
            help=f"At least {PASSWORD_MINIMUM} characters.",
        )
        again = st.text_input("Once more", type="password", key="new_again", autocomplete="new-password")
        pressed = dialog.form_button("Change the password")
    if pressed:
        with shared.problems():
            if new != again:
                raise InvalidInput("The two new passwords differ.")
            hashed = hash_password(new)
            address = st.context.ip_address or "unknown"
            account.change_password(workspace.store, workspace.actor, old, hashed, address=address, keep=here)
            dialog.finish("Your password is changed; your other browsers are signed out.")


@st.dialog("Sign out everywhere else", on_dismiss=dialog.close)
def others_dialog(workspace: Workspace, here: str | None, others: int) -> None:
    """End all sessions but this one."""
    dialog.leave_if_closed()
    st.html(f"<p>{counted(others, 'other session')} of yours ends at its next click. This one stays.</p>")
    with st.form("others_form", border=False):
        pressed = dialog.form_button("Sign out everywhere else")
    if pressed:
        with shared.problems():
            with workspace.write() as tx:
                ended = account.end_sessions(tx, keep=here)
            dialog.finish(f"{counted(ended, 'session')} ended.")


@st.dialog("Session", on_dismiss=dialog.close)
def session_dialog(workspace: Workspace, session: SignInSession, here: str | None) -> None:
    """Show a session; end it."""
    dialog.leave_if_closed()
    facts = [
        ("Since", shared.utc(session.created_at)),
        ("Ends", shared.utc(session.expires_at)),
        ("From", escape(session.address or "–")),
    ]
    st.html(shared.facts(facts) + ("<p>This is the one that you are using.</p>" if session.digest == here else ""))
    with st.form("session_form", border=False):
        pressed = dialog.form_button("Sign out there")
    if pressed:
        with shared.problems():
            with workspace.write() as tx:
                account.end_sessions(tx, only=session.digest)
            dialog.finish("The session is ended.")


if __name__ == "__main__":
    main()
