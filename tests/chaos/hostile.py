"""Hostile callers and hostile providers: whatever they send, no call fails for it, nothing is lost, nothing grows.

Attackers (`attacks`) send requests that nobody should, to a gateway whose providers (`liar`) answer as none should,
while a neighbour makes honest calls. The gateway must answer every whole request, never with a 500; each call that
reached a provider is a row, and each that a provider would bill is charged; the neighbour gets every answer; in the
end no hold is left, the books balance, and files and memory are as they were.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.attacks import MODELS, Attack, Attacker, neighbour
from tests.chaos.fleet import Fleet
from tests.chaos.report import Report
from tests.chaos.stage import Stage
from tests.chaos.stores import Place, children, log_rows, open_reader, wait_until
from toolkit.admin import keys, plans
from toolkit.admin.models import add_model
from toolkit.admin.upstreams import add_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.money import NANO
from toolkit.core.pricing import PriceSheet
from toolkit.core.secrets import new_secret

CALLERS = 16
RICH = 1_000_000 * NANO
LONGEST = 90.0
"""Seconds in which a whole request must be answered; far more than any should take on a machine with other work."""

SETTLED_WITHIN = 120.0
SPARE = 4
"""Files beyond those of the beginning that are no leak: a connection to a provider more, say."""

WARM = 50
"""Attacks before the files of the beginning are counted."""

LONG = 600
"""Seconds of a run from which on its memory is judged: a short one is still warming up."""

EARLY = 1 / 6
"""Share of a long run after which memory is looked at first: minute 10 of the hour."""

GROWTH = 1.1


@dataclass
class _Seen:
    """What came back."""

    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    neighbours: int = 0
    gateway: list[int] = field(default_factory=list)
    """Bytes that its process had resident, once a second of attacks."""
    readers: list[int] = field(default_factory=list)
    """The same of the processes that read for it, in all."""
    rested: list[int] = field(default_factory=list)
    """The same of all of them at each rest."""
    loaded: list[int] = field(default_factory=list)
    """Of the gateway's process alone before each rest: the least of its figures in a twelfth of the run."""


def run(
    place: Place, folder: Path, *, seconds: int, seed: int = 1, progress: Callable[[str], None] = lambda _: None
) -> Report:
    """Attack a gateway for a time, and judge what it did.

    Args:
        place: the key store, empty.
        folder: for data and logs.
        seconds: of attacks.
        seed: of what is sent and answered.
        progress: told how far it is.
    """
    report = Report(f"hostile on {place.kind}")
    fleet = Fleet(folder, place.url, lease=30)
    fleet.add_gateway()
    liar = fleet.add_liar(seed)
    stage = Stage(folder, fleet.environment)
    try:
        secrets, honest = _set_up(stage, liar.url)
        with fleet.running(liar.process, fleet.gateways[0], fleet.drain):
            pid = fleet.gateways[0].pid
            asyncio.run(_warm_up(fleet.urls[0], Attacker(seed, secrets), neighbour(honest)))
            files = _files(pid)
            attacker, seen = Attacker(seed, secrets), _Seen()
            for share in (EARLY, 1 - EARLY) if seconds >= LONG else (1,):
                asyncio.run(_attack(fleet.urls[0], pid, attacker, honest, seconds * share, seen, progress))
                if seconds >= LONG:
                    _rest(pid, seen, round(seconds * EARLY / 2), progress)
            wait_until(lambda: not _held(stage), "the last hold to be released", SETTLED_WITHIN)
            # Connections to providers are kept for a while.
            wait_until(
                lambda: _files(pid) <= files + SPARE, "the open files to be those of the beginning", SETTLED_WITHIN
            )
            report.require(fleet.gateways[0].is_alive() and fleet.gateways[0].pid == pid, "the gateway did not survive")
        _judge(report, stage, seen, liar.journal)
        log = fleet.gateways[0].log.read_text(errors="replace")
        report.require(
            "Traceback" not in log, f"the gateway's log has a traceback: {log[log.find('Traceback') :][:600]}"
        )
    except TimeoutError as error:
        report.violations.append(str(error))
    finally:
        stage.close()
    return report


