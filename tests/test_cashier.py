"""The cashier: many calls to a transaction, each with its own verdict, and nothing lost on the way."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from toolkit import cashier as module
from toolkit.cashier import Cashier
from toolkit.database import Store
from toolkit.errors import Unavailable
from toolkit.settings import Settings


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """A store with one more table, for marks."""
    store = Store.open(settings)
    with closing(store.connect()) as connection:
        connection.execute("CREATE TABLE mark (id INTEGER PRIMARY KEY, batch INTEGER)")
    yield store
    store.close()


@pytest.fixture
def cashier(store: Store) -> Iterator[Cashier]:
    """A running cashier."""
    cashier = Cashier(store)
    cashier.start()
    yield cashier
    cashier.stop()


def mark(number: int) -> Callable[[sqlite3.Connection], int]:
    """Return work that writes a mark."""

    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO mark (id) VALUES (?)", (number,))
        return number

    return work


def marks(store: Store) -> list[int]:
    """Return the marks that are committed, in the order in which they were written."""
    with closing(store.connect()) as connection:
        return [number for (number,) in connection.execute("SELECT id FROM mark ORDER BY rowid")]


def transactions(cashier: Cashier, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the size of each transaction."""
    sizes: list[int] = []
    real = module._commit_together

    def counted(connection: sqlite3.Connection, batch: list[Any]) -> Any:
        sizes.append(len(batch))
        return real(connection, batch)

    monkeypatch.setattr(module, "_commit_together", counted)
    return sizes


def test_work_is_committed_before_its_answer(cashier: Cashier, store: Store) -> None:
    """Whoever has the answer can rely on the write: another connection sees it."""

    async def ask() -> None:
        for number in range(3):
            assert await cashier.ask(mark(number)) == number
            assert marks(store)[-1] == number

    asyncio.run(ask())


def test_many_at_once_share_transactions(cashier: Cashier, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five hundred calls that arrive together take far fewer commits, and keep their order of arrival."""
    sizes = transactions(cashier, monkeypatch)

    async def ask() -> list[int]:
        return await asyncio.gather(*(cashier.ask(mark(number)) for number in range(500)))

    assert asyncio.run(ask()) == list(range(500))
    assert marks(store) == list(range(500))
    assert sum(sizes) == 500
    assert len(sizes) < 50
    assert max(sizes) <= module.LARGEST_BATCH


def test_each_sees_what_those_before_it_did(cashier: Cashier) -> None:
    """Calls of one transaction are judged in turn, from the state that the earlier ones left."""

    def count(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO mark DEFAULT VALUES")
        return int(connection.execute("SELECT count(*) FROM mark").fetchone()[0])

    async def ask() -> list[int]:
        return await asyncio.gather(*(cashier.ask(count) for _ in range(100)))

    assert asyncio.run(ask()) == list(range(1, 101))


@pytest.mark.parametrize("error", [ValueError("mine"), sqlite3.IntegrityError("taken"), OverflowError("too large")])
def test_an_error_undoes_its_own_work_only(cashier: Cashier, store: Store, error: Exception) -> None:
    """The one who failed gets its error; the neighbours in the same transaction are kept."""

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO mark (id) VALUES (1000)")
        raise error

    async def ask() -> list[Any]:
        work = [mark(1), fail, mark(2), fail, mark(3)]
        return await asyncio.gather(*(cashier.ask(one) for one in work), return_exceptions=True)

    assert asyncio.run(ask()) == [1, error, 2, error, 3]
    assert marks(store) == [1, 2, 3]


def test_the_cashier_waits_for_another_writer(cashier: Cashier, store: Store) -> None:
    """While another process holds the store, work waits; it is done once the store is free."""
    with closing(store.connect()) as other:
        other.execute("BEGIN IMMEDIATE")

        async def ask() -> None:
            asked = asyncio.ensure_future(cashier.ask(mark(1)))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(asked), 0.1)
            other.execute("COMMIT")
            assert await asked == 1

        asyncio.run(ask())


def test_a_store_that_stays_locked_is_unavailable(store: Store) -> None:
    """After the busy time, all who waited are told, nothing is written, and the next work succeeds."""

    class Impatient(Store):
        def connect(self) -> sqlite3.Connection:
            connection = super().connect()
            connection.execute("PRAGMA busy_timeout = 50")
            return connection

    cashier = Cashier(Impatient(str(store.url)))
    cashier.start()
    with closing(store.connect()) as other:
        other.execute("BEGIN IMMEDIATE")

        async def ask() -> None:
            answers = await asyncio.gather(*(cashier.ask(mark(n)) for n in range(3)), return_exceptions=True)
            assert all(isinstance(answer, Unavailable) for answer in answers)
            other.execute("ROLLBACK")
            assert await cashier.ask(mark(9)) == 9

        asyncio.run(ask())
    cashier.stop()
    assert marks(store) == [9]


def test_a_caller_who_left_does_not_stop_the_others(cashier: Cashier, store: Store) -> None:
    """Work of a cancelled caller is done all the same; its neighbours get their answers."""

    async def ask() -> None:
        leaving = asyncio.ensure_future(cashier.ask(mark(1)))
        staying = asyncio.ensure_future(cashier.ask(mark(2)))
        await asyncio.sleep(0)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        assert await staying == 2

    asyncio.run(ask())
    assert marks(store) == [1, 2]


def test_a_loop_that_ended_does_not_stop_the_cashier(cashier: Cashier, store: Store) -> None:
    """If a loop closes before its answer comes, the next loop is still served."""
    gate = threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        gate.wait(10)
        connection.execute("INSERT INTO mark (id) VALUES (1)")

    async def leave() -> None:
        task = asyncio.ensure_future(cashier.ask(slow))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    gate.set()
    assert asyncio.run(cashier.ask(mark(2))) == 2
    assert marks(store) == [1, 2]


def test_stopping_finishes_what_was_asked_for(store: Store) -> None:
    """Work that was waiting when the gateway stopped is done and answered."""
    cashier = Cashier(store)

    async def ask() -> list[int]:
        asked = [asyncio.ensure_future(cashier.ask(mark(number))) for number in range(300)]
        await asyncio.sleep(0)
        cashier.start()
        await asyncio.to_thread(cashier.stop)
        return await asyncio.gather(*asked)

    assert asyncio.run(ask()) == list(range(300))
    assert marks(store) == list(range(300))


def test_a_stopped_cashier_refuses(store: Store) -> None:
    """After the end nobody is kept waiting for an answer that will not come."""
    cashier = Cashier(store)
    cashier.start()
    cashier.stop()
    with pytest.raises(Unavailable, match="stopping"):
        asyncio.run(asyncio.wait_for(cashier.ask(mark(1)), 5))


def test_a_store_that_is_gone_is_unavailable(settings: Settings, store: Store) -> None:
    """A key store whose file cannot be opened is told as such."""
    cashier = Cashier(Store(f"sqlite:///{settings.data_dir / 'nowhere' / 'keydesk.db'}"))
    cashier.start()
    with pytest.raises(Unavailable, match="cannot be reached"):
        asyncio.run(cashier.ask(mark(1)))
    cashier.stop()
