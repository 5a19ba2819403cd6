"""Azure's paths and its header for the key: another way to the same endpoints."""

import pytest

from tests.gateway.conftest import Gate, request_of
from toolkit.core.secrets import new_secret

VERSION = "?api-version=2026-01-01-preview"
HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/openai/deployments/gpt-test/chat/completions", "chat"),
        ("/openai/deployments/gpt-test/responses", "responses"),
        ("/openai/responses", "responses"),
        ("/openai/v1/chat/completions", "chat"),
        ("/openai/v1/responses", "responses"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_calls_by_azures_paths(gate: Gate, path: str, kind: str, stream: bool) -> None:
    """With the key in `api-key`; they are charged like others, and the provider sees neither key nor version."""
    body = request_of(kind, "[[demo input=7 tokens=5]]", stream=stream)[1]
    reply = gate.send(path + VERSION, body, {"api-key": gate.secret}, secret=None)
    assert reply.status == 200, reply.body
    row = gate.row()
    assert (row.outcome, row.model, row.input_tokens, row.output_tokens) == ("completed", "gpt-test", 7, 5)
    witnessed = gate.witness(reply.request_id)
    assert witnessed is not None
    assert (witnessed["query"], "api-key" in witnessed["headers"]) == ([], False)


def test_embeddings_by_azures_path(gate: Gate) -> None:
    """The body need not name the model that the path names."""
    path = f"/openai/deployments/embed-test/embeddings{VERSION}"
    assert gate.send(path, {"input": "hello"}, {"api-key": gate.secret}, secret=None).status == 200
    assert gate.row().model == "embed-test"


def test_the_model_of_the_path_is_the_one_that_is_called(gate: Gate) -> None:
    """As at Azure, whatever the body says: that one is judged, priced and forwarded."""
    path = f"/openai/deployments/cent-test/chat/completions{VERSION}"
    reply = gate.send(path, {"model": "gpt-test", "messages": HELLO})
    assert (reply.status, gate.row().model) == (200, "cent-test")
    witnessed = gate.witness(reply.request_id)
    assert witnessed is not None
    assert witnessed["model"] == "cent-test"
    gate.update(models=["gpt-test"])
    reply = gate.send(path, {"model": "gpt-test", "messages": HELLO})
    assert (reply.status, reply.type) == (403, "model_not_allowed")


def test_a_large_body_by_azures_path(gate: Gate) -> None:
    """It is read by another process, which is told the path's model too."""
    text = "word " * 150_000
    path = f"/openai/deployments/gpt-test/chat/completions{VERSION}"
    assert gate.send(path, {"messages": [{"role": "user", "content": text}], "max_tokens": 5}).status == 200


def test_an_unknown_deployment_is_an_unknown_model(gate: Gate) -> None:
    """In the words for models, which say where they are listed."""
    reply = gate.send(f"/openai/deployments/nobody/chat/completions{VERSION}", {"messages": HELLO})
    assert (reply.status, reply.type) == (404, "model_not_found")
    assert "'nobody'" in reply.message


def test_two_different_keys_are_refused(gate: Gate) -> None:
    """`api-key` is one of a dialect's places for it; elsewhere the header is somebody else's matter."""
    headers = {"api-key": new_secret()}
    path, body = request_of("chat", "hello")
    reply = gate.send(path, body, headers)
    assert (reply.status, reply.type) == (401, "unauthorized")
    assert "Authorization: Bearer and api-key" in reply.message
    path, body = request_of("messages", "hello")
    assert gate.send(path, body, headers).status == 200
