"""The dialogs of the page Alerts: add, look at, try and remove a destination; an alert and what became of it."""

import json
from collections.abc import Mapping
from datetime import datetime
from html import escape
from typing import Any

import streamlit as st

from toolkit.alerts import destinations
from toolkit.alerts.mail import Mailbox
from toolkit.core.policy import Role
from toolkit.dashboard import dialog, mailbox_form, shared
from toolkit.dashboard.copy_button import copy_button
from toolkit.store.tables import AlertDelivery, AlertDestination, Organisation
from toolkit.workspace import Workspace

LOOK_EVERY = "1s"
WEBHOOK, MAIL = "Webhook", "E-mail"
_TEST = "alert_test"
_SECRET = "destination"  # noqa: S105 - the name of the place, not a secret


def draw(
    workspace: Workspace, rows: Mapping[str, AlertDestination], orgs: Mapping[str, Organisation], now: datetime
) -> None:
    """Draw the dialog that is open, if any."""
    name, subject = dialog.shown() or ("", "")
    if _SECRET in dialog.secret_place():
        secret_dialog()
    elif name == "Add destination":
        add_dialog(orgs)
    elif name == "Destination" and subject in rows:
        destination_dialog(rows[subject], orgs)
    elif name == "Remove destination" and subject in rows:
        remove_dialog(rows[subject])
    elif name == "Alert":
        alert_dialog(workspace, subject, now)


@st.dialog("Add a destination", width="medium", on_dismiss=dialog.dismiss)
def add_dialog(orgs: Mapping[str, Organisation]) -> None:
    """Ask who is to be told, and about what."""
    dialog.leave_if_closed()
    workspace = shared.workspace()
    is_platform = workspace.actor.role is Role.PLATFORM_ADMIN
    if is_platform and _kind() == MAIL:
        mailbox_form.draw(workspace, orgs)
        return
    place = dialog.secret_place()
    with st.form("add_destination_form", border=False):
        name = st.text_input("Name", key="destination_name", placeholder="on-call", autocomplete="off")
        url = st.text_input(
            "URL of the webhook",
            key="destination_url",
            placeholder="https://alerts.example.com/keydesk",
            autocomplete="off",
            help="It gets a POST with signed JSON; docs/alerts.md shows how a receiver verifies it."
            + ("" if is_platform else " It must be https, and public."),
        )
        org = workspace.actor.org_id
        if org is None:
            org = st.selectbox(
                "Alerts of",
                ["", *orgs],
                format_func=lambda each: orgs[each].name if each else "Everybody, and the platform's own",
                key="destination_org",
            )
        pressed = dialog.form_button("Add destination")
    if pressed:
        with shared.problems():
            with workspace.write() as tx:
                row, secret = destinations.add(tx, workspace.keyring, name, url, org or None)
            place[_SECRET] = row, secret
            st.rerun()


def _kind() -> str:
    return str(
        st.segmented_control(
            "Kind",
            [WEBHOOK, MAIL],
            default=WEBHOOK,
            required=True,
            key="destination_kind",
            label_visibility="collapsed",
        )
    )


def _server(mailbox: Mailbox) -> str:
    """Return by which server alerts are mailed, as HTML."""
    user = f", as {mailbox.login} with the password {mailbox.password_name}" if mailbox.login else ""
    return escape(f"{mailbox.host}:{mailbox.port} ({mailbox.security}), from {mailbox.sender}{user}")


@st.dialog("Secret of the destination", width="medium", dismissible=False)
def secret_dialog() -> None:
    """Show what the receiver verifies signatures with, once for each time that it is asked for."""
    held = dialog.secret_place().get(_SECRET)
    if held is None:
        st.rerun()
    row, secret = held
    st.html(
        f"<p><b>{escape(row.name)}</b> signs what it is sent with this secret. Give it to the receiver, which verifies "
        "by it that an alert is ours.</p>"
        '<p class="kd-muted">It is stored nowhere. An admin can have it shown again, and the audit log says so.</p>'
    )
    with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
        st.html('<div class="kd-field">Secret</div>')
        copy_button(secret, "Copy secret", key="copy_secret")
    st.code(secret, language=None, wrap_lines=True)
    with st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("I have stored it", type="primary", key="secret_stored"):
            dialog.show("Destination", row.id)
            st.rerun()


