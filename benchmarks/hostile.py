"""What one hostile caller costs everybody else: a neighbour's longest wait and the memory left, attack by attack.

    python -m benchmarks.hostile [--seconds 5]

A neighbour calls over a kept connection, call by call, all the time: first alone, for the quiet p99.9 of this very run,
then beside each attack in turn, which a process of its own carries out over and over. The gateway is one worker on a
core of its own; neighbour and attackers share the others. Memory is the gateway's with its readers', resident, some
seconds after the attack, less what it was before it.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from benchmarks import machine
from benchmarks.rig import Rig, Target, plain_body, request_bytes
from benchmarks.tables import table
from toolkit import keys
from toolkit.credentials import new_secret

AFTER = 3.0
"""Seconds that the gateway gets to give memory back."""

MEGABYTE = 10**6


def _request(secret: str, body: bytes, path: str = "/v1/chat/completions") -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {secret}", "Content-Type: application/json"]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "Connection: close", "", ""]).encode() + body


def _names(size: int) -> bytes:
    names = b",".join(b'"%x":1' % number for number in range(size // 9))
    return b"{" + names + b',"0":1}'


def _values(size: int) -> bytes:
    return b'{"a":[' + b"[]," * (size // 3) + b"[]]}"


def _ask(port: int, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        try:
            connection.sendall(data)
            while connection.recv(65_536):
                pass
        except OSError:
            pass  # it has been told to go


def _hold_open(port: int, data: bytes) -> None:
    """Keep many connections, each with the beginning of a request."""
    kept = []
    try:
        for _ in range(400):
            kept.append(socket.create_connection(("127.0.0.1", port), timeout=5))
            kept[-1].sendall(data)
    except OSError:
        pass
    time.sleep(1)
    for connection in kept:
        connection.close()


def _drip(port: int, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        try:
            for start in range(len(data)):
                connection.sendall(data[start : start + 1])
        except OSError:
            pass


ATTACKS: dict[str, tuple[Callable[[int, bytes], None], Callable[[str], bytes]]] = {
    "a key given twice, 189 kB": (_ask, lambda secret: _request(secret, _names(189_000))),
    "a key given twice, 355 kB": (_ask, lambda secret: _request(secret, _names(355_000))),
    "32 MB of small values": (_ask, lambda secret: _request(secret, _values(33_000_000))),
    "4 MB of small values": (_ask, lambda secret: _request(secret, _values(4_000_000))),
    "28 MB in one string": (_ask, lambda secret: _request(secret, b'{"model":"' + b"x" * 28_000_000 + b'"}')),
    "a URL of 45 kB": (_ask, lambda _: b"GET " + b"/v1" * 15_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a head of 67 MB": (_ask, lambda _: b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 67_000_000),
    "100,000 headers": (_ask, lambda _: b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 100_000 + b"\r\n"),
    "400 silent connections": (_hold_open, lambda _: b"POST /v1/chat/completions HTTP/1.1\r\n"),
    "a body byte by byte": (_drip, lambda secret: _request(secret, b'{"model":"' + b"x" * 20_000)),
    "a rotated secret": (_ask, lambda _: _request(os.environ["ROTATED"], b"{}")),
    "an unknown secret": (_ask, lambda _: _request(new_secret(), b"{}")),
}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each attack")
    parser.add_argument("--attack", help=argparse.SUPPRESS)  # what the attackers' process is started with
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        _carry_out(options.attack, options.port, options.seconds)
    else:
        _measure(options.seconds)


def _carry_out(attack: str, port: int, seconds: float) -> None:
    act, made = ATTACKS[attack]
    data, end = made(os.environ["SECRET"]), time.monotonic() + seconds
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while time.monotonic() < end:
        act(port, data)


def _measure(seconds: float) -> None:
    print(machine.header("uvicorn", "httptools", "uvloop"))
    with tempfile.TemporaryDirectory(prefix="keydesk-hostile-") as folder, closing(Rig(Path(folder))) as rig:
        target = rig.keydesk("keydesk")
        rig.wait_ready()
        rotated = _rotate(target)
        neighbour = Neighbour(target)
        neighbour.call_for(1.0)
        quiet = sorted(neighbour.call_for(max(seconds, 5.0)))
        usual = quiet[len(quiet) * 999 // 1000]
        print(f"\nAlone: {len(quiet):,} calls, p50 {quiet[len(quiet) // 2] * 1e3:.1f} ms, p99.9 {usual * 1e3:.1f} ms\n")
        rows = []
        for attack in ATTACKS:
            before = _memory(target.pid)
            environment = os.environ | {"SECRET": target.secrets[0], "ROTATED": rotated}
            arguments = ["-m", "benchmarks.hostile", "--attack", attack, "--port", str(target.port)]
            attacker = subprocess.Popen(
                [sys.executable, *arguments, "--seconds", str(seconds)], env=environment, stdout=subprocess.PIPE
            )
            assert attacker.stdout is not None
            attacker.stdout.readline()
            waits = neighbour.call_for(seconds)
            attacker.wait(300)
            waits += neighbour.call_for(AFTER)
            grown = (_memory(target.pid) - before) / MEGABYTE
            rows.append([attack, f"{max(waits) * 1e3:,.1f}", f"{max(waits) / usual:.1f}", f"{grown:+,.0f}"])
        table(["attack", "neighbour's longest wait, ms", "× quiet p99.9", "memory left, MB"], rows)


def _rotate(target: Target) -> str:
    """Rotate a key; return the secret that is of no use any more."""
    assert target.desk is not None
    with target.desk.write() as tx:
        key = keys.find(tx, "key 7")
        keys.rotate(tx, target.desk.keyring, key.id, confirm=key.name)
    return target.secrets[7]


class Neighbour:
    """A caller over one kept connection, who calls again when an answer is there.

    Args:
        target: the gateway.
    """

    def __init__(self, target: Target) -> None:
        self._port = target.port
        self._data = request_bytes(plain_body(), target.secrets[1]).encode("latin-1")
        self._connection: socket.socket | None = None

    def call_for(self, seconds: float) -> list[float]:
        """Call for some seconds; return how long each call took, in seconds. One that fails is made again."""
        waits, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            started = time.perf_counter()
            while not self._call():
                self._connection = None
            waits.append(time.perf_counter() - started)
        return waits

    def _call(self) -> bool:
        try:
            if self._connection is None:
                self._connection = socket.create_connection(("127.0.0.1", self._port), timeout=60)
            self._connection.sendall(self._data)
            answer = b""
            while b"\r\n\r\n" not in answer:
                part = self._connection.recv(65_536)
                if not part:
                    return False
                answer += part
            head, _, body = answer.partition(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            missing = int(lengths[0].partition(b":")[2]) - len(body)
            while missing > 0:
                missing -= len(self._connection.recv(65_536))
        except OSError:
            return False
        return head.startswith(b"HTTP/1.1 200")


def _memory(pid: int) -> int:
    """Return the bytes that a process and its children have resident."""
    return sum(
        int(line.split()[1]) * 1024
        for each in machine.tree(pid)
        for line in Path(f"/proc/{each}/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    )


if __name__ == "__main__":
    main()
