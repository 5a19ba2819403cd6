"""A stream that is silent for long gets its head, and signs of life in a form that its SDKs bear."""

import json
import select
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import ADMIN, Running, free_port, gateway_process, make_world, wait_until
from tests.gateway.conftest import Gate, Reply, Script, dialect_of, http_answer, make_gate, raw_upstream, request_of
from tests.gateway.test_odd_answers import STREAMS, WHOLE, data, passed, stream_of
from toolkit import environment
from toolkit.store.tables import OutboxRow
from toolkit.workspace import Workspace

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
SIGN = {
    "chat": b": still at work\n",
    "responses": b": still at work\n",
    "messages": b'event: ping\ndata: {"type": "ping"}\n\n',
    "array": b"\n",
}
PATIENCE = 30


@pytest.fixture(scope="module")
def nervous(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway whose streams may be silent for a fifth of a second."""
    folder: Path = tmp_path_factory.mktemp("nervous")
    settings = replace(environment.read_settings({"KEYDESK_DATA_DIR": str(folder / "data")}), gateway_port=free_port())
    workspace = Workspace.open(settings, ADMIN, make=True)
    world = make_world(workspace, upstream)
    log = folder / "gateway.log"
    with gateway_process(settings, log, {"KEYDESK_STREAM_SILENCE": "0.2"}) as server:
        yield Running(world, f"http://127.0.0.1:{settings.gateway_port}", upstream, log, server)
    workspace.close()


@pytest.fixture
def gate(nervous: Running) -> Gate:
    """A fresh key at the nervous gateway."""
    return make_gate(nervous)


class Listener:
    """A caller who reads a stream as it comes, of a model whose upstream says what `script` has."""

    def __init__(self, gate: Gate, script: Script, kind: str) -> None:
        self.gate, self.kind, self.script = gate, kind, script

    def hear(self, expected: bytes, go_on: threading.Event) -> tuple[Reply, OutboxRow]:
        """Read until what is expected has come, let the upstream go on, and read the rest."""
        with raw_upstream(self.script) as upstream:
            behind = self.gate.behind(upstream.url, dialect_of(self.kind))
            path, body = request_of(self.kind, "hi", stream=True)
            if "model" in body:
                body["model"] = behind.model
            with behind.gate.connection() as connection:
                headers = {"Authorization": f"Bearer {behind.gate.secret}"}
                connection.request("POST", path.replace("gemini-test", behind.model), json.dumps(body), headers)
                answer = connection.getresponse()
                came = b""
                while expected not in came and (part := answer.read1(65_536)):
                    came += part
                go_on.set()
                came += answer.read()
            head = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, head, came), behind.gate.row()


@pytest.mark.parametrize("kind", SIGN)
def test_a_silent_stream_gets_signs_of_life(gate: Gate, kind: str) -> None:
    """Between two events; the rest of the stream and its charge are as they would be."""
    go_on = threading.Event()
    stream = stream_of(kind)
    middle = stream.index(b'"candidates"') if kind == "array" else len(STREAMS[kind][0])
    script: Script = [HEAD, stream[:middle], partial(go_on.wait, PATIENCE), stream[middle:]]
    reply, row = Listener(gate, script, kind).hear(SIGN[kind], go_on)
    assert SIGN[kind] in reply.body
    assert reply.body.replace(SIGN[kind], b"") == passed(kind)
    assert (row.outcome, row.input_tokens, row.output_tokens) == ("completed", 10, 5)


def test_geminis_events_get_none(gate: Gate) -> None:
    """Its Python SDK takes a comment for a part of the answer: while another stream hears two signs, it hears none."""
    go_on, other = threading.Event(), threading.Event()
    script: Script = [HEAD, data({"candidates": []}), partial(go_on.wait, PATIENCE), stream_of("generate")]
    with raw_upstream(script) as upstream:
        behind = gate.behind(upstream.url, dialect_of("generate"))
        path, body = request_of("generate", "hi", stream=True)
        with behind.gate.connection() as connection:
            headers = {"Authorization": f"Bearer {behind.gate.secret}"}
            connection.request("POST", path.replace("gemini-test", behind.model), json.dumps(body), headers)
            answer = connection.getresponse()
            assert answer.read1(65_536) == data({"candidates": []})
            chat: Script = [HEAD, STREAMS["chat"][0], partial(other.wait, PATIENCE), *STREAMS["chat"][1:]]
            Listener(gate, chat, "chat").hear(2 * SIGN["chat"], other)
            assert select.select([connection.sock], [], [], 0)[0] == []
            go_on.set()
            assert answer.read() == stream_of("generate")


@pytest.mark.parametrize("kind", SIGN)
@pytest.mark.parametrize("head", [True, False])
def test_the_head_waits_no_longer_than_the_silence(gate: Gate, kind: str, head: bool) -> None:
    """Whether the upstream has sent its own or nothing yet."""
    go_on = threading.Event()
    first = [HEAD, b": looking for a place\n\n"] if kind == "chat" else [HEAD]
    later = b"" if head else HEAD
    script: Script = [*(first if head else []), partial(go_on.wait, PATIENCE), later + stream_of(kind)]
    reply, row = Listener(gate, script, kind).hear(SIGN[kind], go_on)
    early = b": looking for a place\n\n" if head and kind == "chat" else b""
    assert reply.body.startswith(early + SIGN[kind])
    assert reply.body.removeprefix(early).replace(SIGN[kind], b"") == passed(kind)
    assert reply.headers["content-type"] == ("application/json" if kind == "array" else "text/event-stream")
    assert row.outcome == "completed"


@pytest.mark.parametrize("kind", SIGN)
def test_an_error_behind_the_head_is_an_event(gate: Gate, kind: str) -> None:
    """The status was sent, so the error is told as in any stream; nothing is charged."""
    go_on = threading.Event()
    busy = http_answer(b'{"error":{"message":"gpu7"}}', "Content-Type: application/json", status="503 Busy")
    reply, row = Listener(gate, [partial(go_on.wait, PATIENCE), busy], kind).hear(SIGN[kind], go_on)
    assert reply.status == 200
    assert b"is overloaded" in reply.body
    assert b"gpu7" not in reply.body
    if kind == "array":
        assert json.loads(reply.body)[0]["error"]["code"] == 503
    assert (row.outcome, row.status, row.refusal, row.cost) == ("upstream_error", 200, "upstream_overloaded", 0)


def test_the_callers_own_error_behind_the_head_keeps_its_words(gate: Gate) -> None:
    """Only its place is another."""
    go_on = threading.Event()
    words = b'{"error":{"message":"This model has a maximum context of 8 tokens","code":"context_length_exceeded"}}'
    answer = http_answer(words, "Content-Type: application/json", status="400 Bad Request")
    reply, _ = Listener(gate, [partial(go_on.wait, PATIENCE), answer], "chat").hear(SIGN["chat"], go_on)
    assert b"a maximum context of 8 tokens" in reply.body


@pytest.mark.parametrize("kind", SIGN)
def test_a_whole_answer_behind_the_head_is_the_only_event(gate: Gate, kind: str) -> None:
    """Who has been promised a stream gets one; the charge is what it reports."""
    go_on = threading.Event()
    whole = json.dumps(WHOLE[kind], indent=1)
    answer = http_answer(whole.encode(), "Content-Type: application/json")
    reply, row = Listener(gate, [partial(go_on.wait, PATIENCE), answer], kind).hear(SIGN[kind], go_on)
    body = reply.body.replace(SIGN[kind], b"")
    if kind == "array":
        assert json.loads(body) == [WHOLE[kind]]
    else:
        assert json.loads(body.removeprefix(b"data: ")) == WHOLE[kind]
        assert body.endswith(b"\n\n")
    assert (row.outcome, row.input_tokens, row.output_tokens) == ("completed", 10, 5)


def test_a_connection_that_fails_behind_the_head_is_an_event(gate: Gate) -> None:
    """The upstream hangs up without an answer."""
    go_on = threading.Event()
    reply, row = Listener(gate, [partial(go_on.wait, PATIENCE)], "messages").hear(SIGN["messages"], go_on)
    assert b"event: error" in reply.body
    assert (row.outcome, row.status, row.cost) == ("upstream_error", 200, 0)


def test_a_caller_who_leaves_in_the_silence_ends_the_call(gate: Gate) -> None:
    """Signs of life keep nobody's call going who has left."""
    with raw_upstream([HEAD, STREAMS["chat"][0]], linger=True) as upstream:
        behind = gate.behind(upstream.url)
        with behind.gate.streaming("chat", "hi", model=behind.model) as (_, answer):
            came = b""
            while SIGN["chat"] not in came:
                came += answer.read1(65_536)
        assert upstream.hung_up.wait(PATIENCE)
        wait_until(behind.gate.rows, "the row of a caller who left")
    assert behind.gate.row().outcome == "aborted"
