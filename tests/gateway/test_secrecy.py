"""Secrets, pepper and upstream credentials stay where they belong: in no file, log, answer or forwarded request."""

import json
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.conftest import CREDENTIAL, Running
from tests.gateway.conftest import (
    KINDS,
    Gate,
    dialect_of,
    files_below,
    http_answer,
    make_gate,
    raw_upstream,
    request_of,
)
from toolkit.admin import keys
from toolkit.core.secrets import new_secret

JSON = "Content-Type: application/json"


@pytest.fixture
def own(running: Running) -> Gate:
    """A key at a gateway whose folder and log are the test's own."""
    return make_gate(running, plan=running.world.plan_id)


def all_bytes(running: Running) -> Iterator[tuple[str, bytes]]:
    """Yield what the gateway and its store left on disk, segments decoded as well as raw, and the gateway's log."""
    data: Path = running.world.workspace.settings.data_dir
    for path in files_below(data):
        if path.name != "pepper":
            yield str(path), path.read_bytes()
        if path.suffix == ".parquet":
            yield f"{path}, decoded", str(pyarrow.parquet.read_table(path).to_pylist()).encode()
    yield str(running.log), running.log.read_bytes()


def call_in_every_way(gate: Gate) -> list[str]:
    """Use a key in every form, rightly and wrongly, through successes and errors of every kind; return the secrets."""
    secret, never = gate.secret, new_secret()
    quoted = urllib.parse.quote(secret, safe="").replace("k", "%6b")
    forms: list[tuple[dict[str, str], str]] = [
        ({"Authorization": f"Bearer {secret}"}, ""),
        ({"x-api-key": secret}, ""),
        ({"x-goog-api-key": secret}, ""),
        ({}, f"?key={secret}"),
        ({}, f"?key={quoted}"),
        ({"Authorization": f"Bearer {secret}"}, f"?key={secret}"),
        ({"Authorization": f"Bearer {secret}"}, f"?key={never}"),
        ({"Authorization": f"Basic {secret}"}, ""),
        ({"Authorization": secret}, ""),
        ({"Authorization": f"Bearer {secret} "}, ""),
        ({"Authorization": f"Bearer {never}"}, ""),
        ({"Cookie": f"key={secret}", "Referer": f"http://x/?key={secret}", "Authorization": f"Bearer {secret}"}, ""),
    ]
    paths = [request_of(kind, "hello", stream=stream) for kind in KINDS for stream in (False, True)]
    paths += [("/v1/nothing", {}), (f"/v1/{secret}", {}), ("/v1/chat/completions", {"model": secret, "messages": []})]
    for path, body in paths:
        for headers, query in forms:
            url = path + (query.replace("?", "&") if "?" in path else query)
            gate.send(url, body, headers, secret=None)
    for headers, query in forms:
        gate.send(f"/v1/models{query}", None, headers, method="GET", secret=None)
        gate.send(f"/v1beta/models/{secret}{query}", None, headers, method="GET", secret=None)
        gate.send(f"/healthz{query}", None, headers, method="GET", secret=None)
    for order in ("status=401", "status=400", "status=500", "break=1", "error_event=1", "truncate=1"):
        for kind in KINDS:
            gate.ask(kind, f"my key is {secret} [[demo {order}]]", stream=True)
    gate.ask("chat", "hello", model=secret)
    gate.send("/v1/chat/completions", {"model": "gpt-test", "messages": [], secret: 1})
    gate.send("/v1/chat/completions", f'{{"{secret}":1,"{secret}":2}}'.encode())
    gate.send(f"/v1beta/models/{secret}:generateContent", {"contents": [{"parts": [{"text": "x"}]}]})
    gate.ask("generate", "hello", tools=[{secret: {}}])
    gate.ask("messages", "hello", tools=[{"type": secret}])
    gate.ask("chat", "hello", service_tier=secret)
    # What no HTTP parser takes.
    with socket.create_connection(("127.0.0.1", int(gate.url.rpartition(":")[2])), timeout=60) as client:
        client.sendall(f"GET /v1/models?key={secret} HTTP/9\r\nbroken {secret}\r\n\r\n".encode())
        client.recv(1000)
    return [secret, never]


def test_nothing_on_disk_or_in_the_log(own: Gate) -> None:
    """After calls in every way, and after rotation and deletion, no secret is anywhere but with its holder."""
    secrets = call_in_every_way(own)
    with own.workspace.write() as tx:
        rotated = keys.rotate(tx, own.workspace.keyring, own.key_id, confirm="app")
    own.ask("chat", "hello")
    own.ask("chat", "hello", secret=rotated.secret)
    with own.workspace.write() as tx:
        keys.delete(tx, own.key_id, confirm="app")
    rows = own.rows()
    assert len(rows) > 50
    own.workspace.ledger.sync()
    pepper = (own.workspace.settings.data_dir / "pepper").read_text().strip()
    hidden = [*secrets, rotated.secret, CREDENTIAL, pepper]
    names = []
    for name, content in all_bytes(own.running):
        names.append(name)
        for secret in hidden:
            assert secret.encode() not in content, name
    assert {Path(name).suffix for name in names} >= {".db", ".parquet", ".log"}
    assert b"Traceback" not in own.running.log.read_bytes()


