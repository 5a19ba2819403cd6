"""Findings: what the audits found, the gravest first, and the act that each asks for."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from html import escape
from typing import Any

import streamlit as st
from sqlalchemy import func, select

from toolkit.admin.key_summaries import KeySummary, summaries
from toolkit.checks import findings
from toolkit.checks.findings import AuditReport, Finding, Severity
from toolkit.core.money import show_usd
from toolkit.core.wording import stamp
from toolkit.dashboard import dialog, filters, finding_acts, shared, table
from toolkit.dashboard.copy_button import copy_button
from toolkit.dashboard.key_dialogs import DIALOGS
from toolkit.store.tables import ApiKey
from toolkit.workspace import Workspace

KEPT = timedelta(hours=1)
"""How long what was found is shown, unless somebody asks for a new look."""

TONES = {Severity.HIGH: "bad", Severity.MEDIUM: "warn", Severity.LOW: "info", Severity.INFO: "quiet"}
SOON = {
    Severity.HIGH: "Act today",
    Severity.MEDIUM: "Decide this week",
    Severity.LOW: "Tidy at the next review",
    Severity.INFO: "To know",
}
TITLES = {check.id: check.title for check in findings.CHECKS}
_ACTED = "findings_acted"


def main() -> None:
    """Draw the page."""
    workspace = shared.workspace()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Findings", anchor=False)
        st.space("stretch")
        refresh = st.button("Look again", icon=":material/refresh:", key="findings_refresh", help="Make all audits now")
    if refresh or _has_acted(workspace):
        report_of.clear(workspace, *_view(workspace))
    report = report_of(workspace, *_view(workspace))
    with workspace.read() as tx:
        now = tx.now
    counts = Counter(finding.severity for finding in report.findings)
    numbers = " ".join(shared.badge(f"{counts[each]:,} {each}", TONES[each]) for each in Severity if counts[each])
    st.html(f'<p class="kd-count">{numbers} As of {shared.ago(report.at, now)}. {_left_out(report)}</p>')
    if not report.findings:
        shared.empty("Nothing was found.", f"{len(findings.CHECKS) - len(report.skipped)} audits were made.")
        return
    found = _chosen(report.findings, with_org=workspace.actor.org_id is None)
    if not found:
        shared.empty("No finding matches.", "Take a filter away.")
    else:
        table.draw(
            [_cells(finding, with_org=workspace.actor.org_id is None) for finding in found],
            key="findings",
            alt="Findings, the gravest first",
            on_open=lambda position: dialog.show("Finding", _id(found[position])),
        )
    _dialog(workspace, {_id(finding): finding for finding in report.findings})


def _view(workspace: Workspace) -> tuple[str, str, str | None]:
    """Return by what a report is kept: the key store, and what decides what its reader may see."""
    return workspace.settings.store_url, workspace.actor.role, workspace.actor.org_id


@st.cache_data(max_entries=16, ttl=KEPT, show_spinner="Making the audits …")
def report_of(_workspace: Workspace, store: str, role: str, org_id: str | None) -> AuditReport:  # noqa: ARG001 - the key
    """Return what the audits find with the rights of whoever looks."""
    return findings.run(_workspace.ledger)


def _has_acted(workspace: Workspace) -> bool:
    """Whether this person has changed a key in a dialog that was opened here, and that is closed by now."""
    if dialog.shown() is not None or dialog.secret_place():
        return False
    before = st.session_state.pop(_ACTED, None)
    return before is not None and before != _versions(workspace)


def _versions(workspace: Workspace) -> int:
    """Return a number that any change of a key changes."""
    query = select(func.sum(ApiKey.version))
    if workspace.actor.org_id is not None:
        query = query.where(ApiKey.org_id == workspace.actor.org_id)
    with workspace.read() as tx:
        return tx.session.scalar(query) or 0


def _left_out(report: AuditReport) -> str:
    count = len(report.skipped)
    return f"{count} audits of what is the platform's are for the platform alone." if count else ""


def _chosen(found: list[Finding], *, with_org: bool) -> list[Finding]:
    """Draw the filters, and return what they let through."""
    severity = filters.one_of("severity", "Severity", ["All", *(each.capitalize() for each in Severity)], "All")
    places = st.columns(2 if with_org else 1)
    made = {finding.check for finding in found}
    checks = {each: title.capitalize() for each, title in TITLES.items() if each in made}
    check = filters.choice(places[0], "check", "Audit", checks, "Any audit")
    org = None
    if with_org:
        names = {finding.org: finding.org for finding in found if finding.org is not None}
        org = filters.choice(places[1], "org", "Organisation", dict(sorted(names.items())), "Any organisation")
    return [
        finding
        for finding in found
        if severity in {"All", finding.severity.capitalize()}
        and check in {None, finding.check}
        and org in {None, finding.org}
    ]


def _id(finding: Finding) -> str:
    return f"{finding.check}/{finding.kind}/{finding.subject_id}/{finding.since.isoformat()}"


def _cells(finding: Finding, *, with_org: bool) -> dict[str, Any]:
    org = {"Organisation": finding.org or "Platform"} if with_org else {}
    return {
        "Severity": finding.severity.capitalize(),
        "Subject": finding.subject,
        **org,
        "Since": finding.since,
        "What": finding.sentence,
        "Audit": finding.check,
    }


def _dialog(workspace: Workspace, found: Mapping[str, Finding]) -> None:
    name, subject = dialog.shown() or ("", "")
    if dialog.secret_place():
        dialog.secret_dialog()
    elif name == "Finding" and subject in found:
        finding_dialog(found[subject])
    elif name in DIALOGS and (summary := _summary(workspace, subject)):
        DIALOGS[name](summary)


def _summary(workspace: Workspace, key_id: str) -> KeySummary | None:
    with workspace.read() as tx:
        return next((each for each in summaries(tx, deleted=True) if each.key.id == key_id), None)


@st.dialog("Finding", width="medium", position="right", on_dismiss=dialog.close)
def finding_dialog(finding: Finding) -> None:
    """Show a finding with its evidence, and what to do about it."""
    workspace, text = shared.workspace(), escape
    badge = shared.badge(f"{finding.severity.capitalize()} · {SOON[finding.severity].lower()}", TONES[finding.severity])
    rows = [
        ("Severity", badge),
        ("Subject", f"<b>{text(finding.subject)}</b> <span class='kd-muted'>{text(finding.kind)}</span>"),
        *([("Organisation", text(finding.org or "Platform"))] if workspace.actor.org_id is None else []),
        ("Since", shared.utc(finding.since)),
        ("Audit", f"{text(TITLES[finding.check].capitalize())} <code>{finding.check}</code>"),
    ]
    st.html(shared.facts(rows))
    st.html(f"<p>{shared.prose(finding.sentence)}</p>")
    shared.heading("What to do")
    st.html(f"<p>{shared.prose(finding.action)}</p>")
    _acts(workspace, finding)
    facts = [(name, value) for name, value in map(_fact, finding.evidence.items()) if value]
    if facts:
        with st.expander("Evidence"):
            st.html(shared.facts([(name, text(value)) for name, value in facts]))


def _acts(workspace: Workspace, finding: Finding) -> None:
    """Draw the buttons of what can be done here, and for whoever has a shell the commands."""
    role = workspace.actor.role
    with st.container(horizontal=True):
        for position, act in enumerate(finding_acts.dialogs_for(finding, role)):
            if st.button(
                act.label,
                icon=f":material/{act.icon}:",
                type="primary" if position == 0 else "secondary",
                key=f"act_{act.name}",
            ):
                versions = _versions(workspace)
                dialog.show(act.name, finding.subject_id)
                st.session_state[_ACTED] = versions
                st.rerun()
        if page := finding_acts.page_for(finding, role):
            st.page_link(
                page.file,
                label=f"Open {page.title}",
                icon=f":material/{page.icon}:",
                query_params=finding_acts.address_of(finding, page),
            )
    commands = finding_acts.commands_in(finding.action) if workspace.actor.org_id is None else []
    for position, command in enumerate(commands):
        with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
            st.code(command, language="bash", wrap_lines=True)
            copy_button(command, "Copy command", key=f"copy_command_{position}")


def _fact(item: tuple[str, Any]) -> tuple[str, str]:
    """Return a piece of evidence in words; an empty value for what says nothing."""
    name, value = item
    if name.endswith("_nano"):
        return _words(name.removesuffix("_nano")), "" if value is None else show_usd(value)
    return _words(name), _value(value)


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _value(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        said = ((str(name).removesuffix("_nano"), _fact((str(name), inner))[1]) for name, inner in value.items())
        return ", ".join(f"{name.replace('_', ' ')}: {words}" for name, words in said if words)
    if isinstance(value, list | tuple):
        return "; ".join(map(_value, value))
    return str(value)


if __name__ == "__main__":
    main()
