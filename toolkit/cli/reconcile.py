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

        results = reconcile.run(app.workspace, show)
    if app.as_json:
        app.rows([asdict(result) for result in results], {}, empty="")
    else:
        width = max((len(result.title) for result in results), default=0)
        for result in results:
            count = len(result.violations)
            verdict = "ok" if not count else "1 violation" if count == 1 else f"{count:,} violations"
            verdict = click.style(verdict, fg="red" if count else "green")
            click.echo(f"{result.invariant:<4}{result.title:<{width}}  {result.checked:>9,} checked  {verdict}")
            for violation in result.violations:
                click.echo(f"      {to_paste(violation)}")
    if any(result.violations for result in results):
        click.get_current_context().exit(1)


def _short(name: str | None) -> str:
    return shorten(name or "", 48, placeholder=" …")
