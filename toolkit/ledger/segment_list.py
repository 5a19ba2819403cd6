"""The list of segments: which Parquet files count, replaced in one transaction with the rows they were made from.

Nothing waits for a disk or a bucket while it holds the key store's lock: files are written before, and removed after.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import ARRAY, Column, ColumnElement, Table, Text, any_, delete, func, literal, select

from toolkit.ledger import segments
from toolkit.ledger.storage import Storage
from toolkit.store.actor import Actor
from toolkit.store.database import Store
from toolkit.store.locks import lock_name
from toolkit.store.tables import Segment, SupersededSegment

GRACE = timedelta(hours=6)
"""How long a file stays after no list names it: longer than any query may still be reading it."""

PATIENCE = GRACE / 2
"""How long after its beginning a drain may list what it wrote; a sweep forgets a file's removal much later."""

SEGMENTS = cast("Table", Segment.__table__)


@dataclass(frozen=True, slots=True)
class Move:
    """Rows on their way into segments.

    Args:
        added: segments, written but not listed.
        table: the outbox, or the list of segments.
        taken: primary keys of its rows that `added` was made from.
        began: before the first of `added` was written, by the store's clock.
    """

    added: list[Segment]
    table: Table
    taken: list[str]
    began: datetime


@dataclass(frozen=True, slots=True)
class SegmentList:
    """The list of segments in the key store, and the storage that has their files.

    Args:
        store: the key store.
        storage: where the files are.
        actor: in whose name the list is changed.
    """

    store: Store
    storage: Storage
    actor: Actor

    def read(self, *conditions: ColumnElement[bool]) -> Sequence[Segment]:
        """Return the listed segments that meet some conditions, by day and time of admission."""
        query = select(Segment).where(*conditions).order_by(Segment.day, Segment.first_admitted_at, Segment.path)
        with self.store.read(self.actor) as tx:
            return tx.session.scalars(query).all()

    def swap(self, move: Move) -> int:
        """List new segments and delete the rows they were made from, in one transaction; return how many.

        If another process took any of those rows first, or a sweep the new files, nothing changes, the new files go,
        and the answer is 0.
        """
        (key,) = move.table.primary_key
        paths = [segment.path for segment in move.added]
        with self.store.write(self.actor) as tx:
            lock_name(tx, "ledger")
            # A sweep notes what it removes, and forgets it only after the patience of whoever wrote it is at an end.
            swept = tx.session.scalar(select(func.count()).where(SupersededSegment.path.in_(paths)))
            if not swept and tx.now - move.began <= PATIENCE:
                taken = delete(move.table).where(self._one_of(key, move.taken))
                if tx.session.connection().execute(taken).rowcount == len(move.taken):
                    tx.session.add_all(move.added)
                    if move.table is SEGMENTS:
                        replaced = (SupersededSegment(path=path, superseded_at=tx.now) for path in move.taken)
                        tx.session.add_all(replaced)
                    return len(move.taken)
            tx.session.rollback()
        # Files are removed only here, where it is certain that nothing was committed; else they are left to `sweep`.
        self.storage.remove(paths)
        return 0

    def _one_of(self, column: Column[str], values: list[str]) -> ColumnElement[bool]:
        """Return the condition that a column has one of very many values: they cross as one, not each by itself."""
        if self.store.is_postgres:
            return column == any_(literal(values, ARRAY(Text)))
        return column.in_(select(func.json_each(json.dumps(values)).table_valued("value").c.value))

    def sweep(self, grace: timedelta) -> int:
        """Remove files that no list has named for longer than `grace`; return how many.

        Such are segments that compaction replaced, and what a killed process left behind. Whoever was about to list
        one of them finds it noted, and does not.
        """
        ages = self.storage.ages(segments.FOLDER)
        with self.store.write(self.actor) as tx:
            lock_name(tx, "ledger")
            # Longer than anyone's patience, whatever `grace` says: see `swap`.
            forgotten = SupersededSegment.superseded_at <= tx.now - max(grace, GRACE)
            tx.session.execute(delete(SupersededSegment).where(forgotten))
            long_ago = tx.now - grace
            listed = set(tx.session.scalars(select(Segment.path)))
            noted = {known.path: known.superseded_at for known in tx.session.scalars(select(SupersededSegment))}
            removable = [
                path
                for path, age in ages.items()
                if age >= grace.total_seconds() and path not in listed and noted.get(path, long_ago) <= long_ago
            ]
            tx.session.add_all(
                SupersededSegment(path=path, superseded_at=tx.now) for path in removable if path not in noted
            )
        self.storage.remove(removable)
        return len(removable)
