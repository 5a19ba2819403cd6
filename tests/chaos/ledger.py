"""The ledger: producers, drains, a compactor and readers, all killed at random, and each committed row is seen once.

Producers follow a script (`ledger_script`), so that each read is judged at once and to the nano-USD
(`ledger_judge`), whatever was killed in the meantime (`ledger_actors`). In the end the whole ledger is compared with
the script, in every column.
"""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import func, select

from tests.chaos import ledger_actors as actors
from tests.chaos.ledger_judge import backward
from tests.chaos.ledger_script import ORGS, PRODUCERS, part
from tests.chaos.report import Report
from tests.chaos.stage import Stage
from tests.chaos.stores import Place, Reader, open_reader
from tests.conftest import NOWHERE
from toolkit.admin import plans
from toolkit.core.errors import Unavailable
from toolkit.core.money import NANO
from toolkit.ledger import segments
from toolkit.store.actor import SYSTEM
from toolkit.store.tables import KeyMonth, OutboxRow, Segment, SupersededSegment

RICH = 1_000_000_000 * NANO
GRACE = 10.0
"""Seconds that replaced files stay while readers read."""

LONGEST_LIFE = 0.6
"""Seconds until the next one is killed, at most."""

LONGEST_PAUSE = 0.1
"""Seconds that one stands still, at most: all the while somebody does."""

STOP_WITHIN = 60.0
DRAINED_WITHIN = 60.0

ROLES: dict[str, tuple[Callable[..., None], int]] = {
    "producer": (actors.produce, PRODUCERS),
    "drain": (actors.drain, 2),
    "compactor": (actors.compact, 1),
    "reader": (actors.read, 3),
}
VICTIMS = {"producer": 4, "drain": 6, "compactor": 3, "reader": 3, "everything": 1}
"""How often each is killed. `everything`: all of them and the store's server at once."""

SERVER_VICTIMS = {"server": 1, "backend": 1}

_LOADED = [
    "tests.chaos.ledger_actors",
    "_strptime",
    "duckdb",
    "numpy.random",
    "pandas",
    "pyarrow.compute",
    "pyarrow.parquet",
    "sqlalchemy.dialects.postgresql.psycopg",
    "toolkit.billing.stores.postgres",
    "toolkit.billing.stores.sqlite",
]
"""What the server that actors are forked off has imported: they would spend most of their short lives on it."""