def _set_up(stage: Stage, liar_url: str) -> tuple[list[str], str]:
    """Make models of the liar in each dialect, and keys; return the attackers' secrets and the neighbour's."""
    dialects = {Dialect.OPENAI: MODELS["chat"], Dialect.ANTHROPIC: MODELS["messages"], Dialect.GEMINI: "fuzz-gemini"}
    with stage.workspace.write() as tx:
        for dialect, model in dialects.items():
            root = f"{liar_url}/v1" if dialect is Dialect.OPENAI else liar_url
            add_upstream(tx, f"liar-{dialect}", dialect, root, "TEST_UPSTREAM_API_KEY")
            add_model(
                tx,
                model,
                f"liar-{dialect}",
                sheet=PriceSheet.flat(input=NANO, output=10 * NANO),
                context_window=100_000,
                default_output=4_096,
                max_output=8_192,
            )
        plan = plans.add(tx, "fuzz", 1_000_000, list(dialects.values())).id
    rich, poor = stage.add_org("rich", RICH), stage.add_org("poor", 1)
    made = []
    with stage.workspace.write() as tx:
        for name, org, limit in (("a", rich, None), ("b", rich, RICH), ("c", poor, None), ("honest", rich, None)):
            new = keys.create(tx, stage.workspace.keyring, org=org, name=name, plan=plan, monthly_limit=limit)
            made.append(new.secret)
    *attackers, honest = made
    return [*attackers, *attackers[:2], new_secret()], honest


async def _warm_up(url: str, attacker: Attacker, honest: bytes) -> None:
    """Let the gateway open what it opens once: its threads, readers and connections."""
    drawn = [attacker.attack() for _ in range(WARM)]
    attacks = (_visit(url, each.data, LONGEST, each.leave, ends=not each.whole) for each in drawn)
    await asyncio.gather(*attacks, _visit(url, honest, LONGEST))


async def _attack(
    url: str,
    pid: int,
    attacker: Attacker,
    honest: str,
    seconds: float,
    seen: _Seen,
    progress: Callable[[str], None],
) -> None:
    began = time.monotonic()

    async def attack() -> None:
        while time.monotonic() - began < seconds:
            drawn = attacker.attack()
            seen.kinds[drawn.kind] += 1
            await _one(url, drawn, seen)

    async def neighbourly() -> None:
        while time.monotonic() - began < seconds:
            answer = await _visit(url, neighbour(honest), LONGEST)
            seen.neighbours += 1
            if not (answer or b"").startswith(b"HTTP/1.1 200"):
                seen.wrong.append(f"the neighbour got {answer and answer[:200]!r}")

    async def watch() -> None:
        shown = began
        while time.monotonic() - began < seconds:
            seen.gateway.append(_resident(pid))
            seen.readers.append(sum(map(_resident, children(pid))))
            if time.monotonic() - shown > 30:
                shown = time.monotonic()
                gateway, readers = seen.gateway[-1] / 1e6, seen.readers[-1] / 1e6
                progress(f"hostile: {seen.kinds.total():,} attacks, {gateway:,.0f} MB and {readers:,.0f} of readers")
            await asyncio.sleep(1)

    await asyncio.gather(*(attack() for _ in range(CALLERS)), neighbourly(), watch())


def _rest(pid: int, seen: _Seen, before: int, progress: Callable[[str], None]) -> None:
    """Look at the memory once the processes that read have had nothing to do for so long that they were ended.

    What they have at any other moment depends on what they are reading just then. So does what the gateway has: of that
    the least of the `before` latest figures is taken.
    """
    seen.loaded.append(min(seen.gateway[-before:]))
    wait_until(lambda: not children(pid), "the processes that read to be ended", SETTLED_WITHIN)
    seen.rested.append(_resident(pid))
    progress(f"hostile: at rest after {seen.kinds.total():,} attacks {seen.rested[-1] / 1e6:,.0f} MB")


