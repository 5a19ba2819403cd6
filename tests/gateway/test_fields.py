"""Fields and betas at the gateway: what moves a hold, what is left out, and that the caller and the operator learn."""

from tests.gateway.conftest import Gate, request_of
from tests.gateway.test_refusals import assert_refused

MILLION_BETA = {"anthropic-beta": "context-1m-2025-08-07,claude-code-20250219"}


def test_beta_that_opens_a_larger_window_is_refused_where_it_could_be_filled(gate: Gate) -> None:
    """What is held is bounded by the model's window here; the refusal names the command that raises it."""
    path, body = request_of("messages", "x" * 250_000)
    reply = gate.send(path, body, MILLION_BETA)
    assert_refused(
        gate, reply, 400, "unsupported_feature", "keydesk models update claude-test --context-window 1000000"
    )
    assert reply.json["error"]["details"]["param"] == "anthropic-beta"


def test_beta_that_opens_a_larger_window_passes_with_a_call_that_cannot_fill_one(gate: Gate) -> None:
    """Claude Code sends it with every call of a model that has it."""
    path, body = request_of("messages", "[[demo tokens=4]]")
    reply = gate.send(path, body, MILLION_BETA)
    assert reply.status == 200
    assert gate.row().overrun == 0


def test_thinking_that_is_counted_beside_the_bound_is_held(gate: Gate) -> None:
    """Qwen's budget comes on top of `max_tokens`, so it is held on top."""
    held: list[int] = []
    path, body = request_of("chat", "[[demo tokens=4]]")
    for fields in ({"max_tokens": 100}, {"max_tokens": 100, "thinking_budget": 1_000}, {"max_tokens": 1_100}):
        assert gate.send(path, {**body, **fields}).status == 200
        held.append(gate.rows()[-1].held)
    bounded, beside, larger = held
    assert bounded < larger <= beside
