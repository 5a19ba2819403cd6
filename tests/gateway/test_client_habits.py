"""What Codex and opencode are told of a refusal that another try cannot change, so that they do not try."""

import json
import re
from typing import Any

import pytest

from tests.conftest import usd
from tests.gateway.conftest import KINDS, Gate, Reply, make_gate, request_of
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.secrets import new_secret
from toolkit.gateway.client_habits import told

CODEX = {"originator": "codex_exec", "accept": "text/event-stream"}


def failed(reply: Reply) -> dict[str, Any]:
    """Return the response that a stream of one event says to have failed."""
    assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
    name, data = reply.body.decode().rstrip("\n").split("\n")
    assert name == "event: response.failed"
    response: dict[str, Any] = json.loads(data.removeprefix("data: "))["response"]
    return response


def ask(gate: Gate, headers: dict[str, str], text: str = "hello", **fields: Any) -> Reply:
    path, body = request_of("responses", text, stream=True, **fields)
    return gate.send(path, body, headers)


def test_an_empty_wallet(gate: Gate) -> None:
    """Before the body is read, and when the call needs more than there is; the row says 402, and nothing is charged."""
    poor = make_gate(gate.running, money=usd(0.01))
    broke = make_gate(gate.running, money=0)
    for one in (poor, broke):
        error = failed(ask(one, CODEX))["error"]
        assert error["code"] == "invalid_prompt"  # after which Codex shows the message, and gives up
        assert error["type"] == "billing_shortfall"
        assert "wallet does not cover this call" in error["message"]
        row = one.row()
        assert (row.status, row.refusal, row.cost) == (402, "billing_shortfall", 0)


def test_an_unknown_key_and_a_model_out_of_the_keys_scope(gate: Gate) -> None:
    """Asking again helps neither."""
    path, body = request_of("responses", "hello", stream=True)
    reply = gate.send(path, body, CODEX, secret=new_secret())
    assert failed(reply)["error"]["type"] == "unauthorized"
    narrow = gate.another("narrow", models=["cent-test"])
    assert failed(ask(narrow, CODEX))["error"]["type"] == "model_not_allowed"


def test_a_call_that_the_provider_may_have_billed(gate: Gate) -> None:
    """What carries `x-should-retry: false` for others ends Codex' turn; what does not keeps its status."""
    reply = ask(gate, CODEX, "[[demo status=401]]")
    assert reply.headers["x-should-retry"] == "false"
    assert failed(reply)["error"]["type"] == "upstream_error"
    assert ask(gate, CODEX, "[[demo status=429]]").status == 429
    assert ask(gate, CODEX, "[[demo status=503]]").status == 503


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_refused_for_good_says_so(gate: Gate, kind: str) -> None:
    """Claude Code asks ten times more after a 401 without it; a busy provider may be asked again."""
    broke = make_gate(gate.running, money=0)
    assert broke.ask(kind, "hello").headers["x-should-retry"] == "false"
    unknown = gate.ask(kind, "hello", secret=new_secret())
    assert (unknown.status, unknown.headers["x-should-retry"]) == (401, "false")
    assert "x-should-retry" not in gate.ask(kind, "[[demo status=429]]").headers


@pytest.mark.parametrize("headers", [{}, {"originator": "codex_exec"}, {"accept": "text/event-stream"}])
def test_everybody_else_gets_a_status(gate: Gate, headers: dict[str, str]) -> None:
    """Other clients obey it, and Codex does where it asks for no stream."""
    broke = make_gate(gate.running, money=0)
    assert ask(broke, headers).status == 402


def is_stream(status: int, dialect: Dialect = Dialect.OPENAI) -> bool:
    """Whether Codex is told of a refusal in a stream."""
    headers = [(name.encode(), value.encode()) for name, value in CODEX.items()]
    refusal = Refusal(RefusalType.UPSTREAM_ERROR, "no", status=status)
    return told(refusal, "req_1", dialect, headers)[:2] == (200, b"text/event-stream")


def test_which_statuses_codex_obeys() -> None:
    """400 and 404 end its turn by themselves; 408, 429 and the provider's faults are worth another try."""
    statuses = (400, 401, 402, 403, 404, 408, 413, 415, 422, 429, 500, 502, 503, 529)
    assert [status for status in statuses if is_stream(status)] == [401, 402, 403, 413, 415, 422]
    assert not is_stream(402, Dialect.ANTHROPIC)


@pytest.mark.parametrize(
    ("kind", "agent"), [("generate", "GeminiCLI-tui/0.61.0/gemini-test"), ("chat", "opencode/1.18")]
)
def test_what_may_have_been_billed_is_a_400_to_some(gate: Gate, kind: str, agent: str) -> None:
    """They would ask up to nine times more after a 502. The row keeps the status; so does a busy provider's answer."""
    path, body = request_of(kind, "[[demo status=504]]")
    reply = gate.send(path, body, {"user-agent": agent})
    assert (reply.status, reply.type) == (400, "upstream_error")
    assert (gate.row().status, gate.send(path, body).status) == (502, 502)
    path, body = request_of(kind, "[[demo status=503]]")
    assert gate.send(path, body, {"user-agent": agent}).status == 503


OPENCODE = [(b"user-agent", b"opencode/1.18.33 ai-sdk/provider-utils/4.0.23")]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("It needs $0.524576 of $5.", "It needs $… of $5."),
        ("It needs $1,500.00, not 3.", "It needs $… not 3."),
        ("It needs $0.10.", "It needs $0.10."),
        ("Ask for less, or try again later.", "Ask for less, or try it again later."),
    ],
)
def test_no_number_looks_like_a_status_to_opencode(message: str, shown: str) -> None:
    """It takes the digits of one, anywhere in the body, for a reason to ask again; so they are left away."""
    refusal = Refusal(RefusalType.BILLING_SHORTFALL, message, details={"needed_usd": "0.503"})
    status, _, body = told(refusal, "req_0504", Dialect.OPENAI, OPENCODE)
    error = json.loads(body)["error"]
    assert (status, error["message"], error["type"]) == (402, shown, "billing_shortfall")
    assert "request_id" not in error
    assert not re.search("429|500|502|503|504|524", body.decode())


def test_opencode_is_told_all_where_nothing_looks_like_a_status() -> None:
    """And of what is worth another try, whatever there is."""
    plain = Refusal(RefusalType.BILLING_SHORTFALL, "It needs $1.")
    assert json.loads(told(plain, "req_1", Dialect.OPENAI, OPENCODE)[2])["error"]["request_id"] == "req_1"
    busy = Refusal(RefusalType.UPSTREAM_OVERLOADED, "Its status: 503.")
    assert b"503" in told(busy, "req_1", Dialect.OPENAI, OPENCODE)[2]
