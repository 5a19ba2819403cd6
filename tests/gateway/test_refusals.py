"""What the gateway refuses, in which words, and that a refusal charges and holds nothing."""

import asyncio
import gc
import json
import socket
import weakref
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import func, select
from starlette.types import Message

from tests.conftest import GEMINI_SHEET
from tests.gateway.conftest import Gate, Reply, request_of
from toolkit.admin import keys, plans
from toolkit.admin.models import add_model
from toolkit.billing.rules import REFUSAL_ROWS_PER_MINUTE
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.pricing import MILLION
from toolkit.gateway.responses import send_refusal
from toolkit.store.tables import RefusalCount

HELLO = [{"role": "user", "content": "hello"}]
PART = {"parts": [{"text": "hello"}]}


def assert_refused(gate: Gate, reply: Reply, status: int, reason: str, words: str) -> None:
    """Check an answer and its row: refused for this reason, at no cost, with nothing held and nothing forwarded."""
    assert (reply.status, reply.type) == (status, reason), reply.body
    assert words in reply.message
    row = gate.row()
    assert (row.outcome, row.refusal, row.status, row.cost, row.request_id) == (
        "refused",
        reason,
        status,
        0,
        reply.request_id,
    )
    assert gate.totals() == (0, 0)
    assert gate.witness(reply.request_id) is None


# -- features that cannot be metered, or would cross tenants -------------------------------------------------

UNSUPPORTED: list[tuple[str, dict[str, Any], str]] = [
    ("responses", {"previous_response_id": "resp_of_somebody_else"}, "previous_response_id"),
    ("responses", {"conversation": "conv_1"}, "conversation"),
    ("responses", {"prompt": {"id": "pmpt_1"}}, "prompt"),
    ("responses", {"background": True}, "background"),
    ("responses", {"store": True}, "store"),
    ("responses", {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tools[0].type"),
    ("responses", {"tools": [{"type": "file_search"}], "tool_choice": "required"}, "tools[0].type"),
    ("responses", {"tools": [{"type": "code_interpreter"}], "tool_choice": "required"}, "tools[0].type"),
    ("responses", {"tools": [{"type": "mcp"}], "tool_choice": {"type": "mcp", "server_label": "x"}}, "tools[0].type"),
    ("responses", {"service_tier": "priority"}, "service_tier"),
    ("responses", {"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
    ("chat", {"store": True}, "store"),
    ("chat", {"web_search_options": {}, "service_tier": "flex"}, "service_tier"),
    ("chat", {"service_tier": "priority"}, "service_tier"),
    ("chat", {"modalities": ["text", "audio"]}, "modalities"),
    ("chat", {"audio": {"voice": "alloy", "format": "mp3"}}, "audio"),
    ("chat", {"prediction": {"type": "content", "content": "x"}}, "prediction"),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "file_id"),
    (
        "messages",
        {
            "tools": [{"type": "web_search_20250305", "name": "web_search"}],
            "tool_choice": {"type": "tool", "name": "web_search"},
        },
        "tools[0].type",
    ),
    ("messages", {"tools": [{"type": "code_execution_20250825"}], "tool_choice": {"type": "any"}}, "tools[0].type"),
    (
        "messages",
        {
            "mcp_servers": [{"type": "url", "url": "https://example.com", "name": "x"}],
            "tool_choice": {"type": "any"},
        },
        "mcp_servers",
    ),
    ("messages", {"container": "container_1"}, "container"),
    ("messages", {"service_tier": "priority"}, "service_tier"),
    ("messages", {"speed": "fast"}, "speed"),
    ("messages", {"inference_geo": "us"}, "inference_geo"),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}]},
        "source.type",
    ),
    ("generate", {"cachedContent": "cachedContents/of-somebody-else"}, "cachedContent"),
    ("generate", {"cached_content": "cachedContents/of-somebody-else"}, "cached_content"),
    (
        "generate",
        {"tools": [{"googleSearch": {}}], "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}},
        "tools[0].googleSearch",
    ),
    (
        "generate",
        {"tools": [{"code_execution": {}}], "tool_config": {"function_calling_config": {"mode": "any"}}},
        "tools[0].code_execution",
    ),
    ("generate", {"contents": [{"parts": [{"fileData": {"fileUri": "files/1"}}]}]}, "fileData"),
    ("generate", {"generationConfig": {"responseModalities": ["IMAGE"]}}, "responseModalities"),
    ("generate", {"generationConfig": {"speechConfig": {"languageCode": "en"}}}, "speechConfig"),
    ("generate", {"serviceTier": "priority"}, "serviceTier"),
]


