"""A model that several upstreams serve: another one answers where one has made nothing, and nobody pays twice."""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select

from tests.conftest import usd, wait_until
from tests.gateway.conftest import (
    KINDS,
    Behind,
    Gate,
    Reply,
    dialect_of,
    http_answer,
    raw_upstream,
)
from toolkit.admin.model_routes import RouteWay, set_route
from toolkit.admin.models import add_model
from toolkit.admin.upstreams import add_upstream
from toolkit.core.pricing import PriceSheet
from toolkit.store.tables import HoldRow, UpstreamIncident

pytestmark = pytest.mark.any_store

JSON = "Content-Type: application/json"
EVENTS = "Content-Type: text/event-stream"
NOWHERE = "http://127.0.0.1:9"
"""Nobody listens there."""

TOKENS = 10 * 1_000 + 5 * 8_000
"""What the answers below cost, nano-USD: 10 tokens of input and 5 of output at `GEMINI_SHEET`."""

CHAT = {
    "id": "chat-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5},
}
ANSWERS: dict[str, Any] = {
    "chat": CHAT,
    "responses": {
        "id": "resp-1",
        "object": "response",
        "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "hello"}]}],
        "usage": {"input_tokens": 10, "output_tokens": 5},
    },
    "messages": {
        "id": "msg-1",
        "type": "message",
        "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
    },
    "generate": {
        "candidates": [{"content": {"parts": [{"text": "hello"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5},
    },
}
ANSWERS["array"] = ANSWERS["generate"]


def good(kind: str = "chat") -> bytes:
    """Return a whole answer, which costs `TOKENS`."""
    return http_answer(json.dumps(ANSWERS[kind]).encode(), JSON)


def stream(*chunks: dict[str, Any] | str) -> bytes:
    """Return a chat's stream."""
    data = "".join(f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n" for chunk in chunks)
    return http_answer(data.encode(), EVENTS)


TEXT = {"id": "chat-1", "choices": [{"index": 0, "delta": {"content": "hello"}}]}
LAST = {"id": "chat-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {"id": "chat-1", "choices": [], "usage": CHAT["usage"]}
GOOD_STREAM = stream(TEXT, LAST, USAGE, "[DONE]")


def failure(status: int, message: str = "no", /, *headers: str, **said: str) -> bytes:
    """Return an error of an upstream."""
    body = json.dumps({"error": {"message": message, **said}}).encode()
    return http_answer(body, JSON, *headers, status=f"{status} X")


def routed(
    gate: Gate,
    *urls: str,
    kind: str = "chat",
    names: tuple[str, ...] = (),
    price_of_last: str | None = None,
    **options: Any,
) -> Behind:
    """Return a model that upstreams serve in this order, and a key for it."""
    behind = gate.behind(urls[0], dialect_of(kind), **options)
    number = behind.model.removeprefix("model-")
    ways = [RouteWay(f"upstream-{number}")]
    with gate.workspace.write() as tx:
        for place, url in enumerate(urls[1:], 1):
            name = f"upstream-{number}-{place}"
            add_upstream(tx, name, dialect_of(kind), url, "TEST_UPSTREAM_API_KEY")
            called, last = dict(enumerate(names, 1)).get(place), place == len(urls) - 1
            ways.append(RouteWay(name, called, price_model=price_of_last if last else None))
        set_route(tx, behind.model, ways)
    return behind


def first(behind: Behind) -> str:
    """Return the name of the first upstream."""
    return f"upstream-{behind.model.removeprefix('model-')}"


@contextlib.contextmanager
def two(*scripts: list[Any]) -> Iterator[list[Any]]:
    """Run an upstream for each script."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(raw_upstream(script)) for script in scripts]


# -- which failures go another way -------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", KINDS)
def test_another_upstream_answers(gate: Gate, kind: str, streamed: bool) -> None:
    """In every dialect, whole and streamed: one row, of the one that answered, which says what came before."""
    with two([failure(503, "too busy")], [good(kind)]) as upstreams:
        behind = routed(gate, *(upstream.url for upstream in upstreams), kind=kind)
        reply = behind.ask(kind, stream=streamed)
        assert reply.status == 200
        row = behind.gate.row()
        assert (row.outcome, row.status, row.cost, row.upstream) == ("completed", 200, TOKENS, f"{first(behind)}-1")
        assert f"upstream {first(behind)} answered 503" in (row.error or "")
        assert "too busy" in (row.error or "")
        assert [len(upstream.requests) for upstream in upstreams] == [1, 1]
        assert behind.gate.totals() == (TOKENS, 0)


FAILURES = {
    "429": failure(429, "slow down"),
    "500": failure(500),
    "503": failure(503),
    "529": failure(529),
    "no endpoint": failure(404, "nothing here"),
    "no such model": failure(404, "model", code="model_not_found"),
    "wrong key": failure(401, "Incorrect API key provided"),
    "no credit": failure(429, "You exceeded your current quota", code="insufficient_quota"),
    "region": failure(400, "User location is not supported", status="FAILED_PRECONDITION"),
    "error in a whole answer": http_answer(json.dumps({"error": {"message": "no", "code": 503}}).encode(), JSON),
    "code in a whole answer": http_answer(b'{"base_resp": {"status_code": 1008, "status_msg": "no balance"}}', JSON),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_proves_that_nothing_was_made_goes_another_way(gate: Gate, name: str) -> None:
    """Whoever's account it is that is refused, the caller gets an answer, and pays once."""
    with two([FAILURES[name]], [good()]) as upstreams:
        behind = routed(gate, *(upstream.url for upstream in upstreams))
        assert behind.ask("chat").status == 200
        assert behind.gate.row().cost == TOKENS


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_an_upstream_that_cannot_be_reached(gate: Gate, streamed: bool) -> None:
    """Nothing was sent to it."""
    with raw_upstream([good()]) as upstream:
        behind = routed(gate, NOWHERE, upstream.url)
        assert behind.ask("chat", stream=streamed).status == 200
        row = behind.gate.row()
    assert (row.upstream, row.cost) == (f"{first(behind)}-1", TOKENS)
    assert f"upstream {first(behind)}: no answer" in (row.error or "")


def test_an_upstream_whose_credential_is_missing(gate: Gate) -> None:
    """It was not asked; the operator learns of it, under its own name."""
    with raw_upstream([good()]) as upstream:
        behind = routed(gate, NOWHERE, upstream.url, credential_env="TEST_MISSING_API_KEY")
        assert behind.ask("chat").status == 200
        wait_until(lambda: faults(behind), "the incident")
    assert faults(behind) == {first(behind): "unconfigured"}


def test_an_error_that_comes_first_in_a_stream(gate: Gate) -> None:
    """Before any output: some providers say so that they are overloaded, behind a comment or a ping."""
    busy = {"error": {"message": "overloaded", "code": 503}}
    with two([http_answer(f": wait\n\ndata: {json.dumps(busy)}\n\n".encode(), EVENTS)], [GOOD_STREAM]) as upstreams:
        behind = routed(gate, *(upstream.url for upstream in upstreams))
        reply = behind.ask("chat", stream=True)
        assert reply.status == 200
        assert b"hello" in reply.body
        assert b"overloaded" not in reply.body
        assert b"wait" not in reply.body
        row = behind.gate.row()
        assert (row.outcome, row.cost, row.upstream) == ("completed", TOKENS, f"{first(behind)}-1")


def faults(behind: Behind) -> dict[str, str]:
    """Return which of a model's upstreams have an incident, and which."""
    with behind.gate.workspace.read() as tx:
        found = tx.session.scalars(select(UpstreamIncident).where(UpstreamIncident.ended_at.is_(None)))
        return {row.upstream: row.fault for row in found if row.upstream.startswith(first(behind))}


def test_each_upstream_has_its_own_incident(gate: Gate) -> None:
    """The answer of the other one does not end it."""
    with two([failure(401, "Incorrect API key provided")], [good()]) as upstreams:
        behind = routed(gate, *(upstream.url for upstream in upstreams))
        assert behind.ask("chat").status == 200
        wait_until(lambda: faults(behind), "the incident")
        assert behind.ask("chat").status == 200
        assert faults(behind) == {first(behind): "credential"}
        assert len(upstreams[0].requests) == 1  # it is set aside


# -- which do not ----------------------------------------------------------------------------------------------


ENDS: dict[str, list[Any]] = {
    "the caller's fault": [failure(400, "too long")],
    "408": [failure(408)],
    "502": [failure(502)],
    "504": [failure(504)],
    "a timeout by name": [failure(500, type="timeout_error")],
    "the connection is lost": [],
    "the answer is none": [http_answer(b"<html>", JSON)],
    "the answer breaks off": [http_answer(b'{"choices":[', JSON, length=500)],
}


@pytest.mark.parametrize("name", ENDS)
def test_what_may_have_been_made_goes_no_other_way(gate: Gate, name: str) -> None:
    """Two could have made an answer else, and somebody would pay both."""
    with two(ENDS[name], [good()]) as upstreams:
        behind = routed(gate, *(upstream.url for upstream in upstreams))
        assert behind.ask("chat").status >= 400
        assert upstreams[1].requests == []
        assert behind.gate.row().upstream == first(behind)


@pytest.mark.parametrize("broken", [True, False], ids=["breaks off", "tells an error"])
def test_a_stream_that_has_begun_goes_no_other_way(gate: Gate, broken: bool) -> None:
    """Its output is charged, and its caller is told."""
    begun = stream(TEXT) if broken else stream(TEXT, {"error": {"message": "overloaded", "code": 503}})
    with two([begun], [GOOD_STREAM]) as upstreams:
        behind = routed(gate, *(upstream.url for upstream in upstreams))
        reply = behind.ask("chat", stream=True)
        assert b"error" in reply.body
        assert upstreams[1].requests == []
        assert behind.gate.row().outcome == "upstream_error"
        assert behind.gate.row().cost > 0


def test_the_last_failure_is_told(gate: Gate) -> None:
    """As if it were the only one; the row has them all."""
    with two([failure(503)], [failure(429, "slow down", "Retry-After: 7")]) as upstreams:
        behind = routed(gate, *(upstream.url for upstream in upstreams))
        reply = behind.ask("chat")
        assert (reply.status, reply.type, reply.headers["retry-after"]) == (429, "upstream_rate_limited", "7")
        row = behind.gate.row()
        assert (row.upstream, row.outcome, row.cost) == (f"{first(behind)}-1", "upstream_error", 0)
        assert "answered 503" in (row.error or "")
        assert "answered 429" in (row.error or "")
        assert behind.gate.totals() == (0, 0)


# -- set aside ----------------------------------------------------------------------------------------------


def test_what_failed_is_not_tried_first_by_each_call(gate: Gate) -> None:
    """Of five calls one pays for the failing try."""
    with two([failure(429, "slow down", "Retry-After: 60")], [good()]) as upstreams:
        behind = routed(gate, *(upstream.url for upstream in upstreams))
        assert [behind.ask("chat").status for _ in range(5)] == [200] * 5
        assert [len(upstream.requests) for upstream in upstreams] == [1, 5]
        assert [row.error is None for row in behind.gate.rows()] == [False, True, True, True, True]


def test_nonsense_keeps_nobody_from_trying_it_again(gate: Gate) -> None:
    """When the while is over a call tries it that is refused for its own fault: the next one tries it, too."""
    scripts: list[list[bytes]] = [[failure(429, "slow down", "Retry-After-Ms: 1")], [good()]]
    with two(*scripts) as upstreams:
        behind = routed(gate, *(upstream.url for upstream in upstreams))
        assert behind.ask("chat").status == 200
        scripts[0][:] = [failure(400, "nonsense")]
        assert behind.ask("chat").status == 400
        scripts[0][:] = [good()]
        assert behind.ask("chat").status == 200
        assert behind.gate.rows()[-1].upstream == first(behind)


def test_it_is_tried_all_the_same_when_nothing_else_answers(gate: Gate) -> None:
    """A provider that has had enough for a minute may do after all."""
    scripts: list[list[bytes]] = [[failure(429, "slow down", "Retry-After: 60")], [good()]]
    with two(*scripts) as upstreams:
        behind = routed(gate, *(upstream.url for upstream in upstreams))
        assert behind.ask("chat").status == 200
        scripts[0][:], scripts[1][:] = [good()], [failure(503)]
        assert behind.ask("chat").status == 200
        assert behind.gate.rows()[-1].upstream == first(behind)


# -- what goes there, and what it costs -----------------------------------------------------------------------


def test_each_gets_its_own_name_of_the_model_and_is_charged_by_its_own_price(gate: Gate) -> None:
    """The hold covers the dearest."""
    dear, other = PriceSheet.flat(input=usd(3), output=usd(30)), "another-credential-and-name"
    held: list[int] = []

    def note() -> None:
        with gate.workspace.read() as tx:
            held.extend(tx.session.scalars(select(HoldRow.amount).where(HoldRow.org_id == gate.org_id)))

    with two([note, failure(503)], [note, good()]) as upstreams:
        with gate.workspace.write() as tx:
            priced = f"price-{gate.org_id}"
            add_model(tx, priced, "test-openai", sheet=dear, context_window=100_000)
        urls = [upstream.url for upstream in upstreams]
        behind = routed(gate, *urls, names=(other,), price_of_last=priced)
        reply = behind.ask("chat", max_tokens=1_000)
        sent = [json.loads(upstream.requests[0].partition(b"\r\n\r\n")[2]) for upstream in upstreams]
    row = behind.gate.row()
    assert [body["model"] for body in sent] == [behind.model, other]
    size = len(json.dumps({"model": behind.model, "max_tokens": 1_000, "messages": sent[0]["messages"]}))
    assert held == [row.held, row.held]
    assert row.held >= 1_000 * 30_000
    assert row.held <= (size + 200) * 3_000 + 1_000 * 30_000
    assert row.cost == 10 * 3_000 + 5 * 30_000
    assert (row.input_price, row.output_price) == (usd(3), usd(30))
    assert row.price_id not in {None, ""}
    assert reply.headers["x-cost-usd"] == "0.00018"


def test_a_large_body_goes_another_way(gate: Gate) -> None:
    """It was written once, and is sent again; to an upstream that has another name for the model it cannot be."""
    text = "x" * 1_500_000
    for names, status in (((), 200), (("another",), 503)):
        with two([failure(503)], [good()]) as upstreams:
            behind = routed(gate, *(upstream.url for upstream in upstreams), names=names)
            assert behind.ask("chat", text).status == status
            if status == 200:
                bodies = [upstream.requests[0].partition(b"\r\n\r\n")[2] for upstream in upstreams]
                assert bodies[0] == bodies[1]
                assert len(bodies[0]) > 1_500_000
            else:
                assert upstreams[1].requests == []


def test_a_large_body_that_is_gone_goes_no_other_way(gate: Gate) -> None:
    """A status of 200 lets go of it; should an error stand there, it is the answer."""
    said = http_answer(b'{"error": {"message": "slow down", "type": "rate_limit_error"}}', JSON)
    with two([said], [good()]) as upstreams:
        behind = routed(gate, *(upstream.url for upstream in upstreams))
        assert behind.ask("chat", "x" * 1_500_000).status == 429
        assert upstreams[1].requests == []


def test_a_free_call_goes_another_way_for_nothing(gate: Gate) -> None:
    """Counting tokens costs nothing there either."""
    count = http_answer(b'{"input_tokens": 7}', JSON)
    with two([failure(503)], [count]) as upstreams:
        behind = routed(gate, *(upstream.url for upstream in upstreams), kind="messages")
        body = {"model": behind.model, "messages": [{"role": "user", "content": "hello"}]}
        reply = behind.gate.send("/v1/messages/count_tokens", body)
        assert (reply.status, reply.json) == (200, {"input_tokens": 7})
        assert behind.gate.totals() == (0, 0)


@pytest.mark.parametrize(
    "failed", [failure(404, "no count_tokens for this model"), failure(401, "no"), failure(500)], ids=[404, 401, 500]
)
def test_a_free_call_that_fails_turns_no_paid_one_away(gate: Gate, failed: bytes) -> None:
    """The first upstream does not count tokens, and serves messages all the same."""
    script = [failed]
    with two(script, [http_answer(b'{"input_tokens": 7}', JSON)]) as upstreams:
        behind = routed(gate, *(upstream.url for upstream in upstreams), kind="messages")
        body = {"model": behind.model, "messages": [{"role": "user", "content": "hello"}]}
        assert behind.gate.send("/v1/messages/count_tokens", body).json == {"input_tokens": 7}
        script[:] = [good("messages")]
        assert behind.ask("messages").status == 200
        assert [row.upstream for row in behind.gate.rows()] == [f"{first(behind)}-1", first(behind)]


# -- an upstream that is killed ------------------------------------------------------------------------------


class Mortal:
    """An upstream that keeps connections, answers when it is told to, and dies at once: every connection is reset."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.waiting: list[str] = []
        """Ids of the requests that have come and are not answered."""
        self.answered: list[str] = []
        self._go = threading.Condition()
        self._turns = 0
        self._connections: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def answer(self, calls: int) -> None:
        """Answer so many of those that wait, or will."""
        with self._go:
            self._turns += calls
            self._go.notify_all()

    def kill(self) -> None:
        """Die."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for connection in list(self._connections):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        with self._go:
            self._turns = 10**6
            self._go.notify_all()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self._connections.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            received = b""
            while True:
                while b"\r\n\r\n" not in received:
                    part = connection.recv(65_536)
                    if not part:
                        return
                    received += part
                head, _, received = received.partition(b"\r\n\r\n")
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
                while len(received) < int(fields[b"content-length"]):
                    received += connection.recv(65_536)
                body, received = json.loads(received[: int(fields[b"content-length"])]), b""
                self._reply(connection, fields[b"x-request-id"].decode(), body)

    def _reply(self, connection: socket.socket, request_id: str, body: dict[str, Any]) -> None:
        if "begin" in body["messages"][0]["content"]:  # some output comes at once, the rest later
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n")
            connection.sendall(f"data: {json.dumps(TEXT)}\n\n".encode())
        self.waiting.append(request_id)
        with self._go:
            self._go.wait_for(lambda: self._turns > 0, timeout=60)
            self._turns -= 1
        connection.sendall(GOOD_STREAM if body.get("stream") else good())
        self.waiting.remove(request_id)
        self.answered.append(request_id)


MANY = 12
BEGUN = 2


def test_an_upstream_that_is_killed_under_load_loses_no_call_that_had_no_output(gate: Gate) -> None:
    """Those that had some are told and charged once, and nothing stays held; `tests/chaos/failover.py` does more."""
    dying, living = Mortal(), Mortal()
    living.answer(10**6)
    behind = routed(gate, dying.url, living.url)

    def ask(number: int, text: str = "hello") -> Reply:
        return behind.ask("chat", text, stream=number % 2 == 0)

    with ThreadPoolExecutor(MANY + BEGUN) as callers:
        warm = [callers.submit(ask, number) for number in range(MANY + BEGUN)]  # so that each has a connection
        wait_until(lambda: len(dying.waiting) == MANY + BEGUN, "the calls to come")
        dying.answer(MANY + BEGUN)
        assert {call.result().status for call in warm} == {200}
        begun = [callers.submit(ask, 0, "begin") for _ in range(BEGUN)]
        wait_until(lambda: len(dying.waiting) == BEGUN, "the calls that are answered at once")
        calls = [callers.submit(ask, number) for number in range(MANY)]
        wait_until(lambda: len(dying.waiting) == MANY + BEGUN, "the calls that wait")
        dying.kill()
        replies, broken = [call.result() for call in calls], [call.result() for call in begun]
        after = [ask(number) for number in range(4)]
    living.kill()
    rows = {row.request_id: row for row in behind.gate.rows()}
    assert len(rows) == 2 * (MANY + BEGUN) + 4
    for reply in (*replies, *after):
        row = rows[reply.request_id]
        assert (reply.status, row.outcome, row.upstream, row.cost) == (200, "completed", f"{first(behind)}-1", TOKENS)
    for reply in broken:
        row = rows[reply.request_id]
        assert b"hello" in reply.body
        assert b"error" in reply.body
        assert (row.outcome, row.upstream, row.usage_source) == ("upstream_error", first(behind), "estimated")
        assert 0 < row.cost <= row.held
    assert {rows[reply.request_id].error for reply in after} == {None}  # it is set aside
    spent, held = behind.gate.totals()
    assert (spent, held) == (sum(row.cost for row in rows.values()), 0)
