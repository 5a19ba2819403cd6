"""The drain moves rows into segments, each once, whoever else does the same."""

# ruff: noqa: F401, F811 - fixtures are imported, and are arguments of tests

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from tests.ledgers import bucket, bucket_server, ids, kept, ledger, listed, root, store
from tests.rows import NOON, append, row
from toolkit.ledger import drain, segments
from toolkit.ledger.ledger import Ledger
from toolkit.store.actor import SYSTEM
from toolkit.store.tables import OutboxRow, Segment

pytestmark = pytest.mark.both_stores

AT_ONCE = timedelta(0)


def test_sync_moves_no_more_than_its_limit(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sync` takes the oldest rows up to its limit, in transactions of at most BATCH rows."""
    monkeypatch.setattr(drain, "BATCH", 2)
    wanted = append(ledger.store, [row(at=NOON + timedelta(seconds=n)) for n in range(7)])
    assert ledger.sync(limit=5) == 5
    assert [segment.rows for segment in listed(ledger)] == [2, 2, 1]
    with ledger.store.read(SYSTEM) as tx:
        assert sorted(tx.session.scalars(select(OutboxRow.request_id))) == wanted[5:]
    assert ledger.sync() == 2
    assert ledger.sync() == 0
    assert ids(ledger) == wanted


def test_raced_drain_changes_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain whose rows another one took first lists nothing, leaves no file, and doubles no row."""
    wanted = append(ledger.store, [row(), row()])
    write, other = segments.write, Ledger(ledger.store, str(ledger.root), SYSTEM)

    def overtaken(*arguments: Any) -> list[Segment]:
        monkeypatch.setattr(segments, "write", write)
        assert other.sync(limit=1) == 1
        return write(*arguments)

    monkeypatch.setattr(segments, "write", overtaken)
    assert ledger.sync() == 0
    assert [segment.path for segment in listed(ledger)] == kept(ledger)
    assert ids(ledger) == wanted
    assert ledger.sync() == 1
    assert ids(ledger) == wanted


def test_drain_that_stood_still_does_not_list_a_swept_file(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a sweep took the file before its drain could list it, the rows stay in the outbox."""
    wanted = append(ledger.store, [row()])
    write = segments.write

    def slow(*arguments: Any) -> list[Segment]:
        written = write(*arguments)
        assert ledger.sweep(AT_ONCE) == 1
        return written

    monkeypatch.setattr(segments, "write", slow)
    assert ledger.sync() == 0
    assert listed(ledger) == []
    assert ids(ledger) == wanted
