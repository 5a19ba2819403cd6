"""What the audits judge: the key store as it stands, and what the ledger says of the last days.

`read` takes the key store in one snapshot and the ledger in three queries. The checks that judge it (`keys`,
`operators`, `prices`, `records`, `charges`) are pure; `findings` runs them all. `docs/audits.md` lists them.
"""

import json
import shlex
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute

from toolkit.admin import plans
from toolkit.admin.models import list_models
from toolkit.admin.prices import list_prices
from toolkit.admin.upstreams import list_upstreams, upstream_fault
from toolkit.admin.wallet import Payment, repeated_credits
from toolkit.checks import reconcile, request_log
from toolkit.checks.reconcile import Run
from toolkit.checks.request_log import Calls, Doubted
from toolkit.core.errors import RefusalType
from toolkit.core.policy import KeyStatus
from toolkit.forecast import anomalies
from toolkit.ledger.ledger import Ledger
from toolkit.store import audit, holds, refusal_counts, unknown_fields
from toolkit.store.audit import BrokenLink
from toolkit.store.holds import OpenHold
from toolkit.store.tables import (
    ApiKey,
    AuditRow,
    KeyMonth,
    LiveSecret,
    Model,
    Operator,
    Organisation,
    Plan,
    PlanModel,
    Price,
    RetiredSecret,
    SignInFailure,
    Upstream,
)
from toolkit.store.transaction import Transaction
from toolkit.store.unknown_fields import Seen

HISTORY = timedelta(days=90)
"""How long before the period an operator's acts are looked at, to know the usual hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From when on something is a finding.

    Args:
        period: days of acts, prices and calls that are looked back on.
        new: days for which a key may wait for its first use.
        unused: days without a call.
        rotation: days for which a secret may stay; `rotation_soon`: how many days before that it is due soon.
        scope: days in which the models in use are looked for; `scope_times`: models a key may call for each that it
            uses. Keys younger than the period are not judged.
        limit_times: times a usual month that a limit may be.
        limit_near: share of the limit from which on a key is near it.
        old_secret: days for which a use of a rotated or deleted secret counts.
        burst: secrets that one actor reveals within an hour.
        usual: acts before the period from which on an actor's usual hours are known.
        jump: share by which a price or multiplier may change without being more than a note.
        least_calls: calls below which no share is judged; `estimated`, `abandoned`: shares from which on they are.
        reconciled: days after which books should be reconciled again.
    """

    period: int = 30
    new: int = 7
    unused: int = 30
    rotation: int = 90
    rotation_soon: int = 14
    scope: int = 90
    scope_times: int = 3
    limit_times: int = 10
    limit_near: Decimal = Decimal("0.9")
    old_secret: int = 30
    burst: int = 5
    usual: int = 20
    jump: Decimal = Decimal("0.5")
    least_calls: int = 20
    estimated: Decimal = Decimal("0.05")
    abandoned: Decimal = Decimal("0.01")
    reconciled: int = 7


class Act(NamedTuple):
    """A row of the audit log; before and after as they were."""

    chain: str
    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    before: dict[str, Any]
    after: dict[str, Any]
    reason: str


class Person(NamedTuple):
    """An operator, without the password's hash."""

    id: str
    email: str
    role: str
    org_id: str | None
    created_at: datetime


class Secret(NamedTuple):
    """What is known of a key's present secret: when it was made, and when it came in a URL."""

    created_at: datetime
    first_in_url_at: datetime | None
    last_in_url_at: datetime | None


class Failures(NamedTuple):
    """Failed sign-ins of one subject of the throttle."""

    subject: str
    tries: int
    first_at: datetime
    last_at: datetime


