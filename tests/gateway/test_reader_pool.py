"""The processes that read large bodies: what happens to a call when one dies, grows, or is wanted by many."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import World, wait_until
from tests.gateway.conftest import Gate, make_gate
from toolkit.admin import secret_lookup
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType
from toolkit.dialects import MODULES
from toolkit.dialects.body import dump_object, parse_object
from toolkit.gateway import reader_pool
from toolkit.gateway.byte_blocks import BLOCK, ByteBlocks
from toolkit.gateway.fair_turns import FairTurns
from toolkit.gateway.large_bodies import LargeBodies
from toolkit.gateway.reader_pool import Inspection, Reader, ReaderPool
from toolkit.gateway.reader_process import read_request

T = TypeVar("T")

CHAT: dict[str, Any] = {"dialect": Dialect.OPENAI, "endpoint": "chat/completions", "model": None, "headers": []}
BODY = {"model": "a", "messages": [{"role": "user", "content": "x" * 1_000_000}], "user": "u\ud800"}
CHANGES: dict[str, Any] = {"upstream_model": "b", "output_bound": 5, "include_usage": False}


def run(work: Callable[[ReaderPool], Awaitable[T]]) -> T:
    """Run something with processes that are ended afterwards."""

    async def all_of_it() -> T:
        own = ReaderPool()
        try:
            return await work(own)
        finally:
            own.close()

    return asyncio.run(all_of_it())


async def happens(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)


def blocks_of(body: bytes) -> list[bytes]:
    """Return a body in blocks."""
    blocks = ByteBlocks()
    blocks.add(body)
    return blocks.take()


def inspected(own: ReaderPool, body: bytes, **changes: Any) -> Coroutine[Any, Any, Any]:
    """Have a body inspected by a process of its own organisation; return what keeps it and what came of it."""

    async def work() -> Any:
        inspection = Inspection(own, "org")
        return inspection, *await inspection.inspect(blocks_of(body), **CHAT | changes)

    return work()


def test_a_body_that_is_read_again_takes_one_process() -> None:
    """Else the first would never be given back."""
    raw = json.dumps(BODY).encode()

    async def work(own: ReaderPool) -> None:
        inspection, *_ = await inspected(own, raw)
        await inspection.inspect(blocks_of(raw), **CHAT)
        await inspection.rewrite(**CHANGES)
        assert not own._busy

    run(work)


def test_a_process_reads_as_the_gateway_does() -> None:
    """Shape, tags and the changed body are those of reading it here; half a surrogate pair goes through."""
    raw = json.dumps(BODY).encode()

    async def work(own: ReaderPool) -> None:
        inspection, shape, tagged = await inspected(own, raw, headers=[(b"x-keydesk-tags", b"team=a")])
        here = read_request(Dialect.OPENAI, "chat/completions", None, [(b"x-keydesk-tags", b"team=a")], raw)
        assert (shape, tagged) == (here.shape, here.tags)
        changed = MODULES[Dialect.OPENAI].rewrite("chat/completions", parse_object(raw), **CHANGES)
        assert changed is not None
        assert b"".join(await inspection.rewrite(**CHANGES)) == dump_object(changed)
        inspection, *_ = await inspected(own, raw)
        same = {"upstream_model": "a", "output_bound": None, "include_usage": False}
        assert await inspection.rewrite(**same) is None
        assert len(own.pids) == 1  # one process did it all

    run(work)


def test_a_refusal_comes_back_as_it_is_here() -> None:
    """Type, message and field are those of reading it here, and the process goes on."""

    async def work(own: ReaderPool) -> None:
        for body in (b'{"a":1,"a":2}', b'{"model":"m","messages":[],"store":true}', b"\xff", b""):
            with pytest.raises(Refusal) as here:
                read_request(Dialect.OPENAI, "chat/completions", None, [], body)
            with pytest.raises(Refusal) as there:
                await inspected(own, body)
            assert vars(there.value) == vars(here.value)
        assert len(own.pids) == 1

    run(work)


def test_a_process_makes_way_for_the_loop() -> None:
    """Where they share a processor, callers whose bodies are small do not wait for it."""

    async def work(own: ReaderPool) -> None:
        inspection, *_ = await inspected(own, json.dumps(BODY).encode())
        (pid,) = own.pids
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(os.getpriority(os.PRIO_PROCESS, 0) + reader_pool.NICE, 19)
        await inspection.forget()

    run(work)


def test_no_credential_is_shown_to_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the headers that it reads, and of the environment what Python itself needs."""
    monkeypatch.setenv("SOME_API_KEY", "secret")
    asked: list[Any] = []
    ask = Reader.ask

    async def noted(reader: Reader, what: str, *rest: Any, **arguments: Any) -> Any:
        asked.append(arguments.get("headers"))
        environment = Path(f"/proc/{reader.pid}/environ").read_bytes()  # noqa: ASYNC240
        assert b"SOME_API_KEY" not in environment
        return await ask(reader, what, *rest, **arguments)

    monkeypatch.setattr(Reader, "ask", noted)
    headers = [(b"authorization", b"Bearer sk"), (b"x-api-key", b"sk"), (b"anthropic-beta", b"b"), (b"cookie", b"c")]
    run(lambda own: inspected(own, json.dumps(BODY).encode(), headers=headers))
    assert asked == [[(b"anthropic-beta", b"b")]]


