"""Billing stores: a batch is one transaction, judged in order, and whatever breaks, each job is done once or not."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from tests.account import INSTANCE, NOW, UNIQUE, Account, account, billing_store, dollars, ended, fixed, open_account
from tests.conftest import ADMIN, World, usd
from tests.faults import Fault, settle_down, shake, steps_of
from toolkit.admin import organisations, wallet
from toolkit.billing import leases
from toolkit.billing.rules import Abandon, Admit, Admitted, Receipt, Refuse, Settle
from toolkit.billing.state import BatchState, RowsWanted
from toolkit.billing.stores import open_billing_store
from toolkit.core.errors import Refusal, RefusalType, Unavailable
from toolkit.core.policy import HoldPolicy
from toolkit.core.pricing import MILLION
from toolkit.core.usage import Usage
from toolkit.store.database import Store

__all__ = ["account", "billing_store"]  # fixtures

pytestmark = pytest.mark.both_stores


@dataclass(frozen=True)
class Do:
    """A job that a test makes up: it asks for what another one asks for, and does `work`."""

    like: Admit | Settle | Refuse | Abandon
    work: Callable[[], object]

    def want(self, wanted: RowsWanted) -> None:
        """Ask for what that job asks for."""
        self.like.want(wanted)

    def judge(self, batch: BatchState) -> object:  # noqa: ARG002
        """Do the work."""
        return self.work()


def fail(error: BaseException) -> Callable[[], object]:
    """Return work that fails."""

    def work() -> object:
        raise error

    return work


def store_of(account: Account) -> Store:
    """Return the key store behind an account."""
    return account.world.workspace.store


# -- one transaction ----------------------------------------------------------------------------------------------


def test_jobs_are_judged_in_order_from_what_those_before_them_left(account: Account) -> None:
    """Of 100 USD the first takes 60, the second's 41 do not fit, the third's 40 do, and then nothing does."""
    jobs = [account.asked(account.call(), fixed(usd(amount))) for amount in (60, 41, 40, 1)]
    results = account.billing_store.run(jobs)
    assert [getattr(result, "hold", None) for result in results] == [usd(60), None, usd(40), None]
    assert results[1].details["held_usd"] == "60"
    assert results[3].details["held_usd"] == "100"
    assert account.org()["held"] == account.month()["held"] == usd(100)


def test_a_settlement_makes_room_for_those_behind_it(account: Account) -> None:
    """What a call did not use is there for the next job of the same transaction; what it cost is not."""
    account.update(monthly_limit=usd(10))
    call = account.call(sheet=dollars(usd(4)), multiplier=MILLION)
    account.admit(call, fixed(usd(10)))
    late, early = account.asked(account.call(), fixed(usd(6))), account.asked(account.call(), fixed(1))
    refused, receipt, admitted = account.billing_store.run([early, Settle(call, ended(Usage())), late])
    assert isinstance(refused, Refusal)
    assert (receipt, admitted) == (Receipt(usd(4)), Admitted(usd(6), 0, fitted=False))
    assert (account.month()["spent"], account.month()["held"], account.month()["calls"]) == (usd(4), usd(6), 1)


def test_a_batch_commits_as_one(account: Account) -> None:
    """Nobody sees part of a batch: while its last job is judged, what the first did is not there yet."""
    seen: list[int] = []
    first, last = (account.asked(account.call(), fixed(1)) for _ in range(2))
    account.billing_store.run([first, Do(last, lambda: seen.append(account.count("hold"))), last])
    assert seen == [0]
    assert account.count("hold") == 2


def test_an_error_undoes_its_own_job_only(account: Account) -> None:
    """The one who failed gets its own error; the neighbours in the same transaction are kept."""
    error = ValueError("mine")
    asked = [account.asked(account.call(), fixed(n + 1)) for n in range(3)]
    results = account.billing_store.run(
        [asked[0], Do(asked[1], fail(error)), asked[1], Do(asked[2], fail(error)), asked[2]]
    )
    assert results[1] is results[3] is error
    assert {hold["amount"] for hold in account.holds()} == {1, 2, 3}
    assert account.org()["held"] == 6


def test_a_hold_taken_for_a_failed_settlement_goes_back(account: Account) -> None:
    """It is there again, in every column, and can be settled later."""
    account.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(50))
    account.spend(usd(1))
    call = account.call(stream=True)
    account.admit(call, fixed(usd(3)))
    before = account.state()
    settle = Settle(call, ended(Usage(input_tokens=1000)))
    (error,) = account.billing_store.run([Do(settle, fail(ValueError("mine")))])
    assert isinstance(error, ValueError)
    assert account.state() == before
    assert account.do(settle) == Receipt(2_500_000)


def test_a_call_is_settled_once_in_a_batch_too(account: Account) -> None:
    """The second settlement of one transaction finds no hold, nor does a sweep behind them."""
    call = account.call()
    account.admit(call, fixed(usd(1)))
    (hold,) = held(account)
    settle = Settle(call, ended(Usage(input_tokens=1000)))
    assert account.billing_store.run([settle, settle, Abandon(hold, NOW, "test")]) == [Receipt(2_500_000), None, False]
    assert account.month()["calls"] == len(account.log()) == 1


def test_a_batch_may_mix_organisations_keys_and_months(world: World, account: Account) -> None:
    """Each job moves its own totals, and no others."""
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Other")
        wallet.credit(tx, other.id, usd(5), "their first payment")
    accounts_ = [
        account,
        open_account(world, account.billing_store, name="second"),
        open_account(replace(world, org_id=other.id), account.billing_store),
    ]
    months = [NOW, NOW.replace(month=12)]
    jobs = [
        one.asked(one.call(received_at=month), fixed(number + 1))
        for number, (one, month) in enumerate((one, month) for one in accounts_ for month in months)
    ]
    random.Random(7).shuffle(jobs)
    assert all(isinstance(result, Admitted) for result in account.billing_store.run(jobs))
    totals = [one.month(f"{month:%Y-%m}")["held"] for one in accounts_ for month in months]
    assert totals == [1, 2, 3, 4, 5, 6]
    assert (account.org()["held"], accounts_[2].org()["held"]) == (1 + 2 + 3 + 4, 5 + 6)


def test_an_empty_batch_changes_nothing(account: Account) -> None:
    """Nobody asks for one, but nothing breaks."""
    before = account.state()
    assert account.billing_store.run([]) == []
    assert account.state() == before


# -- jobs that the store does not take ----------------------------------------------------------------------------


def test_an_id_twice_undoes_the_batch(account: Account) -> None:
    """The billing store says whose fault it is not: this is no `Unavailable`, and each job is tried by itself."""
    call = account.call()
    account.admit(call, fixed(1))
    before = account.state()
    with pytest.raises(UNIQUE):
        account.billing_store.run([account.asked(account.call(), fixed(2)), account.asked(call, fixed(3))])
    assert account.state() == before
    account.admit(account.call(), fixed(4))


def test_an_amount_beyond_64_bits_undoes_the_batch(account: Account) -> None:
    """A charge that no store can keep is an error of its job; the hold stays, and the billing store works on."""
    call = account.call(sheet=dollars(usd(8_000_000_000)), multiplier=1000 * MILLION)
    account.admit(call, fixed(1))
    before = account.state()
    with pytest.raises((OverflowError, psycopg.DataError)):
        account.billing_store.run([account.asked(account.call(), fixed(2)), Settle(call, ended(Usage()))])
    assert account.state() == before
    account.admit(account.call(), fixed(4))


def test_what_a_job_asks_for_may_fail(account: Account) -> None:
    """An error before anything was read leaves the billing store as it was."""
    with pytest.raises(AttributeError):
        account.billing_store.run([account.asked(account.call(), fixed(2)), Do(None, int)])  # type: ignore[arg-type]
    assert account.count("hold") == 0
    account.admit(account.call(), fixed(4))


# -- a store that fails -------------------------------------------------------------------------------------------


def held(account: Account) -> list[Any]:
    """Return the open holds, as a sweep finds them."""
    with account.world.workspace.read() as tx:
        return leases.held_by(tx, INSTANCE)


def full_batch(account: Account) -> list[Any]:
    """Return a batch that reads and writes all there is: admission, settlement, refusal, write-off."""
    ending, dying = account.call(), account.call()
    for call in (ending, dying):
        account.admit(call, fixed(usd(2)))
    hold = next(hold for hold in held(account) if hold.request_id == dying.request_id)
    refusal = Refusal(RefusalType.MODEL_NOT_FOUND, "no such model")
    return [
        account.asked(account.call(), fixed(usd(1))),
        Settle(ending, ended(Usage(input_tokens=1000))),
        Refuse(account.call(), refusal, NOW, None),
        Abandon(hold, NOW, "test"),
    ]


@pytest.mark.world
@pytest.mark.parametrize("cut", [False, True], ids=["statement fails", "connection lost"])
def test_a_fault_at_any_step_leaves_all_or_nothing(account: Account, cut: bool) -> None:
    """Whatever fails wherever, the batch is `Unavailable`; it is kept whole if COMMIT was done, else not at all."""
    account.update(hold_policy=HoldPolicy.EXPECTED, monthly_limit=usd(90))
    account.spend(usd(1))
    steps = steps_of(store_of(account), account.billing_store, full_batch(account))
    assert steps > 15
    kept = []
    for step in range(steps):
        jobs = full_batch(account)
        before = account.state()
        shaky = shake(store_of(account), account.billing_store, Fault(step, cut))
        with pytest.raises(Unavailable, match="cannot be reached"):
            account.billing_store.run(jobs)
        assert shaky.fired
        settle_down(account.world.workspace, account.world.org_id)
        changed = account.state() != before
        kept.append(changed)
        if changed:
            assert shaky.commit_sent
            results = account.billing_store.run(jobs[1:2] + jobs[3:])
            assert results == [None, False], "done already: nothing is charged twice"
        else:
            assert [type(result) for result in account.billing_store.run(jobs)] == [Admitted, Receipt, bool, bool]
        (org, *_), months, holds, log, *_ = account.state()
        assert org["held"] == sum(hold["amount"] for hold in holds)
        assert org["settled"] == sum(row["cost"] for row in log) == sum(month["spent"] for month in months)
    assert kept[-1], "the last step is after COMMIT"
    assert not any(kept[: steps - 3])


def test_a_table_that_is_gone_is_unavailable(account: Account) -> None:
    """A store that cannot answer is not a job's fault."""
    account.execute("ALTER TABLE hold RENAME TO elsewhere")
    with pytest.raises(Unavailable):
        account.admit(account.call(), fixed(1))
    account.execute("ALTER TABLE elsewhere RENAME TO hold")
    account.admit(account.call(), fixed(1))


