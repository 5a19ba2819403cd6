"""What hostile callers do to a gateway, each carried out by a process of its own, over and over.

    python -m benchmarks.attacks NAME --port PORT --secret SECRET --rotated SECRET --seconds 5

What is sent is made beforehand, as by a machine elsewhere, and sent in pieces, as a network brings it. The process has
the lowest priority there is, so that it takes no processor from whoever shares one with it. It says `ready` and begins
when it is told to, by a line.
"""

import argparse
import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable

from toolkit.core.secrets import new_secret

PIECE = 65_536
"""Bytes that are sent at a time: the kernel does what one sending asks for without stopping."""

CROWD = 400
"""Connections that are held open at once."""

GUESSERS = 16
"""Connections over which secrets are guessed at once."""


def _request(secret: str, body: bytes, path: str = "/v1/chat/completions") -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {secret}", "Content-Type: application/json"]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "Connection: close", "", ""]).encode() + body


def _names(size: int) -> bytes:
    names = b",".join(b'"%x":1' % number for number in range(size // 9))
    return b"{" + names + b',"0":1}'


def _values(size: int) -> bytes:
    return b'{"a":[' + b"[]," * (size // 3) + b"[]]}"


def _ask(port: int, data: bytes) -> None:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        for start in range(0, len(data), PIECE):
            connection.sendall(data[start : start + PIECE])
        while connection.recv(PIECE):
            pass


def _hold_open(port: int, data: bytes) -> None:
    """Keep many connections, each with the beginning of a request."""
    with contextlib.ExitStack() as kept:
        with contextlib.suppress(OSError):
            for _ in range(CROWD):
                connection = kept.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
                connection.sendall(data)
        time.sleep(1)


def _drip(port: int, data: bytes) -> None:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(len(data)):
            connection.sendall(data[start : start + 1])


def _guess(port: int, data: bytes) -> None:
    """Send requests of one length, each with a secret of its own, over connections that are kept."""
    size = data.index(b"{}") + 2
    requests = [data[start : start + size] for start in range(0, len(data), size)]
    with contextlib.ExitStack() as kept:
        connections = [
            kept.enter_context(socket.create_connection(("127.0.0.1", port), timeout=120)) for _ in range(GUESSERS)
        ]
        for start in range(0, len(requests), GUESSERS):
            asked = list(zip(connections, requests[start : start + GUESSERS], strict=False))
            for connection, request in asked:
                connection.sendall(request)
            for connection, _ in asked:
                connection.recv(PIECE)


def _guesses(number: int) -> bytes:
    return b"".join(_request(new_secret(), b"{}").replace(b"Connection: close\r\n", b"") for _ in range(number))


Attack = tuple[Callable[[int, bytes], None], Callable[[str, str], bytes]]

ATTACKS: dict[str, Attack] = {
    "a key given twice, 189 kB": (_ask, lambda secret, _: _request(secret, _names(189_000))),
    "a key given twice, 355 kB": (_ask, lambda secret, _: _request(secret, _names(355_000))),
    "32 MB of small values": (_ask, lambda secret, _: _request(secret, _values(33_000_000))),
    "4 MB of small values": (_ask, lambda secret, _: _request(secret, _values(4_000_000))),
    "28 MB in one string": (_ask, lambda secret, _: _request(secret, b'{"model":"' + b"x" * 28_000_000 + b'"}')),
    "a URL of 45 kB": (_ask, lambda *_: b"GET " + b"/v1" * 15_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a head of 67 MB": (_ask, lambda *_: b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 67_000_000),
    "100,000 headers": (_ask, lambda *_: b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 100_000 + b"\r\n"),
    "400 silent connections": (_hold_open, lambda *_: b"POST /v1/chat/completions HTTP/1.1\r\n"),
    "a body byte by byte": (_drip, lambda secret, _: _request(secret, b'{"model":"' + b"x" * 20_000)),
    "a rotated secret": (_ask, lambda _, rotated: _request(rotated, b"{}")),
    "an unknown secret": (_ask, lambda *_: _request(new_secret(), b"{}")),
    "a new secret each time": (_guess, lambda *_: _guesses(8_000)),
}


def main() -> None:
    """Carry out an attack once a line has come, for some seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--secret", required=True, help="of a key that is good")
    parser.add_argument("--rotated", required=True, help="of a key that has a new one")
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    give_way()
    act, make = ATTACKS[given.name]
    data = make(given.secret, given.rotated)
    print("ready", flush=True)
    sys.stdin.readline()
    end = time.monotonic() + given.seconds
    while time.monotonic() < end:
        act(given.port, data)


def give_way() -> None:
    """Let everybody else have the processor first."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


if __name__ == "__main__":
    main()
