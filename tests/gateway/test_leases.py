"""A gateway's lease: who cannot renew it stops in time, who has died is swept, and what nobody knows is released."""

import asyncio
import contextlib
import http.client
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import delete, select

from tests.account import fixed
from tests.conftest import ADMIN, NOWHERE, Running, World, free_port, gateway_process, usd, wait_until
from tests.gateway.conftest import Gate, make_gate
from tests.gateway.test_several_upstreams import Mortal, first, routed
from toolkit.admin import secret_lookup
from toolkit.admin.models import add_model
from toolkit.admin.upstreams import list_upstreams, update_upstream
from toolkit.billing import leases
from toolkit.billing.batcher import Batcher
from toolkit.billing.call import Call, Ending
from toolkit.billing.leases import Progress
from toolkit.billing.rules import Admit, Admitted
from toolkit.billing.stores import open_billing_store
from toolkit.core import ids
from toolkit.core.errors import Unavailable
from toolkit.core.policy import KeyFacts, Outcome
from toolkit.core.pricing import PriceSheet
from toolkit.gateway import heartbeat, lifecycle
from toolkit.gateway.heartbeat import Heartbeat
from toolkit.gateway.key_cache import KeyCache
from toolkit.gateway.lifecycle import CallLifecycle
from toolkit.store.tables import CatalogVersion, GatewayInstance, HoldRow, OutboxRow, Price
from toolkit.store.tally import Tallies
from toolkit.store.transaction import utc_now
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store

LEASE = 2.0
BEAT = LEASE / 6

LONG = "[[demo tokens=400 chunk_delay=0.05 input=100 cached=0]]"
"""An order for an answer that streams for twenty seconds."""


@pytest.fixture
def place(world: World, upstream: str, tmp_path: Path) -> Callable[[], contextlib.AbstractContextManager[Running]]:
    """Starts gateways with a short lease over one key store."""
    with world.workspace.write() as tx:
        for found in list_upstreams(tx):
            update_upstream(tx, found.name, base_url=found.base_url.replace(NOWHERE, upstream))

    @contextlib.contextmanager
    def start() -> Iterator[Running]:
        settings = replace(world.workspace.settings, gateway_port=free_port())
        log = tmp_path / f"gateway-{settings.gateway_port}.log"
        here = replace(world, workspace=Workspace(settings, world.workspace.store, ADMIN))
        with gateway_process(settings, log, {"KEYDESK_LEASE": str(LEASE)}) as server:
            yield Running(here, f"http://127.0.0.1:{settings.gateway_port}", upstream, log, server)

    return start


