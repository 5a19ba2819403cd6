"""Billing against a simple model of it: whatever happens in whatever order, totals and caps hold after each step."""

import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.conftest import ADMIN, World, make_world
from tests.test_billing import NOW, PART, Till, dollars
from toolkit import accounts, billing, keys, reconcile, wallet
from toolkit.billing import Call, Ending
from toolkit.desk import Desk
from toolkit.errors import RefusalType
from toolkit.estimate import SMALLEST_FITTED_BOUND, HoldBound
from toolkit.policy import HoldPolicy, Outcome
from toolkit.pricing import MILLION, billing_month
from toolkit.settings import Settings
from toolkit.usage import Usage

AMOUNTS = st.one_of(st.integers(0, 30), st.integers(0, 20_000), st.sampled_from([0, 1, 5_000]))
LIMITS = st.one_of(st.none(), AMOUNTS, st.integers(3_000, 20_000))
KEYS = st.sampled_from(["careful", "hopeful"])
ENDINGS = st.sampled_from([Outcome.COMPLETED, Outcome.COMPLETED, Outcome.UPSTREAM_ERROR, Outcome.ABORTED])
FOREVER = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Open:
    """A call under way, as the model knows it."""

    call: Call
    key: str
    month: str
    hold: int
    limit_hold: int
    mortal: bool


