"""`keydesk findings`, run in process on a real store."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import update

from tests.books import Books
from tests.conftest import ADMIN, Run, World, invoke, make_world, settings_for, usd
from toolkit.checks import reconcile
from toolkit.store.tables import AuditRow
from toolkit.store.transaction import utc_now
from toolkit.workspace import Workspace


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run `keydesk` on reconciled books with a key that has spent 1.90 of its limit of 2 USD; tests only read them."""
    with closing(Workspace.open(settings_for(tmp_path_factory.mktemp("audited"), ""), ADMIN, make=True)) as workspace:
        world = make_world(workspace)
        key = world.key("app", monthly_limit=usd(2)).key
        Books(world).settle(key, usd(1.9), at=utc_now() - timedelta(minutes=1))
        reconcile.run(workspace)
        yield partial(invoke, workspace.settings)


def test_findings_show_severity_evidence_and_action(run: Run) -> None:
    """Each finding is its severity, subject and check, a sentence, and what to do; then how many there are."""
    result = run("findings", "--severity", "medium")
    assert result.exit_code == 0
    first, sentence, action, empty, counts = result.stdout.splitlines()
    assert first.startswith("MEDIUM  app, Acme  key-limit-near, since 20")
    assert sentence.startswith("        95 % of the limit of $2.00 is used in ")
    assert action.endswith("`keydesk keys update app --monthly-limit 17`.")
    assert empty == ""
    assert counts.startswith("0 high, 1 medium, 0 low, ")


def test_findings_fail_only_when_told_to(run: Run) -> None:
    """--fail-on counts what is at least as grave, whether it is shown or not."""
    assert run("findings").exit_code == 0
    assert run("findings", "--fail-on", "high").exit_code == 0
    assert run("findings", "--fail-on", "medium").exit_code == 1
    assert run("findings", "--fail-on", "low", "--severity", "high").exit_code == 1
    assert run("findings", "--fail-on", "grave").exit_code == 2


def test_findings_as_json(run: Run) -> None:
    """Money is decimal USD in fields that say so, moments are ISO 8601; skipped checks and activity are there too."""
    found = json.loads(run("findings", "--json", "--severity", "medium").stdout)
    (finding,) = found["findings"]
    amounts = {"limit_usd": "2", "spent_usd": "1.9", "held_usd": "0", "set_aside_usd": "0", "suggested_usd": "17"}
    assert amounts.items() <= finding["evidence"].items()
    assert found["due_soon"] == []
    assert (finding["severity"], finding["check"], finding["org"]) == ("medium", "key-limit-near", "Acme")
    assert finding["since"].endswith("+00:00")
    assert found["skipped"] == []
    assert {row["actor"] for row in found["activity"]} == {"admin@keydesk.local"}


def test_findings_of_one_organisation(run: Run) -> None:
    """As its own people see them; the platform's checks are named as not made."""
    result = run("findings", "--org", "Acme")
    assert "key-limit-near" in result.stdout
    assert "operator-trusted-acts" not in result.stdout
    assert "\nNot checked, for only the platform may see it: failed sign-ins, " in result.stdout
    wrong = run("findings", "--org", "Nobody")
    assert (wrong.exit_code, "No organisation is named 'Nobody'" in wrong.stderr) == (1, True)


def test_activity_is_a_table(run: Run) -> None:
    """Who did what, with the number of each act."""
    lines = run("findings", "--activity").stdout.splitlines()
    assert lines[0].split() == ["ACTOR", "KIND", "ACTS", "FIRST", "(UTC)", "LAST", "(UTC)", "IN", "DETAIL"]
    assert lines[1].startswith("admin@keydesk.local  trusted ")
    assert "1 × key.create" in lines[1]


def test_findings_compare_an_exported_head(run: Run, tmp_path: Path) -> None:
    """A head that no longer stands is a grave finding; a file without heads is refused."""
    head = tmp_path / "heads.json"
    assert run("audit", "--head", str(head)).exit_code == 0
    assert run("findings", "--head", str(head), "--fail-on", "high").exit_code == 0
    heads = json.loads(head.read_text())
    head.write_text(json.dumps(heads | {"platform": "999:" + "0" * 64}))
    result = run("findings", "--head", str(head), "--fail-on", "high")
    assert result.exit_code == 1
    assert "HIGH    platform  audit-chain" in result.stdout
    head.write_text("[]")
    result = run("findings", "--head", str(head))
    assert (result.exit_code, "holds no heads" in result.stderr) == (1, True)


def test_what_others_wrote_cannot_move_the_cursor(world: World) -> None:
    """Control characters in names that the store got past the services are not sent to the terminal."""
    with world.workspace.write() as tx:
        tx.session.execute(update(AuditRow).values(actor="eve\x1b[2J"))
    found = invoke(world.workspace.settings, "findings").stdout
    assert "eve" in found
    assert "\x1b" not in found
