"""`keydesk plans`: which models a key may call, and at which multiplier of the base price."""

from typing import Any

import click

from toolkit.admin import plans
from toolkit.cli.app import App, Group, pass_app
from toolkit.cli.options import HOSTED_TOOLS, UNKNOWN_FIELDS, require_one
from toolkit.cli.values import Multiplier as MultiplierType
from toolkit.cli.values import Names
from toolkit.core.errors import InvalidInput
from toolkit.core.hosted_tools import HostedTools
from toolkit.core.marked import Multiplier
from toolkit.core.pricing import show_multiplier
from toolkit.core.unknown_fields import UnknownFields
from toolkit.store.tables import Plan
from toolkit.store.transaction import Transaction


@click.group(cls=Group)
def plans_command() -> None:
    """Add, change and list plans."""


@plans_command.command("add")
@click.argument("name")
@click.option("--multiplier", required=True, type=MultiplierType(), metavar="M", help="Of the base price: 1, 1.25, …")
@click.option("--models", required=True, type=Names(), metavar="A,B", help="Ids of the models it includes.")
@UNKNOWN_FIELDS
@HOSTED_TOOLS
@pass_app
def add_plan(
    app: App, name: str, multiplier: int, models: list[str], unknown_fields: str | None, hosted_tools: str | None
) -> None:
    """Add a plan: which models a key may call, and the price multiplier it pays."""
    unknown = UnknownFields(unknown_fields or UnknownFields.PASS)
    hosted = HostedTools(hosted_tools or HostedTools.LEAVE_OUT)
    with app.workspace.write() as tx:
        plan = plans.add(tx, name, multiplier, models, unknown_fields=unknown, hosted_tools=hosted)
        facts = _plan(tx, plan)
    app.done(f"Added the plan {plan.name!r} ({plan.id}).", facts)


@plans_command.command("update")
@click.argument("name", metavar="NAME")
@click.option("--multiplier", type=MultiplierType(), metavar="M", help="Of the base price: 1, 1.25, …")
@click.option("--models", type=Names(), metavar="A,B", help="Ids of all the models it is to include.")
@click.option("--add-models", type=Names(), metavar="A,B", help="Ids of models to add.")
@click.option("--remove-models", type=Names(), metavar="A,B", help="Ids of models to take out.")
@UNKNOWN_FIELDS
@HOSTED_TOOLS
@pass_app
def update_plan(
    app: App,
    /,
    name: str,
    multiplier: int | None,
    unknown_fields: str | None,
    hosted_tools: str | None,
    **lists: list[str] | None,
) -> None:
    """Change a plan: models, price multiplier, unknown fields, hosted tools. The next call is judged by it."""
    require_one({"multiplier": multiplier, "unknown_fields": unknown_fields, "hosted_tools": hosted_tools, **lists})
    unknown = UnknownFields(unknown_fields) if unknown_fields else None
    hosted = HostedTools(hosted_tools) if hosted_tools else None
    whole, added, removed = lists["models"], lists["add_models"], lists["remove_models"]
    if whole is not None and (added or removed):
        raise click.UsageError("Give --models, or what to add and remove, not both.", click.get_current_context())
    with app.workspace.write() as tx:
        plan = plans.find(tx, name)
        if added or removed:
            whole = _edited(plans.models(tx, plan.id), added or [], removed or [])
        plan = plans.update(
            tx, plan.id, multiplier=multiplier, models=whole, unknown_fields=unknown, hosted_tools=hosted
        )
        facts = _plan(tx, plan)
    included = ", ".join(facts["models"])
    app.done(
        f"The plan {plan.name!r} is {show_multiplier(plan.multiplier)} the base price of {included}; "
        f"unknown fields: {plan.unknown_fields}; hosted tools: {plan.hosted_tools}.",
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
        "hosted_tools": "hosted tools",
    }
    app.rows(rows, columns, empty="No plans yet. Add one: keydesk plans add --help")


def _plan(tx: Transaction, plan: Plan) -> dict[str, Any]:
    return {
        "id": plan.id,
        "name": plan.name,
        "multiplier": Multiplier(plan.multiplier),
        "models": plans.models(tx, plan.id),
        "unknown_fields": str(plan.unknown_fields),
        "hosted_tools": str(plan.hosted_tools),
        "created_at": plan.created_at,
        "created_by": plan.created_by,
    }
