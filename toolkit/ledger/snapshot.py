"""The snapshot of a query: the rows of the key store and the list of segments, as they were at one moment.

DuckDB never opens the key store (two SQLite libraries in one process lose each other's locks): its rows cross as
Arrow, some thousands at a time. The snapshot is let go before the query runs, so that a long query keeps nobody
waiting.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING, cast

from sqlalchemy import BigInteger, ColumnElement, Table, select, type_coerce

from toolkit.core.period import Period
from toolkit.ledger import segments
from toolkit.ledger.row_security import name_readers, visible_rows
from toolkit.store.tables import (
    ApiKey,
    AuditRow,
    HoldRow,
    KeyMonth,
    Moment,
    Organisation,
    OutboxRow,
    Plan,
    Price,
    RefusalCount,
    RefusalDay,
    Segment,
    WalletEntry,
)
from toolkit.store.transaction import Transaction

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE = 20_000
"""Rows that cross from the key store at a time: what a query holds in Python's memory."""

OUTBOX = cast("Table", OutboxRow.__table__)

TABLES = {
    "keys": cast("Table", ApiKey.__table__),
    "orgs": cast("Table", Organisation.__table__),
    "plans": cast("Table", Plan.__table__),
    "prices": cast("Table", Price.__table__),
    "audit": cast("Table", AuditRow.__table__),
    "refusal_counts": cast("Table", RefusalCount.__table__),
    "refusal_days": cast("Table", RefusalDay.__table__),
    "key_months": cast("Table", KeyMonth.__table__),
    "holds": cast("Table", HoldRow.__table__),
    "wallet_entries": cast("Table", WalletEntry.__table__),
}
"""Tables of the key store that are views besides `usage`."""


def batches(
    tx: Transaction, table: Table, *conditions: ColumnElement[bool], limit: int | None = None
) -> Generator["pa.RecordBatch", None, None]:
    """Yield a table of the key store as Arrow, `AT_ONCE` rows at a time, of what the transaction's actor may see.

    Args:
        tx: what is open while it is read.
        table: of the key store.
        conditions: that rows must meet.
        limit: the most rows to give, in order of the primary key.
    """
    import pyarrow as pa

    # Moments cross as the integers they are kept as: no datetime object for each of them.
    query = select(*(type_coerce(c, BigInteger) if isinstance(c.type, Moment) else c for c in table.columns))
    query = query.where(*conditions, visible_rows(table, tx.actor))
    if limit is not None:
        query = query.order_by(*table.primary_key).limit(limit)
    schema = segments.arrow_schema(table)
    readers = name_readers(tx, table)
    with tx.session.connection().execution_options(yield_per=AT_ONCE).execute(query) as result:
        for rows in result.partitions():
            columns = [
                map(reader, values) if (reader := readers.get(field.name)) else values
                for values, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(
                [pa.array(list(values), field.type) for values, field in zip(columns, schema, strict=True)],
                schema=schema,
            )


def whole_table(tx: Transaction, table: Table) -> "pa.Table":
    """Return all rows of a table of the key store that the transaction's actor may see."""
    import pyarrow as pa

    return pa.Table.from_batches(batches(tx, table), segments.arrow_schema(table))


def listed_segments(tx: Transaction, period: Period | None, request_id: str | None) -> list[tuple[str, int, int]]:
    """Return path, size and schema version of the segments that may hold what is asked for."""
    query = select(Segment.path, Segment.size, Segment.schema_version).order_by(Segment.path)
    if period is not None and period.start is not None:
        query = query.where(Segment.day >= str(period.start.date()), Segment.last_admitted_at >= period.start)
    if period is not None and period.end is not None:
        query = query.where(Segment.day <= str(period.end.date()), Segment.first_admitted_at < period.end)
    if request_id is not None:
        # By bytes, as the bounds were found: PostgreSQL may sort text as a language does.
        first, last = (
            bound.collate("C" if tx.session.get_bind().dialect.name == "postgresql" else "BINARY")
            for bound in (Segment.first_request_id, Segment.last_request_id)
        )
        query = query.where(first <= request_id, last >= request_id)
    return [(path, size, version) for path, size, version in tx.session.execute(query)]


def outbox_conditions(period: Period | None, request_id: str | None) -> list[ColumnElement[bool]]:
    """Return the conditions that rows of the outbox must meet."""
    conditions: list[ColumnElement[bool]] = []
    if period is not None and period.start is not None:
        conditions.append(OutboxRow.admitted_at >= period.start)
    if period is not None and period.end is not None:
        conditions.append(OutboxRow.admitted_at < period.end)
    if request_id is not None:
        conditions.append(OutboxRow.request_id == request_id)
    return conditions
