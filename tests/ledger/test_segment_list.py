"""The list of segments: what a sweep removes, and what it leaves."""

# ruff: noqa: F401, F811 - fixtures are imported, and are arguments of tests

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from tests.buckets import set_written_at
from tests.ledgers import bucket, bucket_server, ids, kept, ledger, listed, root, store
from tests.rows import append, row
from toolkit.ledger.ledger import Ledger
from toolkit.ledger.segment_list import GRACE
from toolkit.store.actor import SYSTEM
from toolkit.store.tables import SupersededSegment

pytestmark = pytest.mark.both_stores

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def test_sweep_leaves_replaced_files_for_the_grace_period(ledger: Ledger) -> None:
    """Replaced segments stay until the grace period has passed since; listed ones stay for ever, old as they are."""
    for _ in range(2):
        append(ledger.store, [row()])
        ledger.sync()
    ledger.compact()
    for path in kept(ledger):
        set_written_at(ledger.root, path, LONG_AGO)
    (merged,) = listed(ledger)
    assert ledger.sweep() == 0
    with ledger.store.write(SYSTEM) as tx:
        long_ago = tx.now - GRACE - timedelta(minutes=1)
        tx.session.execute(update(SupersededSegment).values(superseded_at=long_ago))
    assert ledger.sweep() == 2
    assert kept(ledger) == [merged.path]
    assert len(ids(ledger)) == 2


def test_sweep_removes_what_a_killed_process_left(ledger: Ledger) -> None:
    """Files that no list names go once they are old; a young one may belong to a drain at work."""
    append(ledger.store, [row()])
    ledger.sync()
    (segment,) = listed(ledger)
    folder = segment.path.rpartition("/")[0]
    for name, old in (("a.parquet", True), ("b.parquet", True), ("c.parquet", False)):
        ledger.root.write(f"{folder}/{name}", b"left behind")
        if old:
            set_written_at(ledger.root, f"{folder}/{name}", LONG_AGO)
    assert ledger.sweep() == 2
    assert kept(ledger) == sorted([segment.path, f"{folder}/c.parquet"])
    assert len(ids(ledger)) == 1
