"""Fail-over: one of the two upstreams of a model is killed under load, again and again.

Callers go on meanwhile, on two gateways. An upstream that is dead has made nothing for who could not reach it, so no
such call may fail: each one that failed before its answer began must be one that an upstream had received, or whose new
connection it had taken, so that nobody but the upstream could know whether it had read it. Each has one row, and what
was read to its end is charged at what the caller was told, once, though both upstreams may have received it: a kept
connection is closed without a word when its upstream dies.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.chaos.crash import RICH
from tests.chaos.fleet import Fleet, Process, Provider
from tests.chaos.load import Callers, whole_costs
from tests.chaos.report import Report
from tests.chaos.stage import MODEL, Stage
from tests.chaos.stores import Place, log_rows, open_reader, wait_until
from toolkit.admin.model_routes import RouteWay, set_route
from toolkit.admin.upstreams import add_upstream
from toolkit.core.dialect import Dialect

CALLERS = 16
LONGEST_WAIT = 60
"""Milliseconds that an upstream may take: a kill meets calls in every state."""

MOST_CALLS = 80
"""Calls after which an upstream is killed at the latest, and started again."""

PROGRESS_WITHIN = 60.0

_SECOND = "second"
_LOST = "no answer: closed"
"""What the row of a call says whose connection was lost after it had been made; it may have been read, or not."""


def run(
    place: Place, folder: Path, *, kills: int, seed: int = 1, progress: Callable[[str], None] = lambda _: None
) -> Report:
    """Kill upstreams, now the one and now the other, and compare the books.

    Args:
        place: the key store, empty.
        folder: for data and logs.
        kills: how many.
        seed: of what is asked for, and when an upstream dies.
        progress: told of each kill.
    """
    report = Report(f"failover on {place.kind}", {"kills": kills})
    fleet = Fleet(folder, place.url)
    for _ in range(2):
        fleet.add_gateway()
    other = fleet.add_witness()
    stage = Stage(folder, fleet.environment)
    stage.open(fleet.witness_url)
    with stage.workspace.write() as tx:
        add_upstream(tx, _SECOND, Dialect.OPENAI, f"{other.url}/v1", "TEST_UPSTREAM_API_KEY")
        set_route(tx, MODEL, [RouteWay("witness", weight=1), RouteWay(_SECOND, weight=1)])
    try:
        with fleet.running(fleet.witness, other.process, *fleet.gateways):
            victims = [fleet.witness, other.process]
            session = asyncio.run(_play(fleet, stage, victims, kills, random.Random(seed), progress))
            wait_until(lambda: not _ask(place, "SELECT request_id FROM hold"), "every hold to be released", 30)
        _judge(report, place, stage, fleet, other, session)
        report.require(not (said := fleet.reconcile()), said)
    finally:
        stage.close()
    return report


async def _play(
    fleet: Fleet,
    stage: Stage,
    victims: list[Process],
    kills: int,
    chance: random.Random,
    progress: Callable[[str], None],
) -> Callers:
    org = stage.add_org("failing over", RICH)
    keys = [stage.add_key(org) for _ in range(8)]
    async with Callers(fleet.urls, chance.randint(0, 10**6), LONGEST_WAIT) as session:
        rest = asyncio.Event()

        async def call() -> None:
            while not rest.is_set():
                await session.call(chance.choice(keys))

        async def after(calls: int) -> None:
            async with asyncio.timeout(PROGRESS_WITHIN):
                await session.answered_more(calls)

        busy = [asyncio.create_task(call()) for _ in range(CALLERS)]
        try:
            for number in range(kills):
                await after(chance.randint(CALLERS, MOST_CALLS))
                victim = victims[number % len(victims)]
                victim.kill()
                await after(chance.randint(CALLERS, MOST_CALLS))
                victim.start()
                await asyncio.to_thread(victim.wait_ready)
                progress(f"failover {number + 1}/{kills}: {victim.name} killed, {len(session.calls):,} calls so far")
        finally:
            rest.set()
            await asyncio.gather(*busy)
    return session


def _ask(place: Place, query: str) -> list[tuple[object, ...]]:
    reader = open_reader(place.url)
    try:
        return reader.snapshot(query)[0]
    finally:
        reader.close()


def _judge(report: Report, place: Place, stage: Stage, fleet: Fleet, other: Provider, session: Callers) -> None:
    """Compare rows, callers and upstreams."""
    reader = open_reader(place.url)
    try:
        rows = log_rows(reader, stage.ledger)
    finally:
        reader.close()
    times = Counter(row["request_id"] for row in rows)
    by_id = {row["request_id"]: row for row in rows}
    received = {"witness": set(fleet.witnessed()), _SECOND: set(other.witnessed())}
    told = whole_costs(session.calls)
    for request_id, count in times.items():
        report.require(count == 1, f"{request_id} has {count} rows")
    for request_id, cost in told.items():
        row = by_id.get(request_id)
        booked = row and (row["outcome"], row["cost"])
        report.require(booked == ("completed", cost), f"{request_id} was read to its end and cost {cost}: {booked}")
        report.require(
            row is not None and request_id in received[row["upstream"]],
            f"{request_id} was answered by an upstream that never received it",
        )
    lost = [call for call in session.calls if call.status == 502]
    for call in session.calls:
        report.require(call.status in {200, 502}, f"{call.request_id}: status {call.status}, {call.error}")
        row = by_id.get(call.request_id)
        report.require(row is not None, f"{call.request_id} has no row")
    for call in lost:
        row = by_id[call.request_id]
        report.require(row["cost"] == 0, f"{call.request_id} failed and cost {row['cost']}")
        report.require(
            call.request_id in received["witness"] | received[_SECOND] or row["error"].startswith(_LOST),
            f"{call.request_id} failed, though no upstream had received it: {row['error']}",
        )
    report.figures |= {
        "calls": len(session.calls),
        "read to the end, each charged once": len(told),
        "went another way": sum(row["outcome"] == "completed" and bool(row["error"]) for row in rows),
        "streams that had begun and broke": sum(call.status == 200 and not call.whole for call in session.calls),
        "sent to an upstream that died, and lost": len(lost),
    }
