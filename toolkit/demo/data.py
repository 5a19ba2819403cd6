"""Demo data: 90 believable days of three organisations, from a fixed seed.

Everything is written by the functions that write real usage (`keys`, `wallet`, `billing`), in batched transactions
with an injected clock, so every invariant holds for it: daily and weekly rhythm, growth, a runaway key, an unused
key, a key near its limit, a rotated key whose old secret is still used, errors and refusals.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby

from sqlalchemy import select

from toolkit.admin import catalog, keys, organisations, plans, secret_lookup, wallet
from toolkit.admin.key_summaries import summaries
from toolkit.admin.models import add_model
from toolkit.admin.upstreams import add_upstream, list_upstreams, update_upstream
from toolkit.billing.hold_estimate import hold_bound
from toolkit.billing.rules import Admit, Call, Ending, Refuse, Settle
from toolkit.billing.state import BatchState, RowsWanted
from toolkit.billing.stores import BillingStore, open_billing_store
from toolkit.core.catalog import Catalog
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Conflict, Refusal, RefusalType
from toolkit.core.ids import new_request_id
from toolkit.core.moments import micros
from toolkit.core.money import NANO
from toolkit.core.policy import KeyFacts, KeyStatus, Outcome, Role, Unauthorized
from toolkit.core.usage import Usage, UsageSource
from toolkit.demo.cast import CREDITS, DAYS, KEYS, MODELS, NEAR_LIMIT, ROTATED, DemoKey
from toolkit.demo.cast import PLANS as DEMO_PLANS
from toolkit.demo.traffic import DemoCall, draw
from toolkit.dialects.shape import Shape
from toolkit.store import audit
from toolkit.store.actor import SYSTEM, Actor
from toolkit.store.locks import lock_catalog
from toolkit.store.tables import ApiKey, AuditRow, LiveSecret, Organisation, RetiredSecret
from toolkit.store.tally import Counted
from toolkit.store.transaction import Transaction
from toolkit.workspace import Workspace

CALLS = 45_000

CREDENTIAL = "DEMO_UPSTREAM_API_KEY"
"""The environment variable that demo upstreams take their credential from; any value will do."""

BATCH = 2_000
"""Calls of one transaction."""

OLD_SECRET_USES = 37
"""How often somebody calls with the secret that was rotated away, every third hour up to now."""

_INSTANCE = "gateway_demo"
_BASES = {Dialect.OPENAI: "openai/v1", Dialect.ANTHROPIC: "anthropic", Dialect.GEMINI: "gemini"}
_PLATFORM = Actor("maria@keydesk.local", Role.PLATFORM_ADMIN)
_ENDPOINTS = {Dialect.OPENAI: "chat/completions", Dialect.ANTHROPIC: "messages", Dialect.GEMINI: "generateContent"}
_LOADED = "demo.load"


def is_loaded(workspace: Workspace) -> bool:
    """Whether the demo data is there, to its end."""
    with workspace.read() as tx:
        return tx.session.scalar(select(AuditRow.seq).where(AuditRow.action == _LOADED).limit(1)) is not None


def load(workspace: Workspace, progress: Callable[[int, int], None] | None = None, *, calls: int = CALLS) -> int:
    """Load the demo data, or the rest of it if an earlier load was cut short; return how many calls it has.

    Args:
        workspace: opened as a platform admin; its settings say where the demo upstream listens.
        progress: called with calls done and calls in all.
        calls: about how many to make.

    Raises:
        Conflict: the demo data is loaded already, or organisations of the same names are there.
    """
    if is_loaded(workspace):
        raise Conflict("The demo data is loaded already.")
    with workspace.read() as tx:
        # An organisation of the same name that somebody else made is no load that was cut short.
        ours = (Organisation.name == KEYS[0].org, Organisation.created_by == _PLATFORM.name)
        first = tx.session.scalar(select(Organisation.created_at).where(*ours))
        now = tx.now
    start = first or (now - timedelta(days=DAYS - 1)).replace(hour=0, minute=0, second=0, microsecond=0)
    if first is None:
        _set_stage(workspace, start)
    drawn = [call for call in draw(start, calls) if call.at < now]
    player = _Player(workspace, start, now)
    player.play(drawn, progress or (lambda _done, _all: None))
    player.use_old_secret()
    calls = len(drawn) + OLD_SECRET_USES
    _end(workspace, now, calls)
    return calls


def follow_port(workspace: Workspace) -> None:
    """Point the demo upstreams to where the settings now say that the demo upstream listens, with its credential.

    One that an operator has pointed elsewhere is left alone.
    """
    with workspace.store.write(SYSTEM) as tx:
        lock_catalog(tx)
        found = {upstream.name: upstream.base_url for upstream in list_upstreams(tx)}
        for dialect, url in _base_urls(workspace).items():
            name = f"demo-{dialect}"
            if re.fullmatch(rf"http://127\.0\.0\.1:\d+/{_BASES[dialect]}", found.get(name, "")):
                update_upstream(tx, name, base_url=url, credential_env=CREDENTIAL)


def _base_urls(workspace: Workspace) -> dict[Dialect, str]:
    return {dialect: f"http://127.0.0.1:{workspace.settings.demo_port}/{base}" for dialect, base in _BASES.items()}


def _set_stage(workspace: Workspace, start: datetime) -> None:
    """Add models, plans, organisations and their first money, all before the first call."""
    with workspace.store.write(_PLATFORM, start) as tx:
        for dialect, url in _base_urls(workspace).items():
            add_upstream(tx, f"demo-{dialect}", dialect, url, CREDENTIAL)
        for model in MODELS:
            add_model(
                tx,
                model.id,
                f"demo-{model.dialect}",
                context_window=model.context_window,
                max_output=model.max_output,
            )
        for name, (multiplier, models) in DEMO_PLANS.items():
            plans.add(tx, name, multiplier, models)
        for org in CREDITS:
            organisations.add(tx, org)


class _Player:
    """Lets the drawn calls and the operators' acts happen in order of time."""

    def __init__(self, workspace: Workspace, start: datetime, now: datetime) -> None:
        self._workspace = workspace
        self._start = start
        self._now = now
        self._catalog = Catalog(0, {}, {})
        self._facts: dict[tuple[str, str], KeyFacts] = {}

    def play(self, calls: list[DemoCall], progress: Callable[[int, int], None]) -> None:
        acts = self._acts()
        with closing(open_billing_store(self._workspace.store)) as billing_store:
            played = _played_until(self._workspace)
            done = sum(call.at <= played for call in calls) if played else 0
            for day, of_day in groupby(calls, key=lambda call: (call.at - self._start).days):
                while acts and acts[0][0] <= day:
                    acts.pop(0)[1](self._start + timedelta(days=day))
                    self._facts.clear()
                batch = [call for call in of_day if played is None or call.at > played]
                for first in range(0, len(batch), BATCH):
                    self._play_batch(billing_store, batch[first : first + BATCH])
                    done += len(batch[first : first + BATCH])
                    progress(done, len(calls))

    def _acts(self) -> list[tuple[int, Callable[[datetime], None]]]:
        """Return what operators do, by day; each act is harmless when it is done again."""
        acts: list[tuple[int, Callable[[datetime], None]]] = []
        for key in KEYS:
            acts.append((key.since, partial(self._create, key)))
            if key.until < DAYS:
                acts.append((key.until, partial(self._delete, key)))
        acts += [(day, partial(self._pay_in, day)) for day in (0, 30, 60)]
        acts.append((DAYS // 2, self._rotate))
        return sorted(acts, key=lambda act: act[0])

    def _create(self, key: DemoKey, at: datetime) -> None:
        with self._workspace.store.write(_PLATFORM, at) as tx:
            if _find(tx, key) is None:
                keys.create(
                    tx,
                    self._workspace.keyring,
                    org=key.org,
                    name=key.name,
                    plan=key.plan,
                    monthly_limit=None if key.limit is None else key.limit * NANO,
                    hold_policy=key.policy,
                )

    def _delete(self, key: DemoKey, at: datetime) -> None:
        with _acting_for(self._workspace, key.org, at) as tx:
            found = _find(tx, key)
            if found is not None and found.status != KeyStatus.DELETED:
                keys.delete(tx, found.id, confirm=key.name, reason="The prototype was replaced.")

    def _rotate(self, at: datetime) -> None:
        with _acting_for(self._workspace, ROTATED.org, at) as tx:
            found = _find(tx, ROTATED)
            if found is not None and found.rotated_at is None:
                keys.rotate(
                    tx, self._workspace.keyring, found.id, confirm=found.name, reason="Seen in a shared notebook."
                )

    def _pay_in(self, day: int, at: datetime) -> None:
        for org, dollars in CREDITS.items():
            with self._workspace.store.write(_PLATFORM, at) as tx:
                reference = f"invoice {org.split()[0].upper()} {at:%Y-%m}-{day // 30 + 1}"
                if not any(entry.reference == reference for entry in wallet.entries(tx, org)):
                    wallet.credit(tx, org, dollars * NANO, reference)

    def _play_batch(self, billing_store: BillingStore, batch: list[DemoCall]) -> None:
        if not self._facts:
            self._read_facts()
        for result in billing_store.run([self._job(call) for call in batch]):
            if isinstance(result, BaseException):
                raise result

    def _read_facts(self) -> None:
        with self._workspace.store.read(_PLATFORM) as tx:
            self._catalog = catalog.load(tx)
            digests = tx.session.execute(
                select(Organisation.name, ApiKey.name, LiveSecret.digest)
                .join(ApiKey, ApiKey.org_id == Organisation.id)
                .join(LiveSecret, LiveSecret.key_id == ApiKey.id)
            ).all()
            found = {(org, name): secret_lookup.find_live(tx, [digest]) for org, name, digest in digests}
        self._facts = {key: facts for key, facts in found.items() if facts is not None}

    def _job(self, demo: DemoCall) -> "_WholeCall":
        facts = self._facts[demo.key.org, demo.key.name]
        plan = self._catalog.plans[facts.plan_id]
        model = self._catalog.models["gpt-5" if demo.mistaken else demo.model.id]
        dated = model.price(demo.at)
        assert dated is not None  # noqa: S101 - prices begin before the first call
        call = Call(
            request_id=new_request_id(micros(demo.at) // 1000),
            key=facts,
            received_at=demo.at,
            dialect=model.dialect,
            endpoint=_endpoint(demo),
            stream=demo.stream,
            model=model.id,
            upstream=model.upstream,
            price_id=dated.id,
            sheet=dated.sheet,
            multiplier=plan.multiplier,
            tags=demo.tags,
        )
        shape = Shape(
            endpoint=call.endpoint,
            model=model.id,
            stream=demo.stream,
            free=False,
            text_bytes=demo.input_tokens * 4,
            messages=4,
            tools=0,
            media={},
            whole_context=False,
            choices=1,
            output_bound=4 * demo.model.output_tokens + demo.output_tokens,
            output=demo.model.output_tokens > 0,
            usage_asked=True,
        )
        bound = hold_bound(
            model.dialect,
            shape,
            dated.sheet,
            plan.multiplier,
            context_window=model.context_window,
            default_output=model.default_output,
            model=model.upstream_model,
        )
        version = self._catalog.version
        try:
            facts.check_model(model.id, plan.models)
        except Refusal as refusal:
            return _WholeCall(None, Settle(call, _ending(demo)), version, refusal)
        return _WholeCall(Admit(call, bound, version, _INSTANCE), Settle(call, _ending(demo)), version)

    def use_old_secret(self) -> None:
        """Somebody still calls with the secret that was rotated away, and is refused as a gateway does it."""
        with self._workspace.store.read(_PLATFORM) as tx:
            found = tx.session.execute(
                select(RetiredSecret.digest, RetiredSecret.uses)
                .join(ApiKey, ApiKey.id == RetiredSecret.key_id)
                .join(Organisation, Organisation.id == ApiKey.org_id)
                .where(Organisation.name == ROTATED.org, ApiKey.name == ROTATED.name)
            ).one()
            facts = secret_lookup.find_retired(tx, [found.digest])
        assert facts is not None  # noqa: S101 - it was rotated half-way
        with closing(open_billing_store(self._workspace.store)) as billing_store:
            for number in range(OLD_SECRET_USES - found.uses, 0, -1):  # an earlier load may have made some
                at = self._now - timedelta(hours=3 * number)
                call = Call(
                    new_request_id(micros(at) // 1000), facts, at, Dialect.OPENAI, "chat/completions", stream=False
                )
                (failed,) = billing_store.run([Refuse(call, Unauthorized(facts), at, None)])
                if isinstance(failed, BaseException):
                    raise failed
                with self._workspace.store.write(SYSTEM) as tx:
                    secret_lookup.note_retired(tx, {found.digest: Counted(1, at)})


@dataclass(frozen=True, slots=True)
class _WholeCall:
    """A call that comes and goes at once: admitted or refused, and settled, in one transaction."""

    admit: Admit | None
    settle: Settle
    catalog_version: int
    refusal: Refusal | None = None

    def want(self, wanted: RowsWanted) -> None:
        for job in (self.admit, self._refuse(Refusal(RefusalType.API_KEY_QUOTA_EXCEEDED, "")), self.settle):
            if job is not None:
                job.want(wanted)

    def judge(self, batch: BatchState) -> None:
        try:
            if self.refusal is not None or self.admit is None:
                raise self.refusal or AssertionError("a call is admitted or refused")
            self.admit.judge(batch)
        except Refusal as refusal:
            self._refuse(refusal).judge(batch)
        else:
            self.settle.judge(batch)

    def _refuse(self, refusal: Refusal) -> Refuse:
        return Refuse(self.settle.call, refusal, self.settle.call.received_at, self.catalog_version)


def _ending(demo: DemoCall) -> Ending:
    milliseconds = round(demo.seconds * 1000)
    ended = demo.at + timedelta(milliseconds=milliseconds)
    if demo.outcome is Outcome.UPSTREAM_ERROR:
        detail = f"upstream demo-{demo.model.dialect} answered 529: overloaded"
        return Ending(demo.outcome, ended, 502, None, RefusalType.UPSTREAM_ERROR, None, None, milliseconds, detail)
    aborted = demo.outcome is Outcome.ABORTED
    usage = Usage(
        input_tokens=demo.input_tokens,
        cached_input_tokens=demo.cached_tokens,
        cache_write_5m_tokens=demo.cache_write_tokens,
        output_tokens=demo.output_tokens,
        reasoning_tokens=demo.reasoning_tokens,
        source=UsageSource.ESTIMATED if aborted else UsageSource.REPORTED,
    )
    return Ending(
        outcome=demo.outcome,
        ended_at=ended,
        status=499 if aborted else 200,
        usage=usage,
        response_id=f"demo-{micros(demo.at):x}",
        first_byte_ms=min(milliseconds, 180 + demo.input_tokens // 100),
        duration_ms=milliseconds,
        error="the caller left" if aborted else None,
    )


def _endpoint(demo: DemoCall) -> str:
    if not demo.model.output_tokens:
        return "embeddings"
    if demo.model.dialect is Dialect.GEMINI and demo.stream:
        return "streamGenerateContent"
    return _ENDPOINTS[demo.model.dialect]


def _find(tx: Transaction, key: DemoKey) -> ApiKey | None:
    org = organisations.find(tx, key.org)
    return tx.session.scalar(select(ApiKey).where(ApiKey.org_id == org.id, ApiKey.name == key.name))


@contextmanager
def _acting_for(workspace: Workspace, org: str, at: datetime) -> Iterator[Transaction]:
    """Open a transaction in the name of an organisation's own admin."""
    with workspace.store.read(_PLATFORM) as tx:
        org_id = organisations.find(tx, org).id
    name = f"admin@{org.lower().replace(' ', '-')}.example"
    with workspace.store.write(Actor(name, Role.ORG_ADMIN, org_id), at) as tx:
        yield tx


def _played_until(workspace: Workspace) -> datetime | None:
    """Return the admission of the last call that an earlier load wrote, or None."""
    with workspace.read() as tx:
        made = select(ApiKey.id).where(ApiKey.created_by == _PLATFORM.name)  # their secrets are known to nobody
        ids = list(tx.session.scalars(made))
    last = workspace.ledger.sql(
        "SELECT max(admitted_at) FROM usage WHERE key_id IN (SELECT unnest(?::VARCHAR[]))", [ids]
    )
    played: datetime | None = last.column(0)[0].as_py()
    return played


def _end(workspace: Workspace, now: datetime, calls: int) -> None:
    """Set the limit that one key is near, and say that all is loaded."""
    with _acting_for(workspace, NEAR_LIMIT.org, now) as tx:
        summary = next(s for s in summaries(tx, org=NEAR_LIMIT.org) if s.key.name == NEAR_LIMIT.name)
        near = max(-(-summary.spent * 100 // (94 * NANO)), 1) * NANO
        keys.update(tx, summary.key.id, monthly_limit=near, reason="Budget for the rest of the quarter.")
    with workspace.store.write(_PLATFORM, now) as tx:
        audit.record(tx, _LOADED, "demo", after={"calls": calls})
