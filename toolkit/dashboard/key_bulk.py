"""Changes of several keys at once: chosen, confirmed, and told key by key; new secrets as a file, once."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import streamlit as st

from toolkit.admin import key_options, keys, plans
from toolkit.admin.key_summaries import KeySummary
from toolkit.admin.keys import NewSecret
from toolkit.core.errors import KeydeskError
from toolkit.core.money import parse_usd
from toolkit.core.policy import KeyStatus, Role
from toolkit.core.spreadsheet import FORMULA
from toolkit.core.wording import counted
from toolkit.dashboard import dialog, filters, shared
from toolkit.store.tables import ApiKey
from toolkit.store.transaction import Transaction
from toolkit.workspace import Workspace

ACTS = {
    "disable": "Disable",
    "enable": "Enable",
    "limit": "Set the monthly limit",
    "plan": "Give a plan",
    "models": "Set the model scope",
    "owner": "Hand over to an owner",
    "rotate": "Rotate the secrets",
}
_DONE = "bulk"


class Result(NamedTuple):
    """What became of one key.

    Args:
        name: of the key.
        problem: why it was not changed, in words; empty if it was.
        secret: the new one, after a rotation.
    """

    name: str
    problem: str = ""
    secret: NewSecret | None = None


def has_result() -> bool:
    """Whether a result waits to be shown."""
    return _DONE in dialog.secret_place()


@st.dialog("Change several keys", width="medium", on_dismiss=dialog.dismiss)
def bulk_dialog(found: Mapping[str, KeySummary]) -> None:
    """Ask which keys, and what is to be done with them."""
    dialog.leave_if_closed()
    workspace, place = shared.workspace(), dialog.secret_place()
    live = {key_id: each for key_id, each in found.items() if each.key.status != KeyStatus.DELETED}
    several = len({each.key.org_id for each in live.values()}) > 1
    names = filters.distinct(
        {key_id: each.key.name + (f" · {each.org_name}" if several else "") for key_id, each in live.items()}
    )
    chosen = st.multiselect("Keys", list(live), format_func=names.__getitem__, key="bulk_keys", placeholder="which")
    act = str(st.selectbox("What", list(ACTS), format_func=ACTS.__getitem__, key="bulk_act"))
    change = _change(workspace, act, [live[key_id].key for key_id in chosen])
    if chosen:
        st.html(_consequence(act, [live[key_id] for key_id in chosen]))
    reason = st.text_input("Reason (for the audit log)", key="reason", placeholder="optional", autocomplete="off")
    if dialog.buttons(f"{ACTS[act]}: {counted(len(chosen), 'key')}", disabled=not chosen or change is None):
        if change is None:
            return
        place[_DONE] = done = list[Result]()
        # Each in its own transaction: one that fails stops no other, and what was done is known at any moment.
        done.extend(_one(workspace, live[key_id].key, change, reason) for key_id in chosen)
        st.rerun()


Change = Callable[[Transaction, ApiKey, str], NewSecret | None]


def _one(workspace: Workspace, key: ApiKey, change: Change, reason: str) -> Result:
    try:
        with workspace.write() as tx:
            secret = change(tx, key, reason)
    except KeydeskError as error:
        return Result(key.name, str(error))
    return Result(key.name, secret=secret)


def _change(workspace: Workspace, act: str, chosen: Sequence[ApiKey]) -> Change | None:
    """Draw what an act needs to know; return what does it to one key, or None while something is missing."""
    keyring = workspace.keyring

    def updating(**options: Any) -> Change:
        def change(tx: Transaction, key: ApiKey, reason: str) -> None:
            keys.update(tx, key.id, **options, reason=reason)

        return change

    if act in {"disable", "enable"}:
        verb = keys.disable if act == "disable" else keys.enable

        def switch(tx: Transaction, key: ApiKey, reason: str) -> None:
            verb(tx, key.id, confirm=key.name, reason=reason)

        return switch
    if act == "rotate":
        return lambda tx, key, reason: keys.rotate(tx, keyring, key.id, confirm=key.name, reason=reason)
    if act == "limit":
        typed = st.text_input("Monthly limit (USD)", key="bulk_limit", placeholder="50", autocomplete="off")
        if st.checkbox("No limit", key="bulk_no_limit"):
            return updating(monthly_limit=None)
        try:
            return updating(monthly_limit=parse_usd(typed, "monthly limit")) if typed.strip() else None
        except KeydeskError as error:
            st.error(shared.plain(str(error)), icon=":material/error:")
            return None
    if act == "owner":
        owner = st.text_input("Owner", key="bulk_owner", autocomplete="off", placeholder="search team")
        return updating(owner=owner) if owner.strip() else None
    with workspace.read() as tx:
        if act == "models":
            shared_models = [set(plans.models(tx, key.plan_id, key.org_id)) for key in chosen]
            offered = sorted(set.intersection(*shared_models)) if shared_models else []
            models = st.multiselect("Model scope", offered, key="bulk_models", placeholder="which")
            if st.checkbox("All models of the plan", key="bulk_all_models"):
                return updating(models=[])
            return updating(models=list(models)) if models else None
        listed = {plan.id: plan.name for plan in plans.list_all(tx)}
        if workspace.actor.role is not Role.PLATFORM_ADMIN and chosen:
            mine = key_options.assigned_plans(tx, chosen[0].org_id)
            listed = {plan_id: name for plan_id, name in listed.items() if plan_id in mine}
    plan = st.selectbox("Plan", list(listed), format_func=listed.__getitem__, key="bulk_plan")
    return updating(plan=plan) if plan else None


def _consequence(act: str, chosen: Sequence[KeySummary]) -> str:
    """Return what will happen, as HTML."""
    spent = sum(each.counted for each in chosen)
    whose = counted(len({each.key.org_id for each in chosen}), "organisation")
    stops = {
        "disable": "Their next calls are refused until they are enabled again.",
        "rotate": "<b>Their present secrets stop at once.</b> You get the new ones as a file, this once.",
    }
    return (
        f"<p>{counted(len(chosen), 'key')} of {whose}, {shared.money(spent)} spent this month. "
        f"{stops.get(act, 'Their next calls are judged by it.')}</p>"
    )


@st.dialog("Done", width="medium", dismissible=False)
def result_dialog() -> None:
    """Show what became of each key, and the new secrets once."""
    results: list[Result] | None = dialog.secret_place().get(_DONE)
    if results is None:
        st.rerun()
    failed = [each for each in results if each.problem]
    st.html(f"<p>{counted(len(results) - len(failed), 'key')} changed, {len(failed)} not.</p>")
    rows = [
        [
            escape(each.name),
            shared.badge("not changed", "bad") if each.problem else shared.badge("done", "good"),
            escape(each.problem),
        ]
        for each in sorted(results, key=lambda each: not each.problem)
    ]
    st.html(shared.table([("Key", "left"), ("", "left"), ("Why not", "left")], rows))
    secrets = [each.secret for each in results if each.secret is not None]
    if secrets:
        st.html(
            '<div class="kd-warning"><b>Download the new secrets now.</b> They are stored nowhere and cannot be shown '
            "again. Keep the file where only those who need it can read it, and delete it afterwards.</div>"
        )
        st.download_button(
            f"Download {counted(len(secrets), 'secret')}",
            secrets_file(secrets),
            "keydesk-secrets.csv",
            "text/csv",
            icon=":material/download:",
            key="bulk_secrets",
            on_click="ignore",
        )
    with st.container(horizontal=True, horizontal_alignment="right"):
        label = "I have stored them" if secrets else "Close"
        st.button(label, type="primary", key="bulk_stored", on_click=dialog.close)


def secrets_file(secrets: Sequence[NewSecret]) -> str:
    """Return new secrets as CSV: name and id of each key, and its secret.

    A name that a spreadsheet would take for a formula is guarded: one could send the secrets beside it elsewhere.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("name", "id", "secret"))
    for new in secrets:
        guard = "'" if new.key.name.startswith(FORMULA) else ""
        writer.writerow((guard + new.key.name, new.key.id, new.secret))
    return text.getvalue()
