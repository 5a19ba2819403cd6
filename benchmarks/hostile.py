"""What one hostile caller costs everybody else: a neighbour's longest wait and the memory left, attack by attack.

    python -m benchmarks.hostile [--seconds 5] [--rounds 3] [--only TEXT]

A neighbour calls over a kept connection, call by call, all the time: alone first, for the quiet p99.9 of this very
round, then beside each attack in turn, which a process of its own carries out over and over. A wait is from the first
byte that is sent to the last that comes.

The gateway, one worker, and the processes that it starts share a core. Neighbour, provider and attacker have the
others, where the attacker gets what the two leave over: as if it were a machine elsewhere, whose own work costs nobody
anything. So the figure is what the gateway's own work for the attacker, and its kernel's, costs a neighbour when there
is no core to spare; it is not the network's share, and not what a flood from many machines costs.

What else runs on the machine makes single waits longer. So the longest wait of a round is told as the median of the
rounds, beside the longest of all; and, of the gateway's own clock, the longest that its event loop was at work without
coming round, in CPU time of its thread (`benchmarks.watched`), which nobody else prolongs. Memory is the gateway's with
its readers', resident, some seconds after the attack, less what it was before it.
"""

import argparse
import gc
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import machine, watched
from benchmarks.attacks import ATTACKS
from benchmarks.rig import Rig, Target, plain_body, request_bytes
from benchmarks.tables import table
from toolkit.admin import keys

AFTER = 3.0
"""Seconds that the gateway gets to give memory back."""

QUIET = "(nobody)"

MEGABYTE = 10**6


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each attack")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="attacks whose name has this in it")
    options = parser.parse_args()
    attacks = [attack for attack in ATTACKS if options.only in attack]
    print(machine.header("uvicorn", "httptools", "uvloop"))
    gc.disable()  # the neighbour's own pauses are none of the gateway's
    with tempfile.TemporaryDirectory(prefix="keydesk-hostile-") as folder, closing(Rig(Path(folder))) as rig:
        _, others = machine.cores()
        clock = Path(folder) / "clock"
        target = rig.keydesk("keydesk", watch=clock)
        os.sched_setaffinity(0, others)
        rig.wait_ready()
        scene = Scene(target, clock, Neighbour(target), _rotate(target), options.seconds)
        scene.neighbour.call_for(1.0)
        for _ in range(options.rounds):
            scene.play_quiet()
            for attack in attacks:
                scene.play(attack)
        _print(scene, attacks)


def _print(scene: "Scene", attacks: list[str]) -> None:
    quiet = [record.usual for record in scene.records[QUIET]]
    calls = sum(record.calls for record in scene.records[QUIET])
    print(f"\nAlone: {calls:,} calls, p99.9 of each round {', '.join(f'{usual * 1e3:.1f}' for usual in quiet)} ms\n")
    rows = []
    for attack in [QUIET, *attacks]:
        records = scene.records[attack]
        waits = [record.longest for record in records]
        ratio = median(wait / usual for wait, usual in zip(waits, quiet, strict=True))
        figures = [median(waits) * 1e3, max(waits) * 1e3, ratio, max(record.stretch for record in records) * 1e3]
        grown = median(record.grown for record in records) / MEGABYTE
        rows.append([attack, *(f"{figure:,.1f}" for figure in figures), f"{grown:+,.0f}"])
    head = ["attack", "longest wait, ms", "of all rounds", "× quiet p99.9", "loop at work, CPU ms", "memory left, MB"]
    table(head, rows)


@dataclass(frozen=True)
class Record:
    """What an attack showed in one round: times in seconds, memory in bytes.

    Args:
        calls: of the neighbour.
        longest: of its waits; usual is their p99.9.
        stretch: the longest that the gateway's loop was at work.
        grown: what gateway and readers hold more than before.
    """

    calls: int
    longest: float
    usual: float
    stretch: float
    grown: int


@dataclass
class Scene:
    """A gateway, its neighbour, and what has been seen of each attack, round by round."""

    target: Target
    clock: Path
    neighbour: "Neighbour"
    rotated: str
    seconds: float
    records: dict[str, list[Record]] = field(default_factory=dict)

    def play_quiet(self) -> None:
        """Have the neighbour alone."""
        self._record(QUIET, lambda: self.neighbour.call_for(self.seconds + AFTER))

    def play(self, attack: str) -> None:
        """Carry out an attack."""
        arguments = [
            "-m",
            "benchmarks.attacks",
            attack,
            "--port",
            str(self.target.port),
            "--seconds",
            str(self.seconds),
        ]
        secrets = ["--secret", self.target.secrets[0], "--rotated", self.rotated]
        attacker = subprocess.Popen(
            [sys.executable, *arguments, *secrets], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert attacker.stdin is not None
        assert attacker.stdout is not None
        attacker.stdout.readline()
        go = attacker.stdin

        def waits() -> list[float]:
            go.write(b"go\n")
            go.flush()
            found = self.neighbour.call_for(self.seconds)
            attacker.terminate()
            return found + self.neighbour.call_for(AFTER)

        self._record(attack, waits)
        attacker.communicate()

    def _record(self, attack: str, act: Callable[[], list[float]]) -> None:
        before = _memory(self.target.pid)
        watched.longest(self.clock)
        waits = sorted(act())
        record = Record(
            len(waits),
            waits[-1],
            waits[len(waits) * 999 // 1000],
            watched.longest(self.clock),
            _memory(self.target.pid) - before,
        )
        self.records.setdefault(attack, []).append(record)


def _rotate(target: Target) -> str:
    """Rotate a key; return the secret that is of no use any more."""
    assert target.workspace is not None
    with target.workspace.write() as tx:
        key = keys.find(tx, "key 7")
        keys.rotate(tx, target.workspace.keyring, key.id, confirm=key.name)
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
