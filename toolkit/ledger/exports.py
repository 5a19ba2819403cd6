"""Exports: the request log, or its FOCUS form, of any period and filter, as one file.

All of an export is of one moment, and it holds some hundred thousand calls in memory at a time, however many there are.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from glob import escape
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.core.errors import InvalidInput
from toolkit.core.moments import moment
from toolkit.core.period import Period
from toolkit.core.spreadsheet import FORMULA
from toolkit.core.tags import carried, written
from toolkit.ledger import duckdb_engine, duckdb_views, focus
from toolkit.ledger.ledger import Ledger

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

Format = Literal["parquet", "csv", "duckdb", "focus"]

FILTERS = ("org_id", "key_id", "plan_id", "model", "upstream", "dialect", "endpoint", "outcome", "refusal")
"""Columns of `usage` whose values an export may be limited to."""

MEMORY = "300MB"
"""What DuckDB may use for an export; beyond it, it writes to a folder beside the file. Python and Arrow come on top."""

SPAN = 125_000
"""Calls that are sorted at a time, or those of one hour (FOCUS: of one day) if these are more."""

ROW_GROUP = 65_536
"""Rows of a Parquet row group, and rows that stand in Arrow's memory at a time."""

STALE = 24 * 3600.0
"""Seconds after its last change when what an export left beside its file belongs to one that was killed."""

_WRITTEN, _SPILLED = "export", "spilled"
_PARTS = {_WRITTEN, f"{_WRITTEN}.wal", _SPILLED}
"""What is in the folder beside a file that is being written."""

_IN_SPAN = "admitted_at >= $start AND admitted_at < $end AND day >= $first_day AND day <= $last_day"
"""Which calls of `usage` lie in a span; the days let whole files be skipped."""


@dataclass(frozen=True, slots=True)
class _Span:
    """A span of admission times, and how many calls it has."""

    start: datetime
    end: datetime
    calls: int

    def values(self) -> dict[str, Any]:
        """Return the values of `_IN_SPAN`."""
        first, last = self.start.date(), (self.end - timedelta(microseconds=1)).date()
        return {"start": self.start, "end": self.end, "first_day": first, "last_day": last}


def export(
    ledger: Ledger,
    path: Path,
    *,
    format: Format,  # noqa: A002 - the word that analysts know
    period: Period | None = None,
    only: Mapping[str, Collection[str]] | None = None,
    tags: Mapping[str, str] | None = None,
    where: str = "",
    issuer: str = "Keydesk",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write calls into one file, in order of time; return how many rows it has.

    Args:
        ledger: whose actor's rows are written.
        path: the file; it appears whole or not at all, and takes the place of an older one.
        format: `parquet`, `csv` or `duckdb` with the columns of the view `usage`; a DuckDB file has a table `usage`,
            and `keys`, `orgs` and `plans` with what its rows name. `focus` has the columns of FOCUS 1.2, as CSV or
            Parquet by the path's ending.
        period: by admission; everything by default. FOCUS is by day: of a day that is cut, what lies in the period.
        only: for some of `FILTERS`, the values that are wanted; a call must have one of each.
        tags: that a call must carry, all of them.
        where: a condition on `usage` in DuckDB's SQL, for what is left.
        issuer: FOCUS's ProviderName and InvoiceIssuerName: who bills the organisations.
        progress: called with the calls done and the calls in all.

    Raises:
        InvalidInput: no such format, ending or filter, or the condition is wrong.
        Unavailable: the key store or a segment cannot be read.
        OSError: the file cannot be written.
    """
    form = path.suffix.removeprefix(".") if format == "focus" else format
    if format not in {"parquet", "csv", "duckdb", "focus"}:
        raise InvalidInput(f"There is no export format {format!r}. Choose parquet, csv, duckdb or focus.")
    if form not in {"parquet", "csv", "duckdb"} or (format, form) == ("focus", "duckdb"):
        raise InvalidInput(f"FOCUS is written as .csv or .parquet, not as {path.name}.")
    condition, values = _condition(only or {}, tags or {}, where)
    asked = f"usage {' '.join(_NAMED)} {where}" if form == "duckdb" else f"usage {where}"
    with (
        _appearing(path) as file,
        closing(_engine(file.parent)) as engine,
        duckdb_views.opened(engine, ledger.store, ledger.root, ledger.actor, asked, period) as cursor,
        _not_the_ledgers(file.parent),
    ):
        _require_condition(cursor, where)
        spans = _reported(_spans(cursor, "day" if format == "focus" else "hour", condition, values), progress)
        condition = f"{condition} AND {_IN_SPAN}"
        if format == "focus":
            query = focus.query(condition)
            batches: Iterator[pa.RecordBatch] = map(
                _focused, _batches(cursor, query, spans, {**values, "issuer": issuer})
            )
        else:
            query = f"SELECT * FROM usage WHERE {condition} ORDER BY admitted_at, request_id"
            if form == "duckdb":
                return _insert(cursor, file, query, spans, values)
            batches = _batches(cursor, query, spans, values)
        return _write_csv(batches, file) if form == "csv" else _write_parquet(batches, file)


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """Yield where to write a file that then appears at `path`, unless something goes wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    # Beside it: a rename within one file system is all or nothing.
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        file = folder / _WRITTEN
        yield file
        with file.open("rb") as written:
            os.fsync(written.fileno())
        file.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_stale(path: Path) -> None:
    """Remove what killed exports to this file left; one that lives writes all the time."""
    for folder in list(path.parent.glob(escape(f".{path.name}.") + "*")):
        with suppress(OSError):  # another export removes it too, or it is not ours
            parts = [folder, *folder.rglob("*")]
            ours = folder.is_dir() and {part.name for part in folder.iterdir()} <= _PARTS
            if ours and max(part.stat().st_mtime for part in parts) < time.time() - STALE:
                shutil.rmtree(folder)


@contextmanager
def _not_the_ledgers(folder: Path) -> Iterator[None]:
    """Tell what DuckDB could not write beside the file from trouble with the ledger's own files."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        if str(folder) not in str(error):
            raise
        raise OSError(str(error)) from error


def _engine(folder: Path) -> "duckdb.DuckDBPyConnection":
    """Return an engine of the export's own: a limit of memory holds for all who share an engine."""
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "memory_limit": MEMORY,
            "threads": min(4, os.cpu_count() or 1),  # each takes memory of its own
            "temp_directory": str(folder / _SPILLED),
        },
    )
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    # The footers of all segments would stay in memory, and each is needed for some spans only.
    connection.execute("SET GLOBAL parquet_metadata_cache = false")
    return connection


