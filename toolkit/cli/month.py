"""`keydesk month`: close a billing month, and look at its statement."""

import os
import shlex
import tempfile
from pathlib import Path
from typing import Any

import click

from toolkit.cli import output
from toolkit.cli.app import App, Group, pass_app
from toolkit.cli.command_line import to_paste
from toolkit.core.errors import Conflict, InvalidInput
from toolkit.core.marked import Usd
from toolkit.core.money import show_usd
from toolkit.store.tables import Statement

_MONTH = click.argument("month")
_ORG = click.option("--org", required=True, metavar="ORG", help="Id or name of the organisation.")
_COLUMNS = {
    "key": "key",
    "calls": "calls",
    "input_tokens": "input",
    "cached_input_tokens": "of it cached",
    "output_tokens": "output",
    "list_cost": "at list price",
    "multiplier_effect": "added by multiplier",
    "charged": "charged",
}
_MOST_SHOWN = 20
_BRIDGE = ("opening", "credits", "adjustments", "charged", "closing")


@click.group(cls=Group)
def month_command() -> None:
    """Close billing months, and show, check and write their statements."""


@month_command.command("close")
@_MONTH
@_ORG
@click.option("--first", is_flag=True, help="Leave earlier months out for ever: begin with this one.")
@click.option("--yes", is_flag=True, help="Confirm without being asked.")
@pass_app
def close(app: App, month: str, org: str, first: bool, yes: bool) -> None:
    """Freeze MONTH, such as 2026-10, of an organisation; the oldest one first.

    Nothing of it can be changed later; corrections stand in the next one.
    """
    from toolkit.statements import month_close

    if not yes:
        with app.workspace.read() as tx:  # nobody is asked about what is refused anyway
            month_close.require_closable(tx, org, month, first=first)
        draft = month_close.draft(app.workspace, org, month)
        before = draft["before"]
        app.confirm(
            f"Close {month} of {draft['org']['name']}: calls {draft['totals']['calls']:,}, "
            f"charged {show_usd(draft['totals']['charged'])}, balance {show_usd(draft['wallet']['closing'])}? "
            "It cannot be opened again."
            + (
                f" The {before['calls']:,} calls of earlier months, charged {show_usd(before['charged'])}, will never "
                "have a statement."
                if before and before["calls"]
                else ""
            ),
            yes=False,
        )
    statement = month_close.close(app.workspace, org, month, first=first)
    figures = month_close.figures_of(statement)
    facts = _facts(statement, figures) | {"written_off": figures["written_off"]}
    app.done(
        f"Closed {month} of {facts['org']}: calls {facts['calls']:,}, charged {show_usd(facts['charged_usd'])}, "
        f"balance {show_usd(facts['closing_usd'])}. "
        f"SHA-256 {statement.sha256}, row {statement.audit_seq} of the audit log."
        + _after_a_line(month_close.say_written_off(figures)),
        facts,
    )


@month_command.command("show")
@_MONTH
@_ORG
@click.option("--verify", is_flag=True, help="Check that it was not changed and the books still agree, instead.")
@pass_app
def show(app: App, month: str, org: str, verify: bool) -> None:
    """Show the statement of MONTH."""
    from toolkit.statements import month_close

    with app.workspace.read() as tx:
        statement = month_close.find(tx, org, month)
        problems = month_close.verify(tx, statement) if verify else []
    if verify:
        holds = f"The statement holds: its SHA-256 {statement.sha256} is that of the audit log, and the books agree."
        app.done(
            "\n".join(map(output.text, problems)) or holds,
            {"intact": not problems, "problems": problems, "sha256": statement.sha256, "row": statement.audit_seq},
        )
        if problems:
            click.get_current_context().exit(1)
        return
    figures = month_close.figures_of(statement)
    if app.as_json:
        app.facts({**figures, "sha256": statement.sha256})
        return
    app.facts(_facts(statement, figures))
    rows = [_with_money(group) for group in figures["keys"]]
    click.echo()
    app.rows(rows, _COLUMNS, empty="No calls in this month.", total=_with_money(figures["totals"]))
    if words := month_close.say_written_off(figures):
        click.echo(f"\n{output.text(words)}")


