"""Streams pass as they come, end only after the charge, and cost a caller who leaves what was produced until then."""

import http.client
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.conftest import ADMIN, Running, free_port, gateway_process, make_world, wait_until
from tests.gateway.conftest import (
    KINDS,
    Gate,
    http_answer,
    make_gate,
    raw_upstream,
    request_of,
)
from toolkit import environment
from toolkit.core.dialect import Dialect
from toolkit.workspace import Workspace

SLOW = "Tell me about budgets [[demo tokens=400 chunk_delay=0.1]]"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def chunk(text: str, **fields: Any) -> bytes:
    """Return one event of a chat stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return b"data: " + json.dumps({"id": "chat-1", "choices": [choice], **fields}).encode() + b"\n\n"


FINISH = b'data: {"id":"chat-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"chat-1","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"


def hang_up(connection: http.client.HTTPConnection, answer: http.client.HTTPResponse | None = None) -> None:
    """Leave as an app that is killed does: at once, whatever is still on its way."""
    if answer is not None:
        answer.close()
    if connection.sock is not None:
        connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()


# -- passing on ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_first_byte_comes_before_the_upstream_has_finished(gate: Gate, kind: str) -> None:
    """With a slow upstream the first part is here while the upstream is still at work; what is left is charged."""
    with gate.streaming(kind, SLOW) as (connection, answer):
        first = answer.read1(65_536)
        witness = gate.witness(answer.headers["x-request-id"])
        assert first
        assert witness is not None
        assert witness["state"] == "running"
        assert gate.rows() == []
        assert gate.totals()[1] > 0
        hang_up(connection, answer)
    wait_until(gate.rows, "the row of a caller who left")


def test_every_event_passes_at_once(gate: Gate) -> None:
    """An event is not held back until the next one: the upstream waits for the caller to have seen each."""
    seen = [threading.Event() for _ in range(4)]
    script: list[bytes | Callable[[], object]] = [EVENTS]
    for number, event in enumerate(seen):
        script += [chunk(f"part {number}"), partial(event.wait, 10)]
    with raw_upstream([*script, FINISH, USAGE, DONE]) as upstream:
        behind = gate.behind(upstream.url)
        with behind.gate.streaming("chat", "hi", model=behind.model) as (_, answer):
            for number, event in enumerate(seen):
                assert f"part {number}".encode() in answer.read1(65_536)
                event.set()
            rest = answer.read()
    assert rest == FINISH + DONE


def test_events_cut_anywhere_pass_whole(gate: Gate) -> None:
    """An upstream may send a byte at a time: the caller gets the same bytes."""
    body = chunk("é模") + FINISH + DONE
    script = [EVENTS, *[bytes([byte]) for byte in body]]
    with raw_upstream(script) as upstream:
        reply = gate.behind(upstream.url).ask("chat", stream=True)
    assert reply.body == body


@pytest.mark.parametrize("kind", KINDS)
def test_who_has_read_the_end_has_been_charged(gate: Gate, kind: str) -> None:
    """The moment the end of a stream has been read, its charge is in the store; twenty times in a row."""
    for number in range(1, 21):
        with gate.streaming(kind, "[[demo tokens=4]]") as (_, answer):
            answer.read()
            rows = gate.rows()
        assert len(rows) == number
        assert gate.totals() == (sum(row.cost for row in rows), 0)


def test_end_is_held_back_until_the_charge(gate: Gate) -> None:
    """While another writer keeps the store busy, all but the last event has come; the last waits for the commit."""
    locked = threading.Event()
    with raw_upstream([EVENTS, chunk("hello"), partial(locked.wait, 10), FINISH, USAGE, DONE]) as upstream:
        behind = gate.behind(upstream.url)
        with behind.gate.streaming("chat", "hi", model=behind.model) as (connection, answer):
            body = answer.read1(65_536)
            with gate.workspace.write() as tx:
                tx.session.execute(text("SELECT 1"))  # a transaction begins with its first statement
                locked.set()
                while not body.endswith(FINISH):
                    body += answer.read1(65_536)
                assert select.select([connection.sock], [], [], 0.3)[0] == []
            assert answer.read() == DONE
        assert behind.gate.row().outcome == "completed"


def test_whole_answer_comes_after_the_charge(gate: Gate) -> None:
    """The same for an answer in one piece."""
    for number in range(1, 21):
        assert gate.ask("chat", "[[demo tokens=4]]").status == 200
        assert len(gate.rows()) == number


def test_stream_without_its_last_event_but_whole(gate: Gate) -> None:
    """Some servers never send [DONE]: when every choice has finished, the stream is whole."""
    with raw_upstream([EVENTS, chunk("hello"), FINISH, USAGE]) as upstream:
        behind = gate.behind(upstream.url)
        reply = behind.ask("chat", stream=True)
    assert reply.body == chunk("hello") + FINISH
    assert behind.gate.row().outcome == "completed"


# -- callers who leave ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_caller_who_leaves_mid_stream(gate: Gate, kind: str) -> None:
    """The upstream call ends, and what was produced is charged: no more than was sent, no less than was read."""
    with gate.streaming(kind, SLOW) as (connection, answer):
        body = b""
        while len(body) < 2_400:  # the Responses API says much before its first word
            body += answer.read1(65_536)
        hang_up(connection, answer)
    wait_until(gate.rows, "the row of a caller who left")
    row = gate.row()
    request_id = answer.headers["x-request-id"]

    def disconnected() -> bool:
        witness = gate.witness(request_id)
        return witness is not None and witness["state"] == "disconnected"

    wait_until(disconnected, "the upstream to notice")
    witness = gate.witness(request_id)
    assert witness is not None
    assert witness["tokens_sent"] < 400
    assert (row.outcome, row.status, row.usage_source) == ("aborted", 499, "estimated")
    assert row.cost > 0
    # A token of the demo upstream is about four bytes, and so is the estimate.
    assert 1 <= row.output_tokens <= witness["tokens_sent"] * 2 + 8
    assert row.input_tokens > 0
    assert gate.totals() == (row.cost, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_caller_who_leaves_before_the_first_byte(gate: Gate, kind: str) -> None:
    """The request had been sent, so its estimated input is charged, and the upstream call ends."""
    path, body = request_of(kind, "[[demo delay=20]]", stream=True)
    with gate.connection() as connection:
        connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {gate.secret}"})
        wait_until(gate.held_calls, "the hold")
        wait_until(lambda: gate.witness(gate.held_calls()[0]), "the request to have been forwarded")
        hang_up(connection)
    wait_until(gate.rows, "the row of a caller who left")
    row = gate.row()
    assert (row.outcome, row.output_tokens, row.usage_source) == ("aborted", 0, "estimated")
    assert row.input_tokens == -(-len(json.dumps(body)) // 4)
    assert gate.totals() == (row.cost, 0)
    wait_until(lambda: (gate.witness(row.request_id) or {}).get("state") == "disconnected", "the upstream to notice")


@pytest.mark.parametrize("kind", KINDS)
def test_caller_who_leaves_a_whole_call(gate: Gate, kind: str) -> None:
    """The upstream may finish, and its real usage is charged."""
    path, body = request_of(kind, "[[demo delay=0.7 input=1000 cached=0 tokens=100]]")
    with gate.connection() as connection:
        connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {gate.secret}"})
        wait_until(lambda: gate.totals()[1] > 0, "the hold")
        hang_up(connection)
    wait_until(gate.rows, "the row of a caller who left")
    row = gate.row()
    assert (row.outcome, row.usage_source) == ("completed", "reported")
    assert (row.input_tokens, row.output_tokens) == (1000, 100)
    assert gate.totals() == (row.cost, 0)


def test_input_that_a_stream_reported_at_its_start_is_charged_to_who_left(gate: Gate) -> None:
    """Anthropic reports the input first: a caller who leaves before any word pays that, not an estimate."""
    usage = {"input_tokens": 1000, "cache_read_input_tokens": 500, "output_tokens": 0}
    start = {"type": "message_start", "message": {"id": "msg_1", "type": "message", "usage": usage}}
    event = b"event: message_start\ndata: " + json.dumps(start).encode() + b"\n\n"
    with raw_upstream([EVENTS, event], linger=True) as upstream:
        behind = gate.behind(upstream.url, Dialect.ANTHROPIC)
        with behind.gate.streaming("messages", "hi", model=behind.model) as (connection, answer):
            assert answer.read1(65_536) == event
            hang_up(connection, answer)
        assert upstream.hung_up.wait(60)
        wait_until(behind.gate.rows, "the row of a caller who left")
    row = behind.gate.row()
    assert (row.input_tokens, row.cached_input_tokens, row.response_id) == (1500, 500, "msg_1")
    assert row.cost == 1000 * 1_000 + 500 * 250


def test_caller_who_leaves_when_the_answer_was_complete(gate: Gate) -> None:
    """All but the end of the body had come: the usage that was reported is charged."""
    with raw_upstream([EVENTS, chunk("hello") + FINISH + USAGE + DONE], linger=True) as upstream:
        behind = gate.behind(upstream.url)
        with behind.gate.streaming("chat", "hi", model=behind.model) as (connection, answer):
            body = b""
            while FINISH not in body:
                body += answer.read1(65_536)
            hang_up(connection, answer)
        wait_until(behind.gate.rows, "the row of a caller who left")
    row = behind.gate.row()
    assert (row.usage_source, row.input_tokens, row.output_tokens) == ("reported", 10, 5)


def test_many_callers_who_leave_at_random(gate: Gate) -> None:
    """Thirty callers leave at thirty moments: every call has one row, and nothing stays held."""

    def call(number: int) -> None:
        path, body = request_of(KINDS[number % 5], "[[demo tokens=60 chunk_delay=0.01]]", stream=number % 4 != 0)
        with gate.connection() as connection:
            connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {gate.secret}"})
            time.sleep(number * 0.01)  # at any moment: the test holds for each
            hang_up(connection)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: gate.totals()[1] == 0, "the last hold to be released")
    rows = gate.rows()
    assert len({row.request_id for row in rows}) == len(rows)
    assert gate.totals() == (sum(row.cost for row in rows), 0)


# -- time limits ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway that waits 0.8 seconds for a first byte and between two, and two seconds for a call."""
    folder: Path = tmp_path_factory.mktemp("impatient")
    settings = replace(environment.read_settings({"KEYDESK_DATA_DIR": str(folder / "data")}), gateway_port=free_port())
    workspace = Workspace.open(settings, ADMIN, make=True)
    world = make_world(workspace, upstream)
    log = folder / "gateway.log"
    limits = {
        "KEYDESK_FIRST_BYTE_TIMEOUT": "1.5",
        "KEYDESK_IDLE_TIMEOUT": "1.5",
        "KEYDESK_CALL_TIMEOUT": "3",
    }
    with gateway_process(settings, log, limits) as server:
        yield Running(world, f"http://127.0.0.1:{settings.gateway_port}", upstream, log, server)
    workspace.close()


