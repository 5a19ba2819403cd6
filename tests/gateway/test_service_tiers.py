"""The priced tier is asked for where an upstream is to be pinned, and what served stands in the call's row."""

import json
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.gateway.conftest import KINDS, Gate, Reply, dialect_of, http_answer, raw_upstream
from tests.gateway.test_usage import counts, sent, stream, whole
from toolkit.admin.upstreams import update_upstream
from toolkit.core.dialect import Dialect
from toolkit.store.tables import OutboxRow

Json = dict[str, Any]
PINNED = {"chat": "default", "responses": "default", "messages": "standard_only"}
JSON = "Content-Type: application/json"


def whole_answer(kind: str, usage: Json, **fields: Any) -> bytes:
    """Return a whole answer with a usage, and fields beside it."""
    return http_answer(json.dumps({**whole(kind, usage), **fields}).encode(), JSON)


def ask(gate: Gate, kind: str, answer: bytes, fields: Json | None = None, **traits: Any) -> tuple[Json, Reply]:
    """Ask a model whose upstream is known to be so; return what was sent to it, and what came."""
    with raw_upstream([answer]) as upstream:
        reply = gate.behind(upstream.url, dialect_of(kind), **traits).ask(kind, **(fields or {}))
        (request,) = upstream.requests
    assert reply.status == 200
    return json.loads(request.partition(b"\r\n\r\n")[2]), reply


@pytest.mark.parametrize("kind", PINNED)
@pytest.mark.parametrize("fields", [{}, {"service_tier": "auto"}, {"service_tier": None}])
def test_what_a_request_leaves_open_is_pinned(gate: Gate, kind: str, fields: Json) -> None:
    """The provider is asked for the tier that is priced, and the caller is told."""
    body, reply = ask(gate, kind, whole_answer(kind, counts(kind, 9, 5)), fields, pin_tier=True)
    assert body["service_tier"] == PINNED[kind]
    assert reply.headers["x-keydesk-pinned"] == f"service_tier={PINNED[kind]}"


@pytest.mark.parametrize("kind", PINNED)
@pytest.mark.parametrize("large", [False, True])
def test_an_upstream_that_is_not_pinned_gets_what_was_sent(gate: Gate, kind: str, large: bool) -> None:
    """Nothing is put in; and where it is, so it is in a body that another process reads."""
    text = "x" * 600_000 if large else "hello"
    content: Json = {"input": text} if kind == "responses" else {"messages": [{"role": "user", "content": text}]}
    answer = whole_answer(kind, counts(kind, 9, 5))
    body, reply = ask(gate, kind, answer, content)
    assert "service_tier" not in body
    assert "x-keydesk-pinned" not in reply.headers
    body, reply = ask(gate, kind, answer, content, pin_tier=True)
    assert body["service_tier"] == PINNED[kind]
    assert "x-keydesk-pinned" in reply.headers


@pytest.mark.parametrize("kind", PINNED)
def test_what_a_request_names_itself_is_not_said_to_be_pinned(gate: Gate, kind: str) -> None:
    """It asked for the priced tier: nothing was changed."""
    fields = {"service_tier": PINNED[kind]}
    body, reply = ask(gate, kind, whole_answer(kind, counts(kind, 9, 5)), fields, pin_tier=True)
    assert body["service_tier"] == PINNED[kind]
    assert "x-keydesk-pinned" not in reply.headers


def test_embeddings_have_no_tier_to_pin(gate: Gate) -> None:
    """A field that the endpoint does not have would be refused."""
    answer = http_answer(b'{"data":[],"usage":{"prompt_tokens":3,"total_tokens":3}}', JSON)
    with raw_upstream([answer]) as upstream:
        behind = gate.behind(upstream.url, pin_tier=True)
        reply = behind.gate.send("/v1/embeddings", {"model": behind.model, "input": "hello"})
        assert b"service_tier" not in upstream.requests[0]
    assert (reply.status, reply.headers.get("x-keydesk-pinned")) == (200, None)