def test_prompts_and_answers_are_not_stored(own: Gate) -> None:
    """No text of a prompt or an answer is in any file, whatever went wrong with the call."""
    marker = "xylophone music"
    for kind in KINDS:
        for order in ("tokens=30", "status=500", "break=5", "error_event=5", "truncate=5"):
            own.ask(kind, f"{marker} [[demo {order}]]", stream=True)
            own.ask(kind, f"{marker} [[demo {order}]]")
        own.ask(kind, marker, n=1000, candidateCount=3, tools=marker)
    own.workspace.ledger.sync()
    for name, content in all_bytes(own.running):
        assert b"xylophone" not in content, name


FORMS = [(kind, "bearer") for kind in KINDS]
FORMS += [("messages", "own header"), ("generate", "own header"), ("generate", "query")]


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_upstream_never_gets_the_callers_credential(gate: Gate, kind: str, form: str) -> None:
    """What goes to the upstream holds our credential and nothing of the caller's, in whatever form it came."""
    dialect = dialect_of(kind)
    name = {"anthropic": "x-api-key", "gemini": "x-goog-api-key"}.get(dialect, "authorization")
    with raw_upstream([http_answer(b'{"id":"x"}', JSON)]) as upstream:
        behind = gate.behind(upstream.url, dialect)
        secret = behind.gate.secret
        headers = {"bearer": {"Authorization": f"Bearer {secret}"}, "own header": {name: secret}}.get(form, {})
        headers |= {"Cookie": f"key={secret}", "Referer": f"http://x/?key={secret}", "X-Forwarded-For": "10.0.0.1"}
        headers |= {"OpenAI-Organization": "theirs", "Proxy-Authorization": f"Bearer {secret}"}
        path, body = request_of(kind, "hello")
        body |= {"model": behind.model} if "model" in body else {}
        query = f"?key={secret}" if form == "query" else ""
        reply = behind.gate.send(path.replace("gemini-test", behind.model) + query, body, headers, secret=None)
        assert reply.status == 200
        request = upstream.requests[0]
    assert secret.encode() not in request
    assert request.lower().count(CREDENTIAL.encode()) == 1
    sent = {line.partition(b":")[0].decode().lower() for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]}
    carriers = {"authorization", "x-api-key", "x-goog-api-key"}
    assert sent & carriers == {name}
    assert not sent & {"cookie", "referer", "x-forwarded-for", "openai-organization", "proxy-authorization"}


def test_witness_sees_one_credential_header_and_our_request_id(gate: Gate) -> None:
    """The demo upstream, as a provider would, gets one credential header, and our id to ask about."""
    reply = gate.ask("messages", "hello")
    witness = gate.witness(reply.request_id)
    assert witness is not None
    assert set(witness["headers"]) & {"authorization", "x-api-key", "x-goog-api-key"} == {"x-api-key"}
    assert witness["query"] == []


def test_useful_headers_go_on(gate: Gate) -> None:
    """A beta header given twice goes on whole; nothing else of the caller's does."""
    path, body = request_of("messages", "hello")
    with raw_upstream([http_answer(b'{"id":"x"}', JSON)]) as upstream:
        behind = gate.behind(upstream.url, dialect_of("messages"))
        data = json.dumps(body | {"model": behind.model}).encode()
        with gate.connection() as connection:
            connection.putrequest("POST", path)
            for name, value in [
                ("x-api-key", behind.gate.secret),
                ("anthropic-version", "2023-06-01"),
                ("anthropic-beta", "one"),
                ("anthropic-beta", "two"),
                ("User-Agent", "my-app/1"),
                ("X-Mine", "1"),
                ("Content-Length", str(len(data))),
            ]:
                connection.putheader(name, value)
            connection.endheaders(data)
            assert connection.getresponse().status == 200
        head = upstream.requests[0].partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")
    assert "anthropic-beta: one, two" in head
    assert "anthropic-version: 2023-06-01" in head
    assert "user-agent: my-app/1" in head
    assert not any(line.startswith("x-mine") for line in head)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["tokens=5", "status=401", "status=400", "error_event=1"])
def test_answers_never_hold_our_credential(gate: Gate, kind: str, stream: bool, order: str) -> None:
    """No answer, header or error holds the upstream's credential or names the variable that it is in."""
    reply = gate.ask(kind, f"[[demo {order}]]", stream=stream)
    everything = reply.body + str(reply.headers).encode()
    assert CREDENTIAL.encode() not in everything
    assert b"TEST_UPSTREAM_API_KEY" not in everything
    assert b"127.0.0.1" not in everything
