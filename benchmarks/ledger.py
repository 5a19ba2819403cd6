"""The usage ledger at size: what its questions take, what a row takes on disk, and how fast rows are drained.

    python -m benchmarks.ledger [--rows 1_000_000] [--days 90] [--runs 7] [--waiting 100_000] [--folder FOLDER]

Generated rows (`benchmarks.calls`) are written as segments by the code that the drain uses, half a million rows a
file at most, as compaction leaves them. The questions are those of the dashboard and of the reports, each asked
once to warm up (that time is told apart) and then `--runs` times. Then rows are put into the outbox and drained, on
SQLite and on PostgreSQL (the server that KEYDESK_TEST_POSTGRES_URL names, or one that is started for the purpose;
without either it is left out): reading, Parquet, fsync and deletion count, and what `keydesk ledger sync --follow`
compacts on its way. At last a query meets a long outbox. Everything is removed at the end.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa

from benchmarks import calls, machine
from benchmarks.postgres import database
from benchmarks.tables import table
from toolkit.core.period import Period
from toolkit.ledger import segments
from toolkit.ledger.compaction import FULL
from toolkit.ledger.ledger import Ledger
from toolkit.reports import refusals, requests, spend
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.tables import ApiKey, Organisation, Plan
from toolkit.store.transaction import utc_now

LAST_DAY = date(2026, 11, 22)
_LOADED_AT_ONCE = 20_000


def main() -> None:
    """Measure, and print tables."""
    options = _options()
    print(machine.header("duckdb", "pyarrow", "sqlalchemy", "psycopg"))
    with tempfile.TemporaryDirectory(prefix="keydesk-ledger-", dir=options.folder) as name:
        folder = Path(name)
        print(f"fsync of 4 kB: {machine.fsync_ms(folder):.1f} ms\n")
        if options.rows:
            ask(folder, options.rows, options.days, options.runs)
        if options.waiting:
            drain(folder, options.waiting)
            wait(folder, options.waiting)


def ask(folder: Path, rows: int, days: int, runs: int) -> None:
    """Fill a ledger, tell what it takes on disk, and time the questions."""
    store = _store(f"sqlite:///{folder}/asked.db")
    ledger = Ledger(store, folder / "ledger", SYSTEM)
    started = time.perf_counter()
    some_id = fill(ledger, rows, days)
    took = time.perf_counter() - started
    status = ledger.status()
    print(
        f"{status.rows:,} rows of {days} days in {status.segments} segments: {status.size / 1e6:,.1f} MB,"
        f" **{status.size / status.rows:.1f} bytes a row** (made and written in {took:.0f} s)\n"
    )
    now = utc_now().replace(year=LAST_DAY.year, month=LAST_DAY.month, day=LAST_DAY.day)
    month, before = Period.month("2026-11"), Period.month("2026-10")
    last = Period.days(30, now)
    asked: dict[str, Callable[[], object]] = {
        "one request by its id": lambda: requests.search(ledger, request_id=some_id),
        "spend per key and day, 30 days": lambda: spend.table(ledger, ["key", "day"], last),
        "spend per key, 30 days": lambda: spend.table(ledger, ["key"], last),
        "spend per model, 30 days": lambda: spend.table(ledger, ["model"], last),
        "totals of this month": lambda: spend.totals(ledger, month),
        "totals of the month before": lambda: spend.totals(ledger, before),
        "refusals, 30 days": lambda: refusals.table(ledger, last),
        "newest 50 requests, today": lambda: requests.search(ledger, period=Period.days(1, now), limit=50),
        "spend per org and month, all time": lambda: spend.table(ledger, ["org", "month"]),
    }
    overview = ["spend per key and day, 30 days", "spend per key, 30 days", "spend per model, 30 days"]
    overview += ["totals of this month", "totals of the month before", "refusals, 30 days"]
    figures = {question: _timed(act, runs) for question, act in asked.items()}
    together = tuple(sum(figures[question][place] for question in overview) for place in range(4))
    table(
        ["question", "first ms", "p50 ms", "slowest ms", "CPU ms"],
        [
            [name, *(f"{value * 1000:,.0f}" for value in times)]
            for name, times in {**figures, "Overview's six questions together": together}.items()
        ],
    )
    store.close()


def fill(ledger: Ledger, rows: int, days: int) -> str:
    """Write generated rows as segments and list them; return the id of one of them."""
    some_id = ""
    for share in calls.shares(rows, days, LAST_DAY):
        made = calls.of_day(share)
        pieces = -(-share.rows // FULL)
        size = -(-share.rows // pieces)
        added = [
            segment
            for start in range(0, share.rows, size)
            for segment in segments.write(ledger.root, made.slice(start, size), utc_now())
        ]
        with ledger.store.write(SYSTEM) as tx:
            tx.session.add_all(added)
        some_id = some_id if share.day > LAST_DAY - timedelta(days=days // 3) else made["request_id"][-7].as_py()
    return some_id or made["request_id"][-7].as_py()


def drain(folder: Path, rows: int) -> None:
    """Time how fast waiting rows become segments, on each store."""
    figures = []
    with _stores(folder) as urls:
        for name, url in urls.items():
            store = _store(url)
            ledger = Ledger(store, folder / f"drained-{name.partition(' ')[0]}", SYSTEM)
            _wait_in_outbox(store, rows)
            ledger.sync(limit=1)
            cpu, started, moved, worst = time.process_time(), time.perf_counter(), 0, 0.0
            merging = 0.0
            while True:
                one = time.perf_counter()
                step = ledger.sync(limit=10_000)
                worst = max(worst, time.perf_counter() - one)
                moved += step
                if not step:
                    break
                one = time.perf_counter()
                ledger.compact(thorough=False)
                merging += time.perf_counter() - one
            took = time.perf_counter() - started
            cpu = time.process_time() - cpu
            figures.append(
                [
                    name,
                    f"{moved / took:,.0f}",
                    f"{moved / (took - merging):,.0f}",
                    f"{worst * 1000:,.0f}",
                    f"{cpu / moved * 1e6:.1f}",
                ]
            )
            store.close()
    print()
    table(
        ["drain", "rows/s with compaction", "rows/s without", "slowest 10,000 rows, ms", "CPU of the drain, µs a row"],
        figures,
    )


def wait(folder: Path, rows: int) -> None:
    """Time a query over a long outbox, and tell the memory that it took, in a process of its own."""
    store = _store(f"sqlite:///{folder}/waiting.db")
    _wait_in_outbox(store, rows)
    store.close()
    code = f"from benchmarks.ledger import look; look({str(folder)!r})"
    print(flush=True)
    subprocess.run([sys.executable, "-c", code], check=True)


def look(folder: str) -> None:
    """Ask a ledger whose rows all wait; print what it took."""
    store = Store(f"sqlite:///{folder}/waiting.db")
    ledger = Ledger(store, Path(folder) / "waiting", SYSTEM)
    ledger.sql("SELECT 1 FROM usage LIMIT 1", request_id="none")
    before, cpu, started = _peak_memory(), time.process_time(), time.perf_counter()
    (row,) = ledger.sql("SELECT count(*) AS rows, sum(cost) AS cost FROM usage").to_pylist()
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    grown = (_peak_memory() - before) / 1e6
    print(
        f"A query over {row['rows']:,} waiting rows: {took:,.1f} s, {cpu:,.1f} s of CPU, {grown:,.0f} MB of memory"
        f" ({grown * 1e6 / row['rows']:,.0f} bytes a row)."
    )
    store.close()


def _peak_memory() -> int:
    """Return the most memory that this process has had resident so far, in bytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _timed(act: Callable[[], object], runs: int) -> tuple[float, float, float, float]:
    """Return an act's first, median and longest time, and the median of its CPU time, in seconds."""
    times, cpu = [], []
    for _ in range(runs + 1):
        started, cpu_before = time.perf_counter(), time.process_time()
        act()
        times.append(time.perf_counter() - started)
        cpu.append(time.process_time() - cpu_before)
    return times[0], median(times[1:]), max(times[1:]), median(cpu[1:])


