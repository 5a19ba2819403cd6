"""Callers who leave a stream: cancelled or read on, as the upstream's row says, and charged for what was made unseen.

Prices are 1,000 nano-USD a token of input and 8,000 of output; the model makes 8,192 tokens at most.
"""

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.gateway.conftest import KINDS, Behind, Gate, RawUpstream, Script, dialect_of, raw_upstream, request_of
from tests.gateway.test_streams import DONE, EVENTS, FINISH, USAGE, chunk, hang_up
from tests.gateway.test_usage import counts, stream, whole
from toolkit.core.dialect import Dialect
from toolkit.core.upstream_traits import MOST_RECKON_RATE, OnLeave
from toolkit.gateway import reading_on
from toolkit.store.tables import OutboxRow

Json = dict[str, Any]
READ_ON = "the caller left, and the answer was read on for its usage"


class Leaving:
    """A caller who leaves a stream of an upstream's that waits for `go` meanwhile."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.wait: Callable[[], object] = partial(self.go.wait, 20)

    @contextmanager
    def behind(self, gate: Gate, script: Script, dialect: Dialect = Dialect.OPENAI, **traits: Any) -> Iterator[Behind]:
        """Serve a script, after which the upstream waits until it is left."""
        with raw_upstream(script, linger=True) as self.upstream:
            yield gate.behind(self.upstream.url, dialect, **traits)
            self.go.set()

    upstream: RawUpstream

    def leave(self, behind: Behind, kind: str = "chat", after: bytes = b"hello", **fields: Any) -> None:
        """Ask for a stream, hang up when this has come, and return when the gateway knows it."""
        gate = behind.gate
        with gate.connection() as connection:
            path, body = request_of(kind, "hi", stream=True, **fields)
            if "model" in body:
                body["model"] = behind.model
            headers = {"Authorization": f"Bearer {gate.secret}"}
            connection.request("POST", path.replace("gemini-test", behind.model), json.dumps(body), headers)
            if after:
                answer, seen = connection.getresponse(), b""
                while after not in seen:
                    seen += answer.read1(65_536)
                self.let_pass(gate)  # so that there is some time to reckon
                hang_up(connection, answer)
            else:
                wait_until(lambda: self.upstream.requests, "the request to have been forwarded")
                self.let_pass(gate)
                hang_up(connection)
        self.let_pass(gate)

    @staticmethod
    def let_pass(gate: Gate) -> None:
        """Return when the gateway's loop has seen all that came before."""
        for _ in range(2):
            gate.send("/v1/models", method="GET")


def row_of(behind: Behind) -> OutboxRow:
    """Return the row of the only call of a key, once it is there; nothing is held any more."""
    wait_until(behind.gate.rows, "the row of a caller who left")
    return behind.gate.row()


def events(kind: str, found: list[Json]) -> list[bytes]:
    """Return the events of a stream as an upstream sends them."""
    if kind == "array":
        return [(b"," if place else b"[") + json.dumps(event).encode() for place, event in enumerate(found)]
    return [
        ((f"event: {event['type']}\n" if "type" in event else "") + f"data: {json.dumps(event)}\n\n").encode()
        for event in found
    ]


# -- reading on --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_is_read_on_for_its_usage(gate: Gate, kind: str) -> None:
    """What the provider says at the end is charged, though nobody is left to read it; then the connection is closed."""
    usage = counts(kind, 100, 20)
    sent = events(kind, stream(kind, *([counts(kind, 100, 1)] if kind == "messages" else []), usage))
    head = EVENTS if kind != "array" else EVENTS.replace(b"text/event-stream", b"application/json")
    first = 2 if kind == "messages" else 1
    leaving = Leaving()
    script: Script = [head, b"".join(sent[:first]), leaving.wait, *sent[first:], b"]" if kind == "array" else b""]
    with leaving.behind(gate, script, dialect_of(kind), on_leave=OnLeave.READ_ON) as behind:
        leaving.leave(behind, kind, after=b"A short answer")
        assert behind.gate.rows() == []
        assert len(behind.gate.held_calls()) == 1
        leaving.go.set()
        row = row_of(behind)
        assert leaving.upstream.hung_up.wait(20)
    assert (row.outcome, row.status, row.usage_source) == ("aborted", 499, "reported")
    assert (row.input_tokens, row.output_tokens, row.cost) == (100, 20, 100 * 1_000 + 20 * 8_000)
    assert row.error == READ_ON
    assert behind.gate.totals() == (row.cost, 0)


