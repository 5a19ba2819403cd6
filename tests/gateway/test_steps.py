"""Whatever a caller or a provider sends, no step of the gateway's loop takes long: the others' calls go on."""

import gc
import json
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import (
    ADMIN,
    CREDENTIAL,
    EMBEDDING_SHEET,
    OPENAI_SHEET,
    Running,
    free_port,
    make_world,
    process,
    settings_for,
    variables_of,
)
from tests.gateway.conftest import Gate, http_answer, make_gate, raw_upstream
from toolkit.admin import plans
from toolkit.admin.models import add_model
from toolkit.core.pricing import MILLION
from toolkit.gateway.app import calm_collector
from toolkit.workspace import Workspace

MOST = 20.0
"""Milliseconds of its thread's own CPU time that a step may take."""

LARGEST = 32 * 1024 * 1024


def mostly_world(names: Iterable[str], *always: str) -> list[object]:
    """Return parameters of which `make test` takes only those named last: each moves many megabytes."""
    return [name if name in always else pytest.param(name, marks=pytest.mark.world) for name in names]


@dataclass(frozen=True)
class Watched:
    """A gateway whose steps are watched, and a key for it."""

    gate: Gate
    path: Path

    def steps(self) -> list[tuple[float, str]]:
        """Return the steps that were noted, the longest first."""
        return sorted((tuple(json.loads(line)) for line in self.path.read_text().splitlines()), reverse=True)

    def longest(self, act: Callable[[], object]) -> tuple[float, str]:
        """Return the longest step while something is done."""
        self.path.write_text("")
        act()
        return max(self.steps(), default=(0.0, ""))

    def post(self, path: str, body: bytes, *, chunks: int = 0) -> bytes:
        """Send a body as fast as it is taken, or in chunks of so many bytes; return the answer's head."""
        host, port = self.gate.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            framing = "Transfer-Encoding: chunked" if chunks else f"Content-Length: {len(body)}"
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.gate.secret}\r\n{framing}\r\n\r\n"
            client.sendall(head.encode())
            if chunks:
                pieces = (body[start : start + chunks] for start in range(0, len(body), chunks))
                body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
            client.sendall(body)
            return client.recv(65_536)