@contextmanager
def _stores(folder: Path) -> Iterator[dict[str, str]]:
    with database() as found:
        urls = {"SQLite": f"sqlite:///{folder}/drained.db"}
        if found is not None:
            urls[f"PostgreSQL {found.version}"] = found.url
        yield urls


def _store(url: str) -> Store:
    """Return a store with the organisations, plans and keys that the generated rows name."""
    store = Store(url)
    store.migrate()
    with store.write(SYSTEM) as tx:
        made: dict[str, Any] = {"created_at": tx.now, "created_by": "benchmark"}
        choices = {"hosted_tools": "leave_out"}
        tx.session.add_all(Organisation(id=f"org_{n:012d}", name=f"org {n}", **made) for n in range(calls.ORGS))
        tx.session.add_all(
            Plan(
                id=f"plan_{n:012d}",
                name=f"plan {n}",
                multiplier=calls.MULTIPLIERS[n],
                unknown_fields="pass",
                **choices,
                **made,
            )
            for n in range(calls.PLANS)
        )
        tx.session.flush()
        tx.session.add_all(
            ApiKey(
                id=f"key_{n:012d}",
                org_id=f"org_{n % calls.ORGS:012d}",
                name=f"key {n}",
                status="active",
                plan_id=f"plan_{n % calls.PLANS:012d}",
                scope="[]",
                hold_policy="strict",
                display="sk-…",
                version=1,
                **choices,
                **made,
            )
            for n in range(calls.KEYS)
        )
    return store


def _wait_in_outbox(store: Store, rows: int) -> None:
    """Put rows into the outbox."""
    made = calls.of_day(calls.Share(LAST_DAY, rows), seed=2)
    for name in ("admitted_at", "settled_at"):
        made = made.set_column(made.column_names.index(name), name, made[name].cast(pa.int64()))
    columns = ", ".join(made.column_names)
    for start in range(0, rows, _LOADED_AT_ONCE):
        values = zip(*(column.to_pylist() for column in made.slice(start, _LOADED_AT_ONCE).columns), strict=True)
        if store.is_postgres:
            with store.connect_postgres() as connection:
                loading = connection.cursor().copy(f"COPY outbox ({columns}) FROM STDIN".encode())
                with connection.transaction(), loading as copy:
                    for row in values:
                        copy.write_row(row)
        else:
            connection = store.connect()
            connection.execute("BEGIN IMMEDIATE")
            marks = ", ".join("?" for _ in made.column_names)
            connection.executemany(f"INSERT INTO outbox ({columns}) VALUES ({marks})", values)
            connection.execute("COMMIT")
            connection.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows in segments")
    parser.add_argument("--days", type=int, default=90, help="days that they spread over")
    parser.add_argument("--runs", type=int, default=7, help="times that each question is asked")
    parser.add_argument("--waiting", type=int, default=100_000, help="rows to drain, and rows to wait in the outbox")
    parser.add_argument("--folder", help="where to make the scratch folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
