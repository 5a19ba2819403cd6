"""The actors of the ledger's chaos: producers, drains, a compactor and readers. Each is a process, and may be killed.

They are forked off a server that has everything loaded, so that a killed one is back within milliseconds. What they
find they write into journals, a line at a time, which outlive them.
"""

import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, event, func, select

import toolkit
from tests.account import UNIQUE, fixed
from tests.chaos.ledger_judge import SEEN, judge_all, sorted_out
from tests.chaos.ledger_script import DAYS, HELD, ORGS, PRODUCERS, SHEET, Slice, part
from tests.chaos.stage import Caller
from tests.chaos.stores import Reader, open_reader
from toolkit.admin import secret_lookup
from toolkit.billing.call import Call, Ending
from toolkit.billing.rules import Admit, Settle
from toolkit.billing.state import Job
from toolkit.billing.stores import open_billing_store
from toolkit.cli import cli
from toolkit.cli import ledger as command
from toolkit.cli.supervisor import StopSignals
from toolkit.core.errors import Unavailable
from toolkit.core.policy import Outcome, Role
from toolkit.core.pricing import MILLION
from toolkit.core.usage import Usage
from toolkit.ledger import compaction, snapshot
from toolkit.ledger.ledger import Ledger
from toolkit.store.actor import Actor
from toolkit.store.tables import CatalogVersion, HoldRow, KeyMonth
from toolkit.workspace import Workspace

FULL = 20_000
"""Rows of a segment that compaction leaves alone: a hundredth of what is usual, as the ledger is."""

DRAIN_EVERY, MERGE_EVERY, COMPACT_EVERY = 0.02, 0.5, 5.0
"""Seconds: a hurried drain, so that most kills meet it at work."""

MOST_ROWS = 120
"""Rows of a producer's transaction at most."""

REST = 0.03
"""Seconds that a producer, reader or compactor rests at most."""

DAWDLES, LONGEST_DAWDLE = 0.15, 0.1
"""How often an actor waits before a transaction of the key store, and for how many seconds at most."""

COLUMNS = ", ".join(column.name for column in snapshot.OUTBOX.columns)


@dataclass(frozen=True)
class Scenery:
    """What all actors know.

    Args:
        store_url: of the key store.
        environment: by which Keydesk finds it, and the ledger.
        folder: of logs and journals.
        callers: the keys of each producer, one of each organisation.
        plan: of the keys.
        grace: seconds that a replaced file stays; no query takes that long.
    """

    store_url: str
    environment: dict[str, str] = field(repr=False)
    folder: Path
    callers: tuple[tuple[Caller, ...], ...]
    plan: str
    grace: float

    def log(self, name: str) -> Path:
        """Return where an actor's words go."""
        return self.folder / f"{name}.log"

    def journal(self, name: str) -> Path:
        """Return where an actor's findings go, as lines of JSON."""
        return self.folder / f"{name}.jsonl"


