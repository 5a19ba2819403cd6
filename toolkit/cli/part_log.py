"""The log of one process of `keydesk up`: what it printed, over its restarts.

A process holds its log open for as long as it lives, so a log that has grown is copied and emptied in place: it
goes on at the beginning, since it appends. What it prints in the instant between the two is lost.
"""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from toolkit.store import file_permissions

LARGEST = 10 * 1024 * 1024
"""Bytes of a log; the one before is kept beside it."""

LINES = 15
_TAIL = 16_384


class PartLog:
    """A log that is appended to.

    Args:
        path: the file; the older one is beside it, with `.1` at its end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._began = 0

    def begin(self, name: str) -> int:
        """Return a descriptor for a process that starts now; the caller closes its own.

        Args:
            name: of the process, for the line that says that it started.
        """
        self.rotate()
        descriptor = file_permissions.append_to(self.path)
        os.write(descriptor, f"-- {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: the {name} starts\n".encode())
        self._began = self.path.stat().st_size
        return descriptor

    def rotate(self) -> None:
        """Put the log aside if it is large."""
        if not self.path.exists() or self.path.stat().st_size <= LARGEST:
            return
        older = self.path.with_name(f"{self.path.name}.1")
        os.close(file_permissions.append_to(older))  # private before it holds anything
        shutil.copyfile(self.path, older)
        os.truncate(self.path, 0)
        self._began = 0

    def end(self) -> str:
        """Return the last lines of what the process printed since it started, for people."""
        with self.path.open("rb") as file:
            file.seek(max(self._began, self.path.stat().st_size - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()[-LINES:]
        if not lines:
            return f"It printed nothing to its log {self.path}."
        return f"The end of {self.path}:\n" + "\n".join(f"  {line}" for line in lines)
