"""The log of a part of `keydesk up`: over restarts, in bounded room, for one user."""

import os
import stat
from pathlib import Path

import pytest

from toolkit.cli import part_log
from toolkit.cli.part_log import PartLog


@pytest.fixture
def log(tmp_path: Path) -> PartLog:
    """A log that has not begun."""
    return PartLog(tmp_path / "part.log")


def test_a_restart_keeps_what_was_said_before(log: PartLog) -> None:
    """The crash stays to be read, and the end that is shown is that of the latest process."""
    for said in (b"first crash\n", b"second crash\n"):
        descriptor = log.begin("part")
        os.write(descriptor, said)
        os.close(descriptor)
    assert "first crash" in log.path.read_text()
    assert log.end() == f"The end of {log.path}:\n  second crash"
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_a_silent_end_is_said(log: PartLog) -> None:
    """A process that the kernel killed says nothing."""
    os.close(log.begin("part"))
    assert log.end() == f"It printed nothing to its log {log.path}."


def test_a_log_that_grows_is_put_aside_under_a_running_process(log: PartLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process goes on writing at the beginning; one older log is kept, as private as the other."""
    monkeypatch.setattr(part_log, "LARGEST", 100)
    descriptor = log.begin("part")
    for round_ in range(3):
        os.write(descriptor, f"{round_} {'x' * 200}\n".encode())
        log.rotate()
        os.write(descriptor, f"{round_} after\n".encode())
    os.close(descriptor)
    older = log.path.with_name("part.log.1")
    assert log.path.read_text() == "2 after\n"
    assert older.read_text().startswith("1 after\n2 xxx")
    assert log.end() == f"The end of {log.path}:\n  2 after"
    assert stat.S_IMODE(older.stat().st_mode) == 0o600


def test_only_the_end_of_a_long_log_is_shown(log: PartLog) -> None:
    """Fifteen lines, whatever stands before them and whatever bytes they hold."""
    descriptor = log.begin("part")
    os.write(descriptor, b"\xff\n" * 50_000 + b"".join(b"line %d\n" % number for number in range(20)))
    os.close(descriptor)
    assert log.end().splitlines()[1:] == [f"  line {number}" for number in range(5, 20)]
