"""Answers as they go over the wire: the bytes are those of uvicorn's own cycle, which is slower."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway.raw import Served, say, served
from toolkit.gateway.connection_limits import Limits

Messages = list[dict[str, Any]]


def start(status: int, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    """Return what begins an answer."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    """Return a part of an answer."""
    return {"type": "http.response.body", "body": data, "more_body": more}


ANSWERS: dict[str, Messages] = {
    "whole": [start(200, (b"content-length", b"5")), body(b"hello")],
    "whole in parts": [start(200, (b"content-length", b"5")), body(b"he", more=True), body(b"llo")],
    "stream": [start(200, (b"X-Name", b"a\tb")), body(b"data: 1\n\n", more=True), body(b"data: 2\n\n")],
    "stream with an empty part": [start(200), body(b"", more=True), body(b"a", more=True), body(b"")],
    "chunks as asked for": [start(200, (b"Transfer-Encoding", b"chunked")), body(b"a")],
    "nothing to say": [start(204), body(b"")],
    "not modified": [start(304, (b"etag", b"1")), body(b"")],
    "closing": [start(200, (b"Connection", b"x, close"), (b"content-length", b"1")), body(b"a")],
    "keeping": [start(200, (b"Connection", b"keep-alive"), (b"content-length", b"1")), body(b"a")],
    "refusal": [start(402, (b"content-length", b"2"), (b"retry-after", b"1")), body(b"no")],
    "longer than it says": [start(200, (b"content-length", b"1")), body(b"abc")],
    "shorter than it says": [start(200, (b"content-length", b"9")), body(b"abc")],
    "a line break in a header": [start(200, (b"x-name", b"a\r\nx-evil: 1"), (b"content-length", b"0")), body(b"")],
    "half a line break": [start(200, (b"x-name", b"a\nb"), (b"content-length", b"0")), body(b"")],
    "a zero byte in a header": [start(200, (b"x-name", b"a\0b"), (b"content-length", b"0")), body(b"")],
    "a body before its head": [body(b"a")],
    "two heads": [start(200), start(200), body(b"a")],
}


@pytest.fixture(scope="module")
def ours() -> Iterator[Served]:
    with served(Limits()) as running:
        yield running


@pytest.fixture(scope="module")
def theirs() -> Iterator[Served]:
    with served(Limits(), http="httptools") as running:
        yield running


def told(server: Served, messages: Messages, method: str, *, close: bool) -> bytes:
    """Return the bytes of an answer, and of a second one if the connection lasts, without their dates."""
    server.says[:] = messages
    request = f"{method} /say HTTP/1.1\r\nHost: a\r\n{'Connection: close' if close else 'X: y'}\r\n\r\n".encode()
    last = b"" if close else b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    return re.sub(rb"date: [^\r]*\r\n", b"", say(server.port, request + last))


@pytest.mark.parametrize("close", [True, False], ids=["last", "kept"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("messages", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_is_what_uvicorn_would_send(
    ours: Served, theirs: Served, messages: Messages, method: str, close: bool
) -> None:
    """To the byte, and what no answer may be ends the connection in both."""
    assert told(ours, messages, method, close=close) == told(theirs, messages, method, close=close)
