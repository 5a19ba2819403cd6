"""What a provider reports, end to end: believed as far as it can be true, completed where it is silent, and kept.

Prices are 1,000 nano-USD a token of input, 250 of cached input, 8,000 of output (2,000, 500 and 12,000 above 2,000
tokens of input); the model has a context window of 100,000 tokens and makes 8,192 at most.
"""

import json
from typing import Any

import pytest

from tests.conftest import CREDENTIAL
from tests.gateway.conftest import KINDS, Gate, Reply, dialect_of, http_answer, raw_upstream
from toolkit.store.tables import OutboxRow

Json = dict[str, Any]
TEXT = "A short answer of nine words, no more."
SEEN = 10
"""Tokens that the text is worth by its bytes."""


def counts(kind: str, given: object, made: object) -> Json:
    """Return a usage object of a dialect."""
    if kind == "chat":
        return {"prompt_tokens": given, "completion_tokens": made}
    if kind in ("responses", "messages"):
        return {"input_tokens": given, "output_tokens": made}
    return {"promptTokenCount": given, "candidatesTokenCount": made}


def whole(kind: str, usage: Json) -> Json:
    """Return a whole answer that says `TEXT`."""
    if kind == "chat":
        return {"id": "x", "choices": [{"index": 0, "message": {"content": TEXT}}], "usage": usage}
    if kind == "responses":
        item = {"type": "message", "content": [{"type": "output_text", "text": TEXT}]}
        return {"id": "x", "output": [item], "usage": usage}
    if kind == "messages":
        return {"id": "x", "type": "message", "content": [{"type": "text", "text": TEXT}], "usage": usage}
    part = {"content": {"parts": [{"text": TEXT}]}, "finishReason": "STOP"}
    return {"responseId": "x", "candidates": [part], "usageMetadata": usage}


def stream(kind: str, *usages: Json) -> list[Json]:
    """Return the events of a stream that says `TEXT` and reports its usage once or several times."""
    if kind == "chat":
        said: Json = {"id": "x", "choices": [{"index": 0, "delta": {"content": TEXT}, "finish_reason": "stop"}]}
        return [said, *({"id": "x", "choices": [], "usage": usage} for usage in usages)]
    if kind == "responses":
        delta = {"type": "response.output_text.delta", "delta": TEXT}
        return [delta, {"type": "response.completed", "response": {"id": "x", "usage": usages[-1]}}]
    if kind == "messages":
        return [
            {"type": "message_start", "message": {"id": "x", "usage": usages[0]}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}},
            *({"type": "message_delta", "delta": {}, "usage": usage} for usage in usages[1:]),
            {"type": "message_stop"},
        ]
    text = {"responseId": "x", "candidates": [{"content": {"parts": [{"text": TEXT}]}}], "usageMetadata": usages[0]}
    last = {"responseId": "x", "candidates": [{"content": {}, "finishReason": "STOP"}], "usageMetadata": usages[-1]}
    return [text, last]


def sent(kind: str, events: list[Json]) -> bytes:
    """Return a stream as an upstream sends it."""
    if kind == "array":
        return http_answer(json.dumps(events).encode(), "Content-Type: application/json")
    lines = [
        (f"event: {event['type']}\n" if "type" in event else "") + f"data: {json.dumps(event)}\n\n" for event in events
    ]
    end = "data: [DONE]\n\n" if kind == "chat" else ""
    return http_answer(("".join(lines) + end).encode(), "Content-Type: text/event-stream")


def ask(gate: Gate, kind: str, answer: bytes, *, streamed: bool) -> tuple[Reply, OutboxRow]:
    """Ask a model whose upstream answers with these bytes; return what came and the call's row."""
    with raw_upstream([answer]) as upstream:
        behind = gate.behind(upstream.url, dialect_of(kind))
        reply = behind.ask(kind, stream=streamed)
    assert reply.status == 200
    return reply, behind.gate.row()


def reported(gate: Gate, kind: str, usage: Json, *, streamed: bool) -> OutboxRow:
    """Return the row of a call whose answer reports this usage."""
    if not streamed:
        answer = http_answer(json.dumps(whole(kind, usage)).encode(), "Content-Type: application/json")
        return ask(gate, kind, answer, streamed=False)[1]
    usages = [counts(kind, None, 1), usage] if kind == "messages" else [usage]
    return ask(gate, kind, sent(kind, stream(kind, *usages)), streamed=True)[1]


both = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])


@both
@pytest.mark.parametrize("kind", KINDS)
def test_a_billion_tokens_are_cut_to_what_was_held(gate: Gate, kind: str, streamed: bool) -> None:
    """What the model cannot have used costs no more than the hold; the row says why and keeps the report."""
    usage = counts(kind, 10**9, 10**9)
    row = reported(gate, kind, usage, streamed=streamed)
    assert row.usage_doubt is not None
    assert "1,000,000,000 input tokens" in row.usage_doubt
    assert "1,000,000,000 output tokens" in row.usage_doubt
    assert row.provider_usage is not None
    assert "1000000000" in row.provider_usage
    assert (row.usage_source, row.overrun, row.overrun_reason) == ("estimated", 0, None)
    assert row.cost == row.input_tokens * row.input_price // 10**6 + row.output_tokens * row.output_price // 10**6
    assert 0 < row.cost <= row.held


