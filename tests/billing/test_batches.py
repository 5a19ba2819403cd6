"""A batch gives each job what the jobs one by one in the same order give: results, and what is stored.

Judged on books in memory, and by the billing stores of both stores.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from tests.account import MULTIPLIER, PART, dollars
from tests.conftest import OPENAI_SHEET, World, examples
from toolkit.admin import keys, organisations, secret_lookup, wallet
from toolkit.billing.batcher import Batcher
from toolkit.billing.call import Call, Ending
from toolkit.billing.funds import Afford
from toolkit.billing.hold_estimate import HoldBound
from toolkit.billing.rules import Abandon, Admit, Admitted, Refuse, Settle
from toolkit.billing.state import BatchState, Hold, Job, KeyState, LogRow, Month, RowsWanted, Wallet, judge, wanted_by
from toolkit.billing.stores import BillingStore, open_billing_store
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.policy import HoldPolicy, KeyFacts, KeyStatus, Outcome
from toolkit.core.pricing import MILLION
from toolkit.core.usage import Usage

pytestmark = pytest.mark.both_stores

MONTHS = (datetime(2026, 11, 30, 23, 59, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
LIMITS = (None, 30_000, 400)
POLICIES = (HoldPolicy.STRICT, HoldPolicy.EXPECTED, HoldPolicy.STRICT)
"""Limit and policy of each key; each has had the other policy before."""

# -- what is done, in words that hold for every store -----------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One job: about which of a few calls, and whether it was made under the policy that the key had before."""

    kind: str
    call: int
    old: bool
    amount: int
    each: int
    fixed: bool
    outcome: Outcome
    reason: RefusalType


STEPS = st.builds(
    Step,
    kind=st.sampled_from(
        ["settle", "admit", "admit", "settle", "admit", "refuse", "abandon", "fail", "stale", "afford"]
    ),
    call=st.integers(0, 5),
    old=st.booleans(),
    amount=st.sampled_from([100, 5_000, 399, 0, 1, 40_000]),
    each=st.sampled_from([0, 1, 4]),
    fixed=st.booleans(),
    outcome=st.sampled_from([Outcome.COMPLETED, Outcome.ABORTED]),
    reason=st.sampled_from([RefusalType.MODEL_NOT_FOUND, RefusalType.UNAUTHORIZED]),
)
BATCHES = st.tuples(st.lists(STEPS, max_size=6), st.lists(STEPS, min_size=2, max_size=8))
"""What has happened before, and what comes in one batch."""

FIRST = [Step("admit", n, False, 100, 0, True, Outcome.COMPLETED, RefusalType.UNAUTHORIZED) for n in range(4)]
"""Some calls are under way when an example begins."""


@dataclass(frozen=True)
class Failing:
    """A job that asks for what another one asks for, and fails."""

    like: Job[Any]

    def want(self, wanted: RowsWanted) -> None:
        """Ask for what that job asks for."""
        self.like.want(wanted)

    def judge(self, batch: BatchState) -> None:
        """Fail."""
        raise LookupError(f"made up, in the middle of {len(batch.holds)} holds")


