"""`keydesk movers` and `whatif`: why spend changed, and what it would have been."""

import json
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from toolkit import accounts, keys
from toolkit.cli.app import App, Command, pass_app
from toolkit.cli.output import Usd
from toolkit.cli.values import Moment
from toolkit.cli.values import Multiplier as MultiplierType
from toolkit.cli.values import Usd as UsdType
from toolkit.errors import InvalidInput
from toolkit.period import Period
from toolkit.pricing import PriceSheet, Tier, parse_usd

if TYPE_CHECKING:
    import pandas as pd

DAYS = 30
"""Length of the period that `keydesk movers` looks at by default, today included."""

_EFFECTS = ("volume", "mix", "price", "multiplier")
_PRICES = ("input", "cached_input", "cache_write_5m", "cache_write_1h", "output")


def _rows(frame: "pd.DataFrame", money: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return a table's rows as mappings; money columns say so in their names and values."""
    fields = [(f"{name}_usd", Usd) if name in money else (str(name), None) for name in frame.columns]
    rows = frame.astype(object).itertuples(index=False, name=None)
    return [
        {name: form(value) if form else value for (name, form), value in zip(fields, row, strict=True)} for row in rows
    ]


def _total(rows: list[dict[str, Any]], first: str, sums: tuple[str, ...]) -> dict[str, Any]:
    """Return the last line of a table: the sums of some of its columns."""
    sums_of = {name: sum(row[name] for row in rows) for name in sums}
    return {first: "total"} | {name: Usd(n) if name.endswith("_usd") else n for name, n in sums_of.items()}


def _ids(app: App, org: str | None, key: str | None) -> tuple[str | None, str | None]:
    """Return the ids of an organisation and a key that were given by id or name."""
    with app.desk.read() as tx:
        return accounts.find_org(tx, org).id if org else None, keys.find(tx, key).id if key else None


@click.command(cls=Command)
@click.option(
    "--by",
    default="key",
    show_default=True,
    metavar="DIMENSION",
    help="Whose moves: key, model, org, plan, dialect or tag:NAME.",
)
@click.option("--from", "start", type=Moment(), metavar="TIME", help="Start of the later period, UTC.")
@click.option("--to", "end", type=Moment(), metavar="TIME", help="Its end, UTC.  [default: now]")
@click.option("--before", type=Moment(), metavar="TIME", help="Start of the earlier period, which ends at --from.")
@click.option("--org", metavar="ORG", help="Only this organisation's.")
@click.option("--key", metavar="KEY", help="Only this API key's.")
@pass_app
def movers_command(
    app: App,
    by: str,
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
    from toolkit import attribution

    org_id, key_id = _ids(app, org, key)
    with app.desk.read() as tx:
        now = tx.now
    if start is None and end is None:
        after = Period.days(DAYS, now)
    else:
        end = end or now
        after = Period(start or end - timedelta(days=DAYS), end)
    earlier = attribution.preceding(after) if before is None else Period(before, after.start)
    frame = attribution.movers(app.desk.ledger, earlier, after, by, org=org_id, key=key_id)
    money = ("before", "after", "difference", *_EFFECTS)
    rows = _rows(frame, money)
    named = {"key": {"key_label": "key", "org": "organisation"}, "org": {"org": "organisation"}}.get(by, {by: by})
    columns = {**named, "status": "status", **{f"{name}_usd": name for name in money}}
    total = _total(rows, next(iter(named)), tuple(f"{name}_usd" for name in money))
    if not app.as_json:
        click.echo(f"Before: {_span(earlier)}. After: {_span(after)}.")
    app.rows(rows, columns, empty="Nothing was spent in these periods.", total=total)


def _span(period: Period) -> str:
    return " to ".join(f"{bound:%Y-%m-%d %H:%M}" for bound in (period.start, period.end) if bound is not None)


@click.command(cls=Command)
@click.option("--plan", metavar="PLAN", help="As if all keys had this plan: its multiplier, and its models alone.")
@click.option("--multiplier", type=MultiplierType(), metavar="M", help="As if this had been the multiplier: 1, 1.25, …")
@click.option("--prices-at", type=Moment(), metavar="TIME", help="By the price book of this moment, UTC.")
@click.option(
    "--prices",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="By the prices in FILE, as `keydesk prices list --json` writes them.",
)
@click.option("--limit", metavar="USD", default="own", show_default=True, help="Monthly limit of each key, or none.")
@click.option(
    "--by",
    type=click.Choice(["key", "model", "org", "key,model"]),
    default="key",
    show_default=True,
    help="What to add up for.",
)
@click.option("--refused", is_flag=True, help="List the calls that would have been refused.")
@click.option("--from", "start", type=Moment(), metavar="TIME", help="From this moment on, UTC.")
@click.option("--to", "end", type=Moment(), metavar="TIME", help="Up to, but not including, this moment, UTC.")
@click.option("--org", metavar="ORG", help="Only this organisation's.")
@click.option("--key", metavar="KEY", help="Only this API key's.")
@pass_app
def whatif_command(
    app: App,
    plan: str | None,
    multiplier: int | None,
    prices_at: datetime | None,
    prices: Path | None,
    limit: str,
    by: str,
    refused: bool,
    start: datetime | None,
    end: datetime | None,
    org: str | None,
    key: str | None,
) -> None:
    """Replay a period's calls under another plan, multiplier, price book or limit.

    Shows what they would have cost, and how many would have been refused. Nothing is changed.
    """
    from toolkit import whatif

    if prices_at and prices:
        raise click.UsageError("Give --prices-at or --prices, not both.", click.get_current_context())
    org_id, key_id = _ids(app, org, key)
    sheets = whatif.book_at(app.desk.ledger, prices_at) if prices_at else _sheets(prices) if prices else None
    replay = whatif.replay(
        app.desk.ledger,
        Period(start, end),
        by=by.split(","),
        plan=plan,
        multiplier=multiplier,
        prices=sheets,
        limit=_limit(limit),
        org=org_id,
        key=key_id,
    )
    if refused:
        columns = {
            "admitted_at": "time (UTC)",
            "request_id": "request",
            "key_label": "key",
            "model": "model",
            "refusal": "refusal",
            "cost_usd": "charged",
            "repriced_usd": "would cost",
        }
        app.rows(_rows(replay.refused, ("cost", "repriced")), columns, empty="No call would have been refused.")
        return
    money = ("cost", "repriced", "refused", "replayed", "difference")
    rows = _rows(replay.spend, money)
    dimensions = {"key": {"key_label": "key", "org": "organisation"}, "org": {"org": "organisation"}}
    named = {field: title for name in by.split(",") for field, title in dimensions.get(name, {name: name}).items()}
    figures = {
        "calls": "calls",
        "cost_usd": "charged",
        "not_in_plan": "not in plan",
        "over_limit": "over limit",
        "refused_usd": "refused",
        "replayed_usd": "would cost",
        "difference_usd": "difference",
    }
    total = _total(rows, next(iter(named)), tuple(figures))
    app.rows(rows, {**named, **figures}, empty="No call was charged in this period.", total=total)


def _limit(text: str) -> int | Literal["own"] | None:
    if text == "own":
        return "own"
    parsed: int | None = UsdType(none=True).convert(text, None, click.get_current_context())
    return parsed


def _sheets(file: Path) -> dict[str, PriceSheet]:
    """Read price sheets from a file; of several entries of a model the last counts."""
    sheets = {}
    try:
        rows = json.loads(file.read_text(), parse_float=Decimal)
        for (model, _), of_entry in groupby(rows, key=lambda row: (row["model"], row.get("valid_from"))):
            entry = list(of_entry)
            tiers = tuple(
                Tier(row["above_input_tokens"], *(parse_usd(row[f"{kind}_usd"], "price") for kind in _PRICES))
                for row in entry
            )
            sheets[model] = PriceSheet(tiers, parse_usd(entry[0]["request_usd"], "price"))
    except InvalidInput as error:
        raise InvalidInput(f"{file}: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInput(
            f"{file} does not hold prices as `keydesk prices list --json` writes them: {type(error).__name__} {error}."
        ) from None
    return sheets