def run(
    place: Place,
    folder: Path,
    *,
    seconds: float,
    kills: int = 0,
    root: str = "",
    seed: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Produce, drain, merge, read and kill, and judge what was seen.

    Args:
        place: the key store, empty.
        folder: for data, journals and logs.
        seconds: for how long, at least.
        kills: how many, at least.
        root: of the ledger, if it is in a bucket; its server is found by the variables of this process.
        seed: of who is killed when.
        progress: told how far it is.
    """
    report = Report(f"ledger on {place.kind}" + (", in a bucket" if root else ""))
    environment = {"KEYDESK_DATA_DIR": str(folder), "KEYDESK_STORE_URL": place.url, "KEYDESK_LEDGER_ROOT": root}
    stage = Stage(folder, environment)
    try:
        stage.open(NOWHERE + "/v1")
        orgs = [stage.add_org(f"organisation {number}", RICH) for number in range(ORGS)]
        callers = tuple(tuple(stage.add_key(org) for org in orgs) for _ in range(PRODUCERS))
        with stage.workspace.read() as tx:
            plan = plans.find(tx, "standard").id
        found_by = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        scenery = actors.Scenery(place.url, environment | found_by, folder, callers, plan, GRACE)
        scene = _Scene(report, place, scenery, seed)
        with scene.running():
            scene.play(seconds, kills, progress)
        _judge(report, stage, scenery)
    finally:
        stage.close()
    return report


class _Scene:
    """The actors, and who is killed when."""

    def __init__(self, report: Report, place: Place, scenery: actors.Scenery, seed: int) -> None:
        self._report, self._place, self._scenery = report, place, scenery
        self._chance = random.Random(seed)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_LOADED)
        self._processes: dict[tuple[str, int], ForkServerProcess] = {}
        self._meter = _Meter(scenery.store_url)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Have all actors at work until the block ends."""
        try:
            for role, (_, count) in ROLES.items():
                for number in range(count):
                    self._start(role, number)
            yield
        finally:
            self._meter.close()
            for process in self._processes.values():
                process.kill()
                process.join()

    def play(self, seconds: float, kills: int, progress: Callable[[str], None]) -> None:
        """Kill one victim after the other; then have the others end in an orderly way."""
        victims = Counter(VICTIMS | (SERVER_VICTIMS if self._place.kind == "postgresql" else {}))
        self._report.figures |= {f"kills: {victim}": 0 for victim in victims} | {"pauses": 0}
        drawn: list[str] = []
        started = told = time.monotonic()
        while (now := time.monotonic()) < started + seconds or kills > 0:
            strike = now + self._chance.uniform(0, LONGEST_LIFE)
            while time.monotonic() < strike:
                self._pause()
                self._meter.look()
            self._watch()
            drawn = drawn or self._chance.sample(list(victims.elements()), victims.total())
            victim = drawn.pop()
            self._strike(victim)
            self._report.count(f"kills: {victim}")
            kills -= 1
            if now - told > 10:
                told = now
                progress(f"ledger on {self._place.kind}: {now - started:.0f} s, {self._meter.committed:,} rows")
        self._end()

    def _pause(self) -> None:
        """Have one stand still in mid-air, so that the others get in between two of its steps."""
        process = self._chance.choice(list(self._processes.values()))
        if process.pid is None or not process.is_alive():
            return  # it has ended by itself, as `_watch` will say
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(self._chance.uniform(0, LONGEST_PAUSE))
            os.kill(process.pid, signal.SIGCONT)
        self._report.count("pauses")

    def _strike(self, victim: str) -> None:
        if victim in ROLES:
            number = self._chance.randrange(ROLES[victim][1])
            self._kill(victim, number)
            self._start(victim, number)
        elif victim == "everything":
            for role, number in self._processes:
                self._processes[role, number].kill()
            self._place.kill()
            self._place.restart()
            for role, number in self._processes:
                self._kill(role, number)
                self._start(role, number)
        elif victim == "server":
            self._place.kill()
            self._place.restart()
        else:
            with contextlib.suppress(OSError, IndexError):  # a process that was about to end by itself
                self._place.kill_one()

    def _start(self, role: str, number: int, **options: Any) -> None:
        act = ROLES[role][0]
        process = self._context.Process(target=act, args=(self._scenery, number), kwargs=options)
        process.start()
        self._processes[role, number] = process

    def _kill(self, role: str, number: int) -> None:
        process = self._processes[role, number]
        process.kill()
        process.join()

    def _watch(self) -> None:
        """Find who has ended although nobody killed it."""
        for (role, number), process in list(self._processes.items()):
            if process.exitcode is not None:
                self._complain(f"{role}-{number}", f"ended by itself with {process.exitcode}")
                self._start(role, number)

    def _end(self) -> None:
        self._stop("producer")
        for number in range(PRODUCERS):  # one may have been killed before it took up its part
            self._start("producer", number, last=True)
        self._stop("producer", ask=False)
        deadline = time.monotonic() + DRAINED_WITHIN
        while self._meter.look() and time.monotonic() < deadline:
            time.sleep(0.05)
        self._report.require(not self._meter.waiting, f"the drains left {self._meter.waiting:,} rows in the outbox")
        for role in ("reader", "compactor", "drain"):
            self._stop(role)
        self._report.figures |= self._meter.figures()

    def _stop(self, role: str, *, ask: bool = True) -> None:
        processes = [self._processes[role, number] for number in range(ROLES[role][1])]
        for process in processes:
            if ask:
                process.terminate()
        for number, process in enumerate(processes):
            process.join(STOP_WITHIN)
            if process.exitcode not in {0, -signal.SIGTERM if ask else 0}:
                self._complain(f"{role}-{number}", f"was to end, and its code is {process.exitcode}")

    def _complain(self, name: str, of: str) -> None:
        log = self._scenery.log(name)
        said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
        self._report.violations.append(f"{name} {of}:\n{said}")


class _Meter:
    """Looks at the outbox all the while: how many rows wait, and for how long."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._reader: Reader | None = None
        self._moments: list[float] = []
        self._totals: list[int] = []
        self._waits: list[tuple[int, float]] = []
        self.committed = self.waiting = 0

    def look(self) -> int:
        """Look once; return how many rows wait."""
        try:
            self._reader = self._reader or open_reader(self._url)
            (months, ((waiting,),)) = self._reader.snapshot(
                "SELECT calls FROM key_month", "SELECT count(*) FROM outbox"
            )
        except psycopg.Error:  # the server is away
            self.close()
            return self.waiting or 1
        now = time.monotonic()
        self.committed, self.waiting = sum(calls for (calls,) in months), waiting
        self._moments.append(now)
        self._totals.append(self.committed)
        # The oldest row that waits was committed when the total grew beyond what has been drained.
        grew = bisect_right(self._totals, self.committed - waiting)
        self._waits.append((waiting, now - self._moments[grew] if waiting else 0.0))
        return self.waiting

    def close(self) -> None:
        """Close its connection."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def figures(self) -> dict[str, int]:
        """Return what came of it."""
        seconds = sorted(wait for _, wait in self._waits)
        return {
            "rows that waited, at most": max(waiting for waiting, _ in self._waits),
            "lag in ms, half of the time below": round(1000 * seconds[len(seconds) // 2]),
            "lag in ms, 99% of the time below": round(1000 * seconds[len(seconds) * 99 // 100]),
        }


def _judge(report: Report, stage: Stage, scenery: actors.Scenery) -> None:
    """Judge what the actors noted, and then the ledger as it stands when all is drained and merged."""
    reads = [line for number in range(ROLES["reader"][1]) for line in _lines(scenery.journal(f"reader-{number}"))]
    upkeep = _lines(scenery.journal("compactor"))
    in_order = sorted([*reads, *upkeep], key=lambda line: float(line["began"]))
    report.violations += [wrong for line in in_order for wrong in line.get("wrong", [])]
    report.violations += backward(reads)
    try:
        _judge_end(report, stage, scenery)
    except Unavailable as error:
        report.violations.append(f"in the end: {error}")
    kinds = Counter(str(line["kind"]) for line in reads if "kind" in line)
    longest = max((line["ended"] - line["began"] for line in reads if "ended" in line), default=0)
    report.figures |= {
        "reads": sum(kinds.values()),
        **{f"  of {kind}": count for kind, count in sorted(kinds.items())},
        "longest read in ms": round(1000 * longest),
        "reads while the server was away": sum(line.get("unavailable", 0) for line in reads),
        "files removed under the readers": sum(line.get("swept", 0) for line in upkeep),
        "verified under load": sum(line.get("verified", 0) for line in upkeep),
    }


def _judge_end(report: Report, stage: Stage, scenery: actors.Scenery) -> None:
    """Drain, merge, sweep and verify what is left, and compare the whole ledger with the script."""
    ledger = stage.workspace.ledger
    while ledger.sync():
        pass
    ledger.compact()
    removed = ledger.sweep(timedelta(0))
    report.violations += [f"verify says: {problem}" for problem in ledger.verify()]
    with stage.workspace.store.read(SYSTEM) as tx:
        listed = set(tx.session.scalars(select(Segment.path)))
        noted = tx.session.scalar(select(func.count()).select_from(SupersededSegment)) or 0
        waiting = tx.session.scalar(select(func.count()).select_from(OutboxRow)) or 0
        months = tx.session.execute(select(KeyMonth.key_id, KeyMonth.calls)).all()
    report.require(not waiting, f"{waiting:,} rows stay in the outbox")
    strays = listed ^ set(ledger.root.ages(segments.FOLDER))
    report.require(not strays, f"files and list differ by {len(strays)}, such as {sorted(strays)[:3]}")
    rows = 0
    for number, own in enumerate(scenery.callers):
        calls = sum(count for key, count in months if key in {caller.key_id for caller in own})
        report.violations += _compare(stage, scenery, number, calls)
        rows += calls
    (in_all,) = ledger.sql("SELECT count(*) AS count FROM usage").to_pylist()
    report.require(in_all["count"] == rows, f"the ledger has {in_all['count']:,} rows, {rows:,} were committed")
    report.violations += stage.reconcile()
    report.figures |= {
        "rows committed": rows,
        "segments written": len(listed) + noted,
        "segments in the end": len(listed),
        "files removed in the end": removed,
    }


def _compare(stage: Stage, scenery: actors.Scenery, number: int, calls: int) -> list[str]:
    """Return how the ledger's rows of a producer differ from the script, in any column."""
    if not calls:
        return [f"producer {number} has written nothing"]
    expected = part(number).log(scenery.callers[number], scenery.plan, 1, calls)
    query = f"SELECT {actors.COLUMNS} FROM usage WHERE split_part(request_id, '-', 2) = ? ORDER BY right(request_id, 9)"
    actual = stage.workspace.ledger.sql(query, [str(number)])
    if actual.num_rows != calls:
        return [f"producer {number}: the ledger has {actual.num_rows:,} rows, {calls:,} were committed"]
    return [
        f"producer {number}: column {name} differs from what was committed"
        for name in expected.column_names
        if actual.column(name).cast(expected.schema.field(name).type).to_pylist() != expected.column(name).to_pylist()
    ]


def _lines(journal: Path) -> list[dict[str, Any]]:
    """Return what actors noted; a line that one was killed at counts as not written."""
    found = []
    for line in journal.read_bytes().splitlines() if journal.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found
