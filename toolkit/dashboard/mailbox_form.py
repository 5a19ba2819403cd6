"""The form of a destination that gets alerts by e-mail. Its password is named, never given."""

from collections.abc import Mapping

import streamlit as st

from toolkit.alerts import destinations, mail
from toolkit.alerts.mail import Mailbox, Security
from toolkit.dashboard import dialog, shared
from toolkit.store.tables import Organisation
from toolkit.workspace import Workspace

_SECURITIES = {
    Security.STARTTLS: "STARTTLS, as a rule at port 587",
    Security.TLS: "TLS, as a rule at port 465",
    Security.NONE: "None: a relay on this machine, without a password",
}


def draw(workspace: Workspace, orgs: Mapping[str, Organisation]) -> None:
    """Draw it, and add the destination that it asks for.

    Args:
        workspace: of a platform admin.
        orgs: by id.
    """
    with st.form("add_mailbox_form", border=False):
        name = st.text_input("Name", key="mailbox_name", placeholder="operations", autocomplete="off")
        to = st.text_input(
            "To, with commas between", key="mailbox_to", placeholder="ops@example.com", autocomplete="off"
        )
        sender = st.text_input("From", key="mailbox_from", placeholder="keydesk@example.com", autocomplete="off")
        left, right = st.columns(2)
        host = left.text_input("Mail server", key="mailbox_host", placeholder="mail.example.com", autocomplete="off")
        port = right.number_input(
            "Port", 1, 65_535, None, key="mailbox_port", placeholder="465, 587 or 25", help="Empty is the usual one."
        )
        security = st.selectbox(
            "Security", list(_SECURITIES), format_func=_SECURITIES.__getitem__, key="mailbox_security"
        )
        left, right = st.columns(2)
        login = left.text_input("User", key="mailbox_login", placeholder="none", autocomplete="off")
        password_name = right.text_input(
            "Name of the password",
            key="mailbox_password_name",
            placeholder="MAIL_PASSWORD",
            autocomplete="off",
            help="Of the line in the file that KEYDESK_ALERTS_SECRETS_FILE names, where alerts are sent. Never the "
            "password itself.",
        )
        org = st.selectbox(
            "Alerts of",
            ["", *orgs],
            format_func=lambda each: orgs[each].name if each else "Everybody, and the platform's own",
            key="mailbox_org",
        )
        with st.container(horizontal=True, horizontal_alignment="right"):
            pressed = st.form_submit_button("Add destination", type="primary", key="confirm")
    if pressed:
        mailbox = Mailbox(
            host.strip(),
            int(port or mail.PORTS[security]),
            security,
            login.strip() or None,
            password_name.strip() or None,
            sender.strip(),
            tuple(filter(None, map(str.strip, to.split(",")))),
        )
        with shared.problems():
            with workspace.write() as tx:
                row = destinations.add_mailbox(tx, name, mailbox, org or None)
                added = row.id, row.name
            shared.flash(f"{added[1]} is added. Send it a test.")
            dialog.show("Destination", added[0])
            st.rerun()
