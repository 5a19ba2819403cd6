"""`keydesk invoice`: what a provider bills, beside our own log."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli import output
from toolkit.cli.app import App, Group, pass_app
from toolkit.core.errors import InvalidInput
from toolkit.core.marked import Usd

if TYPE_CHECKING:
    from toolkit.statements.invoice_gaps import Gap


@click.group(cls=Group)
def invoice_command() -> None:
    """Compare what a provider bills with our own log."""


class _Pairs(click.ParamType[tuple[str, str]]):
    """`A=B`, kept as two names."""

    name = "pair"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Read "amount=Gross cost"."""
        if isinstance(value, tuple):
            return value
        first, equals, second = str(value).partition("=")
        if not (first.strip() and equals and second.strip()):
            self.fail(f"{value!r} is not of the form A=B.", param, ctx)
        return first.strip(), second.strip()


@invoice_command.command("reconcile")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--upstream", required=True, metavar="NAME", help="The upstream that the provider bills.")
@click.option("--month", required=True, metavar="MONTH", help="Such as 2026-10, UTC.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    type=_Pairs(),
    metavar="FIELD=HEADING",
    help="Which column is which, where the heading does not tell; may be repeated.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    type=_Pairs(),
    metavar="THEIRS=OURS",
    help="A model that they name otherwise; may be repeated.",
)
@click.option(
    "--input-with-cached/--input-without-cached",
    "input_has_cached",
    default=None,
    help="Whether their input tokens include cached ones.  [default: as the dialect counts]",
)
@pass_app
def reconcile(
    app: App,
    path: Path,
    upstream: str,
    month: str,
    columns: tuple[tuple[str, str], ...],
    models: tuple[tuple[str, str], ...],
    input_has_cached: bool | None,
) -> None:
    """Compare an invoice (CSV) with what our calls cost at list price, and split the gap into causes."""
    from toolkit.statements import invoice_comparison, invoice_gaps, invoice_lines

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read as text in UTF-8: {error}.") from error
    found = invoice_comparison.compare(
        app.workspace.ledger,
        invoice_lines.read(text, columns=dict(columns)),
        upstream,
        month,
        models=dict(models),
        input_has_cached=input_has_cached,
    )
    if app.as_json:
        app.facts(
            {
                "upstream": found.upstream,
                "month": found.month,
                "total": _exact(found.total),
                "models": [_exact(gap) for gap in found.models],
                "evidence": {str(cause): words for cause, words in found.evidence.items()},
            }
        )
        return
    headings = {
        "model": "model",
        "our_calls": "our calls",
        "their_lines": "their lines",
        "ours": "ours at list price",
        "theirs": "theirs",
        "gap": "gap",
    }
    app.rows([_rounded(gap) for gap in found.models], headings, empty="", total=_rounded(found.total))
    rows = [
        {"cause": str(cause), "model": gap.model, "amount": Usd(invoice_gaps.nano(gap.causes[cause]))}
        for cause in invoice_gaps.Cause
        for gap in found.models
        if cause in gap.causes
    ]
    total = {"amount": Usd(invoice_gaps.nano(found.total.gap))}
    click.echo()
    app.rows(rows, {"cause": "cause", "model": "model", "amount": "part of the gap"}, empty="No gap.", total=total)
    for cause, words in found.evidence.items():
        click.echo(f"\n{cause}:\n" + "\n".join(f"  {output.text(line)}" for line in words))


def _exact(gap: "Gap") -> dict[str, Any]:
    amounts = {"ours_usd": gap.ours, "theirs_usd": gap.theirs, "gap_usd": gap.gap}
    return {
        "model": gap.model,
        "our_calls": gap.our_calls,
        "their_lines": gap.their_lines,
        **{name: f"{amount.normalize():f}" for name, amount in amounts.items()},
        "causes_usd": {str(cause): f"{amount.normalize():f}" for cause, amount in gap.causes.items()},
    }


def _rounded(gap: "Gap") -> dict[str, Any]:
    from toolkit.statements.invoice_gaps import nano

    return {
        "model": gap.model,
        "our_calls": gap.our_calls,
        "their_lines": gap.their_lines,
        "ours": Usd(nano(gap.ours)),
        "theirs": Usd(nano(gap.theirs)),
        "gap": Usd(nano(gap.gap)),
    }
