"""Crashes: kill -9 at random moments under load; afterwards the books must balance to the nano-USD.

One run: calls are under way on every gateway, the ledger is being drained and somebody uses the dashboard. After a
random number of calls a victim is killed. It is started again; once the dead one's lease is over and its holds are
swept, callers pause and the books are compared with three witnesses: the provider, which knows what was forwarded;
the callers, who know what they read to its end; and `keydesk reconcile`.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.fleet import Fleet
from tests.chaos.load import Callers, whole_costs
from tests.chaos.report import Report
from tests.chaos.stage import Stage
from tests.chaos.stores import Place, log_rows, open_reader, wait_until
from tests.chaos.visitor import Visitor
from toolkit.core.money import NANO

RICH = 1_000_000 * NANO
CALLERS = 16
LONGEST_WAIT = 120
"""Milliseconds that the provider may take: a kill meets calls in every state."""

MOST_CALLS = 120
"""Calls after which a victim is killed at the latest."""

SWEPT_WITHIN = 20.0
PROGRESS_WITHIN = 60.0

VICTIMS = ("gateway", "worker", "drain", "dashboard", "gateways", "everything", "pause")
"""`gateways`: all of them at once. `everything`: all processes and the store's server, at the moment at which a caller
has read the end of an answer. `pause`: a gateway stands still until its lease is over, and then goes on."""

SERVER_VICTIMS = ("server", "backend")
"""The store's server, where it has one: all of it, or one of its processes, at which it drops all the others."""


