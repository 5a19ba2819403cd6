"""`keydesk invoice`, run in process on a real store."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.conftest import Run, World, usd
from tests.rows import append, row

pytestmark = pytest.mark.any_store

OCTOBER = datetime(2026, 10, 14, tzinfo=UTC)


def test_an_invoice_is_reconciled(world: World, run: Run, tmp_path: Path) -> None:
    """Ours, theirs and the gap by model; then the causes, and the calls that stand for them."""
    priced = {"usage_source": "reported", "output_tokens": 100, "output_price": usd(10), "cost": 1_000_000}
    calls = [
        row(world.key().key, OCTOBER, upstream="test-openai", response_id="resp_1", **priced),
        row(world.key("b").key, OCTOBER + timedelta(days=1), upstream="test-openai", response_id="resp_2", **priced),
    ]
    append(world.workspace.store, calls)
    path = tmp_path / "invoice.csv"
    path.write_text("what,answer,output_tokens,net\ngpt,resp_1,100,0.001000\ngpt,resp_3,50,0.000500\n")
    columns = ("--column", "model=what", "--column", "response_id=answer", "--column", "amount=net")
    options = (*columns, "--model", "gpt=gpt-test", "--upstream", "test-openai", "--month", "2026-10")
    result = run("invoice", "reconcile", str(path), *options)
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[1] == "gpt-test 2 2 $0.002000 $0.001500 -$0.000500"
    assert "calls missing from us gpt-test $0.000500" in lines
    assert "calls missing from them gpt-test -$0.001000" in lines
    assert "line 3: resp_3, 0.0005 USD" in lines
    total = json.loads(run("invoice", "reconcile", str(path), *options, "--json").stdout)["total"]
    assert (total["ours_usd"], total["theirs_usd"], total["gap_usd"]) == ("0.002", "0.0015", "-0.0005")
    assert total["causes_usd"] == {"calls missing from us": "0.0005", "calls missing from them": "-0.001"}


@pytest.mark.usefixtures("world")
@pytest.mark.only_store("sqlite")
def test_what_a_provider_writes_cannot_move_the_cursor(run: Run, tmp_path: Path) -> None:
    """Ids and names of models are shown without the control characters that a terminal would obey."""
    path = tmp_path / "invoice.csv"
    path.write_text("model,id,amount\nm\x1b[2J,r\x1b]0;x\x07\x9b1m,1\n")
    result = run("invoice", "reconcile", str(path), "--upstream", "test-openai", "--month", "2026-10")
    assert result.exit_code == 0, result.output
    assert "line 2: r ]0;x  1m, 1 USD" in result.stdout
    assert all(character.isprintable() or character == "\n" for character in result.output)


@pytest.mark.usefixtures("world")
@pytest.mark.only_store("sqlite")
def test_what_is_wrong_with_an_invoice_is_said(run: Run, tmp_path: Path) -> None:
    """Line and column, without a traceback."""
    path = tmp_path / "invoice.csv"
    ask = ("invoice", "reconcile", str(path), "--upstream", "test-openai", "--month", "2026-10")
    for text, message in (("model,cost\nm,abc\n", "Line 2, column 'cost': 'abc'"), ("a,b\n1,2\n", "known as model")):
        path.write_text(text)
        result = run(*ask)
        assert (result.exit_code, message in result.stderr) == (1, True), result.stderr
    path.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as text" in run(*ask).stderr
    assert run(*ask, "--column", "amount").exit_code == 2
