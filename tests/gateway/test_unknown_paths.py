"""Paths, methods and protocols that are not ours are answered in words that help."""

import json
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.conftest import Gate, request_of
from toolkit.gateway.unknown_paths import no_such_path


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/v1/chat/completions", "One /v1 too many: the path is /v1/chat/completions."),
        ("/chat/completions", "One /v1 too few: the path is /v1/chat/completions."),
        ("/messages", "One /v1 too few: the path is /v1/messages."),
        ("/anthropic/v1/v1/messages", "One /v1 too many: the path is /anthropic/v1/messages."),
        ("/v1/v1beta/models/x:generateContent", "One /v1 too many: the path is /v1beta/models/x:generateContent."),
        ("/models/x:generateContent", "too few"),
        ("/v1/completions", "There is nothing at /v1/completions."),
        ("/", "There is nothing at /."),
        ("/v1%2Fchat%2Fcompletions", "There is nothing at"),
        ("/v1/chat/completions/", "A slash too many: the path is /v1/chat/completions."),
        ("//v1/chat/completions", "Take it off the base URL."),
        ("/v1//responses", "A slash too many: the path is /v1/responses."),
        ("/v1/messages//", "A slash too many: the path is /v1/messages."),
        ("//anthropic///v1/messages/count_tokens/", "the path is /anthropic/v1/messages/count_tokens."),
        ("/v1beta//models/x:generateContent", "the path is /v1beta/models/x:generateContent."),
        ("/v1beta/models//x:generateContent", "the path is /v1beta/models/x:generateContent."),
        ("/v1beta/models/x:generateContent/", "the path is /v1beta/models/x:generateContent."),
        ("/openai/deployments//x/chat/completions", "the path is /openai/deployments/x/chat/completions."),
        ("//v1/v1/chat/completions", "One /v1 too many: the path is /v1/chat/completions."),
        ("//chat/completions/", "One /v1 too few: the path is /v1/chat/completions."),
        ("/v1/chat/completions/chat/completions", "The path is /v1/chat/completions, right behind"),
        ("/openai/v1/openai/deployments/x/embeddings", "The path is /openai/deployments/x/embeddings, right behind"),
        ("/v1/messages/v1/messages", "The path is /v1/messages, right behind"),
        ("/api/v1/responses/compact", "The path is /v1/responses/compact, right behind"),
        ("/proxy/a/v1beta/models/x:generateContent", "The path is /v1beta/models/x:generateContent, right behind"),
        ("/v1beta/openai/chat/completions", "the path is /openai/chat/completions."),
        ("/openai/openai/deployments/x/embeddings", "the path is /openai/deployments/x/embeddings. Take /openai off"),
        ("/openai/v1/messages", "One /openai too many: the path is /v1/messages."),
        ("/v1/../v1/chat/completions", "There is nothing at"),
        ("/v1/files%0d%0aX-Evil:1", "There is nothing at"),
        ("/healthz/", "A slash too many: the path is /healthz."),
        ("/v1/" + "a" * 5_000, "There is nothing at"),
    ],
)
def test_path_that_does_not_exist(gate: Gate, path: str, words: str) -> None:
    """A path that is not ours is a 404 in an envelope; one `/v1` too many or too few is pointed out."""
    reply = gate.send(path, {})
    assert (reply.status, reply.type) == (404, "not_found")
    assert words in reply.message
    assert len(reply.message) < 600
    assert gate.rows() == []


@pytest.mark.parametrize("path", ["/v1/models/", "/v1//models", "/v1/models/gpt-test/", "/v1/models//gpt-test"])
def test_a_slash_too_many_in_a_listing(gate: Gate, path: str) -> None:
    """It means the same on every path, and is part of no model's name."""
    reply = gate.send(path, method="GET")
    assert (reply.status, reply.type) == (404, "not_found")
    assert f"A slash too many: the path is {path.replace('//', '/').rstrip('/')}." in reply.message


def test_unknown_path_answers_in_the_prefix_dialect(gate: Gate) -> None:
    """Below /anthropic and /gemini errors are in that dialect."""
    assert gate.send("/anthropic/v1/nothing", {}).json["type"] == "error"
    assert gate.send("/gemini/v1beta/nothing", {}).json["error"]["status"] == "NOT_FOUND"
    assert gate.send("/v1/messages/", {}).json["type"] == "error"


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/realtime", "/openai/v1/realtime"])
@pytest.mark.parametrize("headers", [{"Sec-WebSocket-Version": "13"}, {"Upgrade": "websocket"}])
def test_a_websocket_whose_offer_a_proxy_took_away(gate: Gate, path: str, headers: dict[str, str]) -> None:
    """What is left of it tells what was wanted: Codex goes on without one after a 426, and tries again after a 405."""
    reply = gate.send(path, None, headers, method="GET")
    assert (reply.status, reply.type) == (426, "upgrade_required")
    assert (reply.headers["upgrade"], reply.headers["connection"]) == ("HTTP/1.1", "upgrade")


