"""Views: what DuckDB sees of the ledger, from one snapshot of the key store and the segments that it lists.

`docs/ledger.md` describes the views; `row_security` says whose rows an actor finds in them.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from toolkit.core.errors import InvalidInput, Unavailable
from toolkit.core.period import Period
from toolkit.ledger import segments, snapshot
from toolkit.ledger.duckdb_engine import sql_literal
from toolkit.ledger.row_security import visible_calls
from toolkit.ledger.sql_guard import ONLY_READ
from toolkit.ledger.storage import Storage
from toolkit.store import names
from toolkit.store.actor import Actor
from toolkit.store.database import Store

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_USAGE = """
CREATE TEMP VIEW usage AS
SELECT {columns}, strftime(log.day, '%Y-%m') AS month, log.day AS day,
       coalesce(named_keys.name, log.key_id) AS key, coalesce(named_keys.label, log.key_id) AS key_label,
       coalesce(named_keys.org, log.org_id) AS org, coalesce(named_plans.name, log.plan_id) AS plan,
       coalesce(named_keys.owner, '') AS key_owner, coalesce(named_keys.environment, '') AS key_environment
FROM ({log}) AS log
LEFT JOIN (
    SELECT id, any_value(name) AS name, any_value(label) AS label, any_value(org) AS org, any_value(owner) AS owner,
           any_value(environment) AS environment
    FROM key_names GROUP BY id
) AS named_keys ON named_keys.id = log.key_id
LEFT JOIN (
    SELECT id, any_value(name) AS name FROM plan_names GROUP BY id
) AS named_plans ON named_plans.id = log.plan_id
"""
"""Names are grouped by id, so that DuckDB knows each to be there once and leaves out a join that nobody asks for."""

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
        connection: of the engine (`duckdb_engine`).
        store: the key store.
        storage: where its segments are.
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
                    listed = snapshot.listed_segments(tx, period, request_id)
                    with closing(
                        snapshot.batches(tx, snapshot.OUTBOX, *snapshot.outbox_conditions(period, request_id))
                    ) as waiting:
                        _load_tail(cursor, waiting)
                    called = names.read(store, tx)
                    cursor.register("key_names", called.keys)
                    cursor.register("plan_names", called.plans)
                for name, table in snapshot.TABLES.items():
                    if name in text:
                        stored = "price_book" if name == "prices" else name
                        cursor.register(stored, snapshot.whole_table(tx, table))
                        if name == "prices":
                            cursor.execute(_PRICES)
            if logged:
                tail = "SELECT *, admitted_at::DATE AS day FROM tail"
                log = " UNION ALL BY NAME ".join([*_scans(storage, listed), tail])
                log = f"SELECT * FROM ({log}) WHERE {_narrowing(actor, period, request_id)}"
                cursor.execute(_USAGE.format(columns=", ".join(map(_column, snapshot.OUTBOX.columns)), log=log))
            yield cursor
        except duckdb.Error as error:
            if isinstance(error, duckdb.BinderException) and "must be at the top level" in str(error):
                raise InvalidInput(ONLY_READ) from error  # a WITH that writes, which `only_reading` put in brackets
            if not _is_of_the_files(error):
                raise
            reason = str(error).partition("\n\nLINE")[0].strip()
            if reason.startswith("Traceback"):
                reason = reason.splitlines()[-1].partition(": ")[2]
            raise Unavailable(f"The ledger's files failed; `keydesk ledger verify` checks them. {reason}") from error


def _load_tail(cursor: "duckdb.DuckDBPyConnection", rows: Iterator["pa.RecordBatch"]) -> None:
    """Give DuckDB the rows that wait in the outbox; it can put them on disk if there are very many."""
    import pyarrow as pa

    schema = segments.arrow_schema(snapshot.OUTBOX)
    first = next(rows, None)
    if first is None or first.num_rows < snapshot.AT_ONCE:
        cursor.register("tail", pa.Table.from_batches([first] if first else [], schema))
        return
    cursor.register("batch", pa.Table.from_batches([first]))
    cursor.execute("CREATE TEMP TABLE tail AS FROM batch")
    for batch in rows:
        cursor.register("batch", pa.Table.from_batches([batch]))
        cursor.execute("INSERT INTO tail FROM batch")
    cursor.unregister("batch")


def _is_of_the_files(error: "duckdb.Error") -> bool:
    """Whether an error is of a segment or its place; a mistake in a query has a class of its own."""
    import duckdb

    # What a damaged page makes DuckDB's decoders raise has no class, nor has what Python code that reads a bucket does.
    if isinstance(error, duckdb.IOException | duckdb.InternalException) or type(error) is duckdb.Error:
        return True
    return isinstance(error, duckdb.InvalidInputException) and "parquet" in str(error).casefold()


def _narrowing(actor: Actor, period: Period | None, request_id: str | None) -> str:
    """Return the conditions that rows of the log must meet, as DuckDB's SQL."""
    terms = [visible_calls(actor)]
    if request_id is not None:
        terms.append(f"request_id = {sql_literal(request_id)}")
    if period is not None:
        condition, values = period.where()
        for value in values:
            condition = condition.replace("?", sql_literal(str(value)), 1)
        terms.append(condition)
    return " AND ".join(terms)


def _scans(storage: Storage, listed: list[tuple[str, int, int]]) -> Iterator[str]:
    """Yield what reads the segments: one scan for each version of their columns.

    So DuckDB looks into one file of each version to know the columns, not into every file.
    """
    for version in sorted({version for _, _, version in listed}):
        addresses = storage.addresses({path: size for path, size, of_version in listed if of_version == version})
        yield (
            f"SELECT * FROM read_parquet([{', '.join(map(sql_literal, addresses))}], hive_partitioning = true,"
            " hive_types = {'day': DATE})"
        )


def _column(column: Any) -> str:
    """Return a column of `usage`; where a segment is older than the column, it has the column's default."""
    if column.default is None or not column.default.is_scalar:
        return f"log.{column.name}"
    return f"coalesce(log.{column.name}, {_literal(column.default.arg)}) AS {column.name}"


def _literal(value: Any) -> str:
    return sql_literal(value) if isinstance(value, str) else str(value)