@month_command.command("list")
@click.option("--org", metavar="ORG", help="Only this organisation's.")
@pass_app
def list_statements(app: App, org: str | None) -> None:
    """List closed months, the newest first, and say which one is next."""
    from toolkit.statements import month_close

    rows, unreadable = [], []
    with app.workspace.read() as tx:
        due = month_close.due(tx, org=org)
        for statement in month_close.list_all(tx, org=org):
            try:
                rows.append(_facts(statement, month_close.figures_of(statement)))
            except Conflict as error:
                rows.append(_facts(statement, None))
                unreadable.append(str(error))
    columns = {
        "month": "month",
        "org": "organisation",
        "calls": "calls",
        "charged_usd": "charged",
        "closing_usd": "closing balance",
        "closed_at": "closed (UTC)",
        "closed_by": "by",
    }
    app.rows(rows, columns, empty="No month is closed. Close one: keydesk month close --help")
    for problem in unreadable:
        click.echo(output.text(problem), err=True)
    if due and not app.as_json:
        click.echo("\nTo be closed next:")
        for waiting in due[:_MOST_SHOWN]:
            command = f"keydesk month close {waiting.month} --org {shlex.quote(output.text(waiting.org))}"
            click.echo(f"  {to_paste(command)}")
        if len(due) > _MOST_SHOWN:
            click.echo(f"  and {len(due) - _MOST_SHOWN:,} more organisations; --org names one")


@month_command.command("export")
@_MONTH
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@_ORG
@click.option("--format", "form", type=click.Choice(["json", "csv", "html"]), help="[default: by PATH's ending]")
@click.option("--force", is_flag=True, help="Take the place of a file that is there.")
@pass_app
def export(app: App, month: str, path: Path, org: str, form: str | None, force: bool) -> None:
    """Write the statement of MONTH into a file: JSON as it was hashed, CSV, or a page to print."""
    from toolkit.statements import month_close, render

    chosen = form or path.suffix.removeprefix(".")
    if chosen not in render.FORMS:
        raise click.UsageError(
            f"{path} does not end in .json, .csv or .html: say which with --format.", click.get_current_context()
        )
    with app.workspace.read() as tx:
        figures = month_close.figures_of(month_close.find(tx, org, month))
    target = Path(os.path.realpath(path))  # what a link points to is replaced, not the link
    try:
        if target.exists() and not force:
            raise Conflict(f"{path} is there already. Choose another name, or replace it with --force.")
        if target.exists() and not target.is_file():
            raise InvalidInput(f"{path} is not a file that can be replaced. Choose another name.")
        _replace(target, render.written(figures, chosen).encode(errors="replace"))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}.") from error
    app.done(f"Wrote the statement to {path}.", {"path": str(path), "format": chosen})


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or, if this ends half-way, as it was."""
    with tempfile.TemporaryDirectory(prefix=".keydesk.", dir=path.parent) as folder:
        file = Path(folder, "statement")
        with file.open("wb") as beside:
            beside.write(content)
            beside.flush()
            os.fsync(beside.fileno())
        file.replace(path)


def _after_a_line(words: str) -> str:
    return f"\n{output.text(words)}" if words else ""


def _facts(statement: Statement, figures: dict[str, Any] | None) -> dict[str, Any]:
    """Return a statement as its line in a list; one that is unreadable has no amounts."""
    totals, wallet = (figures["totals"], figures["wallet"]) if figures else ({}, {})

    def amount(nano: int | None) -> Usd | None:
        return None if nano is None else Usd(nano)

    return {
        "org": figures["org"]["name"] if figures else statement.org_id,
        "org_id": statement.org_id,
        "month": statement.month,
        "calls": totals.get("calls"),
        "list_cost_usd": amount(totals.get("list_cost")),
        "multiplier_effect_usd": amount(totals.get("multiplier_effect")),
        **{f"{name}_usd": amount(wallet.get(name)) for name in _BRIDGE},
        "closed_at": statement.closed_at,
        "closed_by": statement.closed_by,
        "sha256": statement.sha256,
        "audit_row": statement.audit_seq,
    }


def _with_money(group: dict[str, Any]) -> dict[str, Any]:
    return group | {name: Usd(group[name]) for name in ("list_cost", "multiplier_effect", "charged")}