# -- other writers ------------------------------------------------------------------------------------------------


@contextmanager
def another_writer(account: Account) -> Iterator[Any]:
    """Hold the lock that every change of the organisation's money needs; yields a function that lets go."""
    with account.world.workspace.store.write(ADMIN) as tx:
        tx.session.execute(text("UPDATE organisation SET held = held"))
        yield tx


def test_a_till_waits_for_another_writer(account: Account) -> None:
    """While another process changes the organisation, a batch waits, and is judged by what that one left."""
    job = account.asked(account.call(), fixed(usd(100)))
    with ThreadPoolExecutor(1) as thread:
        with another_writer(account) as tx:
            asked = thread.submit(account.billing_store.run, [job])
            with pytest.raises(TimeoutError):
                asked.result(0.2)
            tx.session.execute(text("UPDATE organisation SET settled = settled + 1"))
        (refusal,) = asked.result(20)
    assert isinstance(refusal, Refusal)
    assert refusal.details["balance_usd"] == "99.999999999"


def test_tills_of_several_gateways_never_overspend(account: Account) -> None:
    """Four gateways ask at once for more than limit and wallet allow: exactly what fits is admitted."""
    account.update(monthly_limit=usd(40))
    rich = open_account(account.world, account.billing_store, name="rich")
    gateways, each = 4, 40

    def ask(number: int) -> list[Any]:
        with closing(open_billing_store(store_of(account))) as billing_store:
            results = []
            for _ in range(each // 4):
                jobs = [one.asked(one.call(), fixed(usd(1))) for one in (account, rich) for _ in range(4)]
                results += billing_store.run(jobs)
            return results

    with ThreadPoolExecutor(gateways) as threads:
        results = [result for part in threads.map(ask, range(gateways)) for result in part]
    admitted = sum(isinstance(result, Admitted) for result in results)
    reasons = {result.type for result in results if isinstance(result, Refusal)}
    assert admitted == len(account.holds()) == 100
    assert len(results) == gateways * each * 2
    assert reasons == {RefusalType.API_KEY_QUOTA_EXCEEDED, RefusalType.BILLING_SHORTFALL}
    assert account.month()["held"] <= usd(40)
    assert account.month()["held"] + rich.month()["held"] == account.org()["held"] == usd(100)


@pytest.mark.world
def test_a_change_of_the_key_and_an_admission_are_one_after_the_other(account: Account) -> None:
    """Limits are raised and lowered under load: never is more held than the limit in force at the commit allows."""
    rounds = 15
    stop = threading.Event()
    problems: list[str] = []

    def spend(_: int) -> None:
        with closing(open_billing_store(store_of(account))) as billing_store:
            mine = replace(account, billing_store=billing_store)
            while not stop.is_set():
                call = mine.call(sheet=dollars(0), multiplier=MILLION)
                (result,) = billing_store.run([mine.asked(call, fixed(usd(1)))])
                if isinstance(result, Admitted):
                    billing_store.run([Settle(call, ended(Usage()))])

    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(spend, number) for number in range(3)]
        try:
            for _ in range(rounds):
                account.update(monthly_limit=0)
                # From here on only calls admitted before may hold anything, and none may be added.
                holds = {hold["request_id"] for hold in account.holds()}
                for _ in range(5):
                    now = {hold["request_id"] for hold in account.holds()}
                    if now - holds:
                        problems.append(f"admitted under a limit of 0: {now - holds}")
                    holds &= now
                account.update(monthly_limit=usd(50))
        finally:
            stop.set()
        for one in running:
            one.result(20)
    assert problems == []


