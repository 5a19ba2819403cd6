"""What a gateway knows of keys is read anew when it changed, and not when something else did."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import TypeVar

from sqlalchemy import event

from tests.conftest import World
from toolkit.admin import keys
from toolkit.admin.upstreams import add_upstream
from toolkit.billing.batcher import Batcher
from toolkit.billing.state import Stale
from toolkit.billing.stores import open_billing_store
from toolkit.core.dialect import Dialect
from toolkit.core.policy import KeyFacts, Unauthorized
from toolkit.core.secrets import new_secret
from toolkit.gateway.key_cache import KeyCache
from toolkit.store.tally import Tallies

T = TypeVar("T")


def visit(world: World, work: Callable[[KeyCache], Awaitable[T]]) -> tuple[T, list[str]]:
    """Open a gateway's key cache and do something with it; return the result, and what was asked of the store."""
    store = world.workspace.store
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        asked.append(statement)

    async def run() -> T:
        key_cache = KeyCache(store, world.workspace.keyring, Batcher(billing_store), Tallies(store))
        await key_cache.open()
        return await work(key_cache)

    event.listen(store.engine, "before_cursor_execute", note)
    try:
        with closing(open_billing_store(store)) as billing_store:
            return asyncio.run(run()), asked
    finally:
        event.remove(store.engine, "before_cursor_execute", note)


def test_a_new_price_lets_no_key_be_read_again(world: World) -> None:
    """When the catalog alone is stale it alone is read; ten thousand keys would be ten thousand look-ups."""
    new = world.key()

    async def work(key_cache: KeyCache) -> bool:
        digests = key_cache.digests(new.secret)
        before = await key_cache.key(digests)
        with world.workspace.write() as tx:
            add_upstream(tx, "more", Dialect.OPENAI, "http://127.0.0.1:9/v1", "MORE_API_KEY")
        return await key_cache.renewed(digests, Stale(key=False, catalog=True)) is before

    same, asked = visit(world, work)
    assert same
    assert len([statement for statement in asked if "FROM api_key JOIN live_secret" in statement]) == 1


def test_a_changed_key_is_read_again_and_the_catalog_is_not(world: World) -> None:
    """One key's new limit costs no reading of all models and prices."""
    new = world.key(monthly_limit=5)

    async def work(key_cache: KeyCache) -> tuple[int | None, bool]:
        digests, known = key_cache.digests(new.secret), key_cache.catalog
        await key_cache.key(digests)
        with world.workspace.write() as tx:
            keys.update(tx, new.key.id, monthly_limit=7)
        facts = await key_cache.renewed(digests, Stale(key=True, catalog=False))
        return facts.monthly_limit, key_cache.catalog is known

    assert visit(world, work)[0] == (7, True)


def test_secrets_that_wait_together_are_looked_up_together(world: World) -> None:
    """Two hundred guesses cost a handful of readings, and whoever has a key waits for no more than those."""
    new = world.key()

    async def work(key_cache: KeyCache) -> list[KeyFacts | BaseException]:
        secrets = [*(new_secret() for _ in range(200)), new.secret]
        return await asyncio.gather(
            *(key_cache.key(key_cache.digests(secret)) for secret in secrets), return_exceptions=True
        )

    (*guesses, known), asked = visit(world, work)
    assert {type(guess) for guess in guesses} == {Unauthorized}
    assert isinstance(known, KeyFacts)
    assert known.key_id == new.key.id
    assert len([statement for statement in asked if "FROM api_key JOIN live_secret" in statement]) <= 5


def test_a_caller_who_leaves_takes_no_look_up_along(world: World) -> None:
    """Who asked at the same time is answered."""
    new = world.key()

    async def work(key_cache: KeyCache) -> str:
        digests = key_cache.digests(new.secret)
        leaving, staying = (asyncio.create_task(key_cache.key(digests)) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        return (await staying).key_id

    assert visit(world, work)[0] == new.key.id
