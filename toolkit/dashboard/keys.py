"""Keys: the list, and the menu that opens the dialogs of each."""

import json
from datetime import datetime

import streamlit as st

from toolkit.admin import plans
from toolkit.admin.key_summaries import KeySummary, summaries
from toolkit.core.policy import KeyStatus, Role
from toolkit.dashboard import dialog, key_bulk, shared
from toolkit.dashboard.key_cells import HEAD, NEAR_LIMIT, cells_of, state_of
from toolkit.dashboard.key_dialogs import DIALOGS, create_dialog
from toolkit.store.tables import ApiKey

PAGE_SIZE = 25
SHOWN = {"Live": (KeyStatus.ACTIVE, KeyStatus.DISABLED), "Deleted": (KeyStatus.DELETED,), "All": tuple(KeyStatus)}


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    may_change = workspace.actor.role is not Role.ANALYST
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Keys", anchor=False)
        st.space("stretch")
        st.button("Refresh", icon=":material/refresh:", key="key_refresh", help="Look for newer spend and changes")
        if may_change and st.button(
            "Change several", icon=":material/checklist:", key="bulk", help="Disable, rotate, limit … many keys at once"
        ):
            dialog.show("Bulk")
        create = may_change and st.button(
            "Create key", type="primary", icon=":material/add:", key="create", help="A new API key with its secret"
        )
    with st.container(horizontal=True, vertical_alignment="center", key="key_filters"):
        text = st.text_input(
            "Search",
            key="key_search",
            placeholder="Name, owner, label, id",
            label_visibility="collapsed",
            width=280,
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
    listed = [summary for summary in found if summary.key.status in SHOWN[str(shown)] and _matches(summary.key, wanted)]
    if create:
        dialog.show("Create")
    if not found:
        shared.empty("No API keys yet.", _first_step(may_change, has_plans))
    elif not listed:
        shared.empty("No key matches.", "Change the search, or show live and deleted keys with <b>All</b>.")
    else:
        _list(listed, now, workspace.actor.org_id is None and org is None, may_change)
    _dialog({summary.key.id: summary for summary in found}, may_change=may_change)


def _matches(key: ApiKey, wanted: str) -> bool:
    """Whether a key is meant by what was typed, in lower case."""
    said = (key.name, key.display, key.owner, key.environment, key.note, *json.loads(key.labels))
    return wanted == key.id.lower() or any(wanted in each.lower() for each in said)


def _dialog(found: dict[str, KeySummary], *, may_change: bool) -> None:
    name, key_id = dialog.shown() or ("", "")
    if key_bulk.has_result():
        key_bulk.result_dialog()
    elif name == "Bulk" and may_change:
        key_bulk.bulk_dialog(found)
    elif dialog.secret_place():
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
        _row(HEAD, None, may_change)
        for summary in listed[(position - 1) * PAGE_SIZE : position * PAGE_SIZE]:
            _row(cells_of(summary, now, several_orgs), summary, may_change)
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
    live = sum(1 for each in listed if state_of(each, now)[0] == "Active")
    texts = [f"{len(listed)} key{'s' if len(listed) != 1 else ''}", f"{live} active"]
    if near:
        texts.append(f"<b>{near} near or over the monthly limit</b>")
    return " · ".join(texts)


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
            f"Actions for {shared.plain(summary.key.name)}",
            options,
            icon=":material/more_horiz:",
            type="tertiary",
            key=f"menu_{summary.key.id}",
            format_func=_MENU.__getitem__,
            width=40,
        )
        if chosen:
            dialog.show(chosen, summary.key.id)


_MENU = {
    "Details": ":material/info: Details",
    "Edit": ":material/edit: Edit options",
    "Rotate": ":material/autorenew: Rotate secret",
    "Disable": ":material/pause_circle: Disable",
    "Enable": ":material/play_circle: Enable",
    "Delete": ":material/delete: Delete",
}


if __name__ == "__main__":
    main()