@pytest.fixture(scope="module")
def watched(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A watched gateway with models that take the largest bodies."""
    folder = tmp_path_factory.mktemp("steps")
    settings = replace(settings_for(folder / "data", ""), gateway_port=free_port())
    workspace = Workspace.open(settings, ADMIN, make=True)
    world = make_world(workspace, upstream)
    with workspace.write() as tx:
        sizes: dict[str, Any] = {"context_window": 4_000_000, "default_output": 4_096}
        add_model(tx, "wide", "test-openai", sheet=OPENAI_SHEET, max_output=8_192, **sizes)
        add_model(tx, "embed-wide", "test-openai", sheet=EMBEDDING_SHEET, **sizes)
        plan = plans.add(tx, "wide", MILLION, ["wide", "embed-wide", "claude-test", "gemini-test"])
    env = variables_of(settings) | {
        "KEYDESK_GATEWAY_PORT": str(settings.gateway_port),
        "TEST_UPSTREAM_API_KEY": CREDENTIAL,
    }
    url = f"http://127.0.0.1:{settings.gateway_port}"
    log, path = folder / "log", folder / "steps"
    with process(["-m", "tests.gateway.steps", str(path), "gateway"], f"{url}/healthz", env, log) as server:
        running = Running(replace(world, plan_id=plan.id), url, upstream, log, server)
        yield Watched(make_gate(running, money=10**15), path)
    workspace.close()


def chat(inner: bytes) -> bytes:
    """Return a chat request with something in a field that nobody reads."""
    return b'{"model":"wide","messages":[{"role":"user","content":"hello"}],"x":' + inner + b"}"


def filled(inner: bytes, unit: bytes, end: bytes, size: int = LARGEST - 200) -> bytes:
    """Return `inner`, as many units as fit, and `end`."""
    return inner + unit * ((size - len(inner) - len(end)) // len(unit)) + end


CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
BODIES: dict[str, tuple[str, Callable[[], bytes], int, bytes]] = {
    "small values": (CHAT, lambda: chat(filled(b"[", b"1,", b"1]")), 0, b"400"),
    "as many values as are read": (CHAT, lambda: chat(filled(b"[", b"[],", b"1]", 1_499_000)), 0, b"200"),
    "small objects": (CHAT, lambda: chat(filled(b"[", b'{"a":1},', b"1]", 1_900_000)), 0, b"200"),
    "deep": (CHAT, lambda: chat(filled(b"", b"[", b"")), 0, b"400"),
    "one string": (CHAT, lambda: chat(filled(b'"', b"x", b'"')), 0, b"200"),
    "one string of commas": (CHAT, lambda: chat(filled(b'"', b'\\",[', b'"')), 0, b"200"),
    "many names": (CHAT, lambda: chat(b"{" + b",".join(b'"k%d":1' % n for n in range(300_000)) + b"}"), 0, b"400"),
    "a name twice": (
        CHAT,
        lambda: chat(b"{" + b",".join(b'"k%d":1' % (n % 9_999) for n in range(10_000)) + b"}"),
        0,
        b"400",
    ),
    "a picture": (
        CHAT,
        lambda: (
            b'{"model":"wide","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":'
            b'"data:image/png;base64,' + b"A" * (28 << 20) + b'"}}]}]}'
        ),
        0,
        b"200",
    ),
    "tokens to embed": (
        EMBEDDINGS,
        lambda: b'{"model":"embed-wide","input":[' + b",".join([filled(b"[", b"123,", b"1]", 1 << 20)] * 7) + b"]}",
        0,
        b"200",
    ),
    "a wrong byte at the end": (CHAT, lambda: chat(filled(b'"', b"x", b'\xff"')), 0, b"400"),
    "small chunks": (CHAT, lambda: chat(filled(b'"', b"x", b'"', 4 << 20)), 16, b"200"),
    "light": (CHAT, lambda: chat(filled(b"[", b"1,", b"1]", 32_000)), 0, b"200"),
    "light objects": (CHAT, lambda: chat(filled(b"[", b'{"a":{}},', b"1]", 32_000)), 0, b"200"),
    "light text": (CHAT, lambda: chat(filled(b'"', b"\\u00e4", b'"', 500_000)), 0, b"200"),
    "light messages": (
        CHAT,
        lambda: b'{"model":"wide","messages":[' + b",".join([b'{"content":[{"type":"text"}]}'] * 1_000) + b"]}",
        0,
        b"200",
    ),
}


@pytest.mark.world
@pytest.mark.parametrize("name", mostly_world(BODIES, "deep", "one string", "light objects"))
def test_no_body_holds_the_loop(watched: Watched, name: str) -> None:
    """The largest body of each kind is read, judged and, if it may, forwarded in steps of a few milliseconds."""
    path, make, chunks, status = BODIES[name]
    body = make()
    heads: list[bytes] = []
    taken, step = watched.longest(lambda: heads.append(watched.post(path, body, chunks=chunks)))
    assert heads[0].split(b" ", 2)[1] == status, [row.error for row in watched.gate.rows()][-1:]
    assert taken <= MOST, step


JSON = "Content-Type: application/json"
EMBEDDED = b'{"object":"list","data":[' + b",".join([b'{"embedding":[' + b"-0.0123456789," * 3_000 + b"1]}"] * 400)
USED = b'"usage":{"prompt_tokens":7,"completion_tokens":9,"total_tokens":16}'
EVENT = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],' + USED + b"}\n\ndata: [DONE]\n\n"

ANSWERS: dict[str, tuple[bool, Callable[[], bytes]]] = {
    "embeddings": (False, lambda: http_answer(EMBEDDED + b"]," + USED + b"}", JSON)),
    "small values": (
        False,
        lambda: http_answer(b'{"id":"x","a":' + filled(b"[", b"[],", b"1],") + USED + b"}", JSON),
    ),
    "one string": (False, lambda: http_answer(b'{"id":"x","a":' + filled(b'"', b"\\n", b'",') + USED + b"}", JSON)),
    "many small events": (True, lambda: STREAM + EVENT * 30_000 + LAST),
    "many empty events": (True, lambda: STREAM + b"data: {}\n\n" * 100_000 + LAST),
    "line ends": (True, lambda: STREAM + b"\n" * 8_000_000 + LAST),
    "a heavy event": (True, lambda: STREAM + b'data: {"x":' + filled(b"[", b"[],", b"1]}\n\n", 12 << 20) + LAST),
    "a long event": (
        True,
        lambda: STREAM + b'data: {"choices":[{"delta":{"content":' + filled(b'"', b"x", b'"}}]}\n\n', 12 << 20) + LAST,
    ),
    "an event of many lines": (True, lambda: STREAM + b"data: 1\n" * 1_000_000 + b"\n" + LAST),
}


@pytest.mark.world
@pytest.mark.parametrize("name", mostly_world(ANSWERS, "one string", "many small events"))
def test_no_answer_holds_the_loop(watched: Watched, name: str) -> None:
    """Large answers and events are read elsewhere, passed on whole, and charged by what they report."""
    stream, make = ANSWERS[name]
    answer = make()
    with raw_upstream([answer]) as upstream:
        behind = watched.gate.behind(upstream.url)
        replies: list[bytes] = []
        taken, step = watched.longest(lambda: replies.append(behind.ask("chat", stream=stream).body))
    assert taken <= MOST, step
    (row,) = behind.gate.rows()
    assert row.error is None
    assert (row.outcome, row.usage_source, row.input_tokens, row.output_tokens) == ("completed", "reported", 7, 9)
    body = answer.partition(b"\r\n\r\n")[2]
    assert replies[0] == body


def test_no_look_of_the_garbage_collector_holds_the_loop() -> None:
    """However much is left to it, by whichever thread, it looks at a few thousand things at a time."""
    looks: list[int] = []

    def look(phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == 0:
            looks.append(info["collected"])

    usual = gc.get_threshold()
    gc.callbacks.append(look)
    try:
        calm_collector()
        for _ in range(30_000):
            left: list[object] = []
            left.append(left)
    finally:
        gc.callbacks.remove(look)
        gc.set_threshold(*usual)
        gc.unfreeze()
    assert sum(looks) > 20_000
    assert max(looks) <= 6_000


def test_a_line_that_never_ends_ends(watched: Watched) -> None:
    """Beyond 16 MiB of one event the stream is broken off with the dialect's error event."""
    with raw_upstream([STREAM, EVENT, *[b"x" * (1 << 20)] * 40]) as upstream:
        behind = watched.gate.behind(upstream.url)
        replies: list[bytes] = []
        taken, step = watched.longest(lambda: replies.append(behind.ask("chat", stream=True).body))
    assert taken <= MOST, step
    assert replies[0].startswith(EVENT)
    assert b'"upstream_error"' in replies[0]
    assert behind.gate.rows()[0].outcome == "upstream_error"
