"""`keydesk reconcile`, `holds` and `accuracy`, run in process on a real store; the bar on a real terminal."""

import json
import os
import pty
import re
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from tests.books import Books
from tests.conftest import ROOT, Run, World, usd, variables_of
from tests.rows import append, row
from toolkit.checks import reconcile
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
        last = reconcile.last_run(tx)
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


def test_holds_lists_the_oldest_first(world: World, run: Run) -> None:
    """Each open hold has key, model, amount, age and gateway; `--orphaned` and `--org` leave some out."""
    assert run("holds").stdout == "Nothing is held: no call is under way.\n"
    books, key = Books(world), world.key("app").key
    books.gateway("gateway_lives")
    books.hold(key, usd(2), at=utc_now() - HOUR, instance="gateway_lives")
    books.hold(key, usd(3), at=utc_now() - 2 * HOUR, instance="gateway_died")
    rows = json.loads(run("holds", "--json").stdout)
    assert [(row["request_id"], row["amount_usd"], row["instance_id"], row["orphaned"]) for row in rows] == [
        ("req_hold_0002", "3", "gateway_died", True),
        ("req_hold_0001", "2", "gateway_lives", False),
    ]
    assert [row["age_seconds"] // 60 for row in rows] == [120, 60]
    (orphan,) = json.loads(run("holds", "--orphaned", "--json").stdout)
    assert (orphan["key"], orphan["org"], orphan["model"]) == ("app", "Acme", "gpt-test")
    assert re.search(r"\$3\.00  gateway_died +yes", run("holds").stdout)
    assert run("holds", "--org", "Nobody").exit_code == 1


def test_accuracy_shows_the_ratio_and_overruns(world: World, run: Run) -> None:
    """Held, charged, their ratio and overruns stand for each key and model."""
    assert run("accuracy").stdout == "No call was charged in this period.\n"
    books = Books(world)
    books.settle(world.key("app").key, usd(2), held=usd(5))
    books.settle(world.key("batch").key, usd(4), held=usd(3))
    rows = json.loads(run("accuracy", "--json").stdout)
    fields = ("key", "model", "calls", "held_usd", "cost_usd", "ratio", "overruns", "overrun_usd")
    assert [tuple(row[field] for field in fields) for row in rows] == [
        ("batch", "gpt-test", 1, "3", "4", "0.75", 1, "1"),
        ("app", "gpt-test", 1, "5", "2", "2.50", 0, "0"),
    ]
    assert [row["key"] for row in json.loads(run("accuracy", "--key", "app", "--json").stdout)] == ["app"]
    assert run("accuracy", "--to", "2026-11-01").stdout == "No call was charged in this period.\n"


def test_requests_can_be_limited_to_overruns(world: World, run: Run) -> None:
    """`--overruns` leaves the calls that cost more than was held, with both amounts."""
    assert run("requests", "--overruns").stdout == "No call has cost more than was held for it.\n"
    books, key = Books(world), world.key("app").key
    books.settle(key, usd(2))
    wanted = books.settle(key, usd(4), held=usd(3))
    (row,) = json.loads(run("requests", "--overruns", "--json").stdout)
    assert (row["request_id"], row["overrun_usd"]) == (wanted, "1")
    assert "$4.00" in run("requests", "--overruns").stdout
    assert "$1.00" in run("requests", "--overruns").stdout


def test_a_call_is_corrected(world: World, run: Run) -> None:
    """The verb asks, books the difference and says where it went; again it books nothing; the request shows both."""
    request_id = Books(world).settle(world.key("app").key, usd(3))
    asked = ("requests", "correct", request_id, "--charge", "1", "--reason", "billed less")
    assert "confirm with --yes" in run(*asked).output
    done = run(*asked, "--yes")
    assert "from $3.00 to $1.00: $2.00 went back into the wallet, whose balance is $99.00." in done.stdout
    assert "Nothing was booked" in run(*asked).stdout
    shown = json.loads(run("requests", "--id", request_id, "--json").stdout)
    assert (shown["cost_usd"], shown["corrected_usd"], shown["charge_usd"]) == ("3", "-2", "1")
    assert json.loads(run("wallet", "show", "--org", "Acme", "--json").stdout)["corrected_usd"] == "-2"
    (entry, _) = json.loads(run("wallet", "entries", "--org", "Acme", "--json").stdout)
    assert (entry["request_id"], entry["amount_usd"], entry["reason"]) == (request_id, "2", "billed less")
    assert run("requests", "correct", "req_nobody", "--charge", "0", "--reason", "x", "--yes").exit_code == 1
    assert run("requests", "correct", request_id, "--charge", "-1", "--reason", "x", "--yes").exit_code == 1


def test_requests_can_be_limited_to_doubtful_ones(world: World, run: Run) -> None:
    """`--doubtful` leaves the calls whose token counts may be wrong, and says why."""
    books, key = Books(world), world.key("app").key
    assert run("requests", "--doubtful").stdout == "No call's token counts are doubted.\n"
    books.settle(key, usd(1))
    doubtful = books.settle(key, usd(2), usage_doubt="no input tokens")
    (found,) = json.loads(run("requests", "--doubtful", "--json").stdout)
    assert found["request_id"] == doubtful
    assert "no input tokens" in run("requests", "--doubtful").stdout


def test_requests_can_be_limited_to_an_outcome(world: World, run: Run) -> None:
    """`--outcome` leaves the calls that ended like this, and takes what the log has for outcomes."""
    books, key = Books(world), world.key("app").key
    books.settle(key, usd(2))
    refused = books.refuse(key)
    found = json.loads(run("requests", "--outcome", "refused", "--json").stdout)
    assert [row["request_id"] for row in found] == [refused]
    assert run("requests", "--outcome", "REFUSED").exit_code == 2


def test_spend_and_requests_can_be_limited_to_tags(world: World, run: Run) -> None:
    """`--tag` leaves the calls that carry it, given twice those that carry both; what is no tag is refused."""
    key = world.key("app").key
    texts = ['{"env":"live","team":"search"}', '{"team":"search"}', '{"team":"ads"}', None]
    ids = append(world.workspace.store, [row(key, cost=10**n, tags=text) for n, text in enumerate(texts)])

    def read(*arguments: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(run(*arguments, "--json").stdout)
        return rows

    assert [found["calls"] for found in read("spend", "--tag", "team=search")] == [2]
    assert {found["request_id"] for found in read("requests", "--tag", "team=search")} == set(ids[:2])
    both = ["--tag", "team=search", "--tag", "env=live"]
    assert [found["cost_usd"] for found in read("spend", *both)] == ["0.000000001"]
    assert [found["request_id"] for found in read("requests", *both)] == ids[:1]
    shown = run("requests", *both).stdout
    assert "ORGANISATION  TAGS" in shown
    assert "Acme          env=live, team=search" in shown
    assert run("spend", "--tag", "team=nobody").stdout == "Nothing was spent in this period.\n"
    for command in ("spend", "requests"):
        result = run(command, "--tag", "team")
        assert result.exit_code == 1
        assert "'team' is not a tag. Write it like team=search." in result.stderr
