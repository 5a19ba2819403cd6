"""Durable admissions and settlements a second: 64 callers on one event loop, one cashier, a real SQLite file.

    python -m benchmarks.admission [--seconds 3] [--callers 64] [--keys 50]

Prints pairs (one admission and one settlement, each committed before it is answered) a second, CPU per pair of the
whole process, and the disk's fsync time, since that bounds a commit.
"""

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from toolkit import accounts, billing, catalog, keys, plans, wallet
from toolkit.billing import Call, Ending
from toolkit.cashier import Cashier
from toolkit.credentials import new_request_id
from toolkit.database import Actor, Store, utc_now
from toolkit.desk import Desk
from toolkit.dialects.shape import Dialect
from toolkit.estimate import HoldBound
from toolkit.policy import KeyFacts, Outcome
from toolkit.pricing import MILLION, NANO, PriceSheet
from toolkit.settings import Settings
from toolkit.usage import Usage

SHEET = PriceSheet.flat(input=NANO, output=2 * NANO)
BOUND = HoldBound(base=2_000 * NANO * MILLION, each=2 * NANO * MILLION, output_bound=500, explicit=True)
USAGE = Usage(input_tokens=1_000, output_tokens=200)


@dataclass(frozen=True)
class Stage:
    """A key store with keys to call with."""

    store: Store
    facts: list[KeyFacts]
    price_id: str
    catalog_version: int


def set_stage(folder: Path, count: int) -> Stage:
    """Make a key store with `count` keys that have enough money."""
    desk = Desk.open(Settings.from_env({"KEYDESK_DATA_DIR": str(folder)}), Actor.trusted("benchmark"))
    with desk.write() as tx:
        catalog.add_upstream(tx, "mock", Dialect.OPENAI, "http://127.0.0.1:9", "NONE")
        catalog.add_model(tx, "mock", "mock", sheet=SHEET)
        plan = plans.add(tx, "plan", MILLION, ["mock"])
        org = accounts.add_org(tx, "org")
        wallet.credit(tx, org.id, MILLION * NANO, "once")
        made = [keys.create(tx, desk.keyring, org=org.id, name=f"key {i}", plan=plan.id) for i in range(count)]
        price_id = catalog.list_prices(tx)[0].id
    connection = desk.store.connect()
    facts = [billing.lookup(connection, [desk.keyring.digest(new.secret).value]) for new in made]
    version = connection.execute("SELECT version FROM catalog_version").fetchone()[0]
    connection.close()
    return Stage(desk.store, [fact for fact in facts if fact is not None], price_id, version)


async def pairs(stage: Stage, callers: int, seconds: float) -> int:
    """Let callers admit and settle for some seconds; return the pairs that were committed."""
    cashier = Cashier(stage.store)
    cashier.start()
    until = time.monotonic() + seconds
    done = 0

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
        await cashier.ask(
            lambda connection: billing.admit(
                connection, call, BOUND, catalog_version=stage.catalog_version, instance_id="benchmark"
            )
        )
        ending = Ending(Outcome.COMPLETED, utc_now(), 200, USAGE)
        await cashier.ask(lambda connection: billing.settle(connection, call, ending))

    async def caller(number: int) -> None:
        nonlocal done
        while time.monotonic() < until:
            await pair(stage.facts[number % len(stage.facts)])
            done += 1

    await asyncio.gather(*(caller(number) for number in range(callers)))
    await asyncio.to_thread(cashier.stop)
    return done


def fsync_ms(folder: Path) -> float:
    """Return the median time of one 4 kB write and fsync, in milliseconds."""
    times = []
    with (folder / "probe").open("wb") as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            file.flush()
            started = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    return median(times) * 1000


def main() -> None:
    """Run three rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--keys", type=int, default=50)
    options = parser.parse_args()
    rates, costs = [], []
    with tempfile.TemporaryDirectory() as name:
        stage = set_stage(Path(name), options.keys)
        for _ in range(3):
            cpu, started = time.process_time(), time.perf_counter()
            done = asyncio.run(pairs(stage, options.callers, options.seconds))
            rates.append(done / (time.perf_counter() - started))
            costs.append((time.process_time() - cpu) / done * 1e6)
        fsync = fsync_ms(Path(name))
    print(f"pairs a second {median(rates):,.0f}   CPU per pair {median(costs):.0f} µs   fsync {fsync:.2f} ms")


if __name__ == "__main__":
    main()
