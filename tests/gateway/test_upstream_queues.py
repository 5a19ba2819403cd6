"""Upstreams that take only so many calls at once: who waits, in which order, and what becomes of who waits in vain."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from starlette.types import Message

from tests.conftest import World
from tests.gateway.conftest import Gate, dialect_of, http_answer, raw_upstream
from tests.gateway.test_forwarder import Counter, run
from tests.gateway.test_several_upstreams import good, routed
from toolkit.admin.upstreams import update_upstream
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.upstream_traits import OnLeave
from toolkit.gateway.upstream_probe import Probe
from toolkit.gateway.upstream_queues import WAITING, Place, UpstreamQueues

ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


async def nobody(message: Message) -> None:
    """Take what a caller is sent."""


async def turn() -> None:
    """Let others go on."""
    await asyncio.sleep(0)


def test_a_flood_of_one_organisation_delays_another_by_one_call() -> None:
    """Whoever comes last has the place after the call under way and one more."""
    came: list[str] = []

    async def call(queues: UpstreamQueues, org: str) -> None:
        place = await queues.enter("u", 1, org)
        came.append(org)
        await turn()
        place.leave()

    async def work() -> None:
        queues = UpstreamQueues()
        await asyncio.gather(*[call(queues, org) for org in ["flood"] * 20 + ["other"]])

    asyncio.run(work())
    assert len(came) == 21
    assert came.index("other") <= 2


def test_upstreams_do_not_wait_for_each_other() -> None:
    """Each has its own places."""

    async def work() -> None:
        queues = UpstreamQueues(patience=0.01)
        await queues.enter("a", 1, "org")
        await queues.enter("b", 1, "org")
        with pytest.raises(Refusal):
            await queues.enter("a", 1, "org")

    asyncio.run(work())


def test_a_place_is_given_back_once() -> None:
    """However often it is left, no two get it."""

    async def work() -> None:
        queues = UpstreamQueues(patience=0.01)
        place = await queues.enter("u", 1, "org")
        for _ in range(3):
            place.leave()
        await queues.enter("u", 1, "org")
        with pytest.raises(Refusal):
            await queues.enter("u", 1, "org")

    asyncio.run(work())


def test_an_operator_may_change_the_bound_at_any_time() -> None:
    """More places serve who waits; of fewer nobody is thrown out, and who comes waits until enough have left."""

    async def work() -> None:
        queues = UpstreamQueues()
        first = await queues.enter("u", 1, "a")
        waiting = asyncio.ensure_future(queues.enter("u", 1, "a"))
        await turn()
        third = await queues.enter("u", 3, "b")
        second = await waiting
        late: asyncio.Future[Place] = asyncio.ensure_future(queues.enter("u", 1, "b"))
        for place in (first, second):
            await turn()
            assert not late.done()
            place.leave()
        await turn()
        assert not late.done()
        third.leave()
        await late

    asyncio.run(work())


def test_a_queue_has_an_end() -> None:
    """Who finds it full is refused at once, with when to try again."""

    async def work() -> None:
        queues = UpstreamQueues()
        await queues.enter("u", 1, "org")
        waiting = [asyncio.ensure_future(queues.enter("u", 1, "org")) for _ in range(WAITING)]
        await turn()
        with pytest.raises(Refusal, match="Try again shortly") as caught:
            await queues.enter("u", 1, "org")
        assert (caught.value.type, caught.value.status) == (RefusalType.UPSTREAM_OVERLOADED, 503)
        assert caught.value.headers == {"retry-after": "1"}
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

    asyncio.run(work())


# -- calls ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bounded(world: World) -> World:
    """A world whose upstream takes one call at once; nobody is there, so each fails."""
    with world.workspace.write() as tx:
        update_upstream(tx, "test-openai", max_connections=1)
    return world


async def until(condition: Callable[[], object]) -> None:
    """Let others go on until something is true."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("waited in vain")


@ways
def test_nothing_is_held_for_a_call_that_waits(bounded: World, stream: bool) -> None:
    """It gets its place, and its hold, when the call before it is over, however that ended."""

    async def work(counter: Counter) -> None:
        first = await counter.call(nobody, stream=stream)
        second = asyncio.ensure_future(counter.call(nobody, stream=stream))
        await until(lambda: counter.queues._turns["test-openai"]._queues)
        assert len(set(counter.held())) == 1
        await first.run()
        assert not counter.queues._turns["test-openai"]._queues
        await (await second).run()
        assert counter.held() == []
        assert not counter.queues._turns["test-openai"]._held

    run(bounded, work)