def test_a_running_gateway_learns_that_an_upstream_is_pinned(gate: Gate) -> None:
    """The next call goes by it."""
    with raw_upstream([whole_answer("chat", counts("chat", 9, 5))]) as upstream:
        behind = gate.behind(upstream.url)
        behind.ask("chat")
        with gate.workspace.write() as tx:
            update_upstream(tx, f"upstream-{behind.model.removeprefix('model-')}", pin_tier=True)
        behind.ask("chat")
        first, second = (b"service_tier" in request for request in upstream.requests)
    assert (first, second) == (False, True)


# -- what served -------------------------------------------------------------------------------------------------


def served(gate: Gate, kind: str, answer: bytes, *, streamed: bool) -> tuple[str | None, str | None]:
    """Return the tier and the region in the row of a call that is answered so."""
    with raw_upstream([answer]) as upstream:
        behind = gate.behind(upstream.url, dialect_of(kind))
        assert behind.ask(kind, stream=streamed).status == 200
    row: OutboxRow = behind.gate.row()
    return row.service_tier, row.inference_geo


SAID: dict[str, tuple[Json, Json, tuple[str, str | None]]] = {
    "chat": ({}, {"service_tier": "priority"}, ("priority", None)),
    "responses": ({}, {"service_tier": "priority"}, ("priority", None)),
    "messages": ({"service_tier": "priority", "inference_geo": "us"}, {}, ("priority", "us")),
    "generate": ({"trafficType": "ON_DEMAND_PRIORITY"}, {}, ("on_demand_priority", None)),
    "array": ({"trafficType": "ON_DEMAND_PRIORITY"}, {}, ("on_demand_priority", None)),
}
"""What an answer says that was served with priority, in its usage and beside it; and what the row has."""


@pytest.mark.parametrize("kind", KINDS)
def test_what_served_stands_in_the_row(gate: Gate, kind: str) -> None:
    """Whole and streamed, in the provider's own word."""
    inside, beside, wanted = SAID[kind]
    usage = counts(kind, 9, 5) | inside
    assert served(gate, kind, whole_answer(kind, usage, **beside), streamed=False) == wanted
    events = stream(kind, *([counts(kind, 9, 1)] if kind == "messages" else []), usage)
    last = events[-1]["response"] if kind == "responses" else events[-1]
    last |= beside
    assert served(gate, kind, sent(kind, events), streamed=True) == wanted


@pytest.mark.parametrize("streamed", [False, True])
def test_geminis_header_says_what_served_where_the_answer_does_not(gate: Gate, streamed: bool) -> None:
    """Google, "Priority inference", graceful downgrade."""
    usage = counts("generate", 9, 5)
    content = "text/event-stream" if streamed else "application/json"
    body = (
        b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in stream("generate", usage))
        if streamed
        else json.dumps(whole("generate", usage)).encode()
    )
    answer = http_answer(body, f"Content-Type: {content}", "x-gemini-service-tier: Standard")
    assert served(gate, "generate", answer, streamed=streamed) == ("standard", None)


@pytest.mark.parametrize("tier", ["x" * 500, "line\nbreak\0", {"a": 1}, 7])
def test_a_word_that_is_none_is_not_kept(gate: Gate, tier: object) -> None:
    """Whatever a provider says, the call is charged and its row is written."""
    answer = whole_answer("chat", counts("chat", 9, 5), service_tier=tier)
    assert served(gate, "chat", answer, streamed=False) == (None, None)


def test_who_leaves_has_the_tier_that_was_said_until_then(gate: Gate) -> None:
    """Anthropic says it first."""
    start: Json = {"type": "message_start", "message": {"id": "x", "usage": {"input_tokens": 9, "inference_geo": "us"}}}
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    event = b"event: message_start\ndata: " + json.dumps(start).encode() + b"\n\n"
    with raw_upstream([head, event], linger=True) as upstream:
        behind = gate.behind(upstream.url, Dialect.ANTHROPIC)
        with behind.gate.streaming("messages", "hi", model=behind.model) as (_, answer):
            assert answer.read1(65_536)
        assert upstream.hung_up.wait(20)
    wait_until(behind.gate.rows, "the row of a caller who left")
    assert (behind.gate.row().outcome, behind.gate.row().inference_geo) == ("aborted", "us")
