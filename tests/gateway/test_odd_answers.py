"""Answers that are not what they claim: each is charged and passed on as what it is, and its row says what was odd."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Running
from tests.gateway.conftest import KINDS, Gate, Reply, dialect_of, http_answer, make_gate, raw_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.money import usd
from toolkit.store.tables import OutboxRow

SSE = "Content-Type: text/event-stream"
BARE = "X-Nothing: 1"


class Stage:
    """Models of all dialects on an upstream that answers as it is told, one call after the other.

    Args:
        gate: a key at the gateway.
        url: the upstream's.
        script: what it says next.
    """

    def __init__(self, gate: Gate, url: str, script: list[bytes]) -> None:
        self.script = script
        self.behind = {dialect: gate.behind(url, dialect) for dialect in Dialect}

    def ask(self, script: list[bytes], kind: str, *, stream: bool = True) -> tuple[Reply, OutboxRow]:
        """Ask a model; return what the caller got, and the row."""
        self.script[:] = script
        behind = self.behind[dialect_of(kind)]
        reply = behind.ask(kind, stream=stream)
        with behind.gate.workspace.read() as tx:
            return reply, tx.session.get_one(OutboxRow, reply.request_id)


@pytest.fixture(scope="module")
def stage(gateways: Callable[..., Running]) -> Iterator[Stage]:
    """One stage for all tests here: they differ in what the upstream says alone."""
    script: list[bytes] = []
    with raw_upstream(script) as upstream:
        yield Stage(make_gate(gateways("sqlite", workers=1)), upstream.url, script)


def asked(
    stage: Stage, body: bytes, *headers: str, kind: str = "chat", stream: bool = True, length: int | None = None
) -> tuple[Reply, OutboxRow]:
    """Ask a model whose upstream answers 200 with a body."""
    return stage.ask([http_answer(body, *headers, length=length)], kind, stream=stream)


def used(row: OutboxRow) -> tuple[str, int, int, str]:
    """Return outcome, input, output and where they come from."""
    return row.outcome, row.input_tokens, row.output_tokens, str(row.usage_source)


REPORTED = ("completed", 10, 5, "reported")


def data(value: object) -> bytes:
    """Return one event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def named(value: dict[str, Any]) -> bytes:
    """Return one event that bears its type as its name."""
    return f"event: {value['type']}\n".encode() + data(value)