@pytest.mark.parametrize("after", [b"hello", b""], ids=["mid-stream", "before the first byte"])
def test_a_stream_is_cancelled_unless_its_provider_bills_it_anyway(gate: Gate, after: bytes) -> None:
    """The connection is closed at once, and what was seen is charged; nothing that comes later."""
    leaving = Leaving()
    with leaving.behind(gate, [EVENTS, chunk("hello")] if after else []) as behind:
        leaving.leave(behind, after=after)
        assert leaving.upstream.hung_up.wait(20)
        row = row_of(behind)
    assert (row.outcome, row.usage_source, row.error) == ("aborted", "estimated", "the caller left")
    assert row.output_tokens == (2 if after else 0)
    assert row.input_tokens > 0


def test_a_stream_that_has_not_begun_is_read_on(gate: Gate) -> None:
    """Its provider has the request, and bills it."""
    leaving = Leaving()
    with leaving.behind(
        gate, [leaving.wait, EVENTS, chunk("hello"), FINISH, USAGE, DONE], on_leave=OnLeave.READ_ON
    ) as behind:
        leaving.leave(behind, after=b"")
        leaving.go.set()
        row = row_of(behind)
    assert (row.outcome, row.usage_source, row.input_tokens, row.output_tokens) == ("aborted", "reported", 10, 5)


def test_reading_on_ends_at_the_usage(gate: Gate) -> None:
    """A provider that keeps its connection open is not waited for."""
    leaving = Leaving()
    script: Script = [EVENTS, chunk("hello"), leaving.wait, FINISH, USAGE]
    with leaving.behind(gate, script, on_leave=OnLeave.READ_ON) as behind:
        leaving.leave(behind)
        leaving.go.set()
        assert leaving.upstream.hung_up.wait(20)
        row = row_of(behind)
    assert (row.usage_source, row.input_tokens, row.output_tokens) == ("reported", 10, 5)


def test_where_only_the_usage_is_to_come_it_is_read_in_any_case(gate: Gate) -> None:
    """All has been made, and nothing can be stopped: who reads the text and leaves before the usage saves nothing."""
    leaving = Leaving()
    with leaving.behind(gate, [EVENTS, chunk("hello"), FINISH, leaving.wait, USAGE, DONE]) as behind:
        leaving.leave(behind, after=FINISH)
        leaving.go.set()
        row = row_of(behind)
    assert (row.outcome, row.usage_source, row.error) == ("aborted", "reported", READ_ON)
    assert (row.input_tokens, row.output_tokens) == (10, 5)


def test_an_answer_that_comes_whole_is_taken_whole(gate: Gate) -> None:
    """Though a stream was asked for: it has been made, so leaving it stops nothing."""
    body = json.dumps(whole("chat", counts("chat", 100, 20))).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    leaving, begun = Leaving(), threading.Event()
    with leaving.behind(gate, [head, body[:20], begun.set, leaving.wait, body[20:]]) as behind:
        path, asked = request_of("chat", "hi", stream=True, model=behind.model)
        with behind.gate.connection() as connection:
            connection.request("POST", path, json.dumps(asked), {"Authorization": f"Bearer {behind.gate.secret}"})
            assert begun.wait(20)
            leaving.let_pass(behind.gate)
            hang_up(connection)
        leaving.let_pass(behind.gate)
        leaving.go.set()
        row = row_of(behind)
    assert (row.usage_source, row.input_tokens, row.output_tokens) == ("reported", 100, 20)