def test_a_call_that_waits_in_vain_is_refused_and_logged(bounded: World) -> None:
    """It never began: its row costs nothing, and says that the queue was full."""

    async def work(counter: Counter) -> None:
        counter.queues._patience = 0.01
        first = await counter.call(nobody, stream=False)
        with pytest.raises(Refusal) as caught:
            await counter.call(nobody, stream=False)
        assert caught.value.type is RefusalType.UPSTREAM_OVERLOADED
        row = counter.row()
        assert (row.outcome, row.refusal, row.status, row.cost, row.held) == (
            "queue_full",
            "upstream_overloaded",
            503,
            0,
            0,
        )
        await first.run()
        await (await counter.call(nobody, stream=False)).run()

    run(bounded, work)


@ways
def test_who_leaves_while_he_waits_waits_no_longer(bounded: World, stream: bool) -> None:
    """Nobody is called for him, nothing is held, and his place in the queue is free."""

    async def work(counter: Counter) -> None:
        counter.queues._patience = 600
        first, leaves = await counter.call(nobody, stream=False), asyncio.Event()
        second = asyncio.ensure_future(counter.call(nobody, stream=stream, leaves=leaves))
        await until(lambda: counter.queues._turns["test-openai"]._queues)
        leaves.set()
        with pytest.raises(Refusal):
            await asyncio.wait_for(second, 20)
        row = counter.row()
        assert (row.outcome, row.cost, row.held) == ("queue_full", 0, 0)
        assert set(counter.held()) == {first._call.request_id}
        assert not counter.queues._turns["test-openai"]._queues
        await first.run()
        await (await counter.call(nobody, stream=stream, leaves=leaves)).run()  # who finds a place need not stay

    run(bounded, work)


def test_a_place_that_comes_as_the_call_is_stopped_goes_to_the_next() -> None:
    """It is lost neither when the wait is cancelled nor when the caller leaves just then."""

    async def work() -> None:
        queues = UpstreamQueues()
        for ends in ("cancelled", "left"):
            place, leaves = await queues.enter("u", 1, "org"), asyncio.Event()

            async def receive(leaves: asyncio.Event = leaves) -> Message:
                await leaves.wait()
                return {"type": "http.disconnect"}

            waiting = asyncio.ensure_future(queues.enter("u", 1, "org", receive=receive))
            await turn()
            await turn()
            place.leave()
            leaves.set()
            if ends == "cancelled":
                waiting.cancel()
                await asyncio.wait({waiting})
            else:
                await asyncio.wait({waiting})
                if waiting.exception() is None:
                    waiting.result().leave()
            await turn()
            (await queues.enter("u", 1, "org")).leave()

    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_call_that_is_judged_anew_keeps_its_place(bounded: World) -> None:
    """The catalog changes while it waits, as it does for all that wait: none of them begins anew at the end."""

    async def work(counter: Counter) -> None:
        first = await counter.call(nobody, stream=False)
        entered = count_calls(counter.queues)
        second = asyncio.ensure_future(counter.call(nobody, stream=False))
        await until(lambda: counter.queues._turns["test-openai"]._queues)
        with bounded.workspace.write() as tx:
            update_upstream(tx, "test-openai", on_leave=OnLeave.READ_ON)
        await first.run()
        await (await second).run()
        assert entered == ["test-openai"]

    run(bounded, work)


def count_calls(queues: UpstreamQueues) -> list[str]:
    """Return a list to which each call to enter a queue adds the upstream."""
    entered: list[str] = []
    enter = queues.enter

    async def counting(upstream: str, *asked: Any, **more: Any) -> Place:
        entered.append(upstream)
        return await enter(upstream, *asked, **more)

    queues.enter = counting  # type: ignore[method-assign]
    return entered


