"""`keydesk prices`: the price book, and the options by which prices are given."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import click

from toolkit.admin import prices
from toolkit.cli.app import App, Group, pass_app
from toolkit.cli.output import Price
from toolkit.cli.values import Moment
from toolkit.cli.values import Usd as UsdType
from toolkit.core.pricing import PriceSheet
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


@prices_command.command("refresh")
@pass_app
def refresh_prices(app: App) -> None:
    """Copy the present prices from genai-prices, for models whose price came from there."""
    with app.workspace.write() as tx:
        rows = list(_price_rows(prices.refresh_prices(tx)))
    app.rows(rows, _PRICE_COLUMNS, empty="All prices are as genai-prices has them; nothing was entered.")