def _condition(only: Mapping[str, Collection[str]], tags: Mapping[str, str], where: str) -> tuple[str, dict[str, str]]:
    """Return what calls must meet, as SQL, with its values."""
    if unknown := set(only) - set(FILTERS):
        known = ", ".join(FILTERS)
        raise InvalidInput(f"An export cannot be limited by {', '.join(sorted(unknown))}, only by {known}.")
    terms, values = ["true"], dict[str, str]()
    for column, wanted in only.items():
        names = [f"{column}_{number}" for number in range(len(wanted))]
        terms.append(f"{column} IN ({', '.join(f'${name}' for name in names)})" if names else "false")
        values |= dict(zip(names, wanted, strict=True))
    if tags:
        terms.append(carried("$tags"))
        values["tags"] = written(tags)
    if where:
        terms.append(f"(\n{where}\n)")  # a comment at its end ends there
    return " AND ".join(terms), values


def _require_condition(cursor: "duckdb.DuckDBPyConnection", where: str) -> None:
    """See that a condition is one when it stands alone: so it has no bracket that would close those around it."""
    import duckdb

    try:
        count = len(cursor.extract_statements(f"SELECT\n{where or True}\n"))
    except duckdb.Error as error:
        raise InvalidInput(f"The condition is no SQL. {error}") from error
    if count != 1:
        raise InvalidInput("The condition has a semicolon. Leave it away; join several conditions with AND.")


def _spans(
    cursor: "duckdb.DuckDBPyConnection", unit: Literal["hour", "day"], condition: str, values: dict[str, Any]
) -> list[_Span]:
    """Return the spans that are exported one by one: of whole hours or days, and of up to `SPAN` calls if they can."""
    import duckdb

    length = timedelta(**{f"{unit}s": 1})
    try:
        counted = cursor.execute(
            f"SELECT epoch_us(date_trunc('{unit}', admitted_at)) AS start, count(*) FROM usage WHERE {condition}"
            " GROUP BY ALL ORDER BY start",
            values,
        ).fetchall()
    except (duckdb.ProgrammingError, duckdb.DataError) as error:
        raise InvalidInput(f"The condition is no SQL that `usage` understands. {error}") from error
    spans: list[_Span] = []
    for microseconds, calls in counted:
        start = moment(microseconds)
        if spans and spans[-1].calls + calls <= SPAN:
            spans[-1] = _Span(spans[-1].start, start + length, spans[-1].calls + calls)
        else:
            spans.append(_Span(start, start + length, calls))
    return spans