def test_a_process_that_is_killed_fails_its_call_and_no_other() -> None:
    """The call that it worked for is told so; the next one gets another process."""

    async def work(own: ReaderPool) -> None:
        inspection, *_ = await inspected(own, json.dumps(BODY).encode())
        (pid,) = own.pids
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Refusal) as caught:
            await inspection.rewrite(**CHANGES)
        assert caught.value.type is RefusalType.UNAVAILABLE
        await inspected(own, json.dumps(BODY).encode())
        assert own.pids not in ([], [pid])

    run(work)


def test_an_idle_process_that_was_killed_is_replaced() -> None:
    """Nobody notices."""

    async def work(own: ReaderPool) -> None:
        for _ in range(2):
            inspection, *_ = await inspected(own, json.dumps(BODY).encode())
            await inspection.forget()
            (pid,) = own.pids
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222

    run(work)


def test_a_body_that_takes_too_long_is_refused_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel ends the process by its own CPU time; sending it again would not help, so it is no 503."""
    begin = reader_pool._begin

    async def slow() -> Reader:
        reader = await begin()
        reader._process.send_signal(signal.SIGPROF)  # as its timer does
        return reader

    monkeypatch.setattr(reader_pool, "_begin", slow)
    with pytest.raises(Refusal) as caught:
        run(lambda own: inspected(own, json.dumps(BODY).encode()))
    assert caught.value.type is RefusalType.INVALID_REQUEST
    assert "Send less" in caught.value.message


def test_a_process_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call does not hang with it."""
    monkeypatch.setattr(reader_pool, "PATIENCE", 0.2)
    begin = reader_pool._begin

    async def stopped() -> Reader:
        reader = await begin()
        os.kill(reader.pid, signal.SIGSTOP)
        return reader

    monkeypatch.setattr(reader_pool, "_begin", stopped)

    async def work(own: ReaderPool) -> None:
        with pytest.raises(Refusal) as caught:
            await inspected(own, json.dumps(BODY).encode())
        assert caught.value.type is RefusalType.UNAVAILABLE
        assert own.pids == []

    run(work)


def test_a_process_that_has_grown_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so itself once its work is done, and its memory comes back with it."""

    async def work(own: ReaderPool, *, grows: bool) -> None:
        raw = json.dumps(BODY).encode()
        (inspection, *_), (pid,) = await inspected(own, raw), own.pids
        await inspection.rewrite(**CHANGES)
        assert own.pids == ([] if grows else [pid])
        with pytest.raises(Refusal):
            await inspected(own, b"no JSON" * 100_000)
        assert len(own.pids) == (0 if grows else 1)

    run(partial(work, grows=False))
    begin = subprocess.Popen

    def small(arguments: list[str], **options: Any) -> Any:
        return begin(
            [*arguments[:2], "import toolkit.gateway.reader_process as r; r.LARGEST = 1; " + arguments[2]], **options
        )

    monkeypatch.setattr("toolkit.gateway.reader_pool.subprocess.Popen", small)
    run(partial(work, grows=True))


def test_an_idle_process_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without work there is none."""
    monkeypatch.setattr(reader_pool, "IDLE", 0.1)

    async def work(own: ReaderPool) -> None:
        inspection, *_ = await inspected(own, json.dumps(BODY).encode())
        await inspection.forget()
        await happens(lambda: not own.pids)

    run(work)


