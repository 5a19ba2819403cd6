"""The dialogs that create, edit, rotate, disable, enable and delete a key, and show all of it."""

import json
from collections.abc import Callable
from html import escape

import streamlit as st

from toolkit.admin import keys, organisations
from toolkit.admin.key_summaries import KeySummary
from toolkit.admin.keys import UNSET
from toolkit.core.hosted_tools import HostedTools
from toolkit.core.policy import HoldPolicy
from toolkit.dashboard import dialog, key_form, shared
from toolkit.dashboard.key_cells import limit_bar, state_of
from toolkit.store import audit


@st.dialog("Create an API key", width="medium", on_dismiss=dialog.dismiss)
def create_dialog() -> None:
    """Ask for the options of a new key and make it."""
    dialog.leave_if_closed()
    workspace = shared.workspace()
    with workspace.read() as tx:
        orgs = {org.id: org.name for org in organisations.list_all(tx)}
    if not orgs:
        st.warning("There is no organisation yet. Add one on the server with `keydesk orgs add NAME`.")
        dialog.buttons("Create key", disabled=True)
        return
    org_id = workspace.actor.org_id or st.selectbox(
        "Organisation", list(orgs), format_func=orgs.__getitem__, key="new_key_org"
    )
    place = dialog.secret_place()
    options = key_form.draw(workspace, org_id, key_form.NEW)
    if dialog.buttons("Create key", disabled=options.plan is None) and options.plan:
        with shared.problems():
            with workspace.write() as tx:
                new = keys.create(
                    tx,
                    workspace.keyring,
                    org=org_id,
                    name=options.name,
                    plan=options.plan,
                    models=options.models,
                    monthly_limit=options.monthly_limit(),
                    expires_at=options.expires_at,
                    hold_policy=options.policy,
                    hosted_tools=options.hosted_tools,
                )
            place["new"] = new
            st.rerun()


@st.dialog("Edit options", width="medium", on_dismiss=dialog.close)
def edit_dialog(summary: KeySummary) -> None:
    """Change the options of a key; what was not touched stays, also if somebody else has changed it meanwhile."""
    dialog.leave_if_closed()
    workspace, key = shared.workspace(), dialog.as_opened(summary).key
    before = key_form.Options.of(key)
    options = key_form.draw(workspace, key.org_id, before)
    reason = _reason()
    if dialog.buttons("Save", disabled=options.plan is None) and options.plan:
        with shared.problems():
            with workspace.write() as tx:
                keys.update(
                    tx,
                    key.id,
                    name=UNSET if options.name == before.name else options.name,
                    plan=UNSET if options.plan == before.plan else options.plan,
                    models=UNSET if options.models == before.models else options.models,
                    monthly_limit=UNSET if options.limit == before.limit else options.monthly_limit(),
                    expires_at=UNSET if options.expires_at == before.expires_at else options.expires_at,
                    hold_policy=UNSET if options.policy == before.policy else options.policy,
                    hosted_tools=UNSET if options.hosted_tools == before.hosted_tools else options.hosted_tools,
                    reason=reason,
                )
            dialog.finish(f"{options.name.strip()} saved. The next call is judged by the new options.")


@st.dialog("Rotate the secret", on_dismiss=dialog.dismiss)
def rotate_dialog(summary: KeySummary) -> None:
    """Confirm and make the new secret."""
    dialog.leave_if_closed()
    workspace, key = shared.workspace(), summary.key
    st.html(
        f"<p><b>{escape(key.name)}</b> gets a new secret and the present one, <code>{key.display}</code>, "
        "<b>stops at once</b>: apps that use it are refused until they have the new one.</p>"
        "<p>Options, limit, this month's spend and history stay.</p>"
    )
    reason = _reason()
    place = dialog.secret_place()
    if dialog.buttons("Rotate now"):
        with shared.problems():
            with workspace.write() as tx:
                new = keys.rotate(tx, workspace.keyring, key.id, confirm=key.name, reason=reason)
            place["new"] = new
            st.rerun()


