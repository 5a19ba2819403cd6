"""What the documents promise is what the code has."""

import ast
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT
from toolkit.core.errors import STATUS, RefusalType

GATEWAY = (ROOT / "docs/gateway.md").read_text()
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
DOCUMENTS = [*PAGES, ROOT / "CHANGELOG.md"]

TOOLKIT = ROOT / "toolkit"
PACKAGES = {path.parent.name: path.parent for path in sorted(TOOLKIT.glob("*/__init__.py"))}
TOP_LEVEL = {*PACKAGES, *(path.stem for path in TOOLKIT.glob("*.py") if path.stem != "__init__")}

FOLDERS = "toolkit|tests|docs|notebooks|benchmarks|scripts"
"""Folders of which a path that stands in a document is read as one of a file of ours."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def missing_files(text: str) -> list[str]:
    """Return the paths in a text that lead to no file of the project."""
    named = re.findall(rf"(?<![\w/.:-])((?:{FOLDERS})/[\w./-]*\w)", text)
    return [path for path in named if not (ROOT / path).exists()]


def missing_names(text: str) -> list[str]:
    """Return the modules, functions and classes that a text names and that are not there.

    Named is what stands behind `toolkit.`, and what in backticks begins with the name of a package: `billing.rules`.
    """
    named = re.findall(r"\btoolkit((?:\.[a-zA-Z]\w*)+)", text)
    named += [
        f".{name}" for name in re.findall(r"`([a-z_]+(?:\.[a-zA-Z]\w*)+)", text) if name.split(".")[0] in PACKAGES
    ]
    return [name for name in named if not name.endswith((".py", ".md")) and not exists(f"toolkit{name}")]


def exists(name: str) -> bool:
    """Whether a dotted name leads to a module, or to something in one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("refusal", RefusalType)
def test_each_refusal_is_documented_with_its_status(refusal: RefusalType) -> None:
    """docs/gateway.md has a row for each refusal type, with the status it is answered with."""
    assert f"| {STATUS[refusal]} | `{refusal}` |" in GATEWAY


@each_document
def test_each_link_to_a_file_leads_somewhere(document: Path) -> None:
    """No document links to a file that is not there, or to a heading that the file does not have."""
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text()):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@each_page
def test_each_file_and_name_on_a_page_is_there(page: Path) -> None:
    """A page that names a file, a module or a function is changed with it. The changelog tells of the past too."""
    text = page.read_text()
    assert missing_files(text) == []
    assert missing_names(text) == []


def test_a_wrong_file_or_name_would_be_seen() -> None:
    """In prose and in code, whole and short; what is right, or no name of ours, is let pass."""
    assert missing_files("`toolkit/core/errors.py`, toolkit/nothing.py and [x](../docs/none.md)") == [
        "toolkit/nothing.py"
    ]
    assert missing_names("`billing.rules.Admit`, `billing.cashier`, `store.nothing` and `reasoning.max_tokens`") == [
        ".billing.cashier",
        ".store.nothing",
    ]
    assert missing_names("from toolkit.reports import spend\ntoolkit.open(), toolkit.desk.Desk") == [".desk.Desk"]


@each_page
def test_the_python_of_a_page_imports_and_calls_what_is_there(page: Path) -> None:
    """Imports from Keydesk work, and have the functions that the examples call."""
    modules: dict[str, str] = {}
    for block in re.findall(r"^ *```python\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL):
        indent = len(block) - len(block.lstrip())
        for node in ast.walk(ast.parse("\n".join(line[indent:] for line in block.splitlines()))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("toolkit"):
                modules |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                assert exists(f"{modules[node.value.id]}.{node.attr}"), ast.unparse(node)
    assert [name for name in modules.values() if not exists(name)] == []


def test_the_picture_of_the_packages_is_the_import_contract() -> None:
    """docs/architecture.md draws the layers that `make check` holds; its table has a row for each package."""
    page = (ROOT / "docs/architecture.md").read_text()
    drawing = page.partition("```mermaid\n")[2].partition("```")[0]
    drawn = [set(floor.split()) for floor in re.findall(r'subgraph \w+\["[^"]*"\]\n(.*?)\n +end', drawing, re.DOTALL)]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert drawn == [set(re.findall(r"\w+", layer)) for layer in layers]
    assert set().union(*drawn) == TOP_LEVEL
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == TOP_LEVEL


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_says_where_to_begin(package: str) -> None:
    """Its docstring is there, and what it names in backticks is a module of it, another package, or in one of them."""
    text = ast.get_docstring(ast.parse((PACKAGES[package] / "__init__.py").read_text()))
    assert text, "no docstring"
    named = re.findall(r"`([a-z_]+(?:\.\w+)*)`", text)
    assert named, "names no module to begin with"
    wrong = [name for name in named if not (exists(f"toolkit.{package}.{name}") or exists(f"toolkit.{name}"))]
    assert [name for name in wrong if name != "keydesk"] == []


def test_what_the_code_names_is_there() -> None:
    """In docstrings and comments too: whoever follows `billing.rules` or `docs/money.md` finds it."""
    wrong = {}
    for path in sorted(TOOLKIT.rglob("*.py")):
        text = path.read_text()
        own = path.parent.name  # `ledger.Ledger` in the package `ledger` is its module's
        names = [name for name in missing_names(text) if not exists(f"toolkit.{own}{name}")]
        if found := missing_files(text) + names:
            wrong[str(path.relative_to(ROOT))] = found
    assert wrong == {}
