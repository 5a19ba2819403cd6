"""Reads the snapshot that the audits judge: the key store in one transaction, the ledger in four queries."""

import json
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute

from toolkit.admin import model_routes, plans
from toolkit.admin.models import list_models, owned
from toolkit.admin.prices import copied_prices, list_prices
from toolkit.admin.upstreams import list_upstreams, upstream_fault
from toolkit.admin.wallet import repeated_credits
from toolkit.checks import reconcile_runs, request_log
from toolkit.checks.snapshot import Act, Break, Failures, Person, Secret, Snapshot, last_months
from toolkit.checks.thresholds import Thresholds
from toolkit.core.errors import RefusalType
from toolkit.forecast import anomalies
from toolkit.ledger.ledger import Ledger
from toolkit.store import audit, holds, incidents, refusal_counts, refused_fields, smaller_limits, unknown_fields
from toolkit.store.tables import (
    ApiKey,
    AuditRow,
    KeyMonth,
    LiveSecret,
    Operator,
    Organisation,
    PlanModel,
    RetiredSecret,
    SignInFailure,
    Upstream,
)
from toolkit.store.transaction import Transaction

HISTORY = timedelta(days=90)
"""How long before the period an operator's acts are looked at, to know the usual hours."""


def read(ledger: Ledger, thresholds: Thresholds, known_heads: dict[str, str] | None, now: datetime | None) -> Snapshot:
    """Return what the actor of a ledger may see.

    Args:
        ledger: its key store is read in one snapshot; the calls in four queries of their own, just before.
        thresholds: how far back to look.
        known_heads: heads of audit chains that were exported earlier; see `audit.verify`.
        now: the moment to judge by, UTC; the store's present moment by default.

    Raises:
        InvalidInput: a known head is not of the form `seq:hash`.
        Unavailable: the key store or the ledger cannot be read.
    """
    if now is None:
        with ledger.store.read(ledger.actor) as tx:
            now = tx.now
    period, scope = timedelta(days=thresholds.period), timedelta(days=thresholds.scope)
    calls = request_log.calls(ledger, now - period, now - max(scope, period))
    doubts = request_log.doubted(ledger, now - period)
    first = date.fromisoformat(f"{last_months(now)[-1]}-01")
    unusual = anomalies.beyond_usual(ledger, now, days=(now.date() - first).days + 1)
    whole = ledger.actor.org_id is None
    served = request_log.served(ledger, now - period) if whole else []
    with ledger.store.read(ledger.actor, now) as tx:
        orgs, keys = _orgs(tx), _keys(tx)
        last_used, last_unauthorized = _uses(tx)
        return Snapshot(
            now=now,
            whole=whole,
            orgs=orgs,
            plans={plan.id: plan for plan in plans.list_all(tx)},
            plan_models=_plan_models(tx),
            owned=owned(tx),
            owners={upstream.name: upstream.org_id for upstream in list_upstreams(tx) if upstream.org_id},
            keys=sorted(keys, key=lambda key: (orgs[key.org_id].name, key.name, key.created_at)),
            secrets=_secrets(tx),
            months=_months(tx),
            unusual=unusual,
            last_used=last_used,
            last_unauthorized=last_unauthorized,
            retired=_retired(tx),
            acts=_acts(tx, now - timedelta(days=thresholds.period) - HISTORY),
            people=_people(tx) if whole else [],
            failures=_failures(tx) if whole else [],
            prices=list_prices(tx) if whole else [],
            price_models=model_routes.price_models(tx) if whole else {},
            published=copied_prices(tx) if whole else [],
            models={model.id: model for model in list_models(tx)} if whole else {},
            last_run=reconcile_runs.last_run(tx) if whole else None,
            unknown=unknown_fields.seen(tx) if whole else [],
            uncalled=_uncalled(tx) if whole else [],
            incidents=incidents.open_incidents(tx),
            refused=refused_fields.refused(tx) if whole else [],
            smaller=smaller_limits.smaller(tx) if whole else [],
            breaks=_breaks(tx, known_heads),
            holds=holds.open_holds(tx),
            repeated=repeated_credits(tx, orgs),
            calls=calls,
            doubted=doubts,
            served=served,
        )


def _orgs(tx: Transaction) -> dict[str, Organisation]:
    query = select(Organisation)
    if tx.actor.org_id is not None:
        query = query.where(Organisation.id == tx.actor.org_id)
    return {org.id: org for org in tx.session.scalars(query)}


def _keys(tx: Transaction) -> list[ApiKey]:
    found = list(tx.session.scalars(select(ApiKey).where(_own(tx, ApiKey.id))))
    shown = audit.names_shown(tx)
    for key in found:
        tx.session.expunge(key)  # what is read here is written nowhere
        key.created_by = shown(key.created_by)
    return found