def test_a_call_that_is_given_up_leaves_no_half_question() -> None:
    """Its process is ended, since it waits for the rest of a body."""

    async def work(own: ReaderPool) -> None:
        task = asyncio.ensure_future(inspected(own, json.dumps(BODY).encode()))
        await happens(lambda: own._busy)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert own.pids == []
        await inspected(own, json.dumps(BODY).encode())

    run(work)


def test_a_process_ends_with_its_gateway() -> None:
    """Its socket closes, and that is its end."""

    async def work(own: ReaderPool) -> list[int]:
        await inspected(own, json.dumps(BODY).encode())
        return own.pids

    (pid,) = run(work)
    wait_until(
        lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes(), "its end"
    )


# -- turns ------------------------------------------------------------------------------------------------------


def order_of(asked: list[tuple[str, int]], turns: FairTurns) -> list[str]:
    """Have parts asked for at once, each given back when it has come; return who got theirs, in order.

    Args:
        asked: by whom, an organisation or one of its keys ("org/key"), and how much.
        turns: what there is.
    """
    got: list[str] = []

    async def one(who: str, part: int) -> None:
        org, _, key = who.partition("/")
        await turns.take(org, part, key)
        got.append(who)
        await asyncio.sleep(0)
        turns.give(org, part)

    async def work() -> None:
        await asyncio.gather(*(one(org, part) for org, part in asked))

    asyncio.run(work())
    return got


def test_a_flood_of_one_organisation_delays_another_by_one_turn() -> None:
    """Whoever comes last gets theirs after the one under way and one more."""
    got = order_of([("flood", 1)] * 50 + [("other", 1)], FairTurns(1, 1, waiting=100, patience=10, what="x"))
    assert got.index("other") <= 2
    assert len(got) == 51


def test_a_flood_of_one_key_delays_another_key_of_its_organisation_by_one_turn() -> None:
    """Organisations take turns, and within each of them its keys do."""
    asked = [("org/flood", 1)] * 50 + [("org/other", 1), ("third/key", 1)]
    got = order_of(asked, FairTurns(1, 1, waiting=100, patience=10, what="x"))
    assert got.index("third/key") <= 2
    assert got.index("org/other") <= 3
    assert len(got) == 52


def test_of_a_full_queue_the_newest_of_the_greediest_key_makes_room() -> None:
    """So that one key keeps no other of its organisation out; it is refused itself once it is the greediest."""

    async def work() -> None:
        turns = FairTurns(1, 1, waiting=4, patience=10, what="x")
        await turns.take("org", 1, "flood")
        flood = [asyncio.ensure_future(turns.take("org", 1, "flood")) for _ in range(4)]
        await asyncio.sleep(0)
        other = [asyncio.ensure_future(turns.take("org", 1, "other")) for _ in range(2)]
        await asyncio.sleep(0)
        for refused in flood[2:]:
            with pytest.raises(Refusal):
                await refused
        for key in ("other", "flood"):
            with pytest.raises(Refusal):
                await turns.take("org", 1, key)
        for waiting in (flood[0], other[0], flood[1], other[1]):
            turns.give("org", 1)
            await waiting
        turns.give("org", 1)
        assert (turns._free, turns._held, turns._queues) == (1, {}, {})

    asyncio.run(work())


def test_who_gives_up_leaves_the_queue_at_once() -> None:
    """Also from its middle: what is left there keeps nobody out."""

    async def work() -> None:
        turns = FairTurns(1, 1, waiting=3, patience=10, what="x")
        await turns.take("a", 1)
        waiting = [asyncio.ensure_future(turns.take("a", 1)) for _ in range(3)]
        await asyncio.sleep(0)
        for task in waiting[1:]:
            task.cancel()
        await asyncio.wait(waiting[1:])
        late = [asyncio.ensure_future(turns.take("a", 1)) for _ in range(2)]
        await asyncio.sleep(0)
        for task in (waiting[0], *late):
            turns.give("a", 1)
            await task

    asyncio.run(work())


