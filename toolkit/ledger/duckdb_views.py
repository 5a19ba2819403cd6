"""Views: what DuckDB sees of the ledger, from one snapshot of the key store and the segments that it lists.

DuckDB never opens the key store (two SQLite libraries in one process lose each other's locks): its rows cross as
Arrow, some thousands at a time. The snapshot is let go before the query runs, so that a long query keeps nobody
waiting. `docs/ledger.md` describes the views.
"""

import atexit
import re
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import BigInteger, ColumnElement, Table, select, true, type_coerce

from toolkit.core.errors import InvalidInput, Unavailable
from toolkit.core.period import Period
from toolkit.ledger import segments
from toolkit.ledger.storage import Storage
from toolkit.store import audit, names
from toolkit.store.database import Actor, Store, Transaction
from toolkit.store.tables import (
    ApiKey,
    AuditRow,
    Hold,
    KeyMonth,
    Moment,
    Organisation,
    OutboxRow,
    Plan,
    PlanModel,
    Price,
    RefusalCount,
    RefusalDay,
    Segment,
    WalletEntry,
)

if TYPE_CHECKING:
    import duckdb
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
    "holds": cast("Table", Hold.__table__),
    "wallet_entries": cast("Table", WalletEntry.__table__),
}
"""Tables of the key store that are views besides `usage`."""

_COMMON = {TABLES["plans"]}
"""Tables that every organisation sees whole."""

_USAGE = """
CREATE TEMP VIEW usage AS
SELECT {columns}, strftime(log.day, '%Y-%m') AS month, log.day AS day,
       coalesce(named_keys.name, log.key_id) AS key, coalesce(named_keys.label, log.key_id) AS key_label,
       coalesce(named_keys.org, log.org_id) AS org, coalesce(named_plans.name, log.plan_id) AS plan
FROM ({log}) AS log
LEFT JOIN (
    SELECT id, any_value(name) AS name, any_value(label) AS label, any_value(org) AS org FROM key_names GROUP BY id
) AS named_keys ON named_keys.id = log.key_id
LEFT JOIN (
    SELECT id, any_value(name) AS name FROM plan_names GROUP BY id
) AS named_plans ON named_plans.id = log.plan_id
"""
"""Names are grouped by id, so that DuckDB knows each to be there once and leaves out a join that nobody asks for."""

_EXPLAIN = re.compile(r"\s*explain(\s+analyze)?\b", re.IGNORECASE)
_WRITING = re.compile(r"\b(copy|insert|update|delete|truncate|merge)\b", re.IGNORECASE)
"""Statements that a WITH may have; a text or a name that looks like one does no harm."""

_MEDDLING = re.compile(r"\b(enable_logging|enable_profiling|json_execute_serialized_sql)\b", re.IGNORECASE)
"""Functions that a SELECT may call, and that write files or run statements."""

_ONLY_READ = (
    "The ledger is only read: ask with SELECT, FROM, WITH, PIVOT, DESCRIBE, SUMMARIZE or EXPLAIN. To keep a result, "
    "write the table or frame that comes back; `keydesk ledger export` writes files of any size."
)

_PRICES = """
CREATE TEMP VIEW prices AS
SELECT id, model_id AS model, valid_from, recorded_at, recorded_by, source,
       (tier ->> 'above')::BIGINT AS above_tokens, (tier ->> 'input')::BIGINT AS input_price,
       (tier ->> 'cached_input')::BIGINT AS cached_input_price,
       (tier ->> 'cache_write_5m')::BIGINT AS cache_write_5m_price,
       (tier ->> 'cache_write_1h')::BIGINT AS cache_write_1h_price, (tier ->> 'output')::BIGINT AS output_price,
       (sheet ->> 'request')::BIGINT AS request_price
FROM (SELECT *, unnest(json_extract(sheet, '$.tiers[*]')) AS tier FROM price_book)
"""


