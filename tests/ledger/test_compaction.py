"""Compaction merges the small segments of a day; of two that meet, one wins."""

# ruff: noqa: F401, F811 - fixtures are imported, and are arguments of tests

from datetime import timedelta
from typing import Any

import pytest

from tests.ledgers import bucket, bucket_server, ids, kept, ledger, listed, root, store
from tests.rows import NOON, append, row
from toolkit.ledger import compaction, segments
from toolkit.ledger.ledger import Ledger
from toolkit.store.actor import SYSTEM
from toolkit.store.tables import Segment

pytestmark = pytest.mark.both_stores

DAY = timedelta(days=1)

AT_ONCE = timedelta(0)


@pytest.mark.world
def test_raced_compaction_changes_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two compactions of the same segments one wins; the other leaves no trace."""
    wanted = []
    for _ in range(3):
        wanted += append(ledger.store, [row()])
        ledger.sync()
    write, other = segments.write, Ledger(ledger.store, str(ledger.root), SYSTEM)

    def overtaken(*arguments: Any) -> list[Segment]:
        monkeypatch.setattr(segments, "write", write)
        assert other.compact() == 3
        return write(*arguments)

    monkeypatch.setattr(segments, "write", overtaken)
    assert ledger.compact() == 0
    assert ledger.sweep(AT_ONCE) == 3
    assert [segment.path for segment in listed(ledger)] == kept(ledger)
    assert ids(ledger) == wanted


def test_compaction_merges_the_small_segments_of_each_day(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small segments of a day become one; full ones and single ones stay as they are."""
    monkeypatch.setattr(compaction, "FULL", 5)
    for rows, at in ((5, NOON), (2, NOON), (2, NOON), (3, NOON + DAY)):
        append(ledger.store, [row(at=at) for _ in range(rows)])
        ledger.sync()
    before = ids(ledger)
    assert ledger.compact() == 2
    assert sorted((segment.day, segment.rows) for segment in listed(ledger)) == [
        ("2026-11-23", 4),
        ("2026-11-23", 5),
        ("2026-11-24", 3),
    ]
    assert ids(ledger) == before
    assert ledger.compact() == 0
