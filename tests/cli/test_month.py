"""`keydesk month`, run in process on a real store."""

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result

from tests.books import Books
from tests.conftest import Run, World, usd
from toolkit.admin import organisations

pytestmark = pytest.mark.any_store

OCTOBER = datetime(2026, 10, 14, tzinfo=UTC)


@pytest.fixture
def spent(world: World) -> World:
    """An organisation that spent 1.25 USD in October 2026."""
    Books(world).settle(world.key().key, usd(1.25), at=OCTOBER)
    return world


def close(run: Run, *more: str) -> Result:
    """Close October."""
    return run("month", "close", "2026-10", "--org", "Acme", "--yes", *more)


@pytest.mark.usefixtures("spent")
def test_close_says_what_was_frozen(run: Run) -> None:
    """Calls, amount, hash and row; with --json as fields; who closed it is who was named."""
    result = close(run, "--as", "maria@keydesk.local")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Closed 2026-10 of Acme: calls 1, charged $1.25, balance -$1.25. SHA-256 ")
    (listed,) = json.loads(run("month", "list", "--json").stdout)
    assert (listed["month"], listed["charged_usd"]) == ("2026-10", "1.25")
    assert re.fullmatch(r"cli:\S+ as maria@keydesk\.local", listed["closed_by"])
    again = close(run)
    assert (again.exit_code, "was closed at" in again.stderr) == (1, True)


@pytest.mark.only_store("sqlite")
@pytest.mark.parametrize("options", [(), ("--yes",), ("--yes", "--json")])
def test_a_first_statement_leaves_out_earlier_months_only_when_told_to(
    spent: World, run: Run, options: tuple[str, ...]
) -> None:
    """However it is confirmed; the refusal names the month to begin with, and `month list` the next one of each."""
    Books(spent).settle(spent.key("b").key, usd(2), at=OCTOBER - timedelta(days=31))
    refused = run("month", "close", "2026-10", "--org", "Acme", *options)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "2026-09 ($2.00 charged) could then never be closed: close 2026-09 first" in refused.stderr
    listed = run("month", "list").stdout
    assert listed.endswith("To be closed next:\n  keydesk month close 2026-09 --org Acme\n")
    assert close(run, "--first").exit_code == 0
    assert "close 2026-10" not in run("month", "list").stdout


@pytest.mark.usefixtures("spent")
@pytest.mark.only_store("sqlite")
def test_close_asks_first(run: Run) -> None:
    """Without a terminal it fails and closes nothing."""
    result = run("month", "close", "2026-10", "--org", "Acme")
    assert result.exit_code == 1
    assert "confirm with --yes" in result.stderr
    assert run("month", "list").stdout.startswith("No month is closed. Close one: keydesk month close --help\n")


@pytest.mark.usefixtures("world")
@pytest.mark.only_store("sqlite")
def test_close_does_not_ask_about_what_it_refuses_anyway(run: Run) -> None:
    """A month that has not ended, or that lies before the organisation's beginning."""
    for month, reason in ((f"{datetime.now(UTC):%Y-%m}", "ends at"), ("2016-09", "The organisation began later")):
        result = run("month", "close", month, "--org", "Acme")
        assert (result.exit_code, reason in result.stderr) == (1, True), result.stderr


@pytest.mark.only_store("sqlite")
def test_close_names_the_calls_that_are_under_way(world: World, run: Run) -> None:
    """Each on a line, with the gateway that is to settle it."""
    request_id = Books(world).hold(world.key().key, usd(2), at=OCTOBER)
    result = close(run)
    assert result.exit_code == 1
    assert f"{request_id} by key app to gpt-test holds $2.00" in result.stderr
    assert "start one" in result.stderr


def test_show_prints_the_statement_and_verify_checks_it(spent: World, run: Run) -> None:
    """What was changed makes `--verify` fail; a month that is open is not found."""
    assert "2026-10 of Acme is not closed" in run("month", "show", "2026-10", "--org", "Acme").stderr
    close(run)
    shown = run("month", "show", "2026-10", "--org", "Acme").stdout
    assert "closing            -$1.25" in shown
    assert shown.splitlines()[-2].split() == ["app", "1", "0", "0", "0", "$1.25", "$0.00", "$1.25"]
    assert json.loads(run("month", "show", "2026-10", "--org", "Acme", "--json").stdout)["keys"][0]["key"] == "app"
    assert run("month", "show", "2026-10", "--org", "Acme", "--verify").stdout.startswith("The statement holds: ")
    Books(spent).execute("UPDATE statement SET figures = replace(figures, 'app', 'App')")
    changed = run("month", "show", "2026-10", "--org", "Acme", "--verify", "--json")
    assert changed.exit_code == 1
    answer = json.loads(changed.stdout)
    assert (answer["intact"], len(answer["problems"])) == (False, 2)


