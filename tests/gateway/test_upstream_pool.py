"""Upstreams that misbehave: the caller gets a clear answer, and pays only for what was produced."""

import gzip
import json

import pytest

from tests.conftest import CREDENTIAL
from tests.gateway.conftest import Gate, Script, http_answer, raw_upstream
from toolkit.admin import catalog
from toolkit.core.dialect import Dialect
from toolkit.store.tables import Model, Upstream

JSON = "Content-Type: application/json"
EVENTS = "Content-Type: text/event-stream"

HOPELESS: dict[str, Script] = {
    "not HTTP": [b"SSH-2.0-OpenSSH_9.2\r\n"],
    "closes at once": [],
    "closes in its head": [b"HTTP/1.1 200 OK\r\nContent-"],
    "no JSON": [http_answer(b"<html>Sign in to the hotel's network</html>", "Content-Type: text/html")],
    "JSON, but a list": [http_answer(b"[]", JSON)],
    "empty body": [http_answer(b"", JSON)],
    "no content": [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "cut off": [http_answer(b'{"id":', JSON, length=1000)],
    "broken gzip": [http_answer(b"this is not gzip", JSON, "Content-Encoding: gzip")],
    "more than gzip": [http_answer(gzip.compress(b'{"id":"x"}') + b"more", JSON, "Content-Encoding: gzip")],
    "unknown encoding": [http_answer(b"???", JSON, "Content-Encoding: br")],
    "bad chunk": [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
    "endless header": [b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n"],
}

BEGUN = {"cut off", "more than gzip"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fault", HOPELESS)
def test_upstream_that_gives_no_answer(gate: Gate, fault: str, stream: bool) -> None:
    """Whatever is no answer is a 502 in the dialect's envelope, and its row says why; what had begun is charged."""
    with raw_upstream(HOPELESS[fault]) as upstream:
        behind = gate.behind(upstream.url)
        reply = behind.ask("chat", stream=stream)
    row = behind.gate.row()
    assert (reply.status, reply.type) == (502, "upstream_error")
    assert (row.outcome, row.cost > 0) == ("upstream_error", fault in BEGUN)
    assert row.error
    assert behind.gate.totals() == (row.cost, 0)


def test_redirect_is_not_followed(gate: Gate) -> None:
    """A redirect would carry our credential to wherever the upstream says: it is a 502, and nobody else is called."""
    with raw_upstream([http_answer(b'{"id":"x"}', JSON)]) as elsewhere:
        answer = http_answer(b"", f"Location: {elsewhere.url}/", status="307 Temporary Redirect")
        with raw_upstream([answer]) as upstream:
            reply = gate.behind(upstream.url).ask("chat")
        assert elsewhere.requests == []
    assert (reply.status, reply.type) == (502, "upstream_error")
    assert "location" not in reply.headers


def test_upstream_that_cannot_be_reached(gate: Gate) -> None:
    """A refused connection is a 502 that may be tried again: nothing had been sent."""
    behind = gate.behind("http://127.0.0.1:9")
    reply = behind.ask("chat")
    assert reply.status == 502
    assert "x-should-retry" not in reply.headers
    assert behind.gate.totals() == (0, 0)


def test_gzip_though_identity_was_asked_for(gate: Gate) -> None:
    """A compressed answer is decoded: the caller gets plain JSON and usage is read from it."""
    answer = {"id": "x", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
    body = gzip.compress(json.dumps(answer).encode())
    with raw_upstream([http_answer(body, JSON, "Content-Encoding: gzip")]) as upstream:
        behind = gate.behind(upstream.url)
        reply = behind.ask("chat")
    assert reply.json == answer
    assert "content-encoding" not in reply.headers
    assert behind.gate.row().cost == 10 * 1_000 + 5 * 8_000


def test_gzip_stream(gate: Gate) -> None:
    """A compressed stream is decoded too."""
    chunk = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
    body = gzip.compress(chunk + b"data: [DONE]\n\n")
    with raw_upstream([http_answer(body, EVENTS, "Content-Encoding: gzip")]) as upstream:
        reply = gate.behind(upstream.url).ask("chat", stream=True)
    assert reply.body == chunk + b"data: [DONE]\n\n"


def test_answer_of_200_that_is_an_error(gate: Gate) -> None:
    """Some servers say 200 and mean an error: it has the status that it names, and is not charged."""
    body = b'{"error":{"message":"no such deployment","code":404}}'
    with raw_upstream([http_answer(body, JSON)]) as upstream:
        behind = gate.behind(upstream.url)
        reply = behind.ask("chat")
    row = behind.gate.row()
    assert (reply.status, reply.type) == (502, "upstream_error")
    assert (row.outcome, row.cost) == ("upstream_error", 0)


def test_stream_asked_for_but_a_whole_answer_came(gate: Gate) -> None:
    """An upstream that ignores `stream` is passed on as it is, and charged as it reports."""
    body = b'{"id":"x","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}'
    with raw_upstream([http_answer(body, JSON)]) as upstream:
        behind = gate.behind(upstream.url)
        reply = behind.ask("chat", stream=True)
    assert reply.body == body
    assert behind.gate.row().cost == 10 * 1_000 + 5 * 8_000


def test_content_type_of_a_stream_may_be_written_in_any_case(gate: Gate) -> None:
    """Media types have no case."""
    body = b'data: {"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    with raw_upstream([http_answer(body, "Content-Type: Text/Event-Stream; charset=utf-8")]) as upstream:
        reply = gate.behind(upstream.url).ask("chat", stream=True)
    assert (reply.status, reply.body) == (200, body)


def test_huge_event(gate: Gate) -> None:
    """An event that never ends is given up at 16 MiB: the stream ends with our error, and memory stays bounded."""
    piece = b"x" * (1 << 20)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    first = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
    with raw_upstream([head, first, b"data: ", *[piece] * 34], linger=True) as upstream:
        behind = gate.behind(upstream.url)
        reply = behind.ask("chat", stream=True)
    row = behind.gate.row()
    assert reply.body.startswith(first)
    assert b"failed or broke off" in reply.body[-600:]
    assert (row.outcome, row.output_tokens) == ("upstream_error", 2)
    assert "16 MiB" in (row.error or "")


def test_large_event_below_the_bound_passes(gate: Gate) -> None:
    """A delta of 4 MiB, a picture for instance, goes through unchanged."""
    text = "x" * (4 << 20)
    body = (
        b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"'
        + text.encode()
        + b'"},"finish_reason":"stop"}]}\n\n'
        b"data: [DONE]\n\n"
    )
    with raw_upstream([http_answer(body, EVENTS)]) as upstream:
        reply = gate.behind(upstream.url).ask("chat", stream=True)
    assert reply.body == body


def test_array_that_breaks_before_its_first_element(gate: Gate) -> None:
    """Nothing was sent yet, so the caller gets the error with its status, and pays nothing."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n"
    with raw_upstream([head, b'[{"candidates": [{"cont']) as upstream:
        behind = gate.behind(upstream.url, Dialect.GEMINI)
        reply = behind.ask("array", stream=True)
    assert (reply.status, reply.type) == (502, "upstream_error")
    assert behind.gate.totals() == (0, 0)


def test_anthropic_stream_that_breaks_before_any_output(gate: Gate) -> None:
    """A message that started and broke before its first word is not charged, whatever its start reported."""
    start = {
        "type": "message_start",
        "message": {"id": "m", "type": "message", "usage": {"input_tokens": 1000, "output_tokens": 1}},
    }
    body = b"event: message_start\ndata: " + json.dumps(start).encode() + b"\n\n"
    with raw_upstream([http_answer(body, EVENTS, length=5000)]) as upstream:
        behind = gate.behind(upstream.url, Dialect.ANTHROPIC)
        reply = behind.ask("messages", stream=True)
    assert b"event: error" in reply.body
    assert behind.gate.row().cost == 0


def test_missing_upstream_credential(gate: Gate) -> None:
    """The caller gets a 502; the operator reads in the row which variable is not set. The upstream is not called."""
    with raw_upstream([http_answer(b"{}", JSON)]) as upstream:
        behind = gate.behind(upstream.url, credential_env="TEST_NOT_SET_API_KEY")
        reply = behind.ask("chat")
        assert upstream.requests == []
    row = behind.gate.row()
    assert reply.status == 502
    assert "TEST_NOT_SET_API_KEY" not in reply.message
    assert "TEST_NOT_SET_API_KEY" in (row.error or "")
    assert "not set" in (row.error or "")


@pytest.mark.parametrize("name", ["PATH", "KEYDESK_STORE_URL"])
def test_an_older_row_sends_no_other_variable(gate: Gate, name: str) -> None:
    """What somebody wrote into the store by hand, or an older version let in, is read again when it is used."""
    with raw_upstream([http_answer(b"{}", JSON)]) as upstream:
        behind = gate.behind(upstream.url)
        with gate.workspace.write() as tx:
            model = tx.session.get_one(Model, behind.model)
            tx.session.get_one(Upstream, model.upstream).credential_env = name
            catalog.changed(tx)
        reply = behind.ask("chat")
        assert upstream.requests == []
    assert reply.status == 502
    assert name not in reply.message
    assert f"{name} is" in (behind.gate.row().error or "")


def test_an_address_is_judged_when_connecting(gate: Gate) -> None:
    """A name that resolves to a metadata service, or an older row with its address, is not called."""
    behind = gate.behind("http://127.0.0.1:9")
    for base_url in ("http://169.254.169.254/v1", "http://[::ffff:169.254.169.254]/v1"):
        with gate.workspace.write() as tx:
            model = tx.session.get_one(Model, behind.model)
            tx.session.get_one(Upstream, model.upstream).base_url = base_url
            catalog.changed(tx)
        assert behind.ask("chat").status == 502
    assert {("never called" in (row.error or ""), row.cost) for row in behind.gate.rows()} == {(True, 0)}


def test_line_break_at_the_end_of_the_credential(gate: Gate) -> None:
    """A credential that was stored with its line's end works all the same."""
    with raw_upstream([http_answer(b'{"id":"x"}', JSON)]) as upstream:
        assert gate.behind(upstream.url, credential_env="TEST_SPOILED_API_KEY").ask("chat").status == 200
        assert f"authorization: bearer {CREDENTIAL}\r\n".encode() in upstream.requests[0].lower()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_credential_that_no_header_can_hold(gate: Gate, stream: bool) -> None:
    """A line break inside a credential is the operator's mistake: a 502 for the caller, and no header injected."""
    with raw_upstream([http_answer(b'{"id":"x"}', JSON)]) as upstream:
        behind = gate.behind(upstream.url, credential_env="TEST_BROKEN_API_KEY")
        assert behind.ask("chat", stream=stream).status == 502
        assert upstream.requests == []
    assert behind.gate.row().error
    assert behind.gate.totals() == (0, 0)


def test_array_asked_for_but_a_page_came(gate: Gate) -> None:
    """A page of a proxy in place of Gemini's array is a 502, not a stream."""
    with raw_upstream([http_answer(b"<html></html>", "Content-Type: text/html")]) as upstream:
        reply = gate.behind(upstream.url, Dialect.GEMINI).ask("array", stream=True)
    assert (reply.status, reply.type) == (502, "upstream_error")


def test_error_is_framed_as_the_stream_was(gate: Gate) -> None:
    """An upstream that sends events though an array was asked for ends, when it breaks, with an event."""
    piece = b'data: {"candidates":[{"content":{"parts":[{"text":"hello"}]}}]}\n\n'
    with raw_upstream([http_answer(piece, EVENTS, length=5000)]) as upstream:
        reply = gate.behind(upstream.url, Dialect.GEMINI).ask("array", stream=True)
    assert reply.body.startswith(piece + b'data: {"error"')


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "401 Unauthorized"])
def test_upstream_that_repeats_our_credential(gate: Gate, status: str, stream: bool) -> None:
    """Our credential is taken out of errors, whoever says it, for the caller and for the row."""
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {CREDENTIAL}"}}).encode()
    answer = http_answer(body, JSON, status=status)
    if stream and status == "200 OK":
        answer = http_answer(b"data: " + body + b"\n\n", EVENTS)
    with raw_upstream([answer]) as upstream:
        behind = gate.behind(upstream.url)
        reply = behind.ask("chat", stream=stream)
    assert CREDENTIAL.encode() not in reply.body
    assert CREDENTIAL not in (behind.gate.row().error or "")
    assert behind.gate.row().error


@pytest.mark.parametrize("status", ["204 No Content", "205 Reset Content"])
def test_a_stream_under_a_status_without_content_is_no_answer(gate: Gate, status: str) -> None:
    """No server may send a body behind it: the caller of a stream reads an error, not a connection that breaks."""
    event = b'data: {"choices": []}\n\n'
    with raw_upstream([http_answer(event, "Content-Type: text/event-stream", status=status)]) as upstream:
        behind = gate.behind(upstream.url)
        reply = behind.gate.ask("chat", "hi", stream=True, model=behind.model)
    assert (reply.status, reply.type) == (502, "upstream_error")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_kept_connection_that_the_upstream_closes_as_it_is_used(gate: Gate, stream: bool) -> None:
    """Servers close what was idle; the call that meets this goes out once more, and is charged once."""
    answer = http_answer(b'{"id":"x","usage":{"prompt_tokens":10,"completion_tokens":5}}', JSON)
    if stream:
        answer = http_answer(
            b'data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}\n\ndata: [DONE]\n\n', EVENTS
        )
    with raw_upstream([answer], linger=True) as upstream:  # it closes when it reads a second request
        behind = gate.behind(upstream.url)
        assert [behind.ask("chat", stream=stream).status for _ in range(3)] == [200] * 3
        assert len(upstream.requests) == 3
    rows = behind.gate.rows()
    assert {(row.outcome, row.cost) for row in rows} == {("completed", 10 * 1_000 + 5 * 8_000)}
    assert sorted(bool(row.resent) for row in rows) == [False, True, True]