@contextmanager
def opened(
    connection: "duckdb.DuckDBPyConnection",
    store: Store,
    storage: Storage,
    actor: Actor,
    query: str,
    period: Period | None = None,
    request_id: str | None = None,
) -> Iterator["duckdb.DuckDBPyConnection"]:
    """Open a DuckDB cursor with the views of this moment.

    Args:
        connection: from `engine`.
        store: the key store.
        storage: where its segments stand.
        actor: whose rights hold.
        query: what will be asked; views that it does not name are missing, and cost nothing.
        period: leaves only its calls in `usage`, and only files that may hold some are opened.
        request_id: leaves only this call in `usage`, likewise.

    Raises:
        Unavailable: the key store or a segment cannot be read.
        InvalidInput: a WITH of the query would write.
    """
    import duckdb

    text = query.casefold()
    logged = "usage" in text
    listed: list[tuple[str, int, int]] = []
    with connection.cursor() as cursor:
        storage.connect(cursor)
        try:
            with store.read(actor) as tx:
                if logged:
                    listed = _listed(tx, period, request_id)
                    with closing(batches(tx, OUTBOX, *_wanted(period, request_id))) as waiting:
                        _load_tail(cursor, waiting)
                    called = names.read(store, tx)
                    cursor.register("key_names", called.keys)
                    cursor.register("plan_names", called.plans)
                for name, table in TABLES.items():
                    if name in text:
                        stored = "price_book" if name == "prices" else name
                        cursor.register(stored, _table(tx, table))
                        if name == "prices":
                            cursor.execute(_PRICES)
            if logged:
                tail = "SELECT *, admitted_at::DATE AS day FROM tail"
                log = " UNION ALL BY NAME ".join([*_scans(storage, listed), tail])
                if narrow := _narrowing(actor, period, request_id):
                    log = f"SELECT * FROM ({log}) WHERE {narrow}"
                cursor.execute(_USAGE.format(columns=", ".join(map(_column, OUTBOX.columns)), log=log))
            yield cursor
        except duckdb.Error as error:
            if isinstance(error, duckdb.BinderException) and "must be at the top level" in str(error):
                raise InvalidInput(_ONLY_READ) from error  # a WITH that writes, which `only_reading` put in brackets
            if not _is_of_the_files(error):
                raise
            reason = str(error).partition("\n\nLINE")[0].strip()
            if reason.startswith("Traceback"):
                reason = reason.splitlines()[-1].partition(": ")[2]
            raise Unavailable(f"The ledger's files failed; `keydesk ledger verify` checks them. {reason}") from error


def _is_of_the_files(error: "duckdb.Error") -> bool:
    """Whether an error is of a segment or its place; a mistake in a query has a class of its own."""
    import duckdb

    # What a damaged page makes DuckDB's decoders raise has no class, nor has what Python code that reads a bucket does.
    if isinstance(error, duckdb.IOException | duckdb.InternalException) or type(error) is duckdb.Error:
        return True
    return isinstance(error, duckdb.InvalidInputException) and "parquet" in str(error).casefold()


def only_reading(connection: "duckdb.DuckDBPyConnection", query: str) -> "duckdb.Statement":
    """Return a query in a form in which DuckDB does nothing but read.

    Raises:
        InvalidInput: there is none, for it is no query, or more than one, or does something else.
        duckdb.Error: it is no SQL.
    """
    from duckdb import ParserException, StatementType

    explain = match[0] if (match := _EXPLAIN.match(query)) else ""
    asked = query[len(explain) :]
    statements = connection.extract_statements(asked)
    if not statements:
        raise InvalidInput("The query is empty.")
    if len(statements) > 1:
        raise InvalidInput(f"These are {len(statements)} statements. Ask them one by one.")
    kind = statements[0].type
    if kind not in {StatementType.SELECT, StatementType.MULTI} or _MEDDLING.search(asked):
        raise InvalidInput(_ONLY_READ)
    in_brackets = kind == StatementType.MULTI or _WRITING.search(asked)
    if in_brackets:
        # PIVOT is of several parts, and so is what writes with its result; a WITH may write and then read. In brackets
        # DuckDB takes none of these but PIVOT.
        asked = f"FROM (\n{asked.strip().rstrip(';')}\n)"
    if in_brackets or explain:
        try:
            statements = connection.extract_statements(f"{explain} {asked}")
        except ParserException as error:
            raise InvalidInput(_ONLY_READ) from error
    return statements[0]


@cache
def _spill_folder() -> str:
    """Return where large queries of this process write rows: a folder for its user alone, gone when it ends."""
    folder = tempfile.mkdtemp(prefix="keydesk-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def engine() -> "duckdb.DuckDBPyConnection":
    """Return a connection to the process's one engine, so that all ledgers share what it remembers of the files.

    Nothing is ever downloaded.
    """
    import duckdb

    connection = duckdb.connect(
        ":memory:keydesk",
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "temp_directory": _spill_folder(),
        },
    )
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute("SET GLOBAL parquet_metadata_cache = true")  # segments never change
    # Of files that a filter on `day` leaves over, DuckDB 2.0 believes that they hold one row, and would build its hash
    # tables from millions of calls instead of a dozen names: four times the work.
    connection.execute("SET GLOBAL disabled_optimizers = 'build_side_probe_side'")
    return connection


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
    query = query.where(*conditions)
    if tx.actor.org_id is not None:
        query = query.where(_belongs_to(table, tx.actor.org_id))
    if limit is not None:
        query = query.order_by(*table.primary_key).limit(limit)
    schema = segments.arrow_schema(table)
    readers = _readers(tx, table)
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