def begin(scenery: Scenery, name: str) -> None:
    """Take up an actor's place in a process that has just been forked."""
    log = os.open(scenery.log(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(scenery.environment)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    event.listen(Engine, "begin", _dawdle)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _dawdle(_connection: Connection) -> None:
    """Now and then wait before a transaction, so that others get in between two that should have been one."""
    if random.random() < DAWDLES:
        time.sleep(random.uniform(0, LONGEST_DAWDLE))


def _opened(open_: Callable[[], Workspace]) -> Workspace:
    """Open Keydesk, and wait for the key store's server while it is away."""
    while True:
        try:
            return open_()
        except Unavailable:
            if os.environ["KEYDESK_STORE_URL"].startswith("sqlite"):
                raise
            time.sleep(REST)


def produce(scenery: Scenery, number: int, last: bool = False) -> None:
    """Write the script's rows as a gateway does: hold, then settle and hold the next ones, in one transaction.

    Args:
        last: only settle what is held, and end.
    """
    begin(scenery, f"producer-{number}")
    workspace = _opened(lambda: toolkit.open(write=True))
    producer = _Producer(scenery, number, workspace)
    chance = random.Random()
    with StopSignals() as stop, closing(producer):
        producer.resume()
        while not (stop.count or last):
            kind = chance.random()
            producer.step(1 if kind < 0.6 else chance.randint(2, 20) if kind < 0.9 else chance.randint(50, MOST_ROWS))
            stop.wait(chance.uniform(0, REST))
        while producer.admitted > producer.settled:
            producer.step(0)


class _Producer:
    def __init__(self, scenery: Scenery, number: int, workspace: Workspace) -> None:
        self._callers, self._plan, self._part = scenery.callers[number], scenery.plan, part(number)
        self._workspace, self._billing_store = workspace, open_billing_store(workspace.store)
        self._name = f"producer-{number}"

    def resume(self) -> None:
        """Find out from the store how far this producer has come, whoever was it before."""
        while True:
            try:
                with self._workspace.read() as tx:
                    keys = [caller.key_id for caller in self._callers]
                    calls = tx.session.scalar(select(func.sum(KeyMonth.calls)).where(KeyMonth.key_id.in_(keys)))
                    ids = tx.session.scalars(select(HoldRow.request_id).where(HoldRow.key_id.in_(keys))).all()
                    digests = [[d.value for d in self._workspace.keyring.digests(c.secret)] for c in self._callers]
                    self._facts = [secret_lookup.find_live(tx, digest) for digest in digests]
                    self._catalog = tx.session.scalars(select(CatalogVersion.version)).one()
                break
            except Unavailable:
                time.sleep(REST)
        self.settled = int(calls or 0)
        held = sorted(int(request_id[-9:]) for request_id in ids)
        self.admitted = self.settled + len(held)
        assert held == list(range(self.settled + 1, self.admitted + 1)), f"settled {self.settled}, but holds are {held}"
        self._held = self._rows(self.settled + 1, self.admitted)

    def step(self, new: int) -> None:
        """Settle what is held, and hold for so many new rows."""
        rows = self._rows(self.admitted + 1, self.admitted + new)
        jobs: list[Job[Any]] = [self._settle(row) for row in self._held]
        jobs += [Admit(self._call(row), fixed(HELD), self._catalog, self._name) for row in rows]
        try:
            results = self._billing_store.run(jobs)
        except (Unavailable, *UNIQUE):
            # Not known whether it was committed; or what a killed predecessor had sent came in between.
            return self.resume()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if None in results:
            return self.resume()
        self._held, self.settled, self.admitted = rows, self.admitted, self.admitted + new
        return None

    def close(self) -> None:
        self._billing_store.close()

    def _rows(self, first: int, last: int) -> list[dict[str, Any]]:
        if last < first:
            return []
        rows: list[dict[str, Any]] = self._part.log(self._callers, self._plan, first, last).to_pylist()
        return rows

    def _call(self, row: dict[str, Any]) -> Call:
        (facts,) = (known for known in self._facts if known is not None and known.key_id == row["key_id"])
        same = ("request_id", "dialect", "endpoint", "stream", "model", "upstream", "price_id", "tags")
        given = {name: row[name] for name in same}
        return Call(key=facts, received_at=row["admitted_at"], sheet=SHEET, multiplier=MILLION, **given)

    def _settle(self, row: dict[str, Any]) -> Settle:
        counts = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
        ending = Ending(
            Outcome.COMPLETED,
            row["settled_at"],
            row["status"],
            Usage(**{name: row[name] for name in counts}),
            response_id=row["response_id"],
            first_byte_ms=row["first_byte_ms"],
            duration_ms=row["duration_ms"],
        )
        return Settle(self._call(row), ending)


def drain(scenery: Scenery, number: int) -> None:
    """Run `keydesk ledger sync --follow`, in a hurry."""
    begin(scenery, f"drain-{number}")
    command.DRAIN_EVERY, command.MERGE_EVERY, command.COMPACT_EVERY = DRAIN_EVERY, MERGE_EVERY, COMPACT_EVERY
    compaction.FULL = FULL
    while True:
        try:
            cli(["ledger", "sync", "--follow"])
        except SystemExit as end:
            # It says so and ends if the store's server is away when it begins; whatever keeps it up starts it again.
            if not end.code or scenery.store_url.startswith("sqlite"):
                raise
            time.sleep(REST)


def compact(scenery: Scenery, number: int) -> None:
    """Merge all that is small and sweep, or verify, over and over."""
    begin(scenery, f"compactor-{number}")
    compaction.FULL = FULL
    ledger = _opened(lambda: toolkit.open(write=True)).ledger
    chance = random.Random()
    with StopSignals() as stop, scenery.journal("compactor").open("ab", buffering=0) as journal:
        while not stop.count:
            found: dict[str, Any] = {"who": "the compactor", "began": time.monotonic()}
            try:
                if chance.random() < 0.8:
                    ledger.compact()
                    found["swept"] = ledger.sweep(timedelta(seconds=scenery.grace))
                else:
                    found["verified"], problems = 1, ledger.verify()
                    if time.monotonic() - found["began"] < scenery.grace:
                        found["wrong"] = [f"verify says: {problem}" for problem in problems]
            except Unavailable as error:
                found |= _failure(error, scenery, found)
            _note(journal, found)
            stop.wait(chance.uniform(0, REST))


def read(scenery: Scenery, number: int) -> None:
    """Look at the ledger as analysts do, and judge what it shows."""
    begin(scenery, f"reader-{number}")
    reader = _Reader(scenery, number)
    with StopSignals() as stop, scenery.journal(f"reader-{number}").open("ab", buffering=0) as journal:
        while not stop.count:
            _note(journal, reader.read())
            stop.wait(reader.chance.uniform(0, REST))


class _Reader:
    def __init__(self, scenery: Scenery, number: int) -> None:
        self._scenery, self._who = scenery, f"reader {number}"
        workspace = _opened(toolkit.open)
        # None is whoever sees all; the others are an organisation's analysts.
        self._ledgers: dict[int | None, Ledger] = {None: workspace.ledger}
        for org in range(ORGS):
            actor = Actor("analyst@chaos.test", Role.ANALYST, scenery.callers[0][org].org_id)
            self._ledgers[org] = workspace.acting_as(actor).ledger
        self._committed = _Committed(scenery)
        self.chance = random.Random()

    def read(self) -> dict[str, Any]:
        """Read once; return what is to be known of it."""
        found: dict[str, Any] = {"who": self._who, "calls": [], "wrong": []}
        before = self._committed.calls()
        found["began"] = time.monotonic()
        try:
            if self.chance.random() < 0.3:
                what, look = self._look_up(before)
            else:
                what, look = self._ask(found)
            verdict = look()
        except Unavailable as error:
            return found | _failure(error, self._scenery, found)
        found["ended"] = time.monotonic()
        wrong = verdict(before, self._committed.calls())
        found["kind"] = what.split()[0]
        found["wrong"] = [f"{self._who}, {what}, {found['began']:.3f} to {found['ended']:.3f}: {say}" for say in wrong]
        return found

    def _ask(self, found: dict[str, Any]) -> "tuple[str, Callable[[], _Verdict]]":
        org = self.chance.choice([None, None, *range(ORGS)])
        day = self.chance.choice(DAYS)
        rows, what = self.chance.choice(
            [
                (Slice(), "all"),
                (Slice(), "all"),
                (Slice.of(day.replace(day=1), timedelta(days=31 if day.month == 10 else 30)), f"month {day:%Y-%m}"),
                (Slice.of(day, timedelta(days=1)), f"day {day:%Y-%m-%d}"),
                (Slice.of(day, timedelta(minutes=self.chance.randint(1, 120))), f"span from {day:%Y-%m-%d}"),
            ]
        )
        rows = replace(rows, org=org)

        def look() -> "_Verdict":
            answer = self._ledgers[org].sql(SEEN, period=rows.period).to_pylist()
            seen, totals = sorted_out(answer, self._scenery.callers)
            if org is None:
                found["calls"] = [total.calls for total in totals]
            return lambda before, after: judge_all(rows, seen, totals, before, after)

        return what if org is None else f"{what} of organisation {org}", look

    def _look_up(self, before: Sequence[int]) -> "tuple[str, Callable[[], _Verdict]]":
        producer = self.chance.randrange(PRODUCERS)
        there = before[producer]
        number = self.chance.choice([self.chance.randint(1, max(there, 1)), max(there, 1), there + 1, there + 200])
        of = part(producer)

        def look() -> "_Verdict":
            answer = self._ledgers[None].sql(f"SELECT {COLUMNS} FROM usage", request_id=of.request_id(number))
            expected = of.log(self._scenery.callers[producer], self._scenery.plan, number, number).to_pylist()

            def verdict(before: Sequence[int], after: Sequence[int]) -> list[str]:
                right = [expected] * (number <= after[producer]) + [[]] * (number > before[producer])
                rows = answer.to_pylist()
                if rows in right:
                    return []
                if len(rows) != 1 or expected not in right:
                    return [f"expected {expected if expected in right else 'nothing'}, got {rows}"]
                wrong = {name for name, value in expected[0].items() if rows[0][name] != value}
                meant, got = ({name: row[name] for name in wrong} for row in (expected[0], rows[0]))
                return [f"expected {meant}, got {got}"]

            return verdict

        return f"id {of.request_id(number)}", look


_Verdict = Callable[[Sequence[int], Sequence[int]], list[str]]


class _Committed:
    """How many rows each producer has committed, asked past the product."""

    def __init__(self, scenery: Scenery) -> None:
        self._url = scenery.store_url
        self._producer = {caller.key_id: number for number, own in enumerate(scenery.callers) for caller in own}
        self._reader: Reader | None = None

    def calls(self) -> list[int]:
        """Ask now; waits for a server that is away."""
        while True:
            try:
                self._reader = self._reader or open_reader(self._url)
                (rows,) = self._reader.snapshot("SELECT key_id, calls FROM key_month")
                break
            except (psycopg.Error, sqlite3.OperationalError):
                self._reader = None
                time.sleep(REST)
        calls = [0] * PRODUCERS
        for key, count in rows:
            calls[self._producer[key]] += count
        return calls


def _failure(error: Unavailable, scenery: Scenery, found: dict[str, Any]) -> dict[str, Any]:
    """Return what to note of a failure: right if the key store's server was away, or the files were long gone."""
    about_files = "The segment" in str(error) or "The ledger's files" in str(error)
    excused = "The key store" in str(error) and not about_files and not scenery.store_url.startswith("sqlite")
    late = time.monotonic() - found["began"] >= scenery.grace
    wrong = [] if excused or late else [f"{found['who']}, from {found['began']:.3f} on: {error}"]
    return {"unavailable": 1, "wrong": wrong}


def _note(journal: Any, found: dict[str, Any]) -> None:
    journal.write(b"\n" + json.dumps(found).encode())  # a new line first: a killed one may have left half of its last
