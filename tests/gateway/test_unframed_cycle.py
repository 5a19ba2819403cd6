"""Callers of HTTP/1.0 get no chunks: what has no length ends with the connection."""

import json

import pytest

from tests.gateway.conftest import KINDS, Gate, http_answer, raw_upstream, request_of
from tests.gateway.raw import say
from tests.gateway.test_odd_answers import DONE, STREAMS


def tell(gate: Gate, kind: str, text: str, *, stream: bool, version: str = "1.0") -> tuple[dict[str, str], bytes]:
    """Send a request of an HTTP version, and return the answer's headers and everything behind them."""
    path, body = request_of(kind, text, stream=stream)
    sent = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/{version}\r\nHost: a\r\nAuthorization: Bearer {gate.secret}\r\nContent-Length: {len(sent)}"
    )
    received = say(int(gate.url.rpartition(":")[2]), f"{head}\r\nConnection: close\r\n\r\n".encode() + sent)
    lines, _, rest = received.partition(b"\r\n\r\n")
    pairs = [line.split(": ", 1) for line in lines.decode().lower().split("\r\n")[1:]]
    return dict(pairs), rest


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_to_http_1_0_has_no_chunks(gate: Gate, kind: str) -> None:
    """Its bytes are the events alone, and the connection's end is theirs."""
    headers, body = tell(gate, kind, "hello [[demo tokens=30]]", stream=True)
    assert "transfer-encoding" not in headers
    assert headers["connection"] == "close"
    if kind == "array":
        assert json.loads(body)
    else:
        assert body.startswith((b"data: {", b"event: "))
        assert body.endswith(b"\n\n")
        assert all(line[:1] in (b"", b"d", b"e") for line in body.split(b"\n"))
    assert gate.row().outcome == "completed"


def test_a_stream_to_http_1_1_has_chunks(gate: Gate) -> None:
    """There a stream that is cut can be told from a whole one."""
    headers, body = tell(gate, "chat", "hello", stream=True, version="1.1")
    assert headers["transfer-encoding"] == "chunked"
    assert body.endswith(b"0\r\n\r\n")


def test_a_whole_answer_to_http_1_0_has_its_length(gate: Gate) -> None:
    """As has an error."""
    for text in ("hello", "[[demo status=500]]"):
        headers, body = tell(gate, "chat", text, stream=False)
        assert int(headers["content-length"]) == len(body)
        assert "transfer-encoding" not in headers


def test_a_large_stream_to_http_1_0_is_whole(gate: Gate) -> None:
    """Parts that wait for the caller to read are counted as they are sent."""
    events = b"".join(STREAMS["chat"][:1] * 40_000 + STREAMS["chat"][1:2] + [DONE])
    with raw_upstream([http_answer(events, "Content-Type: text/event-stream")]) as upstream:
        behind = gate.behind(upstream.url)
        sent = json.dumps({"model": behind.model, "stream": True, "messages": [{"role": "user", "content": "hi"}]})
        head = (
            f"POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer {behind.gate.secret}\r\n"
            f"Content-Length: {len(sent)}\r\n\r\n"
        )
        received = say(int(gate.url.rpartition(":")[2]), (head + sent).encode())
    assert received.partition(b"\r\n\r\n")[2] == events