def test_one_organisation_leaves_room_for_others() -> None:
    """It never has more than its share, though more is free."""

    async def work() -> None:
        turns = FairTurns(8, 4, waiting=100, patience=0.05, what="large bodies")
        await turns.take("a", 4)
        with pytest.raises(Refusal, match="large bodies"):
            await turns.take("a", 1)
        await turns.take("b", 4)
        turns.give("a", 4)
        await turns.take("a", 1)

    asyncio.run(work())


def test_too_many_that_wait_are_refused_at_once() -> None:
    """A queue has an end."""

    async def work() -> None:
        turns = FairTurns(1, 1, waiting=2, patience=10, what="x")
        await turns.take("a", 1)
        waiting = [asyncio.ensure_future(turns.take("a", 1)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal):
            await turns.take("a", 1)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        turns.give("a", 1)
        await turns.take("a", 1)

    asyncio.run(work())


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "b/1", "b/2", "c/1"]), st.integers(1, 4)), max_size=30),
    st.integers(4, 8),
)
def test_everybody_gets_their_part_and_it_comes_back(asked: list[tuple[str, int]], amount: int) -> None:
    """Nobody is forgotten, whatever the sizes, and in the end all is free again."""
    turns = FairTurns(amount, 4, waiting=100, patience=10, what="x")
    assert sorted(order_of(asked, turns)) == sorted(org for org, _ in asked)
    assert (turns._free, turns._held, turns._queues) == (amount, {}, {})


@given(st.lists(st.binary(max_size=5_000).map(lambda part: part * 50), max_size=10))
def test_blocks_hold_what_came(parts: list[bytes]) -> None:
    """In order, whatever the sizes; no block is much larger than it should be."""
    blocks = ByteBlocks()
    for part in parts:
        blocks.add(part)
    assert blocks.size == sum(map(len, parts))
    taken = blocks.take()
    assert b"".join(taken) == b"".join(parts)
    assert max(map(len, taken), default=0) <= BLOCK + 250_000


# -- through the gateway --------------------------------------------------------------------------------------------


def large(gate: Gate, **fields: Any) -> Any:
    """Send a large body."""
    return gate.ask("chat", "x" * 1_000_000, **fields)


@pytest.mark.parametrize("kind", ["chat", "responses", "messages", "generate", "array"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_large_body_is_forwarded_as_a_small_one_is(gate: Gate, kind: str, *, stream: bool) -> None:
    """The provider gets what the caller sent, with what policy changes, and it is charged."""
    text = "[[demo input=7 cached=0 tokens=3]]" + "ä" * 200_000
    reply = gate.ask(kind, text, stream=stream)
    assert reply.status == 200
    witness = gate.witness(reply.request_id)
    assert witness is not None
    if kind != "messages":  # whose body the demo upstream does not keep
        assert text in json.dumps(witness["body"], ensure_ascii=False)
    assert gate.row().outcome == "completed"
    assert (gate.row().input_tokens, gate.row().output_tokens) == (7, 3)


@pytest.mark.world
def test_the_gateway_is_killed_and_its_processes_with_it(running: Any) -> None:
    """No process outlives a gateway that was killed."""
    gate = make_gate(running)
    assert large(gate).status == 200
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
    assert children
    running.process.kill()
    running.process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "the readers' end")


def test_a_body_that_did_not_say_its_size_takes_the_room_that_it_needs(world: World) -> None:
    """Until it has come it may be as large as any; then others may come beside it."""
    digests = [digest.value for digest in world.workspace.keyring.digests(world.key().secret)]
    with world.workspace.read() as tx:
        key = secret_lookup.find_live(tx, digests)
    assert key is not None

    async def work(own: ReaderPool) -> None:
        bodies = LargeBodies(1_000, own)
        text = json.dumps(BODY | {"messages": [{"role": "user", "content": "hi"}]}).encode()
        async with asyncio.timeout(20):
            for _ in range(10):  # four of the largest are an organisation's share
                body = await bodies.begin(key, 1_000)
                body.add(text)
                await body.inspect(Dialect.OPENAI, "chat/completions", None, [])
                await body.rewrite(**CHANGES)

    run(work)
