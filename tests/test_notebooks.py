"""Every notebook runs from top to bottom, on demo data and on nothing, and is committed without outputs."""

import ast
import asyncio
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.conftest import ADMIN, ROOT, settings_for, variables_of
from toolkit.admin import keys, organisations
from toolkit.admin.upstreams import list_upstreams
from toolkit.core.money import show_usd
from toolkit.core.period import Period, billing_month
from toolkit.core.settings import Settings
from toolkit.demo import data
from toolkit.reports import attribution
from toolkit.reports.attribution import preceding
from toolkit.statements import month_close
from toolkit.workspace import Workspace

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIGURES = {
    "key_audit": 3,
    "limits_and_forecast": 5,
    "month_close": 1,
    "spend_attribution": 8,
    "wallet_reconciliation": 3,
}
FIGURE = "application/vnd.plotly.v1+json"
CALLS = 4_000
NAMED = "code <b>review</b>"
"""What a key of the demo data is called here: a name is text, whatever is in it."""

Bundles = list[dict[str, Any]]
"""What the cells of a notebook showed: MIME type → content; text that was printed is plain text."""

Run = Callable[..., Bundles]

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path) -> list[dict[str, Any]]:
    """Return the cells of a notebook file, as they are committed."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return found


def is_parameters(cell: dict[str, Any]) -> bool:
    """Whether a cell is tagged as the one that an analyst, or a program, may change."""
    return "parameters" in cell["metadata"].get("tags", [])


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs a notebook on a Keydesk, with parameters changed; gives what it shows.

    All run in one kernel, emptied between them, since libraries take it seconds to import.
    """
    kernel = AsyncKernelManager()

    def run(path: Path, settings: Settings, **parameters: object) -> Bundles:
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        for cell in filter(is_parameters, notebook.cells):
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
        code = f"%reset -f\nimport os\nos.environ.update({variables_of(settings)!r})"
        notebook.cells.insert(0, nbformat.v4.new_code_cell(code))  # type: ignore[no-untyped-call]
        client = NotebookClient(notebook, km=kernel, timeout=100, resources={"metadata": {"path": str(ROOT)}})
        try:
            client.execute()
        finally:
            if client.kc is not None:
                client.kc.stop_channels()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        assert not [output["text"] for output in outputs if output.get("name") == "stderr"]
        return [output.get("data", {"text/plain": output.get("text", "")}) for output in outputs]

    yield run

    async def stop() -> None:
        await kernel.shutdown_kernel(now=True)

    asyncio.run(stop())


def printed(shown: Bundles) -> str:
    """Return all plain text of a notebook."""
    return "".join(bundle.get("text/plain", "") for bundle in shown)