@pytest.mark.parametrize(("kind", "fields", "field"), UNSUPPORTED, ids=[f"{k}-{p}" for k, _, p in UNSUPPORTED])
def test_unsupported_feature(gate: Gate, kind: str, fields: dict[str, Any], field: str) -> None:
    """State at the provider, and whatever costs something that has no price, is refused by its field's name."""
    reply = gate.ask(kind, "hello", **fields)
    assert_refused(gate, reply, 400, "unsupported_feature", field)


INVALID: list[tuple[str, dict[str, Any], str]] = [
    ("chat", {"n": 1000}, "'n'"),
    ("chat", {"n": 0}, "'n'"),
    ("chat", {"n": True}, "'n'"),
    ("chat", {"n": 1.0}, "'n'"),
    ("chat", {"max_tokens": -5}, "'max_tokens'"),
    ("chat", {"max_completion_tokens": 10**12}, "'max_completion_tokens'"),
    ("chat", {"max_tokens": "100"}, "'max_tokens'"),
    ("chat", {"model": 5}, "'model'"),
    ("chat", {"model": ""}, "'model'"),
    ("chat", {"model": "gpt-test\r\nX-Evil: 1"}, "'model'"),
    ("chat", {"Model": "other-test"}, "did you mean 'model'"),
    ("chat", {"stream_options": {"include_usage": "yes"}}, "'stream_options.include_usage'"),
    ("chat", {"messages": []}, "'messages'"),
    ("chat", {"messages": "hello"}, "'messages'"),
    ("responses", {"max_output_tokens": 0}, "'max_output_tokens'"),
    ("responses", {"input": 5}, "'input'"),
    ("messages", {"max_tokens": None}, "'max_tokens'"),
    ("messages", {"max_tokens": -1}, "'max_tokens'"),
    ("messages", {"cache_control": {"type": "ephemeral", "ttl": "24h"}}, "cache_control.ttl"),
    ("generate", {"generationConfig": {"candidateCount": 1000}}, "candidateCount"),
    ("generate", {"generationConfig": {"maxOutputTokens": -1}}, "maxOutputTokens"),
    ("generate", {"generationConfig": {}, "generation_config": {}}, "are the same field"),
    ("generate", {"model": "models/other"}, "must be the model of the path"),
]


@pytest.mark.parametrize(("kind", "fields", "words"), INVALID, ids=[f"{k}-{next(iter(f))}-{w}" for k, f, w in INVALID])
def test_invalid_request(gate: Gate, kind: str, fields: dict[str, Any], words: str) -> None:
    """A value that cannot be right is refused in words that name the field."""
    reply = gate.ask(kind, "hello", **fields)
    assert_refused(gate, reply, 400, "invalid_request", words)


DUPLICATES = {
    "chat": ("/v1/chat/completions", b'{"model":"gpt-test","messages":[{"role":"user","content":"x"}],"model":"o"}'),
    "escaped": ("/v1/chat/completions", b'{"model":"gpt-test","messages":[],"\\u006dodel":"other-test"}'),
    "responses": ("/v1/responses", b'{"model":"gpt-test","input":"x","model":"other-test"}'),
    "messages": ("/v1/messages", b'{"model":"claude-test","model":"x","max_tokens":5,"messages":[]}'),
    "nested": (
        "/v1beta/models/gemini-test:generateContent",
        b'{"contents":[],"generationConfig":{"maxOutputTokens":1,"maxOutputTokens":99999}}',
    ),
}


