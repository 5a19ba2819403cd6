"""The charge equals prices × reported usage × multiplier, to the nano-USD; the amounts here are computed by hand.

The plan's multiplier is 1.25. A price of 2 USD per million tokens is 2,000 nano-USD a token.
"""

import hashlib
import json

import pytest

from tests.conftest import OPENAI_SHEET
from tests.gateway.conftest import KINDS, Gate
from toolkit.admin import plans
from toolkit.admin.models import add_model
from toolkit.core.pricing import MILLION

ORDERS = "[[demo input=1000 cached=400 tokens=100 reasoning=20]]"
ORDERED = {
    # (600 × 2,000 + 400 × 500 + 120 × 10,000) × 1.25
    "chat": 3_250_000,
    "responses": 3_250_000,
    # Input excludes the cache: (1,000 × 3,000 + 400 × 300 + 120 × 15,000) × 1.25
    "messages": 6_150_000,
    # (600 × 1,000 + 400 × 250 + 120 × 8,000) × 1.25
    "generate": 2_075_000,
    "array": 2_075_000,
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", KINDS)
def test_charge_with_cached_and_reasoning_tokens(gate: Gate, kind: str, stream: bool) -> None:
    """Cached tokens cost their own price, reasoning tokens the output's, and the row shows all of it."""
    reply = gate.ask(kind, ORDERS, stream=stream)
    row = gate.row()
    assert reply.status == 200
    assert row.cost == ORDERED[kind]
    assert (row.cached_input_tokens, row.output_tokens) == (400, 120)
    assert row.input_tokens == (1400 if kind == "messages" else 1000)
    assert gate.totals() == (ORDERED[kind], 0)


@pytest.mark.parametrize("kind", ["chat", "responses", "generate"])
def test_reasoning_tokens_are_in_the_row(gate: Gate, kind: str) -> None:
    """Reasoning is told apart from the rest of the output where the provider reports it."""
    gate.ask(kind, ORDERS)
    assert gate.row().reasoning_tokens == 20


def test_row_says_everything_about_the_call(gate: Gate) -> None:
    """A row holds who, what, the prices applied and the provider's id, so that its cost can be computed again."""
    reply = gate.ask("chat", ORDERS)
    row = gate.row()
    assert (row.request_id, row.org_id, row.key_id, row.plan_id) == (
        reply.request_id,
        gate.org_id,
        gate.key_id,
        gate.plan_id,
    )
    assert (row.dialect, row.endpoint, row.model, row.upstream, row.stream) == (
        "openai",
        "chat/completions",
        "gpt-test",
        "test-openai",
        False,
    )
    assert (row.outcome, row.status, row.usage_source, row.refusal, row.error) == (
        "completed",
        200,
        "reported",
        None,
        None,
    )
    assert (row.input_price, row.cached_input_price, row.output_price, row.multiplier) == (
        2_000_000_000,
        500_000_000,
        10_000_000_000,
        1_250_000,
    )
    assert row.response_id == reply.json["id"]
    assert row.price_id is not None
    assert row.held >= row.cost
    assert row.overrun == 0
    assert row.first_byte_ms is not None
    assert row.duration_ms is not None


def test_cost_is_said_with_a_whole_answer(gate: Gate) -> None:
    """X-Cost-USD is the exact charge in USD, X-Hold-ID names the hold."""
    reply = gate.ask("chat", ORDERS)
    assert reply.headers["x-cost-usd"] == "0.00325"
    assert reply.headers["x-hold-id"] == reply.request_id.replace("req_", "hold_")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_anthropic_cache_writes(gate: Gate, stream: bool) -> None:
    """Cache writes of 5 minutes and of an hour have prices of their own."""
    orders = "[[demo input=1000 cached=400 cache_write_5m=50 cache_write_1h=30 tokens=100]]"
    gate.ask("messages", orders, stream=stream)
    row = gate.row()
    assert (row.input_tokens, row.cache_write_5m_tokens, row.cache_write_1h_tokens) == (1480, 50, 30)
    # (1,000 × 3,000 + 400 × 300 + 50 × 3,750 + 30 × 6,000 + 100 × 15,000) × 1.25
    assert row.cost == 6_234_375


@pytest.mark.parametrize(
    ("tokens", "cost"),
    [
        (2000, 2_600_000),  # (2,000 × 1,000 + 10 × 8,000) × 1.25
        (2001, 5_152_500),  # (2,001 × 2,000 + 10 × 12,000) × 1.25
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", ["generate", "array"])
def test_context_size_tiers(gate: Gate, kind: str, stream: bool, tokens: int, cost: int) -> None:
    """Above the tier's start the whole request, output included, costs the tier's prices."""
    gate.ask(kind, f"[[demo input={tokens} cached=0 tokens=10]]", stream=stream)
    assert gate.row().cost == cost


def test_cost_above_the_hold_is_charged_in_full(gate: Gate) -> None:
    """A provider that reports more than can be leaves an overrun: what was used is paid for, and the row says so."""
    gate.ask("chat", "[[demo input=50000 cached=0 tokens=10]]", max_tokens=10)
    row = gate.row()
    assert row.cost == 125_125_000  # (50,000 × 2,000 + 10 × 10,000) × 1.25
    assert row.overrun == row.cost - row.held > 0


@pytest.mark.parametrize(
    ("tokens", "cost"),
    [(1, 12), (2, 25), (3, 38), (5, 62)],  # 12.5, 25, 37.5 and 62.5 nano-USD
)
def test_rounding_is_half_even_once(gate: Gate, tokens: int, cost: int) -> None:
    """Half a nano-USD goes to the even neighbour."""
    gate.ask("chat", f"[[demo input={tokens} cached=0]]", model="cent-test")
    assert gate.row().cost == cost


def test_each_choice_is_charged(gate: Gate) -> None:
    """Three choices of 100 tokens are 300 tokens of output."""
    gate.ask("chat", "[[demo input=10 tokens=100]]", n=3)
    assert gate.row().cost == 3_775_000  # (10 × 2,000 + 300 × 10,000) × 1.25


def test_embeddings_charge(gate: Gate) -> None:
    """Embeddings charge what the answer reports: 25 nano-USD a token here."""
    reply = gate.send("/v1/embeddings", {"model": "embed-test", "input": ["some words", "and some more"]})
    assert gate.row().cost == reply.json["usage"]["prompt_tokens"] * 25


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_usage_is_charged_by_estimate(gate: Gate, kind: str, stream: bool) -> None:
    """An upstream that reports nothing is charged by what went out and came back, and the row says so."""
    reply = gate.ask(kind, "Tell me about budgets [[demo nousage tokens=100]]", stream=stream)
    row = gate.row()
    assert reply.status == 200
    assert (row.outcome, row.usage_source) == ("completed", "estimated")
    assert 20 <= row.input_tokens <= 100
    assert row.output_tokens >= 50
    assert row.cost > 0


def events(body: bytes) -> list[dict[str, object]]:
    """Return the JSON objects of an event stream."""
    return [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]


def test_usage_chunk_is_swallowed_when_not_asked_for(gate: Gate) -> None:
    """Usage is asked for upstream, but a caller who did not ask for the chunk does not get it."""
    reply = gate.ask("chat", ORDERS, stream=True)
    witness = gate.witness(reply.request_id)
    assert witness is not None
    assert witness["body"]["stream_options"] == {"include_usage": True}
    assert all(event["choices"] for event in events(reply.body))
    assert reply.body.endswith(b"data: [DONE]\n\n")
    assert gate.row().usage_source == "reported"


def test_usage_chunk_is_kept_when_asked_for(gate: Gate) -> None:
    """A caller who asked for usage gets the chunk, and their other stream options go on."""
    options = {"include_usage": True, "include_obfuscation": False}
    reply = gate.ask("chat", ORDERS, stream=True, stream_options=options)
    witness = gate.witness(reply.request_id)
    assert witness is not None
    assert witness["body"]["stream_options"] == options
    assert [event["usage"]["prompt_tokens"] for event in events(reply.body) if not event["choices"]] == [1000]  # type: ignore[index]


def test_bytes_that_policy_does_not_change_go_on_as_they_came(gate: Gate) -> None:
    """White space, key order, escapes and unknown fields of a body reach the upstream untouched."""
    body = (
        b'{ "z_unknown": [1.50, 1e3],\n "max_completion_tokens": 50, "messages":'
        b' [{"role": "user", "content": "\\u0068i \xc3\xa9"}], "model": "gpt-test" }'
    )
    reply = gate.send("/v1/chat/completions", body)
    witness = gate.witness(reply.request_id)
    assert reply.status == 200
    assert witness is not None
    assert witness["body_sha256"] == hashlib.sha256(body).hexdigest()


def test_model_name_of_the_upstream_is_used(gate: Gate) -> None:
    """A model may be called something else upstream; body and Gemini's path name it as the upstream does."""
    with gate.workspace.write() as tx:
        for name, upstream in (("alias-openai", "test-openai"), ("alias-gemini", "test-gemini")):
            add_model(
                tx,
                name,
                upstream,
                upstream_model="org/real model",
                sheet=OPENAI_SHEET,
                context_window=100_000,
                default_output=4_096,
                max_output=8_192,
            )
        plan = plans.add(tx, "aliases", MILLION, ["alias-openai", "alias-gemini"])
    other = gate.another("aliases", plan=plan.id)
    first = other.ask("chat", "hello", model="alias-openai")
    second = other.send("/v1beta/models/alias-gemini:generateContent", {"contents": [{"parts": [{"text": "hello"}]}]})
    assert [first.status, second.status] == [200, 200]
    for reply in (first, second):
        witness = gate.witness(reply.request_id)
        assert witness is not None
        assert witness["model"] == "org/real model"