async def _one(url: str, drawn: Attack, seen: _Seen) -> None:
    answer = await _visit(url, drawn.data, LONGEST, drawn.leave, ends=not drawn.whole and drawn.leave is None)
    if answer is None:
        if drawn.whole:
            seen.wrong.append(f"no answer within {LONGEST:.0f} s to {drawn.kind}: {drawn.data[:300]!r}")
        return
    status = answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.") else "none" if not answer else "odd"
    seen.statuses[status] += 1
    if status in {"500", "odd"} or (status == "none" and drawn.whole):
        seen.wrong.append(f"{answer[:200]!r} in answer to {drawn.kind}: {drawn.data[:400]!r}")


async def _visit(url: str, data: bytes, limit: float, leave: int | None = None, *, ends: bool = False) -> bytes | None:
    """Send bytes and return all that comes back; None if it takes too long.

    Args:
        leave: bytes of the answer after which to hang up.
        ends: whether to say that nothing more comes, so that the rest of what is no whole request is not waited for.
    """
    host, _, port = url.removeprefix("http://").partition(":")
    answer = b""
    try:
        async with asyncio.timeout(limit):
            reader, writer = await asyncio.open_connection(host, int(port), limit=2**20)
            try:
                writer.write(data)
                if ends:
                    writer.write_eof()
                while (leave is None or len(answer) < leave) and (part := await reader.read(65_536)):
                    answer += part
            except ConnectionError:
                pass  # a server that has said no need not read on
            finally:
                writer.transport.abort() if leave is not None else writer.close()
    except TimeoutError:
        return None
    except OSError:
        return answer
    return answer


def _resident(pid: int) -> int:
    """Return the bytes that a process has resident; 0 if it is gone."""
    try:
        (line,) = (x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS:"))
    except (OSError, ValueError):
        return 0
    return int(line.split()[1]) * 1024


def _files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - /proc has no entries that a Path could hold on to


def _held(stage: Stage) -> bool:
    from toolkit.store import holds

    with stage.workspace.read() as tx:
        return bool(holds.open_holds(tx))


def _judge(report: Report, stage: Stage, seen: _Seen, journal: Path) -> None:
    reader = open_reader(stage.workspace.settings.store_url)
    try:
        rows = {row["request_id"]: row for row in log_rows(reader, stage.ledger)}
    finally:
        reader.close()
    forwarded = [line.split() for line in journal.read_text().splitlines()]
    for request_id, kind in forwarded:
        row = rows.get(request_id)
        report.require(row is not None, f"{request_id} reached the provider and is no row")
        if row is not None and kind == "billed":
            report.require(row["cost"] > 0, f"{request_id} would be billed and was not charged: {row}")
    for row in rows.values():
        report.require(row["cost"] >= 0, f"{row['request_id']} was charged {row['cost']}")
        # Of a doubtful report one part may be beyond the hold and yet true: then the row says by which bound.
        bounded = row["usage_source"] != "estimated" or row["overrun_reason"] or row["cost"] <= row["held"]
        report.require(bool(bounded), f"an estimate exceeds its hold: {row}")
    report.violations += seen.wrong
    if sizes := seen.rested:
        report.require(sizes[-1] <= GROWTH * sizes[0], f"memory at rest grew from {sizes[0]:,} to {sizes[-1]:,}")
    report.figures |= {
        "attacks": seen.kinds.total(),
        **{f"  {kind}": count for kind, count in sorted(seen.kinds.items())},
        **{f"  answered {status}": count for status, count in sorted(seen.statuses.items())},
        "calls that reached a provider": len(forwarded),
        "  that it would bill": sum(kind == "billed" for _, kind in forwarded),
        "neighbour's calls": seen.neighbours,
        "the gateway's memory at first, MB": seen.gateway[0] // 10**6,
        "  at most": max(seen.gateway) // 10**6,
        "memory of those that read for it, at most": max(seen.readers) // 10**6,
    }
    if seen.rested:
        report.figures |= {
            "the gateway's memory, a sixth into the run": seen.loaded[0] // 10**6,
            "  in the end": seen.loaded[-1] // 10**6,
            "memory at rest, a sixth into the run": seen.rested[0] // 10**6,
            "  in the end of it": seen.rested[-1] // 10**6,
        }
    report.violations += stage.reconcile()