@both
@pytest.mark.parametrize("kind", KINDS)
def test_twice_the_context_window_is_charged(gate: Gate, kind: str, streamed: bool) -> None:
    """Usage that the model can have had is charged above the hold, as an overrun with its reason."""
    row = reported(gate, kind, counts(kind, 200_000, 10), streamed=streamed)
    assert (row.cost, row.usage_source, row.usage_doubt) == (200_000 * 2_000 + 10 * 12_000, "reported", None)
    assert (row.overrun, row.overrun_reason) == (row.cost - row.held, "context_window")
    assert row.provider_usage is None


@both
@pytest.mark.parametrize("kind", ["chat", "messages", "generate"])
def test_output_beyond_the_bound_is_charged(gate: Gate, kind: str, streamed: bool) -> None:
    """Some providers reason outside the bound: up to the longest output of the model it is charged, as an overrun."""
    bound = {"generationConfig": {"maxOutputTokens": 20}} if kind == "generate" else {"max_tokens": 20}
    usage = counts(kind, 10, 8_000)
    events = stream(kind, *([counts(kind, 10, 1), usage] if kind == "messages" else [usage]))
    answer = (
        sent(kind, events)
        if streamed
        else http_answer(json.dumps(whole(kind, usage)).encode(), "Content-Type: application/json")
    )
    with raw_upstream([answer]) as upstream:
        behind = gate.behind(upstream.url, dialect_of(kind))
        behind.ask(kind, stream=streamed, **bound)
    row = behind.gate.row()
    assert (row.cost, row.output_tokens) == (10 * 1_000 + 8_000 * 8_000, 8_000)
    assert (row.overrun > 0, row.overrun_reason) == (True, "output_bound")


@both
@pytest.mark.parametrize(
    ("kind", "count"), [*(("chat", count) for count in (-7, 1.5, "many", True, 0)), *((kind, -7) for kind in KINDS[1:])]
)
def test_an_impossible_count_makes_nothing_free(gate: Gate, kind: str, streamed: bool, count: object) -> None:
    """Where a count is none, or zero beside text, its part is estimated, and the row says so."""
    row = reported(gate, kind, counts(kind, count, count), streamed=streamed)
    assert row.usage_source == "estimated"
    assert row.usage_doubt
    assert row.output_tokens == SEEN
    assert 10 <= row.input_tokens <= 100
    assert row.cost == row.input_tokens * 1_000 + SEEN * 8_000 <= row.held


def test_embeddings_are_bounded_by_their_inputs(gate: Gate) -> None:
    """Each text has the context window to itself: what they all use is held for, and what they cannot use is cut."""
    texts = ["word " * 60_000] * 3
    for used, doubted in ((270_000, False), (10**9, True)):
        answer = {"data": [{"embedding": [0.5]}] * 3, "usage": {"prompt_tokens": used, "total_tokens": used}}
        with raw_upstream([http_answer(json.dumps(answer).encode(), "Content-Type: application/json")]) as upstream:
            behind = gate.behind(upstream.url)
            behind.gate.send("/v1/embeddings", {"model": behind.model, "input": texts})
        row = behind.gate.row()
        assert (row.overrun, bool(row.usage_doubt), row.output_tokens) == (0, doubted, 0)
        assert row.input_tokens == (300_000 if doubted else used)


@pytest.mark.parametrize("value", ["[" * 2_000 + "]" * 2_000, "1" * 5_000])
def test_arguments_that_cannot_be_built_are_not_free(gate: Gate, value: str) -> None:
    """A model makes them when it is asked to, and the provider bills them: the call is answered and charged."""
    use = '{"type":"tool_use","id":"t","name":"f","input":' + value + "}"
    answer = '{"id":"x","type":"message","content":[' + use + '],"usage":{"input_tokens":10,"output_tokens":20}}'
    reply, row = ask(gate, "messages", http_answer(answer.encode(), "Content-Type: application/json"), streamed=False)
    assert reply.body == answer.encode()
    assert (row.input_tokens, row.output_tokens, row.usage_source) == (10, 20, "reported")


def test_the_report_that_is_kept_has_no_credential(gate: Gate) -> None:
    """A provider that repeats our credential in its usage does not get it into the request log."""
    usage = counts("chat", -1, 5) | {gate.secret: 1, "note": "x" * 5_000, CREDENTIAL: 3}
    row = reported(gate, "chat", usage, streamed=False)
    assert row.provider_usage is not None
    assert gate.secret not in row.provider_usage
    assert CREDENTIAL not in row.provider_usage
    assert json.loads(row.provider_usage)["note"] == "..."
