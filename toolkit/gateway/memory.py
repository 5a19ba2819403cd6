"""The process's memory, and when the system gets it back.

Left to itself glibc puts what is large on its heap once a larger piece has been freed, where whatever small thing comes
after it keeps all of it resident, and gives the heap back from its end alone: a burst of megabytes stays for good.
"""

import asyncio
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)

_SPARE = 4 * 1024 * 1024
"""Bytes that stay at the heap's end, so that it does not shrink and grow with every call."""

_LARGE = 256 * 1024
"""Bytes from which on a piece of memory stands by itself, and goes back as soon as it is freed."""

EVERY = 60.0
"""Seconds between two looks at what lies free on the heap; each takes a millisecond."""


def free_large_pieces_at_once() -> None:
    """Have large messages leave nothing resident once they are gone. C libraries other than glibc do as they like."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_TRIM_THRESHOLD, _SPARE)


async def keep_giving_back(every: float = EVERY) -> None:
    """Give back what lies free between smaller pieces, once in `every` seconds, until cancelled."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:
        await asyncio.sleep(every)
        trim(0)
