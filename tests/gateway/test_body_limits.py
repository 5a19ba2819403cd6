"""What a body may be, and what is judged before it is read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Running, World, free_port, gateway_process, usd
from tests.gateway.conftest import KINDS, Gate, Reply, make_gate, read_reply, request_of
from tests.gateway.test_refusals import assert_refused
from toolkit.admin import plans, wallet
from toolkit.admin.models import add_model
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.dialects.body import MAX_DEPTH, MAX_VALUES


def announce(gate: Gate, path: str, size: int = 1_000_000, *, timeout: float = 20) -> Reply:
    """Send a head that announces a body and nothing of the body; return the answer, if one comes."""
    with gate.connection(timeout=timeout) as connection:
        connection.putrequest("POST", path)
        connection.putheader("Authorization", f"Bearer {gate.secret}")
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        return read_reply(connection)


CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_wallet_is_told_before_the_body_is_read(gate: Gate, kind: str) -> None:
    """It is the wallet's refusal without what the call would need, and it leaves a row."""
    poor = make_gate(gate.running, money=0)
    reply = announce(poor, request_of(kind, "hello", stream=True)[0])
    assert_refused(poor, reply, 402, "billing_shortfall", "nothing is left")
    assert "needed_usd" not in reply.body.decode()


def test_a_limit_of_nothing_is_told_before_the_body_is_read(gate: Gate) -> None:
    """So is a monthly limit."""
    gate.update(monthly_limit=0)
    assert_refused(gate, announce(gate, CHAT), 402, "api_key_quota_exceeded", "nothing is left")


def test_a_credit_counts_at_once(gate: Gate) -> None:
    """After a refusal the next call is asked for anew, and passes when there is money."""
    poor = make_gate(gate.running, money=0)
    for _ in range(2):
        assert announce(poor, CHAT).status == 402
    with poor.workspace.write() as tx:
        wallet.credit(tx, poor.org_id, usd(1), "late payment")
    assert poor.ask("chat", "hello").status == 200


