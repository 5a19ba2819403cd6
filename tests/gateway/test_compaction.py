"""A conversation that the provider makes shorter is held, priced and charged as any response; OpenAI, "Compaction"."""

import json
from typing import Any

import pytest

from tests.conftest import usd
from tests.gateway.conftest import Gate, http_answer, raw_upstream

ORDERS = "[[demo input=1000 cached=400 tokens=100 reasoning=20]]"
TALK: list[dict[str, Any]] = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": ORDERS}]},
    {"type": "function_call", "call_id": "call_1", "name": "shell", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "nothing"},
]
COST = 3_250_000
"""(600 × 2,000 + 400 × 500 + 120 × 10,000) × 1.25 nano-USD."""


@pytest.mark.parametrize("path", ["/v1/responses/compact", "/openai/v1/responses/compact"])
def test_a_compaction_is_charged_as_its_usage_says(gate: Gate, path: str) -> None:
    """As Codex asks for it: with its tools, of which hosted ones are left out."""
    tools = [{"type": "function", "name": "shell", "parameters": {}}, {"type": "web_search"}]
    more = {"instructions": "be brief", "parallel_tool_calls": True, "reasoning": {"effort": "low"}, "text": {}}
    reply = gate.send(path, {"model": "gpt-test", "input": TALK, "tools": tools, "prompt_cache_key": "c-1", **more})
    assert (reply.status, reply.json["object"]) == (200, "response.compaction")
    assert [item["type"] for item in reply.json["output"]] == ["message", "compaction"]
    assert reply.headers["x-keydesk-left-out"] == "tools[*].web_search"
    row = gate.row()
    assert (row.endpoint, row.outcome, row.usage_source) == ("responses/compact", "completed", "reported")
    assert (row.cost, row.cached_input_tokens, row.output_tokens, row.reasoning_tokens) == (COST, 400, 120, 20)
    assert row.response_id == reply.json["id"]
    assert gate.totals() == (COST, 0)


def test_a_compaction_goes_on_as_it_came(gate: Gate) -> None:
    """Neither what is kept nor a bound is said: the provider knows no such fields there."""
    body = {"model": "gpt-test", "input": TALK, "instructions": "be brief"}
    reply = gate.send("/v1/responses/compact", body)
    witnessed = gate.witness(reply.request_id)
    assert witnessed is not None
    assert (witnessed["path"], witnessed["body"]) == ("/openai/v1/responses/compact", body)


def test_the_next_turn_has_the_compaction(gate: Gate) -> None:
    """What was compacted comes back in the input, sealed; the whole context is held for it, and its usage charged."""
    output = gate.send("/v1/responses/compact", {"model": "gpt-test", "input": TALK}).json["output"]
    again = [*output, {"role": "user", "content": ORDERS}]
    assert gate.send("/v1/responses", {"model": "gpt-test", "input": again}).status == 200
    assert [row.cost for row in gate.rows()] == [COST, COST]
    assert gate.rows()[1].held > gate.rows()[0].held


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "send what it refers to instead"),
        ({"stream": True}, "stream", "a compaction is answered whole"),
        ({"input": [{"type": "compaction", "id": "cmp_1"}]}, "input[0]", "encrypted_content"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type", "store: false"),
        ({"service_tier": "priority"}, "service_tier", "no price"),
        ({"store": True}, "store", "shared"),
    ],
)
def test_what_a_compaction_may_not_have(gate: Gate, fields: dict[str, Any], param: str, words: str) -> None:
    """State at the provider, and what has no price: refused with the cure, and never forwarded."""
    reply = gate.send("/v1/responses/compact", {"model": "gpt-test", "input": TALK} | fields)
    assert (reply.status, reply.type, reply.json["error"]["param"]) == (400, "unsupported_feature", param)
    assert words in reply.message
    assert gate.row().cost == 0


@pytest.mark.parametrize(
    ("path", "more"),
    [("/v1/responses/compact", {}), ("/v1/responses", {"input": [*TALK, {"type": "compaction_trigger"}]})],
)
def test_the_longest_summary_is_held(gate: Gate, path: str, more: dict[str, Any]) -> None:
    """No bound of the request is said to hold for it, so that of the model counts: 8,192 tokens at 12,500 nano-USD."""
    gate.update(monthly_limit=usd(0.10))
    reply = gate.send(path, {"model": "gpt-test", "input": TALK, "max_output_tokens": 16, **more})
    assert (reply.status, reply.type) == (402, "api_key_quota_exceeded")
    assert "largest_output_bound" not in reply.json["error"]["details"]
    assert gate.totals() == (0, 0)


EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("response.created", {"response": {"id": "resp_7", "status": "in_progress", "usage": None}}),
    ("response.compaction.compacting", {"item_id": "cmp_7", "output_index": 0}),
    (
        "response.output_item.done",
        {"output_index": 0, "item": {"id": "cmp_7", "type": "compaction", "encrypted_content": "c2VhbGVk"}},
    ),
    (
        "response.completed",
        {
            "response": {
                "id": "resp_7",
                "status": "completed",
                "usage": {
                    "input_tokens": 900,
                    "input_tokens_details": {"cached_tokens": 500},
                    "output_tokens": 70,
                    "total_tokens": 970,
                },
            }
        },
    ),
]


def test_codexs_trigger_in_a_stream(gate: Gate) -> None:
    """It ends the input of an ordinary call, whose one item is the compaction; each event passes as it came."""
    stream = b"".join(
        b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps({"type": name, "sequence_number": at, **more}).encode())
        for at, (name, more) in enumerate(EVENTS)
    )
    with raw_upstream([http_answer(stream, "Content-Type: text/event-stream")]) as upstream:
        behind = gate.behind(f"{upstream.url}/v1")
        given = [*TALK, {"type": "compaction_trigger"}]
        body = {"model": behind.model, "input": given, "stream": True, "store": False, "include": []}
        reply = behind.gate.send("/v1/responses", body)
    assert (reply.status, reply.body) == (200, stream)
    assert json.loads(upstream.requests[0].partition(b"\r\n\r\n")[2])["input"] == given
    row = behind.gate.row()
    assert (row.input_tokens, row.cached_input_tokens, row.output_tokens) == (900, 500, 70)
    assert (row.response_id, row.usage_source) == ("resp_7", "reported")


def test_a_provider_that_does_not_compact(gate: Gate) -> None:
    """The caller learns that it is the endpoint that is missing, and need not try again."""
    answer = http_answer(b'{"detail":"Not Found"}', "Content-Type: application/json", status="404 Not Found")
    with raw_upstream([answer]) as upstream:
        behind = gate.behind(f"{upstream.url}/v1")
        reply = behind.gate.send("/v1/responses/compact", {"model": behind.model, "input": TALK})
    assert (reply.status, reply.type, reply.headers["x-should-retry"]) == (502, "upstream_error", "false")
    assert "does not have the endpoint of this call (its status: 404)" in reply.message
    assert behind.gate.row().cost == 0
