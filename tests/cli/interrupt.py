"""Ctrl-C for what runs in the main thread of a test, since signals reach no other."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def doing(act: Callable[[], object]) -> Iterator[None]:
    """Do something in another thread while the block runs, and then press Ctrl-C; raise what went wrong in it."""
    failed: list[BaseException] = []

    def do() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread of the test
            failed.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=do)
    thread.start()
    yield
    thread.join()
    if failed:
        raise failed[0]