def _reported(spans: list[_Span], progress: Callable[[int, int], None] | None) -> Iterator[_Span]:
    """Yield the spans, and tell of each once it is done."""
    done, calls = 0, sum(span.calls for span in spans)
    for span in spans:
        yield span
        done += span.calls
        if progress is not None:
            progress(done, calls)


_NAMED = {"keys": "key_id", "orgs": "org_id", "plans": "plan_id"}
"""Tables that a DuckDB database has beside the calls: what the calls name, and by which column."""


def _insert(
    cursor: "duckdb.DuckDBPyConnection", file: Path, query: str, spans: Iterator[_Span], values: dict[str, Any]
) -> int:
    """Write a DuckDB database; return the number of calls in it."""
    cursor.execute(f"ATTACH {duckdb_engine.sql_literal(str(file))} AS target")
    cursor.execute("CREATE TABLE target.usage AS FROM usage LIMIT 0")
    rows = 0
    for span in spans:
        ((inserted,),) = cursor.execute(f"INSERT INTO target.usage {query}", values | span.values()).fetchall()
        rows += inserted
    for table, column in _NAMED.items():
        named = f"SELECT {column} FROM target.usage"
        cursor.execute(f"CREATE TABLE target.{table} AS FROM {table} WHERE id IN ({named}) ORDER BY id")
    cursor.execute("DETACH target")
    return rows


def _batches(
    cursor: "duckdb.DuckDBPyConnection",
    query: str,
    spans: Iterator[_Span],
    values: dict[str, Any],
) -> Iterator["pa.RecordBatch"]:
    """Yield an empty batch, for its columns, and then the rows of each span."""
    import pyarrow as pa

    nothing = _Span(moment(0), moment(1), 0)
    for span in chain([nothing], spans):
        relation = cursor.sql(query, params=values | span.values())
        reader = relation.to_arrow_reader(ROW_GROUP)
        if span is nothing:
            yield pa.RecordBatch.from_pylist([], reader.schema)
        yield from reader


def _focused(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """Return FOCUS's rows as it wants them: numbers of 128 bits as decimals, moments to the second."""
    import pyarrow as pa

    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name in focus.SCALES:
            exact = pa.decimal128(38, focus.SCALES[name])
            read = pa.Array.from_buffers(exact, len(column), column.buffers(), column.null_count, column.offset)
            columns.append(read)
        elif pa.types.is_timestamp(column.type):
            columns.append(column.cast(pa.timestamp("s", "UTC")))
        else:
            columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _write_parquet(batches: Iterator["pa.RecordBatch"], file: Path) -> int:
    """Write a Parquet file; return the number of its rows."""
    import pyarrow.parquet as pq

    rows = 0
    with pq.ParquetWriter(file, next(batches).schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch, ROW_GROUP)
            rows += batch.num_rows
    return rows


def _write_csv(batches: Iterator["pa.RecordBatch"], file: Path) -> int:
    """Write a CSV file with a header; return the number of its rows."""
    import pyarrow.csv as pa_csv

    rows = 0
    with pa_csv.CSVWriter(file, spreadsheet_safe(next(batches)).schema) as writer:
        for batch in batches:
            writer.write_batch(spreadsheet_safe(batch))
            rows += batch.num_rows
    return rows


def spreadsheet_safe(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """Return a batch as CSV has it: text that a spreadsheet would take for a formula begins with an apostrophe.

    Numbers stay numbers, below zero too. Decimals are written out, without an exponent; moments are RFC 3339.
    """
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([_cells(column) for column in batch.columns], names=batch.schema.names)


def _cells(column: "pa.Array") -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type):
        dangerous = pc.is_in(pc.utf8_slice_codeunits(column, 0, 1), pa.array(FORMULA))
        if not pc.any(dangerous).as_py():
            return column
        return pc.if_else(dangerous, pc.binary_join_element_wise("'", column, ""), column)
    if pa.types.is_timestamp(column.type):
        return pc.replace_substring(column.cast(pa.string()), " ", "T")
    if pa.types.is_decimal(column.type):
        return pa.array([None if value is None else _plain(value) for value in column.to_pylist()], pa.string())
    return column


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").removesuffix(".") if "." in text else text
