"""The guard of SQL: whoever asks the ledger may read, and do nothing else."""

import re
from typing import TYPE_CHECKING

from toolkit.core.errors import InvalidInput

if TYPE_CHECKING:
    import duckdb

_EXPLAIN = re.compile(r"\s*explain(\s+analyze)?\b", re.IGNORECASE)

_WRITING = re.compile(r"\b(copy|insert|update|delete|truncate|merge)\b", re.IGNORECASE)
"""Statements that a WITH may have; a text or a name that looks like one does no harm."""

_MEDDLING = re.compile(r"\b(enable_logging|enable_profiling|json_execute_serialized_sql)\b", re.IGNORECASE)
"""Functions that a SELECT may call, and that write files or run statements."""

ONLY_READ = (
    "The ledger is only read: ask with SELECT, FROM, WITH, PIVOT, DESCRIBE, SUMMARIZE or EXPLAIN. To keep a result, "
    "write the table or frame that comes back; `keydesk ledger export` writes files of any size."
)


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
        raise InvalidInput(ONLY_READ)
    in_brackets = kind == StatementType.MULTI or _WRITING.search(asked)
    if in_brackets:
        # PIVOT is of several parts, and so is what writes with its result; a WITH may write and then read. In brackets
        # DuckDB takes none of these but PIVOT.
        asked = f"FROM (\n{asked.strip().rstrip(';')}\n)"
    if in_brackets or explain:
        try:
            statements = connection.extract_statements(f"{explain} {asked}")
        except ParserException as error:
            raise InvalidInput(ONLY_READ) from error
    return statements[0]