def test_a_call_that_is_not_admitted_leaves_its_place(bounded: World) -> None:
    """As one whose gateway lost its lease meanwhile."""

    async def work(counter: Counter) -> None:
        lease = counter.lifecycle.current_lease
        counter.lifecycle.current_lease = lambda: lease() + 1  # type: ignore[method-assign]  # it is another by then
        with pytest.raises(Exception, match="lease"):
            await counter.call(nobody, stream=False)
        assert not counter.queues._turns["test-openai"]._held

    run(bounded, work)


def test_a_stream_that_is_ended_before_its_first_step_leaves_its_place(bounded: World) -> None:
    """The gateway stops, or its lease is lost, in the very turn of the loop in which the call begins."""

    async def work(counter: Counter) -> None:
        forwarder = await counter.call(nobody, stream=True)
        caller = asyncio.create_task(forwarder.run())
        await turn()
        counter.lifecycle.abort()
        await caller
        assert not counter.queues._turns["test-openai"]._held

    run(bounded, work)


def test_a_test_of_an_upstream_takes_the_places_of_calls(bounded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for them as calls do, and gives them back."""
    monkeypatch.setenv("TEST_UPSTREAM_API_KEY", "anything")

    async def work(counter: Counter) -> None:
        counter.queues._patience = 0.01
        first = await counter.call(nobody, stream=False)
        probe = Probe(counter.upstreams, first._admission.model, counter.key_cache.now())
        found = await probe.run()
        said = [found.listing_said, *(call.said for call in found.calls)]
        assert all("As many calls are under way" in str(words) for words in said)
        await first.run()
        found = await probe.run()
        said = [found.listing_said, *(call.said for call in found.calls)]
        assert not any("As many calls are under way" in str(words) for words in said)
        assert not counter.queues._turns["test-openai"]._held

    run(bounded, work)


def test_calls_through_the_gateway_have_their_turn(gate: Gate) -> None:
    """One after the other, whole and streamed, over an upstream that takes one at once."""
    answer = http_answer(b'{"id":"x","choices":[]}', "Content-Type: application/json")
    with raw_upstream([answer]) as upstream:
        behind = gate.behind(upstream.url, max_connections=1)
        assert [behind.ask("chat", stream=stream).status for stream in (False, True) * 2] == [200] * 4


def test_of_several_upstreams_one_that_is_full_is_passed_by(gate: Gate) -> None:
    """Nobody waits while another one has room; and a full one has not failed: the next call goes there again."""
    came, go = threading.Event(), threading.Event()
    slow: list[bytes | Callable[[], object]] = [came.set, partial(go.wait, 20), good()]
    with raw_upstream(slow) as first, raw_upstream([good()]) as second, ThreadPoolExecutor(1) as callers:
        behind = routed(gate, first.url, second.url, max_connections=1)
        waiting = callers.submit(behind.ask, "chat")
        assert came.wait(20)
        assert behind.ask("chat").status == 200
        go.set()
        assert waiting.result().status == 200
        assert (len(first.requests), len(second.requests)) == (1, 1)
        assert behind.ask("chat").status == 200
        assert (len(first.requests), len(second.requests)) == (2, 1)


@pytest.mark.world
@pytest.mark.parametrize("kind", ["chat", "messages", "generate"])
@ways
def test_who_waits_in_vain_is_told_in_the_dialects_form(gate: Gate, kind: str, stream: bool) -> None:
    """With when to ask again, and without a word against asking; nothing is held or charged for it."""
    came, go = threading.Event(), threading.Event()
    slow: list[bytes | Callable[[], object]] = [came.set, partial(go.wait, 20), good(kind)]
    with raw_upstream(slow) as upstream, ThreadPoolExecutor(1) as callers:
        behind = gate.behind(upstream.url, dialect_of(kind), max_connections=1)
        waiting = callers.submit(behind.ask, kind)
        assert came.wait(20)
        reply = behind.ask(kind, stream=stream)
        go.set()
        assert waiting.result().status == 200
        assert len(upstream.requests) == 1
    assert (reply.status, reply.type, reply.headers["retry-after"]) == (503, "upstream_overloaded", "1")
    assert "x-should-retry" not in reply.headers
    outcomes = {row.request_id: (row.outcome, row.cost, row.held) for row in behind.gate.rows()}
    assert outcomes[reply.request_id] == ("queue_full", 0, 0)
