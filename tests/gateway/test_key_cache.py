"""What a gateway knows of keys is read anew when it changed, and not when something else did."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import TypeVar

from sqlalchemy import event

from tests.conftest import World
from toolkit.admin import catalog, keys
from toolkit.billing.batcher import Cashier
from toolkit.billing.state import Stale
from toolkit.billing.stores import open_till
from toolkit.core.dialect import Dialect
from toolkit.gateway.key_cache import Book
from toolkit.store.tally import Tallies

T = TypeVar("T")


def visit(world: World, work: Callable[[Book], Awaitable[T]]) -> tuple[T, list[str]]:
    """Open a gateway's book and do something with it; return the result, and what the store was asked meanwhile."""
    store = world.desk.store
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        asked.append(statement)

    async def run() -> T:
        book = Book(store, world.desk.keyring, Cashier(till), Tallies(store))
        await book.open()
        return await work(book)

    event.listen(store.engine, "before_cursor_execute", note)
    try:
        with closing(open_till(store)) as till:
            return asyncio.run(run()), asked
    finally:
        event.remove(store.engine, "before_cursor_execute", note)


def test_a_new_price_lets_no_key_be_read_again(world: World) -> None:
    """When the catalog alone is stale it alone is read; ten thousand keys would be ten thousand look-ups."""
    new = world.key()

    async def work(book: Book) -> bool:
        digests = book.digests(new.secret)
        before = await book.key(digests)
        with world.desk.write() as tx:
            catalog.add_upstream(tx, "more", Dialect.OPENAI, "http://127.0.0.1:9/v1", "MORE_API_KEY")
        return await book.renewed(digests, Stale(key=False, catalog=True)) is before

    same, asked = visit(world, work)
    assert same
    assert len([statement for statement in asked if "FROM api_key JOIN live_secret" in statement]) == 1


def test_a_changed_key_is_read_again_and_the_catalog_is_not(world: World) -> None:
    """One key's new limit costs no reading of all models and prices."""
    new = world.key(monthly_limit=5)

    async def work(book: Book) -> tuple[int | None, bool]:
        digests, known = book.digests(new.secret), book.catalog
        await book.key(digests)
        with world.desk.write() as tx:
            keys.update(tx, new.key.id, monthly_limit=7)
        facts = await book.renewed(digests, Stale(key=True, catalog=False))
        return facts.monthly_limit, book.catalog is known

    assert visit(world, work)[0] == (7, True)
