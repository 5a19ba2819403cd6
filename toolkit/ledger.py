"""The usage ledger: every request-log row, as immutable Parquet segments that DuckDB reads.

A settlement appends its row to the outbox, a table of the key store. `sync` moves rows from there into segments;
the list of segments is a table of the key store too, so that one transaction takes a row out of the one and puts it
into the other. A query reads list and outbox in one snapshot: it sees each row as soon as it is settled, once.

DuckDB never opens the key store's file (two SQLite libraries in one process lose each other's locks); rows cross
as Arrow. `docs/ledger.md` describes the views.
"""

import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from sqlalchemy import BigInteger, ColumnElement, Table, delete, func, select, true, type_coerce

from toolkit import segments
from toolkit.database import Actor, Store, Transaction, lock_name
from toolkit.errors import Forbidden, InvalidInput, Unavailable
from toolkit.models import (
    ApiKey,
    Hold,
    KeyMonth,
    Moment,
    Organisation,
    OutboxRow,
    Plan,
    RefusalCount,
    Segment,
    SupersededSegment,
    WalletEntry,
)
from toolkit.period import Period
from toolkit.policy import Role

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

BATCH = 10_000
"""Most rows that one transaction moves out of the outbox: on SQLite it keeps the gateways waiting for that long."""

FULL = 500_000
"""Rows from which on compaction leaves a segment alone."""

GRACE = timedelta(hours=6)
"""How long a file stays after no list names it: longer than any query may still be reading it."""

_OUTBOX = cast("Table", OutboxRow.__table__)
_SEGMENT = cast("Table", Segment.__table__)
_VIEWS = {
    "keys": cast("Table", ApiKey.__table__),
    "orgs": cast("Table", Organisation.__table__),
    "plans": cast("Table", Plan.__table__),
    "refusal_counts": cast("Table", RefusalCount.__table__),
    "key_months": cast("Table", KeyMonth.__table__),
    "holds": cast("Table", Hold.__table__),
    "wallet_entries": cast("Table", WalletEntry.__table__),
}
_JOINED = {"keys", "orgs", "plans"}
"""Views that `usage` takes names from; the others are read only when a query names them."""

_USAGE = """
CREATE TEMP VIEW usage AS
SELECT {columns}, strftime(log.day, '%Y-%m') AS month, log.day AS day,
       coalesce(keys.name, log.key_id) AS key,
       coalesce(keys.name, log.key_id) || CASE keys.status WHEN 'deleted' THEN ' (deleted)' ELSE '' END AS key_label,
       coalesce(orgs.name, log.org_id) AS org, coalesce(plans.name, log.plan_id) AS plan
FROM ({log}) AS log
LEFT JOIN keys ON keys.id = log.key_id
LEFT JOIN orgs ON orgs.id = log.org_id
LEFT JOIN plans ON plans.id = log.plan_id
"""


