"""Billing against a simple model of it: whatever happens in whatever order, and whatever fails, the books are right.

The model is a few dictionaries. Batches of jobs go through a real billing store, now and then with a fault between
two of its statements; after each step every total and every row of the store must be the model's.
"""

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import text

from tests.account import PART, Account, dollars, open_account
from tests.conftest import ADMIN, World, examples
from tests.faults import Fault, settle_down, shake
from toolkit.admin import keys, organisations, wallet
from toolkit.billing import leases
from toolkit.billing.call import Call, Ending
from toolkit.billing.hold_estimate import SMALLEST_FITTED_BOUND, HoldBound
from toolkit.billing.rules import REFUSAL_ROWS_PER_MINUTE, Abandon, Admitted, Receipt, Refuse, Settle
from toolkit.billing.state import Hold, Stale
from toolkit.billing.stores import BillingStore, open_billing_store
from toolkit.checks import reconcile
from toolkit.core.errors import Refusal, RefusalType, Unavailable
from toolkit.core.moments import micros
from toolkit.core.period import billing_month
from toolkit.core.policy import HoldPolicy, KeyFacts, Outcome
from toolkit.core.pricing import MILLION
from toolkit.core.usage import Usage
from toolkit.store.actor import SYSTEM

pytestmark = pytest.mark.any_store

EXAMPLES, STEPS = 8, 30

POLICIES = {"careful": HoldPolicy.STRICT, "hopeful": HoldPolicy.EXPECTED}
KEYS = st.sampled_from(list(POLICIES))
AMOUNTS = st.one_of(st.integers(0, 30), st.integers(0, 20_000), st.sampled_from([0, 1, 5_000]))
LIMITS = st.one_of(st.none(), AMOUNTS, st.integers(3_000, 20_000))
ENDINGS = st.sampled_from([Outcome.COMPLETED, Outcome.COMPLETED, Outcome.UPSTREAM_ERROR, Outcome.ABORTED])


@dataclass(frozen=True)
class Question:
    """May this call be made?"""

    key: str
    base: int
    each: int
    bound: int
    fixed: bool
    mortal: bool
    old_facts: bool


@dataclass(frozen=True)
class End:
    """A call ends at `share` percent of its hold; `which` picks it among those open, or of all there were."""

    which: int
    share: int
    outcome: Outcome
    stray: bool


@dataclass(frozen=True)
class WriteOff:
    """A sweep has found this hold."""

    which: int
    stray: bool


@dataclass(frozen=True)
class Reject:
    """A call is refused for what its body says."""

    key: str
    reason: RefusalType


QUESTIONS = st.builds(
    Question,
    key=KEYS,
    base=AMOUNTS,
    each=st.sampled_from([0, 1, 3]),
    bound=st.sampled_from([1, 900, 1024, 4000]),
    fixed=st.booleans(),
    mortal=st.booleans(),
    old_facts=st.sampled_from([False, False, False, True]),
)
STRAY = st.sampled_from([False, False, False, True])
ENDS = st.builds(End, which=st.integers(0, 50), share=st.integers(0, 130), outcome=ENDINGS, stray=STRAY)
WRITE_OFFS = st.builds(WriteOff, which=st.integers(0, 50), stray=STRAY)
REJECTS = st.builds(Reject, key=KEYS, reason=st.sampled_from([RefusalType.MODEL_NOT_FOUND, RefusalType.WRONG_DIALECT]))
BATCHES = st.lists(st.one_of(QUESTIONS, QUESTIONS, ENDS, ENDS, WRITE_OFFS, REJECTS), min_size=1, max_size=6)
FAULTS = st.one_of(st.none(), st.builds(Fault, step=st.integers(0, 40), cut=st.booleans()))


@dataclass(frozen=True)
class Held:
    """A hold, as the model knows it."""

    key: str
    month: str
    amount: int
    limit_amount: int


