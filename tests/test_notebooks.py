"""Every notebook runs from top to bottom, shows what it is for, and is committed without outputs."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.conftest import ROOT, World, environment
from tests.rows import append, row
from toolkit import keys

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIGURE = "application/vnd.plotly.v1+json"


def cells(path: Path) -> list[dict[str, Any]]:
    """Return the cells of a notebook file, as they are committed."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return found


def run(path: Path) -> list[dict[str, Any]]:
    """Run a notebook in a kernel of its own; return what its cells show, as bundles of MIME type → content."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.get("data", {"text/plain": output.get("text", "")}) for output in outputs]


@pytest.fixture
def spent(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Spend of three keys, one of them deleted, some of it drained; notebooks find this Keydesk."""
    for name, value in environment(world.desk.settings).items():
        monkeypatch.setenv(name, value)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    for name, cost in (("nightly-batch", 12_340_000_000), ("old-importer", 5_000), ("chat <b>bot</b>", 150_000)):
        key = world.key(name).key
        append(world.desk.store, [row(key, yesterday + n * timedelta(hours=1), cost=cost + n) for n in range(3)])
    with world.desk.write() as tx:
        keys.delete(tx, keys.find(tx, "old-importer").id, confirm="old-importer")
    world.desk.ledger.sync(limit=5)
    return world


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_committed_without_outputs(path: Path) -> None:
    """No output and no execution count is committed: neither spend data nor noise in the history."""
    for cell in cells(path):
        assert not cell.get("outputs"), cell["id"]
        assert cell.get("execution_count") is None, cell["id"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_has_no_logic_of_its_own(path: Path) -> None:
    """What a notebook computes must be callable, and tested, elsewhere: no functions, classes or loops in cells."""
    for cell in cells(path):
        code = cell["source"] if cell["cell_type"] == "code" else []
        assert not [line for line in code if line.lstrip().startswith(("def ", "class ", "for ", "while "))], cell["id"]


def test_spend_by_key_shows_tables_and_figures(spent: World) -> None:
    """The notebook shows each key's name and spend in a table, deleted ones marked, and draws three figures."""
    shown = run(ROOT / "notebooks" / "spend_by_key.ipynb")
    tables = "".join(bundle.get("text/html", "") for bundle in shown)
    for text in (
        "nightly-batch",
        "$37.02",
        "old-importer (deleted)",
        "$0.000015",
        "chat &lt;b&gt;",
        "gpt-test",
        "Acme",
    ):
        assert text in tables, text
    figures = [bundle[FIGURE] for bundle in shown if FIGURE in bundle]
    assert len(figures) == 3
    assert "nightly-batch" in {trace["name"] for trace in figures[2]["data"]}
    assert "$37.02 for 9 calls" in "".join(bundle.get("text/plain", "") for bundle in shown)


def test_spend_by_key_runs_on_an_empty_ledger(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first call the notebook runs through and says so."""
    for name, value in environment(world.desk.settings).items():
        monkeypatch.setenv(name, value)
    shown = run(ROOT / "notebooks" / "spend_by_key.ipynb")
    assert "$0.00 for 0 calls" in "".join(bundle.get("text/plain", "") for bundle in shown)


def test_failing_cell_fails_the_run(tmp_path: Path) -> None:
    """A notebook whose assertion does not hold is reported, not passed over."""
    notebook = json.loads((ROOT / "notebooks" / "spend_by_key.ipynb").read_text())
    first = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    first["source"] = ["assert 1 == 2, 'the parts do not sum up'"]
    (tmp_path / "wrong.ipynb").write_text(json.dumps(notebook))
    with pytest.raises(CellExecutionError, match="the parts do not sum up"):
        run(tmp_path / "wrong.ipynb")
