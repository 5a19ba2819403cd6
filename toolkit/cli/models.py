"""`keydesk models`: what keys may call, where it is served, and within which limits."""

from typing import Any

import click

from toolkit.admin import models, prices
from toolkit.cli.app import App, Group, pass_app
from toolkit.cli.options import require_one
from toolkit.cli.output import Price
from toolkit.cli.prices import price_options, price_sheet
from toolkit.core.pricing import PriceSheet
from toolkit.store.tables import Model
from toolkit.store.transaction import Transaction


@click.group(cls=Group)
def models_command() -> None:
    """Add, change and list models."""


@models_command.command("add")
@click.argument("model_id", metavar="ID")
@click.option("--upstream", required=True, metavar="NAME", help="Where it is served.")
@click.option("--upstream-model", metavar="M", help="What the upstream calls it.  [default: ID]")
@price_options
@click.option("--price-as", metavar="PROVIDER/MODEL", help="Copy the prices of this model from genai-prices.")
@click.option("--context-window", type=int, metavar="N", help="Tokens of input.")
@click.option("--default-output", type=int, metavar="N", help="Output bound where a caller gives none, in tokens.")
@click.option("--max-output", type=int, metavar="N", help="Most output tokens of one answer.")
@pass_app
def add_model(
    app: App,
    /,
    model_id: str,
    upstream: str,
    upstream_model: str | None,
    price_as: str | None,
    context_window: int | None,
    default_output: int | None,
    max_output: int | None,
    **given: int | None,
) -> None:
    """Add a model that keys may call. Without prices, they are copied from genai-prices."""
    sheet = price_sheet(given)
    with app.workspace.write() as tx:
        model = models.add_model(
            tx,
            model_id,
            upstream,
            upstream_model=upstream_model,
            sheet=sheet,
            price_as=price_as,
            context_window=context_window,
            default_output=default_output,
            max_output=max_output,
        )
        facts = _model(tx, model)
    priced = " with the given prices" if sheet else f", priced from {facts['price_source']}"
    app.done(f"Added the model {model_id!r}{priced}.", facts)


@models_command.command("update")
@click.argument("model_id", metavar="ID")
@click.option("--upstream", metavar="NAME", help="Where it is served; of the same dialect.")
@click.option("--upstream-model", metavar="M", help="What the upstream calls it.")
@click.option("--context-window", type=int, metavar="N", help="Tokens of input.")
@click.option("--default-output", type=int, metavar="N", help="Output bound where a caller gives none, in tokens.")
@click.option("--max-output", type=int, metavar="N", help="Most output tokens of one answer.")
@pass_app
def update_model(app: App, /, model_id: str, **options: Any) -> None:
    """Change where a model is served, or its limits. Its price stays; the next call goes there."""
    require_one(options)
    with app.workspace.write() as tx:
        model = models.update_model(tx, model_id, **options)
        facts = _model(tx, model)
    app.done(f"The model {model_id!r} is {model.upstream_model!r} of the upstream {model.upstream!r}.", facts)


@models_command.command("list")
@pass_app
def list_models(app: App) -> None:
    """List models with the prices in force, in USD per million tokens."""
    with app.workspace.read() as tx:
        rows = [_model(tx, model) for model in models.list_models(tx)]
    columns = {
        "id": "model",
        "upstream": "upstream",
        "upstream_model": "upstream model",
        "input_price_usd": "input",
        "cached_input_price_usd": "cached",
        "output_price_usd": "output",
        "context_window": "context window",
        "default_output": "default output",
        "max_output": "max output",
    }
    app.rows(rows, columns, empty="No models yet. Add one: keydesk models add --help")


def _model(tx: Transaction, model: Model) -> dict[str, Any]:
    price = prices.price_at(prices.list_prices(tx, model.id), tx.now)
    tier = PriceSheet.from_json(price.sheet).tiers[0] if price else None
    return {
        "id": model.id,
        "upstream": model.upstream,
        "upstream_model": model.upstream_model,
        "input_price_usd": Price(tier.input) if tier else None,
        "cached_input_price_usd": Price(tier.cached_input) if tier else None,
        "output_price_usd": Price(tier.output) if tier else None,
        "price_source": price.source if price else None,
        "context_window": model.context_window,
        "default_output": model.default_output,
        "max_output": model.max_output,
        "created_at": model.created_at,
        "created_by": model.created_by,
    }
