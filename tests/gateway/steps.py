"""A gateway whose event loop is watched: which of its steps use much of their thread's own CPU time?

Run as `python -m tests.gateway.steps FILE ARGUMENT…`: the arguments are those of `keydesk`. Each step over `NOTED`
milliseconds is a line of the file. The loop is asyncio's own, whose steps can be seen.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

NOTED = 3.0


def main() -> None:
    """Run the command with a watched loop."""
    sys.modules["uvloop"] = None  # type: ignore[assignment]  # the server then takes asyncio's
    path, sys.argv = Path(sys.argv[1]), ["keydesk", *sys.argv[2:]]
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        begun = time.thread_time()
        run(handle)
        taken = (time.thread_time() - begun) * 1000
        if taken > NOTED:
            with path.open("a") as file:
                file.write(json.dumps([taken, repr(handle)[:400]]) + "\n")

    asyncio.Handle._run = timed  # type: ignore[method-assign, assignment]
    path.touch()
    from toolkit.cli import main as keydesk

    keydesk()


if __name__ == "__main__":
    main()
