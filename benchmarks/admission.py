"""Durable admissions and settlements a second, of one process, on SQLite and on PostgreSQL.

    python -m benchmarks.admission [--seconds 3] [--rounds 3] [--callers 1,16,64] [--keys 50]

A pair is one admission and one settlement; each is committed, and with SQLite's `synchronous=FULL` and PostgreSQL's
own defaults on the disk, before it is answered. All callers live on one event loop and share one batcher, as in a
gateway. CPU is of this whole process, callers and table-keeping included; a PostgreSQL server's is told apart. A batch
is what one transaction did. PostgreSQL is the server that KEYDESK_TEST_POSTGRES_URL names, or one that is started for
the purpose; without either it is left out. The keys belong to one organisation, whose row every batch locks.
"""

import argparse
import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks import machine
from benchmarks.postgres import database
from toolkit import environment
from toolkit.admin import catalog, keys, organisations, plans, secret_lookup, wallet
from toolkit.admin.models import add_model
from toolkit.admin.prices import list_prices
from toolkit.admin.upstreams import add_upstream
from toolkit.billing.batcher import Batcher
from toolkit.billing.call import Call, Ending
from toolkit.billing.hold_estimate import HoldBound
from toolkit.billing.rules import Admit, Settle
from toolkit.billing.state import Job
from toolkit.billing.stores import BillingStore, open_billing_store
from toolkit.core.dialect import Dialect
from toolkit.core.ids import new_request_id
from toolkit.core.money import NANO
from toolkit.core.policy import KeyFacts, Outcome
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.core.usage import Usage
from toolkit.store.actor import Actor
from toolkit.store.database import Store
from toolkit.store.transaction import utc_now
from toolkit.workspace import Workspace

SHEET = PriceSheet.flat(input=NANO, output=2 * NANO)
BOUND = HoldBound(base=2_000 * NANO * MILLION, each=2 * NANO * MILLION, output_bound=500, fixed=True)
USAGE = Usage(input_tokens=1_000, output_tokens=200)


@dataclass(frozen=True)
class Stage:
    """A key store with keys to call with.

    Args:
        server: process of the store's server, if it has one on this machine.
    """

    name: str
    store: Store
    facts: list[KeyFacts]
    price_id: str
    catalog_version: int
    server: int | None