@dataclass
class Model:
    """What the books must say."""

    credited: int
    limits: dict[str, int | None]
    holds: dict[str, Held] = field(default_factory=dict)
    log: dict[str, tuple[str, int, int, int]] = field(default_factory=dict)  # outcome, cost, held, overrun
    spent: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    calls: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    recent: dict[str, int] = field(default_factory=dict)
    refused: Counter[tuple[str, str, int]] = field(default_factory=Counter)

    def held(self, key: str, month: str) -> int:
        """What is held against a key's limit in a month."""
        return sum(one.limit_amount for one in self.holds.values() if (one.key, one.month) == (key, month))

    def admit(self, call_id: str, asked: Question, month: str) -> Admitted | RefusalType:
        """Place a hold or say why not."""
        full = asked.base + asked.each * asked.bound
        room = self.credited - sum(self.spent.values()) - sum(one.amount for one in self.holds.values())
        limit, used = self.limits[asked.key], self.spent[asked.key, month] + self.held(asked.key, month)
        left = room if limit is None else limit - used

        def fits(space: int) -> int | None:
            """The largest bound to admit with that costs no more than `space`."""
            if full <= space:
                return asked.bound
            if asked.fixed or not asked.each or space < asked.base:
                return None
            smaller = (space - asked.base) // asked.each
            return smaller if smaller >= SMALLEST_FITTED_BOUND else None

        granted: int | None = asked.bound
        likely: int | None = None
        if full and asked.key == "hopeful" and asked.key in self.recent:
            likely = min(full, max(self.recent[asked.key], 1))
            if limit is not None and likely > left:
                return RefusalType.API_KEY_QUOTA_EXCEEDED
            granted = fits(room)
        elif full:
            if limit is not None and fits(left) is None:
                return RefusalType.API_KEY_QUOTA_EXCEEDED
            granted = fits(min(room, left))
        if granted is None:
            return RefusalType.BILLING_SHORTFALL
        amount = asked.base + asked.each * granted
        self.holds[call_id] = Held(asked.key, month, amount, amount if likely is None else min(amount, likely))
        if amount:
            assert room - amount >= 0
            assert limit is None or asked.key == "hopeful" or used + amount <= limit
        return Admitted(amount, granted, fitted=granted < asked.bound)

    def settle(self, call_id: str, cost: int, outcome: Outcome) -> Receipt | None:
        """Charge a call, once."""
        one = self.holds.pop(call_id, None)
        if one is None:
            return None
        overrun = max(cost - one.amount, 0)
        self.spent[one.key, one.month] += cost
        self.calls[one.key, one.month] += 1
        self.log[call_id] = (outcome, cost, one.amount, overrun)
        if one.key == "hopeful" and outcome is Outcome.COMPLETED:
            past = self.recent.get(one.key)
            self.recent[one.key] = cost if past is None else (past * 7 + cost) // 8
        return Receipt(cost, overrun)

    def write_off(self, call_id: str) -> bool:
        """Release a hold, once."""
        one = self.holds.pop(call_id, None)
        if one is None:
            return False
        self.calls[one.key, one.month] += 1
        self.log[call_id] = (Outcome.ABANDONED, 0, one.amount, 0)
        return True

    def refuse(self, call_id: str, key: str, reason: str, minute: int) -> bool:
        """Log a refusal, up to sixty a minute."""
        self.refused[key, reason, minute] += 1
        is_row = self.refused[key, reason, minute] <= REFUSAL_ROWS_PER_MINUTE
        if is_row:
            self.log[call_id] = (Outcome.REFUSED, 0, 0, 0)
        return is_row

    def books(self) -> dict[str, Any]:
        """All that the store must say."""
        months = {*self.spent, *self.calls, *((one.key, one.month) for one in self.holds.values())}
        totals = {at: (self.calls[at], self.spent[at], self.held(*at)) for at in months}
        return {
            "org": (self.credited, sum(self.spent.values()), sum(one.amount for one in self.holds.values())),
            "months": {at: total for at, total in totals.items() if any(total)},
            "holds": {name: (one.key, one.month, one.amount, one.limit_amount) for name, one in self.holds.items()},
            "log": self.log,
            "recent": self.recent,
            "refused": dict(self.refused),
        }


