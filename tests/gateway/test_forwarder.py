"""The way of one call, step by step of the loop: whatever ends it, and when, its hold ends with it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select
from starlette.types import Message

from tests.conftest import CREDENTIAL, World
from tests.gateway.conftest import raw_upstream
from tests.gateway.picky import picky, refusing
from tests.gateway.test_reader_pool import happens
from toolkit.admin.upstreams import update_upstream
from toolkit.billing.batcher import Batcher
from toolkit.billing.stores import open_billing_store
from toolkit.core import ids
from toolkit.core.dialect import Dialect
from toolkit.dialects.skim import LIGHT_SIZE
from toolkit.gateway import responses, stream_forwarder
from toolkit.gateway.added_fields import AddedFields
from toolkit.gateway.admission import AdmissionControl
from toolkit.gateway.answer_reading import AnswerReader
from toolkit.gateway.byte_blocks import BLOCK
from toolkit.gateway.call_ways import Ways
from toolkit.gateway.field_policy import UnknownNames
from toolkit.gateway.forwarder import Forwarder
from toolkit.gateway.incidents import Incidents
from toolkit.gateway.key_cache import KeyCache
from toolkit.gateway.lifecycle import CallLifecycle
from toolkit.gateway.reader_pool import ReaderPool
from toolkit.gateway.refusal_log import RefusalLog
from toolkit.gateway.request import CallRequest
from toolkit.gateway.stream_forwarder import StreamForwarder
from toolkit.gateway.upstream_exchange import Exchange
from toolkit.gateway.upstream_pool import UpstreamPool
from toolkit.store.tables import HoldRow, OutboxRow
from toolkit.store.tally import Tallies


class Counter:
    """What calls of one key need, in the running event loop.

    Args:
        world: whose key calls.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        workspace = world.workspace
        self.secret = world.key().secret
        self.batcher = Batcher(open_billing_store(workspace.store))
        tallies = Tallies(workspace.store)
        self.key_cache = KeyCache(workspace.store, workspace.keyring, self.batcher, tallies)
        log, unknown = RefusalLog(self.batcher, tallies), UnknownNames(tallies)
        self.lifecycle = CallLifecycle(self.key_cache, ids.new_id("gateway"))
        self.upstreams = UpstreamPool(workspace.settings)
        self.queues = self.upstreams.queues
        self.admissions = AdmissionControl(self.key_cache, self.lifecycle, log, unknown, Ways(), self.queues)
        self.lifecycle.lease = 1
        self.incidents = Incidents(tallies)
        self.added_fields = AddedFields(tallies, self.key_cache.now)
        self.readers = ReaderPool()
        self.intake = AnswerReader(self.readers, 10)

    async def __aenter__(self) -> "Counter":
        self.batcher.start()
        await self.key_cache.open()
        await self.upstreams.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.lifecycle.drain(0)
        await self.batcher.stop()
        await self.upstreams.close()
        self.readers.close()

    async def call(
        self,
        send: Callable[[Message], Awaitable[None]],
        *,
        stream: bool,
        secret: str = "",
        leaves: asyncio.Event | None = None,
    ) -> Forwarder:
        """Have a call admitted.

        Args:
            send: takes what its caller is sent.
            stream: whether it asks for one.
            secret: of its key; by default one for all.
            leaves: when its caller does; by default never.
        """
        gone = leaves or asyncio.Event()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        body = {"model": "gpt-test", "messages": [{"role": "user", "content": "hello"}], "stream": stream}
        digests = self.key_cache.digests(secret or self.secret)
        number = ids.new_request_id(0)
        asked = number, Dialect.OPENAI, "chat/completions", None
        request = CallRequest(*asked, digests, [], json.dumps(body).encode(), wants_sse=False)
        admission = await self.admissions.admit(request, await self.key_cache.key(digests), receive)
        way = request, admission, receive, send
        forwarder = StreamForwarder if stream else Forwarder
        known = self.incidents, self.added_fields
        return forwarder(self.lifecycle, self.upstreams, self.intake, *known, *way)  # type: ignore[arg-type]

    def held(self) -> list[str]:
        """Return the calls that hold money, in the store and by what the lifecycle knows."""
        with self.world.workspace.read() as tx:
            return [*tx.session.scalars(select(HoldRow.request_id)), *self.lifecycle.open_calls]

    def row(self) -> OutboxRow:
        """Return the call's row."""
        with self.world.workspace.read() as tx:
            return tx.session.scalars(select(OutboxRow)).one()


