"""Plans: which models a key may call, and the price multiplier it pays."""

from sqlalchemy import select

from toolkit import accounts, audit, catalog
from toolkit.credentials import new_id
from toolkit.database import Transaction
from toolkit.errors import Conflict, InvalidInput, NotFound
from toolkit.models import Model, Plan, PlanModel
from toolkit.pricing import check_multiplier, show_multiplier


def add(tx: Transaction, name: str, multiplier: int, models: list[str]) -> Plan:
    """Add a plan.

    Args:
        tx: as a platform admin.
        name: shown to org admins.
        multiplier: millionths; 1,000,000 charges the base price.
        models: ids of the models it includes, at least one.

    Raises:
        InvalidInput: no models, or no such multiplier.
        NotFound: a model does not exist.
        Conflict: the name is taken.
    """
    accounts.require_platform_admin(tx)
    name = accounts.check_name(name, "plan's name")
    check_multiplier(multiplier)
    if not models:
        raise InvalidInput("A plan needs at least one model.")
    for model in models:
        if tx.session.get(Model, model) is None:
            raise NotFound(f"There is no model {model!r}. `keydesk models list` shows them.")
    if tx.session.scalar(select(Plan).where(Plan.name == name)):
        raise Conflict(f"There is already a plan named {name!r}.")
    plan = Plan(id=new_id("plan"), name=name, multiplier=multiplier, created_at=tx.now, created_by=tx.actor.name)
    tx.session.add(plan)
    tx.session.flush()
    tx.session.add_all(PlanModel(plan_id=plan.id, model_id=model) for model in sorted(set(models)))
    tx.session.flush()
    catalog.changed(tx)
    after = {"name": name, "multiplier": show_multiplier(multiplier), "models": sorted(set(models))}
    audit.record(tx, "plan.add", plan.id, after=after)
    return plan


def find(tx: Transaction, name_or_id: str) -> Plan:
    """Return the plan with this id or name.

    Raises:
        NotFound: there is none.
    """
    plan = tx.session.get(Plan, name_or_id) or tx.session.scalar(select(Plan).where(Plan.name == name_or_id))
    if plan is None:
        raise NotFound(f"There is no plan named {name_or_id!r}. `keydesk plans list` shows them.")
    return plan


def list_all(tx: Transaction) -> list[Plan]:
    """Return all plans, by name."""
    return list(tx.session.scalars(select(Plan).order_by(Plan.name)))


def models(tx: Transaction, plan_id: str) -> list[str]:
    """Return the ids of the models that a plan includes, sorted."""
    query = select(PlanModel.model_id).where(PlanModel.plan_id == plan_id).order_by(PlanModel.model_id)
    return list(tx.session.scalars(query))
