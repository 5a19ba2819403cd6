"""The batcher: many calls to a transaction, each with its own verdict, and nothing lost on the way."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from tests.account import UNIQUE, Account, account, billing_store, dollars, ended, fixed
from tests.conftest import ADMIN, usd, wait_until
from tests.faults import Fault, shake
from toolkit.billing.batcher import Batcher
from toolkit.billing.rules import Admit, Admitted, Receipt, Settle
from toolkit.billing.state import Job
from toolkit.billing.stores import BATCH, BillingStore, open_billing_store
from toolkit.core.errors import Refusal, Unavailable
from toolkit.core.pricing import MILLION
from toolkit.core.usage import Usage
from toolkit.store.database import Store

__all__ = ["account", "billing_store"]  # fixtures

pytestmark = pytest.mark.both_stores


@dataclass
class Watched:
    """A real billing store that notes the size of each batch."""

    billing_store: BillingStore
    sizes: list[int]

    def run(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """Run a batch."""
        self.sizes.append(len(jobs))
        return self.billing_store.run(jobs)

    def close(self) -> None:
        """Close the billing store."""
        self.billing_store.close()


def serve(
    account: Account, visit: Callable[[Batcher], Coroutine[Any, Any, Any]], sizes: list[int] | None = None
) -> tuple[Any, list[int]]:
    """Let callers visit a running batcher on an event loop; return what they got, and the sizes of the batches.

    Each batch's size is in `sizes` when it is begun.
    """
    sizes = [] if sizes is None else sizes
    billing_store = Watched(open_billing_store(account.world.workspace.store), sizes)

    async def open_and_close() -> Any:
        batcher = Batcher(billing_store)
        batcher.start()
        try:
            return await asyncio.wait_for(visit(batcher), 60)
        finally:
            await batcher.stop()

    return asyncio.run(open_and_close()), sizes


def asks(account: Account, number: int, amount: int = 1) -> list[Admit]:
    """Return many calls that ask to hold `amount`."""
    facts, version = account.facts(), account.catalog_version
    return [Admit(account.call(key=facts), fixed(amount), version, "gateway_test") for _ in range(number)]


def test_work_is_committed_before_its_answer(account: Account) -> None:
    """Whoever has the answer can rely on the write: another connection sees it."""

    async def visit(batcher: Batcher) -> None:
        for number, job in enumerate(asks(account, 3)):
            assert await batcher.ask(job) == Admitted(1, 0, fitted=False)
            assert account.count("hold") == number + 1

    serve(account, visit)


def test_many_at_once_share_transactions(account: Account) -> None:
    """Five hundred calls that arrive together take far fewer commits."""
    jobs = asks(account, 500)

    async def visit(batcher: Batcher) -> list[Admitted]:
        return await asyncio.gather(*(batcher.ask(job) for job in jobs))

    answers, sizes = serve(account, visit)
    assert answers == [Admitted(1, 0, fitted=False)] * 500
    assert {hold["request_id"] for hold in account.holds()} == {job.call.request_id for job in jobs}
    assert sum(sizes) == 500
    assert len(sizes) < 10
    assert max(sizes) == BATCH


def test_calls_are_judged_in_the_order_of_their_arrival(account: Account) -> None:
    """Of three hundred calls for a dollar each the first hundred get the hundred dollars, across all batches."""
    jobs = asks(account, 300, usd(1))

    async def visit(batcher: Batcher) -> list[Any]:
        return await asyncio.gather(*(batcher.ask(job) for job in jobs), return_exceptions=True)

    answers, sizes = serve(account, visit)
    assert len(sizes) > 1
    assert [isinstance(answer, Admitted) for answer in answers] == [True] * 100 + [False] * 200
    assert all(isinstance(answer, Refusal) for answer in answers[100:])


def test_a_refusal_is_its_callers_alone(account: Account) -> None:
    """Each gets an exception of their own, which nobody else's traceback grows."""
    jobs = asks(account, 4, usd(1000))

    async def visit(batcher: Batcher) -> list[Any]:
        return await asyncio.gather(*(batcher.ask(job) for job in jobs), return_exceptions=True)

    answers, _ = serve(account, visit)
    assert all(isinstance(answer, Refusal) for answer in answers)
    assert len({id(answer) for answer in answers}) == 4


def test_an_id_twice_does_not_hurt_the_neighbours(account: Account) -> None:
    """A job that the store does not take gets the error; all others of its batch are done, once and in order."""
    first, second, third = asks(account, 3)

    async def visit(batcher: Batcher) -> list[Any]:
        await batcher.ask(first)
        jobs = [second, first, third]
        return await asyncio.gather(*(batcher.ask(job) for job in jobs), return_exceptions=True)

    answers, sizes = serve(account, visit)
    assert [isinstance(answer, Admitted) for answer in answers] == [True, False, True]
    assert isinstance(answers[1], UNIQUE)
    assert sizes == [1, 3, 1, 1, 1]
    assert account.count("hold") == account.org()["held"] == 3


def test_an_id_twice_in_one_batch_is_noticed_there(account: Account) -> None:
    """The second one gets an error, and nothing else is tried again."""
    first, second = asks(account, 2)

    async def visit(batcher: Batcher) -> list[Any]:
        jobs = [first, first, second]
        return await asyncio.gather(*(batcher.ask(job) for job in jobs), return_exceptions=True)

    answers, sizes = serve(account, visit)
    assert [type(answer) for answer in answers] == [Admitted, ValueError, Admitted]
    assert sizes == [3]
    assert account.count("hold") == account.org()["held"] == 2


