"""The dialogs of the page Operators: invite, look at, re-role, sign out, disable, enable, remove; and the links."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from html import escape
from urllib.parse import urlencode

import streamlit as st

from toolkit.admin import invitations, operators
from toolkit.admin.invitations import Invited
from toolkit.core.policy import Role
from toolkit.core.wording import counted
from toolkit.dashboard import dialog, identity, shared
from toolkit.dashboard.copy_button import copy_button
from toolkit.dashboard.headers import INVITATION
from toolkit.store.tables import Invitation, Operator, SignInSession

_LINK = "invitation"


def draw(
    people: Mapping[str, Operator],
    invited: Mapping[str, Invitation],
    signed_in: Mapping[str, Sequence[SignInSession]],
    orgs: Mapping[str, str],
    shown: Callable[[str], str],
    now: datetime,
) -> None:
    """Draw the dialog that is open, if any."""
    name, subject = dialog.shown() or ("", "")
    if _LINK in dialog.secret_place():
        link_dialog()
    elif name == "Invite":
        invite_dialog(orgs)
    elif name == "Link" and subject in invited:
        withdraw_dialog(invited[subject], shown)
    elif name == "Operator" and subject in people:
        operator_dialog(people[subject], signed_in.get(subject, ()), orgs, shown, now)
    elif name == "Role" and subject in people:
        role_dialog(people[subject], orgs)
    elif name in ACTS and subject in people:
        ACTS[name](people[subject])


@st.dialog("Invite a person", on_dismiss=dialog.dismiss)
def invite_dialog(orgs: Mapping[str, str]) -> None:
    """Ask who is to sign in, and with which role; make the link."""
    dialog.leave_if_closed()
    workspace = shared.workspace()
    place = dialog.secret_place()
    st.html("<p>You get a link to send to that person. It works once, within three days, and sets the password.</p>")
    with st.form("invite_form", border=False):
        email = st.text_input("E-mail", key="invite_email", placeholder="ada@example.com", autocomplete="off")
        role, org = _role_and_org(workspace.actor.org_id, orgs, Role.ANALYST, None)
        pressed = dialog.form_button("Make the link")
    if pressed:
        with shared.problems():
            with workspace.write() as tx:
                made = invitations.invite(tx, email, role, org_id=org)
            place[_LINK] = made
            st.rerun()


def _role_and_org(own_org: str | None, orgs: Mapping[str, str], role: Role, org: str | None) -> tuple[Role, str | None]:
    """Draw the choice of a role, and of an organisation for whoever may choose one."""
    roles = [each for each in Role if own_org is None or each is not Role.PLATFORM_ADMIN]
    chosen = st.selectbox("Role", roles, roles.index(role), format_func=shared.ROLES.__getitem__, key="operator_role")
    if own_org is not None:
        return chosen, own_org
    options = ["", *orgs]
    picked = st.selectbox(
        "Organisation",
        options,
        options.index(org or ""),
        format_func=lambda each: orgs[each] if each else "None: all organisations",
        key="operator_org",
        help="An org admin needs one; a platform admin has none; an analyst without one reads all.",
    )
    return chosen, picked or None


@st.dialog("The link", width="medium", dismissible=False)
def link_dialog() -> None:
    """Show the link just made, once."""
    made: Invited | None = dialog.secret_place().get(_LINK)
    if made is None:
        st.rerun()
    what = "a new password" if made.invitation.operator_id else "an account"
    st.html(
        f'<div class="kd-warning"><b>Copy the link now</b> and send it to <b>{escape(made.invitation.email)}</b> by a '
        "way that only they read: whoever opens it first sets the password. It cannot be shown again.</div>"
        f"<p>It is for {what}, works once, and until {shared.utc(made.invitation.expires_at)}.</p>"
    )
    link = _link(made.token)
    with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
        st.html('<div class="kd-field">Link</div>')
        copy_button(link, "Copy the link", key="copy_link")
    st.code(link, language=None, wrap_lines=True)
    with st.container(horizontal=True, horizontal_alignment="right"):
        st.button("I have sent it", type="primary", key="link_sent", on_click=dialog.close)


def _link(token: str) -> str:
    """Return the address that accepts an invitation, as browsers of others reach the dashboard."""
    urls = identity.workspace().settings.dashboard_urls
    base = urls[0] if urls else (st.context.url or "").rpartition("/")[0]
    return f"{base.rstrip('/')}{INVITATION}?{urlencode({'token': token})}"


@st.dialog("Withdraw the link", on_dismiss=dialog.close)
def withdraw_dialog(invitation: Invitation, shown: Callable[[str], str]) -> None:
    """Show an open link, and end it."""
    dialog.leave_if_closed()
    role = "a new password" if invitation.operator_id else shared.ROLES[Role(invitation.role)]
    st.html(
        shared.facts(
            [
                ("E-mail", f"<b>{escape(invitation.email)}</b>"),
                ("For", escape(role)),
                ("Made", f"{shared.utc(invitation.created_at)} by {escape(shown(invitation.created_by))}"),
                ("Ends", shared.utc(invitation.expires_at)),
            ]
        )
        + "<p>Withdrawn, the link does nothing any more.</p>"
    )
    with st.form("withdraw_form", border=False):
        reason = _reason()
        pressed = dialog.form_button("Withdraw")
    if pressed:
        with shared.problems():
            with shared.workspace().write() as tx:
                invitations.withdraw(tx, invitation.id, reason=reason)
            dialog.finish(f"The link for {invitation.email} is withdrawn.")


@st.dialog("Operator", width="medium", position="right", on_dismiss=dialog.close)
def operator_dialog(
    operator: Operator,
    open_sessions: Sequence[SignInSession],
    orgs: Mapping[str, str],
    shown: Callable[[str], str],
    now: datetime,
) -> None:
    """Show a person, where they are signed in, and what can be done."""
    actor = shared.workspace().actor
    state = shared.badge("disabled", "bad") if operator.disabled_at else shared.badge("active", "good")
    st.html(
        shared.facts(
            [
                ("E-mail", f"<b>{escape(operator.email)}</b> {state}"),
                ("Role", shared.ROLES[Role(operator.role)]),
                ("Organisation", escape(orgs[operator.org_id]) if operator.org_id else "all"),
                ("Last signed in", shared.ago(operator.last_sign_in_at, now)),
                ("Added", f"{shared.utc(operator.created_at)} by {escape(shown(operator.created_by))}"),
                ("Id", f"<code>{operator.id}</code>"),
            ]
        )
    )
    shared.heading("Signed in", counted(len(open_sessions), "session"))
    if open_sessions:
        rows = [
            [shared.ago(each.created_at, now), shared.ago(each.expires_at, now), escape(each.address or "–")]
            for each in open_sessions
        ]
        st.html(shared.table([("Since", "left"), ("Ends", "left"), ("From", "left")], rows))
    with st.container(horizontal=True):
        acts = ["Password link", *(["Sign out"] if open_sessions else [])]
        if not actor.is_named(operator.email):
            acts += ["Role", "Enable" if operator.disabled_at else "Disable", "Remove"]
        for act in acts:
            if st.button(act, key=act.lower().replace(" ", "_"), icon=f":material/{_ICONS[act]}:"):
                dialog.show(act, operator.id)
                st.rerun()


_ICONS = {
    "Password link": "link",
    "Sign out": "logout",
    "Role": "badge",
    "Enable": "play_circle",
    "Disable": "block",
    "Remove": "delete",
}


@st.dialog("Change the role", on_dismiss=dialog.close)
def role_dialog(operator: Operator, orgs: Mapping[str, str]) -> None:
    """Give another role or organisation."""
    dialog.leave_if_closed()
    workspace = shared.workspace()
    st.html(f"<p><b>{escape(operator.email)}</b> is signed out everywhere; the next sign-in has the new rights.</p>")
    with st.form("role_form", border=False):
        role, org = _role_and_org(workspace.actor.org_id, orgs, Role(operator.role), operator.org_id)
        reason = _reason()
        pressed = dialog.form_button("Change the role")
    if pressed:
        with shared.problems():
            with workspace.write() as tx:
                operators.set_role(tx, operator.email, role, org_id=org, confirm=operator.email, reason=reason)
            dialog.finish(f"{operator.email} is {shared.ROLES[role]} now.")


@st.dialog("Link for a new password", on_dismiss=dialog.dismiss)
def password_dialog(operator: Operator) -> None:
    """Make a link by which the person sets a new password."""
    dialog.leave_if_closed()
    place = dialog.secret_place()
    st.html(
        f"<p>You get a link to send to <b>{escape(operator.email)}</b>. It works once, within three days. Until then "
        "the present password holds; then all sessions end.</p>"
    )
    with st.form("password_form", border=False):
        pressed = dialog.form_button("Make the link")
    if pressed:
        with shared.problems():
            with shared.workspace().write() as tx:
                made = invitations.password_link(tx, operator.email)
            place[_LINK] = made
            st.rerun()


@st.dialog("Sign out everywhere", on_dismiss=dialog.close)
def sign_out_dialog(operator: Operator) -> None:
    """End all sessions of a person."""
    _confirm(operator, "is signed out everywhere, at the next click; the password stays.", "Sign out")


@st.dialog("Disable the operator", on_dismiss=dialog.close)
def disable_dialog(operator: Operator) -> None:
    """Keep a person from signing in."""
    _confirm(operator, "is signed out everywhere and cannot sign in, until enabled again.", "Disable")


@st.dialog("Enable the operator", on_dismiss=dialog.close)
def enable_dialog(operator: Operator) -> None:
    """Let a person sign in again."""
    _confirm(operator, "may sign in again, with the password that holds now.", "Enable")


@st.dialog("Remove the operator", on_dismiss=dialog.close)
def remove_dialog(operator: Operator) -> None:
    """Take a person away for good."""
    _confirm(operator, "is signed out and taken away for good. The audit log goes on to name them.", "Remove")


def _confirm(operator: Operator, consequence: str, act: str) -> None:
    """Say what will happen, have it confirmed (a removal by the e-mail), and do it."""
    dialog.leave_if_closed()
    typed = operator.email
    is_final = act == "Remove"
    st.html(
        f"<p><b>{escape(operator.email)}</b> {consequence}</p>"
        + (f"<p>To confirm, type the e-mail: <b>{escape(operator.email)}</b></p>" if is_final else "")
    )
    with st.form("act_form", border=False):
        if is_final:
            typed = st.text_input("E-mail", key="confirm_name", autocomplete="off")
        reason = _reason()
        pressed = dialog.form_button(act, danger=is_final)
    if pressed:
        with shared.problems():
            with shared.workspace().write() as tx:
                if act == "Sign out":
                    operators.end_sessions(tx, operator.email, reason=reason)
                else:
                    verb = {"Disable": operators.disable, "Enable": operators.enable, "Remove": operators.remove}[act]
                    verb(tx, operator.email, confirm=typed, reason=reason)
            dialog.finish(f"{operator.email} {_DONE[act]}.")


_DONE = {
    "Sign out": "is signed out everywhere",
    "Disable": "is disabled",
    "Enable": "is enabled",
    "Remove": "is removed",
}


def _reason() -> str:
    return st.text_input("Reason (for the audit log)", key="reason", placeholder="optional", autocomplete="off")


ACTS: dict[str, Callable[[Operator], None]] = {
    "Password link": password_dialog,
    "Sign out": sign_out_dialog,
    "Disable": disable_dialog,
    "Enable": enable_dialog,
    "Remove": remove_dialog,
}
