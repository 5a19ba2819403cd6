"""`keydesk spend`: what was spent, and by whom."""

from datetime import datetime

import click

from toolkit.cli.app import App, Command, pass_app
from toolkit.cli.options import FROM, TAG, TO
from toolkit.cli.output import headings, records, total_of
from toolkit.core import tags
from toolkit.core.period import Period

_MONEY = ("cost",)
SUMS = ("calls", "input_tokens", "cached_input_tokens", "output_tokens", "cost_usd")


@click.command(cls=Command)
@click.option(
    "--by",
    multiple=True,
    default=["key"],
    show_default=True,
    metavar="DIMENSION",
    help="What to add up for: key, model, org, plan, owner, environment, upstream, dialect, hour, day, week, month or "
    "tag:NAME; may be given again.",
)
@FROM
@TO
@click.option("--org", metavar="ORG", help="Only this organisation's.")
@click.option("--key", metavar="KEY", help="Only this API key's.")
@TAG
@pass_app
def spend_command(
    app: App,
    by: tuple[str, ...],
    start: datetime | None,
    end: datetime | None,
    org: str | None,
    key: str | None,
    tagged: tuple[str, ...],
) -> None:
    """Show what was spent: calls, tokens and cost.

    Refused calls do not count.
    """
    from toolkit.reports import spend

    org_id, key_id = app.ids(org, key)
    period, wanted = Period(start, end), tags.wanted(tagged)
    rows = records(spend.table(app.workspace.ledger, by, period, org=org_id, key=key_id, tags=wanted), _MONEY)
    dimensions = headings(by)
    total = total_of(rows, next(iter(dimensions)), SUMS)
    columns = {
        **dimensions,
        "calls": "calls",
        "input_tokens": "input",
        "cached_input_tokens": "cached",
        "output_tokens": "output",
        "cost_usd": "cost",
    }
    app.rows(rows, columns, empty="Nothing was spent in this period.", total=total)