def _readers(tx: Transaction, table: Table) -> dict[str, Callable[[Any], Any]]:
    """Return how columns read that say who did or made something, for people who must not learn all names."""
    named = [name for name in table.columns.keys() if name in audit.NAMES]  # noqa: SIM118 - not a dict
    if tx.actor.org_id is None or not named:
        return {}
    shown = audit.names_shown(tx)
    readers: dict[str, Callable[[Any], Any]] = dict.fromkeys(named, shown)
    if table is TABLES["audit"]:
        readers |= dict.fromkeys(("before", "after"), partial(audit.facts_shown, shown=shown))
    return readers


def _table(tx: Transaction, table: Table) -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_batches(batches(tx, table), segments.arrow_schema(table))


def _load_tail(cursor: "duckdb.DuckDBPyConnection", rows: Iterator["pa.RecordBatch"]) -> None:
    """Give DuckDB the rows that wait in the outbox; it can put them on disk if there are very many."""
    import pyarrow as pa

    schema = segments.arrow_schema(OUTBOX)
    first = next(rows, None)
    if first is None or first.num_rows < AT_ONCE:
        cursor.register("tail", pa.Table.from_batches([first] if first else [], schema))
        return
    cursor.register("batch", pa.Table.from_batches([first]))
    cursor.execute("CREATE TEMP TABLE tail AS FROM batch")
    for batch in rows:
        cursor.register("batch", pa.Table.from_batches([batch]))
        cursor.execute("INSERT INTO tail FROM batch")
    cursor.unregister("batch")


def _listed(tx: Transaction, period: Period | None, request_id: str | None) -> list[tuple[str, int, int]]:
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


def _wanted(period: Period | None, request_id: str | None) -> list[ColumnElement[bool]]:
    """Return the conditions that rows of the outbox must meet."""
    conditions: list[ColumnElement[bool]] = []
    if period is not None and period.start is not None:
        conditions.append(OutboxRow.admitted_at >= period.start)
    if period is not None and period.end is not None:
        conditions.append(OutboxRow.admitted_at < period.end)
    if request_id is not None:
        conditions.append(OutboxRow.request_id == request_id)
    return conditions


def _narrowing(actor: Actor, period: Period | None, request_id: str | None) -> str:
    """Return the conditions that rows of the log must meet, as DuckDB's SQL."""
    terms = []
    if actor.org_id is not None:
        terms.append(f"org_id = {quoted(actor.org_id)}")
    if request_id is not None:
        terms.append(f"request_id = {quoted(request_id)}")
    if period is not None:
        condition, values = period.where()
        for value in values:
            condition = condition.replace("?", quoted(str(value)), 1)
        terms.append(condition)
    return " AND ".join(terms)


def _scans(storage: Storage, listed: list[tuple[str, int, int]]) -> Iterator[str]:
    """Yield what reads the segments: one scan for each version of their columns.

    So DuckDB looks into one file of each version to know the columns, not into every file.
    """
    for version in sorted({version for _, _, version in listed}):
        addresses = storage.addresses({path: size for path, size, of_version in listed if of_version == version})
        yield (
            f"SELECT * FROM read_parquet([{', '.join(map(quoted, addresses))}], hive_partitioning = true,"
            " hive_types = {'day': DATE})"
        )


def _column(column: Any) -> str:
    """Return a column of `usage`; where a segment is older than the column, it has the column's default."""
    if column.default is None or not column.default.is_scalar:
        return f"log.{column.name}"
    return f"coalesce(log.{column.name}, {_literal(column.default.arg)}) AS {column.name}"


def _literal(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else str(value)


def _belongs_to(table: Table, org_id: str) -> ColumnElement[bool]:
    """Return the condition under which a row is one that an actor of this organisation may see."""
    if table in _COMMON:
        return true()
    if table is TABLES["orgs"]:
        return table.c.id == org_id
    if table is TABLES["prices"]:  # which models other organisations call is theirs to know
        included = select(PlanModel.model_id).join(ApiKey, ApiKey.plan_id == PlanModel.plan_id)
        return table.c.model_id.in_(included.where(ApiKey.org_id == org_id))
    if table is TABLES["audit"]:
        return table.c.chain == org_id
    if "org_id" in table.columns:
        return table.c.org_id == org_id
    return table.c.key_id.in_(select(ApiKey.id).where(ApiKey.org_id == org_id))


def with_plain_integers(table: "pa.Table") -> "pa.Table":
    """Return the table with DuckDB's 128-bit sums as 64-bit integers, which pandas does not turn into floats.

    Raises:
        InvalidInput: a number is too large for that.
    """
    import pyarrow as pa

    for position, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type) and field.type.scale == 0:
            try:
                column = table.column(position).cast(pa.int64())
            except pa.ArrowInvalid as error:
                raise InvalidInput(
                    f"The column {field.name} has a whole number beyond 64 bits. Make it smaller, or ask for it as "
                    "VARCHAR or DOUBLE."
                ) from error
            table = table.set_column(position, field.name, column)
    return table


def quoted(text: str) -> str:
    """Return a text as a literal of DuckDB's SQL."""
    return "'" + text.replace("'", "''") + "'"
