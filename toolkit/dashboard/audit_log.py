"""Audit log: who did what to which thing, before and after; whether the log's chains hold; their heads to keep."""

import json
from datetime import timedelta
from html import escape
from typing import Any

import streamlit as st

from toolkit.admin import operators, organisations, plans
from toolkit.admin.key_summaries import summaries
from toolkit.core.policy import Role
from toolkit.dashboard import dialog, filters, shared, table
from toolkit.store import audit
from toolkit.store.tables import AuditRow
from toolkit.store.transaction import Transaction
from toolkit.workspace import Workspace

PERIODS = {"7 days": 7, "30 days": 30, "90 days": 90, "All": None}
MOST = 5_000
"""Acts that are shown and exported at once, the newest; filters reach the others."""


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Audit log", anchor=False)
        st.space("stretch")
        _heads(workspace)
        verify = st.button(
            "Check the chains", icon=":material/link:", key="verify", help="Whether a row was changed, removed or moved"
        )
    if verify:
        _verify(workspace)
    with workspace.read() as tx:
        known, named = audit.choices(tx), _names(tx)
    period = filters.one_of("period", "Period", list(PERIODS), "30 days")
    left, middle, right = st.columns(3)
    action = filters.choice(left, "action", "Action", {each: each for each in known.actions}, "Any action")
    actor = filters.choice(middle, "actor", "Who", {each: each for each in known.actors}, "Anybody")
    objects = {each: named.get(each, each) for each in known.subjects}
    subject = filters.choice(right, "object", "Object", objects, "Any object")
    with workspace.read() as tx:
        days = PERIODS[period]
        since = tx.now - timedelta(days=days) if days is not None else None
        found = audit.rows(tx, action=action, by=actor, subject=subject, since=since, limit=MOST + 1)
    acts = found[:MOST]
    if not acts:
        shared.empty("No act matches.", "Take a filter away, or choose a longer period.")
        return
    most = f", the newest {MOST:,} are shown: filter for older ones" if len(found) > MOST else ""
    st.html(f'<p class="kd-count">{len(acts):,} act{"s" if len(acts) != 1 else ""}{most}</p>')
    table.draw(
        [_cells(act, named, with_org=workspace.actor.org_id is None) for act in acts],
        key="audit_log",
        alt="Acts, the newest first",
        on_open=lambda position: dialog.show("Act", _place(acts[position])),
    )
    name, place = dialog.shown() or ("", "")
    opened = {_place(act): act for act in acts}.get(place)
    if name == "Act" and opened is not None:
        act_dialog(opened, named)


def _names(tx: Transaction) -> dict[str, str]:
    """Return the names of what the actor may see, by id."""
    names = {"": "", audit.PLATFORM: "Platform"} | {org.id: org.name for org in organisations.list_all(tx)}
    if tx.actor.org_id is None:
        names |= {plan.id: plan.name for plan in plans.list_all(tx)}
    if tx.actor.role is not Role.ANALYST:
        names |= {operator.id: operator.email for operator in operators.list_all(tx)}
    return names | {summary.key.id: summary.key.name for summary in summaries(tx, deleted=True)}


def _place(act: AuditRow) -> str:
    return f"{act.chain}:{act.seq}"


def _facts(snapshot: str | None) -> dict[str, Any]:
    return dict(json.loads(snapshot)) if snapshot else {}


def _object(act: AuditRow, named: dict[str, str]) -> str:
    facts = _facts(act.before) | _facts(act.after)
    said = next((str(facts[name]) for name in ("name", "email", "reference") if facts.get(name)), act.subject)
    return named.get(act.subject, said)


def _cells(act: AuditRow, named: dict[str, str], *, with_org: bool) -> dict[str, Any]:
    org = {"Organisation": named.get(act.chain, act.chain)} if with_org else {}
    return {
        "When": act.at,
        "Action": act.action,
        "Object": _object(act, named),
        "Who": act.actor,
        **org,
        "Why": act.reason,
    }


@st.dialog("Act", width="large", on_dismiss=dialog.close)
def act_dialog(act: AuditRow, named: dict[str, str]) -> None:
    """Show an act: who, when, why, and its facts before and after side by side, those that changed first."""
    text = escape
    st.html(
        shared.facts(
            [
                ("Action", f"<code>{text(act.action)}</code>"),
                ("Object", f'{text(_object(act, named))} <span class="kd-muted">{text(act.subject)}</span>'),
                ("When", shared.utc(act.at)),
                ("Who", text(act.actor)),
                ("Why", text(act.reason) or "–"),
                ("Chain", f"{text(named.get(act.chain, act.chain))}, row {act.seq:,}"),
                ("Hash", f"<code>{text(act.hash)}</code>"),
            ]
        )
    )
    before, after = _facts(act.before), _facts(act.after)
    if not before and not after:
        return
    rows = []
    for name in sorted({**before, **after}, key=lambda each: (before.get(each) == after.get(each), each)):
        old, new = (_value(facts, name) for facts in (before, after))
        mark = "<b>{}</b>" if old != new and before and after else "{}"
        rows.append([text(name.replace("_", " ")), text(old), mark.format(text(new))])
    st.html(shared.table([("Fact", "left"), ("Before", "left"), ("After", "left")], rows, css="kd-changes"))


def _value(facts: dict[str, Any], name: str) -> str:
    value = facts.get(name)
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _heads(workspace: Workspace) -> None:
    with workspace.read() as tx:
        heads = audit.heads(tx)
    st.download_button(
        "Export the heads",
        json.dumps(heads, indent=2, sort_keys=True) + "\n",
        "keydesk-audit-heads.json",
        "application/json",
        icon=":material/download:",
        key="heads",
        on_click="ignore",
        help="Keep the file elsewhere: `keydesk audit --verify --head FILE` shows later whether the log still has them",
    )


def _verify(workspace: Workspace) -> None:
    with st.spinner("Checking the chains …"), workspace.read() as tx:
        broken, chains = audit.verify(tx), len(audit.heads(tx))
    if not broken:
        number = f"{chains} chains hold" if chains != 1 else "The chain holds"
        st.success(f"{number}: no row was changed, removed or moved.", icon=":material/check_circle:")
        return
    columns = [("Chain", "left"), ("Row", "right"), ("What is wrong", "left")]
    st.error("The audit log does not hold.", icon=":material/error:")
    st.html(shared.table(columns, [[escape(link.chain), f"{link.seq:,}", escape(link.problem)] for link in broken]))


if __name__ == "__main__":
    main()
