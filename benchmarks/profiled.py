"""The gateway under cProfile, from the first SIGUSR1 on: what it does to start does not count.

    python -m benchmarks.profiled FILE

It listens where the settings say; once it is interrupted, the figures of the event loop's thread are in the file.
"""

import argparse
import cProfile
import signal
from types import FrameType

from toolkit import environment
from toolkit.gateway import app as gateway


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    given = parser.parse_args()
    settings = environment.read_settings()
    profile = cProfile.Profile()

    def begin(_signal: int, _frame: FrameType | None) -> None:
        profile.enable()

    signal.signal(signal.SIGUSR1, begin)
    try:
        gateway.serve(settings, settings.host, settings.gateway_port)
    finally:
        profile.disable()
        profile.dump_stats(given.file)


if __name__ == "__main__":
    main()