def test_a_key_that_ran_out_is_asked_before_its_next_body(gate: Gate) -> None:
    """A key with money is judged with its body in hand; once that was refused, the next call is asked first."""
    assert gate.ask("chat", "[[demo input=1000 cached=0 tokens=100]]").status == 200  # costs 0.00375 USD
    gate.update(monthly_limit=usd(1) // 267)  # less than that
    assert "needed_usd" in gate.ask("chat", "hello").json["error"]["details"]
    assert "needed_usd" not in announce(gate, CHAT).json["error"]["details"]


@pytest.mark.parametrize("kind", ["messages", "generate"])
def test_counting_tokens_needs_no_money(gate: Gate, kind: str) -> None:
    """It is free, so nobody asks, neither before nor after a refusal."""
    poor = make_gate(gate.running, money=0)
    path, body = request_of(kind, "hello")
    counting = f"{path}/count_tokens" if kind == "messages" else path.replace("generateContent", "countTokens")
    for _ in range(2):
        assert poor.send(counting, body).status == 200
        assert announce(poor, path).status == 402


def test_a_key_that_may_call_something_free_is_heard(gate: Gate) -> None:
    """Which model a call is for stands in its body: while one is free, the body is read."""
    with gate.workspace.write() as tx:
        name = f"free-{gate.key_id}"
        add_model(
            tx,
            name,
            "test-openai",
            sheet=PriceSheet.flat(input=0, output=0),
            context_window=100_000,
            default_output=4_096,
            max_output=8_192,
        )
        plan = plans.add(tx, name, MILLION, [name, "gpt-test"])
    poor = make_gate(gate.running, money=0, plan=plan.id)
    assert poor.ask("chat", "hello", model=name).status == 200
    assert "needed_usd" in poor.ask("chat", "hello").json["error"]["details"]


# -- sizes ------------------------------------------------------------------------------------------------------


def test_a_body_no_model_of_the_key_could_need_is_refused_by_its_length(gate: Gate) -> None:
    """28 MiB for media, and 16 bytes for each token of the largest context that the key may call."""
    with gate.workspace.write() as tx:
        plan = plans.add(tx, f"no embeddings for {gate.key_id}", MILLION, ["gpt-test", "claude-test"])
    chatty = gate.another("chatty", plan=plan.id)
    limit = 16 * 100_000 + (28 << 20)
    assert_refused(chatty, announce(chatty, CHAT, limit + 1), 413, "request_too_large", f"{limit:,} bytes")
    with pytest.raises(TimeoutError):  # a key that may call an embedding model may send more: its body is waited for
        announce(gate, CHAT, limit + 1, timeout=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_text_beyond_any_context_is_refused(gate: Gate, kind: str) -> None:
    """Text outside media is at most 16 bytes a token of the model's context."""
    reply = gate.ask(kind, "x" * 1_600_001)
    assert_refused(gate, reply, 413, "request_too_large", "1,600,000")


def test_a_picture_is_no_text(gate: Gate) -> None:
    """Its bytes do not count, so it may be larger than all text."""
    url = "data:image/png;base64," + "A" * 2_000_000
    content = [{"type": "image_url", "image_url": {"url": url}}]
    assert gate.ask("chat", "", messages=[{"role": "user", "content": content}]).status == 200


def embed(gate: Gate, given: Any) -> Reply:
    """Ask for embeddings."""
    return gate.send("/v1/embeddings", {"model": "embed-test", "input": given})


def test_each_input_of_an_embedding_has_the_context_to_itself(gate: Gate) -> None:
    """Many long inputs pass; one that is too long does not, and neither do too many."""
    assert embed(gate, ["x" * 1_000_000] * 3).status == 200
    for reply, status, words in (
        (embed(gate, ["x", "x" * 1_600_001]), 413, "An input"),
        (embed(gate, ["x"] * 2_049), 400, "2,048"),
    ):
        assert reply.status == status
        assert words in reply.message
    requests = [{"content": {"parts": [{"text": "x" * 1_600_001}]}}, {"content": {"parts": [{"text": "x"}]}}]
    path = "/v1beta/models/gemini-embed-test:batchEmbedContents"
    reply = gate.send(path, {"requests": requests})
    assert (reply.status, reply.type) == (413, "request_too_large")


def test_long_arrays_of_token_ids_are_embedded(gate: Gate) -> None:
    """More values than other bodies may have, for they are numbers."""
    assert embed(gate, [[1] * 60_000] * 10).status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_depth_are_bounded_in_every_dialect(gate: Gate, kind: str) -> None:
    """Wherever they stand."""
    path, body = request_of(kind, "hello")
    body["metadata"] = [0] * (MAX_VALUES + 1)
    reply = gate.send(path, body)
    assert (reply.status, reply.type) == (400, "invalid_request")
    assert "500,000 values" in reply.message
    body["metadata"] = 0
    text = json.dumps(body).replace('"metadata": 0', '"metadata": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert "128 levels" in gate.send(path, text.encode()).message


def test_a_small_limit_holds_for_small_bodies(world: World, tmp_path: Path) -> None:
    """`KEYDESK_BODY_LIMIT` may be lower than what counts as large."""
    settings = replace(world.workspace.settings, gateway_port=free_port())
    running = Running(world, f"http://127.0.0.1:{settings.gateway_port}", "", tmp_path / "log", None)  # type: ignore[arg-type]
    with gateway_process(settings, running.log, {"KEYDESK_BODY_LIMIT": "2000"}):
        gate = make_gate(running)
        replies = [gate.ask("chat", "x" * 2_000), announce(gate, CHAT, 2_001)]
    assert [(reply.status, "KEYDESK_BODY_LIMIT" in reply.message) for reply in replies] == [(413, True)] * 2