class Break(NamedTuple):
    """A place where an audit chain does not hold, and when the last row up to it was written."""

    link: BrokenLink
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What an actor may see of the key store and of the ledger at one moment.

    Args:
        now: UTC.
        whole: whether the actor is of no single organisation; what belongs to the platform is empty otherwise.
        orgs, plans: by id; `plan_models` has what plans include.
        keys: deleted ones too, by organisation and name.
        secrets: of the keys that are not deleted.
        months: running totals by key and billing month, for the last three months.
        unusual: by key, what the days of these months that stand out cost beyond what is usual, nano-USD.
        last_used: when a key last made a call that was admitted, or refused for another reason than its secret.
        last_unauthorized: when a key's old or dead secret was last refused.
        retired: rotated and deleted secrets that were used since.
        acts: of the period and of `HISTORY` before it; those that add operators, plans and prices from the beginning.
        people, failures, prices, models, last_run, unknown: the platform's; models by id; the last are fields that
            nobody knows.
        uncalled: upstreams that the gateway never calls, and why; the platform's.
        breaks: where an audit chain does not hold.
        holds: money set aside for calls under way.
        repeated: payments whose reference was credited more than once though nobody said that it should be, each with
            all its credits, the oldest first.
        calls: the request log, summed up.
        doubted: calls of the period whose usage is doubted.
    """

    now: datetime
    whole: bool
    orgs: dict[str, Organisation]
    plans: dict[str, Plan]
    plan_models: dict[str, frozenset[str]]
    keys: list[ApiKey]
    secrets: dict[str, Secret]
    months: dict[str, dict[str, KeyMonth]]
    unusual: dict[str, dict[date, int]]
    last_used: dict[str, datetime]
    last_unauthorized: dict[str, datetime]
    retired: list[RetiredSecret]
    acts: list[Act]
    people: list[Person]
    failures: list[Failures]
    prices: list[Price]
    models: dict[str, Model]
    last_run: Run | None
    unknown: list[Seen]
    uncalled: list[tuple[Upstream, str]]
    breaks: list[Break]
    holds: list[OpenHold]
    repeated: list[list[Payment]]
    calls: list[Calls]
    doubted: list[Doubted]
    _named: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_named", Counter(key.name for key in self.keys))

    def key_label(self, key: ApiKey) -> str:
        """Return a key's name, marked if the key is deleted."""
        return f"{key.name} (deleted)" if key.status == KeyStatus.DELETED else key.name

    def key_argument(self, key: ApiKey) -> str:
        """Return what names the key on the command line: its name where only one key has it, else its id."""
        return shlex.quote(key.name) if self._named[key.name] == 1 and not key.name.startswith("-") else key.id

    def org_name(self, org_id: str | None) -> str | None:
        """Return an organisation's name."""
        return None if org_id is None else self.orgs[org_id].name if org_id in self.orgs else org_id

    def scope(self, key: ApiKey) -> frozenset[str]:
        """Return a key's model scope; empty is all models of its plan."""
        return frozenset(json.loads(key.scope))

    def is_live(self, key: ApiKey) -> bool:
        """Whether the key admits calls: active, not expired, its organisation not suspended."""
        expired = key.expires_at is not None and key.expires_at <= self.now
        return key.status == KeyStatus.ACTIVE and not expired and not self.orgs[key.org_id].suspended

    @property
    def live(self) -> list[ApiKey]:
        """The keys that admit calls."""
        return [key for key in self.keys if self.is_live(key)]

    def since(self, days: int) -> datetime:
        """Return the moment that lies so many days back."""
        return self.now - timedelta(days=days)


def read(ledger: Ledger, thresholds: Thresholds, known_heads: dict[str, str] | None, now: datetime | None) -> Snapshot:
    """Return what the actor of a ledger may see.

    Args:
        ledger: its key store is read in one snapshot; the calls in three queries of their own, just before.
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
    with ledger.store.read(ledger.actor, now) as tx:
        orgs, keys = _orgs(tx), _keys(tx)
        last_used, last_unauthorized = _uses(tx)
        return Snapshot(
            now=now,
            whole=whole,
            orgs=orgs,
            plans={plan.id: plan for plan in plans.list_all(tx)},
            plan_models=_plan_models(tx),
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
            models={model.id: model for model in list_models(tx)} if whole else {},
            last_run=reconcile.last_run(tx) if whole else None,
            unknown=unknown_fields.seen(tx) if whole else [],
            uncalled=_uncalled(tx) if whole else [],
            breaks=_breaks(tx, known_heads),
            holds=holds.open_holds(tx),
            repeated=repeated_credits(tx, orgs),
            calls=calls,
            doubted=doubts,
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


def last_months(now: datetime) -> list[str]:
    """Return this billing month and the two before it, the newest first."""
    numbers = (now.year * 12 + now.month - 1 - back for back in range(3))
    return [f"{number // 12:04}-{number % 12 + 1:02}" for number in numbers]


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
    making = ("operator.add", "operator.set_role", "price.set", "plan.add", "plan.update")
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