def test_an_amount_too_large_does_not_hurt_the_neighbours(account: Account) -> None:
    """A charge that no store can keep fails alone, and its hold stays until the lease ends, when it is released."""
    call = account.call(sheet=dollars(usd(8_000_000_000)), multiplier=1000 * MILLION)
    account.admit(call, fixed(1))
    other = account.call(sheet=dollars(7), multiplier=MILLION)
    account.admit(other, fixed(10))
    jobs: list[Any] = [*asks(account, 1), Settle(call, ended(Usage())), Settle(other, ended(Usage()))]

    async def visit(batcher: Batcher) -> list[Any]:
        return await asyncio.gather(*(batcher.ask(job) for job in jobs), return_exceptions=True)

    (admitted, error, receipt), _ = serve(account, visit)
    assert (admitted.hold, receipt) == (1, Receipt(7))
    assert isinstance(error, OverflowError | psycopg.DataError)
    assert account.org() == {"credited": usd(100), "settled": 7, "held": 2}


def test_a_store_that_fails_is_unavailable_to_all_who_asked(account: Account) -> None:
    """Each of them is told, nothing of the batch is kept, and who asks next is served."""
    jobs = asks(account, 4)
    billing_store = open_billing_store(account.world.workspace.store)

    async def visit() -> tuple[list[Any], Any]:
        batcher = Batcher(billing_store)
        batcher.start()
        shake(account.world.workspace.store, billing_store, Fault(3, cut=True))
        failed = await asyncio.gather(*(batcher.ask(job) for job in jobs[:3]), return_exceptions=True)
        served = await batcher.ask(jobs[3])
        await batcher.stop()
        return failed, served

    failed, served = asyncio.run(visit())
    assert all(isinstance(answer, Unavailable) for answer in failed)
    assert len({id(answer) for answer in failed}) == 3
    assert served.hold == 1
    assert [hold["request_id"] for hold in account.holds()] == [jobs[3].call.request_id]


def test_the_loop_goes_on_while_the_cashier_waits_for_another_writer(account: Account) -> None:
    """The event loop never waits for the store: a batch that does is answered once the store is free."""
    (job,) = asks(account, 1)

    async def visit(batcher: Batcher) -> Admitted:
        with account.world.workspace.store.write(ADMIN) as tx:
            tx.session.execute(text("UPDATE organisation SET held = held"))
            asked = batcher.ask(job)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(asked), 0.1)
        return await asked

    answer, _ = serve(account, visit)
    assert answer.hold == 1


def test_what_arrives_while_a_batch_commits_is_the_next_batch(account: Account) -> None:
    """Those who come while the store is busy wait together, and go together."""
    first, *others = asks(account, 21)
    sizes: list[int] = []

    async def visit(batcher: Batcher) -> None:
        with account.world.workspace.store.write(ADMIN) as tx:
            tx.session.execute(text("UPDATE organisation SET held = held"))
            asked = [batcher.ask(first)]
            await asyncio.to_thread(wait_until, lambda: sizes, "the first batch")
            for job in others:
                asked.append(batcher.ask(job))
                await asyncio.sleep(0)
        await asyncio.gather(*asked)

    serve(account, visit, sizes)
    assert sizes == [1, 20]


def test_a_caller_who_left_does_not_stop_the_others(account: Account) -> None:
    """Work of a cancelled caller is done all the same; its neighbours get their answers."""
    leaver, stayer = asks(account, 2)

    async def visit(batcher: Batcher) -> Admitted:
        leaving, staying = batcher.ask(leaver), batcher.ask(stayer)
        leaving.cancel()
        return await staying

    answer, _ = serve(account, visit)
    assert answer.hold == 1
    assert account.count("hold") == 2


def test_stopping_finishes_what_was_asked_for(account: Account) -> None:
    """Work that was waiting when the gateway stopped is done and answered."""
    jobs = asks(account, 2 * BATCH + 10)

    async def visit() -> list[Admitted]:
        batcher = Batcher(open_billing_store(account.world.workspace.store))
        batcher.start()
        asked = [batcher.ask(job) for job in jobs]
        await batcher.stop()
        assert all(one.done() for one in asked)
        return await asyncio.gather(*asked)

    assert len(asyncio.run(visit())) == len(jobs) == account.count("hold")


def test_a_stopped_cashier_refuses(account: Account) -> None:
    """After the end nobody is kept waiting for an answer that will not come; its connection is closed."""
    (job,) = asks(account, 1)
    billing_store: Any = open_billing_store(account.world.workspace.store)

    async def visit() -> None:
        batcher = Batcher(billing_store)
        batcher.start()
        shake(account.world.workspace.store, billing_store, None)
        await batcher.stop()
        assert billing_store._connection is None
        with pytest.raises(Unavailable, match="stopping"):
            await batcher.ask(job)

    asyncio.run(visit())
    assert account.count("hold") == 0


def test_a_cashier_that_never_started_can_be_stopped(account: Account) -> None:
    """A gateway that fails while it starts still closes its store."""

    async def visit() -> None:
        await Batcher(open_billing_store(account.world.workspace.store)).stop()

    asyncio.run(visit())


@pytest.mark.parametrize("url", ["sqlite:///{folder}/nowhere/keydesk.db", "postgresql://nobody@127.0.0.1:9/nothing"])
def test_a_store_that_is_gone_is_unavailable(account: Account, tmp_path: Path, url: str) -> None:
    """A key store that cannot be opened is told as such."""
    (job,) = asks(account, 1)
    with closing(Store(url.format(folder=tmp_path))) as nowhere:

        async def visit() -> None:
            batcher = Batcher(open_billing_store(nowhere))
            batcher.start()
            with pytest.raises(Unavailable, match="cannot be reached"):
                await batcher.ask(job)
            await batcher.stop()

        asyncio.run(visit())