@pytest.fixture
def hasty(impatient: Running) -> Gate:
    """A fresh key at the impatient gateway."""
    return make_gate(impatient)


@pytest.mark.world
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", ["chat", "messages", "generate"])
def test_upstream_that_does_not_answer_in_time(hasty: Gate, kind: str, stream: bool) -> None:
    """504 `upstream_timeout`, not to be tried again, not charged."""
    reply = hasty.ask(kind, "[[demo delay=20]]", stream=stream)
    row = hasty.row()
    assert (reply.status, reply.type) == (504, "upstream_timeout")
    assert reply.headers["x-should-retry"] == "false"
    assert (row.outcome, row.refusal, row.cost) == ("upstream_error", "upstream_timeout", 0)
    assert hasty.totals() == (0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_upstream_that_pauses_too_long(hasty: Gate, kind: str) -> None:
    """A stream that stalls ends with the dialect's error, and what came before is charged."""
    reply = hasty.ask(kind, "[[demo tokens=40 chunk_delay=30]]", stream=True)
    row = hasty.row()
    assert b"did not answer in time" in reply.body
    assert (row.outcome, row.refusal) == ("upstream_error", "upstream_timeout")
    assert 0 < row.output_tokens <= 8
    assert hasty.totals() == (row.cost, 0)


def test_whole_answer_that_pauses_too_long(hasty: Gate) -> None:
    """A plain answer that stalls half-way is a 504, not charged."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with raw_upstream([head], linger=True) as upstream:
        reply = hasty.behind(upstream.url).ask("chat")
    assert (reply.status, reply.type) == (504, "upstream_timeout")


def test_call_that_takes_too_long(hasty: Gate) -> None:
    """A stream that never pauses but never ends is given up when the time for a whole call is over."""
    reply = hasty.ask("chat", "[[demo tokens=4000 chunk_delay=0.1]]", stream=True)
    row = hasty.row()
    assert b"did not answer in time" in reply.body
    assert row.duration_ms is not None
    assert row.duration_ms >= 2_900


@pytest.mark.world
def test_caller_who_stops_reading(hasty: Gate) -> None:
    """A caller who neither reads nor leaves does not keep a hold for ever."""
    event = chunk("x" * 100_000)
    with raw_upstream([EVENTS, *[event] * 400], linger=True) as upstream:
        behind = hasty.behind(upstream.url)
        with behind.gate.streaming("chat", "hi", model=behind.model):
            wait_until(behind.gate.rows, "the call to be given up")
        assert upstream.hung_up.wait(60)
    row = behind.gate.row()
    assert row.outcome == "aborted"
    assert row.cost > 0
    assert behind.gate.totals() == (row.cost, 0)


def test_connection_is_used_again(gate: Gate) -> None:
    """One connection of a caller serves call after call, streams and errors among them."""
    with gate.connection() as connection:
        headers = {"Authorization": f"Bearer {gate.secret}"}
        statuses = []
        for kind, text, stream in [
            ("chat", "hi", False),
            ("chat", "hi", True),
            ("chat", "[[demo status=500]]", False),
            ("generate", "hi", True),
            ("chat", "[[demo break=2 tokens=20]]", True),
            ("messages", "hi", False),
        ]:
            path, body = request_of(kind, text, stream=stream)
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
    assert statuses == [200, 200, 502, 200, 200, 200]


def test_answer_after_an_idle_upstream_connection_was_closed(gate: Gate) -> None:
    """An upstream that closes each connection after its answer is called again without trouble."""
    answer = http_answer(b'{"id":"x","choices":[]}', "Content-Type: application/json")
    with raw_upstream([answer]) as upstream:
        behind = gate.behind(upstream.url)
        assert [behind.ask("chat").status for _ in range(5)] == [200] * 5
