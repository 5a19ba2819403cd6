"""The watcher: a process that looks at the store all the while, one snapshot after another.

    python -m tests.chaos.watcher --store URL

It needs no trigger and knows no order: in whatever moment it looks, no wallet and no strict key may be beyond its
room, and what is held must be the sum of the open holds. It ends at SIGTERM and prints what it saw as JSON.
"""

import argparse
import json
import signal
import threading

from tests.chaos.stores import Reader, open_reader

PAUSE = 0.002
"""Seconds between two looks, so that a watcher does not take a processor for itself."""

WALLETS = """
SELECT o.id, o.credited, o.settled, o.held, CAST(coalesce(sum(h.amount), 0) AS BIGINT)
FROM organisation o LEFT JOIN hold h ON h.org_id = o.id GROUP BY o.id, o.credited, o.settled, o.held
"""
MONTHS = """
SELECT m.key_id, m.month, k.monthly_limit, m.spent, m.held, CAST(coalesce(sum(h.limit_amount), 0) AS BIGINT)
FROM key_month m JOIN api_key k ON k.id = m.key_id LEFT JOIN hold h ON h.key_id = m.key_id AND h.month = m.month
GROUP BY m.key_id, m.month, k.monthly_limit, m.spent, m.held
"""


def look(reader: Reader) -> list[str]:
    """Return what is wrong at this moment."""
    wallets, months = reader.snapshot(WALLETS, MONTHS)
    wrong = []
    for org, credited, settled, held, sum_held in wallets:
        if credited - settled - held < 0:
            wrong.append(f"wallet {org}: credited {credited}, settled {settled}, held {held}")
        if held != sum_held:
            wrong.append(f"wallet {org} holds {held}, its open holds are {sum_held}")
    for key, month, limit, spent, held, sum_held in months:
        if limit is not None and spent + held > limit:
            wrong.append(f"key {key} in {month}: limit {limit}, spent {spent}, held {held}")
        if held != sum_held:
            wrong.append(f"key {key} in {month} holds {held}, its open holds are {sum_held}")
    return wrong


def main() -> None:
    """Watch until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    reader = open_reader(parser.parse_args().store)
    snapshots, violations = 0, list[str]()
    while True:
        # One more look after the last commit.
        last = stop.is_set()
        snapshots += 1
        violations += look(reader)
        if last:
            break
        stop.wait(PAUSE)
    reader.close()
    print(json.dumps({"snapshots": snapshots, "violations": violations}), flush=True)  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
