"""Keys: the list, and the dialogs that create, edit, rotate, disable, enable and delete."""

import json
from collections.abc import Callable
from datetime import datetime
from html import escape

import streamlit as st

from toolkit.admin import keys, organisations, plans
from toolkit.admin.key_summaries import KeySummary, summaries
from toolkit.admin.keys import UNSET
from toolkit.core.money import show_usd, usd
from toolkit.core.policy import HoldPolicy, KeyStatus, Role
from toolkit.dashboard import dialog, key_form, shared
from toolkit.store import audit

PAGE_SIZE = 25
SHOWN = {"Live": (KeyStatus.ACTIVE, KeyStatus.DISABLED), "Deleted": (KeyStatus.DELETED,), "All": tuple(KeyStatus)}
NEAR_LIMIT = 0.8
"""Share of the monthly limit from which a key is shown as near it."""


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    may_change = workspace.actor.role is not Role.ANALYST
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Keys", anchor=False)
        st.space("stretch")
        st.button("Refresh", icon=":material/refresh:", key="key_refresh", help="Look for newer spend and changes")
        create = may_change and st.button(
            "Create key", type="primary", icon=":material/add:", key="create", help="A new API key with its secret"
        )
    with st.container(horizontal=True, vertical_alignment="center", key="key_filters"):
        text = st.text_input(
            "Search", key="key_search", placeholder="Search name or id", label_visibility="collapsed", width=280
        )
        shown = st.segmented_control(
            "Show", list(SHOWN), default="Live", required=True, key="key_shown", label_visibility="collapsed"
        )
        with st.container(width=240):
            org = shared.org_choice(workspace, "key_org")
    with workspace.read() as tx:
        now = tx.now
        found = summaries(tx, org=org.id if org else None, deleted=True)
        has_plans = bool(plans.list_all(tx))
    wanted = text.strip().lower()
    listed = [
        summary
        for summary in found
        if summary.key.status in SHOWN[str(shown)]
        and (
            wanted in summary.key.name.lower()
            or wanted == summary.key.id.lower()
            or wanted in summary.key.display.lower()
        )
    ]
    if create:
        dialog.open_("Create")
    if not found:
        shared.empty("No API keys yet.", _first_step(may_change, has_plans))
    elif not listed:
        shared.empty("No key matches.", "Change the search, or show live and deleted keys with <b>All</b>.")
    else:
        _list(listed, now, workspace.actor.org_id is None and org is None, may_change)
    _dialog({summary.key.id: summary for summary in found})


def _dialog(found: dict[str, KeySummary]) -> None:
    name, key_id = dialog.opened() or ("", "")
    if dialog.secret_place():
        dialog.secret_dialog()
    elif name == "Create":
        create_dialog()
    elif name and key_id in found:
        DIALOGS[name](found[key_id])


