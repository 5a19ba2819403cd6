"""Segments: the ledger's immutable Parquet files, one UTC day of admission each. Which of them count says `ledger`."""

import hashlib
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import BigInteger, Boolean, Table, Text

from toolkit.core.errors import Unavailable
from toolkit.core.moments import moment
from toolkit.ledger.storage import Storage
from toolkit.store.tables import Moment, OutboxRow, Segment

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 7
"""Version of the segments' columns; raised when a column is added to the request log. 2 has `tags`, 3
`usage_doubt`, `overrun_reason` and `provider_usage`, 4 `seen_bytes`, 5 `resent`, 6 `service_tier` and
`inference_geo`, 7 `credential`."""

ROW_GROUP = 32_768
"""Rows of a Parquet row group, the unit that a look-up by request id or time skips: each is a span of time. Inside it
rows stand by model, which saves a tenth of the room: prices, endpoint and the form of the response id go with it."""

FOLDER = "usage"
"""Where segments stand on their storage, hive-partitioned: `usage/day=2026-11-23/NAME.parquet`."""

_ENCODINGS = {
    **dict.fromkeys(("request_id", "response_id"), "DELTA_BYTE_ARRAY"),
    **dict.fromkeys(("admitted_at", "settled_at", "cost", "held"), "DELTA_BINARY_PACKED"),
    **dict.fromkeys(("input_tokens", "duration_ms"), "PLAIN"),
}
"""Columns whose values hardly repeat, and how they take least room; a dictionary serves all others. Such that every
engine reads: BYTE_STREAM_SPLIT, which would save another half byte a row, Spark 3.5 does not, and
DELTA_LENGTH_BYTE_ARRAY it reads wrongly where values are missing."""

_BOUNDS = ("first_admitted_at", "last_admitted_at", "first_request_id", "last_request_id")


def arrow_schema(table: Table) -> "pa.Schema":
    """Return the Arrow schema of a key-store table; a segment's is that of the outbox."""
    import pyarrow as pa

    types = {Moment: pa.timestamp("us", tz="UTC"), Text: pa.string(), BigInteger: pa.int64(), Boolean: pa.bool_()}
    return pa.schema([(column.name, types[type(column.type)]) for column in table.columns])


def write(storage: Storage, rows: "pa.Table", drained_at: datetime) -> list[Segment]:
    """Write request-log rows as one file for each UTC day of admission.

    Args:
        storage: where to.
        rows: of the request log.
        drained_at: when the last of them left the outbox.

    Returns:
        The segments, to be listed in the key store; until then no reader knows the files.

    Raises:
        Unavailable: the storage takes them not, or not all; then it keeps none.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    days = rows.column("admitted_at").cast(pa.date32())
    written: list[Segment] = []
    try:
        for day in sorted(days.unique().to_pylist()):
            written.append(  # noqa: PERF401 - those before one that fails are wanted
                _write_day(storage, day, rows.filter(pc.equal(days, day)), drained_at)
            )
    except Unavailable:
        # A disk with room for one day and not for the next would fill up as a drain tries again and again.
        with suppress(Unavailable):
            storage.remove(segment.path for segment in written)
        raise
    return written


def _write_day(storage: Storage, day: date, rows: "pa.Table", drained_at: datetime) -> Segment:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    in_time = [("admitted_at", "ascending"), ("request_id", "ascending")]
    spans = pc.divide(pa.arange(0, rows.num_rows), ROW_GROUP)
    rows = rows.sort_by(in_time).append_column("span", spans)
    rows = rows.sort_by([("span", "ascending"), ("model", "ascending"), *in_time]).drop_columns(["span"])
    sink = pa.BufferOutputStream()
    repeating = [name for name in rows.column_names if name not in _ENCODINGS]
    pq.write_table(
        rows,
        sink,
        compression="zstd",
        row_group_size=ROW_GROUP,
        use_dictionary=repeating,
        column_encoding={name: encoding for name, encoding in _ENCODINGS.items() if name in rows.column_names},
    )
    content = sink.getvalue().to_pybytes()
    path = f"{FOLDER}/day={day}/{time.time_ns():016x}-{secrets.token_hex(8)}.parquet"
    storage.write(path, content)
    return Segment(
        path=path,
        day=str(day),
        rows=rows.num_rows,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        schema_version=SCHEMA_VERSION,
        created_at=drained_at,
        **_bounds(rows),
    )


def read(storage: Storage, segment: Segment) -> "pa.Table":
    """Return a segment's rows, checked against its entry in the list; in columns newer than it all values are missing.

    Raises:
        Unavailable: the file is missing, or is not what its entry says, or the storage cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = storage.read(segment.path)
    except FileNotFoundError:
        raise Unavailable(f"The segment {segment.path} is missing.") from None
    if len(content) != segment.size or hashlib.sha256(content).hexdigest() != segment.sha256:
        raise Unavailable(f"The segment {segment.path} was changed: its checksum does not match.")
    rows = pq.ParquetFile(pa.BufferReader(content)).read()
    if rows.num_rows != segment.rows or _bounds(rows) != {name: getattr(segment, name) for name in _BOUNDS}:
        raise Unavailable(f"The segment {segment.path} does not hold the rows that its entry names.")
    for field in arrow_schema(cast("Table", OutboxRow.__table__)):
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows


def damage(storage: Storage, listed: Iterable[Segment]) -> list[str]:
    """Return a sentence for each of these segments that is not what its entry says; none if all are whole."""
    problems = []
    for segment in listed:
        try:
            read(storage, segment)
        except Unavailable as error:
            problems.append(str(error))
    return problems


def _bounds(rows: "pa.Table") -> dict[str, Any]:
    """Return the smallest and the largest admission time and request id."""
    import pyarrow as pa
    import pyarrow.compute as pc

    times = pc.min_max(rows.column("admitted_at").cast(pa.int64())).as_py()
    ids = pc.min_max(rows.column("request_id")).as_py()
    return dict(zip(_BOUNDS, (moment(times["min"]), moment(times["max"]), ids["min"], ids["max"]), strict=True))
