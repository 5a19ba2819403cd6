"""`keydesk reconcile`: do the books balance?"""

import sys
from dataclasses import asdict
from textwrap import shorten

import click

from toolkit.cli.app import App, Command, pass_app
from toolkit.cli.command_line import to_paste


@click.command(cls=Command)
@pass_app
def reconcile_command(app: App) -> None:
    """Check that the books balance, and show what does not.

    Fails if an invariant is broken.
    """
    from toolkit.checks import reconcile

    with click.progressbar(
        length=1,
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
        width=20,
        show_eta=False,
        item_show_func=_short,
    ) as bar:

        def show(done: int, total: int, name: str) -> None:
            bar.length = total
            bar.update(done - bar.pos, name)
            bar.render_progress()  # the first time nothing is done yet, and click shows nothing by itself

        findings = reconcile.run(app.workspace, show)
    if app.as_json:
        app.rows([asdict(finding) for finding in findings], {}, empty="")
    else:
        width = max((len(finding.title) for finding in findings), default=0)
        for finding in findings:
            count = len(finding.violations)
            verdict = "ok" if not count else "1 violation" if count == 1 else f"{count:,} violations"
            verdict = click.style(verdict, fg="red" if count else "green")
            click.echo(f"{finding.invariant:<4}{finding.title:<{width}}  {finding.checked:>9,} checked  {verdict}")
            for violation in finding.violations:
                click.echo(f"      {to_paste(violation)}")
    if any(finding.violations for finding in findings):
        click.get_current_context().exit(1)


def _short(name: str | None) -> str:
    return shorten(name or "", 48, placeholder=" …")