@pytest.mark.parametrize("case", DUPLICATES)
def test_key_given_twice(gate: Gate, case: str) -> None:
    """Two readers may disagree about a key that is given twice, so it is refused, however it is spelled."""
    reply = gate.send(*DUPLICATES[case])
    assert_refused(gate, reply, 400, "invalid_request", "given twice")


BODIES = {
    "empty": (b"", "is empty"),
    "no JSON": (b"model=gpt-test", "is not JSON"),
    "half": (b'{"model":"gpt-test","messages":[', "is not JSON"),
    "list": (b"[]", "must be a JSON object"),
    "byte order mark": (b'\xef\xbb\xbf{"model":"gpt-test"}', "byte order mark"),
    "Latin-1": (b'{"model":"gpt-\xe9"}', "is not UTF-8"),
    "UTF-16": ('{"model":"gpt-test"}'.encode("utf-16"), "is not UTF-8"),
    "NaN": (b'{"model":"gpt-test","temperature":NaN}', "NaN"),
    "huge number": (b'{"model":"gpt-test","n":' + b"9" * 5000 + b"}", "too large"),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper"),
    "deep but closed": (b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", "nested deeper"),
    "half a surrogate pair twice": (b'{"\\ud800":1,"\\ud800":2}', "given twice"),
    "control characters in a name": (b'{"model":"gpt-test","\\r\\nx":1,"\\r\\nx":2}', "given twice"),
}


@pytest.mark.parametrize("case", BODIES)
def test_body_that_cannot_be_read(gate: Gate, case: str) -> None:
    """Whatever is not one clean JSON object is refused, and the answer is still JSON itself."""
    body, words = BODIES[case]
    reply = gate.send("/v1/chat/completions", body)
    assert_refused(gate, reply, 400, "invalid_request", words)


def test_field_name_that_no_store_could_hold(gate: Gate) -> None:
    """Half a surrogate pair in a field's name is refused like any other, not a crash."""
    body = b'{"contents":[{"parts":[{"text":"x"}]}],"tools":[{"\\ud800":{}}],'
    body += b'"toolConfig":{"functionCallingConfig":{"mode":"ANY"}}}'
    reply = gate.send("/v1beta/models/gemini-test:generateContent", body)
    assert_refused(gate, reply, 400, "unsupported_feature", "tools[0].")


def test_body_over_the_limit(gate: Gate) -> None:
    """32 MiB are taken; what says that it is larger is refused before it is read."""
    with gate.connection() as connection:
        connection.putrequest("POST", "/v1/chat/completions")
        connection.putheader("Authorization", f"Bearer {gate.secret}")
        connection.putheader("Content-Length", str((32 << 20) + 1))
        connection.endheaders()
        answer = connection.getresponse()
        reply = Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    assert_refused(gate, reply, 413, "request_too_large", "33,554,432 bytes")


def test_chunked_body(gate: Gate) -> None:
    """A body of unknown length is read to its end."""
    path, body = request_of("chat", "hello")
    data = json.dumps(body).encode()
    with gate.connection() as connection:
        connection.request(
            "POST",
            path,
            iter([data[:7], data[7:30], data[30:]]),
            {"Authorization": f"Bearer {gate.secret}", "Content-Type": "application/json"},
            encode_chunked=True,
        )
        assert connection.getresponse().status == 200
    assert gate.row().outcome == "completed"


def test_chunked_body_over_the_limit(gate: Gate) -> None:
    """A body that does not say its length is counted while it comes."""
    with socket.create_connection(("127.0.0.1", int(gate.url.rpartition(":")[2])), timeout=20) as client:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gate.secret}\r\n"
        client.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        try:
            for _ in range(40):
                client.sendall(piece)
        except OSError:
            pass
        answer = client.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert gate.row().refusal == "request_too_large"


