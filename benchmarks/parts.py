"""Where the gateway's CPU goes: what is left when its parts are taken away one by one.

The server alone and the server with the HTTP client are measured as they are, without Keydesk. The batcher's thread,
which does the billing, has a clock of its own. The steps of judging and metering are timed alone. What then remains of
the event loop's thread is what holds the parts together; cProfile says in which modules that is. It slows small
functions down more than large ones: its shares say where to look, not how much there is to gain.
"""

import json
import pstats
import time
import timeit
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.rig import MANY, SHEET, Rig, Target, plain_body
from benchmarks.tables import table
from benchmarks.upstream import WHOLE
from toolkit.billing.hold_estimate import hold_bound
from toolkit.core.dialect import Dialect
from toolkit.core.ids import new_request_id
from toolkit.core.pricing import MILLION
from toolkit.core.secrets import Keyring, new_secret
from toolkit.dialects import MODULES
from toolkit.dialects.body import parse_object

ROUNDS, QUICK_ROUNDS = 5, 2
MICRO = 1e6
WARM_UP = 0.5
"""Seconds."""

ENDPOINT = "chat/completions"
LISTED = 16

PARTS = {
    "server": "a server in compiled code (reads the request, sends the answer)",
    "HTTP client": "an HTTP client in compiled code",
    "judging and metering": "JSON and judging in compiled code (the steps below)",
    "holding together": "fewer tasks, futures, time limits and hand-overs between threads for a call",
    "batcher's thread": "billing in compiled code, or in a process of its own (rules, statements, commits)",
}
"""The parts, and what would make each cheaper."""


def show(rig: Rig, keydesks: Sequence[Target], *, quick: bool) -> None:
    """Measure the parts and print them."""
    server, bare = rig.passthrough("server alone", "server"), rig.passthrough("server and client", "bare")
    targets = [server, bare, *keydesks]
    threads: dict[str, list[tuple[float, float]]] = {target.name: [] for target in targets}
    rig.wait_ready()
    for target in targets:
        rig.measure(target, MANY, WARM_UP)
    for _ in range(QUICK_ROUNDS if quick else ROUNDS):
        for target in targets:
            before = machine.thread_seconds(target.pid)
            calls = rig.measure(target, MANY, MANY.seconds[quick]).report.calls
            after = machine.thread_seconds(target.pid)
            threads[target.name].append(((after[0] - before[0]) / calls, (after[1] - before[1]) / calls))
    main = {name: median(loop for loop, _ in times) * MICRO for name, times in threads.items()}
    steps = _steps()
    columns = []
    for target in keydesks:
        of_client = main[bare.name] - main[server.name]
        rest = main[target.name] - main[bare.name] - sum(steps.values())
        others = median(batcher for _, batcher in threads[target.name]) * MICRO
        columns.append(dict(zip(PARTS, (main[server.name], of_client, sum(steps.values()), rest, others), strict=True)))
    names = [target.name for target in keydesks]
    print(f"\n## Where a call's CPU goes: µs, {MANY.callers} callers\n")
    rows = [
        [part, *(f"{column[part]:.0f} ({column[part] / sum(column.values()):.0%})" for column in columns)]
        for part in PARTS
    ]
    table(["", *names], [*rows, ["in all", *(f"{sum(column.values()):.0f}" for column in columns)]])
    print("\n## The steps of judging and metering, each timed alone: µs\n")
    table(["", "µs"], [[name, f"{cost:.1f}"] for name, cost in steps.items()])
    _print_modules(rig, quick=quick)
    print("\n## What would halve it\n")
    for name, column in zip(names, columns, strict=True):
        print(_verdict(name, column))


def _steps() -> dict[str, float]:
    """Return what the pure steps of a call cost, in microseconds: each by itself and warm."""
    module = MODULES[Dialect.OPENAI]
    raw = json.dumps(plain_body(), separators=(",", ":")).encode()
    body, answer = parse_object(raw), json.loads(WHOLE)
    shape = module.inspect(ENDPOINT, body, len(raw), None)
    keyring, secret = Keyring([bytes(32)]), new_secret()

    def bound() -> object:
        return hold_bound(
            Dialect.OPENAI, shape, SHEET, MILLION, context_window=100_000, default_output=4_096, model="gpt-5"
        )

    steps: dict[str, Callable[[], object]] = {
        "the secret's digest": lambda: keyring.digests(secret),
        "the request as JSON, no name twice": lambda: parse_object(raw),
        "what it asks for": lambda: module.inspect(ENDPOINT, body, len(raw), None),
        "what it can cost": bound,
        "its id": lambda: new_request_id(1_700_000_000_000),
        "the answer as JSON": lambda: json.loads(WHOLE),
        "what it used": lambda: module.usage_of(ENDPOINT, answer),
    }
    # By the CPU's clock, as everything else here: neighbours do not count.
    timers = {name: timeit.Timer(step, timer=time.process_time) for name, step in steps.items()}
    return {name: min(timer.repeat(repeat=7, number=2000)) / 2000 * MICRO for name, timer in timers.items()}


def _print_modules(rig: Rig, *, quick: bool) -> None:
    path = rig.folder / "profile"
    target = rig.keydesk("profiled", profile=path)
    rig.wait_ready()
    rig.measure(target, MANY, WARM_UP)
    rig.begin_profile(target)
    rig.measure(target, MANY, 3 * MANY.seconds[quick])
    rig.interrupt(target)
    stats: dict[Any, Any] = pstats.Stats(str(path)).stats  # type: ignore[attr-defined]
    spent: Counter[str] = Counter()
    for (file, _, _), (_, _, own, _, callers) in stats.items():
        if file == "~" and callers:  # not Python: it counts for whoever calls it
            for (caller, _, _), (_, _, share, _) in callers.items():
                spent[_module(caller)] += share
        else:
            spent[_module(file)] += own
    print("\n## The event loop's thread by module, as cProfile sees it: the server is uvicorn, the client wire\n")
    whole = sum(spent.values())
    table(["", "share"], [[name, f"{own / whole:.1%}"] for name, own in spent.most_common(LISTED)])


def _module(file: str) -> str:
    """Return the module of a file, or its package if it is none of ours."""
    path = Path(file)
    for package in ("toolkit", "uvicorn", "starlette", "asyncio", "concurrent", "json"):
        if package in path.parts:
            inside = path.with_suffix("").parts[path.parts.index(package) :]
            return ".".join(inside) if package in {"toolkit", "asyncio"} else package
    return "callbacks of the loop" if file == "~" else path.stem


def _verdict(name: str, column: dict[str, float]) -> str:
    """Return which parts make half of the cost."""
    half, found = sum(column.values()) / 2, 0.0
    taken = []
    for part in sorted(column, key=lambda part: -column[part]):
        if found < half:
            taken.append(part)
            found += column[part]
    remedies = "; ".join(PARTS[part] for part in taken)
    return (
        f"{name}: {' and '.join(taken)} together are {found:.0f} of {2 * half:.0f} µs. What to work on: {remedies}.\n"
    )
