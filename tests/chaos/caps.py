"""Caps: many callers, several gateways, tight limits and small wallets, and nothing goes over by one nano-USD.

Limits and wallets are raised a little whenever they have refused for a while, so that the calls fight for the last
nano-USD all the time instead of once. While that goes on a watcher looks at the store; afterwards the journal is
replayed, and every 402 is judged.
"""

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.chaos import journal
from tests.chaos.fleet import Fleet
from tests.chaos.load import Call, Callers
from tests.chaos.replay import judge, replay
from tests.chaos.report import Report
from tests.chaos.stage import Caller, Stage
from tests.chaos.stores import Place, log_rows, open_reader
from tests.conftest import ROOT
from toolkit.core.money import NANO

RICH = 1_000_000 * NANO
TIGHT = NANO // 5
SMALL = NANO // 2
RAISE = NANO // 5
RAISE_AFTER = 5
"""Refusals by one limit or wallet after which it is raised by `RAISE`."""


def run(
    place: Place,
    folder: Path,
    *,
    calls: int,
    callers: int,
    seed: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Make calls on tight limits and small wallets, and judge what came of it.

    Args:
        place: the key store, empty.
        folder: for data and logs.
        calls: how many.
        callers: how many at once.
        seed: of what is asked for.
        progress: told how far it is.
    """
    report = Report(f"caps on {place.kind}")
    fleet = Fleet(folder, place.url, lease=30)
    for workers in (2, 1, 1):  # four processes on one store: two that share a port, and two alone
        fleet.add_gateway(workers)
    stage = Stage(folder, fleet.environment)
    stage.open(fleet.witness_url)
    journal.install(place.url)
    try:
        with fleet.running(fleet.witness, *fleet.gateways):
            watcher = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.watcher", "--store", place.url],
                stdout=subprocess.PIPE,
                cwd=ROOT,
            )
            try:
                scene = _Scene(stage)
                asyncio.run(scene.play(fleet.urls, calls, callers, seed, progress))
            finally:
                watcher.send_signal(signal.SIGTERM)
                seen, _ = watcher.communicate(timeout=60)
        _judge(report, fleet, stage, scene, json.loads(seen))
    finally:
        stage.close()
    return report


class _Scene:
    """Organisations and keys that are short of money, and who gives them a little more."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        rich, poor, both = (
            stage.add_org("limited keys", RICH),
            stage.add_org("small wallet", SMALL),
            stage.add_org("limited keys, small wallet", SMALL),
        )
        self.sampler = stage.add_key(rich)
        self.keys = [stage.add_key(rich, TIGHT) for _ in range(6)] + [stage.add_key(poor) for _ in range(4)]
        self.keys += [stage.add_key(both, TIGHT) for _ in range(4)]
        self.calls: list[Call] = []
        self._refusals: Counter[str] = Counter()
        self.raises: list[asyncio.Task[None]] = []

    async def play(self, urls: list[str], calls: int, callers: int, seed: int, progress: Callable[[str], None]) -> None:
        """Make the calls."""
        async with Callers(urls, seed) as session:
            self.calls = session.calls
            # What calls of each kind hold, on a key that refuses nothing.
            for kind in sorted({kind.least for kind in session.kinds}, key=lambda kind: (kind.size, kind.bound)):
                await session.call(self.sampler, kind=kind)
            left = calls - len(session.calls)
            busy = [asyncio.create_task(self._caller(session, left, callers, n)) for n in range(callers)]
            while not all(task.done() for task in busy):
                await asyncio.wait(busy, timeout=5)
                progress(f"caps: {len(session.calls):,} of {calls:,} calls")
            await asyncio.gather(*busy, *self.raises)

    async def _caller(self, session: Callers, calls: int, callers: int, number: int) -> None:
        for _ in range(number, calls, callers):
            call = await session.call(session.random.choice(self.keys))
            if call.status == 402:
                self._refused(call.caller, call.error["details"]["limit"])

    def _refused(self, caller: Caller, by: str) -> None:
        what = caller.key_id if by == "monthly_limit" else caller.org_id
        self._refusals[what] += 1
        if self._refusals[what] % RAISE_AFTER == 0:
            if by == "monthly_limit":
                work = asyncio.to_thread(self.stage.raise_limit, caller, RAISE)
            else:
                work = asyncio.to_thread(self.stage.credit, caller.org_id, RAISE)
            self.raises.append(asyncio.create_task(work))


def _judge(report: Report, fleet: Fleet, stage: Stage, scene: _Scene, seen: dict[str, object]) -> None:
    reader = open_reader(stage.workspace.settings.store_url)
    try:
        lines, rows = journal.read(reader), log_rows(reader, stage.ledger)
        (counted, wallets) = reader.snapshot(
            "SELECT key_id, refused FROM refusal_count WHERE refusal <> 'unauthorized'",
            "SELECT name, settled, held FROM organisation",
        )
    finally:
        reader.close()
    calls = scene.calls
    done = replay(lines)
    refusals = judge(done, calls)
    watched = seen["violations"]
    assert isinstance(watched, list)
    report.violations += done.violations + watched
    report.figures |= {
        "calls": len(calls),
        "answered whole": sum(call.whole for call in calls),
        "402 by a monthly limit": refusals.get("api_key_quota_exceeded", 0),
        "402 by a wallet": refusals.get("billing_shortfall", 0),
        "limits and wallets raised": len(scene.raises),
        "changes of totals replayed": done.count,
        "snapshots by the watcher": int(str(seen["snapshots"])),
    }
    for call in calls:
        report.require(
            call.whole or call.status == 402, f"{call.request_id}: status {call.status}, {call.error.get('message')}"
        )
        report.require(not call.whole or not call.error, f"{call.request_id}: {call.error.get('message')}")
    # What the callers read is what stands in the books.
    told = {call.request_id: call.cost for call in calls if call.whole}
    booked = {row["request_id"]: row["cost"] for row in rows if row["outcome"] != "refused"}
    report.require(told == booked, f"{len(told.items() ^ booked.items())} calls and charges differ")
    report.require(sorted(told) == sorted(fleet.witnessed()), "the witness saw other calls than were answered")
    report.require(sum(told.values()) == sum(settled for _, settled, _ in wallets), "the wallets' sums differ")
    report.require(not any(held for _, _, held in wallets), "a wallet still holds money")
    by_key = Counter(call.caller.key_id for call in calls if call.status == 402)
    in_store: Counter[str] = Counter()
    for key, refused in counted:
        in_store[key] += refused
    report.require(by_key == in_store, "the store counted other refusals than the callers met")
    messages = {call.request_id: call.error["message"] for call in calls if call.status == 402}
    wrong = [row for row in rows if row["outcome"] == "refused" and messages.get(row["request_id"]) != row["error"]]
    report.require(not wrong, f"{len(wrong)} logged refusals do not say what their callers were told")
    report.violations += stage.reconcile()