def chat(text: str = "hello", finish: str | None = None) -> dict[str, Any]:
    """Return a chunk of a chat."""
    return {"id": "c1", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


CHAT_USAGE = {"id": "c1", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}
DONE = b"data: [DONE]\n\n"
RESPONSE = {
    "id": "r1",
    "object": "response",
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "hello"}]}],
    "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
}
MESSAGE = {
    "id": "m1",
    "type": "message",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 10, "output_tokens": 5},
}
PIECE = {
    "responseId": "g1",
    "candidates": [{"content": {"parts": [{"text": "hello"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15},
}
WHOLE: dict[str, dict[str, Any]] = {
    "chat": {
        "id": "c1",
        "choices": [{"index": 0, "message": {"content": "hello"}, "finish_reason": "stop"}],
        "usage": CHAT_USAGE["usage"],
    },
    "responses": RESPONSE,
    "messages": MESSAGE,
    "generate": PIECE,
    "array": PIECE,
}
START = {"type": "message_start", "message": {"id": "m1", "usage": {"input_tokens": 10, "output_tokens": 1}}}
TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}}
DELTA = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
STOP = {"type": "message_stop"}
STREAMS: dict[str, list[bytes]] = {
    "chat": [data(chat()), data(chat("", "stop")), data(CHAT_USAGE), DONE],
    "responses": [
        named({"type": "response.created", "response": {"id": "r1", "error": None}}),
        named({"type": "response.output_text.delta", "delta": "hello"}),
        named({"type": "response.completed", "response": RESPONSE}),
    ],
    "messages": [named(START), named(TEXT), named(DELTA), named(STOP)],
    "generate": [data(PIECE)],
    "array": [b"[" + json.dumps(PIECE).encode() + b"]"],
}


def stream_of(kind: str) -> bytes:
    """Return a whole stream."""
    return b"".join(STREAMS[kind])


def passed(kind: str) -> bytes:
    """Return what a caller gets of it: usage that he did not ask for is left out."""
    return b"".join(event for event in STREAMS[kind] if event != data(CHAT_USAGE))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("claim", ["Content-Type: text/plain", "Content-Type: text/html", BARE, "other"])
def test_a_stream_under_another_content_type(stage: Stage, kind: str, claim: str) -> None:
    """Its bytes, its charge and its content type are those of a stream."""
    if claim == "other":
        claim = SSE if kind == "array" else "Content-Type: application/json"
    reply, row = asked(stage, stream_of(kind), claim, kind=kind)
    assert (reply.status, reply.body) == (200, passed(kind))
    assert reply.headers["content-type"] == ("application/json" if kind == "array" else "text/event-stream")
    assert used(row) == REPORTED
    assert "came as" in str(row.error) or "came without a content type" in str(row.error)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("claim", [SSE, BARE, "Content-Type: application/json"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_whole_answer_whatever_it_claims(stage: Stage, kind: str, claim: str, stream: bool) -> None:
    """JSON as an event stream, or a whole answer to who asked for a stream: it passes whole, as JSON."""
    body = json.dumps(WHOLE[kind]).encode()
    reply, row = asked(stage, body, claim, kind=kind, stream=stream)
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, body, "application/json")
    assert used(row) == REPORTED
    assert ("came whole" in str(row.error)) is stream
    assert ("application/json came" in str(row.error)) is (claim != "Content-Type: application/json")
    assert float(reply.headers["x-cost-usd"]) > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("claim", [SSE, "Content-Type: application/json"])
def test_a_stream_where_a_whole_answer_was_asked_for(stage: Stage, kind: str, claim: str) -> None:
    """It passes as the stream that it is, and is charged by what it reports."""
    reply, row = asked(stage, stream_of(kind), claim, kind=kind, stream=False)
    assert (reply.status, reply.body) == (200, stream_of(kind))
    assert reply.headers["content-type"] == ("application/json" if kind == "array" else "text/event-stream")
    assert used(row) == REPORTED
    assert "a stream came" in str(row.error)


def test_an_array_where_events_were_asked_for(stage: Stage) -> None:
    """A server that does not know `alt=sse`: it stays an array."""
    body = stream_of("array")
    reply, row = asked(stage, body, "Content-Type: application/json", kind="generate")
    assert (reply.body, reply.headers["content-type"], used(row)) == (body, "application/json", REPORTED)
    assert "another form" in str(row.error)
    reply, row = asked(stage, stream_of("generate"), SSE, kind="array")
    assert (reply.body, reply.headers["content-type"], used(row)) == (stream_of("generate"), SSE[14:], REPORTED)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unasked_stream_that_is_an_error_has_its_status(stage: Stage, kind: str) -> None:
    """The error of a stream that nobody asked for is an error answer."""
    error = {"code": 503, "status": "UNAVAILABLE", "type": "overloaded_error", "message": "gpu7 is busy"}
    body = json.dumps([{"error": error}]).encode() if kind == "array" else data({"error": error})
    reply, row = asked(stage, body, SSE, kind=kind, stream=False)
    assert reply.status in {503, 529}
    assert b"gpu7" not in reply.body
    assert (row.outcome, row.status, row.cost) == ("upstream_error", reply.status, 0)


def ways_to_write(stream: bytes) -> dict[str, bytes]:
    """Return a stream as other servers would write it; WHATWG HTML, "Parsing an event stream"."""
    return {
        "crlf": stream.replace(b"\n", b"\r\n"),
        "cr": stream.replace(b"\n", b"\r"),
        "bom": b"\xef\xbb\xbf" + stream,
        "comments": b": hello\n\n" + stream.replace(b"\n\n", b"\n\n: still here\n\n"),
        "comment lines": stream.replace(b"data:", b": a comment\ndata:"),
        "no space": stream.replace(b"data: ", b"data:").replace(b"event: ", b"event:"),
        "two lines": stream.replace(b'{"', b'{\ndata: "', 1),
        "blank lines": b"\n\n" + stream.replace(b"\n\n", b"\n\n\n"),
        "ids": stream.replace(b"data:", b"id: 7\nretry: 10\ndata:"),
        "no last line end": stream[:-1],
        "no last empty line": stream[:-2],
    }


@pytest.mark.parametrize("kind", ["chat", "responses", "messages", "generate"])
@pytest.mark.parametrize("way", ways_to_write(b""))
def test_a_stream_however_it_is_written(stage: Stage, kind: str, way: str) -> None:
    """Line ends, comments and spaces change neither the charge nor a byte."""
    reply, row = asked(stage, ways_to_write(stream_of(kind))[way], SSE, kind=kind)
    assert used(row) == REPORTED
    if way not in ("bom", "two lines"):  # there the caller's usage is where ours was left out
        sent = b"".join(event for event in STREAMS[kind] if event != data(CHAT_USAGE))
        if kind != "chat" or way in ("crlf", "cr", "no space", "no last line end", "no last empty line"):
            assert reply.body == ways_to_write(sent)[way]
    assert row.response_id


def test_a_bom_before_an_array_and_an_object(stage: Stage) -> None:
    """It is no part of JSON, and read over."""
    for kind, body, stream in (
        ("array", stream_of("array"), True),
        ("chat", json.dumps(WHOLE["chat"]).encode(), False),
    ):
        reply, row = asked(stage, b"\xef\xbb\xbf" + body, "Content-Type: application/json", kind=kind, stream=stream)
        assert (reply.body, used(row)) == (b"\xef\xbb\xbf" + body, REPORTED)


CHUNKS = [data(chat()), data(chat("", "stop"))]
EMPTY = [data(chat("hel", "")), data(chat("lo", "")), data(chat("", "stop"))]
ENDS: dict[str, tuple[str, list[bytes], str | None]] = {
    "no [DONE]": ("chat", [*CHUNKS, data(CHAT_USAGE)], "its end was not announced"),
    "[DONE] twice": ("chat", [*CHUNKS, data(CHAT_USAGE), DONE, DONE], "its end came 2 times"),
    "usage after [DONE]": ("chat", [*CHUNKS, DONE, data(CHAT_USAGE)], None),
    "[DONE] early": ("chat", [data(chat("he")), DONE, data(chat("llo", "stop")), data(CHAT_USAGE)], "after its end"),
    "error after [DONE]": ("chat", [*CHUNKS, data(CHAT_USAGE), DONE, data({"error": {"message": "gpu7"}})], "after"),
    "empty finish reasons": ("chat", [*EMPTY, data(CHAT_USAGE), DONE], None),
    "no message_stop": ("messages", [named(START), named(TEXT), named(DELTA)], "its end was not announced"),
    "message_stop twice": ("messages", [*STREAMS["messages"], named(STOP)], "its end came 2 times"),
    "usage after message_stop": (
        "messages",
        [named(START), named(TEXT), named(STOP), named(DELTA)],
        "1 event came after its end",
    ),
    "error after message_stop": (
        "messages",
        [*STREAMS["messages"], named({"type": "error", "error": {"type": "api_error", "message": "gpu7"}})],
        "1 event came after its end",
    ),
    "completed twice": ("responses", [*STREAMS["responses"], STREAMS["responses"][-1]], "its end came 2 times"),
    "[DONE] of Responses": ("responses", [*STREAMS["responses"], DONE], None),
    "failed after completed": (
        "responses",
        [*STREAMS["responses"], named({"type": "error", "code": "server_error", "message": "gpu7"})],
        "1 event came after its end",
    ),
    "empty finish reason of Gemini": (
        "generate",
        [data({"candidates": [{"content": {"parts": [{"text": "he"}]}, "finishReason": ""}]}), data(PIECE)],
        None,
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_end_that_is_odd(stage: Stage, name: str) -> None:
    """The answer is whole, charged as reported, and the row says what was odd."""
    kind, events, odd = ENDS[name]
    reply, row = asked(stage, b"".join(events), SSE, kind=kind)
    assert used(row) == REPORTED
    assert reply.status == 200
    assert b"gpu7" not in reply.body
    kept = [event for event in events if event != data(CHAT_USAGE) and b"gpu7" not in event]
    end = b'event: message_stop\ndata: {"type": "message_stop"}\n\n' if name == "no message_stop" else b""
    assert reply.body == b"".join(kept) + end
    assert odd is None or odd in str(row.error)


def test_empty_finish_reasons_are_no_end(stage: Stage) -> None:
    """A stream that breaks off behind them is broken."""
    reply, row = asked(stage, b"".join(EMPTY[:2]), SSE)
    assert (row.outcome, row.usage_source) == ("upstream_error", "estimated")
    assert b"broke off" in reply.body


@pytest.mark.parametrize("kind", ["chat", "messages", "responses"])
def test_a_connection_that_breaks_behind_the_end_changes_nothing(stage: Stage, kind: str) -> None:
    """All had come: the caller gets the whole, and the charge is what was reported."""
    body = stream_of(kind)
    reply, row = asked(stage, body, SSE, kind=kind, length=len(body) + 9)
    assert (reply.body, used(row)) == (passed(kind), REPORTED)
    assert "broke off" in str(row.error)


UNFINISHED = {"candidates": [{"content": {"parts": [{"text": "hello"}]}}]}
ERRORS: dict[str, tuple[str, list[bytes]]] = {
    "vLLM": ("chat", [data({"object": "error", "message": "gpu7 fell over", "type": "InternalError", "code": 500})]),
    "of a choice": (
        "chat",
        [data({"id": "c1", "choices": [{"index": 0, "delta": {}, "error": {"code": 500, "message": "gpu7"}}]})],
    ),
    "in a delta of Responses": (
        "responses",
        [b"event: response.output_text.delta\n" + data({"error": {"code": "server_error", "message": "gpu7"}})],
    ),
    "without a type": ("messages", [data({"error": {"type": "api_error", "message": "gpu7"}})]),
    "in a list": ("generate", [data([{"error": {"code": 500, "status": "INTERNAL", "message": "gpu7"}}])]),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("first", [True, False])
def test_an_error_as_any_event(stage: Stage, name: str, first: bool) -> None:
    """It is known in every form, first or later, and told in our words."""
    kind, events = ERRORS[name]
    before = [] if first else STREAMS[kind][:2] if kind != "generate" else [data(UNFINISHED)]
    reply, row = asked(stage, b"".join([*before, *events]), SSE, kind=kind)
    assert reply.status == (502 if first else 200)
    assert b"gpu7" not in reply.body
    assert b"could not answer this call" in reply.body
    assert (row.outcome, row.refusal, row.status) == ("upstream_error", "upstream_error", reply.status)
    assert "gpu7" in str(row.error)
    assert (row.cost == 0) is first


@pytest.mark.parametrize("kind", ["chat", "messages", "generate"])
def test_comments_before_an_error_do_not_begin_a_stream(stage: Stage, kind: str) -> None:
    """Some servers send comments while they look for a place: an error that follows has its status."""
    before = named({"type": "ping"}) if kind == "messages" else b": PROCESSING\n\n"
    error = data({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "type": "rate_limit_error", "message": "x"}})
    reply, _ = asked(stage, before + before + error, SSE, kind=kind)
    assert reply.status == 429
    reply, _ = asked(stage, before + before + stream_of(kind), SSE, kind=kind)
    assert reply.body == before + before + passed(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [None, 5_000])
def test_a_whole_answer_without_its_end_is_estimated(stage: Stage, kind: str, length: int | None) -> None:
    """Whether the connection breaks or only the JSON does: what had come of it is charged, within the hold."""
    text = "word " * 200
    body = json.dumps({"id": "x", "choices": [{"message": {"content": text}}]}).encode()[:-4]
    reply, row = asked(stage, body, "Content-Type: application/json", kind=kind, stream=False, length=length)
    assert (reply.status, reply.type, reply.headers["x-should-retry"]) == (502, "upstream_error", "false")
    assert (row.outcome, row.usage_source, row.output_tokens) == ("upstream_error", "estimated", -(-len(body) // 4))
    assert row.input_tokens > 0
    assert reply.headers["x-cost-usd"] == usd(row.cost)


@pytest.mark.parametrize("body", [b"", b"<html>gpu7</html>", b"OK"])
@pytest.mark.parametrize("stream", [True, False])
def test_what_is_no_answer_is_not_charged(stage: Stage, body: bytes, stream: bool) -> None:
    """A page of a proxy, or nothing at all, was not made by the model."""
    reply, row = asked(stage, body, "Content-Type: text/html", stream=stream)
    assert (reply.status, row.cost) == (502, 0)
    assert b"gpu7" not in reply.body


def test_who_sends_without_end_behind_the_end_is_left(stage: Stage) -> None:
    """What is kept back is bounded: the answer is settled, and the rest not listened to."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    late = data(chat("x" * 50_000))
    reply, row = stage.ask([head, stream_of("chat"), *[late] * 400], "chat")
    assert len(reply.body) < 200 * len(late)
    assert row.outcome == "completed"
    assert "much came after its end" in str(row.error)


def test_an_unasked_stream_without_its_end_is_estimated(stage: Stage) -> None:
    """It broke off as a stream would, and nobody can read a part of it as an answer."""
    reply, row = asked(stage, data(chat("word " * 200)), SSE, stream=False)
    assert (reply.status, row.outcome, row.usage_source) == (502, "upstream_error", "estimated")
    assert row.output_tokens > 200
    reply, row = asked(stage, b": hello\n\n", SSE, stream=False)
    assert (reply.status, row.cost) == (502, 0)


def test_a_large_unasked_stream_is_estimated_by_its_size(stage: Stage) -> None:
    """It passes all the same."""
    body = data(chat("word " * 150_000)) + stream_of("chat")
    reply, row = asked(stage, body, SSE, stream=False)
    assert (reply.status, reply.body, row.outcome, row.usage_source) == (200, body, "completed", "estimated")
    assert row.cost > 0


@pytest.mark.parametrize(("kind", "path"), [("messages", "/v1/messages/count_tokens"), ("generate", ":countTokens")])
def test_a_stream_in_place_of_a_count_is_free(stage: Stage, kind: str, path: str) -> None:
    """Counting tokens costs nothing, whatever comes."""
    stage.script[:] = [http_answer(stream_of(kind), SSE)]
    behind = stage.behind[dialect_of(kind)]
    if kind == "messages":
        reply = behind.gate.send(path, {"model": behind.model, "messages": [{"role": "user", "content": "hi"}]})
    else:
        reply = behind.gate.send(f"/v1beta/models/{behind.model}{path}", {"contents": [{"parts": [{"text": "hi"}]}]})
    with behind.gate.workspace.read() as tx:
        row = tx.session.get(OutboxRow, reply.request_id)
    assert reply.body == stream_of(kind)
    assert row is None or row.cost == 0