class _Scene:
    """The load, and what is done to the processes meanwhile."""

    def __init__(self, report: Report, place: Place, fleet: Fleet, stage: Stage, seed: int) -> None:
        self._report, self._place, self._fleet, self._stage = report, place, fleet, stage
        self._random = random.Random(seed)
        self._seed = seed
        org = stage.add_org("crashing", RICH)
        self._keys = [stage.add_key(org) for _ in range(6)]
        self._known: set[str] = set()

    async def play(self, victims: Sequence[str], progress: Callable[[str], None]) -> Callers:
        """Kill one victim after the other; return the callers' session."""
        visitor = Visitor(self._fleet.dashboard_url)
        leaving = asyncio.Event()
        async with Callers(self._fleet.urls, self._seed, LONGEST_WAIT) as session:
            visiting = asyncio.create_task(visitor.visit(leaving))
            try:
                for number, victim in enumerate(victims, 1):
                    before = len(self._report.violations)
                    try:
                        await self._run(session, victim)
                    except TimeoutError as late:
                        self._report.violations.append(f"after {victim}: {late or 'no call was answered any more'}")
                    found = len(self._report.violations) - before
                    progress(
                        f"crash on {self._place.kind} {number:,}/{len(victims):,}: {victim} killed, "
                        f"{len(session.calls):,} calls so far, {found} violations"
                    )
            finally:
                leaving.set()
                await visiting
        self._report.figures["dashboard pages made"] = visitor.visits
        return session

    async def _run(self, session: Callers, victim: str) -> None:
        rest = asyncio.Event()
        busy = [asyncio.create_task(self._call(session, rest)) for _ in range(CALLERS)]
        try:
            await self._after(session, self._random.randint(CALLERS, MOST_CALLS))
            await self._strike(session, victim)
            # The others go on, and the one that was killed works again, before the callers take a rest.
            await self._after(session, CALLERS)
        finally:
            rest.set()
            await asyncio.gather(*busy)
        self._report.count(f"kills: {victim}")
        await asyncio.to_thread(self._compare, session, victim)

    async def _call(self, session: Callers, rest: asyncio.Event) -> None:
        while not rest.is_set():
            await session.call(self._random.choice(self._keys))

    async def _after(self, session: Callers, calls: int) -> None:
        """Wait until so many more calls have got a whole answer."""
        async with asyncio.timeout(PROGRESS_WITHIN):
            await session.answered_more(calls)

    async def _strike(self, session: Callers, victim: str) -> None:
        fleet = self._fleet
        if victim == "gateway":
            gateway = self._random.choice(fleet.gateways)
            gateway.kill()
            gateway.start()
            await asyncio.to_thread(gateway.wait_ready)
        elif victim == "worker":
            fleet.gateways[0].kill_worker()
        elif victim in {"drain", "dashboard"}:
            part = fleet.drain if victim == "drain" else fleet.dashboard
            part.kill()
            part.start()
            await asyncio.to_thread(part.wait_ready)
        elif victim == "gateways":
            for gateway in fleet.gateways:
                gateway.kill()
            await self._start_gateways()
        elif victim == "everything":
            await self._kill_everything(session)
        elif victim == "pause":
            gateway = self._random.choice(fleet.gateways)
            leases = len(self._leases())
            gateway.freeze()
            # On SQLite it may stand still with the write lock in its hand; then nobody can sweep before it goes on.
            with contextlib.suppress(TimeoutError):
                await asyncio.to_thread(
                    wait_until, lambda: len(self._leases()) < leases, "a lease to be swept", fleet.lease * 2
                )
            gateway.thaw()
        elif victim == "server":
            self._place.kill()
            await asyncio.to_thread(self._place.restart)
        elif victim == "backend":
            await asyncio.to_thread(self._place.kill_one)
        else:
            raise ValueError(f"there is no victim {victim!r}")

    async def _kill_everything(self, session: Callers) -> None:
        """Kill all at the moment at which an answer has been read, and see that what was read is in the store."""
        fleet = self._fleet
        parts = [*fleet.gateways, fleet.drain, fleet.dashboard]
        await self._after(session, 1)
        for part in parts:
            part.kill()
        self._place.kill()
        told = whole_costs(session.calls)
        await asyncio.to_thread(self._place.restart)
        rows = await asyncio.to_thread(self.rows)
        charged = {row["request_id"]: row["cost"] for row in rows if row["outcome"] == "completed"}
        for request_id in told.keys() - charged.keys():
            self._report.violations.append(f"{request_id} was read to its end, and its charge is not in the store")
        for part in (fleet.drain, fleet.dashboard):
            part.start()
        await self._start_gateways()
        await asyncio.to_thread(fleet.dashboard.wait_ready)

    async def _start_gateways(self) -> None:
        for gateway in self._fleet.gateways:
            gateway.start()
        for gateway in self._fleet.gateways:
            await asyncio.to_thread(gateway.wait_ready)

    def _leases(self) -> list[tuple[Any, ...]]:
        return self._ask("SELECT id FROM gateway_instance")[0]

    def _ask(self, *queries: str) -> list[list[tuple[Any, ...]]]:
        reader = open_reader(self._place.url)
        try:
            return reader.snapshot(*queries)
        finally:
            reader.close()

    def rows(self) -> list[dict[str, Any]]:
        reader = open_reader(self._place.url)
        try:
            return log_rows(reader, self._stage.ledger)
        finally:
            reader.close()

    def _compare(self, session: Callers, victim: str) -> None:
        """Compare the books with what provider and callers know. Nobody calls meanwhile."""
        report, fleet = self._report, self._fleet

        try:
            wait_until(
                lambda: not self._ask("SELECT request_id FROM hold")[0], "every hold to be released", SWEPT_WITHIN
            )
        except TimeoutError as late:
            report.violations.append(f"after {victim}: {late}")
        rows = self.rows()
        problems = compare(rows, fleet.witnessed(), session)
        ((settled, held),), totals = self._ask(
            "SELECT sum(settled), sum(held) FROM organisation",
            "SELECT key_id, sum(calls), sum(spent), sum(held) FROM key_month GROUP BY key_id",
        )
        summed = sum(row["cost"] for row in rows)
        if settled != summed:
            problems.append(f"the wallet settled {settled}, its rows sum to {summed}")
        if held:
            problems.append(f"the wallet still holds {held}")
        calls_of = Counter(row["key_id"] for row in rows if row["outcome"] != "refused")
        if any(calls != calls_of[key] or held for key, calls, _, held in totals):
            problems.append(f"the keys' totals are {totals}, their rows {dict(calls_of)}")
        problems += self._stage.reconcile()
        report.violations += [f"after {victim}: {problem}" for problem in problems if problem not in self._known]
        self._known.update(problems)