def test_caller_who_leaves_before_the_body_ended(gate: Gate) -> None:
    """Half a request is no call: no row, nothing held, and the gateway goes on."""
    with gate.connection() as connection:
        connection.putrequest("POST", "/v1/chat/completions")
        connection.putheader("Authorization", f"Bearer {gate.secret}")
        connection.putheader("Content-Length", "1000")
        connection.endheaders()
        connection.send(b'{"model":')
    assert gate.ask("chat", "hello").status == 200
    assert len(gate.rows()) == 1


# -- models and dialects -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/chat/completions", {"model": "claude-test", "messages": HELLO}, "call POST /v1/messages"),
        ("/v1/messages", {"model": "gpt-test", "max_tokens": 5, "messages": HELLO}, "call POST /v1/chat/completions"),
        ("/v1beta/models/gpt-test:generateContent", {"contents": [PART]}, "call POST /v1/chat/completions"),
        ("/v1/responses", {"model": "gemini-test", "input": "hi"}, "call POST /v1beta/models/{model}:generateContent"),
    ],
)
def test_wrong_dialect(gate: Gate, path: str, body: dict[str, Any], words: str) -> None:
    """A dialect is never translated: the answer names the right path."""
    assert_refused(gate, gate.send(path, body), 400, "wrong_dialect", words)


def test_model_outside_the_plan(gate: Gate) -> None:
    """A model that another key's plan has is forbidden, not unknown; once that key is deleted, it is unknown."""
    with gate.workspace.write() as tx:
        plan = plans.add(tx, f"other {gate.key_id}", MILLION, ["other-test"]).id
    other = gate.another("other", plan=plan)
    with gate.workspace.write() as tx:
        keys.disable(tx, other.key_id, confirm="other")
    assert_refused(gate, gate.ask("chat", "hi", model="other-test"), 403, "model_not_allowed", "not in the plan")
    assert gate.send("/v1/models/other-test", method="GET").status == 403
    with gate.workspace.write() as tx:
        keys.delete(tx, other.key_id, confirm="other")
    assert gate.ask("chat", "hi", model="other-test").status == 404


def test_other_tenants_models_are_not_told_from_none(gate: Gate) -> None:
    """In every way to ask for one, a model that no plan of the organisation has gets the answer of one that is not."""
    with gate.workspace.write() as tx:
        for dialect in ("openai", "anthropic", "gemini"):
            name = f"theirs-{dialect}-{gate.key_id}"
            add_model(tx, name, f"test-{dialect}", sheet=GEMINI_SHEET, context_window=1000, max_output=100)

    def answers(middle: str) -> list[tuple[int, str]]:
        found = []
        for dialect in ("openai", "anthropic", "gemini"):
            name = f"{middle}-{dialect}-{gate.key_id}"
            replies = [
                gate.ask("chat", "hi", model=name),
                gate.ask("responses", "hi", model=name),
                gate.ask("messages", "hi", model=name),
                gate.send(f"/v1beta/models/{name}:generateContent", {"contents": [PART]}),
                gate.send("/v1/messages/count_tokens", {"model": name, "messages": HELLO}),
                gate.send(f"/v1beta/models/{name}:countTokens", {"contents": [PART]}),
                gate.send(f"/v1/models/{name}", method="GET"),
                gate.send(f"/anthropic/v1/models/{name}", method="GET"),
                gate.send(f"/v1beta/models/{name}", method="GET"),
            ]
            found += [(reply.status, reply.message.replace(name, "NAME")) for reply in replies]
        return found

    assert answers("theirs") == answers("absent")
    assert {status for status, _ in answers("theirs")} == {404}
    assert {(row.refusal, row.upstream) for row in gate.rows()} == {("model_not_found", None)}


