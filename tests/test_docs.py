"""What the documents promise is what the code has."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from toolkit.core.errors import STATUS, RefusalType
from toolkit.gateway.paths import find

GATEWAY = (ROOT / "docs/gateway.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("refusal", RefusalType)
def test_each_refusal_is_documented_with_its_status(refusal: RefusalType) -> None:
    """docs/gateway.md has a row for each refusal type, with the status it is answered with."""
    assert f"| {STATUS[refusal]} | `{refusal}` |" in GATEWAY


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_link_to_a_file_leads_somewhere(document: Path) -> None:
    """No document links to a file that is not there."""
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / link).exists(), link


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/models",
        "/v1/models/x",
        "/v1/messages",
        "/anthropic/v1/messages/count_tokens",
        "/anthropic/v1/models/x",
        "/v1/models/x:generateContent",
        "/v1beta/models/x:streamGenerateContent",
        "/gemini/v1/models/x:countTokens",
        "/gemini/v1beta/models/x:batchEmbedContents",
    ],
)
def test_each_documented_path_exists(path: str) -> None:
    """The paths that docs/gateway.md lists are served."""
    assert find(path) is not None


def test_every_module_is_in_the_package_map_and_the_layers() -> None:
    """A newcomer finds each top-level module in the import contract's list and in docs/architecture.md."""
    layers = re.search(r"layers = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    assert layers is not None
    named = set(re.findall(r"[a-z_]+", layers[1]))
    there = {path.stem for path in (ROOT / "toolkit").iterdir() if path.stem not in {"__init__", "__pycache__", "py"}}
    assert there <= named | {"py.typed"}
    told = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs/architecture.md").read_text()))
    assert there <= told | {"py.typed"}
