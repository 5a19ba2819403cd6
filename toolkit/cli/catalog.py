"""`keydesk upstreams`, `models`, `prices` and `plans`: what can be called, where, and for how much."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import click

from toolkit import environment
from toolkit.admin import models, plans, prices, upstreams
from toolkit.cli.app import App, Group, pass_app
from toolkit.cli.output import Multiplier, Price
from toolkit.cli.values import Moment, Names
from toolkit.cli.values import Multiplier as MultiplierType
from toolkit.cli.values import Usd as UsdType
from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput
from toolkit.core.pricing import PriceSheet, show_multiplier
from toolkit.core.unknown_fields import UnknownFields
from toolkit.store.tables import Model, Plan, Upstream
from toolkit.store.tables import Price as PriceRow
from toolkit.store.transaction import Transaction

_unknown_fields = click.option(
    "--unknown-fields",
    type=click.Choice([choice.value for choice in UnknownFields]),
    help="What becomes of request fields and betas that Keydesk does not know; the stricter of upstream and plan wins. "
    "New ones have `pass`.",
)


@click.group(cls=Group)
def upstreams_command() -> None:
    """Add, change and list provider endpoints."""


@upstreams_command.command("add")
@click.argument("name")
@click.option(
    "--dialect", required=True, type=click.Choice([dialect.value for dialect in Dialect]), help="What it speaks."
)
@click.option("--base-url", required=True, metavar="URL", help="As the provider's SDK has it.")
@click.option(
    "--credential-env", required=True, metavar="VAR", help="Variable, or line of the secrets file, with its key."
)
@_unknown_fields
@pass_app
def add_upstream(
    app: App, name: str, dialect: str, base_url: str, credential_env: str, unknown_fields: str | None
) -> None:
    """Add a provider endpoint. Its credential is named, never given."""
    unknown = UnknownFields(unknown_fields or UnknownFields.PASS)
    with app.workspace.write() as tx:
        upstream = upstreams.add_upstream(tx, name, Dialect(dialect), base_url, credential_env, unknown_fields=unknown)
    set_now = environment.upstream_credential(app.workspace.settings, credential_env) is not None
    hint = "" if set_now else f" Set {credential_env} where the gateway runs."
    app.done(f"Added the upstream {upstream.name!r}.{hint}", _upstream(upstream))


@upstreams_command.command("update")
@click.argument("name")
@click.option("--base-url", metavar="URL", help="As the provider's SDK has it.")
@click.option("--credential-env", metavar="VAR", help="Variable, or line of the secrets file, with its key.")
@_unknown_fields
@pass_app
def update_upstream(
    app: App, name: str, base_url: str | None, credential_env: str | None, unknown_fields: str | None
) -> None:
    """Change where an endpoint is, its credential, or what becomes of unknown fields. The next call goes by it."""
    _require_one({"base_url": base_url, "credential_env": credential_env, "unknown_fields": unknown_fields})
    unknown = UnknownFields(unknown_fields) if unknown_fields else None
    with app.workspace.write() as tx:
        upstream = upstreams.update_upstream(
            tx, name, base_url=base_url, credential_env=credential_env, unknown_fields=unknown
        )
    app.done(
        f"The upstream {upstream.name!r} is at {upstream.base_url}, with the credential {upstream.credential_env}; "
        f"unknown fields: {upstream.unknown_fields}.",
        _upstream(upstream),
    )


@upstreams_command.command("list")
@pass_app
def list_upstreams(app: App) -> None:
    """List provider endpoints."""
    with app.workspace.read() as tx:
        rows = [_upstream(upstream) for upstream in upstreams.list_upstreams(tx)]
    columns = {
        "name": "name",
        "dialect": "dialect",
        "base_url": "base URL",
        "credential_env": "credential",
        "unknown_fields": "unknown fields",
    }
    app.rows(rows, columns, empty="No upstreams yet. Add one: keydesk upstreams add --help")


def _upstream(upstream: Upstream) -> dict[str, Any]:
    return {
        "name": upstream.name,
        "dialect": str(upstream.dialect),
        "base_url": upstream.base_url,
        "credential_env": upstream.credential_env,
        "unknown_fields": str(upstream.unknown_fields),
        "created_at": upstream.created_at,
        "created_by": upstream.created_by,
    }


_PRICES = {
    "input_price": "Fresh input.",
    "output_price": "Output; 0 for embeddings.",
    "cached_input_price": "Input read from a cache.  [default: the input price]",
    "cache_write_price": "Input written to a cache for 5 minutes.  [default: the input price]",
    "cache_write_1h_price": "Input written to a cache for 1 hour.  [default: as for 5 minutes]",
}


def _price_options(command: Callable[..., None]) -> Callable[..., None]:
    for name, what in reversed(_PRICES.items()):
        option = "--" + name.replace("_", "-")
        command = click.option(option, type=UsdType(), metavar="P", help=f"USD per million tokens: {what}")(command)
    return command


def _sheet(given: dict[str, int | None]) -> PriceSheet | None:
    """Return the prices given, or None if there are none."""
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
def models_command() -> None:
    """Add, change and list models."""


@models_command.command("add")
@click.argument("model_id", metavar="ID")
@click.option("--upstream", required=True, metavar="NAME", help="Where it is served.")
@click.option("--upstream-model", metavar="M", help="What the upstream calls it.  [default: ID]")
@_price_options
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
    sheet = _sheet(given)
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
    _require_one(options)
    with app.workspace.write() as tx:
        model = models.update_model(tx, model_id, **options)
        facts = _model(tx, model)
    app.done(f"The model {model_id!r} is {model.upstream_model!r} of the upstream {model.upstream!r}.", facts)


def _require_one(options: dict[str, Any]) -> None:
    if all(value is None for value in options.values()):
        raise click.UsageError("Nothing to change: give at least one option.", click.get_current_context())


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
@_price_options
@click.option("--from", "valid_from", type=Moment(), metavar="TIME", help="From when it holds, UTC.  [default: now]")
@pass_app
def set_price(app: App, /, model: str, valid_from: datetime | None, **given: int | None) -> None:
    """Enter a new price. Calls admitted before it holds keep theirs."""
    sheet = _sheet(given)
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


@click.group(cls=Group)
def plans_command() -> None:
    """Add, change and list plans."""


@plans_command.command("add")
@click.argument("name")
@click.option("--multiplier", required=True, type=MultiplierType(), metavar="M", help="Of the base price: 1, 1.25, …")
@click.option("--models", required=True, type=Names(), metavar="A,B", help="Ids of the models it includes.")
@_unknown_fields
@pass_app
def add_plan(app: App, name: str, multiplier: int, models: list[str], unknown_fields: str | None) -> None:
    """Add a plan: which models a key may call, and the price multiplier it pays."""
    unknown = UnknownFields(unknown_fields or UnknownFields.PASS)
    with app.workspace.write() as tx:
        plan = plans.add(tx, name, multiplier, models, unknown_fields=unknown)
        facts = _plan(tx, plan)
    app.done(f"Added the plan {plan.name!r} ({plan.id}).", facts)


@plans_command.command("update")
@click.argument("name", metavar="NAME")
@click.option("--multiplier", type=MultiplierType(), metavar="M", help="Of the base price: 1, 1.25, …")
@click.option("--models", type=Names(), metavar="A,B", help="Ids of all the models it is to include.")
@click.option("--add-models", type=Names(), metavar="A,B", help="Ids of models to add.")
@click.option("--remove-models", type=Names(), metavar="A,B", help="Ids of models to take out.")
@_unknown_fields
@pass_app
def update_plan(
    app: App, /, name: str, multiplier: int | None, unknown_fields: str | None, **lists: list[str] | None
) -> None:
    """Change a plan: its models, price multiplier, or what becomes of unknown fields. The next call is judged by it."""
    _require_one({"multiplier": multiplier, "unknown_fields": unknown_fields, **lists})
    unknown = UnknownFields(unknown_fields) if unknown_fields else None
    whole, added, removed = lists["models"], lists["add_models"], lists["remove_models"]
    if whole is not None and (added or removed):
        raise click.UsageError("Give --models, or what to add and remove, not both.", click.get_current_context())
    with app.workspace.write() as tx:
        plan = plans.find(tx, name)
        if added or removed:
            whole = _edited(plans.models(tx, plan.id), added or [], removed or [])
        plan = plans.update(tx, plan.id, multiplier=multiplier, models=whole, unknown_fields=unknown)
        facts = _plan(tx, plan)
    included = ", ".join(facts["models"])
    app.done(
        f"The plan {plan.name!r} is {show_multiplier(plan.multiplier)} the base price of {included}; "
        f"unknown fields: {plan.unknown_fields}.",
        facts,
    )


def _edited(included: list[str], added: list[str], removed: list[str]) -> list[str]:
    """Return a plan's models with some added and some taken out; a name that it does not include is a slip."""
    missing = sorted(set(removed) - set(included))
    if missing:
        raise InvalidInput(f"The plan does not include {', '.join(missing)}. Its models are: {', '.join(included)}.")
    return sorted((set(included) | set(added)) - set(removed))


@plans_command.command("list")
@pass_app
def list_plans(app: App) -> None:
    """List plans."""
    with app.workspace.read() as tx:
        rows = [_plan(tx, plan) for plan in plans.list_all(tx)]
    columns = {
        "name": "name",
        "id": "id",
        "multiplier": "multiplier",
        "models": "models",
        "unknown_fields": "unknown fields",
    }
    app.rows(rows, columns, empty="No plans yet. Add one: keydesk plans add --help")


def _plan(tx: Transaction, plan: Plan) -> dict[str, Any]:
    return {
        "id": plan.id,
        "name": plan.name,
        "multiplier": Multiplier(plan.multiplier),
        "models": plans.models(tx, plan.id),
        "unknown_fields": str(plan.unknown_fields),
        "created_at": plan.created_at,
        "created_by": plan.created_by,
    }