@pytest.mark.only_store("sqlite")
def test_a_statement_that_was_made_unreadable_does_not_hide_the_others(spent: World, run: Run, tmp_path: Path) -> None:
    """It is listed without amounts, and whatever else is asked of it is answered by what to do."""
    close(run)
    with spent.workspace.write() as tx:
        rival = organisations.add(tx, "Rival")
        rival.created_at = OCTOBER
    run("month", "close", "2026-10", "--org", "Rival", "--yes")
    Books(spent).execute("UPDATE statement SET figures = '{}' WHERE org_id = :acme", acme=spent.org_id)
    listed = run("month", "list")
    assert listed.exit_code == 0
    shown = sorted(line.split()[:4] for line in listed.stdout.splitlines() if line.startswith("2026-10"))
    assert shown == [["2026-10", "Rival", "0", "$0.00"], ["2026-10", spent.org_id, "-", "-"]]
    assert "The statement of 2026-10 was changed: it cannot be read." in listed.stderr
    assert {row["charged_usd"] for row in json.loads(run("month", "list", "--json").stdout)} == {None, "0"}
    for ask in (["show", "2026-10"], ["export", "2026-10", str(tmp_path / "a.html")]):
        result = run("month", *ask, "--org", "Acme")
        assert (result.exit_code, "it cannot be read" in result.stderr) == (1, True), result.stderr
    checked = run("month", "show", "2026-10", "--org", "Acme", "--verify")
    assert (checked.exit_code, "Its figures were changed" in checked.stdout) == (1, True)


@pytest.mark.usefixtures("spent")
@pytest.mark.only_store("sqlite")
def test_export_takes_the_place_of_a_file_whole(run: Run, tmp_path: Path) -> None:
    """It is written beside and put there at once: who reads the old file, reads all of it. A link stays a link."""
    close(run)
    old, kept, link = (tmp_path / name for name in ("old.json", "kept.json", "link.json"))
    old.write_text("old")
    kept.hardlink_to(old)
    link.symlink_to(old)
    assert run("month", "export", "2026-10", str(link), "--org", "Acme", "--force").exit_code == 0
    assert (kept.read_text(), old.read_text()[0], link.is_symlink()) == ("old", "{", True)
    assert sorted(tmp_path.glob(".*")) == []
    for path in ("/dev/full", str(tmp_path / ("x" * 300))):
        refused = run("month", "export", "2026-10", path, "--org", "Acme", "--force", "--format", "json")
        assert (refused.exit_code, refused.stderr.startswith(f"Error: {path} ")) == (1, True), refused.stderr


@pytest.mark.usefixtures("spent")
@pytest.mark.only_store("sqlite")
def test_export_writes_each_form(run: Run, tmp_path: Path) -> None:
    """The JSON file has the hash that the audit log has; a file that is there is not replaced without --force."""
    close(run)
    for form, begins in (("json", b"{"), ("csv", b"org,month,section"), ("html", b"<!doctype html>")):
        path = tmp_path / f"statement.{form}"
        assert run("month", "export", "2026-10", str(path), "--org", "Acme").exit_code == 0
        assert path.read_bytes().startswith(begins)
    (listed,) = json.loads(run("month", "list", "--json").stdout)
    assert hashlib.sha256((tmp_path / "statement.json").read_bytes()).hexdigest() == listed["sha256"]
    refused = run("month", "export", "2026-10", str(tmp_path / "statement.csv"), "--org", "Acme")
    assert "is there already" in refused.stderr
    assert run("month", "export", "2026-10", str(tmp_path / "no/where.csv"), "--org", "Acme").exit_code == 1
    assert run("month", "export", "2026-10", str(tmp_path / "statement.pdf"), "--org", "Acme").exit_code == 2
