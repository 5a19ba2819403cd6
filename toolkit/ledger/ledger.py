"""The usage ledger: every request-log row, as immutable Parquet segments that DuckDB reads.

A settlement appends its row to the outbox, a table of the key store. `sync` moves rows from there into segments;
the list of segments is a table of the key store too, so that one transaction takes a row out of the one and puts it
into the other. A query reads list and outbox in one snapshot: it sees each row as soon as it is settled, once.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from toolkit.core.errors import Forbidden
from toolkit.core.period import Period
from toolkit.core.policy import Role
from toolkit.ledger import compaction, drain, duckdb_engine, duckdb_views, segments, sql_guard, storage
from toolkit.ledger.segment_list import GRACE, SegmentList
from toolkit.store.actor import Actor
from toolkit.store.database import Store
from toolkit.store.tables import OutboxRow, Segment, SupersededSegment

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

_TWICE = "SELECT request_id, count(*) FROM usage GROUP BY request_id HAVING count(*) > 1 ORDER BY request_id"


@dataclass(frozen=True, slots=True)
class Status:
    """How the ledger stands.

    Args:
        segments: files that are listed.
        rows: in them.
        size: their bytes.
        waiting: rows in the outbox; readers see them all the same.
        oldest_seconds: how long the oldest of these has waited.
        drained_at: when a row was last moved into a segment; None if none ever was.
        mergeable: segments that `compact` would merge.
        replaced: files that no list names any more, and that stay for queries under way.
    """

    segments: int
    rows: int
    size: int
    waiting: int
    oldest_seconds: float
    drained_at: datetime | None
    mergeable: int
    replaced: int


class Ledger:
    """The usage ledger, as one actor may see it.

    An actor of one organisation finds only its rows in the views. That is no wall against code: who runs Python
    beside the files is trusted with them.

    Args:
        store: the key store, which holds outbox and list of segments.
        root: where the segments stand: a folder, or `s3://BUCKET/PREFIX`.
        actor: whose rights hold.
        read_only: nothing may be moved or removed, whoever asks.

    Raises:
        InvalidInput: there can be no bucket of that name.
    """

    def __init__(self, store: Store, root: Path | str, actor: Actor, *, read_only: bool = False) -> None:
        self.store = store
        self.root = storage.at(root)
        self.actor = actor
        self.read_only = read_only
        self.segment_list = SegmentList(store, self.root, actor)

    def sql(
        self,
        query: str,
        params: Sequence[Any] | dict[str, Any] | None = None,
        *,
        period: Period | None = None,
        request_id: str | None = None,
    ) -> "pa.Table":
        """Run one query over the view `usage` and those of the key store: `keys`, `orgs`, `plans` and so on.

        Each call sees the ledger as it is at that moment. Sums of integers come back as 64-bit integers.

        Nothing is written: what is not one query that reads is refused. Functions such as `read_parquet` read whatever
        files the process may read; who may not see them is kept out by the operating system, not by this.

        Args:
            query: DuckDB SQL.
            params: values for `?` (a sequence) or `$name` (a dict).
            period: leaves only the calls of this period in `usage`; files and waiting rows of others are not read.
            request_id: leaves only this call in `usage`, likewise.

        Raises:
            InvalidInput: the query is empty, or does not only read, or gives whole numbers beyond 64 bits.
            Unavailable: the key store or a segment cannot be read.
            duckdb.Error: the query is wrong.
        """
        with self._views(query, period, request_id) as cursor:
            relation = cursor.sql(sql_guard.only_reading(cursor, query), params=params)
            return duckdb_engine.with_plain_integers(relation.to_arrow_table())

    def df(
        self,
        query: str,
        params: Sequence[Any] | dict[str, Any] | None = None,
        *,
        period: Period | None = None,
        request_id: str | None = None,
    ) -> "pd.DataFrame":
        """Run one query as `sql` does and return a data frame; no integer becomes a float.

        Whole numbers are int64, or Int64 where some are missing; money is nano-USD. Moments are UTC.
        """
        import pandas as pd
        import pyarrow as pa

        table = self.sql(query, params, period=period, request_id=request_id)
        frame: pd.DataFrame = table.to_pandas()
        for position, field in enumerate(table.schema):
            if pa.types.is_integer(field.type) and table.column(position).null_count:
                whole = table.column(position).to_pandas(types_mapper=lambda _: pd.Int64Dtype())
                frame.isetitem(position, whole)
        return frame

    @cached_property
    def _connection(self) -> "duckdb.DuckDBPyConnection":
        return duckdb_engine.engine()

    def _views(
        self, query: str, period: Period | None = None, request_id: str | None = None
    ) -> AbstractContextManager["duckdb.DuckDBPyConnection"]:
        return duckdb_views.opened(self._connection, self.store, self.root, self.actor, query, period, request_id)

    def lag(self) -> tuple[int, float]:
        """Return how many rows wait in the outbox, and for how many seconds the oldest has."""
        with self.store.read(self.actor) as tx:
            rows, oldest = tx.session.execute(select(func.count(), func.min(OutboxRow.settled_at))).one()
            return rows, max((tx.now - oldest).total_seconds(), 0.0) if oldest else 0.0

    def status(self) -> Status:
        """Return how the ledger stands.

        Raises:
            Forbidden: the actor is not the platform.
            Unavailable: the key store or the segments' place cannot be reached.
        """
        self._require_platform()
        with self.store.read(self.actor) as tx:
            count, rows, size, drained_at = tx.session.execute(
                select(
                    func.count(),
                    func.coalesce(func.sum(Segment.rows), 0),
                    func.coalesce(func.sum(Segment.size), 0),
                    func.max(Segment.created_at),
                )
            ).one()
            noted = set(tx.session.scalars(select(SupersededSegment.path)))
        # A note outlives its file: it keeps a slow drain from listing what a sweep removed.
        replaced = len(noted.intersection(self.root.ages(segments.FOLDER)))
        waiting, oldest = self.lag()
        mergeable = sum(map(len, compaction.groups(self.segment_list, thorough=True)))
        return Status(count, int(rows), int(size), waiting, oldest, drained_at, mergeable, replaced)

    def sync(self, limit: int = 50_000) -> int:
        """Move rows from the outbox into segments; return how many.

        Safe beside other processes that do the same, and against being killed at any moment: each row is in the
        outbox or in exactly one segment.

        Args:
            limit: the most rows to move; each transaction moves at most `drain.BATCH`.

        Raises:
            Forbidden: the actor is not the platform.
        """
        self._require_upkeep()
        return drain.drain(self.segment_list, limit)

    def compact(self, *, thorough: bool = True) -> int:
        """Merge the small segments of each day; return how many files were replaced, as `merges` does one by one."""
        return sum(self.merges(thorough=thorough))

    def merges(self, *, thorough: bool = True) -> Iterator[int]:
        """Merge the small segments of each day, some at a time; yield how many files each merge replaced.

        The old files stay until `sweep` finds that no query can be reading them. Whoever drains may do so in between.

        Args:
            thorough: merge all that are small; else only where `compaction.ALIKE` of like size have gathered, which
                keeps their number low at little cost while calls go on coming in.

        Raises:
            Forbidden: the actor is not the platform.
            Unavailable: segments are damaged, or their place cannot be reached; all that could be merged was.
        """
        self._require_upkeep()
        yield from compaction.merges(self.segment_list, thorough=thorough)

    def sweep(self, grace: timedelta = GRACE) -> int:
        """Remove files that no list has named for longer than `grace`; return how many.

        Such are segments that compaction replaced, and what a killed process left behind. Whoever was about to list
        one of them finds it noted, and does not.

        Raises:
            Forbidden: the actor is not the platform.
        """
        self._require_upkeep()
        return self.segment_list.sweep(grace)

    def verify(self) -> list[str]:
        """Check every segment against its checksum and its entry, and that no request id occurs twice.

        Returns:
            One sentence for each thing that is wrong; none if all is well.

        Raises:
            Forbidden: the actor is not the platform.
        """
        self._require_platform()
        problems = segments.damage(self.root, self.segment_list.read())
        if not problems:
            # A row that was kept twice is there twice on its day; all days at once may be too much for the memory.
            for day in self.sql("SELECT DISTINCT day FROM usage ORDER BY day").column(0).to_pylist():
                start = datetime(day.year, day.month, day.day, tzinfo=UTC)
                twice = self.sql(_TWICE, period=Period(start, start + timedelta(days=1)))
                problems += [
                    f"The request {request_id} occurs {count} times."
                    for request_id, count in zip(*(column.to_pylist() for column in twice.columns), strict=True)
                ]
        return problems

    def _require_upkeep(self) -> None:
        self._require_platform()
        if self.read_only:
            raise Forbidden("The ledger was opened for reading only. `keydesk ledger` has the verbs that keep it up.")

    def _require_platform(self) -> None:
        if self.actor.role is not Role.PLATFORM_ADMIN:
            raise Forbidden("Only a platform admin may do this.")
