"""A provider that costs as little as Python allows, so that a benchmark measures what stands in front of it.

    python -m benchmarks.upstream --port PORT

It speaks the OpenAI dialect's chat completions. Every answer is the same: whole, or as a stream of 34 chunks, the
first after 20 ms and each other 10 ms after the one before, so that no two arrive together.
"""

import argparse
import asyncio
import json
from typing import cast
from zlib import crc32

import httptools
import uvloop

CHUNKS = 34
"""Events of a stream before its `[DONE]`."""

FIRST_AFTER, NEXT_AFTER = 0.020, 0.010
"""Seconds to the first chunk of a stream, and between two."""

USAGE = {"prompt_tokens": 400, "completion_tokens": 32, "total_tokens": 432}

_WORDS = "Group commit shares one flush of the disk among all callers that wait for it. " * 4
_IDS = {"id": "chatcmpl-benchmark", "created": 1_700_000_000, "model": "bench"}


def _whole() -> bytes:
    message = {"role": "assistant", "content": _WORDS, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return json.dumps({**_IDS, "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()


def _events() -> list[bytes]:
    def event(choices: list[object], usage: object = None) -> bytes:
        chunk = {**_IDS, "object": "chat.completion.chunk", "choices": choices, "usage": usage}
        return b"data: %b\n\n" % json.dumps(chunk).encode()

    def delta(finish: str | None = None, **content: str) -> bytes:
        return event([{"index": 0, "delta": content, "logprobs": None, "finish_reason": finish}])

    texts = [delta(content=f" word{number}") for number in range(CHUNKS - 3)]
    return [delta(role="assistant", content=""), *texts, delta("stop"), event([], USAGE)]


WHOLE = _whole()
EVENTS = _events()
WHOLE_CRC = crc32(WHOLE)
STREAM_CRC = crc32(b"".join(EVENTS) + b"data: [DONE]\n\n")
"""What the bodies' bytes add up to, for whoever checks them at the other end."""


def _piece(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


_HEAD = b"HTTP/1.1 200 OK\r\nx-request-id: req_benchmark\r\n"
_WHOLE = _HEAD + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(WHOLE) + WHOLE
_STREAM_HEAD = _HEAD + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_PIECES = [*map(_piece, EVENTS[:-1]), _piece(EVENTS[-1]) + _piece(b"data: [DONE]\n\n") + b"0\r\n\r\n"]
_PIECES[0] = _STREAM_HEAD + _PIECES[0]


class Caller(asyncio.Protocol):
    """One connection of a gateway, or of the load itself."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._streams = False
        self._begun = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        """See whether a stream is asked for."""
        self._streams = self._streams or b'"stream":true' in part

    def on_message_complete(self) -> None:
        """Answer."""
        if self._streams:
            self._streams = False
            self._begun = self._loop.time() + FIRST_AFTER
            self._loop.call_at(self._begun, self._send_piece, 0)
        else:
            self._transport.write(_WHOLE)

    def _send_piece(self, number: int) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(_PIECES[number])
        if number + 1 < CHUNKS:
            # By the stream's own clock: a late chunk makes the next ones no later.
            self._loop.call_at(self._begun + (number + 1) * NEXT_AFTER, self._send_piece, number + 1)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Caller, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
