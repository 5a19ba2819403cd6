"""The process's memory, and when the system gets it back."""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)

_SPARE = 4 * 1024 * 1024
"""Bytes that stay at the heap's end, so that it does not shrink and grow with every call."""

_LARGE = 256 * 1024
"""Bytes from which on a piece of memory stands by itself, and goes back as soon as it is freed."""


def give_back() -> None:
    """Have what large messages took given back to the system when they are gone; for a process that stays.

    Left to itself glibc puts what is large on its heap once a larger piece has been freed, where whatever small thing
    comes after it keeps all of it resident: a burst of megabytes would stay for good. Other C libraries do their own.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_TRIM_THRESHOLD, _SPARE)