def tables(shown: Bundles) -> str:
    """Return all HTML of a notebook."""
    return "".join(bundle.get("text/html", "") for bundle in shown)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A Keydesk with demo data, most of it drained; nobody may change it."""
    settings = settings_for(tmp_path_factory.mktemp("notebooks") / "data", "")
    workspace = Workspace.open(settings, ADMIN, make=True)
    data.load(workspace, calls=CALLS)
    with workspace.write() as tx:
        keys.update(tx, keys.find(tx, "code-review").id, name=NAMED)
    workspace.ledger.sync(limit=CALLS // 2)
    workspace.close()
    return settings


@pytest.fixture(scope="module")
def shown(demo: Settings, run: Run) -> Callable[[str], Bundles]:
    """Returns what a notebook shows on the demo data; each is run once."""
    seen: dict[str, Bundles] = {}

    def of(name: str) -> Bundles:
        if name not in seen:
            seen[name] = run(ROOT / "notebooks" / f"{name}.ipynb", demo)
        return seen[name]

    return of


@pytest.fixture
def reading(demo: Settings) -> Iterator[Workspace]:
    """The demo data, to be asked."""
    workspace = Workspace.open(demo, ADMIN, write=False)
    yield workspace
    workspace.close()


def last_month(workspace: Workspace) -> str:
    """Return the month before this one."""
    with workspace.read() as tx:
        start = preceding(Period.month(billing_month(tx.now))).start
    assert start is not None
    return billing_month(start)


def dearest(rows: list[dict[str, Any]], name: str) -> tuple[Any, int]:
    """Return the key, model or day that cost most, and what it cost."""
    costs: Counter[Any] = Counter()
    for row in rows:
        costs[row[name]] += row["cost"]
    return costs.most_common(1)[0]


@every_notebook
def test_notebook_is_committed_without_outputs(path: Path) -> None:
    """No output and no execution count is committed: neither spend data nor noise in the history."""
    for cell in cells(path):
        assert not cell.get("outputs"), cell["id"]
        assert cell.get("execution_count") is None, cell["id"]


@every_notebook
def test_notebook_has_no_logic_of_its_own(path: Path) -> None:
    """What a notebook computes must be callable, and tested, elsewhere: no functions, classes or loops in cells."""
    logic = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda | ast.For | ast.While | ast.Try
    for cell in cells(path):
        code = "".join(cell["source"]) if cell["cell_type"] == "code" else ""
        assert not [node for node in ast.walk(ast.parse(code)) if isinstance(node, logic)], cell["id"]


@every_notebook
def test_notebook_begins_by_opening_and_ends_by_asserting(path: Path) -> None:
    """Each one opens Keydesk in the same line, has one cell of parameters, and proves that its parts make the whole."""
    code = ["".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code"]
    assert code[0] == "import toolkit\n\nworkspace = toolkit.open()"
    assert sum(map(is_parameters, cells(path))) == 1
    assert re.search("^assert ", code[-1], re.MULTILINE)


def test_every_notebook_is_known_here() -> None:
    """A new notebook is run too, with its figures counted; and the page of notebooks names it."""
    assert [path.stem for path in NOTEBOOKS] == sorted(FIGURES)
    page = (ROOT / "docs/notebooks.md").read_text()
    assert not [path.name for path in NOTEBOOKS if path.name not in page]


@pytest.mark.world
@every_notebook
def test_notebook_draws_its_figures_on_demo_data(path: Path, shown: Callable[[str], Bundles]) -> None:
    """Each notebook runs through on demo data, each figure has something drawn in it, and names are no markup."""
    figures = [bundle[FIGURE] for bundle in shown(path.stem) if FIGURE in bundle]
    assert len(figures) == FIGURES[path.stem]
    assert all(any(len(trace.get("x") or []) for trace in figure["data"]) for figure in figures)
    assert NAMED not in tables(shown(path.stem))


@pytest.mark.world
@every_notebook
def test_notebook_says_what_to_do_when_there_is_nothing(path: Path, workspace: Workspace, run: Run) -> None:
    """Before the first organisation, key and call each notebook runs through, and names the next step."""
    assert "`make up` starts" in printed(run(path, workspace.settings)).replace("\n", " ")


@pytest.mark.world
def test_spend_attribution_names_the_costliest_key(reading: Workspace, shown: Callable[[str], Bundles]) -> None:
    """The first bar and the table have the key that cost most last month, with what it cost; in all, what all did."""
    rows = reading.ledger.sql("SELECT key, cost FROM usage WHERE month = ?", [last_month(reading)]).to_pylist()
    name, cost = dearest(rows, "key")
    found = shown("spend_attribution")
    bars = next(bundle[FIGURE] for bundle in found if FIGURE in bundle)["data"][0]
    assert bars["y"][-1] == name.replace("<", "&lt;")
    assert bars["text"][-1] == show_usd(cost)
    assert name.replace("<", "&lt;").replace(">", "&gt;") in tables(found)
    assert f"all organisations: {show_usd(sum(row['cost'] for row in rows))} for " in printed(found)


@pytest.mark.world
def test_spend_attribution_says_where_the_costliest_keys_money_went(
    reading: Workspace, shown: Callable[[str], Bundles]
) -> None:
    """Its dearest model and day stand in a sentence, with what each cost; and how all spend changed."""
    month = last_month(reading)
    rows = reading.ledger.sql("SELECT key, model, day, cost FROM usage WHERE month = ?", [month]).to_pylist()
    key, _ = dearest(rows, "key")
    mine = [row for row in rows if row["key"] == key]
    model, of_model = dearest(mine, "model")
    day, of_day = dearest(mine, "day")
    said = printed(shown("spend_attribution"))
    assert f"{key}: {show_usd(of_model)} on {model}" in said
    assert f"; dearest days {day:%d %b} {show_usd(of_day)}" in said
    assert f" → {show_usd(sum(row['cost'] for row in rows))}: " in said
    period = Period.month(month)
    caveats = attribution.caveats(reading.ledger, preceding(period), period)
    assert "\n".join(caveats) in said


@pytest.mark.world
def test_spend_attribution_says_whose_spend_is_untagged(reading: Workspace, shown: Callable[[str], Bundles]) -> None:
    """Each team has a bar, and so has what no team is tagged with; that is said as a share, and split into its keys."""
    spent = reading.ledger.sql(
        "SELECT key, sum(cost) AS cost, sum(cost) FILTER (tags IS NULL) AS untagged FROM usage WHERE month = ?"
        " GROUP BY key ORDER BY untagged DESC NULLS LAST",
        [last_month(reading)],
    ).to_pylist()
    whole, untagged = (sum(row[name] or 0 for row in spent) for name in ("cost", "untagged"))
    found = shown("spend_attribution")
    assert f"{show_usd(untagged)} of {show_usd(whole)}, {untagged / whole:.0%}, has no tag “team”." in printed(found)
    drawn = [bundle[FIGURE]["data"][0] for bundle in found if FIGURE in bundle]
    (teams,) = (dict(zip(bars["y"], bars["text"], strict=True)) for bars in drawn if "(none)" in bars["y"])
    assert teams["(none)"] == show_usd(untagged)
    assert {"platform", "clinic", "newsroom", "search"} < set(teams)
    top = [spent[0]["key"], show_usd(spent[0]["untagged"])]
    assert top in [[bars["y"][-1], bars["text"][-1]] for bars in drawn if "text" in bars]


@pytest.mark.world
def test_wallet_reconciliation_says_that_the_books_balance(shown: Callable[[str], Bundles]) -> None:
    """On demo data every check passes, and the amounts paid in are those of the demo data."""
    assert "The books balance." in printed(shown("wallet_reconciliation"))
    assert "$2,520.00 paid in − " in printed(shown("wallet_reconciliation"))  # three times 500 + 300 + 40


def test_key_audit_finds_what_is_wrong_with_the_demo_keys(shown: Callable[[str], Bundles]) -> None:
    """The key without a limit, the unused one and the one whose old secret is still used are named, with a command."""
    found = tables(shown("key_audit"))
    for text in (
        "keydesk keys update agent-sandbox --monthly-limit",
        "spare-key",
        "was refused 37 times since",
        "at chat/completions (openai)",
        "keydesk requests --key headline-writer --outcome refused",
    ):
        assert text in found, text
    said = printed(shown("key_audit"))
    assert re.search(r"11 more secrets will be 90 days old within 14 days\. .*translation \(\d{4}-\d\d-\d\d\)", said)
    assert "`keydesk audit --head FILE`" in said


@pytest.mark.world
def test_limits_and_forecast_foretells_this_month(shown: Callable[[str], Bundles]) -> None:
    """The first line says what this month has cost and will cost, and the run-away key is what was unusual."""
    said = printed(shown("limits_and_forecast"))
    assert re.search(r"has cost \$[\d.]+ so far, and will cost about \$[\d.]+\.", said)
    assert re.search(r"Four times in five it ends between \$[\d.]+ and \$[\d.]+\.", said)
    assert "Day by day: agent-sandbox" in said
    assert "all together" in tables(shown("limits_and_forecast"))


@pytest.mark.world
def test_limits_and_forecast_tries_the_limit_that_the_audit_proposes(
    demo: Settings, shown: Callable[[str], Bundles], run: Run
) -> None:
    """The two notebooks agree on the limit of a key that has none; what it would have refused is said in words."""
    said = printed(run(ROOT / "notebooks" / "limits_and_forecast.ipynb", demo, trial_key="agent-sandbox"))
    tried = re.search(r"a limit of \$([\d.]+) would have refused \w+ of [\d,]+ calls of agent-sandbox", said)
    proposed = re.search(r"agent-sandbox --monthly-limit ([\d.]+)`", tables(shown("key_audit")))
    assert tried
    assert proposed
    assert float(proposed[1]) == float(tried[1])


@pytest.mark.world
def test_limits_and_forecast_tries_any_limit_on_any_key(demo: Settings, run: Run) -> None:
    """A key and a limit may be given, or a limit for all keys."""
    path = ROOT / "notebooks" / "limits_and_forecast.ipynb"
    one = printed(run(path, demo, trial_key="letter-drafts", trial_limit="1"))
    assert re.search(r"a limit of \$1\.00 would have refused .* calls of letter-drafts, ", one)
    every = printed(run(path, demo, trial_key="all", trial_limit="1"))
    assert re.search(r"a limit of \$1\.00 a key would have refused [\d,]+ of ", every)


@pytest.mark.world
def test_notebook_of_one_organisation_shows_no_other(demo: Settings, run: Run) -> None:
    """With an organisation named, nothing of another one is shown, and what only the platform may see is skipped."""
    found = run(ROOT / "notebooks" / "key_audit.ipynb", demo, org="Lumen Health")
    everything = json.dumps(found)
    assert "letter-drafts" in everything
    assert not [
        other for other in ("agent-sandbox", "headline-writer", "Northwind", "Paper Street") if other in everything
    ]
    assert "Not checked, for only the platform may see it" in printed(found)


@pytest.mark.world
def test_month_close_closes_nothing_by_itself(reading: Workspace, shown: Callable[[str], Bundles]) -> None:
    """Without its parameter the notebook shows drafts of the oldest month and how to close it; no statement is made."""
    with reading.read() as tx:
        oldest = month_close.due(tx)[0].month
        assert month_close.list_all(tx) == []
    said = printed(shown("month_close"))
    assert f"Lumen Health: {oldest} can be closed: keydesk month close {oldest} --org 'Lumen Health'" in said
    assert f"Nothing was closed (`close` is False). {oldest} was closed for 0 of 3 before, and is for 0 now." in said
    assert tables(shown("month_close")).count("Draft: this month is not closed") == 3


@pytest.mark.world
def test_month_close_closes_and_compares_when_told_to(demo: Settings, tmp_path: Path, run: Run) -> None:
    """With `close = True` each organisation's oldest month is frozen and verified; an invoice's gap is split."""
    shutil.copytree(demo.data_dir, tmp_path / "data")
    settings = settings_for(tmp_path / "data", "")
    invoice = tmp_path / "invoice.csv"
    invoice.write_text("model,net\nno-such-model,12.50\n")
    workspace = Workspace.open(settings, ADMIN, make=True)
    with workspace.read() as tx:
        upstream = list_upstreams(tx)[0].name
        oldest = month_close.due(tx)[0].month
    asked = {"invoice": str(invoice), "upstream": upstream, "columns": {"amount": "net"}}
    found = run(ROOT / "notebooks" / "month_close.ipynb", settings, close=True, **asked)
    assert f"Closed {oldest} of 3 organisations. {oldest} was closed for 0 of 3 before, and is for 3 now." in printed(
        found
    )
    assert "Draft: this month is not closed" not in tables(found)
    assert "calls missing from us" in tables(found)
    assert "$12.50" in tables(found)
    assert "nan" not in re.findall(r">(\w+)<", tables(found))
    with workspace.read() as tx:
        closed = month_close.list_all(tx)
        assert {statement.month for statement in closed} == {oldest}
        assert len(closed) == 3
        assert [problem for statement in closed for problem in month_close.verify(tx, statement)] == []
    assert all(statement.sha256 in tables(found) for statement in closed)
    again = run(ROOT / "notebooks" / "month_close.ipynb", settings, month=oldest, org="Lumen Health", **asked)
    assert "Nothing is compared. A provider bills all organisations together" in printed(again)
    (own,) = [statement.sha256 for statement in closed if "Lumen Health" in statement.figures]
    assert f"SHA-256 {own}" in printed(again)
    workspace.close()


@pytest.mark.world
def test_month_close_goes_on_when_one_organisation_is_behind(demo: Settings, tmp_path: Path, run: Run) -> None:
    """It says which month that one has to close first, has its line without figures, and closes the others."""
    shutil.copytree(demo.data_dir, tmp_path / "data")
    settings = settings_for(tmp_path / "data", "")
    workspace = Workspace.open(settings, ADMIN, make=True)
    last = last_month(workspace)
    before = preceding(Period.month(last))
    long_before = preceding(before).start
    assert before.start is not None
    assert long_before is not None
    with workspace.write() as tx:
        behind = organisations.find(tx, "Lumen Health")
        behind.created_at = long_before
        others = [org.id for org in organisations.list_all(tx) if org.id != behind.id]
    month_close.close(workspace, "Lumen Health", billing_month(long_before), first=True)
    for org_id in others:
        month_close.close(workspace, org_id, billing_month(before.start), first=True)
    found = run(ROOT / "notebooks" / "month_close.ipynb", settings, month=last, close=True)
    reason = f"Months are closed one after the other: close {billing_month(before.start)} first."
    assert f"Lumen Health: {last} cannot be closed. {reason}" in printed(found)
    assert reason in tables(found)
    assert "of 2 organisations." in printed(found)
    assert " by 2 statements and by the ledger." in printed(found)
    with workspace.read() as tx:
        assert len([statement for statement in month_close.list_all(tx) if statement.month == last]) == 2
    workspace.close()


@pytest.mark.world
def test_month_close_leaves_out_no_earlier_month(demo: Settings, tmp_path: Path, run: Run) -> None:
    """Told to close the last month where none is closed yet, it closes nothing and says which one to begin with."""
    shutil.copytree(demo.data_dir, tmp_path / "data")
    settings = settings_for(tmp_path / "data", "")
    workspace = Workspace.open(settings, ADMIN, make=True)
    with workspace.read() as tx:
        oldest = month_close.due(tx)[0].month
    found = printed(run(ROOT / "notebooks" / "month_close.ipynb", settings, month=last_month(workspace), close=True))
    assert f"cannot be closed. {last_month(workspace)} would be the first statement. {oldest} ($" in found
    assert "Nothing was closed." in found
    with workspace.read() as tx:
        assert month_close.list_all(tx) == []
    workspace.close()


def test_a_report_takes_parameters_and_leads_to_other_pages() -> None:
    """Parameters go into the notebooks that have them, as text; links lead from the folder of the pages."""
    reports = runpy.run_path(str(ROOT / "scripts/reports"))
    given = {"org": "O'Neil", "month": "2026-09"}
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        (cell,) = filter(is_parameters, reports["with_parameters"](notebook, given).cells)
        values: dict[str, Any] = {}
        exec(cell.source, values)
        assert values["org"] == "O'Neil", path.stem
        assert values.get("month", "2026-09") == "2026-09", path.stem
    text = "[a](limits_and_forecast.ipynb), [b](../docs/audits.md#x), [c](https://example.org)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])  # type: ignore[no-untyped-call]
    linked = reports["with_links"](notebook).cells[0].source
    assert linked == "[a](limits_and_forecast.html), [b](../../docs/audits.md#x), [c](https://example.org)"


@pytest.mark.parametrize(("option", "problem"), [("--org=Nobody", "'Nobody'"), ("--month=2026-9", "'2026-9'")])
def test_a_report_of_what_is_not_there_fails_at_once(demo: Settings, option: str, problem: str) -> None:
    """A wrong name or month is told in one line, before a notebook has run."""
    command = [sys.executable, str(ROOT / "scripts/reports"), option]
    env = os.environ | variables_of(demo)
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("Error: ")
    assert problem in ended.stderr
    assert ended.stderr.count("\n") == 1


@every_notebook
def test_links_of_a_notebook_lead_somewhere(path: Path) -> None:
    """Each link is to another notebook, or to a page of the documentation."""
    text = "".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown")
    targets = re.findall(r"\]\(([^)#]+)", text)
    assert not [target for target in targets if not (path.parent / target).exists()]


def test_a_refusal_is_a_sentence(demo: Settings, run: Run) -> None:
    """Who names an organisation that is not there reads so, and not where in the code it was found."""
    with pytest.raises(CellExecutionError) as told:
        run(ROOT / "notebooks" / "spend_attribution.ipynb", demo, org="Nobody")
    assert "NotFound: " in told.value.traceback
    assert "Nobody" in told.value.traceback
    assert "find_org" not in told.value.traceback


@pytest.mark.world
def test_books_that_do_not_balance_fail_the_run(demo: Settings, tmp_path: Path, run: Run) -> None:
    """A wallet that is off by one nano-USD is no reconciled wallet: the last cell's assertion fails, and so the run."""
    shutil.copytree(demo.data_dir, tmp_path / "data")
    settings = settings_for(tmp_path / "data", "")
    workspace = Workspace.open(settings, ADMIN, make=True)
    with workspace.write() as tx:
        organisations.find(tx, "Lumen Health").settled += 1
    workspace.close()
    with pytest.raises(CellExecutionError, match="Not equal"):
        run(ROOT / "notebooks" / "wallet_reconciliation.ipynb", settings)
