"""`keydesk movers`: whose spend moved, and why."""

from datetime import datetime, timedelta

import click

from toolkit.cli.app import App, Command, pass_app
from toolkit.cli.output import headings, records, total_of
from toolkit.cli.values import Moment
from toolkit.core.errors import InvalidInput
from toolkit.core.period import Period

DAYS = 30
"""Length of the period that `keydesk movers` looks at by default, today included."""

_EFFECTS = ("volume", "mix", "price", "multiplier")


@click.command(cls=Command)
@click.option(
    "--by",
    multiple=True,
    default=["key"],
    show_default=True,
    metavar="DIMENSION",
    help="Whose moves: key, model, org, plan, owner, environment, upstream, dialect or tag:NAME; may be given again.",
)
@click.option("--from", "start", type=Moment(), metavar="TIME", help="Start of the later period, UTC.")
@click.option("--to", "end", type=Moment(), metavar="TIME", help="Its end, UTC.  [default: now]")
@click.option("--before", type=Moment(), metavar="TIME", help="Start of the earlier period, which ends at --from.")
@click.option("--org", metavar="ORG", help="Only this organisation's.")
@click.option("--key", metavar="KEY", help="Only this API key's.")
@pass_app
def movers_command(
    app: App,
    by: tuple[str, ...],
    start: datetime | None,
    end: datetime | None,
    before: datetime | None,
    org: str | None,
    key: str | None,
) -> None:
    """Show whose spend moved between two periods, and why.

    Each difference is split exactly into volume (more calls or fewer), mix (other models, longer or shorter calls,
    other cache hits), price and multiplier. By default the last 30 days are compared with the 30 before.
    """
    from toolkit.reports import attribution

    org_id, key_id = app.ids(org, key)
    with app.workspace.read() as tx:
        now = tx.now
    after = Period.days(DAYS, now) if start is None and end is None else _up_to(end or now, start)
    earlier = attribution.preceding(after) if before is None else Period(before, after.start)
    frame = attribution.movers(app.workspace.ledger, earlier, after, by, org=org_id, key=key_id)
    money = ("before", "after", "difference", *_EFFECTS)
    rows = records(frame, money)
    named = headings(by)
    columns = {**named, "status": "status", **{f"{name}_usd": name for name in money}}
    total = total_of(rows, next(iter(named)), tuple(f"{name}_usd" for name in money))
    if not app.as_json:
        click.echo(f"Before: {_span(earlier)}. After: {_span(after)}.")
        for caveat in attribution.caveats(app.workspace.ledger, earlier, after, org=org_id):
            click.echo(caveat)
    app.rows(rows, columns, empty="Nothing was spent in these periods.", total=total)


def _up_to(end: datetime, start: datetime | None) -> Period:
    try:
        return Period(start or end - timedelta(days=DAYS), end)
    except OverflowError:
        raise InvalidInput(f"The calendar has no {DAYS} days before {end.date()}: give --from.") from None


def _span(period: Period) -> str:
    return " to ".join(f"{bound:%Y-%m-%d %H:%M}" for bound in (period.start, period.end) if bound is not None)