class Books(RuleBasedStateMachine):
    """Two keys of one organisation, one strict, one `expected`; a gateway that lives and one that dies."""

    under_way = Bundle("under_way")

    def __init__(self, world: World, connection: sqlite3.Connection, number: int) -> None:
        super().__init__()
        self.desk = world.desk
        self.world = world
        self.connection = connection
        self.number = number

    @initialize(money=st.integers(1, 40_000), limits=st.tuples(LIMITS, LIMITS))
    def open_books(self, money: int, limits: tuple[int | None, int | None]) -> None:
        """Start with some money, perhaps limits, and a clock in mid-November."""
        with self.desk.write() as tx:
            self.org_id = accounts.add_org(tx, f"Org {self.number}").id
            wallet.credit(tx, self.org_id, money, "first payment")
        world = replace(self.world, org_id=self.org_id)
        self.tills: dict[str, Till] = {}
        self.limits = dict(zip(("careful", "hopeful"), limits, strict=True))
        for name, policy in (("careful", HoldPolicy.STRICT), ("hopeful", HoldPolicy.EXPECTED)):
            new = world.key(name, hold_policy=policy, monthly_limit=self.limits[name])
            self.tills[name] = Till(world, self.connection, new.secret, new.key.id)
        self.now = datetime(2026, 11, 15, tzinfo=UTC)
        self.credited = money
        self.entries = 0
        self.open: dict[str, Open] = {}
        self.swept: set[str] = set()
        self.spent: dict[tuple[str, str], int] = defaultdict(int)
        self.calls: dict[tuple[str, str], int] = defaultdict(int)
        self.recent: dict[str, int] = {}
        self.refused = 0
        billing.renew_lease(self.connection, "lives", self.now, FOREVER)

    @property
    def month(self) -> str:
        """The present billing month."""
        return billing_month(self.now)

    def held(self, key: str, month: str) -> int:
        """What the model holds against a key's limit in a month."""
        return sum(one.limit_hold for one in self.open.values() if (one.key, one.month) == (key, month))

    def wallet_room(self) -> int:
        """What a new call may hold against the wallet."""
        return self.credited - sum(self.spent.values()) - sum(one.hold for one in self.open.values())

    @rule(
        target=under_way,
        key=KEYS,
        base=AMOUNTS,
        each=st.sampled_from([0, 1, 3]),
        bound=st.sampled_from([1, 900, 1024, 4000]),
        explicit=st.booleans(),
        mortal=st.booleans(),
    )
    def admit(self, key: str, base: int, each: int, bound: int, explicit: bool, mortal: bool) -> str:
        """Ask for a hold; the verdict must be the model's."""
        self.now += timedelta(seconds=1)
        till, full = self.tills[key], base + each * bound
        limit, room = self.limits[key], self.wallet_room()
        limit_room = None if limit is None else limit - self.spent[key, self.month] - self.held(key, self.month)
        rooms = [room] if limit_room is None else [limit_room, room]

        def fits(space: int) -> int | None:
            """The largest bound to admit with that costs no more than `space`."""
            if full <= space:
                return bound
            if explicit or not each or space < base:
                return None
            smaller = (space - base) // each
            return smaller if smaller >= SMALLEST_FITTED_BOUND else None

        verdict: RefusalType | None = None
        granted: int | None = bound
        likely: int | None = None
        if key == "hopeful" and key in self.recent:
            likely = min(full, max(self.recent[key], 1))
        if full:
            granted = fits(min(rooms)) if likely is None else fits(room)
            needed = likely if likely is not None else None
            over = limit_room is not None and (needed > limit_room if needed is not None else fits(limit_room) is None)
            if over:
                verdict = RefusalType.API_KEY_QUOTA_EXCEEDED
            elif granted is None:
                verdict = RefusalType.BILLING_SHORTFALL

        call = till.call(received_at=self.now, sheet=dollars(0), multiplier=MILLION)
        question = HoldBound(base * PART, each * PART, bound, explicit)
        if verdict is not None:
            refusal = till.refused(call, question)
            assert refusal.type is verdict
            billing.refuse(self.connection, call, refusal, self.now, catalog_version=till.catalog_version)
            self.refused += 1
            return ""
        assert granted is not None
        admitted = till.admit(call, question, "dies" if mortal else "lives")
        hold = base + each * granted
        assert (admitted.hold, admitted.output_bound, admitted.fitted) == (hold, granted, granted < bound)
        limit_hold = hold if likely is None else min(hold, likely)
        self.open[call.request_id] = Open(call, key, self.month, hold, limit_hold, mortal)
        if hold:
            assert self.wallet_room() >= 0
            if key == "careful" and limit is not None:
                assert self.spent[key, self.month] + self.held(key, self.month) <= limit
        return call.request_id

    @rule(call_id=consumes(under_way), share=st.integers(0, 130), outcome=ENDINGS)
    def settle(self, call_id: str, share: int, outcome: Outcome) -> None:
        """End a call at some share of its hold, now and then above it; a swept one is lost."""
        if not call_id:
            return
        self.now += timedelta(seconds=1)
        one = self.open.pop(call_id, None)
        hold = one.hold if one else 100
        cost = hold * share // 100
        call = one.call if one else None
        ending = Ending(outcome, self.now, 200, Usage())
        if one is None or call is None:
            assert call_id in self.swept
            ghost = self.tills["careful"].call(received_at=self.now, request_id=call_id)
            assert billing.settle(self.connection, ghost, ending) is None
            return
        priced = Call(**{name: getattr(call, name) for name in Call.__slots__} | {"sheet": dollars(cost)})
        receipt = billing.settle(self.connection, priced, ending)
        assert receipt == billing.Receipt(cost, max(cost - hold, 0))
        at = (one.key, one.month)
        self.spent[at] += cost
        self.calls[at] += 1
        if outcome is Outcome.COMPLETED:
            self.recent[one.key] = (self.recent[one.key] * 7 + cost) // 8 if one.key in self.recent else cost

    @rule(key=KEYS, base=AMOUNTS, share=st.integers(0, 110))
    def run(self, key: str, base: int, share: int) -> None:
        """A call comes and goes at once, so that policy `expected` has something to expect."""
        self.settle(self.admit(key, base, 0, 1, explicit=True, mortal=False), share, Outcome.COMPLETED)

    @rule()
    def sweep(self) -> None:
        """The mortal gateway has died."""
        gone = [name for name, one in self.open.items() if one.mortal]
        assert billing.sweep(self.connection, self.now) == len(gone)
        for name in gone:
            one = self.open.pop(name)
            self.calls[one.key, one.month] += 1
            self.swept.add(name)

    @rule(key=KEYS, limit=LIMITS)
    def change_limit(self, key: str, limit: int | None) -> None:
        """An operator changes a limit."""
        with self.desk.store.write(ADMIN, self.now) as tx:
            keys.update(tx, self.tills[key].key_id, monthly_limit=limit)
        self.limits[key] = limit

    @rule(amount=st.integers(1, 30_000))
    def credit(self, amount: int) -> None:
        """Money comes in."""
        self.entries += 1
        with self.desk.store.write(ADMIN, self.now) as tx:
            wallet.credit(tx, self.org_id, amount, f"payment {self.entries}")
        self.credited += amount

    @rule(amount=st.integers(1, 10_000))
    def take_out(self, amount: int) -> None:
        """A correction takes money out, perhaps more than is left."""
        self.entries += 1
        with self.desk.store.write(ADMIN, self.now) as tx:
            wallet.adjust(tx, self.org_id, -amount, f"correction {self.entries}", "charged back")
        self.credited -= amount

    @rule()
    def turn_month(self) -> None:
        """The next month begins."""
        self.now = (self.now.replace(day=1) + timedelta(days=32)).replace(day=1)

    @invariant()
    def totals_are_the_models(self) -> None:
        """Running totals, sums of rows, and the model agree."""
        if not hasattr(self, "tills"):
            return
        org = self.tills["careful"].org()
        spent, held = sum(self.spent.values()), sum(one.hold for one in self.open.values())
        assert org == {"credited": self.credited, "settled": spent, "held": held}
        sums = self.connection.execute(
            "SELECT coalesce(sum(cost), 0), (SELECT coalesce(sum(amount), 0) FROM hold WHERE org_id = :org),"
            " count(*) FILTER (WHERE outcome = 'refused'), count(*) FROM outbox WHERE org_id = :org",
            {"org": self.org_id},
        ).fetchone()
        assert tuple(sums) == (spent, held, self.refused, self.refused + sum(self.calls.values()))
        ids = {till.key_id: name for name, till in self.tills.items()}
        totals = "SELECT * FROM key_month WHERE key_id IN (SELECT id FROM api_key WHERE org_id = ?)"
        for row in self.connection.execute(totals, (self.org_id,)):
            at = (ids[row["key_id"]], row["month"])
            assert (row["calls"], row["spent"], row["held"]) == (self.calls[at], self.spent[at], self.held(*at))

    def teardown(self) -> None:
        """What the gateway that died still holds is not the next example's."""
        billing.sweep(self.connection, getattr(self, "now", NOW))


def test_billing_is_its_model(tmp_path: Path) -> None:
    """Thirty organisations in one store live through up to fifty events each; then `reconcile` finds nothing."""
    environ = {"KEYDESK_DATA_DIR": str(tmp_path), "KEYDESK_SQLITE_SYNCHRONOUS": "NORMAL"}
    world = make_world(Desk.open(Settings.from_env(environ), ADMIN))
    numbers = count(1)
    with closing(world.desk.store.connect()) as connection:
        run_state_machine_as_test(
            lambda: Books(world, connection, next(numbers)),  # type: ignore[arg-type]  # called like a class
            settings=settings(
                max_examples=50,
                stateful_step_count=50,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    assert [finding for finding in reconcile.run(world.desk) if finding.violations] == []
    world.desk.close()