def _own(tx: Transaction, key_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Return the condition that a row is of a key that the actor may see."""
    if tx.actor.org_id is None:
        return true()
    return key_id.in_(select(ApiKey.id).where(ApiKey.org_id == tx.actor.org_id))


def _plan_models(tx: Transaction) -> dict[str, frozenset[str]]:
    included: dict[str, set[str]] = {}
    for plan_id, model_id in tx.session.execute(select(PlanModel.plan_id, PlanModel.model_id)):
        included.setdefault(plan_id, set()).add(model_id)
    return {plan_id: frozenset(models) for plan_id, models in included.items()}


def _secrets(tx: Transaction) -> dict[str, Secret]:
    columns = (LiveSecret.key_id, LiveSecret.created_at, LiveSecret.first_in_url_at, LiveSecret.last_in_url_at)
    query = select(*columns).where(_own(tx, LiveSecret.key_id))
    return {row.key_id: Secret(*row[1:]) for row in tx.session.execute(query)}


def _months(tx: Transaction) -> dict[str, dict[str, KeyMonth]]:
    months: dict[str, dict[str, KeyMonth]] = {}
    query = select(KeyMonth).where(KeyMonth.month.in_(last_months(tx.now)), _own(tx, KeyMonth.key_id))
    for total in tx.session.scalars(query):
        months.setdefault(total.key_id, {})[total.month] = total
    return months


def _uses(tx: Transaction) -> tuple[dict[str, datetime], dict[str, datetime]]:
    """Return when each key was last used, and when it was last refused for its secret."""
    admitted = select(KeyMonth.key_id, func.max(KeyMonth.last_call_at)).where(_own(tx, KeyMonth.key_id))
    used: dict[str, datetime] = dict(tx.session.execute(admitted.group_by(KeyMonth.key_id)).all())
    unauthorized: dict[str, datetime] = {}
    for key_id, refusal, at in refusal_counts.last(tx):
        last = unauthorized if refusal == RefusalType.UNAUTHORIZED else used
        last[key_id] = max(last.get(key_id, at), at)
    return used, unauthorized


def _retired(tx: Transaction) -> list[RetiredSecret]:
    query = select(RetiredSecret).where(RetiredSecret.uses > 0, _own(tx, RetiredSecret.key_id))
    return list(tx.session.scalars(query.order_by(RetiredSecret.last_used_at.desc())))


def _acts(tx: Transaction, start: datetime) -> list[Act]:
    # What may not change unseen is compared with the acts that made it, however long ago that was.
    making = ("operator.add", "operator.accept_invitation", "operator.set_role", "price.set", "plan.add", "plan.update")
    query = select(AuditRow).where(or_(AuditRow.at >= start, AuditRow.action.in_(making)))
    if tx.actor.org_id is not None:
        query = query.where(AuditRow.chain == tx.actor.org_id)
    shown = audit.names_shown(tx)
    return [
        Act(
            row.chain,
            row.seq,
            row.at,
            shown(row.actor),
            row.action,
            row.subject,
            _facts(row.before),
            _facts(row.after),
            row.reason,
        )
        for row in tx.session.scalars(query.order_by(AuditRow.at, AuditRow.chain, AuditRow.seq))
    ]


def _facts(text: str | None) -> dict[str, Any]:
    """Return the facts of an audit row; of one that somebody made unreadable none: the chain's check finds it."""
    try:
        facts = json.loads(text or "{}")
    except ValueError:
        facts = {}
    return facts if isinstance(facts, dict) else {}


def _people(tx: Transaction) -> list[Person]:
    columns = (Operator.id, Operator.email, Operator.role, Operator.org_id, Operator.created_at)
    return [Person(*facts) for facts in tx.session.execute(select(*columns).order_by(Operator.email))]


def _uncalled(tx: Transaction) -> list[tuple[Upstream, str]]:
    return [(upstream, fault) for upstream in list_upstreams(tx) if (fault := upstream_fault(upstream))]


def _failures(tx: Transaction) -> list[Failures]:
    query = select(
        SignInFailure.subject, func.count(), func.min(SignInFailure.failed_at), func.max(SignInFailure.failed_at)
    )
    return [Failures(*row) for row in tx.session.execute(query.group_by(SignInFailure.subject))]


def _breaks(tx: Transaction, known_heads: dict[str, str] | None) -> list[Break]:
    heads = known_heads or {}
    if tx.actor.org_id is not None:
        heads = {chain: head for chain, head in heads.items() if chain == tx.actor.org_id}
    breaks = []
    for link in audit.verify(tx, heads):
        written = select(func.max(AuditRow.at)).where(AuditRow.chain == link.chain, AuditRow.seq <= link.seq)
        breaks.append(Break(link, tx.session.scalar(written) or tx.now))
    return breaks
