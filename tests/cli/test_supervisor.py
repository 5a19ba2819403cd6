"""The supervisor and `keydesk up` with real processes that start fast; `test_up` has them with all of Keydesk."""

import os
import signal
from pathlib import Path

import pytest

import toolkit.cli.parts
from tests.cli.interrupt import doing
from tests.conftest import free_port, invoke, wait_until
from toolkit import environment
from toolkit.cli.parts import Part, answers
from toolkit.cli.supervisor import Supervisor
from toolkit.core.errors import Unavailable
from toolkit.core.settings import Settings

WITHIN = 60.0
"""Seconds until a process has started, on a machine that does much else."""


def demo(name: str, *, calls: bool = False) -> Part:
    """Return a part that runs a demo upstream on a port of its own."""
    port = free_port()
    return Part(name, ("demo", "--port", str(port)), "127.0.0.1", port, "/demo/calls", "PORT", calls=calls)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return environment.read_settings({"KEYDESK_DATA_DIR": str(tmp_path / "data")})


def pid_of(settings: Settings, name: str) -> int:
    """Return the process that a part's log names last."""
    said = (settings.logs_dir / f"{name}.log").read_text()
    return int(said.rpartition("Started server process [")[2].partition("]")[0])


def test_a_part_that_is_killed_is_started_again_and_the_others_go_on(settings: Settings) -> None:
    """Each answers before `start` returns; who ends is named with its code; Ctrl-C ends them all."""
    first, second = demo("first", calls=True), demo("second")
    ready: list[str] = []
    told: list[str] = []

    def kill() -> None:
        os.kill(pid_of(settings, "second"), signal.SIGKILL)
        wait_until(lambda: "The second answers again." in told, "the second one's return", WITHIN)

    with Supervisor(settings, [first, second], {}) as running:
        assert running.start(ready.append, told.append)
        assert sorted(ready) == ["first", "second"]
        before = pid_of(settings, "first"), pid_of(settings, "second")
        with doing(kill):
            running.watch()
        assert told[0].startswith("The second ended by itself (exit code -9), and is started again in 1 s.")
        assert pid_of(settings, "first") == before[0]
        assert pid_of(settings, "second") != before[1]
    assert not answers(first)
    assert not answers(second)


def test_a_gateway_that_ends_before_it_answers_ends_it_all(settings: Settings) -> None:
    """What it said stands in the message, and nothing else goes on."""
    other = demo("other")
    broken = Part("gateway", ("demo", "--port", "none"), "127.0.0.1", free_port(), "/", "PORT", calls=True)
    with Supervisor(settings, [other, broken], {}) as running, pytest.raises(Unavailable) as ended:
        running.start(lambda _name: None, lambda _line: None)
    assert "The gateway ended by itself (exit code 2)" in str(ended.value)
    assert "'none' is not a valid integer" in str(ended.value)
    assert not answers(other)


def test_ctrl_c_ends_a_start(settings: Settings) -> None:
    """Whoever presses it while processes start need not wait until they answer."""
    silent = Part("silent", ("demo", "--port", str(free_port())), "127.0.0.1", free_port(), "/", "PORT")
    with Supervisor(settings, [silent], {}) as running, doing(lambda: None):
        assert not running.start(lambda _name: None, lambda _line: None)


def test_up_prepares_greets_watches_and_stops(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start makes data and an admin, and leaves how to get in. Here without gateway and dashboard."""
    light = demo("demo upstream", calls=True)
    monkeypatch.setattr(toolkit.cli.parts, "parts", lambda _settings: [light])
    monkeypatch.setenv("KEYDESK_TEST_DEMO_CALLS", "20")

    def greeted() -> bool:
        return answers(light) and settings.first_start_file.exists()

    with doing(lambda: wait_until(greeted, "the greeting", WITHIN)):
        first = invoke(settings, "up")
    assert first.exit_code == 0, first.output
    assert "Demo upstream   ready" in first.stdout
    assert "calls of 90 days" in first.stdout
    assert "Sign-in and a first call are in" in first.stdout
    assert first.stdout.endswith("Stopping …\nStopped.\n")
    assert "Password" in settings.first_start_file.read_text()
