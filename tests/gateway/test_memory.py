"""Memory goes back to the system once what took it is gone."""

import subprocess
import sys

import pytest

BURST = """
import asyncio, os
from toolkit.gateway.memory import free_large_pieces_at_once, keep_giving_back

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def turns():
    task = asyncio.create_task(keep_giving_back(0))
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()

{start}
asyncio.run(asyncio.sleep(0))
largest = bytearray(b"x") * (30 << 20)
del largest  # from here on glibc would put pieces of this size on its heap, if it is let
before = resident()
burst, kept = [], []
for n in range({number}):
    burst.append(bytearray(b"x") * {size})
    if n % ({number} // 60) == 0:
        kept.append(bytearray(b"x") * 2_000)  # what stays of a call: a line of a log, an entry of a cache
during = resident()
burst.clear()
{end}
print(before, during, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize(
    ("number", "size", "start", "end"),
    [(60, 1 << 20, "free_large_pieces_at_once()", ""), (60_000, 1 << 10, "", "asyncio.run(turns())")],
    ids=["large", "small"],
)
def test_a_burst_leaves_nothing_resident(number: int, size: int, start: str, end: str) -> None:
    """Though what is small and came between its pieces stays."""
    code = BURST.format(number=number, size=size, start=start, end=end)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    before, during, after = map(int, said.split())
    assert during - before > 55 << 20
    assert after - before < 8 << 20
