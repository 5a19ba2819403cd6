"""One run of a command that prints a token: without a shell, within a time and a size, and gone when it is over."""

import os
import re
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from toolkit.core.scrub import REMOVED, Scrubber
from toolkit.core.token_command import LARGEST_OUTPUT, NoToken

LONGEST_RUN = 30.0
"""Seconds that a command may take."""

LONGEST_COMPLAINT = 300
"""Characters of what a failing command says that are kept."""

_LOOKS = 0.25
"""Seconds between two looks whether it has ended: what it left behind may hold its output open."""

_MAY_BE_SECRET = re.compile(r"\S{20,}")


class CommandFailed(NoToken):
    """A command gave nothing.

    Attributes:
        complaint: what it said on its standard error, scrubbed; for the log of this machine alone.
    """

    def __init__(self, why: str, complaint: str = "") -> None:
        super().__init__(why)
        self.complaint = complaint


class _Said(NamedTuple):
    out: bytearray
    err: bytearray


def output_of(argv: Sequence[str], environ: Mapping[str, str], longest: float, stop: threading.Event) -> bytes:
    """Run a command and return what it printed. Blocks.

    Args:
        argv: the program and its arguments.
        environ: its environment.
        longest: seconds; then it and what it has started are killed.
        stop: set when the gateway ends, and the command with it.

    Raises:
        CommandFailed: it could not be run, took too long, printed too much, or ended with an error.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - the machine's own secrets file names it, and no shell reads it
            argv,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise CommandFailed(f"it cannot be run ({type(error).__name__})") from None
    said = _Said(bytearray(), bytearray())
    try:
        why = _read(process, said, time.monotonic() + longest, stop) or _ending(process)
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    if why:
        raise CommandFailed(why, _scrubbed(said))
    return bytes(said.out)


def _read(process: "subprocess.Popen[bytes]", said: _Said, until: float, stop: threading.Event) -> str | None:
    """Read all that a command says; return why it has to end, if it has to."""
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout or 0, selectors.EVENT_READ, said.out)
        waiting.register(process.stderr or 0, selectors.EVENT_READ, said.err)
        while waiting.get_map():
            left = until - time.monotonic()
            if left <= 0:
                return "it took too long"
            if stop.is_set():
                return "the gateway was stopped"
            has_ended = process.poll() is not None
            ready = waiting.select(0 if has_ended else min(left, _LOOKS))
            if has_ended and not ready:
                return None
            for key, _ in ready:
                piece = os.read(key.fd, LARGEST_OUTPUT)
                if not piece:
                    waiting.unregister(key.fileobj)
                elif key.data is said.out or len(said.err) < LARGEST_OUTPUT:
                    key.data.extend(piece)
                if len(said.out) > LARGEST_OUTPUT:
                    return f"it printed more than {LARGEST_OUTPUT:,} bytes"
    try:
        process.wait(max(until - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        return "it took too long"
    return None


def _ending(process: "subprocess.Popen[bytes]") -> str | None:
    status = process.returncode
    if not status:
        return None
    return f"it ended with status {status}" if status > 0 else f"it was ended by signal {-status}"


def _scrubbed(said: _Said) -> str:
    """Return what a command complained of, without what may be a secret: what it printed, and every long word."""
    words = bytes(said.err).decode(errors="replace")
    for printed in bytes(said.out).decode(errors="replace").split():
        if len(printed) > 3:
            words = words.replace(printed, REMOVED)
    words = Scrubber("", "").text(_MAY_BE_SECRET.sub(REMOVED, words))
    seen = "".join(letter if letter.isprintable() else " " for letter in words)
    return " ".join(seen.split())[:LONGEST_COMPLAINT]
