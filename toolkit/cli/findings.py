"""`keydesk findings`: what the audits found, how grave it is, and what to do about it."""

from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli import output
from toolkit.cli.app import App, Command, pass_app
from toolkit.cli.command_line import to_paste
from toolkit.core.marked import Usd
from toolkit.core.policy import Role
from toolkit.store import audit
from toolkit.store.actor import Actor

if TYPE_CHECKING:
    from toolkit.checks.findings import AuditReport, Finding

_SEVERITY = click.Choice(["high", "medium", "low", "info"])
_COLOURS = {"high": "red", "medium": "yellow", "low": "cyan", "info": None}
_WIDTH = max(map(len, _COLOURS)) + 2


@click.command(cls=Command)
@click.option("--severity", type=_SEVERITY, default="info", show_default=True, help="Only what is at least as grave.")
@click.option("--org", metavar="ORG", help="What this organisation's own people may see.")
@click.option(
    "--head",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Check, too, that the audit log still has the heads in FILE (`audit --head` writes them).",
)
@click.option("--activity", is_flag=True, help="Show who did what in the last 30 days, instead of findings.")
@click.option("--fail-on", type=_SEVERITY, help="Fail if there is a finding that is at least as grave.")
@pass_app
def findings_command(
    app: App, severity: str, org: str | None, head: Path | None, activity: bool, fail_on: str | None
) -> None:
    """Audit keys, operators, prices and books: what was found, and what to do.

    Nothing is changed.
    """
    from toolkit.checks import findings
    from toolkit.checks.findings import Severity

    workspace = app.workspace
    if org:
        org_id, _ = app.ids(org)
        workspace = workspace.acting_as(Actor(workspace.actor.name, Role.ANALYST, org_id))
    report = findings.run(workspace.ledger, known_heads=audit.read_heads(head) if head else None)
    shown = [finding for finding in report.findings if finding.severity.rank <= Severity(severity).rank]
    if app.as_json:
        click.echo(output.to_json(_as_json(report, shown)))
    elif activity:
        _show_activity(app, report)
    else:
        _show(report, shown)
    if fail_on and any(finding.severity.rank <= Severity(fail_on).rank for finding in report.findings):
        click.get_current_context().exit(1)


def _show(report: "AuditReport", shown: list["Finding"]) -> None:
    for finding in shown:
        label = click.style(f"{finding.severity.upper():<{_WIDTH}}", fg=_COLOURS[finding.severity], bold=True)
        of_org = f", {finding.org}" if finding.org else ""
        subject = click.style(output.text(f"{finding.subject}{of_org}"), bold=True)
        click.echo(f"{label}{subject}  {click.style(f'{finding.check}, since {finding.since:%Y-%m-%d}', dim=True)}")
        click.echo(f"{'':<{_WIDTH}}{output.text(finding.sentence)}")
        click.echo(f"{'':<{_WIDTH}}→ {to_paste(output.text(finding.action))}\n")
    counts = {name: sum(finding.severity == name for finding in report.findings) for name in _COLOURS}
    click.echo(", ".join(f"{number} {name}" for name, number in counts.items()) + ".")
    if report.skipped:
        titles = ", ".join(check.title for check in report.skipped)
        click.echo(f"Not checked, for only the platform may see it: {titles}.")


def _show_activity(app: App, report: "AuditReport") -> None:
    rows = [
        asdict(row) | {"in_detail": [f"{number} × {action}" for action, number in row.actions.items()]}
        for row in report.activity
    ]
    columns = {
        "actor": "actor",
        "kind": "kind",
        "acts": "acts",
        "first_at": "first (UTC)",
        "last_at": "last (UTC)",
        "in_detail": "in detail",
    }
    app.rows(rows, columns, empty="Nobody did anything in the last 30 days.")


def _as_json(report: "AuditReport", shown: list["Finding"]) -> dict[str, Any]:
    return {
        "at": report.at,
        "findings": [asdict(finding) | {"evidence": _plain(finding.evidence)} for finding in shown],
        "skipped": [{"check": check.id, "title": check.title} for check in report.skipped],
        "activity": [asdict(row) for row in report.activity],
        "due_soon": [due._asdict() for due in report.due_soon],
    }


def _plain(value: Any) -> Any:
    """Return evidence with its money named and valued as in all of our JSON."""
    if isinstance(value, dict):
        return dict(
            (f"{name.removesuffix('_nano')}_usd", None if item is None else Usd(item))
            if name.endswith("_nano")
            else (name, _plain(item))
            for name, item in value.items()
        )
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Decimal) else value
