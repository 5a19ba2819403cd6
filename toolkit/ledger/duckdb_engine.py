"""The one DuckDB engine of a process, and what passes between its SQL and Python."""

import atexit
import shutil
import tempfile
from functools import cache
from typing import TYPE_CHECKING

from toolkit.core.errors import InvalidInput

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


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


def sql_literal(text: str) -> str:
    """Return a text as a literal of DuckDB's SQL."""
    return "'" + text.replace("'", "''") + "'"