def test_an_upstream_that_breaks_while_it_is_read_on_is_charged_by_what_was_seen(gate: Gate) -> None:
    """As if it had broken while the caller was there; nothing was seen, nothing is charged."""
    leaving = Leaving()
    broken = EVENTS.replace(b"\r\n\r\n", b"\r\nContent-Length: 9999\r\n\r\n")
    with raw_upstream([broken, chunk("hello"), leaving.wait]) as leaving.upstream:
        behind = gate.behind(leaving.upstream.url, on_leave=OnLeave.READ_ON)
        leaving.leave(behind)
        leaving.go.set()
        row = row_of(behind)
    assert (row.outcome, row.usage_source, row.output_tokens) == ("upstream_error", "estimated", 2)


def test_a_request_that_its_provider_has_not_got_is_not_read_on(gate: Gate) -> None:
    """Nobody can answer a part of it, and its bytes would be kept meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        behind = gate.behind(url, upstream_model="o3", on_leave=OnLeave.READ_ON, reckon_rate=MOST_RECKON_RATE)
        path, body = request_of("chat", "x", stream=True, model=behind.model)
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 12_000_000}}
        body["messages"] = [{"role": "user", "content": [picture]}]
        with behind.gate.connection() as connection:
            connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {behind.gate.secret}"})
            assert select.select([deaf], [], [], 30)[0]
            Leaving.let_pass(behind.gate)
            hang_up(connection)
        row = row_of(behind)
    assert (row.outcome, row.error, row.output_tokens) == ("aborted", "the caller left", 0)


def test_no_more_of_a_key_are_read_on_than_may_be(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twenty-first is cancelled; other keys have their own."""
    leaving = Leaving()
    script: Script = [EVENTS, chunk("hello"), leaving.wait, FINISH, USAGE, DONE]
    with leaving.behind(gate, script, on_leave=OnLeave.READ_ON) as behind:
        for _ in range(reading_on.MOST):
            leaving.leave(behind)
        assert behind.gate.rows() == []
        leaving.leave(behind)
        assert row_of(behind).usage_source == "estimated"
        other = Behind(behind.model, behind.gate.another("other", plan=behind.gate.key.key.plan_id))
        leaving.leave(other)
        assert other.gate.rows() == []
        leaving.go.set()
        wait_until(lambda: len(behind.gate.rows()) == reading_on.MOST + 1, "all to end")
        assert row_of(other).usage_source == "reported"
    assert [row.usage_source for row in behind.gate.rows()].count("reported") == reading_on.MOST


def test_who_leaves_while_an_error_is_read_pays_nothing(gate: Gate) -> None:
    """The provider has refused, and bills nothing, whatever the upstream does with who leaves."""
    head = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    for on_leave in OnLeave:
        leaving = Leaving()
        sent = threading.Event()
        with leaving.behind(gate, [head, sent.set], on_leave=on_leave, reckon_rate=MOST_RECKON_RATE) as behind:
            with behind.gate.connection() as connection:
                path, body = request_of("chat", "hi", stream=True, model=behind.model, reasoning_effort="high")
                connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {behind.gate.secret}"})
                assert sent.wait(20)
                leaving.let_pass(behind.gate)
                hang_up(connection)
            row = row_of(behind)
        assert (row.outcome, row.cost, row.usage_source) == ("aborted", 0, None)


