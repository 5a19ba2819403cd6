"""Segments: the ledger's immutable Parquet files, one UTC day of admission each. Which of them count says `ledger`."""

import hashlib
import os
import secrets
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Boolean, Table, Text

from toolkit.errors import Unavailable
from toolkit.models import Moment, Segment, moment

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
"""Version of the segments' columns; raised when a column is added to the request log."""

ROW_GROUP = 16_384
"""Rows of a Parquet row group: the unit that a look-up by request id or time skips."""

FOLDER = "usage"
"""Where segments stand below the ledger's root, hive-partitioned: `usage/day=2026-11-23/NAME.parquet`."""

_BOUNDS = ("first_admitted_at", "last_admitted_at", "first_request_id", "last_request_id")


def arrow_schema(table: Table) -> "pa.Schema":
    """Return the Arrow schema of a key-store table; a segment's is that of the outbox."""
    import pyarrow as pa

    types = {Moment: pa.timestamp("us", tz="UTC"), Text: pa.string(), BigInteger: pa.int64(), Boolean: pa.bool_()}
    return pa.schema([(column.name, types[type(column.type)]) for column in table.columns])


def write(root: Path, rows: "pa.Table") -> list[Segment]:
    """Write request-log rows as one file for each UTC day of admission.

    Returns:
        The segments, to be listed in the key store; until then no reader knows the files.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    days = rows.column("admitted_at").cast(pa.date32())
    return [_write_day(root, day, rows.filter(pc.equal(days, day))) for day in sorted(days.unique().to_pylist())]


def _write_day(root: Path, day: date, rows: "pa.Table") -> Segment:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = rows.sort_by([("admitted_at", "ascending"), ("request_id", "ascending")])
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", row_group_size=ROW_GROUP)
    content = sink.getvalue().to_pybytes()
    path = f"{FOLDER}/day={day}/{time.time_ns():016x}-{secrets.token_hex(4)}.parquet"
    _write_durably(root / path, content)
    return Segment(
        path=path,
        day=str(day),
        rows=rows.num_rows,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        schema_version=SCHEMA_VERSION,
        created_at=datetime.now(UTC),
        **_bounds(rows),
    )


def read(root: Path, segment: Segment) -> "pa.Table":
    """Return a segment's rows, checked against its entry in the list.

    Raises:
        Unavailable: the file is missing, or is not what its entry says.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = (root / segment.path).read_bytes()
    except FileNotFoundError:
        raise Unavailable(f"The segment {segment.path} is missing.") from None
    if len(content) != segment.size or hashlib.sha256(content).hexdigest() != segment.sha256:
        raise Unavailable(f"The segment {segment.path} was changed: its checksum does not match.")
    rows = pq.ParquetFile(pa.BufferReader(content)).read()
    if rows.num_rows != segment.rows or _bounds(rows) != {name: getattr(segment, name) for name in _BOUNDS}:
        raise Unavailable(f"The segment {segment.path} does not hold the rows that its entry names.")
    return rows


def files(root: Path) -> dict[str, float]:
    """Return all files in the folders of segments, listed or not: path below the root → age in seconds."""
    now = time.time()
    return {path.relative_to(root).as_posix(): now - path.stat().st_mtime for path in (root / FOLDER).glob("day=*/*")}


def _bounds(rows: "pa.Table") -> dict[str, Any]:
    """Return the smallest and the largest admission time and request id."""
    import pyarrow as pa
    import pyarrow.compute as pc

    times = pc.min_max(rows.column("admitted_at").cast(pa.int64())).as_py()
    ids = pc.min_max(rows.column("request_id")).as_py()
    return dict(zip(_BOUNDS, (moment(times["min"]), moment(times["max"]), ids["min"], ids["max"]), strict=True))


def _write_durably(path: Path, content: bytes) -> None:
    """Write a file so that, once this returns, a power cut loses neither it nor its name."""
    folders = [path.parent]
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        folders += path.parents[1:3]
    temporary = path.with_suffix(".tmp")
    with temporary.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
