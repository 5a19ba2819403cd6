"""The liar: a provider that answers in every way that it should not, now and then in one that it should.

    python -m tests.chaos.liar --port PORT --journal FILE --seed NUMBER

It speaks the three dialects, whole and streamed. Each request is a line of the journal, before the first byte of its
answer: its id, and `billed` if a provider would bill it (a whole answer with text in it, however odd its usage), else
`free`. A request whose body holds `HONEST` always gets an honest answer.
"""

import argparse
import asyncio
import gzip
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import httptools
import uvloop

HONEST = b"an honest answer, please"

ODD_COUNTS: tuple[Any, ...] = (-1, 1.5, "12", "many", True, None, [], {}, 10**12, 2**63, 10**400, 1e300, "\ud800", 0)
"""What a provider may say where a number of tokens belongs."""

STATUSES = (
    100,
    101,
    102,
    199,
    204,
    206,
    301,
    304,
    400,
    401,
    402,
    403,
    404,
    408,
    413,
    418,
    422,
    429,
    500,
    503,
    529,
    599,
)
ODD_STATUSES = (b"0", b"7", b"99", b"600", b"999", b"1000", b"-1", b"abc", b"")
KINDS = (b"application/json", b"text/event-stream", b"text/html", b"", b"\xff\xfe", b"application/json; charset=utf-16")


class Answer(NamedTuple):
    """The bytes of an answer, the places where they may be cut into pieces, and whether it would be billed."""

    pieces: list[bytes]
    billed: bool
    close: bool = False


class Asked(NamedTuple):
    """What a request was for.

    Args:
        dialect: or what of it has a form of answer of its own.
        stream: whether the answer is one.
        free: whether no provider bills it.
    """

    dialect: str
    stream: bool
    free: bool = False


def asked_by(path: bytes, body: bytes) -> Asked:
    """Return what a request is for, by the paths that the gateway calls."""
    if b"count" in path:
        return Asked("anthropic" if b"/messages" in path else "gemini", stream=False, free=True)
    if b"/embeddings" in path:
        return Asked("embeddings", stream=False)
    if b"GenerateContent" in path or b"generateContent" in path:
        return Asked("gemini" if b"alt=sse" in path or b"stream" not in path else "array", b"stream" in path)
    stream = b'"stream":true' in body.replace(b" ", b"")
    return Asked("anthropic" if b"/messages" in path else "responses" if b"/responses" in path else "chat", stream)


def usage(dialect: str, counts: Callable[[], Any]) -> dict[str, Any]:
    """Return a usage object of a dialect, each of whose counts is as `counts` gives it."""
    names = {
        "chat": ("prompt_tokens", "completion_tokens", "total_tokens"),
        "responses": ("input_tokens", "output_tokens", "total_tokens"),
        "anthropic": ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
        "gemini": ("promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount"),
        "embeddings": ("prompt_tokens", "total_tokens"),
    }
    inner = {
        "chat": {"prompt_tokens_details": {"cached_tokens": counts()}},
        "responses": {"input_tokens_details": {"cached_tokens": counts()}},
        "anthropic": {"cache_creation": {"ephemeral_1h_input_tokens": counts()}},
        "gemini": {"cachedContentTokenCount": counts()},
        "embeddings": {},
    }
    dialect = "gemini" if dialect == "array" else dialect
    return {name: counts() for name in names[dialect]} | inner[dialect]


def body_of(dialect: str, used: object) -> dict[str, Any]:
    """Return a whole answer of a dialect with a few words in it; `used` None leaves usage out."""
    text = "Some words of an answer."
    bodies: dict[str, dict[str, Any]] = {
        "chat": {
            "id": "chatcmpl-l",
            "object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        },
        "responses": {
            "id": "resp_l",
            "object": "response",
            "status": "completed",
            "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}],
        },
        "anthropic": {
            "id": "msg_l",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
        },
        "gemini": {
            "responseId": "gem_l",
            "candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}],
        },
    }
    bodies["embeddings"] = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]}
    name = "usageMetadata" if dialect == "gemini" else "usage"
    return bodies[dialect] | ({} if used is None else {name: used})