# -- what was made unseen ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "model", "fields", "reckoned"),
    [
        ("chat", "o3", {"max_completion_tokens": 16}, True),
        ("chat", "gpt-test", {"max_completion_tokens": 16, "reasoning_effort": "high"}, True),
        ("chat", "o3", {"max_completion_tokens": 16, "reasoning_effort": "none"}, False),
        ("chat", "gpt-test", {"max_completion_tokens": 16}, False),
        ("responses", "gpt-5", {"max_output_tokens": 16}, True),
        ("messages", "claude-opus-5", {"max_tokens": 16}, True),
        ("messages", "claude-opus-4-8", {"max_tokens": 16}, False),
        ("messages", "claude-opus-4-8", {"max_tokens": 16, "thinking": {"type": "adaptive"}}, True),
        ("messages", "claude-opus-5", {"max_tokens": 16, "thinking": {"type": "disabled"}}, False),
        ("generate", "gemini-2.5-pro", {"generationConfig": {"maxOutputTokens": 16}}, True),
        ("generate", "gemini-2.0-flash", {"generationConfig": {"maxOutputTokens": 16}}, False),
    ],
)
@pytest.mark.parametrize("begun", [False, True], ids=["before the first byte", "mid-stream"])
def test_hidden_reasoning_is_reckoned_by_time_within_the_hold(
    gate: Gate, kind: str, model: str, fields: Json, reckoned: bool, begun: bool
) -> None:
    """Where the model can reason unseen, and not else; the bound and so the hold are never passed."""
    usages = [counts(kind, 100, 1)] * (2 if kind == "messages" else 1)
    first = b"".join(events(kind, stream(kind, *usages))[: 2 if kind == "messages" else 1])
    first = first.replace(b'"usageMetadata"', b'"other"').replace(b'"finish_reason": "stop"', b'"finish_reason": null')
    leaving = Leaving()
    script: Script = [EVENTS, first] if begun else []
    traits = {"upstream_model": model, "reckon_rate": MOST_RECKON_RATE}
    with leaving.behind(gate, script, dialect_of(kind), **traits) as behind:
        leaving.leave(behind, kind, after=b"A short answer" if begun else b"", **fields)
        row = row_of(behind)
    seen = 10 if begun else 0
    assert (row.outcome, row.usage_source) == ("aborted", "estimated")
    assert row.output_tokens == (16 if reckoned else seen)
    assert row.cost <= row.held
    assert row.error is not None
    assert (f"{16 - seen} tokens of output reckoned by time" in row.error) is reckoned


def test_the_rate_counts_from_the_first_byte_on(gate: Gate) -> None:
    """As the upstream's row says it: no less than for the time that the caller was there, and no more than for all."""
    leaving, rate = Leaving(), 5_000
    with leaving.behind(gate, [EVENTS, chunk("hello")], upstream_model="o3", reckon_rate=rate) as behind:
        begun = time.monotonic()
        with behind.gate.streaming("chat", "hi", model=behind.model, max_completion_tokens=8_192) as (wire, answer):
            while b"hello" not in answer.read1(65_536):
                pass
            come = time.monotonic()
            wait_until(lambda: time.monotonic() - come > 0.2, "some time to pass")
            hang_up(wire, answer)
        row = row_of(behind)
        gone = time.monotonic()
    assert rate * 0.2 <= row.output_tokens <= rate * (gone - begun)


def test_nothing_is_reckoned_where_the_upstream_says_so(gate: Gate) -> None:
    """A rate of 0 tokens a second."""
    leaving = Leaving()
    with leaving.behind(gate, [EVENTS, chunk("hello")], upstream_model="o3", reckon_rate=0) as behind:
        leaving.leave(behind)
        row = row_of(behind)
    assert (row.output_tokens, row.error) == (2, "the caller left")


def test_a_model_that_shows_its_reasoning_hides_none(gate: Gate) -> None:
    """Asked to reason, a model that is not known for hiding it streams what it thinks: that is all there is."""
    thought = {"choices": [{"index": 0, "delta": {"reasoning_content": "hello"}}]}
    leaving = Leaving()
    script: Script = [EVENTS, b"data: " + json.dumps(thought).encode() + b"\n\n"]
    with leaving.behind(gate, script, reckon_rate=MOST_RECKON_RATE) as behind:
        leaving.leave(behind, reasoning_effort="high", max_completion_tokens=16)
        row = row_of(behind)
    assert (row.output_tokens, row.error) == (2, "the caller left")