@st.dialog("Destination", width="medium", position="right", on_dismiss=dialog.close)
def destination_dialog(row: AlertDestination, orgs: Mapping[str, Organisation]) -> None:
    """Show a destination; try it, show its secret, remove it."""
    workspace = shared.workspace()
    with workspace.read() as tx:
        waiting = destinations.count_open(tx).get(row.id, 0)
        url, mailbox = destinations.shown_url(tx, row), destinations.mailbox_of(tx, row)
    whose = orgs[row.org_id].name if row.org_id else "everybody, and the platform's own"
    st.html(
        shared.facts(
            [
                ("Name", f"<b>{escape(row.name)}</b>"),
                ("Alerts of", escape(whose)),
                ("To" if destinations.is_mailed(row) else "URL", f"<code>{escape(url.removeprefix('mailto:'))}</code>"),
                *([("By", _server(mailbox))] if mailbox else []),
                ("Waiting", shared.count(waiting)),
                ("Added", f"{shared.utc(row.created_at)} by {escape(row.created_by)}"),
            ]
        )
    )
    if not destinations.may_change(workspace.actor, row):
        if workspace.actor.role is not Role.ANALYST:
            st.caption("The platform named it: ask a platform admin to change or try it.")
        return
    with st.container(horizontal=True):
        if st.button("Send a test", icon=":material/send:", type="primary", key="test_destination"):
            _ask_for_test(workspace, row)
        if not destinations.is_mailed(row) and st.button(
            "Show the secret", icon=":material/visibility:", key="show_secret"
        ):
            place = dialog.secret_place()
            with shared.problems():
                with workspace.write() as tx:
                    secret = destinations.secret(tx, workspace.keyring, row.id)
                place[_SECRET] = row, secret
                st.rerun()
        if st.button("Remove", icon=":material/delete:", key="remove_destination"):
            dialog.show("Remove destination", row.id)
            st.rerun()
    test = st.session_state.get(_TEST)
    if test is not None and test[0] == row.id:
        if test[2] is None:
            test_outcome(test[1], row.name)
        else:
            _told(test[2], row.name)


def _ask_for_test(workspace: Workspace, row: AlertDestination) -> None:
    st.session_state.pop(_TEST, None)
    with shared.problems(), workspace.write() as tx:
        alert_id = destinations.test(tx, row.id)
        st.session_state[_TEST] = row.id, alert_id, None


@st.fragment(run_every=LOOK_EVERY)
def test_outcome(alert_id: str, name: str) -> None:
    """Say what became of a test's first try, as soon as there was one."""
    with shared.problems():
        workspace = shared.workspace()
        with workspace.read() as tx:
            found = destinations.history(tx, alert_id=alert_id)
        delivery = found[0].delivery if found else None
        test = st.session_state.get(_TEST)
        if delivery is not None and not delivery.tries:
            st.info(f"The test is on its way to {shared.plain(name)} …", icon=":material/hourglass_top:")
        elif test is not None:
            st.session_state[_TEST] = test[0], alert_id, _outcome(delivery)
            st.rerun()


def _outcome(delivery: AlertDelivery | None) -> tuple[bool, str]:
    """Return whether a test was taken, and why not."""
    if delivery is None:
        return False, "the destination was removed meanwhile"
    return delivery.failure is None, delivery.failure or ""


def _told(outcome: tuple[bool, str], name: str) -> None:
    taken, why = outcome
    if taken:
        st.success(f"{shared.plain(name)} has taken the test.", icon=":material/check_circle:")
    else:
        st.error(f"{shared.plain(name)} has not taken the test: {shared.plain(why)}. It is tried again.")


@st.dialog("Remove the destination", on_dismiss=dialog.close)
def remove_dialog(row: AlertDestination) -> None:
    """Confirm and remove it."""
    dialog.leave_if_closed()
    workspace = shared.workspace()
    with workspace.read() as tx:
        waiting = destinations.count_open(tx).get(row.id, 0)
    dropped = f" {waiting:,} alerts wait to be sent to it; they are dropped." if waiting else ""
    st.html(f"<p><b>{escape(row.name)}</b> is told nothing any more.{dropped} Its secret is of no use then.</p>")
    with st.form("remove_destination_form", border=False):
        reason = st.text_input("Reason (for the audit log)", key="reason", placeholder="optional")
        pressed = dialog.form_button("Remove")
    if pressed:
        with shared.problems():
            with workspace.write() as tx:
                destinations.remove(tx, row.id, reason)
            dialog.finish(f"{row.name} is removed.")


@st.dialog("Alert", width="medium", position="right", on_dismiss=dialog.close)
def alert_dialog(workspace: Workspace, subject: str, now: datetime) -> None:
    """Show what an alert says, what became of it at one destination, and what helps."""
    alert_id, _, destination_id = subject.partition("/")
    with workspace.read() as tx:
        lines = destinations.history(tx, alert_id=alert_id)
    found = [one for one in lines if (one.delivery.destination_id if one.delivery else "") == destination_id]
    if not found:
        shared.empty("Not found.", "It is older than alerts are kept, or its destination was removed.")
        return
    one, text = found[0], escape
    said: dict[str, Any] = json.loads(one.alert.body)
    data = said["data"]
    delivery = one.delivery
    rows = [
        ("Type", f"<code>{text(said['type'])}</code>"),
        ("Noticed", shared.utc(one.alert.fired_at)),
        ("To", text(one.destination or "nobody: there was no destination")),
        ("State", text(one.state)),
    ]
    if delivery is not None:
        rows.append(("Tries", shared.count(delivery.tries)))
        if delivery.ended_at is None:
            rows.append(("Next try", shared.ago(delivery.due_at, now)))
        else:
            rows.append(("Ended", shared.utc(delivery.ended_at)))
        if delivery.failure:
            rows.append(("Last failure", text(delivery.failure)))
    st.html(f"<p><b>{text(data['message'])}</b></p>")
    st.html(shared.facts(rows))
    help_ = str(data.get("help") or "")
    if help_ and not help_.startswith("keydesk "):
        st.html(f"<p>{shared.prose(help_)}</p>")
    elif help_ and workspace.actor.org_id is None:
        with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
            st.code(help_, language="bash", wrap_lines=True)
            copy_button(help_, "Copy command", key="copy_help")
    with st.expander("What is sent"):
        st.json(said)
