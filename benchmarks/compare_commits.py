"""What one commit's gateway costs beside another's: a comparison of gateways, run on both in turn.

    python -m benchmarks.compare_commits COMPARE BEFORE AFTER [--rounds 20] [--quick]

COMPARE is a script that measures a running gateway against the pass-through `uvicorn+aiohttp` on the same core, and
writes its figures as JSON: `--url`, `--header`, `--model`, `--pin`, `--peers`, `--rounds`, `--json`, as the bench that
Keydesk is developed beside has it. It needs wrk, taskset and a C compiler.

Both commits are cloned and installed as `make setup` does, once; each run starts a fresh gateway on a copy of the same
prepared store. They take turns in each round, and the one that begins alternates. What counts is the paired ratio: the
CPU of a call over that of the pass-through in the same run, AFTER's over BEFORE's of the same round. The machine's own
moods are in all four. Its 95 % interval is bootstrapped from the rounds; below five rounds there is none.

The installing takes some minutes, a round of both about two and a half (`--quick`, plain calls of 64 callers alone:
under one).
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import exp, log
from pathlib import Path
from statistics import fmean, median

from benchmarks.rig import free_port
from benchmarks.tables import table

ROOT = Path(__file__).parent.parent
PEER = "uvicorn+aiohttp"
NAME = "keydesk"
PEER_NEEDS = ["aiohttp", "httptools", "orjson", "starlette", "uvicorn", "uvloop"]
ALLOWED = 1.05
"""The paired ratio that is no change worth a word: the same gateway under two names reads up to 1.07 in one round."""

RESAMPLES = 10_000
FEWEST = 5
START_WITHIN = 60.0

MEASURES = {
    "c1": "1 caller",
    "c16": "16 callers",
    "c64": "64 callers",
    "s16": "16 streams, at once",
    "p32": "32 streams, paced",
}
"""As the comparison calls them in its JSON, and for people; the verdict is on c64."""

SETUP = [
    "orgs add Bench",
    "wallet credit --org Bench --amount 1000000 --reference bench",
    "upstreams add bench --dialect openai --base-url http://127.0.0.1:{mock}/v1 --credential-env BENCH_API_KEY",
    "models add mock-model --upstream bench --input-price 1 --output-price 2 --context-window 100000",
    "plans add bench --multiplier 1 --models mock-model",
]
"""Commands of `keydesk`, which stay the same from commit to commit."""


@dataclass
class Commit:
    """One of the two, installed.

    Args:
        name: as it was given.
        tree: its clone.
        data: the prepared folder that each run copies.
    """

    name: str
    tree: Path
    data: Path
    secret: str = ""
    runs: list[dict[str, dict[str, list[dict[str, float]]]]] = field(default_factory=list)

    def environment(self, data: Path, mock: int) -> dict[str, str]:
        """Return what its commands run with."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYDESK_")}
        return kept | {
            "KEYDESK_DATA_DIR": str(data),
            "BENCH_API_KEY": "upstream-key",
            "BENCH_BASE_URL": f"http://127.0.0.1:{mock}",
        }

    def keydesk(self, *arguments: str, data: Path, mock: int) -> str:
        """Run a command of its own; return what it prints."""
        command = [str(self.tree / ".venv/bin/keydesk"), *arguments]
        variables = self.environment(data, mock)
        done = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=self.tree, check=False)
        if done.returncode:
            raise SystemExit(f"{self.name}: keydesk {' '.join(arguments)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def prepare(self, mock: int) -> None:
        """Make its store: an organisation with money, a model on the comparison's upstream, and a key with a limit."""
        shutil.rmtree(self.data, ignore_errors=True)
        for line in SETUP:
            self.keydesk(*line.format(mock=mock).split(), data=self.data, mock=mock)
        key = [
            "keys",
            "create",
            "--org",
            "Bench",
            "--name",
            "bench",
            "--plan",
            "bench",
            "--monthly-limit",
            "100000",
            "--json",
        ]
        self.secret = json.loads(self.keydesk(*key, data=self.data, mock=mock))["secret"]

    @contextmanager
    def gateway(self, folder: Path, mock: int) -> Iterator[tuple[int, int]]:
        """Run its gateway on a fresh copy of its store; yield port and process id."""
        data, port = folder / "run", free_port()
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(self.data, data)
        command = [str(self.tree / ".venv/bin/keydesk"), "gateway", "--port", str(port)]
        with (folder / "gateway.log").open("wb") as said:
            process = subprocess.Popen(
                command, env=self.environment(data, mock), stdout=said, stderr=said, cwd=self.tree
            )
            try:
                _wait_ready(process, port, folder / "gateway.log")
                yield port, process.pid
            finally:
                process.terminate()
                process.wait(30)

    def figure(self, run: int, measure: str, name: str = "cpu") -> float:
        """Return a figure of one run over the pass-through's."""
        return self.own(run, measure, name) / self.runs[run][PEER][measure][0][name]

    def own(self, run: int, measure: str, name: str = "cpu") -> float:
        """Return a figure of one run: CPU in seconds for 1,000 calls, or calls a second (`rps`)."""
        return self.runs[run][NAME][measure][0][name]


def install(commit: str, folder: Path) -> Path:
    """Clone a commit and install it as its own `make setup` does, unless that has been done; return the clone."""
    number = _git("rev-parse", "--verify", f"{commit}^{{commit}}")
    tree = folder / number[:12]
    if not (tree / ".git").exists():
        _git("clone", "--quiet", "--no-checkout", str(ROOT), str(tree))
        _git("-C", str(tree), "checkout", "--quiet", "--detach", number)
    print(f"installing {commit} ({number[:12]})", file=sys.stderr)
    subprocess.run(["make", "--quiet", "setup"], cwd=tree, check=True, stdout=sys.stderr)
    return tree


def install_peer(folder: Path) -> Path:
    """Install what the pass-through needs, unless that has been done; return its Python."""
    python = folder / "peer/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "peer")], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEER_NEEDS]
    subprocess.run(pip, check=True, stdout=sys.stderr)
    return python


def measure(commit: Commit, compare: Path, folder: Path, python: Path, mock: int, *, quick: bool) -> None:
    """Run the comparison once on a fresh gateway of a commit, and keep its figures."""
    figures = folder / "figures.json"
    with commit.gateway(folder, mock) as (port, pid):
        arguments = ["--url", f"http://127.0.0.1:{port}", "--name", NAME, "--pid", str(pid), "--pin"]
        arguments += ["--header", f"Authorization: Bearer {commit.secret}", "--model", "mock-model"]
        arguments += ["--rounds", "1", "--peers", PEER, "--mock-port", str(mock), "--peer-port", str(free_port())]
        arguments += ["--json", str(figures)]
        arguments += ["--conc", "64", "--no-stream"] if quick else []
        command = [sys.executable, str(compare), *arguments]
        variables = os.environ | {"BENCH_PY": str(python)}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    found = json.loads(figures.read_text()) if done.returncode == 0 else {}
    if NAME not in found or PEER not in found:
        raise SystemExit(f"{commit.name}: the comparison has no figures\n{done.stdout}{done.stderr}")
    figures.unlink()
    commit.runs.append(found)


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the ratios' geometric mean, by bootstrap; the same for the same ratios."""
    chance, logs = random.Random(1), [log(ratio) for ratio in ratios]
    means = sorted(fmean(chance.choices(logs, k=len(logs))) for _ in range(RESAMPLES))
    return exp(means[round(0.025 * RESAMPLES)]), exp(means[round(0.975 * RESAMPLES) - 1])


def show(before: Commit, after: Commit) -> None:
    """Print what a call costs on both, and the paired ratios."""
    rows = []
    for name, words in MEASURES.items():
        if name not in before.runs[0][NAME]:
            continue
        rounds = range(len(after.runs))
        ratios = [after.figure(run, name) / before.figure(run, name) for run in rounds]
        speeds = [after.figure(run, name, "rps") / before.figure(run, name, "rps") for run in rounds]
        low, high = interval(ratios)
        rows.append(
            [
                words,
                *(f"{1000 * median(commit.own(run, name) for run in rounds):,.0f}" for commit in (before, after)),
                *(f"{median(commit.figure(run, name) for run in rounds):.2f}" for commit in (before, after)),
                f"{exp(fmean(map(log, ratios))):.3f}",
                f"{low:.3f} to {high:.3f}" if len(ratios) >= FEWEST else "too few rounds",
                f"{exp(fmean(map(log, speeds))):.3f}",
            ]
        )
        if name == "c64" and len(ratios) >= FEWEST:
            verdict = "lies wholly above" if low > ALLOWED else "does not lie wholly above"
            print(f"The 95 % interval of the paired CPU ratio at 64 callers {verdict} {ALLOWED}.")
    head = ["", f"µs CPU {before.name}", f"µs CPU {after.name}", f"× {PEER}, {before.name}", f"× {PEER}, {after.name}"]
    table([*head, "paired ratio", "95 % interval", "paired calls/s"], rows)


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def _wait_ready(process: "subprocess.Popen[bytes]", port: int, said: Path) -> None:
    end = time.monotonic() + START_WITHIN
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"the gateway did not start\n{said.read_text(errors='replace')}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("compare", type=Path, help="the script that compares gateways")
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", help="another commit")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="plain calls of 64 callers alone")
    parser.add_argument("--folder", type=Path, default=ROOT / "artifacts/compare_commits", help="for clones and data")
    given = parser.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit("wrk is needed (Debian: apt install wrk).")
    folder: Path = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    python, mock = install_peer(folder), free_port()
    pair = []
    for number, name in enumerate((given.before, given.after)):
        pair.append(Commit(name, install(name, folder), folder / f"data-{number}"))
        pair[number].prepare(mock)
    for turn in range(given.rounds):
        for commit in pair if turn % 2 == 0 else reversed(pair):
            measure(commit, given.compare.resolve(), folder, python, mock, quick=given.quick)
        before, after = (commit.figure(turn, "c64") for commit in pair)
        print(f"round {turn + 1}: {before:.2f}, {after:.2f}: {after / before:.3f}", file=sys.stderr)
    show(*pair)


if __name__ == "__main__":
    main()
