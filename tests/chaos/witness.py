"""The witness: a provider that notes the id of every request it receives, and then answers as the prompt asks.

    python -m tests.chaos.witness --port PORT --journal FILE

It speaks the OpenAI dialect's chat completions, whole and streamed. A request is a line of the journal before the
first byte of its answer is sent, and stays there whatever happens to the gateways. Every bound is honoured: never
more output tokens than the request allows, never more input tokens than it has bytes. What the answer is to report,
and after what pause, stands in the prompt (`Wish`).
"""

import argparse
import asyncio
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httptools
import uvloop

PIECES = 4
"""Chunks of a streamed answer before its usage; the pause is spread over them."""

_WISH = re.compile(rb"in=(\d+) out=(\d+) wait=(\d+)ms")
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the answer to a call is to be.

    Args:
        input, output: tokens to report.
        wait: milliseconds that the answer takes.
    """

    input: int
    output: int
    wait: int

    def __str__(self) -> str:
        # Of one length whatever the numbers are: the hold depends on the request's size.
        return f"in={self.input:06d} out={self.output:06d} wait={self.wait:06d}ms"


class Caller(asyncio.Protocol):
    """One connection of a gateway."""

    def __init__(self, journal: int) -> None:
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._request_id = b""
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note the request's id."""
        if name.lower() == b"x-request-id":
            self._request_id = value

    def on_body(self, part: bytes) -> None:
        """Keep a part of the body."""
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """Put the request on record; then answer."""
        os.write(self._journal, self._request_id + b"\n")
        text = b"".join(self._parts)
        self._parts = []
        found = _WISH.search(text)
        if found is None:
            self._send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            return
        body = json.loads(text)
        bound = max(body.get("max_tokens") or 0, body.get("max_completion_tokens") or 0)
        wish = Wish(min(int(found[1]), len(text)), min(int(found[2]), bound), int(found[3]))
        usage = {
            "prompt_tokens": wish.input,
            "completion_tokens": wish.output,
            "total_tokens": wish.input + wish.output,
        }
        if body.get("stream"):
            self._send(_STREAM_HEAD)
            self._stream(PIECES, wish.wait / 1000 / PIECES, usage)
        else:
            answer = json.dumps(
                {
                    "id": "chatcmpl-witness",
                    "object": "chat.completion",
                    "choices": [
                        {"index": 0, "message": {"role": "assistant", "content": "seen"}, "finish_reason": "stop"}
                    ],
                    "usage": usage,
                }
            ).encode()
            self._loop.call_later(wish.wait / 1000, self._send, _HEAD % len(answer) + answer)

    def _stream(self, left: int, pause: float, usage: dict[str, int]) -> None:
        chunk = {"id": "chatcmpl-witness", "object": "chat.completion.chunk"}
        if left:
            finish = "stop" if left == 1 else None
            delta = {"index": 0, "delta": {"content": "s"}, "finish_reason": finish}
            self._send(_event(json.dumps({**chunk, "choices": [delta]})))
            self._loop.call_later(pause, self._stream, left - 1, pause, usage)
        else:
            last = _event(json.dumps({**chunk, "choices": [], "usage": usage}))
            self._send(last + _event("[DONE]") + b"0\r\n\r\n")

    def _send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


def _event(data: str) -> bytes:
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(event), event)


async def _serve(port: int, journal: Path) -> None:
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    server = await asyncio.get_running_loop().create_server(lambda: Caller(descriptor), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    given = parser.parse_args()
    uvloop.run(_serve(given.port, given.journal))


if __name__ == "__main__":
    main()
