"""`keydesk reconcile`, run in process on a real store; the bar on a real terminal."""

import json
import os
import pty
import subprocess
import sys
from datetime import timedelta

import pytest

from tests.books import Books
from tests.conftest import ROOT, Run, World, usd, variables_of
from toolkit.checks import reconcile_runs
from toolkit.core.settings import Settings
from toolkit.store.transaction import utc_now

pytestmark = pytest.mark.any_store

HOUR = timedelta(hours=1)


def test_reconcile_prints_each_check_and_records_the_run(world: World, run: Run) -> None:
    """Clean books give a line for each check, nothing on standard error, exit code 0, and a record."""
    result = run("reconcile")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert all(line.endswith(" checked  ok") for line in lines)
    assert lines[0].startswith("I4  The key store's own check of its pages finds nothing ")
    with world.workspace.read() as tx:
        last = reconcile_runs.last_run(tx)
    assert last is not None
    assert last.actor.startswith("cli:")


def test_reconcile_fails_and_names_the_violation(world: World, run: Run) -> None:
    """A violation stands below its check and makes the command fail; with --json it is a field."""
    books = Books(world)
    books.hold(world.key("app").key, usd(4), at=utc_now() - HOUR)
    result = run("reconcile")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.endswith("1 violation")]
    assert lines[at].startswith("I5  No hold outlives its gateway")
    assert lines[at + 1].startswith(
        "      Hold of 4 USD for req_hold_0001 by key app: its gateway gateway_test has ended"
    )
    findings = json.loads(run("reconcile", "--json").stdout)
    assert [finding["invariant"] for finding in findings if finding["violations"]] == ["I5"]


@pytest.mark.world
@pytest.mark.only_store("sqlite")
@pytest.mark.usefixtures("world")
def test_reconcile_shows_a_bar_on_a_terminal(settings: Settings) -> None:
    """On a terminal the bar names what is being checked and reaches its end; the results stay on standard output."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "toolkit.cli", "reconcile"],
        env=os.environ | variables_of(settings) | {"TERM": "xterm"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # the other end was closed
        pass
    os.close(ours)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    text = shown.decode()
    assert "  0%  The key store's own check of its pages" in text
    assert "100%" in text
    assert "%" not in output.decode()
