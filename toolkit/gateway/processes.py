"""Processes that end with the one that started them."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # Linux: prctl(2)


def end_with(parent: int, by: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    """Return what a new process does at its beginning, so that on Linux the kernel ends it when its parent is killed.

    Args:
        parent: process id.
        by: what the process is sent then.
    """
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl  # loaded here: a fork of a process with threads had better not

    def begin() -> None:
        prctl(_PR_SET_PDEATHSIG, by)
        if os.getppid() != parent:  # killed just before
            os._exit(1)

    return begin
