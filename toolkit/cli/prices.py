"""`keydesk prices`: the price book, and the options by which prices are given."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import click

from toolkit.admin import prices
from toolkit.admin.prices import PriceUpdate
from toolkit.cli.app import App, Group, pass_app
from toolkit.cli.output import total_of
from toolkit.cli.values import Moment
from toolkit.cli.values import Usd as UsdType
from toolkit.core.marked import Price, Usd
from toolkit.core.price_changes import in_words, price_changes
from toolkit.core.pricing import PriceSheet
from toolkit.core.wording import counted, listed
from toolkit.store.tables import Price as PriceRow

_PRICES = {
    "input_price": "Fresh input.",
    "output_price": "Output; 0 for embeddings.",
    "cached_input_price": "Input read from a cache.  [default: the input price]",
    "cache_write_price": "Input written to a cache for 5 minutes.  [default: the input price]",
    "cache_write_1h_price": "Input written to a cache for 1 hour.  [default: as for 5 minutes]",
}


def price_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options by which a price is entered."""
    for name, what in reversed(_PRICES.items()):
        option = "--" + name.replace("_", "-")
        command = click.option(option, type=UsdType(), metavar="P", help=f"USD per million tokens: {what}")(command)
    return command


def price_sheet(given: dict[str, int | None]) -> PriceSheet | None:
    """Return the prices that were given by `price_options`, or None if there are none.

    Raises:
        UsageError: some are given, but not both of input and output.
    """
    if all(price is None for price in given.values()):
        return None
    fresh, output = given["input_price"], given["output_price"]
    if fresh is None or output is None:
        raise click.UsageError("Give both --input-price and --output-price.", click.get_current_context())
    return PriceSheet.flat(
        fresh,
        output,
        cached_input=given["cached_input_price"],
        cache_write_5m=given["cache_write_price"],
        cache_write_1h=given["cache_write_1h_price"],
    )


@click.group(cls=Group)
def prices_command() -> None:
    """Look into the price book and enter prices, in USD per million tokens."""


_PRICE_COLUMNS = {
    "model": "model",
    "valid_from": "valid from (UTC)",
    "above_input_tokens": "above tokens",
    "input_usd": "input",
    "cached_input_usd": "cached",
    "cache_write_5m_usd": "write 5 min",
    "cache_write_1h_usd": "write 1 h",
    "output_usd": "output",
    "source": "source",
}


def _price_rows(entries: list[PriceRow]) -> Iterator[dict[str, Any]]:
    """Yield one row for each tier of each entry."""
    for entry in entries:
        sheet = PriceSheet.from_json(entry.sheet)
        for tier in sheet.tiers:
            yield {
                "id": entry.id,
                "model": entry.model_id,
                "valid_from": entry.valid_from,
                "recorded_at": entry.recorded_at,
                "recorded_by": entry.recorded_by,
                "source": entry.source,
                "above_input_tokens": tier.above,
                "input_usd": Price(tier.input),
                "cached_input_usd": Price(tier.cached_input),
                "cache_write_5m_usd": Price(tier.cache_write_5m),
                "cache_write_1h_usd": Price(tier.cache_write_1h),
                "output_usd": Price(tier.output),
                "request_usd": Price(sheet.request),
            }


@prices_command.command("list")
@click.argument("model", required=False)
@pass_app
def list_prices(app: App, model: str | None) -> None:
    """List price entries, of one model or of all, the oldest first."""
    with app.workspace.read() as tx:
        rows = list(_price_rows(prices.list_prices(tx, model)))
    app.rows(rows, _PRICE_COLUMNS, empty="No prices. `keydesk models list` shows the models there are.")


@prices_command.command("set")
@click.argument("model")
@price_options
@click.option("--from", "valid_from", type=Moment(), metavar="TIME", help="From when it holds, UTC.  [default: now]")
@pass_app
def set_price(app: App, /, model: str, valid_from: datetime | None, **given: int | None) -> None:
    """Enter a new price. Calls admitted before it holds keep theirs."""
    sheet = price_sheet(given)
    if sheet is None:
        raise click.UsageError("Give --input-price and --output-price.", click.get_current_context())
    with app.workspace.write() as tx:
        entry = prices.set_price(tx, model, sheet, valid_from=valid_from)
    (facts,) = _price_rows([entry])
    app.done(f"Entered the price of {model!r}, valid from {entry.valid_from:%Y-%m-%d %H:%M:%S} UTC.", facts)


_UPDATE_COLUMNS = {
    "model": "model",
    "changes": "price",
    "calls": "calls",
    "before_usd": "by the present price",
    "after_usd": "by the new one",
    "difference_usd": "difference",
}
_UPDATE_SUMS = ("calls", "before_usd", "after_usd", "difference_usd")


@prices_command.command("refresh")
@click.option("--yes", is_flag=True, help="Enter what has changed without asking.")
@pass_app
def refresh_prices(app: App, yes: bool) -> None:
    """Copy the present prices from genai-prices, for models whose price came from there.

    First it shows what has changed, and what that would have done to last month's spend; then it asks.
    """
    with app.workspace.read() as tx:
        copied = prices.copied_prices(tx)
        gone = [current.model_id for current, public in copied if public is None]
        updates = prices.price_updates(copied)
    if gone:
        click.echo(f"genai-prices has no price any more of {listed(gone)}: those in force stay.", err=True)
    month, rows = _update_rows(app, updates) if updates else ("", [])
    if rows and not app.as_json:
        click.echo(f"What genai-prices has otherwise, and what it would have done to the calls of {month}:\n")
        app.rows(rows, _UPDATE_COLUMNS, empty="", total=total_of(rows, "model", _UPDATE_SUMS))
    if rows:
        app.confirm(f"Enter {counted(len(rows), 'new price')}, valid from now on?", yes=yes)
        with app.workspace.write() as tx:
            entered = {entry.model_id: entry for entry in prices.refresh_prices(tx, updates)}
            facts = {name: {"id": entry.id, "valid_from": entry.valid_from} for name, entry in entered.items()}
        rows = [row | facts[row["model"]] for row in rows]
    if app.as_json or not rows:
        app.rows(rows, {}, empty="All prices are as genai-prices has them; nothing was entered.")
    else:
        click.echo(f"Entered {counted(len(rows), 'price')}. Calls admitted before keep theirs.")


def _update_rows(app: App, updates: list[PriceUpdate]) -> tuple[str, list[dict[str, Any]]]:
    """Return the last month that has calls, and each update with what it would have done to them."""
    from toolkit.reports.price_effects import price_effects
    from toolkit.reports.spend import last_full_month

    ledger = app.workspace.ledger
    month = last_full_month(ledger)
    sides = ({update.model: update.before for update in updates}, {update.model: update.after for update in updates})
    effects = price_effects(ledger, month, *sides)
    rows = []
    for update in updates:
        effect, changes = effects[update.model], price_changes(update.before, update.after)
        rows.append(
            {
                "model": update.model,
                "source_before": update.source_before,
                "source": update.source,
                "changes": [_change(change) for change in changes] if app.as_json else list(map(in_words, changes)),
                "month": month,
                "calls": effect.calls,
                "before_usd": Usd(effect.before),
                "after_usd": Usd(effect.after),
                "difference_usd": Usd(effect.after - effect.before),
            }
        )
    return month, rows


def _change(change: dict[str, Any]) -> dict[str, Any]:
    """Return a change as JSON has it."""
    amounts = {f"{side}_usd": Price(change[f"{side}_nano"]) for side in ("before", "after")}
    return {name: value for name, value in change.items() if not name.endswith("_nano")} | amounts