class Ledger:
    """The usage ledger, as one actor may see it.

    An actor of one organisation finds only its rows in the views. That is no wall against code: who runs Python
    beside the files is trusted with them.

    Args:
        store: the key store, which holds outbox and list of segments.
        root: folder of the segments.
        actor: whose rights hold.
    """

    def __init__(self, store: Store, root: Path, actor: Actor) -> None:
        self.store = store
        self.root = root
        self.actor = actor

    def sql(self, query: str, params: Sequence[Any] | dict[str, Any] | None = None) -> "pa.Table":
        """Run one query over the view `usage` and those of the key store: `keys`, `orgs`, `plans` and so on.

        Each call sees the ledger as it is at that moment. Sums of integers come back as 64-bit integers.

        Args:
            query: DuckDB SQL.
            params: values for `?` (a sequence) or `$name` (a dict).

        Raises:
            InvalidInput: the query is empty.
            Unavailable: the key store or a segment cannot be read.
            duckdb.Error: the query is wrong.
        """
        with self._views(query) as cursor:
            relation = cursor.sql(query, params=params)
            if relation is None:
                raise InvalidInput("The query is empty.")
            return _with_plain_integers(relation.to_arrow_table())

    def df(self, query: str, params: Sequence[Any] | dict[str, Any] | None = None) -> "pd.DataFrame":
        """Run one query as `sql` does and return a data frame; no integer becomes a float.

        Whole numbers are int64, or Int64 where some are missing; money is nano-USD. Moments are UTC.
        """
        import pandas as pd
        import pyarrow as pa

        table = self.sql(query, params)
        frame: pd.DataFrame = table.to_pandas()
        for field in table.schema:
            column = table.column(field.name)
            if pa.types.is_integer(field.type) and column.null_count:
                frame[field.name] = pd.array(column.to_pylist(), dtype="Int64")
        return frame

    def lag(self) -> tuple[int, float]:
        """Return how many rows wait in the outbox, and for how many seconds the oldest has."""
        with self.store.read(self.actor) as tx:
            rows, oldest = tx.session.execute(select(func.count(), func.min(OutboxRow.settled_at))).one()
            return rows, max((tx.now - oldest).total_seconds(), 0.0) if oldest else 0.0

    def export(
        self,
        path: Path,
        *,
        format: Literal["parquet", "csv", "duckdb"],  # noqa: A002 - the word that analysts know
        period: Period | None = None,
    ) -> int:
        """Write the rows of a period, with the columns of the view `usage`, into one file; return how many.

        Args:
            path: the file; it appears whole or not at all, and takes the place of an older one.
            format: a Parquet file, a CSV file with a header, or a DuckDB database with a table `usage`.
            period: by admission; everything by default.

        Raises:
            InvalidInput: no such format.
        """
        where, values = (period or Period.all()).where()
        rows = f"SELECT * FROM usage WHERE {where} ORDER BY admitted_at, request_id"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        target = _quoted(str(temporary))
        with self._views("") as cursor:
            try:
                if format == "duckdb":
                    # Attached databases are known by name to the whole process: two exports must not share one.
                    name = f"export_{secrets.token_hex(8)}"
                    cursor.execute(f"ATTACH {target} AS {name}")
                    try:
                        cursor.execute(f"CREATE TABLE {name}.usage AS {rows}", values)
                        count = cursor.execute(f"SELECT count(*) FROM {name}.usage").fetchall()
                    finally:
                        cursor.execute(f"DETACH {name}")
                elif format in {"parquet", "csv"}:
                    options = "FORMAT parquet, COMPRESSION zstd" if format == "parquet" else "FORMAT csv, HEADER"
                    count = cursor.execute(f"COPY ({rows}) TO {target} ({options})", values).fetchall()
                else:
                    raise InvalidInput(f"There is no export format {format!r}. Choose parquet, csv or duckdb.")
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return int(count[0][0])

    @cached_property
    def _connection(self) -> "duckdb.DuckDBPyConnection":
        import duckdb

        # One engine for all ledgers of the process: they share its cache of files. Nothing is ever downloaded.
        connection = duckdb.connect(
            ":memory:keydesk",
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "temp_directory": str(Path(tempfile.gettempdir()) / f"keydesk-{os.getpid()}"),
            },
        )
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        connection.execute("SET GLOBAL parquet_metadata_cache = true")  # segments never change
        return connection

    @contextmanager
    def _views(self, query: str) -> Iterator["duckdb.DuckDBPyConnection"]:
        """Open a DuckDB cursor whose views show one snapshot of the key store."""
        import duckdb

        with self.store.read(self.actor) as tx:
            listed = tx.session.execute(select(Segment.path, Segment.schema_version).order_by(Segment.path)).all()
            tables = {"tail": self._fetch(tx, _OUTBOX)}
            for name, table in _VIEWS.items():
                if name in _JOINED or name in query:
                    tables[name] = self._fetch(tx, table)
        log = "SELECT *, admitted_at::DATE AS day FROM tail"
        if listed:
            files = ", ".join(_quoted(_literal_glob(str(self.root / path))) for path, _ in listed)
            by_name = len({version for _, version in listed}) > 1
            log = (
                f"SELECT * FROM read_parquet([{files}], hive_partitioning = true, hive_types = {{'day': DATE}},"
                f" union_by_name = {by_name}) UNION ALL BY NAME {log}"
            )
        if self.actor.org_id is not None:
            log = f"SELECT * FROM ({log}) WHERE org_id = {_quoted(self.actor.org_id)}"
        columns = ", ".join(f"log.{column.name}" for column in _OUTBOX.columns)
        with self._connection.cursor() as cursor:
            try:
                for name, rows in tables.items():
                    cursor.register(name, rows)
                cursor.execute(_USAGE.format(columns=columns, log=log))
                yield cursor
            except duckdb.IOException as error:
                raise Unavailable(f"The ledger's files failed; `keydesk ledger verify` checks them. {error}") from error

    def _fetch(self, tx: Transaction, table: Table, limit: int | None = None) -> "pa.Table":
        """Return a table of the key store as Arrow: the actor's rows, in order of the primary key if limited."""
        import pyarrow as pa

        # Moments cross as the integers they are kept as: no datetime object for each of them.
        query = select(*(type_coerce(c, BigInteger) if isinstance(c.type, Moment) else c for c in table.columns))
        if self.actor.org_id is not None:
            query = query.where(_belongs_to(table, self.actor.org_id))
        if limit is not None:
            query = query.order_by(*table.primary_key).limit(limit)
        rows = tx.session.execute(query).all()
        schema = segments.arrow_schema(table)
        if not rows:
            return schema.empty_table()
        columns = zip(*rows, strict=True)
        return pa.table(
            [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
        )

    def sync(self, limit: int = 50_000) -> int:
        """Move rows from the outbox into segments; return how many.

        Safe beside other processes that do the same, and against being killed at any moment: each row is in the
        outbox or in exactly one segment.

        Args:
            limit: the most rows to move; each transaction moves at most `BATCH`.

        Raises:
            Forbidden: the actor is not the platform.
        """
        self._require_platform()
        moved = 0
        while moved < limit and (step := self._drain(min(BATCH, limit - moved))):
            moved += step
        return moved

    def _drain(self, limit: int) -> int:
        with self.store.read(self.actor) as tx:
            rows = self._fetch(tx, _OUTBOX, limit)
        if not rows.num_rows:
            return 0
        ids = rows.column("request_id").to_pylist()
        return self._swap(segments.write(self.root, rows), _OUTBOX, ids)

    def compact(self) -> int:
        """Merge the small segments of each day; return how many files were replaced.

        The old files stay on disk until `sweep` finds that no query can be reading them.

        Raises:
            Forbidden: the actor is not the platform.
            Unavailable: a segment is damaged; nothing of its day is merged.
        """
        import pyarrow as pa

        self._require_platform()
        with self.store.read(self.actor) as tx:
            small = tx.session.scalars(
                select(Segment).where(Segment.rows < FULL).order_by(Segment.day, Segment.first_admitted_at)
            ).all()
        replaced = 0
        for _, of_day in groupby(small, key=lambda segment: segment.day):
            for group in _up_to_full(list(of_day)):
                parts = [segments.read(self.root, segment) for segment in group]
                merged = segments.write(self.root, pa.concat_tables(parts, promote_options="default"))
                replaced += self._swap(merged, _SEGMENT, [segment.path for segment in group])
        return replaced

    def _swap(self, added: list[Segment], table: Table, taken: list[str]) -> int:
        """List new segments and delete the rows they were made from, in one transaction; return how many.

        If another process took any of those rows first, nothing changes, the new files go, and the answer is 0.
        """
        (key,) = table.primary_key
        with self.store.write(self.actor) as tx:
            lock_name(tx, "ledger")
            deleted = tx.session.connection().execute(delete(table).where(key.in_(taken))).rowcount
            # A sweep takes the files of a process that stood still for longer than the grace period.
            if deleted == len(taken) and all((self.root / segment.path).exists() for segment in added):
                tx.session.add_all(added)
                if table is _SEGMENT:
                    tx.session.add_all(SupersededSegment(path=path, superseded_at=tx.now) for path in taken)
                return deleted
            tx.session.rollback()
        # Files are removed only here, where it is certain that nothing was committed; else they are left to `sweep`.
        for segment in added:
            (self.root / segment.path).unlink(missing_ok=True)
        return 0

    def sweep(self, grace: timedelta = GRACE) -> int:
        """Remove files that no list has named for longer than `grace`; return how many.

        Such are segments that compaction replaced, and what a killed process left behind.

        Raises:
            Forbidden: the actor is not the platform.
        """
        self._require_platform()
        old = [path for path, age in segments.files(self.root).items() if age >= grace.total_seconds()]
        # Behind the ledger's lock, so that no drain can be listing one of them at the same time.
        with self.store.write(self.actor) as tx:
            lock_name(tx, "ledger")
            tx.session.execute(delete(SupersededSegment).where(SupersededSegment.superseded_at <= tx.now - grace))
            listed = {*tx.session.scalars(select(Segment.path)), *tx.session.scalars(select(SupersededSegment.path))}
            unlisted = [path for path in old if path not in listed]
            for path in unlisted:
                (self.root / path).unlink(missing_ok=True)
        return len(unlisted)

    def verify(self) -> list[str]:
        """Check every segment against its checksum and its entry, and that no request id occurs twice.

        Returns:
            One sentence for each thing that is wrong; none if all is well.

        Raises:
            Forbidden: the actor is not the platform.
        """
        self._require_platform()
        with self.store.read(self.actor) as tx:
            listed = tx.session.scalars(select(Segment).order_by(Segment.path)).all()
        problems = []
        for segment in listed:
            try:
                segments.read(self.root, segment)
            except Unavailable as damage:
                problems.append(str(damage))
        if not problems:
            twice = self.sql(
                "SELECT request_id, count(*) FROM usage GROUP BY request_id HAVING count(*) > 1 ORDER BY 1"
            )
            problems += [
                f"The request {request_id} occurs {count} times."
                for request_id, count in zip(*(column.to_pylist() for column in twice.columns), strict=True)
            ]
        return problems

    def _require_platform(self) -> None:
        if self.actor.role is not Role.PLATFORM_ADMIN:
            raise Forbidden("Only a platform admin may do this.")


def _belongs_to(table: Table, org_id: str) -> ColumnElement[bool]:
    """Return the condition under which a row is one that an actor of this organisation may see."""
    if table is _VIEWS["plans"]:
        return true()
    if table is _VIEWS["orgs"]:
        return table.c.id == org_id
    if "org_id" in table.columns:
        return table.c.org_id == org_id
    return table.c.key_id.in_(select(ApiKey.id).where(ApiKey.org_id == org_id))


def _with_plain_integers(table: "pa.Table") -> "pa.Table":
    """Return the table with DuckDB's 128-bit sums as 64-bit integers, which pandas does not turn into floats."""
    import pyarrow as pa

    for position, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type) and field.type.scale == 0:
            column = table.column(position).cast(pa.int64())
            table = table.set_column(position, field.name, column)
    return table


def _up_to_full(small: list[Segment]) -> Iterator[list[Segment]]:
    """Yield groups of two or more segments to merge, each closed as soon as it has `FULL` rows."""
    group: list[Segment] = []
    for segment in small:
        group.append(segment)
        if sum(member.rows for member in group) >= FULL:
            yield group
            group = []
    if len(group) > 1:
        yield group


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _literal_glob(path: str) -> str:
    """Return the path with characters escaped that DuckDB would read as a pattern."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in path)