@pytest.mark.world
@pytest.mark.only_store("postgresql")
def test_organisations_in_any_order_make_no_deadlock(world: World, account: Account) -> None:
    """Batches that name organisations in any order, beside operators' changes of all of them, all go through."""
    worlds = [world]
    for number in range(3):
        with world.workspace.write() as tx:
            worlds.append(replace(world, org_id=organisations.add(tx, f"Org {number}").id))
        worlds[-1].credit(usd(1), f"first payment {number}")
    every = [account, *(open_account(one, account.billing_store) for one in worlds[1:])]
    rounds = 40

    def bill(seed: int) -> int:
        chance = random.Random(seed)
        with closing(open_billing_store(store_of(account))) as billing_store:
            jobs = [[one.asked(one.call(), fixed(1)) for one in chance.sample(every, 3)] for _ in range(rounds)]
            return sum(isinstance(result, Admitted) for batch in jobs for result in billing_store.run(batch))

    def operate(number: int) -> None:
        for at in range(rounds // 4):
            for one in worlds[:: 1 if number else -1]:
                one.credit(1, f"payment {number} {at} of {one.org_id}")

    with ThreadPoolExecutor(5) as threads:
        bills = [threads.submit(bill, seed) for seed in range(3)]
        acts = [threads.submit(operate, number) for number in (0, 1)]
        assert [one.result(60) for one in bills] == [3 * rounds] * 3
        for act in acts:
            act.result(60)
    assert account.count("hold") == sum(one.org()["held"] for one in every) == 9 * rounds


# -- speed and durability -----------------------------------------------------------------------------------------