@pytest.mark.parametrize("path", ["/", "/api/hello"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_claude_code_looks_whether_anybody_is_there(gate: Gate, path: str, method: str) -> None:
    """Without a key, before its first call."""
    reply = gate.send(path, None, method=method, secret=None)
    assert (reply.status, len(reply.body) > 0) == (200, method == "GET")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/messages", "POST"),
        ("DELETE", "/v1/models/gpt-test", "GET, HEAD"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("POST", "/anthropic/v1/models/claude-test:generateContent", "GET, HEAD"),
        ("OPTIONS", "/v1/chat/completions", "POST"),
        ("GET", "/v1beta/models/gemini-test:generateContent", "POST"),
        ("HEAD", "/v1/models/gemini-test:countTokens", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
def test_wrong_method(gate: Gate, method: str, path: str, allowed: str) -> None:
    """A 405 says which method the path takes, in words and in `Allow`."""
    reply = gate.send(path, {}, method=method)
    assert (reply.status, reply.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert reply.type == "method_not_allowed"
        assert f"takes {allowed.replace(', ', ' or ')}, not {method}" in reply.message


def test_head(gate: Gate) -> None:
    """HEAD gets headers and no body, and the connection stays usable."""
    with gate.connection() as connection:
        connection.request("HEAD", "/v1/models", headers={"Authorization": f"Bearer {gate.secret}"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {gate.secret}"})
        assert connection.getresponse().status == 200


@pytest.mark.parametrize(
    ("path", "headers", "field"),
    [
        ("/v1/models", {}, "object"),
        ("/v1/models", {"anthropic-version": "2023-06-01"}, "has_more"),
        ("/v1/models", {"x-api-key": "{key}"}, "has_more"),
        ("/v1/models", {"anthropic-beta": "claude-code-20250219"}, "has_more"),
        ("/v1/models?limit=1000", {}, "has_more"),
        ("/v1/models?pageSize=10", {}, "models"),
        ("/v1/models?limit=10", {"x-goog-api-key": "{key}"}, "models"),
        ("/openai/v1/models", {"anthropic-version": "2023-06-01"}, "object"),
        ("/openai/models?api-version=2026-01-01", {"api-key": "{key}"}, "object"),
        ("/v1/models", {"x-goog-api-key": "{key}"}, "models"),
        ("/v1beta/models", {}, "models"),
        ("/gemini/v1/models", {"anthropic-version": "2023-06-01"}, "models"),
        ("/anthropic/v1/models", {}, "has_more"),
    ],
)
def test_dialect_of_a_listing(gate: Gate, path: str, headers: dict[str, str], field: str) -> None:
    """A prefix decides; on the path that the SDKs share their headers do, and what they ask of a listing."""
    sent = {name: value.format(key=gate.secret) for name, value in headers.items()}
    reply = gate.send(path, None, sent, method="GET")
    assert reply.status == 200
    assert field in reply.json


def test_requests_sent_without_waiting(gate: Gate) -> None:
    """Two requests sent at once on one connection get two answers, in order, and two charges."""
    path, body = request_of("chat", "hello", max_tokens=5)
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gate.secret}\r\n"
    request = head.encode() + f"Content-Length: {len(data)}\r\n".encode()
    with socket.create_connection(("127.0.0.1", int(gate.url.rpartition(":")[2])), timeout=60) as client:
        client.sendall(request + b"\r\n" + data + request + b"Connection: close\r\n\r\n" + data)
        received = b""
        while part := client.recv(65_536):
            received += part
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert len(gate.rows()) == 2


@pytest.mark.parametrize(
    ("path", "dialect", "hint"),
    [
        ("/v1/v1/messages", "anthropic", "One /v1 too many: the path is /v1/messages."),
        ("/v1/v1beta/models/m:generateContent", "gemini", "One /v1 too many"),
        ("/v1beta/v1/models/m:generateContent", "gemini", "One /v1beta too many"),
        ("/v1/images/generations", "openai", "not offered here"),
    ],
)
def test_unknown_path_is_answered_as_its_sdk_reads_it(gate: Gate, path: str, dialect: str, hint: str) -> None:
    """The envelope is the one of the SDK that made the path; the hint says what is wrong with it."""
    reply = gate.send(path, {})
    assert reply.status == 404
    assert hint in reply.message
    assert (reply.json.get("type") == "error") == (dialect == "anthropic")
    assert (reply.json["error"].get("status") == "NOT_FOUND") == (dialect == "gemini")


def test_unknown_action_of_a_model(gate: Gate) -> None:
    """A mistyped verb is named, with those there are; it is not a question of the method."""
    reply = gate.send("/v1beta/models/gemini-test:frob", {})
    assert reply.status == 404
    assert "no action 'frob'" in reply.message


@pytest.mark.parametrize("path", ["/v1/models/", "/v1beta/models/:generateContent", "/v1/models/%67x:frob"])
def test_a_model_has_a_name(gate: Gate, path: str) -> None:
    """A path that ends where a model's name would stand is not ours."""
    assert gate.send(path, {}, method="POST" if ":" in path else "GET").status == 404


@pytest.mark.parametrize("colon", [":", "%3A", "%3a"])
def test_an_encoded_colon_before_an_action(gate: Gate, colon: str) -> None:
    """Some HTTP clients encode it."""
    body = request_of("generate", "hello")[1]
    assert gate.send(f"/v1beta/models/gemini-test{colon}generateContent", body).status == 200


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["v1", "v1beta", "models", "x", "anthropic", "openai", ""]), min_size=1, max_size=400))
def test_a_hint_costs_no_more_for_a_longer_path(segments: list[str]) -> None:
    """Whatever the path, it is compared with ours a few times: nobody makes the gateway search."""
    looked: list[str] = []
    path = "/" + "/".join(segments)

    def is_offered(other: str) -> bool:
        looked.append(other)
        return False

    refusal = no_such_path(path, is_offered)
    assert len(looked) <= 10
    assert (refusal.status, len(refusal.message) < 600) == (404, True)