@contextlib.contextmanager
def store_away(workspace: Workspace) -> Iterator[None]:
    """Keep everybody from writing what a lease and a call need."""
    store = workspace.store
    if store.is_postgres:
        with closing(store.connect_postgres()) as connection:
            connection.execute("BEGIN; LOCK TABLE gateway_instance, organisation IN ACCESS EXCLUSIVE MODE")
            yield
            connection.execute("ROLLBACK")
    else:
        with closing(store.connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")


def instances(workspace: Workspace) -> list[str]:
    """Return the gateways that the store knows."""
    with workspace.read() as tx:
        return list(tx.session.scalars(select(GatewayInstance.id)))


def log(workspace: Workspace) -> dict[str, OutboxRow]:
    """Return all rows of the request log, by call."""
    with workspace.read() as tx:
        return {row.request_id: row for row in tx.session.scalars(select(OutboxRow))}


def place_hold(gate: Gate, instance: str) -> str:
    """Let a gateway hold something for a call that it does not know; return the call's id."""
    workspace = gate.workspace
    with workspace.read() as tx:
        facts = secret_lookup.find_live(tx, [digest.value for digest in workspace.keyring.digests(gate.secret)])
        version = tx.session.scalars(select(CatalogVersion.version)).one()
    assert facts is not None
    now = utc_now()
    call = Call(
        ids.new_request_id(time.time_ns() // 1_000_000),
        facts,
        now,
        "openai",
        "chat/completions",
        stream=False,
        model="gpt-test",
        upstream="test-openai",
        price_id="price_test",
    )
    with closing(open_billing_store(workspace.store)) as billing_store:
        assert [type(result) for result in billing_store.run([Admit(call, fixed(1000), version, instance)])] == [
            Admitted
        ]
    return call.request_id


def noted_of(gate: Gate, request_id: str) -> bool:
    """Whether the store knows how far a call has come."""
    with gate.workspace.read() as tx:
        return tx.session.get_one(HoldRow, request_id).response_id is not None


@contextlib.contextmanager
def under_way(gate: Gate) -> Iterator[tuple[http.client.HTTPResponse, str]]:
    """Start a long stream; yields its answer, whose first bytes were read, and the call's id."""
    with gate.streaming("chat", LONG) as (_, answer):
        assert answer.status == 200
        assert answer.read1(100)
        yield answer, str(answer.getheader("x-request-id"))


def read_to_end(answer: http.client.HTTPResponse) -> bytes:
    """Return what still comes until the stream ends or breaks."""
    parts = []
    with contextlib.suppress(http.client.HTTPException, OSError):
        while part := answer.read1(65_536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.world
def test_a_gateway_that_cannot_renew_stops_and_starts_again(
    place: Callable[[], contextlib.AbstractContextManager[Running]],
) -> None:
    """It ends its streams, admits nothing while nobody else can write either, and works again once it has renewed."""
    with place() as running:
        gate = make_gate(running)
        with under_way(gate) as (answer, call_id):
            with store_away(gate.workspace):
                began = time.monotonic()
                assert b"[DONE]" not in read_to_end(answer)
                reply = gate.ask("chat", "hello")
                assert (reply.status, reply.type) == (503, "unavailable")
                wait_until(lambda: time.monotonic() > began + LEASE, "the end of the lease")
                assert gate.ask("messages", "hello").status == 503
            wait_until(lambda: gate.ask("chat", "[[demo tokens=4]]").status == 200, "the gateway to admit again")
        wait_until(lambda: not gate.held_calls(), "all holds to be gone")
        row = log(gate.workspace)[call_id]
        assert row.outcome in {"aborted", "abandoned"}, "it was settled late, or swept"
        assert gate.totals() == (sum(one.cost for one in gate.rows()), 0)
        assert len(instances(gate.workspace)) == 1


@pytest.mark.world
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_without_an_answer_yet_is_told(
    place: Callable[[], contextlib.AbstractContextManager[Running]], stream: bool
) -> None:
    """Its caller gets a refusal of the dialect when the gateway loses its lease, and learns that trying again pays."""
    with place() as running:
        gate = make_gate(running)
        replies: list[Any] = []
        order = "[[demo delay=60 tokens=4]]"
        caller = threading.Thread(target=lambda: replies.append(gate.ask("chat", order, stream=stream)))
        caller.start()
        wait_until(gate.held_calls, "the call to be admitted")
        with store_away(gate.workspace):
            caller.join(20)
        (reply,) = replies
        assert (reply.status, reply.type) == (503, "unavailable")
        assert reply.headers["x-should-retry"] == "false"
        wait_until(lambda: not gate.held_calls(), "the hold to be gone")
        (row,) = gate.rows()
        assert row.outcome in {"aborted", "abandoned"}, "it was settled late, or swept"
        assert row.outcome == "abandoned" or row.error == "the gateway was stopped"


@pytest.mark.world
def test_a_call_that_waited_longer_than_the_lease_is_not_forwarded(
    place: Callable[[], contextlib.AbstractContextManager[Running]],
) -> None:
    """Its hold may have been swept before the gateway learnt of it; so it is given back, and nothing is charged."""
    with place() as running:
        gate = make_gate(running)
        assert gate.ask("chat", "[[demo tokens=4]]").status == 200
        replies: list[Any] = []
        caller = threading.Thread(target=lambda: replies.append(gate.ask("chat", "[[demo tokens=4]]")))
        with store_away(gate.workspace):
            began = time.monotonic()
            caller.start()
            wait_until(lambda: time.monotonic() > began + LEASE + BEAT, "the end of the lease")
            assert replies == []
        caller.join(20)
        (reply,) = replies
        assert reply.status == 503
        assert gate.witness(reply.request_id) is None
        wait_until(lambda: not gate.held_calls(), "the hold to be given back")
        outcomes = [row.outcome for row in gate.rows()]
        assert outcomes in (["completed", "abandoned"], ["completed"])


@pytest.mark.world
def test_a_hold_that_its_gateway_does_not_know_is_released(
    place: Callable[[], contextlib.AbstractContextManager[Running]],
) -> None:
    """The answer to a commit got lost: the hold is written off; calls under way keep theirs."""
    with place() as running:
        gate = make_gate(running)
        with under_way(gate) as (_, call_id):
            (instance,) = instances(gate.workspace)
            forgotten = place_hold(gate, instance)
            wait_until(lambda: forgotten not in gate.held_calls(), "the hold to be released")
            assert gate.held_calls() == [call_id]
            row = log(gate.workspace)[forgotten]
            assert (row.outcome, row.cost, row.held, row.error) == ("abandoned", 0, 1000, leases.FORGOTTEN)
        wait_until(lambda: not gate.held_calls(), "the stream to be settled")
        assert log(gate.workspace)[call_id].outcome == "aborted"


def test_a_gateway_that_stops_leaves_nothing_held(
    place: Callable[[], contextlib.AbstractContextManager[Running]],
) -> None:
    """After SIGTERM even a hold that it did not know is gone, and so is its lease."""
    with place() as running:
        gate = make_gate(running)
        (instance,) = instances(gate.workspace)
        assert gate.ask("chat", "[[demo tokens=4]]").status == 200
        forgotten = place_hold(gate, instance)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) in {0, -signal.SIGTERM}
        assert (gate.held_calls(), instances(gate.workspace)) == ([], [])
        assert log(gate.workspace)[forgotten].outcome == "abandoned"
        assert gate.totals()[1] == 0


@pytest.mark.world
def test_a_gateway_that_was_killed_is_swept_by_another(
    place: Callable[[], contextlib.AbstractContextManager[Running]],
) -> None:
    """Its calls are written off once, at cost 0; the other's calls go on."""
    with place() as dying, place() as living:
        doomed = make_gate(dying)
        safe = make_gate(living)
        with under_way(doomed) as (answer, doomed_id), under_way(safe) as (other, safe_id):
            wait_until(lambda: noted_of(doomed, doomed_id), "the heartbeat to note the call")
            dying.process.kill()
            dying.process.wait(60)
            read_to_end(answer)
            wait_until(lambda: not doomed.held_calls(), "the sweep")
            row = log(doomed.workspace)[doomed_id]
            assert (row.outcome, row.cost, row.error) == ("abandoned", 0, leases.DIED)
            assert row.held > 0
            assert (row.response_id or "").startswith("chatcmpl-")
            assert (row.seen_bytes or 0) > 0
            assert doomed.totals() == (0, 0)
            assert safe.held_calls() == [safe_id]
            assert other.read1(100)
        wait_until(lambda: not safe.held_calls(), "the stream to be settled")
        assert len(instances(safe.workspace)) == 1


@pytest.mark.world
def test_a_call_of_a_killed_gateway_is_written_off_as_it_was_asked_last(
    place: Callable[[], contextlib.AbstractContextManager[Running]],
) -> None:
    """Upstream, credential and price of the second of two upstreams, which may bill it; the hold covered both."""
    with place() as dying, place():
        gate, slow = make_gate(dying), Mortal()
        with gate.workspace.write() as tx:
            add_model(tx, "dear", "test-openai", sheet=PriceSheet.flat(usd(3), usd(30)), context_window=100_000)
        behind = routed(gate, NOWHERE, slow.url, credential_env="TEST_MISSING_API_KEY", price_of_last="dear")
        with ThreadPoolExecutor(1) as caller:
            call = caller.submit(behind.ask, "chat")

            def asked() -> str | None:
                with gate.workspace.read() as tx:
                    return tx.session.scalars(select(HoldRow.credential)).one_or_none()

            wait_until(lambda: asked() == "TEST_UPSTREAM_API_KEY", "the heartbeat to note the second try")
            dying.process.kill()
            wait_until(lambda: log(gate.workspace), "the sweep")
            slow.kill()
            assert call.exception(20)
        (row,) = log(gate.workspace).values()
        with gate.workspace.read() as tx:
            prices = list(tx.session.scalars(select(Price.id).where(Price.model_id == "dear")))
    assert (row.outcome, row.cost, row.upstream) == ("abandoned", 0, f"{first(behind)}-1")
    assert (row.credential, [row.price_id]) == ("TEST_UPSTREAM_API_KEY", prices)


@pytest.mark.world
def test_a_gateway_that_stood_still_longer_than_its_lease_charges_nothing_late(
    place: Callable[[], contextlib.AbstractContextManager[Running]],
) -> None:
    """A paused process is swept by another; when it goes on it ends its call, whose charge is lost, and no more."""
    with place() as paused, place() as living:
        gate = make_gate(paused)
        with under_way(gate) as (answer, call_id):
            pause(paused.process)
            try:
                wait_until(lambda: not gate.held_calls(), "the sweep")
            finally:
                paused.process.send_signal(signal.SIGCONT)
            assert b"[DONE]" not in read_to_end(answer)
        wait_until(lambda: "lost settlement" in paused.log.read_text(), "the late settlement to be noticed")
        wait_until(lambda: gate.ask("chat", "[[demo tokens=4]]").status == 200, "the gateway to admit again")
        assert log(gate.workspace)[call_id].outcome == "abandoned"
        assert gate.totals() == (sum(row.cost for row in gate.rows()), 0)
        assert len(instances(living.world.workspace)) == 2


def pause(process: subprocess.Popen[bytes]) -> None:
    """Stop a process until it is told to go on."""
    process.send_signal(signal.SIGSTOP)


# -- the heartbeat itself -----------------------------------------------------------------------------------------


class Kept:
    """A heartbeat in the running event loop, and a call that it may end.

    Args:
        world: whose store holds the lease.
        seconds: length of the lease.
    """

    def __init__(self, world: World, seconds: float) -> None:
        store = world.workspace.store
        self.tallies = Tallies(store)
        self.batcher = Batcher(open_billing_store(store))
        key_cache = KeyCache(store, world.workspace.keyring, self.batcher, self.tallies)
        self.lifecycle = CallLifecycle(key_cache, ids.new_id("gateway"))
        self.heartbeat = Heartbeat(store, self.lifecycle, seconds)

    async def __aenter__(self) -> "Kept":
        await self.heartbeat.start()
        self.call = self.lifecycle.start(asyncio.sleep(3600))
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.call.cancel()
        await self.heartbeat.stop()

    async def regain(self) -> None:
        """Wait until a second lease holds."""
        await asyncio.to_thread(wait_until, lambda: self.lifecycle.lease == 2, "the second lease")

    async def lose(self) -> None:
        """Wait until the call is ended."""
        await asyncio.wait({self.call}, timeout=30)
        assert self.call.cancelled()


def test_a_late_loop_ends_no_call_while_the_lease_is_renewed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Though the time of the alarm is long past: what counts is what the thread has renewed."""

    async def stand_still() -> None:
        async with Kept(world, 1.2) as kept:
            first = kept.heartbeat.until
            wait_until(lambda: time.monotonic() > first and kept.heartbeat.until > first + 0.1, "renewals")
            for _ in range(20):
                await asyncio.sleep(0.01)
            assert kept.lifecycle.lease == 1
            assert not kept.call.done()

    asyncio.run(stand_still())
    assert "lease" not in caplog.text


def test_a_loop_that_does_not_answer_lets_the_lease_go(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """After the lease's length it is not renewed; when the loop goes on its calls are ended, and it begins anew."""

    async def stand_still() -> None:
        async with Kept(world, 0.6) as kept:
            wait_until(lambda: "is not renewed" in caplog.text, "the thread to give up")
            wait_until(lambda: time.monotonic() > kept.heartbeat.until, "the end of the lease")
            await kept.lose()
            await kept.regain()

    asyncio.run(stand_still())
    assert f"the lease is lost: {heartbeat.SILENT}; all calls are ended" in caplog.text


def test_a_store_that_is_away_is_named(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The message says which of the two has happened."""

    async def wait() -> None:
        async with Kept(world, 0.6) as kept:
            with store_away(world.workspace):
                await kept.lose()
            await kept.regain()

    asyncio.run(wait())
    assert f"the lease is lost: {heartbeat.AWAY}; all calls are ended" in caplog.text


def test_a_lease_that_somebody_has_ended_is_lost(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Its calls have been written off, so that a renewal is none."""

    async def be_swept() -> None:
        async with Kept(world, 0.6) as kept:
            with world.workspace.write() as tx:
                leases.end(tx, kept.lifecycle.instance_id)
            await kept.lose()
            assert kept.lifecycle.lease == 2

    asyncio.run(be_swept())
    assert f"the lease is lost: {heartbeat.SWEPT}; all calls are ended" in caplog.text


def test_a_lease_that_was_ended_is_lost_though_its_renewal_fails(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """That it was ended is known before the renewal is committed, which may never be."""

    class Unwritable:
        def progress(self, _least_age: float) -> Progress:
            return Progress(object(), 0)  # type: ignore[arg-type]

    async def be_swept() -> None:
        async with Kept(world, 0.6) as kept:
            with world.workspace.write() as tx:
                leases.end(tx, kept.lifecycle.instance_id)
            kept.lifecycle.open_calls["req_1"] = Unwritable()
            await kept.lose()

    asyncio.run(be_swept())
    assert "the lease was not renewed" in caplog.text


@contextlib.contextmanager
def refusing(workspace: Workspace) -> Iterator[None]:
    """Let nobody settle, and tell so at once."""
    with closing(
        workspace.store.connect_postgres() if workspace.store.is_postgres else workspace.store.connect()
    ) as connection:

        def rename(old: str, new: str) -> None:
            connection.execute("BEGIN IMMEDIATE" if isinstance(connection, sqlite3.Connection) else "BEGIN")
            connection.execute(f"ALTER TABLE {old} RENAME TO {new}")
            connection.execute("COMMIT")

        rename("hold", "hold_away")
        yield
        rename("hold_away", "hold")


def hold_for(world: World, lifecycle: CallLifecycle, facts: KeyFacts, request_id: str) -> Call:
    """Let a gateway place a hold for a call; return it."""
    with world.workspace.read() as tx:
        version = tx.session.scalars(select(CatalogVersion.version)).one()
    call = Call(request_id, facts, utc_now(), "openai", "chat/completions", stream=False)
    with closing(open_billing_store(world.workspace.store)) as billing_store:
        (placed,) = billing_store.run([Admit(call, fixed(1000), version, lifecycle.instance_id)])
    assert isinstance(placed, Admitted)
    return call


def facts_of_a_key(world: World) -> KeyFacts:
    """Return the facts of a new key."""
    digests = [digest.value for digest in world.workspace.keyring.digests(world.key().secret)]
    with world.workspace.read() as tx:
        facts = secret_lookup.find_live(tx, digests)
    assert facts is not None
    return facts


ENDING = Ending(Outcome.ABORTED, utc_now(), 499)


def test_a_call_whose_settlement_was_given_up_is_written_off_as_such(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been forwarded, so that its row must not say that it was not."""
    monkeypatch.setattr(lifecycle, "SETTLE_PATIENCE", 0.0)

    async def give_up() -> None:
        facts = facts_of_a_key(world)
        async with Kept(world, 6.0) as kept:
            kept.batcher.start()
            call = hold_for(world, kept.lifecycle, facts, "req_made")
            kept.lifecycle.open_calls[call.request_id] = None
            with refusing(world.workspace), pytest.raises(Unavailable):
                await kept.lifecycle.settle(call, ENDING)
            hold_for(world, kept.lifecycle, facts, "req_never_learnt_of")
            await asyncio.to_thread(wait_until, lambda: len(log(world.workspace)) == 2, "the holds to be written off")
            errors = {request_id: row.error for request_id, row in log(world.workspace).items()}
            assert errors == {"req_made": leases.UNSETTLED, "req_never_learnt_of": leases.FORGOTTEN}
            await asyncio.to_thread(wait_until, lambda: not kept.lifecycle.unsettled, "the call to be forgotten")
            await kept.batcher.stop()

    asyncio.run(give_up())


def test_a_settlement_that_fails_when_tried_again_is_told(world: World) -> None:
    """Whoever waits for it learns why, and the call is none that the gateway has."""

    async def fail() -> None:
        facts = facts_of_a_key(world)
        async with Kept(world, 60.0) as kept:
            kept.batcher.start()
            call = hold_for(world, kept.lifecycle, facts, "req_1")
            await kept.lifecycle.settle(call, ENDING)
            kept.lifecycle.open_calls[hold_for(world, kept.lifecycle, facts, "req_1").request_id] = None
            with refusing(world.workspace):
                settled = kept.lifecycle.settle(call, ENDING)
                await asyncio.to_thread(wait_until, lambda: kept.batcher.failed > 0, "the first try to fail")
            with pytest.raises((sqlite3.IntegrityError, psycopg.IntegrityError)):  # there is its row already
                await asyncio.wait_for(settled, 20)
            assert kept.lifecycle.open_calls == {}
            await kept.batcher.stop()
            with world.workspace.write() as tx:
                tx.session.execute(delete(OutboxRow))  # else nobody could write the call off

    asyncio.run(fail())