@st.dialog("Disable the key", on_dismiss=dialog.close)
def disable_dialog(summary: KeySummary) -> None:
    """Confirm and stop the key."""
    dialog.leave_if_closed()
    workspace, key = shared.workspace(), summary.key
    st.html(
        f"<p>Calls with <b>{escape(key.name)}</b> are refused from now on, until you enable it again. "
        "Calls under way finish and are charged.</p>"
    )
    reason = _reason()
    if dialog.buttons("Disable"):
        with shared.problems():
            with workspace.write() as tx:
                keys.disable(tx, key.id, confirm=key.name, reason=reason)
            dialog.finish(f"{key.name} is disabled.")


@st.dialog("Enable the key", on_dismiss=dialog.close)
def enable_dialog(summary: KeySummary) -> None:
    """Confirm and let the key call again."""
    dialog.leave_if_closed()
    workspace, key = shared.workspace(), summary.key
    st.html(f"<p><b>{escape(key.name)}</b> may call again, with the secret and options it had.</p>")
    reason = _reason()
    if dialog.buttons("Enable"):
        with shared.problems():
            with workspace.write() as tx:
                keys.enable(tx, key.id, confirm=key.name, reason=reason)
            dialog.finish(f"{key.name} is enabled.")


@st.dialog("Delete the key", on_dismiss=dialog.close)
def delete_dialog(summary: KeySummary) -> None:
    """Confirm by typing the name, then delete for ever."""
    dialog.leave_if_closed()
    workspace, key = shared.workspace(), summary.key
    st.html(
        '<div class="kd-warning"><b>This is final.</b> The secret stops at once and the key cannot come back. '
        "Its requests and spend stay in the logs and charts under its name.</div>"
        f"<p>To confirm, type its name: <b>{escape(key.name)}</b></p>"
    )
    typed = st.text_input("Name of the key", key="confirm_name", autocomplete="off")
    reason = _reason()
    if dialog.buttons("Delete for ever", danger=True):
        with shared.problems():
            with workspace.write() as tx:
                keys.delete(tx, key.id, confirm=typed, reason=reason)
            dialog.finish(f"{key.name} is deleted.")


@st.dialog("Key", width="medium", position="right", on_dismiss=dialog.close)
def details_dialog(summary: KeySummary) -> None:
    """Show everything about a key, and who did what to it."""
    workspace, key, text = shared.workspace(), summary.key, escape
    with workspace.read() as tx:
        now = tx.now
        acts = audit.rows(tx, subject=key.id, limit=50)
    scope = json.loads(key.scope)
    rows = [
        ("Name", f"<b>{text(key.name)}</b> {shared.badge(*state_of(summary, now))}"),
        ("Organisation", text(summary.org_name)),
        ("Id", f"<code>{key.id}</code>"),
        ("Secret", f"<code>{text(key.display)}</code>"),
        ("Plan", text(summary.plan_name)),
        ("Model scope", ", ".join(f"<code>{text(model)}</code>" for model in scope) or "all models of the plan"),
        ("This month", limit_bar(summary)),
        ("Hold policy", key_form.POLICIES[HoldPolicy(key.hold_policy)]),
        ("Tools that the provider would run", key_form.HOSTED_TOOLS[HostedTools(key.hosted_tools)]),
        ("Expires", shared.utc(key.expires_at) if key.expires_at else "never"),
        ("Last used", shared.ago(summary.last_used_at, now)),
        ("Tries with an old secret", shared.count(summary.old_secret_uses)),
        ("Created", f"{shared.utc(key.created_at)} by {text(summary.created_by)}"),
        ("Rotated", shared.utc(key.rotated_at) if key.rotated_at else "never"),
    ]
    if key.deleted_at:
        rows.append(("Deleted", shared.utc(key.deleted_at)))
    st.html(shared.facts(rows))
    shared.heading("History", "newest first")
    st.html(
        shared.table(
            [("When", "left"), ("What", "left"), ("Who", "left"), ("Why", "left")],
            [
                [shared.ago(act.at, now), text(act.action.removeprefix("key.")), text(act.actor), text(act.reason)]
                for act in acts
            ],
        )
    )


def _reason() -> str:
    return st.text_input("Reason (for the audit log)", key="reason", placeholder="optional")


DIALOGS: dict[str, Callable[[KeySummary], None]] = {
    "Details": details_dialog,
    "Edit": edit_dialog,
    "Rotate": rotate_dialog,
    "Disable": disable_dialog,
    "Enable": enable_dialog,
    "Delete": delete_dialog,
}