def _list(listed: list[KeySummary], now: datetime, several_orgs: bool, may_change: bool) -> None:
    st.html(f'<p class="kd-count">{_counts(listed, now)}</p>')
    pages = -(-len(listed) // PAGE_SIZE)
    position = min(int(st.session_state.get("key_page", 1)), pages) if pages > 1 else 1
    with st.container(key="key_list", gap=None):
        _row(_HEAD, None, may_change)
        for summary in listed[(position - 1) * PAGE_SIZE : position * PAGE_SIZE]:
            _row(_cells(summary, now, several_orgs), summary, may_change)
    if pages > 1:
        st.pagination(pages, key="key_page")


def _first_step(may_change: bool, has_plans: bool) -> str:
    if not has_plans:
        return (
            "A key needs a plan. A platform admin adds one on the server: <code>keydesk plans add</code>, after "
            "<code>keydesk upstreams add</code> and <code>keydesk models add</code>."
        )
    if may_change:
        return "Press <b>Create key</b>, copy its secret, and paste the <code>curl</code> that comes with it."
    return "Ask an org admin to create one."


def _counts(listed: list[KeySummary], now: datetime) -> str:
    near = sum(1 for each in listed if each.key.monthly_limit and each.counted >= each.key.monthly_limit * NEAR_LIMIT)
    live = sum(1 for each in listed if _state(each, now)[0] == "Active")
    texts = [f"{len(listed)} key{'s' if len(listed) != 1 else ''}", f"{live} active"]
    if near:
        texts.append(f"<b>{near} near or over the monthly limit</b>")
    return " · ".join(texts)


def _state(summary: KeySummary, now: datetime) -> tuple[str, str]:
    """Return a key's state as its callers meet it: a dead key's are not told that the organisation is suspended."""
    key = summary.key
    if key.status == KeyStatus.DELETED:
        return "Deleted", "quiet"
    if key.status == KeyStatus.DISABLED:
        return "Disabled", "warn"
    if key.expires_at is not None and key.expires_at <= now:
        return "Expired", "warn"
    if summary.org_suspended:
        return "Org suspended", "bad"
    return "Active", "good"


_HEAD = (
    '<div class="kd-row kd-key kd-head"><span>Key</span><span>Status</span><span>Plan</span>'
    '<span>Spent this month</span><span class="kd-right">Last used</span></div>'
)


def _cells(summary: KeySummary, now: datetime, several_orgs: bool) -> str:
    key, text = summary.key, escape
    under = text(key.display) + (f" · {text(summary.org_name)}" if several_orgs else "")
    expiry = ""
    if key.expires_at is not None and key.status != KeyStatus.DELETED:
        word = "expired" if key.expires_at <= now else "expires"
        expiry = f'<span class="kd-sub">{word} {shared.ago(key.expires_at, now)}</span>'
    old = ""
    if summary.old_secret_uses:
        tries = f"{summary.old_secret_uses:,} old-secret {'try' if summary.old_secret_uses == 1 else 'tries'}"
        hint = "Somebody still calls with a rotated or deleted secret of this key; those calls are refused."
        old = f'<span class="kd-sub kd-alert" title="{hint}">{tries}</span>'
    scope = json.loads(key.scope)
    models = f"{len(scope)} model{'s' if len(scope) != 1 else ''}" if scope else "all models"
    gone = " kd-gone" if key.status == KeyStatus.DELETED else ""
    return (
        f'<div class="kd-row kd-key{gone}">'
        f'<span><b class="kd-name" title="{text(key.name)}">{text(key.name)}</b>'
        f'<span class="kd-sub kd-mono">{under}</span></span>'
        f"<span>{shared.badge(*_state(summary, now))}{expiry}</span>"
        f'<span>{text(summary.plan_name)}<span class="kd-sub" title="{text(", ".join(scope))}">{models}</span></span>'
        f"<span>{_limit_bar(summary)}</span>"
        f'<span class="kd-right">{shared.ago(summary.last_used_at, now)}{old}</span></div>'
    )


def _limit_bar(summary: KeySummary) -> str:
    limit, spent, held = summary.key.monthly_limit, summary.counted, summary.held
    held_note = f" · {show_usd(held)} held" if held else ""
    calls = f"{summary.calls:,} call{'s' if summary.calls != 1 else ''}{held_note}"
    if limit is None:
        below = f'<span class="kd-sub">{calls}</span>'
        return f'<span class="kd-limit"><span>{shared.money(spent)}<em>no limit</em></span>{below}</span>'
    share = spent / limit if limit else 1.0
    tone = "kd-fill-bad" if spent >= limit else "kd-fill-warn" if share >= NEAR_LIMIT else "kd-fill"
    title = f"${usd(spent)} spent, ${usd(held)} held, of ${usd(limit)} this month"
    bar = shared.bar([(share, tone), ((held / limit if limit else 0.0), "kd-fill-held")], title)
    return (
        f'<span class="kd-limit"><span>{shared.money(spent)}<em>of {show_usd(limit)}</em></span>{bar}'
        f'<span class="kd-sub">{calls}</span></span>'
    )


def _row(cells: str, summary: KeySummary | None, may_change: bool) -> None:
    with st.container(
        horizontal=True,
        wrap=False,
        vertical_alignment="center",
        gap="small",
        key=f"row_{summary.key.id if summary else 'head'}",
    ):
        st.html(cells)
        if summary is None:
            st.html("<span></span>", width=40)
            return
        options = ["Details"]
        if may_change and summary.key.status != KeyStatus.DELETED:
            toggle = "Disable" if summary.key.status == KeyStatus.ACTIVE else "Enable"
            options += ["Edit", "Rotate", toggle, "Delete"]
        chosen = st.menu_button(
            "",
            options,
            icon=":material/more_horiz:",
            type="tertiary",
            key=f"menu_{summary.key.id}",
            format_func=_MENU.__getitem__,
            width=40,
        )
        if chosen:
            dialog.open_(chosen, summary.key.id)


_MENU = {
    "Details": ":material/info: Details",
    "Edit": ":material/edit: Edit options",
    "Rotate": ":material/autorenew: Rotate secret",
    "Disable": ":material/pause_circle: Disable",
    "Enable": ":material/play_circle: Enable",
    "Delete": ":material/delete: Delete",
}


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
        ("Name", f"<b>{text(key.name)}</b> {shared.badge(*_state(summary, now))}"),
        ("Organisation", text(summary.org_name)),
        ("Id", f"<code>{key.id}</code>"),
        ("Secret", f"<code>{text(key.display)}</code>"),
        ("Plan", text(summary.plan_name)),
        ("Model scope", ", ".join(f"<code>{text(model)}</code>" for model in scope) or "all models of the plan"),
        ("This month", _limit_bar(summary)),
        ("Hold policy", key_form.POLICIES[HoldPolicy(key.hold_policy)]),
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

if __name__ == "__main__":
    main()
