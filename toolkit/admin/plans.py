"""Plans: which models a key may call, and the price multiplier it pays."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select

from toolkit.admin import catalog
from toolkit.admin.models import unserved
from toolkit.admin.upstreams import describe_unknown_fields
from toolkit.core import words
from toolkit.core.errors import Conflict, InvalidInput, NotFound
from toolkit.core.hosted_tools import HostedTools, checked
from toolkit.core.ids import new_id
from toolkit.core.policy import KeyStatus
from toolkit.core.pricing import check_multiplier, show_multiplier
from toolkit.core.stale import require_unchanged
from toolkit.core.unknown_fields import UnknownFields
from toolkit.store import audit
from toolkit.store.tables import ApiKey, Model, Plan, PlanModel
from toolkit.store.transaction import Transaction


def add(
    tx: Transaction,
    name: str,
    multiplier: int,
    models: list[str],
    *,
    unknown_fields: UnknownFields = UnknownFields.PASS,
    hosted_tools: HostedTools = HostedTools.LEAVE_OUT,
) -> Plan:
    """Add a plan.

    Args:
        tx: as a platform admin.
        name: shown to org admins.
        multiplier: millionths; 1,000,000 charges the base price.
        models: ids of the models it includes, at least one.
        unknown_fields: what becomes of request fields, betas and headers that Keydesk does not know; an upstream may be
            stricter.
        hosted_tools: what becomes of tools that the provider would run; a key may be stricter.

    Raises:
        InvalidInput: no models, no such multiplier, or a choice for hosted tools that cannot be set.
        NotFound: a model does not exist.
        Conflict: the name is taken.
    """
    catalog.begin_change(tx)
    name = words.check_name(name, "plan's name")
    check_multiplier(multiplier)
    _check_models(tx, models)
    if tx.session.scalar(select(Plan).where(Plan.name == name)):
        raise Conflict(f"There is already a plan named {name!r}.")
    plan = Plan(
        id=new_id("plan"),
        name=name,
        multiplier=multiplier,
        unknown_fields=unknown_fields,
        created_at=tx.now,
        created_by=tx.actor.name,
        hosted_tools=checked(hosted_tools),
    )
    tx.session.add(plan)
    tx.session.flush()
    tx.session.add_all(PlanModel(plan_id=plan.id, model_id=model) for model in sorted(set(models)))
    tx.session.flush()
    catalog.changed(tx)
    audit.record(tx, "plan.add", plan.id, after=describe(tx, plan))
    return plan


def update(
    tx: Transaction,
    plan: str,
    *,
    multiplier: int | None = None,
    models: list[str] | None = None,
    unknown_fields: UnknownFields | None = None,
    hosted_tools: HostedTools | None = None,
    seen: Mapping[str, Any] | None = None,
) -> Plan:
    """Change what a plan includes or multiplies by; what is not given stays. Calls admitted before keep their price.

    Args:
        tx: as a platform admin.
        plan: id or name.
        multiplier: millionths; 1,000,000 charges the base price.
        models: ids of all the models it is to include, at least one.
        unknown_fields: as in `add`; so is hosted_tools.
        seen: the plan as whoever changes it saw it, by `describe`; it must be so still.

    Raises:
        InvalidInput: as in `add`, or a live key's scope names a model that would go.
        NotFound: the plan or a model does not exist.
        Conflict: somebody has changed it since it was seen.
    """
    catalog.begin_change(tx)
    found = find(tx, plan)
    before = describe(tx, found)
    if seen is not None:
        require_unchanged(f"plan {found.name!r}", seen, before)
    if multiplier is not None:
        found.multiplier = check_multiplier(multiplier)
    if unknown_fields is not None:
        found.unknown_fields = unknown_fields
    if hosted_tools is not None:
        found.hosted_tools = checked(hosted_tools)
    if models is not None:
        _check_models(tx, models)
        _change_models(tx, found.id, set(models))
    after = describe(tx, found)
    if after != before:
        tx.session.flush()
        catalog.changed(tx)
        audit.record(tx, "plan.update", found.id, before=before, after=after)
    return found


def _check_models(tx: Transaction, wanted: list[str]) -> None:
    if not wanted:
        raise InvalidInput("A plan needs at least one model.")
    for model in wanted:
        if tx.session.get(Model, model) is None:
            raise NotFound(f"There is no model {model!r}. `keydesk models list` shows them.")


def _change_models(tx: Transaction, plan_id: str, wanted: set[str]) -> None:
    included = set(models(tx, plan_id))
    gone = included - wanted
    live = select(ApiKey).where(ApiKey.plan_id == plan_id, ApiKey.status != KeyStatus.DELETED).order_by(ApiKey.name)
    holders = [key for key in tx.session.scalars(live) if gone & set(json.loads(key.scope))] if gone else []
    if holders:
        named = ", ".join(f"{key.name!r} ({key.id})" for key in holders)
        raise InvalidInput(
            f"The model scope of these API keys names {', '.join(sorted(gone))}: {named}. Change their scopes first."
        )
    tx.session.execute(delete(PlanModel).where(PlanModel.plan_id == plan_id, PlanModel.model_id.in_(gone)))
    tx.session.add_all(PlanModel(plan_id=plan_id, model_id=model) for model in sorted(wanted - included))
    tx.session.flush()


def describe(tx: Transaction, plan: Plan) -> dict[str, Any]:
    """Return what can be changed of a plan, as the audit log has it."""
    return {
        "name": plan.name,
        "multiplier": show_multiplier(plan.multiplier),
        "models": models(tx, plan.id),
        **describe_unknown_fields(plan),
        **({} if plan.hosted_tools == HostedTools.LEAVE_OUT else {"hosted_tools": str(plan.hosted_tools)}),
    }


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


def models(tx: Transaction, plan_id: str, org_id: str | None = None) -> list[str]:
    """Return the ids of the models that a plan includes, sorted.

    Args:
        tx: of whoever asks.
        plan_id: of the plan.
        org_id: leave out what this organisation is not served, for only accounts of other ones serve it; by default
            the actor's own organisation.
    """
    query = select(PlanModel.model_id).where(PlanModel.plan_id == plan_id).order_by(PlanModel.model_id)
    org_id = org_id or tx.actor.org_id
    hidden = unserved(tx, org_id) if org_id is not None else set()
    return [model for model in tx.session.scalars(query) if model not in hidden]
