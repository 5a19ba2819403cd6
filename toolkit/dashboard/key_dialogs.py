"""The dialogs that create, edit, rotate, disable, enable and delete a key, and show all of it."""

import json
from collections.abc import Callable
from datetime import timedelta
from html import escape
from typing import Any

import streamlit as st

from toolkit.admin import keys, organisations
from toolkit.admin.key_summaries import KeySummary
from toolkit.core.errors import KeydeskError
from toolkit.core.hosted_tools import HostedTools
from toolkit.core.period import Period
from toolkit.core.policy import HoldPolicy
from toolkit.core.wording import counted
from toolkit.dashboard import dialog, figures, key_form, shared
from toolkit.dashboard.figures import View
from toolkit.dashboard.key_cells import limit_bar, state_of
from toolkit.store import audit, holds
from toolkit.workspace import Workspace


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
                    owner=options.owner,
                    environment=options.environment,
                    labels=options.labels,
                    note=options.note,
                )
            place["new"] = new
            st.rerun()


@st.dialog("Edit options", width="medium", on_dismiss=dialog.close)
def edit_dialog(summary: KeySummary) -> None:
    """Change the options of a key.

    What was not touched stays, also if somebody else has changed it meanwhile; what was touched must be as it was seen.
    """
    dialog.leave_if_closed()
    workspace, opened = shared.workspace(), dialog.as_opened(summary)
    key = opened.key
    before = key_form.Options.of(key)
    options = key_form.draw(workspace, key.org_id, before)
    reason = _reason()
    if dialog.buttons("Save", disabled=options.plan is None) and options.plan:
        with shared.problems():
            changes, seen = _touched(before, options), _seen(workspace, opened)
            with workspace.write() as tx:
                facts = {_FACTS[name] for name in changes}
                keys.update(
                    tx, key.id, **changes, reason=reason, seen={fact: seen[fact] for fact in seen if fact in facts}
                )
            dialog.finish(f"{options.name.strip()} saved. The next call is judged by the new options.")


_FACTS = {
    "name": "name",
    "plan": "plan",
    "models": "models",
    "monthly_limit": "monthly_limit_usd",
    "expires_at": "expires_at",
    "hold_policy": "policy",
    "hosted_tools": "hosted_tools",
    "owner": "owner",
    "environment": "environment",
    "labels": "labels",
    "note": "note",
}
"""What `keys.update` takes, and how `keys.describe` calls it."""


def _touched(before: key_form.Options, now: key_form.Options) -> dict[str, Any]:
    """Return what a form has otherwise than it began with, as `keys.update` takes it."""
    same = ("name", "plan", "models", "expires_at", "hosted_tools", "owner", "environment", "labels", "note")
    changes = {name: getattr(now, name) for name in same if getattr(now, name) != getattr(before, name)}
    if now.limit != before.limit:
        changes["monthly_limit"] = now.monthly_limit()
    if now.policy != before.policy:
        changes["hold_policy"] = now.policy
    return changes


def _seen(workspace: Workspace, opened: KeySummary) -> dict[str, Any]:
    """Return a key's facts as they were when its form was opened."""
    with workspace.read() as tx:
        return keys.describe(tx, opened.key)


@st.dialog("Rotate the secret", on_dismiss=dialog.dismiss)
def rotate_dialog(summary: KeySummary) -> None:
    """Confirm and make the new secret."""
    dialog.leave_if_closed()
    workspace, key = shared.workspace(), summary.key
    st.html(
        f"<p><b>{escape(key.name)}</b> gets a new secret and the present one, <code>{key.display}</code>, "
        "<b>stops at once</b>: apps that use it are refused until they have the new one.</p>"
        f"{_at_stake(workspace, summary)}<p>Options, limit, this month's spend and history stay.</p>"
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
        f"Calls under way finish and are charged.</p>{_at_stake(workspace, summary)}"
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
        f"{_at_stake(workspace, summary)}<p>To confirm, type its name: <b>{escape(key.name)}</b></p>"
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
        ("Owner", text(key.owner) or "–"),
        ("Environment", text(key.environment) or "–"),
        ("Labels", " ".join(shared.badge(label, "quiet") for label in json.loads(key.labels)) or "–"),
        ("Note", text(key.note).replace("\n", "<br>") or "–"),
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


def _at_stake(workspace: Workspace, summary: KeySummary) -> str:
    """Return what a key did lately and does now, as HTML: whoever stops it should know."""
    with workspace.read() as tx:
        minute = tx.now.replace(second=0, microsecond=0) + timedelta(minutes=1)  # so that it is asked once a minute
        under_way = sum(1 for hold in holds.open_holds(tx, org=summary.key.org_id) if hold.key_id == summary.key.id)
    day = Period(minute - timedelta(days=1), minute)
    try:
        table = figures.spend(workspace, View.of(workspace, summary.key.org_id), ("key",), day)
        mine = table[table["key_id"] == summary.key.id]
        lately = (
            f"{counted(int(mine['calls'].sum()), 'call')} in the last 24 hours, {shared.money(int(mine['cost'].sum()))}"
        )
    except KeydeskError:  # a leaked key must be stopped whether or not the ledger answers
        lately = "The ledger does not say now what it did in the last 24 hours"
    return f"<p>{lately}; {counted(under_way, 'call')} under way; {shared.money(summary.counted)} spent this month.</p>"


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
