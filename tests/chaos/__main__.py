"""The long version: `make chaos`.

    python -m tests.chaos [--runs 100] [--calls 20000] [--verbs 1000] [--seconds 300] [--store sqlite|postgresql|both]

Prints a line while it works and the figures at the end; ends with 1 if anything was violated.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import click

from tests.buckets import NAME, serving
from tests.chaos import caps, crash, failover, hostile, ledger, revocation
from tests.chaos.report import Report
from tests.chaos.stores import Place, open_place

CALLERS = 200
KINDS = ("sqlite", "postgresql")
PARTS = ("caps", "revocation", "crash", "failover", "ledger", "hostile")
TOGETHER = 20
"""Kills over one store, before the next ones get a new one."""


@click.command(help=__doc__)
@click.option("--store", type=click.Choice([*KINDS, "both"]), default="both", show_default=True)
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Only this part; may be repeated.")
@click.option("--calls", default=20_000, show_default=True, help="Calls on tight limits and small wallets.")
@click.option("--verbs", default=1_000, show_default=True, help="Rotations, disables, enables and deletions.")
@click.option("--runs", default=100, show_default=True, help="Kills.")
@click.option(
    "--victims",
    default="",
    help=f"What is killed, with commas between, instead: {', '.join(crash.VICTIMS + crash.SERVER_VICTIMS)}.",
)
@click.option("--seconds", default=300, show_default=True, help="Of the ledger's run, and of attacks.")
@click.option("--bucket", is_flag=True, help="The ledger's segments in a bucket, on an S3 server of the run's own.")
@click.option("--seed", type=int, help="Of everything drawn at random.  [default: another one each time]")
def main(
    store: str,
    only: tuple[str, ...],
    calls: int,
    verbs: int,
    runs: int,
    victims: str,
    seconds: int,
    bucket: bool,
    seed: int | None,
) -> None:
    """Run what was asked for, and say what came of it."""
    seed = time.time_ns() % 1_000_000 if seed is None else seed
    click.echo(f"seed {seed}")
    reports = []
    for kind in KINDS if store == "both" else (store,):
        drawn = victims.split(",") if victims else crash.draw(runs, kind, seed)

        def run_caps(place: Place, folder: Path) -> Report:
            return caps.run(place, folder, calls=calls, callers=CALLERS, seed=seed, progress=click.echo)

        def run_revocation(place: Place, folder: Path) -> Report:
            return revocation.run(place, folder, verbs=verbs, seed=seed, progress=click.echo)

        def run_ledger(place: Place, folder: Path) -> Report:
            with _bucket() if bucket else nullcontext("") as root:
                return ledger.run(place, folder, seconds=seconds, root=root, seed=seed, progress=click.echo)

        def run_failover(place: Place, folder: Path) -> Report:
            return failover.run(place, folder, kills=runs, seed=seed, progress=click.echo)

        def run_hostile(place: Place, folder: Path) -> Report:
            return hostile.run(place, folder, seconds=seconds, seed=seed, progress=click.echo)

        for name in PARTS:
            if only and name not in only:
                continue
            if name == "caps":
                report = _run(run_caps, kind)
            elif name == "revocation":
                report = _run(run_revocation, kind)
            elif name == "ledger":
                report = _run(run_ledger, kind)
            elif name == "failover":
                report = _run(run_failover, kind)
            elif name == "hostile":
                report = _run(run_hostile, kind)
            else:
                report = _crash(kind, drawn, seed)
            reports.append(report)
            click.echo(f"\n{report}\n")
    click.echo("\n".join(["All figures", "", *map(str, reports)]))
    sys.exit(any(report.violations for report in reports))


@contextmanager
def _bucket() -> Iterator[str]:
    """Serve a bucket; give the root of a ledger in it."""
    with serving() as variables:
        os.environ.update(variables)
        yield f"s3://{NAME}/ledger"


def _crash(kind: str, victims: Sequence[str], seed: int) -> Report:
    """Kill victims, `TOGETHER` of them over one store: after each the whole log is read, which grows."""
    total = Report(f"crash on {kind}")
    for first in range(0, len(victims), TOGETHER):
        some = victims[first : first + TOGETHER]

        def run(place: Place, folder: Path, some: Sequence[str] = some, seed: int = seed + first) -> Report:
            return crash.run(place, folder, victims=some, seed=seed, progress=click.echo)

        total.add(_run(run, kind))
    return total


def _run(run: Callable[[Place, Path], Report], kind: str) -> Report:
    """Run a part on a store of its own; keep its files if something was violated."""
    folder = Path(tempfile.mkdtemp(prefix="keydesk-chaos-"))
    started = time.monotonic()
    with open_place(kind, folder) as place:
        report = run(place, folder)
    report.count("seconds", round(time.monotonic() - started))
    if report.violations:
        click.echo(f"Logs and ledger stay in {folder}")
    else:
        shutil.rmtree(folder)
    return report


if __name__ == "__main__":
    main()
