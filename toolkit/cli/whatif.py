"""`keydesk whatif`: what calls would have cost under other plans, prices or limits."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple

import click

from toolkit.admin.models import list_models
from toolkit.cli.app import App, Command, pass_app
from toolkit.cli.options import FROM, TO
from toolkit.cli.output import headings, records, total_of
from toolkit.cli.values import Moment
from toolkit.cli.values import Multiplier as MultiplierType
from toolkit.cli.values import Usd as UsdType
from toolkit.core.errors import InvalidInput
from toolkit.core.money import parse_usd
from toolkit.core.period import Period
from toolkit.core.pricing import PriceSheet, Tier

_PRICES = ("input", "cached_input", "cache_write_5m", "cache_write_1h", "output")


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
@FROM
@TO
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
    from toolkit.reports import whatif

    if prices_at and prices:
        raise click.UsageError("Give --prices-at or --prices, not both.", click.get_current_context())
    org_id, key_id = app.ids(org, key)
    sheets = whatif.book_at(app.workspace.ledger, prices_at) if prices_at else _sheets(app, prices) if prices else None
    replay = whatif.replay(
        app.workspace.ledger,
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
        app.rows(records(replay.refused, ("cost", "repriced")), columns, empty="No call would have been refused.")
        return
    money = ("cost", "repriced", "refused", "replayed", "difference")
    rows = records(replay.spend, money)
    named = headings(by.split(","))
    figures = {
        "calls": "calls",
        "cost_usd": "charged",
        "not_in_plan": "not in plan",
        "over_limit": "over limit",
        "refused_usd": "refused",
        "replayed_usd": "would cost",
        "difference_usd": "difference",
    }
    total = total_of(rows, next(iter(named)), tuple(figures))
    app.rows(rows, {**named, **figures}, empty="No call was charged in this period.", total=total)


def _limit(text: str) -> int | Literal["own"] | None:
    if text == "own":
        return "own"
    parsed: int | None = UsdType(none=True).convert(text, None, click.get_current_context())
    return parsed


def _sheets(app: App, file: Path) -> dict[str, PriceSheet]:
    """Read from a file, for each of its models, the price that the price book would take now."""
    with app.workspace.read() as tx:
        now, models = tx.now, {model.id for model in list_models(tx)}
    try:
        entries = _entries(json.loads(file.read_text(), parse_float=Decimal))
    except InvalidInput as error:
        raise InvalidInput(f"{file}: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"{file} does not hold prices as `keydesk prices list --json` writes them: {type(error).__name__} {error}."
        ) from None
    if unknown := sorted({entry.model for entry in entries} - models):
        raise InvalidInput(f"{file} has prices of what is no model here: {', '.join(map(repr, unknown))}.")
    in_force = sorted((entry for entry in entries if entry.valid_from <= now), key=lambda entry: entry.order)
    if not in_force:
        raise InvalidInput(f"{file} has no price that is in force: there is none, or all are valid from later on.")
    return {entry.model: entry.sheet for entry in in_force}


class _Entry(NamedTuple):
    """An entry of a price book, as a file has it."""

    model: str
    valid_from: datetime
    recorded_at: datetime
    sheet: PriceSheet

    @property
    def order(self) -> tuple[datetime, datetime]:
        """Of two entries of a model that are in force, the later one in this order counts."""
        return self.valid_from, self.recorded_at


def _entries(rows: list[dict[str, Any]]) -> list[_Entry]:
    """Return the entries whose tiers are these rows."""
    tiers: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        tiers.setdefault(row["id"], []).append(row)
    return [_entry(rows) for rows in tiers.values()]


def _entry(rows: list[dict[str, Any]]) -> _Entry:
    tiers = tuple(
        Tier(row["above_input_tokens"], *(parse_usd(row[f"{kind}_usd"], "price") for kind in _PRICES)) for row in rows
    )
    facts = [[row[name] for name in ("model", "valid_from", "recorded_at", "request_usd")] for row in rows]
    model, valid_from, recorded_at, request = facts[0]
    if not isinstance(model, str) or any(other != facts[0] for other in facts):
        raise ValueError("the tiers of an entry must have one model, and the same dates and price of a request")
    sheet = PriceSheet(tiers, parse_usd(request, "price"))
    return _Entry(model, _moment(valid_from), _moment(recorded_at), sheet)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