def compare(rows: Sequence[dict[str, Any]], witnessed: Sequence[str], session: Callers) -> list[str]:
    """Return what does not fit: rows against the provider's journal and against what callers read."""
    problems = []
    times = Counter(row["request_id"] for row in rows)
    problems += [f"{request_id} has {count} rows" for request_id, count in times.items() if count > 1]
    by_id = {row["request_id"]: row for row in rows}
    forwarded = Counter(witnessed)
    problems += [f"{request_id} was forwarded {count} times" for request_id, count in forwarded.items() if count > 1]
    problems += [f"{request_id} was forwarded and has no row" for request_id in forwarded if request_id not in by_id]
    for row in rows:
        if row["cost"] and row["request_id"] not in forwarded:
            problems.append(f"{row['request_id']} was charged {row['cost']} and never forwarded")
        if row["overrun"]:
            problems.append(f"{row['request_id']} cost {row['overrun']} beyond its hold")
        if row["outcome"] == "abandoned" and row["cost"]:
            problems.append(f"{row['request_id']} was written off and cost {row['cost']}")
    for request_id, cost in whole_costs(session.calls).items():
        found = by_id.get(request_id)
        if found is None or (found["outcome"], found["cost"]) != ("completed", cost):
            booked = None if found is None else (found["outcome"], found["cost"], found["error"])
            problems.append(f"{request_id} was read to its end and cost {cost}; its row says {booked}")
    for call in session.calls:
        if call.whole and call.error:
            problems.append(f"{call.request_id}: {call.error['message']}")
        if call.status not in {0, 200, 503}:
            problems.append(f"{call.request_id}: status {call.status}, {call.error.get('message')}")
    return problems


def run(
    place: Place,
    folder: Path,
    *,
    victims: Sequence[str],
    seed: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Kill victims one after the other, and compare the books after each.

    Args:
        place: the key store, empty.
        folder: for data and logs.
        victims: of `VICTIMS` and `SERVER_VICTIMS`, one a run.
        seed: of what is asked for and when a victim dies.
        progress: told of each run.
    """
    report = Report(f"crash on {place.kind}", {"runs": len(victims)})
    fleet = Fleet(folder, place.url)
    for workers in (2, 1):
        fleet.add_gateway(workers)
    stage = Stage(folder, fleet.environment)
    stage.open(fleet.witness_url)
    try:
        scene = _Scene(report, place, fleet, stage, seed)
        with fleet.running(fleet.witness, *fleet.gateways, fleet.drain, fleet.dashboard):
            session = asyncio.run(scene.play(victims, progress))
            rows = scene.rows()
        report.require(not (said := fleet.reconcile()), said)
        outcomes = Counter(row["outcome"] for row in rows)
        read = whole_costs(session.calls)
        report.figures |= {
            "calls tried": len(session.calls),
            "forwarded": len(fleet.witnessed()),
            "rows": len(rows),
            **{f"  {outcome}": count for outcome, count in sorted(outcomes.items())},
            "read to the end": len(read),
            "charged, end not read": sum(bool(row["cost"]) and row["request_id"] not in read for row in rows),
            "lost settlements": fleet.lost_settlements(),
        }
    finally:
        stage.close()
    return report


def draw(runs: int, kind: str, seed: int) -> list[str]:
    """Return victims at random, each of them about equally often."""
    names = [*VICTIMS, *SERVER_VICTIMS] if kind == "postgresql" else list(VICTIMS)
    victims = [names[number % len(names)] for number in range(runs)]
    random.Random(seed).shuffle(victims)
    return victims
