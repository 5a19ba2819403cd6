"""What pages ask of the key store and the ledger where there are many keys, organisations, counters and calls.

    python -m benchmarks.size [--keys 10_000] [--orgs 50] [--counters 1_000_000] [--rows 10_000_000] [--runs 5]

Each question is asked once to warm up and then `--runs` times; figures are medians. Generated calls
(`benchmarks.calls`) are of some hundred keys among all; the counters are refusals by minute, before and after they are
folded.
Everything is removed at the end.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import calls, machine
from benchmarks.ledger import LAST_DAY, fill
from benchmarks.tables import table
from toolkit.admin.key_summaries import summaries
from toolkit.checks import snapshot_reader
from toolkit.checks.thresholds import Thresholds
from toolkit.core.moments import micros
from toolkit.core.period import Period
from toolkit.ledger.ledger import Ledger
from toolkit.reports import refusals, requests, spend
from toolkit.store import refusal_counts
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.tables import ApiKey, KeyMonth, Organisation, Plan, RefusalCount
from toolkit.store.transaction import utc_now

PAGE = 25


def main() -> None:
    """Fill, ask, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("keys", 10_000), ("orgs", 50), ("counters", 1_000_000), ("rows", 10_000_000), ("runs", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    print(machine.header("duckdb", "pyarrow", "sqlalchemy"), "\n")
    with tempfile.TemporaryDirectory(prefix="keydesk-size-") as name:
        store = Store(f"sqlite:///{name}/keydesk.db")
        store.migrate()
        make(store, options.keys, options.orgs, options.counters)
        ledger = Ledger(store, Path(name) / "ledger", SYSTEM)
        some_id = fill(ledger, options.rows, 90) if options.rows else ""
        ask(ledger, some_id, options.runs)
        store.close()


def make(store: Store, many: int, orgs: int, counters: int) -> None:
    """Make organisations, keys with this month's totals, and counts of refusals in the minutes up to now."""
    now, made = utc_now(), dict[str, Any](created_at=utc_now(), created_by="benchmark")
    minute = micros(now) // 60_000_000
    with store.write(SYSTEM) as tx:
        tx.session.execute(Organisation.__table__.insert(), [_org(n) | made for n in range(max(orgs, calls.ORGS))])
        plans = [{"id": f"plan_{n:012d}", "name": f"plan {n}", "multiplier": 10**6} for n in range(calls.PLANS)]
        tx.session.execute(Plan.__table__.insert(), [plan | {"unknown_fields": "pass"} | made for plan in plans])
        tx.session.execute(ApiKey.__table__.insert(), [_key(n, orgs) | made for n in range(many)])
        month = {"month": f"{now:%Y-%m}", "calls": 1, "spent": 1, "held": 0, "corrected": 0, "last_call_at": now}
        tx.session.execute(KeyMonth.__table__.insert(), [{"key_id": f"key_{n:012d}"} | month for n in range(many)])
        for start in range(0, counters, 100_000):
            counts = [
                {
                    "key_id": f"key_{n % many:012d}",
                    "refusal": "unauthorized",
                    "minute": minute - n // many,
                    "refused": 1,
                }
                for n in range(start, min(start + 100_000, counters))
            ]
            tx.session.execute(RefusalCount.__table__.insert(), counts)


def _org(number: int) -> dict[str, Any]:
    sums = {"suspended": False, "credited": 0, "settled": 0, "held": 0}
    return {"id": f"org_{number:012d}", "name": f"org {number}"} | sums


def _key(number: int, orgs: int) -> dict[str, Any]:
    return {
        "id": f"key_{number:012d}",
        "org_id": f"org_{number % orgs:012d}",
        "name": f"key {number}",
        "status": "active",
        "plan_id": f"plan_{number % calls.PLANS:012d}",
        "scope": "[]",
        "hold_policy": "strict",
        "display": "sk-…",
        "version": 1,
    }


def ask(ledger: Ledger, some_id: str, runs: int) -> None:
    """Time the questions, before and after the counters are folded."""
    store = ledger.store
    now = utc_now().replace(year=LAST_DAY.year, month=LAST_DAY.month, day=LAST_DAY.day)
    last = Period.days(30, now)

    def one_org() -> object:
        with store.read(SYSTEM) as tx:
            return summaries(tx, org="org 7")

    def all_keys() -> object:
        with store.read(SYSTEM) as tx:
            return summaries(tx)

    def far_back() -> object:
        return requests.search(ledger, period=last, limit=PAGE + 1, before=(now - timedelta(days=20), ""))

    def arguments() -> object:
        found = snapshot_reader.read(ledger, Thresholds(), None, None)
        return [found.key_argument(key) for key in found.keys]

    questions: dict[str, Callable[[], object]] = {
        "keys of one organisation": one_org,
        "all keys": all_keys,
        "one request by its id": lambda: requests.search(ledger, request_id=some_id),
        "spend per key, 30 days": lambda: spend.table(ledger, ["key"], last),
        "newest page of requests": lambda: requests.search(ledger, period=last, limit=PAGE + 1),
        "a page of requests far back": far_back,
        "refusals, 30 days": lambda: refusals.table(ledger, last),
        "refusals, until now": lambda: refusals.table(ledger, Period.days(30, utc_now())),
        "audits: what findings read, and each key named": arguments,
    }
    started = {name: _timed(act, runs if "audits" not in name else 1) for name, act in questions.items()}
    began = time.perf_counter()
    folded = refusal_counts.fold(store, utc_now() + refusal_counts.BY_MINUTE + timedelta(days=1))
    took = time.perf_counter() - began
    after = _timed(questions["refusals, until now"], runs)
    table(["question", "first ms", "p50 ms"], [[name, *_ms(times)] for name, times in started.items()])
    print(f"\n{folded:,} counters folded in {took:.1f} s; refusals until now then: {_ms(after)[1]} ms")


def _timed(act: Callable[[], object], runs: int) -> tuple[float, float]:
    times = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        act()
        times.append(time.perf_counter() - started)
    return times[0], median(times[1:])


def _ms(times: tuple[float, float]) -> list[str]:
    return [f"{value * 1000:,.0f}" for value in times]


if __name__ == "__main__":
    main()
