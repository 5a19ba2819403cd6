"""The load of a benchmark: callers who each send the next request once the last answer is complete and checked.

    python -m benchmarks.load

It reads orders from its standard input, one JSON object a line (`Order`), and answers each with a line (`Report`):
started once, it is warm for every measurement. A call that is under way at the end of the time is finished and counts.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import cast
from zlib import crc32

import httptools
import uvloop


@dataclass(frozen=True, slots=True)
class Order:
    """What to do.

    Args:
        port: of the server, on this machine.
        requests: bytes as Latin-1, shared out among the callers.
        callers: how many, each on a connection of its own.
        seconds: after which no caller sends another request.
        crc: CRC-32 of the body that every answer must have.
    """

    port: int
    requests: list[str]
    callers: int
    seconds: float
    crc: int


@dataclass(slots=True)
class Report:
    """What came of it: times in milliseconds.

    Args:
        calls: answers that were complete and right.
        wrong: all others.
        seconds: from the first request to the last answer.
        p50, p99: time to an answer's end.
        first_p50, first_p99: time to the first byte of its body.
    """

    calls: int = 0
    wrong: int = 0
    seconds: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    first_p50: float = 0.0
    first_p99: float = 0.0


@dataclass(slots=True)
class _Times:
    whole: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    wrong: int = 0


class Visitor(asyncio.Protocol):
    """One caller.

    Args:
        request: what is sent.
        until: when no further one is sent, by `time.perf_counter`.
        crc: of the body that must come.
        times: of all callers together.
    """

    def __init__(self, request: bytes, until: float, crc: int, times: _Times) -> None:
        self._request = request
        self._until = until
        self._crc = crc
        self._times = times
        self._parser = httptools.HttpResponseParser(self)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def send(self) -> None:
        """Send the next request."""
        self._seen = 0
        self._first = 0.0
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Read a part of an answer."""
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        """Note when the body began, and what it is."""
        self._first = self._first or time.perf_counter()
        self._seen = crc32(part, self._seen)

    def on_message_complete(self) -> None:
        """Check the answer, note its times and go on."""
        now = time.perf_counter()
        if self._parser.get_status_code() == 200 and self._seen == self._crc:
            self._times.whole.append(now - self._sent)
            self._times.first.append(self._first - self._sent)
        else:
            self._times.wrong += 1
        if now < self._until:
            self.send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """End; a server that hangs up before the end has given a wrong answer."""
        if error is not None or time.perf_counter() < self._until:
            self._times.wrong += 1
        self.done.set_result(None)


async def run(order: Order) -> Report:
    """Do what is ordered."""
    loop = asyncio.get_running_loop()
    times = _Times()
    until = time.perf_counter() + order.seconds
    visitors = []
    for number in range(order.callers):
        request = order.requests[number % len(order.requests)].encode("latin-1")
        visitor = Visitor(request, until, order.crc, times)
        await loop.create_connection(lambda visitor=visitor: visitor, "127.0.0.1", order.port)  # type: ignore[misc]
        visitors.append(visitor)
    started = time.perf_counter()
    for visitor in visitors:
        visitor.send()
    await asyncio.gather(*(visitor.done for visitor in visitors))
    seconds = time.perf_counter() - started
    report = Report(len(times.whole), times.wrong, seconds)
    if times.whole:
        report.p50, report.p99 = _percentiles(times.whole)
        report.first_p50, report.first_p99 = _percentiles(times.first)
    return report


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    seconds.sort()
    return seconds[len(seconds) // 2] * 1000, seconds[len(seconds) * 99 // 100] * 1000


def main() -> None:
    """Take orders until there are no more."""
    for line in sys.stdin:
        report = uvloop.run(run(Order(**json.loads(line))))
        print(json.dumps(asdict(report)), flush=True)


if __name__ == "__main__":
    main()
