"""`keydesk models`: what keys may call, where it is served, and within which limits."""

from typing import Any

import click

from toolkit.admin import model_routes, models, organisations, prices, upstreams
from toolkit.admin.model_routes import RouteWay
from toolkit.cli.app import App, Group, pass_app
from toolkit.cli.options import require_one
from toolkit.cli.prices import price_options, price_sheet
from toolkit.cli.values import Names
from toolkit.core.marked import Price
from toolkit.core.pricing import PriceSheet
from toolkit.core.wording import listed
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
    app.done(f"Added the model {model_id!r}{priced}{_alone(facts)}.", facts)


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
    place = f"{model.upstream_model!r} of the upstream {model.upstream!r}"
    app.done(f"The model {model_id!r} is {place}{_alone(facts)}.", facts)


@models_command.command("route")
@click.argument("model_id", metavar="ID")
@click.option(
    "--upstream",
    "given",
    required=True,
    metavar="A[:MODEL],B[:MODEL]",
    help="Who serves it, in the order in which they are tried, with what they call it. One alone ends the route.",
)
@click.option("--weights", type=Names(), metavar="N,N", help="Shares of callers, instead of the order.")
@click.option(
    "--price-of",
    "priced",
    multiple=True,
    metavar="UPSTREAM=MODEL",
    help="Charge what this upstream answers by the prices of another model; may be given again.",
)
@pass_app
def route_model(app: App, /, model_id: str, given: str, weights: list[str] | None, priced: tuple[str, ...]) -> None:
    """Have several upstreams serve a model: another one is tried where one fails before it has made anything."""
    with app.workspace.write() as tx:
        model = model_routes.set_route(tx, model_id, _ways(tx, given, weights or [], priced))
        facts = _model(tx, model)
    app.done(f"The model {model_id!r} is served by {facts['route'] or model.upstream}{_alone(facts)}.", facts)


def _alone(facts: dict[str, Any]) -> str:
    """Return whose API keys alone may call a model, as the end of a sentence; empty if it is everybody's."""
    return f", for API keys of {listed(facts['orgs'])} alone" if facts["orgs"] else ""


def _ways(tx: Transaction, given: str, weights: list[str], priced: tuple[str, ...]) -> list[RouteWay]:
    """Return the ways that options name.

    Raises:
        UsageError: weights or prices do not fit them.
    """
    ways = [model_routes.parse_way(tx, text) for text in given.split(",")]
    if weights and len(weights) != len(ways):
        raise click.UsageError(f"{len(ways)} upstreams need {len(ways)} weights, not {len(weights)}.")
    if wrong := [weight for weight in weights if not weight.isdecimal() or int(weight) == 0]:
        raise click.UsageError(f"A weight is a whole number above 0, such as 3, not {wrong[0]!r}.")
    prices_of = dict(text.partition("=")[::2] for text in priced)
    if strangers := set(prices_of) - {upstream for upstream, _ in ways}:
        raise click.UsageError(f"--price-of names {min(strangers)!r}, which is none of the upstreams of --upstream.")
    if not all(prices_of.values()):
        raise click.UsageError("Write --price-of as UPSTREAM=MODEL.")
    shares = [int(weight) for weight in weights] or [0] * len(ways)
    return [
        RouteWay(upstream, model, share, prices_of.get(upstream))
        for (upstream, model), share in zip(ways, shares, strict=True)
    ]


@models_command.command("list")
@pass_app
def list_models(app: App) -> None:
    """List models with the prices in force, in USD per million tokens."""
    with app.workspace.read() as tx:
        rows = [_model(tx, model) for model in models.list_models(tx)]
    columns = {
        "id": "model",
        "orgs": "only for",
        "upstream": "upstream",
        "upstream_model": "upstream model",
        "route": "route",
        "input_price_usd": "input",
        "cached_input_price_usd": "cached",
        "output_price_usd": "output",
        "context_window": "context window",
        "default_output": "default output",
        "max_output": "max output",
    }
    app.rows(rows, columns, empty="No models yet. Add one: keydesk models add --help")


def _route(tx: Transaction, ways: list[RouteWay]) -> str | None:
    """Return the upstreams that serve a model, for people; None if it is one alone."""
    if len(ways) == 1:
        return None
    owners = {way.upstream: upstreams.find(tx, way.upstream).org_id for way in ways}
    whose = {name: f" for {organisations.find(tx, org_id).name} alone" for name, org_id in owners.items() if org_id}
    shares = [f" ({way.weight})" if way.weight else "" for way in ways]
    prices_of = [f" at the prices of {way.price_model}" if way.price_model else "" for way in ways]
    named = [f"{way.upstream}:{way.upstream_model}{whose.get(way.upstream, '')}" for way in ways]
    return ", ".join(map("".join, zip(named, shares, prices_of, strict=True)))


def _model(tx: Transaction, model: Model) -> dict[str, Any]:
    price = prices.price_at(prices.list_prices(tx, model.id), tx.now)
    tier = PriceSheet.from_json(price.sheet).tiers[0] if price else None
    owners = models.owned(tx).get(model.id)
    return {
        "id": model.id,
        "orgs": None if owners is None else sorted(organisations.find(tx, org_id).name for org_id in owners),
        "upstream": model.upstream,
        "upstream_model": model.upstream_model,
        "route": _route(tx, model_routes.route_of(tx, model)),
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