@dataclass
class Watched:
    """A billing store that counts its batches."""

    billing_store: BillingStore
    sizes: list[int] = field(default_factory=list)

    def run(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """Run a batch."""
        self.sizes.append(len(jobs))
        return self.billing_store.run(jobs)

    def close(self) -> None:
        """Close the billing store."""
        self.billing_store.close()


@dataclass(frozen=True)
class Round:
    """What one round gave.

    Args:
        rate: pairs a second.
        cpu: microseconds of this process's CPU for a pair.
        server_cpu: the same of the store's server; None if there is none here.
        batch: mean jobs of a transaction.
        wait: median milliseconds that an admission took.
    """

    rate: float
    cpu: float
    server_cpu: float | None
    batch: float
    wait: float


@contextmanager
def sqlite_stage(count: int) -> Iterator[Stage]:
    """Make a SQLite key store with `count` keys."""
    with tempfile.TemporaryDirectory() as folder, workspace_of({"KEYDESK_DATA_DIR": folder}) as workspace:
        yield set_stage(f"SQLite {sqlite3.sqlite_version}", workspace, count, None)


@contextmanager
def postgres_stage(count: int) -> Iterator[Stage | None]:
    """Make a PostgreSQL key store with `count` keys; None where there is no server."""
    with tempfile.TemporaryDirectory() as folder, database() as found:
        if found is None:
            yield None
            return
        with workspace_of({"KEYDESK_DATA_DIR": folder, "KEYDESK_STORE_URL": found.url}) as workspace:
            yield set_stage(f"PostgreSQL {found.version}", workspace, count, found.pid)


@contextmanager
def workspace_of(environ: dict[str, str]) -> Iterator[Workspace]:
    """Open an empty Keydesk."""
    workspace = Workspace.open(environment.read_settings(environ), Actor.trusted("benchmark"), make=True)
    try:
        yield workspace
    finally:
        workspace.close()


def set_stage(name: str, workspace: Workspace, count: int, server: int | None) -> Stage:
    """Make `count` keys that have enough money."""
    with workspace.write() as tx:
        add_upstream(tx, "mock", Dialect.OPENAI, "http://127.0.0.1:9", "NO_API_KEY")
        add_model(tx, "mock", "mock", sheet=SHEET)
        plan = plans.add(tx, "plan", MILLION, ["mock"])
        org = organisations.add(tx, "org")
        wallet.credit(tx, org.id, MILLION * NANO, "once")
        made = [keys.create(tx, workspace.keyring, org=org.id, name=f"key {i}", plan=plan.id) for i in range(count)]
    with workspace.read() as tx:
        facts = [secret_lookup.find_live(tx, [workspace.keyring.digest(new.secret).value]) for new in made]
        price_id = list_prices(tx)[0].id
        version = catalog.load(tx).version
    return Stage(name, workspace.store, [fact for fact in facts if fact is not None], price_id, version, server)


async def measure(stage: Stage, callers: int, seconds: float) -> Round:
    """Let callers admit and settle for some seconds."""
    billing_store = Watched(open_billing_store(stage.store))
    batcher = Batcher(billing_store)
    batcher.start()
    waits: list[float] = []

    async def pair(facts: KeyFacts) -> None:
        call = Call(
            request_id=new_request_id(time.time_ns() // 1_000_000),
            key=facts,
            received_at=utc_now(),
            dialect="openai",
            endpoint="chat/completions",
            stream=False,
            model="mock",
            upstream="mock",
            price_id=stage.price_id,
            sheet=SHEET,
            multiplier=MILLION,
        )
        asked = time.perf_counter()
        await batcher.ask(Admit(call, BOUND, stage.catalog_version, "benchmark"))
        waits.append(time.perf_counter() - asked)
        await batcher.ask(Settle(call, Ending(Outcome.COMPLETED, utc_now(), 200, USAGE)))

    async def caller(number: int, until: float) -> None:
        while time.monotonic() < until:
            await pair(stage.facts[number % len(stage.facts)])

    await pair(stage.facts[0])  # connects
    waits.clear()
    billing_store.sizes.clear()
    server = machine.cpu_seconds(stage.server) if stage.server else 0.0
    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller(number, time.monotonic() + seconds) for number in range(callers)))
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    server = machine.cpu_seconds(stage.server) - server if stage.server else 0.0
    await batcher.stop()
    done = len(waits)
    return Round(
        rate=done / took,
        cpu=cpu / done * 1e6,
        server_cpu=server / done * 1e6 if stage.server else None,
        batch=mean(billing_store.sizes),
        wait=median(waits) * 1000,
    )


def show(stage: Stage, callers: int, rounds: list[Round]) -> None:
    """Print a line of the table: the medians of some rounds."""
    server = [one.server_cpu for one in rounds if one.server_cpu is not None]
    print(
        f"{stage.name:<18}{callers:>8}{median(one.rate for one in rounds):>11,.0f}"
        f"{median(one.cpu for one in rounds):>14,.0f}{f'{median(server):,.0f}' if server else '–':>16}"
        f"{median(one.batch for one in rounds):>12.1f}{median(one.wait for one in rounds):>14.2f}"
    )


def main() -> None:
    """Run the rounds and print the table."""
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of which the median is shown")
    parser.add_argument("--callers", default="1,16,64", help="concurrent callers")
    parser.add_argument("--keys", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fsync = machine.fsync_ms(Path(folder))
    print(machine.header("psycopg", "uvloop"))
    print(f"fsync of 4 kB: {fsync:.2f} ms. Medians of {options.rounds} rounds of {options.seconds:g} s.\n")
    print(
        f"{'store':<18}{'callers':>8}{'pairs/s':>11}{'CPU µs/pair':>14}{'server µs/pair':>16}"
        f"{'jobs/batch':>12}{'admit p50 ms':>14}"
    )
    for make in (sqlite_stage, postgres_stage):
        with make(options.keys) as stage:
            if stage is None:
                print("PostgreSQL        left out: no server is given by KEYDESK_TEST_POSTGRES_URL, nor installed")
                continue
            for callers in map(int, options.callers.split(",")):
                rounds = [uvloop.run(measure(stage, callers, options.seconds)) for _ in range(options.rounds)]
                show(stage, callers, rounds)


if __name__ == "__main__":
    main()
