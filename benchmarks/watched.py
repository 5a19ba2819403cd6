"""The gateway with a clock in its event loop: the longest that the loop is at work without coming round.

    python -m benchmarks.watched FILE

It listens where the settings say. A timer of the loop asks every millisecond how much CPU time the loop's thread has
used since the last time; the most so far stands in the file, in seconds, as a double in the machine's order. Whoever
writes 0 there begins anew.
"""

import argparse
import asyncio
import mmap
import struct
import time
from pathlib import Path

import uvicorn

from toolkit import environment
from toolkit.gateway import app as gateway
from toolkit.gateway import server

BEAT = 0.001
"""Seconds between two looks at the clock; a stretch is told that much too long at most."""

LONGEST = struct.Struct("d")


class _Watched(uvicorn.Server):
    file: mmap.mmap

    async def main_loop(self) -> None:
        """Serve, and look at the clock meanwhile."""
        loop = asyncio.get_running_loop()
        last = time.thread_time()

        def beat() -> None:
            nonlocal last
            now = time.thread_time()
            if now - last > LONGEST.unpack_from(self.file)[0]:
                LONGEST.pack_into(self.file, 0, now - last)
            last = now
            loop.call_later(BEAT, beat)

        beat()
        await super().main_loop()


def longest(file: Path) -> float:
    """Return the longest stretch since the last time that this was asked, in seconds, and begin anew."""
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), LONGEST.size) as shared:
        (most,) = LONGEST.unpack_from(shared)
        LONGEST.pack_into(shared, 0, 0.0)
    return float(most)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    given.file.write_bytes(bytes(LONGEST.size))
    with given.file.open("r+b") as opened, mmap.mmap(opened.fileno(), LONGEST.size) as _Watched.file:
        server.Server = _Watched  # type: ignore[misc]
        settings = environment.read_settings()
        gateway.serve(settings, settings.host, settings.gateway_port)


if __name__ == "__main__":
    main()