def events_of(dialect: str, used: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and content of the events of a whole stream."""
    if dialect == "chat":
        for finish in (None, None, "stop"):
            delta = {"index": 0, "delta": {"content": "words "}, "finish_reason": finish}
            yield "", {"id": "chatcmpl-l", "choices": [delta]}
        if used is not None:
            yield "", {"id": "chatcmpl-l", "choices": [], "usage": used}
    elif dialect == "responses":
        yield "response.created", {"type": "response.created", "response": {"id": "resp_l"}}
        for _ in range(3):
            yield "response.output_text.delta", {"type": "response.output_text.delta", "delta": "words "}
        yield "response.completed", {"type": "response.completed", "response": body_of(dialect, used)}
    elif dialect == "anthropic":
        start = {"id": "msg_l", "type": "message", "content": [], "usage": used}
        yield "message_start", {"type": "message_start", "message": start}
        for _ in range(3):
            delta = {"type": "text_delta", "text": "words "}
            yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
        yield "message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": used}
        yield "message_stop", {"type": "message_stop"}
    else:
        for last in (False, False, True):
            candidate: dict[str, Any] = {"content": {"parts": [{"text": "words "}]}, "index": 0}
            if last:
                candidate["finishReason"] = "STOP"
            yield "", {"candidates": [candidate]} | ({"usageMetadata": used} if used is not None else {})


def sse(dialect: str, used: object, line_end: str = "\n") -> list[bytes]:
    """Return the events of a whole stream as server-sent events."""
    made = []
    for name, content in events_of(dialect, used):
        lines = [f"event: {name}"] if name else []
        made.append(line_end.join([*lines, f"data: {json.dumps(content)}", "", ""]).encode())
    if dialect == "chat":
        made.append(f"data: [DONE]{line_end}{line_end}".encode())
    return made


def head(status: bytes, kind: bytes, length: int | None, *more: bytes) -> bytes:
    """Return an answer's head; without a length its body is chunked."""
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    return b"\r\n".join([b"HTTP/1.1 " + status + b" Words", b"content-type: " + kind, framing, *more, b"", b""])


def chunk(data: bytes) -> bytes:
    """Return data as a chunk of a body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class Liar:
    """Answers drawn at random.

    Args:
        seed: of what is drawn.
    """

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)

    def answer(self, asked: Asked, honest: bool) -> Answer:
        """Return some answer to a request."""
        if honest:
            return self._honest(asked)
        ways = [self._honest, self._odd_usage, self._odd_usage, self._error, self._broken, self._noise, self._odd_head]
        ways += [self._odd_stream, self._endless] if asked.stream else [self._odd_body, self._packed]
        return self._draw.choice(ways)(asked)

    def _honest(self, asked: Asked) -> Answer:
        return self._used(asked, usage(asked.dialect, lambda: 3))

    def _odd_usage(self, asked: Asked) -> Answer:
        draw = self._draw
        used: object = usage(asked.dialect, lambda: draw.choice(ODD_COUNTS))
        return self._used(asked, draw.choice([used, used, used, None, [], "none", 7]))

    def _used(self, asked: Asked, used: object) -> Answer:
        if not asked.stream:
            body = json.dumps(body_of(asked.dialect, used)).encode()
            return Answer([head(b"200", b"application/json", len(body)), *self._split(body)], billed=True)
        kind = b"text/event-stream"
        whole = b"".join(sse(asked.dialect, used, self._draw.choice(["\n", "\n", "\r\n"])))
        if asked.dialect == "array":
            whole, kind = (
                json.dumps([content for _, content in events_of("gemini", used)]).encode(),
                b"application/json",
            )
        parts = [chunk(piece) for piece in self._split(whole)]
        return Answer([head(b"200", kind, None), *parts, b"0\r\n\r\n"], billed=True)

    def _split(self, data: bytes) -> list[bytes]:
        cuts = sorted({self._draw.randrange(len(data)) for _ in range(self._draw.choice([0, 1, 6]))} - {0})
        return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    def _error(self, _: Asked) -> Answer:
        draw = self._draw
        status = b"%d" % draw.choice(STATUSES)
        bodies: list[object] = [
            {"error": {"message": "org-AbC123 me@x.example http://10.0.0.7/", "type": "t", "code": "c"}},
            {"error": "words"},
            {"error": [1]},
            [],
            "words",
            None,
            {"error": {"message": "x" * 200_000}},
            {"type": "error", "error": {"type": "overloaded_error", "message": "\ud800"}},
        ]
        body = json.dumps(draw.choice(bodies)).encode()
        return Answer(
            [head(status, draw.choice(KINDS), len(body), b"retry-after: \xff"), body], billed=False, close=True
        )

    def _broken(self, asked: Asked) -> Answer:
        whole = b"".join(self._honest(asked).pieces)
        return Answer([whole[: self._draw.randrange(len(whole))]], billed=False, close=True)

    def _noise(self, asked: Asked) -> Answer:
        draw = self._draw
        noise = draw.randbytes(draw.choice([0, 1, 100, 70_000]))
        kind = b"text/event-stream" if asked.stream else b"application/json"
        framed = draw.random() < 0.8
        return Answer([head(b"200", kind, len(noise)) + noise if framed else noise], billed=False, close=True)

    def _odd_head(self, _: Asked) -> Answer:
        draw = self._draw
        more = draw.choice(
            [
                [b"x: " + b"y" * 300_000],
                [b"x: y"] * 5_000,
                [b"content-length: 7"],
                [b"content-encoding: br"],
                [b"transfer-encoding: gzip, chunked"],
                [b"set-cookie: a=b", b"openai-organization: org-secret"],
            ]
        )
        return Answer([head(draw.choice(ODD_STATUSES), b"application/json", 2, *more), b"{}"], billed=False, close=True)

    def _odd_body(self, asked: Asked) -> Answer:
        plain = json.dumps(body_of(asked.dialect, usage(asked.dialect, lambda: 3)))
        odd = [
            "[" * 100_000,
            '{"a":' * 50_000,
            plain[:-1] + ',"usage":{}' * 3 + "}",
            plain + plain,
            "\ufeff" + plain,
            '{"id":"' + "x" * 1_000_000 + '"}',
            '{"choices":[' + ",".join(["{}"] * 100_000) + "]}",
            "\0",
            "NaN",
            "9" * 10_000,
        ]
        body = self._draw.choice(odd).encode()
        return Answer([head(b"200", self._draw.choice(KINDS), len(body)), body], billed=False)

    def _packed(self, asked: Asked) -> Answer:
        plain = json.dumps(body_of(asked.dialect, None)).encode()
        packed = self._draw.choice([gzip.compress(plain), gzip.compress(plain)[:-9], b"\x1f\x8b" + bytes(50)])
        packed = self._draw.choice([packed, gzip.compress(bytes(30_000_000))])
        return Answer([head(b"200", b"application/json", len(packed), b"content-encoding: gzip"), packed], billed=False)

    def _odd_stream(self, asked: Asked) -> Answer:
        draw = self._draw
        made = sse(asked.dialect, usage(asked.dialect, lambda: 3))
        odd: list[list[bytes]] = [
            made[:-1],
            [*made, *made],
            [*made, made[0]],
            made[::-1],
            [b": comment\n\n", b"\xef\xbb\xbf", *made],
            [b'data: {"error":{"message":"no","code":"x"}}\n\n'],
            [made[0], b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n'],
            [b"data:\n\n" * 5_000],
            [b"data: [1]\n\ndata: null\n\ndata: {\n\n", *made],
            [b"data: " + piece for piece in made],
            sse(asked.dialect, usage(asked.dialect, lambda: 3), "\r"),
            [],
        ]
        parts = [chunk(piece) for piece in draw.choice(odd) if piece]
        end = draw.choice([b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b""])
        return Answer([head(b"200", b"text/event-stream", None), *parts, end], billed=False, close=not end)

    def _endless(self, _: Asked) -> Answer:
        line = b"data: " + b"x" * 1_000_000
        kind = self._draw.choice([b"text/event-stream", b"application/json"])
        return Answer([head(b"200", kind, None), *[chunk(line)] * 6], billed=False, close=True)


class Caller(asyncio.Protocol):
    """One connection of a gateway."""

    def __init__(self, liar: Liar, journal: int) -> None:
        self._liar = liar
        self._journal = journal
        self._parser = httptools.HttpRequestParser(self)
        self._begin()

    def _begin(self) -> None:
        self._request_id = self._path = b""
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        self._parser.feed_data(data)

    def on_url(self, path: bytes) -> None:
        """Note where the request goes."""
        self._path += path

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note the request's id."""
        if name.lower() == b"x-request-id":
            self._request_id = value

    def on_body(self, part: bytes) -> None:
        """Keep a part of the body."""
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """Put the request on record; then answer. At `/` it only says that it is there."""
        if self._path == b"/":
            self._transport.write(head(b"200", b"text/plain", 0))
            self._begin()
            return
        body = b"".join(self._parts)
        asked = asked_by(self._path, body)
        answer = self._liar.answer(asked, HONEST in body)
        billed = answer.billed and not asked.free
        os.write(self._journal, self._request_id + (b" billed\n" if billed else b" free\n"))
        self._begin()
        for piece in answer.pieces:
            if not self._transport.is_closing():
                self._transport.write(piece)
        if answer.close:
            self._transport.close()


async def _serve(port: int, journal: Path, seed: int) -> None:
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    liar = Liar(seed)
    server = await asyncio.get_running_loop().create_server(lambda: Caller(liar, descriptor), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    uvloop.run(_serve(given.port, given.journal, given.seed))


if __name__ == "__main__":
    main()