@dataclass(frozen=True)
class Asked:
    """A job, and what the model says of it; `call_id` is of the call that it is about."""

    call_id: str
    job: Any
    expect: Callable[[Model], Any]


class Events(RuleBasedStateMachine):
    """Two keys of one organisation, one strict, one `expected`; a gateway that lives and one that is dead."""

    def __init__(self, world: World, billing_store: BillingStore, number: int) -> None:
        super().__init__()
        self.world = world
        self.workspace = world.workspace
        self.billing_store = billing_store
        self.number = number

    @initialize(money=st.integers(1, 40_000), limits=st.tuples(LIMITS, LIMITS))
    def open_books(self, money: int, limits: tuple[int | None, int | None]) -> None:
        """Start with some money, perhaps limits, and a clock in mid-November."""
        with self.workspace.write() as tx:
            self.org_id = organisations.add(tx, f"Org {self.number}").id
            wallet.credit(tx, self.org_id, money, f"first payment of {self.number}")
            leases.renew(tx, "lives", timedelta(days=365))
        world = replace(self.world, org_id=self.org_id)
        self.model = Model(money, dict(zip(POLICIES, limits, strict=True)))
        self.accounts: dict[str, Account] = {
            name: open_account(
                world, self.billing_store, name=name, hold_policy=policy, monthly_limit=self.model.limits[name]
            )
            for name, policy in POLICIES.items()
        }
        self.names = {account.key_id: name for name, account in self.accounts.items()}
        self.facts: dict[str, list[KeyFacts]] = {name: [one.facts()] for name, one in self.accounts.items()}
        self.version = self.accounts["careful"].catalog_version
        self.now = datetime(2026, 11, 15, tzinfo=UTC)
        self.entries = 0
        self.known: dict[str, Call] = {}
        self.earlier: list[str] = []
        self.mortal: set[str] = set()

    # -- batches ------------------------------------------------------------------------------------------------

    def call(self, key: str, *, old_facts: bool = False, cost: int = 0) -> Call:
        """Return a new call."""
        facts = self.facts[key][0 if old_facts else -1]
        call = self.accounts[key].call(received_at=self.now, key=facts, sheet=dollars(cost), multiplier=MILLION)
        self.known[call.request_id] = call
        return call

    def pick(self, which: int, *, stray: bool) -> str:
        """Pick a call: an open one, or any that was asked about before this batch; "" if there is none."""
        names = self.earlier if stray else list(self.model.holds)
        return names[which % len(names)] if names else ""

    def ask_admission(self, asked: Question) -> Asked:
        """Ask for a hold."""
        call = self.call(asked.key, old_facts=asked.old_facts)
        stale = call.key.version != self.facts[asked.key][-1].version
        if asked.mortal:
            self.mortal.add(call.request_id)
        bound = HoldBound(asked.base * PART, asked.each * PART, asked.bound, asked.fixed)
        job = self.accounts[asked.key].asked(call, bound, "dies" if asked.mortal else "lives")
        month = billing_month(self.now)
        return Asked(call.request_id, job, lambda model: Stale if stale else model.admit(call.request_id, asked, month))

    def ask_settlement(self, asked: End) -> Iterator[Asked]:
        """Settle a call, now and then one that was ended already."""
        if call_id := self.pick(asked.which, stray=asked.stray):
            one = self.model.holds.get(call_id)
            cost = (one.amount if one else 100) * asked.share // 100
            call = replace(self.known[call_id], sheet=dollars(cost))
            ending = Ending(asked.outcome, self.now, 200, Usage())
            yield Asked(call_id, Settle(call, ending), lambda model: model.settle(call_id, cost, asked.outcome))

    def ask_write_off(self, asked: WriteOff) -> Iterator[Asked]:
        """Write a call off, now and then one that was ended already."""
        if call_id := self.pick(asked.which, stray=asked.stray):
            call = self.known[call_id]
            empty = dict.fromkeys(Hold._fields, "") | {"request_id": call_id, "org_id": self.org_id}
            empty |= {"key_id": call.key.key_id, "month": billing_month(call.received_at)}
            job = Abandon(Hold(**empty), self.now, "test")  # type: ignore[arg-type]  # only its names are read
            yield Asked(call_id, job, lambda model: model.write_off(call_id))

    def ask_refusal(self, asked: Reject) -> Asked:
        """Log a refusal."""
        call, minute = self.call(asked.key), micros(self.now) // 60_000_000
        job = Refuse(call, Refusal(asked.reason, "made up"), self.now, None)
        return Asked(call.request_id, job, lambda model: model.refuse(call.request_id, asked.key, asked.reason, minute))

    @rule(batches=st.lists(st.tuples(BATCHES, FAULTS), min_size=1, max_size=4))
    def bill(self, batches: list[tuple[list[Question | End | WriteOff | Reject], Fault | None]]) -> None:
        """Calls come and go."""
        for batch, fault in batches:
            self.run_batch(batch, fault)
            assert self.books() == self.model.books()

    def run_batch(self, batch: list[Question | End | WriteOff | Reject], fault: Fault | None) -> None:
        """Calls come and go in one transaction, perhaps with a fault; the verdicts are the model's."""
        self.now += timedelta(seconds=1)
        self.earlier = list(self.known)
        asked: list[Asked] = []
        for one in batch:
            if isinstance(one, Question):
                asked.append(self.ask_admission(one))
            elif isinstance(one, End):
                asked += self.ask_settlement(one)
            elif isinstance(one, WriteOff):
                asked += self.ask_write_off(one)
            else:
                asked.append(self.ask_refusal(one))
        after = copy.deepcopy(self.model)
        expected = [one.expect(after) for one in asked]
        shaky = shake(self.workspace.store, self.billing_store, fault)
        try:
            results = self.billing_store.run([one.job for one in asked])
        except Unavailable:
            assert shaky.fired
            self.recover(asked, after, commit_sent=shaky.commit_sent)
        else:
            assert not shaky.fired
            assert [plain(result) for result in results] == expected
            self.model = after

    def recover(self, asked: list[Asked], after: Model, *, commit_sent: bool) -> None:
        """Go on as a gateway does that does not know whether its batch was committed."""
        settle_down(self.workspace, self.org_id)
        truth = self.books()
        if truth == after.books():
            assert commit_sent or truth == self.model.books()
            forgotten = after.holds.keys() - self.model.holds.keys()
            self.model = after
        else:
            assert truth == self.model.books(), "part of a batch was kept"
            forgotten = set()
        for one in asked:
            if isinstance(one.job, Settle):  # tried again until the store says yes: charged once all the same
                assert self.billing_store.run([one.job]) == [one.expect(self.model)]
        # Nobody was told that these calls may be made: the next renewal of the lease finds their holds.
        with self.workspace.read() as tx:
            found = [*leases.held_by(tx, "lives"), *leases.held_by(tx, "dies")]
        holds = [hold for hold in found if hold.request_id in forgotten]
        assert leases.abandon(self.workspace.store, holds, leases.FORGOTTEN) == len(forgotten)
        assert all(self.model.write_off(call_id) for call_id in forgotten)

    # -- other events -------------------------------------------------------------------------------------------

    @rule()
    def sweep(self) -> None:
        """Somebody sweeps the holds of the dead gateway."""
        gone = [call_id for call_id in self.model.holds if call_id in self.mortal]
        assert leases.sweep(self.workspace.store) == len(gone)
        assert all(self.model.write_off(call_id) for call_id in gone)

    @rule(key=KEYS, limit=LIMITS)
    def change_limit(self, key: str, limit: int | None) -> None:
        """An operator changes a limit."""
        with self.workspace.store.write(ADMIN, self.now) as tx:
            keys.update(tx, self.accounts[key].key_id, monthly_limit=limit)
        self.model.limits[key] = limit
        self.facts[key].append(self.accounts[key].facts())

    @rule(amount=st.integers(1, 30_000))
    def credit(self, amount: int) -> None:
        """Money comes in."""
        self.entries += 1
        with self.workspace.store.write(ADMIN, self.now) as tx:
            wallet.credit(tx, self.org_id, amount, f"payment {self.entries} of {self.number}")
        self.model.credited += amount

    @rule(amount=st.integers(1, 10_000))
    def take_out(self, amount: int) -> None:
        """A correction takes money out, perhaps more than is left."""
        self.entries += 1
        with self.workspace.store.write(ADMIN, self.now) as tx:
            wallet.adjust(tx, self.org_id, -amount, f"correction {self.entries}", "charged back")
        self.model.credited -= amount

    @rule()
    def turn_month(self) -> None:
        """The next month begins; calls under way stay in theirs."""
        self.now = (self.now.replace(day=1) + timedelta(days=32)).replace(day=1)

    # -- looking ------------------------------------------------------------------------------------------------

    def books(self) -> dict[str, Any]:
        """Return what the store says, in the model's form."""
        names = self.names
        with self.workspace.read() as tx:

            def rows(query: str) -> list[Any]:
                return list(tx.session.execute(text(query), {"org": self.org_id}))

            of_org = "WHERE key_id IN (SELECT id FROM api_key WHERE org_id = :org)"
            (org,) = rows("SELECT credited, settled, held FROM organisation WHERE id = :org")
            months = rows(f"SELECT key_id, month, calls, spent, held FROM key_month {of_org}")
            holds = rows("SELECT request_id, key_id, month, amount, limit_amount FROM hold WHERE org_id = :org")
            log = rows("SELECT request_id, outcome, cost, held, overrun FROM outbox WHERE org_id = :org")
            recent = rows(f"SELECT key_id, cost FROM recent_cost {of_org}")
            refused = rows(f"SELECT key_id, refusal, minute, refused FROM refusal_count {of_org}")
        return {
            "org": tuple(org),
            "months": {(names[key], month): tuple(total) for key, month, *total in months if any(total)},
            "holds": {name: (names[key], *rest) for name, key, *rest in holds},
            "log": {name: tuple(rest) for name, *rest in log},
            "recent": {names[key]: cost for key, cost in recent},
            "refused": {(names[key], refusal, minute): number for key, refusal, minute, number in refused},
        }

    @invariant()
    def books_are_the_models(self) -> None:
        """Every total and every row is what the model says."""
        if hasattr(self, "model"):
            assert self.books() == self.model.books()

    def teardown(self) -> None:
        """What is still held is not the next example's; the dead gateway's calls have been swept at the end."""
        with self.workspace.store.write(SYSTEM) as tx:
            leases.end(tx, "lives")
        leases.sweep(self.workspace.store)


def plain(result: Any) -> Any:
    """Return a verdict in the model's words."""
    if isinstance(result, Refusal):
        return result.type
    return Stale if isinstance(result, Stale) else result


def test_billing_is_its_model(world: World) -> None:
    """Twenty-five organisations in one store live through up to thirty events each; then `reconcile` finds nothing."""
    numbers = count(1)
    with closing(open_billing_store(world.workspace.store)) as billing_store:
        run_state_machine_as_test(
            lambda: Events(world, billing_store, next(numbers)),  # type: ignore[arg-type]  # called like a class
            settings=settings(
                examples(EXAMPLES),
                stateful_step_count=STEPS,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    assert [finding for finding in reconcile.run(world.workspace) if finding.violations] == []