@pytest.mark.parametrize(
    "name",
    ["no/such/model", "模型", "models/../../secrets", "a" * 257, "x\r\nSet-Cookie: a=b", "a\x00b", "%41", "-", "x?y#z"],
)
def test_model_named_by_a_path(gate: Gate, name: str) -> None:
    """Slashes, other scripts, line breaks and dots in a path's model stay a name: no header, no other path."""
    reply = gate.send(f"/v1beta/models/{quote(name, safe='')}:generateContent", {"contents": [PART]})
    assert reply.status in {400, 404}
    assert reply.type in {"invalid_request", "model_not_found"}
    assert "set-cookie" not in reply.headers
    assert gate.row().refusal == reply.type
    assert gate.totals() == (0, 0)


def test_secret_sent_as_a_models_name_is_not_stored(gate: Gate) -> None:
    """A caller who mixes up model and key finds the key's display form at most in the log."""
    for path, body in [
        ("/v1/chat/completions", {"model": gate.secret, "messages": HELLO}),
        (f"/v1beta/models/{gate.secret}:generateContent", {"contents": [PART]}),
    ]:
        assert gate.send(path, body).status == 404
    for row in gate.rows():
        assert gate.secret not in f"{row.model} {row.error}"


# -- the log of refusals -------------------------------------------------------------------------------------


def test_refusals_are_rows_up_to_a_cap(gate: Gate) -> None:
    """One key gets 60 rows for one reason in one minute; the rest are counted within the next one."""
    asked = REFUSAL_ROWS_PER_MINUTE * 2 + 10
    with gate.connection() as connection:
        headers = {"Authorization": f"Bearer {gate.secret}"}
        for _ in range(asked):
            connection.request("POST", "/v1/chat/completions", b"{}", headers)
            answer = connection.getresponse()
            assert answer.status == 400
            answer.read()
    with gate.workspace.read() as tx:
        counted = tx.session.scalar(select(func.sum(RefusalCount.refused)).where(RefusalCount.key_id == gate.key_id))
        minutes = tx.session.scalar(select(func.count()).where(RefusalCount.key_id == gate.key_id)) or 0
    assert counted is not None
    assert REFUSAL_ROWS_PER_MINUTE <= counted <= asked
    assert len(gate.rows()) <= REFUSAL_ROWS_PER_MINUTE * minutes
    assert len(gate.rows()) >= REFUSAL_ROWS_PER_MINUTE
    # Another reason has rows of its own.
    gate.ask("chat", "hi", model="nope")
    assert gate.rows()[-1].refusal == "model_not_found"


def test_slow_body_is_no_reason_to_wait_for_ever(gate: Gate) -> None:
    """A body that stops half-way holds nothing and disturbs nobody else."""
    path, body = request_of("chat", "hello")
    data = json.dumps(body).encode()
    with gate.connection() as connection:
        connection.putrequest("POST", path)
        connection.putheader("Authorization", f"Bearer {gate.secret}")
        connection.putheader("Content-Length", str(len(data)))
        connection.endheaders()
        connection.send(data[:10])
        assert gate.ask("chat", "hello").status == 200
        assert gate.totals()[1] == 0
    assert len(gate.rows()) == 1


def test_a_refusal_that_was_sent_keeps_nothing_alive() -> None:
    """The frames that it came through would wait for the garbage collector: with the connection, and what it sent."""

    class Body:
        """What a caller sent."""

    left: list[weakref.ref[Body]] = []

    async def send(_message: Message) -> None:
        pass

    async def admit() -> None:
        body = Body()
        left.append(weakref.ref(body))
        refusal = Refusal(RefusalType.INVALID_REQUEST, "It names no model.")  # kept, as by code that logs it, too
        raise refusal

    async def answer() -> None:
        try:
            await admit()
        except Refusal as refusal:
            await send_refusal(send, refusal, "req_1", Dialect.OPENAI)

    gc.disable()
    try:
        asyncio.run(answer())
        assert left[0]() is None
    finally:
        gc.enable()