def run(world: World, work: Callable[[Counter], Awaitable[None]]) -> None:
    """Run something with a counter."""

    async def all_of_it() -> None:
        async with Counter(world) as counter:
            await work(counter)

    asyncio.run(all_of_it())


def test_a_stream_that_is_ended_before_its_first_step_is_settled(world: World) -> None:
    """The gateway stops, or its lease is lost, in the very turn of the loop in which the call begins."""
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def work(counter: Counter) -> None:
        forwarder = await counter.call(send, stream=True)
        caller = asyncio.create_task(forwarder.run())
        await asyncio.sleep(0)  # it makes the task that forwards, and no more
        counter.lifecycle.abort()
        await caller
        await counter.lifecycle.drain(0)
        assert counter.held() == []
        row = counter.row()
        assert (row.outcome, row.cost, row.error) == ("aborted", 0, "the gateway was stopped")
        assert sent[0]["status"] == 503

    run(world, work)


FINISHED = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
REPORTED = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}\n\n'


@pytest.mark.parametrize(
    "script",
    [[FINISHED, REPORTED, b"data: [DONE]\n\n"], [FINISHED, REPORTED], [FINISHED, b"data: [DONE]\n\n", REPORTED]],
)
def test_an_upstream_that_keeps_a_complete_stream_open_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch, script: list[bytes]
) -> None:
    """The answer is whole: its end is sent, and what was reported is charged."""
    monkeypatch.setenv("TEST_UPSTREAM_API_KEY", CREDENTIAL)
    monkeypatch.setattr(stream_forwarder, "AFTER_END", 0.3)
    monkeypatch.setattr(stream_forwarder, "AFTER_ANNOUNCED_END", 0.3)
    sent: list[Message] = []

    async def work(counter: Counter) -> None:
        async def send(message: Message) -> None:
            sent.append(message)

        async with asyncio.timeout(20):
            await (await counter.call(send, stream=True)).run()
        row = counter.row()
        assert (row.outcome, row.input_tokens, row.output_tokens) == ("completed", 10, 5)
        assert "after its end" in str(row.error)

    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    with raw_upstream([head, *script], linger=True) as upstream:
        with world.workspace.write() as tx:
            update_upstream(tx, "test-openai", base_url=upstream.url)
        run(world, work)
    assert b"".join(message.get("body", b"") for message in sent) == b"".join(
        part for part in script if part != REPORTED
    )
    assert sent[-1]["more_body"] is False


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_call_that_is_sent_again_has_no_more_time(
    world: World, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """However often a provider refuses a field: its time limit is that of the whole call, for which money is held."""
    monkeypatch.setenv("TEST_UPSTREAM_API_KEY", CREDENTIAL)

    async def work(counter: Counter) -> None:
        made: list[Exchange] = []
        exchange = counter.upstreams.exchange

        def noting(*asked: Any, upstream: str) -> Exchange:
            made.append(exchange(*asked, upstream=upstream))
            return made[-1]

        monkeypatch.setattr(counter.upstreams, "exchange", noting)
        await (await counter.call(_nobody, stream=stream)).run()
        assert len(made) > 1
        assert len({one.deadline for one in made}) == 1

    with picky(refusing("max_completion_tokens", "stream_options", "max_tokens")) as upstream:
        with world.workspace.write() as tx:
            update_upstream(tx, "test-openai", base_url=upstream.url)
        run(world, work)


async def _nobody(message: Message) -> None:
    """Take what a caller is sent."""


def test_a_whole_answer_that_is_ended_while_it_is_sent_gets_no_second_head(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has been charged; whoever does not get all of it sees the connection end."""
    monkeypatch.setenv("TEST_UPSTREAM_API_KEY", CREDENTIAL)
    heads: list[int] = []

    async def work(counter: Counter) -> None:
        sending = asyncio.Event()

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                heads.append(message["status"])
            elif message["more_body"]:
                sending.set()
                await asyncio.Event().wait()  # a caller who does not read

        forwarder = await counter.call(send, stream=False)
        caller = asyncio.create_task(forwarder.run())
        await sending.wait()
        counter.lifecycle.abort()
        await asyncio.wait({caller})
        assert counter.held() == []
        assert counter.row().outcome == "completed"

    run_with_large_answers(world, monkeypatch, work)
    assert heads == [200]


def test_a_caller_who_does_not_read_a_large_answer_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait for the room that it takes."""
    monkeypatch.setattr(responses, "FIRST", 0.1)
    monkeypatch.setattr(responses, "PACE", 1 << 30)

    async def work(counter: Counter) -> None:
        caller = asyncio.create_task((await counter.call(nobody_reads, stream=False)).run())
        await asyncio.wait({caller}, timeout=20)
        assert caller.done()
        assert counter.row().outcome == "completed"

    run_with_large_answers(world, monkeypatch, work)


def test_a_whole_answer_to_who_asked_for_a_stream_gets_no_signs_of_life(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slowly it is taken: it is no stream, and has its length."""
    sent: list[Message] = []

    async def work(counter: Counter) -> None:
        async def send(message: Message) -> None:
            sent.append(message)
            if message["type"] == "http.response.body":
                await forwarder._break_silence()  # type: ignore[attr-defined]

        forwarder = await counter.call(send, stream=True)
        await forwarder.run()

    run_with_large_answers(world, monkeypatch, work)
    lengths = dict(sent[0]["headers"])[b"content-length"]
    assert sum(len(message.get("body", b"")) for message in sent) == int(lengths)


def test_a_refusal_that_is_taken_slowly_gets_no_second_head(world: World) -> None:
    """The upstream cannot be asked, and silence comes before the caller has taken that."""
    sent: list[Message] = []

    async def work(counter: Counter) -> None:
        async def send(message: Message) -> None:
            sent.append(message)
            if len(sent) == 1:
                await forwarder._break_silence()  # type: ignore[attr-defined]

        forwarder = await counter.call(send, stream=True)
        await forwarder.run()

    run(world, work)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


def test_an_answer_that_does_not_say_its_size_takes_the_room_that_it_needs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it has come it may be as large as any; then many may wait for callers who read slowly."""

    async def work(counter: Counter) -> None:
        waits: list[Message] = []
        read: list[Message] = []

        async def waits_at_the_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                waits.append(message)
                await asyncio.Event().wait()

        slow = [asyncio.create_task((await counter.call(waits_at_the_body, stream=False)).run()) for _ in range(3)]
        await happens(lambda: len(waits) == len(slow))

        async def reads(message: Message) -> None:
            read.append(message)

        async with asyncio.timeout(20):
            await (await counter.call(reads, stream=False)).run()
        assert read[0]["status"] == 200
        assert read[-1]["more_body"] is False
        for caller in slow:
            caller.cancel()
        await asyncio.wait(slow)

    run_with_large_answers(world, monkeypatch, work)


async def nobody_reads(message: Message) -> None:
    """Take an answer's head and no more."""
    if message["type"] == "http.response.body":
        await asyncio.Event().wait()


def run_with_large_answers(
    world: World, monkeypatch: pytest.MonkeyPatch, work: Callable[[Counter], Awaitable[None]]
) -> None:
    """Run something with a counter whose upstream's answers are large, and do not say how large."""
    monkeypatch.setenv("TEST_UPSTREAM_API_KEY", CREDENTIAL)
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    answer = json.dumps({"id": "x", "choices": [], "usage": usage, "more": "x" * (LIGHT_SIZE + 2 * BLOCK)}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    with raw_upstream([head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(answer), answer)]) as upstream:
        with world.workspace.write() as tx:
            update_upstream(tx, "test-openai", base_url=upstream.url)
        run(world, work)