def test_what_a_provider_reports_on_the_way_is_not_reckoned_again(gate: Gate) -> None:
    """Gemini counts its thoughts in each piece: only what came after the last is unknown."""

    def piece(thoughts: int) -> bytes:
        usage = {"promptTokenCount": 100, "candidatesTokenCount": 3, "thoughtsTokenCount": thoughts}
        part = {"candidates": [{"content": {"parts": [{"text": "hello"}]}}], "usageMetadata": usage}
        return b"data: " + json.dumps(part).encode() + b"\n\n"

    leaving, rate = Leaving(), 1_000
    script: Script = [EVENTS, piece(40), leaving.wait, piece(41)]
    traits = {"upstream_model": "gemini-2.5-pro", "reckon_rate": rate}
    with leaving.behind(gate, script, Dialect.GEMINI, **traits) as behind:
        path, body = request_of("generate", "hi", stream=True)
        with behind.gate.connection() as wire:
            path = path.replace("gemini-test", behind.model)
            wire.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {behind.gate.secret}"})
            answer = wire.getresponse()
            assert b":40" in answer.read1(65_536).replace(b" ", b"")
            come = time.monotonic()
            wait_until(lambda: time.monotonic() - come > 1, "some time to pass")
            leaving.go.set()
            assert b":41" in answer.read1(65_536).replace(b" ", b"")
            last = time.monotonic()
            hang_up(wire, answer)
        row = row_of(behind)
        silent = time.monotonic() - last + 0.2
    assert (row.input_tokens, row.usage_source) == (100, "estimated")
    assert 44 <= row.output_tokens <= 44 + rate * silent


# -- refusals before any output ----------------------------------------------------------------------------------


def refusal(text: str, *, streamed: bool) -> bytes:
    """Return an answer that Anthropic's classifiers ended, after this text."""
    content = [{"type": "text", "text": text}] if text else []
    usage = {"input_tokens": 4_000, "output_tokens": len(text)}
    if not streamed:
        body = json.dumps({"id": "x", "content": content, "stop_reason": "refusal", "usage": usage}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    said: list[Json] = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
    ]
    found = [
        {"type": "message_start", "message": {"id": "x", "usage": {"input_tokens": 4_000, "output_tokens": 1}}},
        *(said if text else []),
        {"type": "message_delta", "delta": {"stop_reason": "refusal"}, "usage": usage},
        {"type": "message_stop"},
    ]
    return EVENTS + b"".join(events("messages", found))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("free", [False, True], ids=["billed", "free"])
@pytest.mark.parametrize("text", ["", "Hello"])
def test_a_refusal_before_any_output_costs_nothing_where_it_is_free(
    gate: Gate, text: str, free: bool, streamed: bool
) -> None:
    """The row has no tokens and says why; after some output both sides are charged, as they are by everybody else."""
    answer = refusal(text, streamed=streamed)
    with raw_upstream([answer]) as upstream:
        behind = gate.behind(upstream.url, Dialect.ANTHROPIC, refusal_free=free)
        reply = behind.ask("messages", stream=streamed)
    row = behind.gate.row()
    assert reply.body == answer.partition(b"\r\n\r\n")[2]
    assert (row.outcome, row.status, row.usage_doubt) == ("completed", 200, None)
    if free and not text:
        assert (row.cost, row.input_tokens, row.output_tokens, row.usage_source) == (0, 0, 0, None)
        assert "refused before any output" in (row.error or "")
        assert "4,000 tokens" in (row.error or "")
    else:
        # Above 2,000 tokens of input the prices are 2,000 and 12,000 nano-USD a token.
        assert (row.cost, row.input_tokens) == (4_000 * 2_000 + len(text) * 12_000, 4_000)
        assert (row.usage_source, row.error) == ("reported", None)
    assert behind.gate.totals() == (row.cost, 0)
