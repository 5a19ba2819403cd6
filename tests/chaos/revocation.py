"""Revocation: verbs on keys at random moments under load; no call that began after a verb returned is admitted by it.

A secret is dead from the moment at which the verb that killed it returned. Whether a call began after that is told by
one clock, the machine's monotonic one: the call's beginning is read before anything is sent. Right after each verb
every gateway is asked with what has just died, when what gateways remember is oldest. The other way round too: a call
with a live secret must not be refused.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.fleet import Fleet
from tests.chaos.load import Call, Callers, Kind
from tests.chaos.report import Report
from tests.chaos.stage import Caller, Stage
from tests.chaos.stores import Place, log_rows, open_reader
from toolkit.admin import keys
from toolkit.core.money import NANO

RICH = 1_000_000 * NANO
KEYS = 24
CALLERS = 24
SMALL = Kind(400, 16)
_ALWAYS = float("inf")


@dataclass
class Life:
    """When a secret must and when it must not admit, on the machine's monotonic clock.

    Args:
        known: from when on its owner had it.
        asked: when the verb that killed it was asked for.
        dead: when that verb returned.
        off: for each time that the key was disabled: asked, returned, enabling asked, enabling returned.
    """

    known: float
    asked: float = _ALWAYS
    dead: float = _ALWAYS
    off: list[list[float]] = field(default_factory=list)

    def must_refuse(self, call: Call) -> bool:
        """Whether the call began when the secret was dead, or lies wholly in a time when its key was disabled."""
        return call.began > self.dead or any(
            call.began > disabled and call.ended < enabling for _, disabled, enabling, _ in self.off
        )

    def must_admit(self, call: Call) -> bool:
        """Whether the call ended before any verb could have touched its secret, since it was last enabled."""
        return (
            call.began > self.known
            and call.ended < self.asked
            and all(call.ended < disabling or call.began > enabled for disabling, _, _, enabled in self.off)
        )


class _Scene:
    """Keys, the lives of their secrets, and the verbs."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self._stage = stage
        self._org = stage.add_org("revoked", RICH)
        self.lives: dict[str, Life] = {}
        self.callers: list[Caller] = []
        self.verbs: dict[str, int] = {}
        self.probes: list[Call] = []
        self._seed = seed
        self._disabled: set[str] = set()
        for _ in range(KEYS):
            self._add()

    def _add(self) -> None:
        caller = self._stage.add_key(self._org)
        self.lives[caller.secret] = Life(time.monotonic())
        self.callers.append(caller)

    async def play(self, urls: list[str], verbs: int, progress: Callable[[str], None]) -> list[Call]:
        """Use keys and change them, side by side; return every call that was made."""
        async with Callers(urls, self._seed, longest_wait=20) as session:
            stop = asyncio.Event()
            busy = [asyncio.create_task(self._call(session, stop)) for _ in range(CALLERS)]
            try:
                for number in range(verbs):
                    await asyncio.to_thread(self._change, session)
                    await self._probe(session)
                    # The next verb comes after a random number of calls.
                    pause = session.random.randint(0, CALLERS // 2)
                    await session.made_more(pause)
                    if number % 100 == 99:
                        progress(f"revocation: {number + 1:,} of {verbs:,} verbs, {len(session.calls):,} calls")
            finally:
                stop.set()
                await asyncio.gather(*busy)
            return session.calls

    async def _call(self, session: Callers, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await session.call(session.random.choice(self.callers), kind=SMALL)

    def _change(self, session: Callers) -> None:
        """Do something to a random key, and note when it was asked for and when it had returned."""
        pick = session.random
        caller = pick.choice(self.callers)
        life = self.lives[caller.secret]
        self._touched = caller.secret
        if caller.key_id in self._disabled and pick.random() < 0.7:
            verb = "enable"
            asked = life.off[-1][2] = time.monotonic()
            self._stage.change(keys.enable, caller)
            life.off[-1][3] = time.monotonic()
            self._disabled.discard(caller.key_id)
        else:
            verb = pick.choice(["rotate", "rotate", "disable", "delete"])
            if verb == "disable" and caller.key_id in self._disabled:
                verb = "rotate"
            asked = time.monotonic()
            if verb == "disable":
                life.off.append([asked, _ALWAYS, _ALWAYS, _ALWAYS])
                self._stage.change(keys.disable, caller)
                life.off[-1][1] = time.monotonic()
                self._disabled.add(caller.key_id)
            else:
                life.asked = asked
                if verb == "rotate":
                    secret = self._stage.rotate(caller)
                    life.dead = time.monotonic()
                    # The new secret of a disabled key is no better: it lives in the same off times.
                    off = [life.off[-1]] if caller.key_id in self._disabled else []
                    self.lives[secret] = Life(time.monotonic(), off=off)
                    caller.secret = secret
                else:
                    self._stage.change(keys.delete, caller)
                    life.dead = time.monotonic()
                    self._disabled.discard(caller.key_id)
                    self.callers.remove(caller)
                    self._add()
        self.verbs[verb] = self.verbs.get(verb, 0) + 1
        self._last = caller, verb

    async def _probe(self, session: Callers) -> None:
        """Ask every gateway at once with what the verb has just touched, and with what its owner has now."""
        caller, _ = self._last
        asked = [
            session.call(caller, kind=SMALL, secret=secret, gateway=url)
            for url in session.urls
            for secret in {self._touched, caller.secret}
        ]
        self.probes += await asyncio.gather(*asked)


def run(
    place: Place,
    folder: Path,
    *,
    verbs: int,
    gateways: Sequence[int] = (2, 1, 1),
    seed: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Rotate, disable, enable and delete keys under load, and judge every call.

    Args:
        place: the key store, empty.
        folder: for data and logs.
        verbs: how many.
        gateways: how many processes each gateway is.
        seed: of what happens.
        progress: told how far it is.
    """
    report = Report(f"revocation on {place.kind}")
    fleet = Fleet(folder, place.url, lease=30)
    for workers in gateways:
        fleet.add_gateway(workers)
    stage = Stage(folder, fleet.environment)
    stage.open(fleet.witness_url)
    try:
        scene = _Scene(stage, seed)
        with fleet.running(fleet.witness, *fleet.gateways):
            calls = asyncio.run(scene.play(fleet.urls, verbs, progress))
        _judge(report, fleet, stage, scene, calls)
    finally:
        stage.close()
    return report


def _judge(report: Report, fleet: Fleet, stage: Stage, scene: _Scene, calls: list[Call]) -> None:
    reader = open_reader(stage.workspace.settings.store_url)
    try:
        rows = {row["request_id"]: row for row in log_rows(reader, stage.ledger)}
    finally:
        reader.close()
    witnessed = set(fleet.witnessed())
    refused = [call for call in calls if scene.lives[call.secret].must_refuse(call)]
    healthy = [call for call in calls if scene.lives[call.secret].must_admit(call)]
    for call in refused:
        row = rows.get(call.request_id)
        let_in = call.status != 401 or call.request_id in witnessed or (row is not None and row["outcome"] != "refused")
        report.require(
            not let_in,
            f"{call.request_id}: let in ({call.status}) with a secret that was dead: {scene.lives[call.secret]}",
        )
    for call in healthy:
        report.require(call.whole, f"{call.request_id}: a live secret got {call.status}: {call.error.get('message')}")
    for call in calls:
        report.require(call.whole or call.status == 401, f"{call.request_id}: status {call.status}, {call.error}")
    report.figures |= {
        "verbs": sum(scene.verbs.values()),
        **{f"  {verb}": count for verb, count in sorted(scene.verbs.items())},
        "calls": len(calls),
        "began after the verb, refused": len(refused),
        "wholly between verbs, admitted": len(healthy),
        "crossed a verb": len(calls) - len(refused) - len(healthy),
    }
    report.violations += stage.reconcile()