@dataclass
class Side:
    """A billing store with an organisation and keys of its own."""

    name: str
    billing_store: BillingStore
    facts: Sequence[KeyFacts]
    catalog_version: int
    state: Callable[[], Any]
    numbers: Iterator[int] = field(default_factory=count)

    def job(self, step: Step) -> Job[Any]:
        """Return the job of a step; a call's number says which key's it is, and of which month."""
        facts = self.facts[step.call % len(LIMITS)]
        if step.kind == "stale" or (step.old and step.kind != "admit"):
            other = HoldPolicy.STRICT if facts.hold_policy is HoldPolicy.EXPECTED else HoldPolicy.EXPECTED
            facts = replace(facts, version=facts.version - 1, hold_policy=other)
        now = MONTHS[step.call // len(LIMITS)]
        call = Call(
            f"{self.name}_{step.call}",
            facts,
            now,
            "openai",
            "chat/completions",
            stream=False,
            model="gpt-test",
            upstream="test-openai",
            price_id="price_test",
            sheet=OPENAI_SHEET,
            multiplier=MULTIPLIER,
        )
        if step.kind == "afford":
            return Afford(facts, call.month, self.catalog_version)
        if step.kind in {"admit", "stale"}:
            bound = HoldBound(step.amount * PART, step.each * PART, 2_000, step.fixed)
            return Admit(call, bound, self.catalog_version, "gateway_test")
        priced = replace(call, sheet=dollars(step.amount), multiplier=MILLION)
        settle = Settle(priced, Ending(step.outcome, now, 200, Usage()))
        if step.kind == "settle":
            return settle
        if step.kind == "fail":
            return Failing(settle)
        if step.kind == "refuse":
            refused = replace(call, request_id=f"{self.name}_refused_{next(self.numbers)}")
            version = None if step.fixed else self.catalog_version
            return Refuse(refused, Refusal(step.reason, "made up"), now, version)
        empty = dict.fromkeys(Hold._fields, "") | {"request_id": call.request_id, "org_id": facts.org_id}
        return Abandon(Hold(**empty | {"key_id": facts.key_id, "month": call.month}), now, "test")  # type: ignore[arg-type]

    def told(self, result: Any) -> Any:
        """Return a result without what differs between sides."""
        if isinstance(result, Refusal):
            return result.type, result.details
        if isinstance(result, LookupError):
            return LookupError
        if isinstance(result, Exception) and not isinstance(result, ValueError | LookupError):
            # A request id that is taken is found by the store or by the batch.
            return ValueError if "hold" in str(result) or "UNIQUE" in str(result) else type(result)
        return type(result) if isinstance(result, Exception) else result


def done(side: Side, batches: Sequence[Sequence[Step]]) -> list[Any]:
    """Have each batch judged by a batcher, in one transaction; return what each job got."""

    async def run() -> list[Any]:
        batcher = Batcher(side.billing_store)
        batcher.start()
        results: list[Any] = []
        for batch in batches:
            results += await asyncio.gather(*[batcher.ask(side.job(step)) for step in batch], return_exceptions=True)
        await batcher.stop()
        return [side.told(result) for result in results]

    return asyncio.run(run())


def check(together: Side, alone: Side, before: list[Step], batch: list[Step]) -> None:
    """Do the same on both sides, on one of them each job by itself."""
    singly = [[step] for step in [*FIRST, *before]]
    assert done(together, [*singly, batch]) == done(alone, [*singly, *[[step] for step in batch]])
    assert together.state() == alone.state()


# -- books in memory --------------------------------------------------------------------------------------------------


@dataclass
class Drawer:
    """A billing store whose store is a few dictionaries."""

    wallets: dict[str, tuple[int, int]]
    keys: dict[str, KeyState]
    months: dict[tuple[str, str], tuple[int, int, int]] = field(default_factory=dict)
    recent: dict[tuple[str, str], int] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    rows: dict[str, LogRow] = field(default_factory=dict)
    refused: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """Judge jobs in turn, as `BillingStore` says."""
        wanted = wanted_by(jobs)
        holds = dict(self.holds)
        batch = BatchState(
            catalog_version=1,
            wallets={org: Wallet(*self.wallets[org], held_before=self.wallets[org][1]) for org in wanted.orgs},
            keys={key: self.keys[key] for key in wanted.keys},
            months={at: Month(*self.months[at][1:]) for at in wanted.months if at in self.months},
            recent={at: self.recent[at] for at in wanted.recent if at in self.recent},
            holds={name: holds.pop(name) for name in dict.fromkeys(wanted.holds) if name in holds},
            refused={at: self.refused[at] for at in wanted.refused if at in self.refused},
        )
        results = judge(jobs, batch)
        rows = {row.request_id: row for row in batch.new_rows}
        if batch.holds.keys() & holds.keys() or rows.keys() & self.rows.keys() or len(rows) < len(batch.new_rows):
            raise ValueError("a hold or a row is there already")
        self.holds = holds | batch.holds
        self.rows |= rows
        self.recent |= batch.new_recent
        for at, refused in batch.new_refused.items():
            self.refused[at] = self.refused.get(at, 0) + refused
        for org, held, settled in batch.wallet_changes():
            balance, before = self.wallets[org]
            self.wallets[org] = balance - settled, before + held
        for key, month, calls, spent, held, _ in batch.month_changes():
            past = self.months.get((key, month), (0, 0, 0))
            self.months[key, month] = past[0] + calls, past[1] + spent, past[2] + held
        return results

    def close(self) -> None:
        """Nothing is open."""


def in_memory(money: int) -> Side:
    """Return an organisation with keys in memory."""
    facts = [
        KeyFacts(f"key_{n}", "org", "plan", 2, KeyStatus.ACTIVE, False, frozenset(), limit, policy, None)
        for n, (limit, policy) in enumerate(zip(LIMITS, POLICIES, strict=True))
    ]
    drawer = Drawer(
        {"org": (money, 0)}, {one.key_id: KeyState(one.version, one.monthly_limit, suspended=False) for one in facts}
    )
    return Side("req", drawer, facts, 1, lambda: drawer)


@pytest.mark.only_store("sqlite")
@examples(60)
@given(money=st.sampled_from([100_000, 500]), batches=BATCHES)
def test_a_batch_is_its_jobs_one_by_one(money: int, batches: tuple[list[Step], list[Step]]) -> None:
    """On books in memory: results, holds, rows and totals are the same."""
    check(in_memory(money), in_memory(money), *batches)


# -- real billing stores -----------------------------------------------------------------------------------------------

_KEYS = "(SELECT id FROM api_key WHERE org_id = :org)"
_TABLES = [
    "credited, settled, held FROM organisation WHERE id = :org",
    f"key_id, month, calls, spent, held, last_call_at FROM key_month WHERE key_id IN {_KEYS}",
    f"key_id, model, cost FROM recent_cost WHERE key_id IN {_KEYS}",
    f"key_id, refusal, minute, refused FROM refusal_count WHERE key_id IN {_KEYS}",
    f"{', '.join(Hold._fields)} FROM hold WHERE org_id = :org",
    f"{', '.join(LogRow._fields)} FROM outbox WHERE org_id = :org",
]


def in_store(world: World, billing_store: BillingStore, name: str, money: int) -> Side:
    """Return an organisation with keys in a real store; each key has had another policy."""
    workspace = world.workspace
    facts: list[KeyFacts] = []
    with workspace.write() as tx:
        org = organisations.add(tx, name).id
        wallet.credit(tx, org, money, f"payment of {name}")
        for number, (limit, policy) in enumerate(zip(LIMITS, POLICIES, strict=True)):
            new = keys.create(
                tx,
                workspace.keyring,
                org=org,
                name=f"key {number}",
                plan=world.plan_id,
                monthly_limit=limit,
                hold_policy=policy,
            )
            digests = [digest.value for digest in workspace.keyring.digests(new.secret)]
            found = secret_lookup.find_live(tx, digests)
            assert found is not None
            facts.append(found)
        version = int(tx.session.scalar(text("SELECT version FROM catalog_version")) or 0)
    names = {org: "org"} | {one.key_id: f"key {number}" for number, one in enumerate(facts)}

    def plain(value: Any) -> Any:
        return names.get(value, value.removeprefix(name)) if isinstance(value, str) else value

    def state() -> list[str]:
        with workspace.read() as tx:
            found = [row for query in _TABLES for row in tx.session.execute(text(f"SELECT {query}"), {"org": org})]
        return sorted(str([plain(value) for value in row]) for row in found)

    return Side(name, billing_store, facts, version, state)


def test_a_tills_batch_is_its_jobs_one_by_one(world: World) -> None:
    """In a real store: two organisations are the same afterwards, of which one has had each job by itself."""
    numbers = count(1)
    with closing(open_billing_store(world.workspace.store)) as billing_store:

        @examples(10)
        @given(money=st.sampled_from([100_000, 500]), batches=BATCHES)
        def compare(money: int, batches: tuple[list[Step], list[Step]]) -> None:
            number = next(numbers)
            sides = [in_store(world, billing_store, f"{side}{number}", money) for side in ("batch", "alone")]
            check(sides[0], sides[1], *batches)

        compare()


# -- by name ----------------------------------------------------------------------------------------------------------


def test_a_strict_key_is_judged_as_strict_beside_a_settlement_of_its_time_as_expected(world: World) -> None:
    """The settlement brings the recent cost into the books; the admission holds all against the limit."""
    old = replace(FIRST[0], kind="settle", old=True, amount=1)
    new = replace(FIRST[3], amount=5_000)
    with closing(open_billing_store(world.workspace.store)) as billing_store:
        side = in_store(world, billing_store, "Mixed", 100_000)
        results = done(side, [FIRST[:1], [old, new]])
    assert results[-1] == Admitted(5_000, 2_000, fitted=False)
    assert any("'key 0', '2026-12', 0, 0, 5000" in row for row in side.state())
