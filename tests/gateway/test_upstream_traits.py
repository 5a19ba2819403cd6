"""How an upstream is asked, and which of its errors are billed, as is known of it: what it sees, what is charged."""

import json
from typing import Any

import pytest

from tests.conftest import CREDENTIAL
from tests.gateway.conftest import Gate, Reply, dialect_of, http_answer, raw_upstream
from tests.gateway.test_usage import counts, sent, stream, whole
from toolkit.core.dialect import Dialect
from toolkit.core.upstream_traits import CredentialHeader, OutputBound
from toolkit.store.tables import OutboxRow

Json = dict[str, Any]
JSON = "Content-Type: application/json"
FILTERED = {"error": {"message": "The prompt was filtered.", "type": None, "param": "prompt", "code": "content_filter"}}
HEADERS = {
    CredentialHeader.BEARER: b"authorization: Bearer " + CREDENTIAL.encode(),
    CredentialHeader.API_KEY: b"api-key: " + CREDENTIAL.encode(),
    CredentialHeader.X_API_KEY: b"x-api-key: " + CREDENTIAL.encode(),
    CredentialHeader.X_GOOG_API_KEY: b"x-goog-api-key: " + CREDENTIAL.encode(),
}
USUAL = {
    Dialect.OPENAI: CredentialHeader.BEARER,
    Dialect.ANTHROPIC: CredentialHeader.X_API_KEY,
    Dialect.GEMINI: CredentialHeader.X_GOOG_API_KEY,
}


def ask(gate: Gate, kind: str, answer: bytes, fields: Json | None = None, **known: Any) -> tuple[bytes, Json, Reply]:
    """Ask a model of whose upstream this is known; return the head and the body that came to it, and the answer."""
    with raw_upstream([answer]) as upstream:
        address = f"{upstream.url}{known.pop('below', '')}"
        reply = gate.behind(address, dialect_of(kind), **known).ask(kind, **(fields or {}))
        (request,) = upstream.requests
    head, _, body = request.partition(b"\r\n\r\n")
    return head, json.loads(body), reply


def answered(kind: str) -> bytes:
    """Return a whole answer."""
    return http_answer(json.dumps(whole(kind, counts(kind, 9, 5))).encode(), JSON)


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        *(("chat", header) for header in CredentialHeader),
        ("messages", CredentialHeader.USUAL),
        ("messages", CredentialHeader.BEARER),
        ("generate", CredentialHeader.USUAL),
    ],
)
def test_our_credential_is_in_the_one_header_that_is_known(gate: Gate, kind: str, header: CredentialHeader) -> None:
    """Each dialect has a usual one; no other header shows it."""
    head, _, reply = ask(gate, kind, answered(kind), credential_header=header)
    assert reply.status == 200
    shown = USUAL[dialect_of(kind)] if header is CredentialHeader.USUAL else header
    assert HEADERS[shown] in head.split(b"\r\n")
    assert head.count(CREDENTIAL.encode()) == 1


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("chat", b"/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21"),
        ("responses", b"/openai/responses?api-version=2024-10-21"),
    ],
)
def test_azures_older_api_has_the_deployment_in_its_path(gate: Gate, kind: str, path: bytes) -> None:
    """Responses stand beside the deployments, with the name in the body."""
    head, body, reply = ask(
        gate,
        kind,
        answered(kind),
        preset="azure-openai",
        below="/openai",
        api_version="2024-10-21",
        upstream_model="my gpt",
    )
    assert reply.status == 200
    assert head.split(b" ")[1] == path
    assert body["model"] == "my gpt"
    assert HEADERS[CredentialHeader.API_KEY] in head.split(b"\r\n")


@pytest.mark.parametrize("large", [False, True])
def test_a_bound_is_renamed_for_an_upstream_that_knows_one_name(gate: Gate, large: bool) -> None:
    """Also in a body that another process reads."""
    content = {"messages": [{"role": "user", "content": "x" * (600_000 if large else 5)}]}
    fields = {**content, "max_completion_tokens": 77}
    _, body, reply = ask(gate, "chat", answered("chat"), fields, output_bound=OutputBound.MAX_TOKENS)
    assert (reply.status, body["max_tokens"]) == (200, 77)
    assert "max_completion_tokens" not in body


@pytest.mark.parametrize("asks", [False, True])
def test_usage_is_not_asked_for_where_that_is_refused(gate: Gate, asks: bool) -> None:
    """By nobody: a header says so to who did."""
    answer = sent("chat", stream("chat", counts("chat", 9, 5)))
    fields: Json = {"stream": True} | ({"stream_options": {"include_usage": True}} if asks else {})
    _, body, reply = ask(gate, "chat", answer, fields, preset="mistral")
    assert (reply.status, "stream_options" in body) == (200, False)
    assert (reply.headers.get("x-keydesk-left-out") == "stream_options") is asks
    assert (b'"usage"' in reply.body) is asks


def row(gate: Gate, reply: Reply) -> OutboxRow:
    """Return a call's row."""
    with gate.workspace.read() as tx:
        return tx.session.get_one(OutboxRow, reply.request_id)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "body"), [("400 Bad Request", FILTERED), ("408 Request Timeout", {"error": {"message": "Too long."}})]
)
def test_an_error_that_is_billed_is_charged(gate: Gate, streamed: bool, status: str, body: Json) -> None:
    """Its input by an estimate, and no output; its caller reads why, and what it cost."""
    answer = http_answer(json.dumps(body).encode(), JSON, status=status)
    _, _, reply = ask(gate, "chat", answer, {"stream": streamed}, preset="azure-openai")
    assert reply.status == int(status[:3])
    assert reply.json["error"]["message"] == body["error"]["message"]
    charged = row(gate, reply)
    assert (charged.outcome, charged.usage_source, charged.output_tokens) == ("upstream_error", "estimated", 0)
    assert 0 < charged.cost <= charged.held
    assert "the provider bills this error" in (charged.error or "")
    assert round(float(reply.headers["x-cost-usd"]) * 10**9) == charged.cost


def test_an_error_that_is_billed_is_charged_as_it_reports(gate: Gate) -> None:
    """Should it say what it used, that is what counts."""
    body = FILTERED | {"usage": {"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7}}
    answer = http_answer(json.dumps(body).encode(), JSON, status="400 Bad Request")
    _, _, reply = ask(gate, "chat", answer, preset="azure-openai")
    assert (row(gate, reply).input_tokens, row(gate, reply).cost) == (7, 7_000)


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "429 Too Many Requests", "500 No"])
def test_other_errors_cost_nothing(gate: Gate, status: str) -> None:
    """At an upstream that bills some, too."""
    answer = http_answer(b'{"error": {"message": "No.", "code": "other"}}', JSON, status=status)
    _, _, reply = ask(gate, "chat", answer, billed_errors="content_filter,408")
    assert (row(gate, reply).cost, "x-cost-usd" in reply.headers) == (0, False)


def test_what_is_billed_elsewhere_costs_nothing_here(gate: Gate) -> None:
    """Where nothing is known, an error is free."""
    answer = http_answer(json.dumps(FILTERED).encode(), JSON, status="400 Bad Request")
    _, _, reply = ask(gate, "chat", answer)
    assert (row(gate, reply).cost, "x-cost-usd" in reply.headers) == (0, False)
