"""What refused callers cost: after the first of a minute no write, and a dead secret is not even looked up."""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import World
from toolkit.admin import keys, secret_lookup
from toolkit.admin.keys import NewSecret
from toolkit.billing.rules import REFUSAL_ROWS_PER_MINUTE, Admit, Refuse
from toolkit.billing.state import Job
from toolkit.billing.stores import BillingStore, open_billing_store
from toolkit.core.secrets import new_secret
from toolkit.gateway import app as gateway_app
from toolkit.gateway import rejected_secrets
from toolkit.store.database import Store
from toolkit.store.tables import OutboxRow, RefusalCount, RetiredSecret
from toolkit.store.transaction import Transaction

pytestmark = pytest.mark.any_store

CALLS = 400
MINUTES = 2
"""The calls of a test may fall into that many minutes."""


@dataclass
class Watched:
    """What a gateway asks its store for.

    Args:
        on: whether it counts.
        batches: the jobs of each batch of billing.
        reads, writes: transactions beside billing.
    """

    on: bool = False
    batches: list[Sequence[Job[Any]]] = field(default_factory=list)
    reads: int = 0
    writes: int = 0

    @property
    def writing(self) -> int:
        """Transactions that wrote: those beside billing, and batches with more than questions in them."""
        writing = (Refuse, Admit)
        return self.writes + sum(any(isinstance(job, writing) for job in batch) for batch in self.batches)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Counts what a gateway in this process does to its store."""
    watched = Watched()
    read, write = Store.read, Store.write

    def counted_read(self: Store, *values: Any) -> Any:
        watched.reads += watched.on
        return read(self, *values)

    def counted_write(self: Store, *values: Any) -> Any:
        watched.writes += watched.on
        return write(self, *values)

    class WatchedBillingStore:
        def __init__(self, billing_store: BillingStore) -> None:
            self.close = billing_store.close
            self._billing_store = billing_store

        def run(self, jobs: Sequence[Job[Any]]) -> list[Any]:
            if watched.on:
                watched.batches.append(jobs)
            return self._billing_store.run(jobs)

    monkeypatch.setattr(Store, "read", counted_read)
    monkeypatch.setattr(Store, "write", counted_write)
    monkeypatch.setattr(gateway_app, "open_billing_store", lambda store: WatchedBillingStore(open_billing_store(store)))
    return watched


def refused(world: World, secrets: Sequence[str], body: object, watched: Watched) -> list[int]:
    """Call a gateway in this process once with each secret; return the statuses. Its start and stop are not counted."""

    async def run() -> list[int]:
        statuses: list[int] = []
        app = gateway_app.create_app(world.workspace.settings)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(body).encode()}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        async with app.router.lifespan_context(app):
            watched.on = True
            for secret in secrets:
                scope = {
                    "type": "http",
                    "method": "POST",
                    "path": "/v1/chat/completions",
                    "raw_path": b"/v1/chat/completions",
                    "query_string": b"",
                    "client": ("127.0.0.1", 1),
                    "headers": [(b"authorization", f"Bearer {secret}".encode())],
                }
                await app(scope, receive, send)
            watched.on = False
        return statuses

    return asyncio.run(run())


def counted(world: World) -> tuple[int, int, int]:
    """Return the rows of the request log, the refusals counted, and the uses of retired secrets."""
    with world.workspace.read() as tx:
        rows = tx.session.query(OutboxRow).count()
        refusals = sum(row.refused for row in tx.session.query(RefusalCount))
        return rows, refusals, sum(row.uses for row in tx.session.query(RetiredSecret))


def retired(world: World) -> NewSecret:
    """Return a key whose secret was rotated away."""
    old = world.key()
    with world.workspace.write() as tx:
        keys.rotate(tx, world.workspace.keyring, old.key.id, confirm="app")
    return old


def test_a_retired_secret_costs_no_write_after_the_first_rows(world: World, watched: Watched) -> None:
    """Each use is counted all the same, at the latest when the gateway stops."""
    assert set(refused(world, [retired(world).secret] * CALLS, {}, watched)) == {401}
    assert watched.writing <= REFUSAL_ROWS_PER_MINUTE * MINUTES
    assert watched.reads <= CALLS // 10
    rows, refusals, uses = counted(world)
    assert (refusals, uses) == (CALLS, CALLS)
    assert REFUSAL_ROWS_PER_MINUTE <= rows <= REFUSAL_ROWS_PER_MINUTE * MINUTES


def test_an_unknown_secret_costs_one_look_and_no_write(world: World, watched: Watched) -> None:
    """It is believed to be unknown for some seconds."""
    assert set(refused(world, [new_secret()] * CALLS, {}, watched)) == {401}
    assert (watched.batches, watched.writes) == ([], 0)
    assert watched.reads <= CALLS // 10
    assert counted(world) == (0, 0, 0)


def test_a_call_that_is_refused_again_and_again_costs_no_write(world: World, watched: Watched) -> None:
    """What its body says is wrong each time; the facts that it is judged by are still asked for each time."""
    key = world.key()
    assert set(refused(world, [key.secret] * CALLS, {"model": "no-such"}, watched)) == {400}
    assert watched.writing <= REFUSAL_ROWS_PER_MINUTE * MINUTES
    assert len(watched.batches) >= CALLS
    assert counted(world)[1] == CALLS


def test_a_call_without_money_costs_no_write(world: World, watched: Watched) -> None:
    """Its admission is asked for each time, so that new money counts at once; its refusal is not written each time."""
    key = world.key(monthly_limit=0)
    body = {"model": "gpt-test", "messages": [{"role": "user", "content": "hi"}]}
    assert set(refused(world, [key.secret] * CALLS, body, watched)) == {402}
    refusing = [batch for batch in watched.batches if isinstance(batch[0], Refuse)]
    assert len(refusing) <= REFUSAL_ROWS_PER_MINUTE * MINUTES
    assert counted(world)[1] == CALLS


def test_processes_share_the_rows_of_a_minute(world: World, watched: Watched) -> None:
    """A gateway that comes to a full minute is told so once, and writes no further row."""
    secret = retired(world).secret
    for _ in range(3):
        refused(world, [secret] * (REFUSAL_ROWS_PER_MINUTE + 5), {}, watched)
    rows, refusals, uses = counted(world)
    assert refusals == uses == 3 * (REFUSAL_ROWS_PER_MINUTE + 5)
    assert rows <= REFUSAL_ROWS_PER_MINUTE * MINUTES


def test_a_disabled_key_works_as_soon_as_it_is_enabled(
    world: World, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only secrets that can never become valid are believed to be invalid."""
    monkeypatch.setattr(rejected_secrets, "DEAD_FOR", 3600.0)
    key = world.key()
    with world.workspace.write() as tx:
        keys.disable(tx, key.key.id, confirm="app")

    class Secrets(list[str]):
        def __iter__(self) -> Any:
            yield key.secret
            with world.workspace.write() as tx:
                keys.enable(tx, key.key.id, confirm="app")
            yield key.secret

    assert refused(world, Secrets(), {}, watched) == [401, 400]


def test_dead_secrets_are_remembered_up_to_a_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten, so a stranger who makes secrets up fills no memory."""
    monkeypatch.setattr(rejected_secrets, "LARGEST_DEAD_CACHE", 3)
    looked_up: list[str] = []
    look_up = secret_lookup.all_live

    def looking(tx: Transaction, digests: Iterable[str]) -> Any:
        asked = list(digests)
        looked_up.extend(asked)
        return look_up(tx, asked)

    monkeypatch.setattr(secret_lookup, "all_live", looking)
    a, b, c, d = (new_secret() for _ in range(4))
    refused(world, [a, b, c, a, d, a, b], {}, Watched())
    numbers = {digests.value: secret for secret in (a, b, c, d) for digests in world.workspace.keyring.digests(secret)}
    assert [numbers[digest] for digest in looked_up] == [a, b, c, d, a, b]
