"""Memory goes back to the system once what took it is gone."""

import subprocess
import sys

import pytest

BURST = """
import os
from toolkit.gateway.memory import give_back

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

{start}
largest = bytearray(b"x") * (30 << 20)
del largest  # from here on glibc would put pieces of this size on its heap, if it is let
before = resident()
burst, kept = [], []
for n in range(60):
    burst.append(bytearray(b"x") * (1 << 20))
    kept.append(bytearray(b"x") * 2_000)  # what stays of a call: a line of a log, an entry of a cache
during = resident()
burst.clear()
print(before, during, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_burst_of_large_messages_leaves_nothing_resident() -> None:
    """Though what is small and came between them stays."""
    code = BURST.format(start="give_back()")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    before, during, after = map(int, said.split())
    assert during - before > 55 << 20
    assert after - before < 5 << 20
