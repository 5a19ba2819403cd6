"""The ledger keeps every request-log row exactly once, whatever happens between outbox and segments."""

# ruff: noqa: F401, F811 - fixtures are imported, and are arguments of tests

import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import BigInteger, Column, Text, event, text, update

from tests.conftest import ROOT, World
from tests.ledgers import bucket, bucket_server, ids, kept, ledger, listed, root, store, tuples
from tests.rows import NOON, append, row
from toolkit.admin import keys
from toolkit.core.errors import Forbidden, InvalidInput, Unavailable
from toolkit.core.period import Period
from toolkit.core.policy import Role
from toolkit.ledger import segments, snapshot
from toolkit.ledger.ledger import Ledger
from toolkit.store.actor import SYSTEM, Actor
from toolkit.store.database import Store
from toolkit.store.tables import Segment

pytestmark = pytest.mark.both_stores

DAY = timedelta(days=1)


def rows_of(ledger: Ledger, path: str) -> pa.Table:
    return pq.ParquetFile(pa.BufferReader(ledger.root.read(path))).read()


# Reading


def test_row_is_visible_before_and_after_the_drain(ledger: Ledger) -> None:
    """A settled row is seen at once, and is the same row, once, after it has moved into a segment."""
    given_row = row(cost=2**62, first_byte_ms=7, stream=True, error="naïve 'quotes'")
    append(ledger.store, [given_row])
    columns = ", ".join(given_row)
    before = ledger.sql(f"SELECT {columns} FROM usage").to_pylist()
    assert ledger.sync() == 1
    after = ledger.sql(f"SELECT {columns} FROM usage").to_pylist()
    assert before == [given_row]
    assert after == [given_row]


def test_segment_holds_one_day_in_order_of_time(ledger: Ledger) -> None:
    """A drained batch becomes one file for each UTC day of admission, sorted by time, named in the list."""
    midnight = datetime(2026, 11, 24, tzinfo=UTC)
    tick = timedelta(microseconds=1)
    append(ledger.store, [row(at=midnight), row(at=midnight - tick), row(at=midnight - DAY), row(at=midnight + tick)])
    ledger.sync()
    entries = listed(ledger)
    assert [(entry.day, entry.rows) for entry in entries] == [("2026-11-23", 2), ("2026-11-24", 2)]
    assert [entry.path for entry in entries] == kept(ledger)
    assert entries[0].path.startswith("usage/day=2026-11-23/")
    assert entries[0].last_admitted_at == midnight - tick
    assert rows_of(ledger, entries[1].path).column("admitted_at").to_pylist() == [midnight, midnight + tick]


def test_segments_are_encoded_as_other_engines_read_them(ledger: Ledger) -> None:
    """No column has an encoding that Spark refuses (BYTE_STREAM_SPLIT) or reads wrongly (DELTA_LENGTH_BYTE_ARRAY)."""
    append(ledger.store, [row(response_id=None), row(response_id="chatcmpl-1")])
    ledger.sync()
    (segment,) = listed(ledger)
    group = pq.ParquetFile(pa.BufferReader(ledger.root.read(segment.path))).metadata.row_group(0)
    used = {encoding for number in range(group.num_columns) for encoding in group.column(number).encodings}
    assert used <= {"PLAIN", "RLE", "RLE_DICTIONARY", "DELTA_BINARY_PACKED", "DELTA_BYTE_ARRAY"}


def test_day_and_month_are_utc(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Day and month of a call are those of UTC, wherever the process believes to be."""
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        append(ledger.store, [row(at=datetime(2026, 10, 31, 23, 59, 59, 999_999, tzinfo=UTC))])
        expected = [{"day": date(2026, 10, 31), "month": "2026-10", "zone": "UTC"}]
        query = "SELECT day, month, current_setting('TimeZone') AS zone FROM usage"
        assert ledger.sql(query).to_pylist() == expected
        ledger.sync()
        assert ledger.sql(query).to_pylist() == expected
        assert str(ledger.df("SELECT admitted_at FROM usage")["admitted_at"].dt.tz) == "UTC"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_usage_names_key_org_and_plan(world: World) -> None:
    """Rows carry the names of key, organisation and plan; those of a deleted key are marked in the label only."""
    live, gone = world.key("alive").key, world.key("gone").key
    append(world.workspace.store, [row(live), row(gone), row("key_unknown")])
    with world.workspace.write() as tx:
        keys.delete(tx, gone.id, confirm="gone")
    frame = world.workspace.ledger.df("SELECT key, key_label, org, plan FROM usage ORDER BY key")
    assert frame.values.tolist() == [
        ["alive", "alive", "Acme", "standard"],
        ["gone", "gone (deleted)", "Acme", "standard"],
        ["key_unknown", "key_unknown", "org_none", "plan_none"],
    ]


def test_sums_stay_whole_numbers(ledger: Ledger) -> None:
    """A sum beyond what a float can hold is exact, int64 in a frame; a missing number does not make floats."""
    append(ledger.store, [row(cost=2**61 + 1), row(cost=2**61), row(cost=1, first_byte_ms=3)])
    frame = ledger.df("SELECT sum(cost) AS cost FROM usage")
    assert frame["cost"].dtype == "int64"
    assert int(frame["cost"][0]) == 2**62 + 2
    waits = ledger.df("SELECT first_byte_ms FROM usage ORDER BY 1")["first_byte_ms"]
    assert isinstance(waits.dtype, pd.Int64Dtype)
    assert waits.dropna().tolist() == [3]
    twice = ledger.df("SELECT first_byte_ms, first_byte_ms AS FIRST_BYTE_MS, 1 AS one, 2 AS one FROM usage ORDER BY 1")
    assert twice.iloc[0].tolist() == [3, 3, 1, 2], "two columns may have one name"


def test_number_beyond_64_bits_is_named(ledger: Ledger) -> None:
    """A whole number that does not fit is neither cut nor made a float: the column is named, and what to do."""
    query = "SELECT (sum(cost) * 4){} AS total FROM usage"
    append(ledger.store, [row(cost=2**62)])
    with pytest.raises(InvalidInput, match=r"total .* 64 bits.*VARCHAR"):
        ledger.sql(query.format(""))
    assert tuples(ledger, query.format("::VARCHAR")) == [(str(2**64),)]


def test_parameters_are_bound(ledger: Ledger) -> None:
    """Values reach a query by position or by name, never as SQL."""
    append(ledger.store, [row(model="a' OR true --"), row(model="b")])
    assert len(ledger.sql("SELECT * FROM usage WHERE model = ?", ["a' OR true --"])) == 1
    assert len(ledger.sql("SELECT * FROM usage WHERE model = $model", {"model": "b"})) == 1


def test_root_is_taken_literally(store: Store, root: Path | str) -> None:
    """A ledger below a folder with quotes and wildcards in its name reads its own files, and only those."""
    ledger = Ledger(store, f"{root}/it's [a] *?", SYSTEM)
    wanted = append(store, [row(), row()])
    ledger.sync()
    assert ids(ledger) == wanted


def test_empty_query_is_refused(ledger: Ledger) -> None:
    """A query with nothing in it is answered with a sentence."""
    with pytest.raises(InvalidInput, match="empty"):
        ledger.sql("-- nothing")


def test_lag_counts_waiting_rows(ledger: Ledger) -> None:
    """The lag is the number of rows in the outbox and the age of the oldest; zero when all is drained."""
    assert ledger.lag() == (0, 0.0)
    settled = datetime.now(UTC) - timedelta(minutes=5)
    append(ledger.store, [row(settled_at=settled), row(settled_at=settled + timedelta(minutes=1))])
    rows, seconds = ledger.lag()
    assert rows == 2
    assert 300 <= seconds < 330
    ledger.sync()
    assert ledger.lag() == (0, 0.0)


def test_damaged_file_is_reported_as_unavailable(ledger: Ledger) -> None:
    """A query that meets a missing file fails; it does not answer with what is left."""
    append(ledger.store, [row(), row(at=NOON - DAY)])
    ledger.sync()
    ledger.root.remove([listed(ledger)[0].path])
    with pytest.raises(Unavailable, match="verify"):
        ledger.sql("SELECT sum(cost) FROM usage")


COLUMNS_OF_VERSION_1 = [
    "request_id",
    "org_id",
    "key_id",
    "plan_id",
    "admitted_at",
    "settled_at",
    "outcome",
    "refusal",
    "status",
    "dialect",
    "endpoint",
    "stream",
    "model",
    "upstream",
    "response_id",
    "usage_source",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
    "price_id",
    "multiplier",
    "input_price",
    "cached_input_price",
    "cache_write_5m_price",
    "cache_write_1h_price",
    "output_price",
    "request_price",
    "cost",
    "held",
    "overrun",
    "first_byte_ms",
    "duration_ms",
    "error",
]


def write_version_1(ledger: Ledger, rows: list[dict[str, Any]]) -> None:
    """List a segment as the first Keydesk wrote it: its columns, its row groups, its encodings."""
    schema = pa.schema([segments.arrow_schema(snapshot.OUTBOX).field(name) for name in COLUMNS_OF_VERSION_1])
    table = pa.Table.from_pylist([{name: row[name] for name in COLUMNS_OF_VERSION_1} for row in rows], schema)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=16_384)
    content = sink.getvalue().to_pybytes()
    day = f"{rows[0]['admitted_at']:%Y-%m-%d}"
    path = f"usage/day={day}/18c0f3a2b4d5e6f7-9b1c2d3e.parquet"
    ledger.root.write(path, content)
    segment = Segment(
        path=path,
        day=day,
        rows=len(rows),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        schema_version=1,
        created_at=NOON,
        **segments._bounds(table),
    )
    with ledger.store.write(SYSTEM) as tx:
        tx.session.add(segment)


def test_segments_of_version_1_are_read(ledger: Ledger) -> None:
    """What the first Keydesk wrote is read beside what today's writes, verified, and merged with it."""
    old, new = row(cost=1, error="kept"), row(cost=2, tags='{"team": "search"}')
    assert set(old) > set(COLUMNS_OF_VERSION_1)
    write_version_1(ledger, [old])
    columns = ", ".join(old)
    assert ledger.sql(f"SELECT {columns} FROM usage").to_pylist() == [old]
    append(ledger.store, [new])
    ledger.sync()
    for _ in range(2):
        assert ledger.sql(f"SELECT {columns} FROM usage ORDER BY cost").to_pylist() == [old, new]
        assert ledger.verify() == []
        ledger.compact()
    assert [segment.schema_version for segment in listed(ledger)] == [segments.SCHEMA_VERSION]


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> Iterator[None]:
    """A Keydesk whose request log has two columns more: a text that may be missing, a number with a default.

    It meets segments that today's has drained.
    """
    append(ledger.store, [row(at=NOON, cost=1), row(at=NOON + DAY, cost=2)])
    ledger.sync()
    pictures = Column("pictures", BigInteger, nullable=False, default=7)
    added: list[Column[Any]] = [Column("flavour", Text, nullable=True), pictures]
    table = snapshot.OUTBOX
    with ledger.store.write(SYSTEM) as tx:
        for column in added:
            table.append_column(column)
        tx.session.execute(text("ALTER TABLE outbox ADD COLUMN flavour TEXT"))
        tx.session.execute(text("ALTER TABLE outbox ADD COLUMN pictures BIGINT NOT NULL DEFAULT 7"))
    monkeypatch.setattr(segments, "SCHEMA_VERSION", segments.SCHEMA_VERSION + 1)
    yield
    for column in added:
        table._columns.remove(column)


@pytest.mark.usefixtures("newer")
def test_old_segments_are_read_with_new_ones(ledger: Ledger) -> None:
    """A segment from before a column existed is read with its default, beside newer ones and merged with them."""
    query = "SELECT cost, flavour, pictures FROM usage ORDER BY cost"
    old = [(1, None, 7), (2, None, 7)]
    assert tuples(ledger, query) == old
    append(ledger.store, [row(at=NOON, cost=3) | {"flavour": "sour", "pictures": 1}])
    assert tuples(ledger, query) == [*old, (3, "sour", 1)]
    ledger.sync()
    assert tuples(ledger, query) == [*old, (3, "sour", 1)]
    assert tuples(ledger, query, period=Period.days(1, NOON)) == [(1, None, 7), (3, "sour", 1)]
    assert ledger.compact() == 2
    version = segments.SCHEMA_VERSION
    assert [segment.schema_version for segment in listed(ledger)] == [version, version - 1]
    assert tuples(ledger, query) == [*old, (3, "sour", 1)]
    assert ledger.verify() == []


@pytest.mark.usefixtures("newer")
def test_old_segments_merge_into_a_new_one(ledger: Ledger) -> None:
    """Segments that all lack a column become one that has it: a segment has the columns of its version."""
    append(ledger.store, [row(at=NOON, cost=3) | {"flavour": "sour", "pictures": 1}])
    ledger.sync()
    with ledger.store.write(SYSTEM) as tx:
        tx.session.execute(update(Segment).values(day="2026-11-23"))  # one day, so that all merge
    ledger.compact()
    assert {"flavour", "pictures"} <= set(rows_of(ledger, listed(ledger)[-1].path).column_names)


def test_segments_of_a_newer_version_are_left_alone(ledger: Ledger) -> None:
    """An older Keydesk reads what it knows of a newer one's segments, and merges none: columns would be lost."""
    for _ in range(2):
        append(ledger.store, [row()])
        ledger.sync()
    with ledger.store.write(SYSTEM) as tx:
        tx.session.execute(update(Segment).values(schema_version=segments.SCHEMA_VERSION + 1))
    assert ledger.compact() == 0
    assert len(ids(ledger)) == 2


def test_list_and_outbox_are_read_in_one_snapshot(ledger: Ledger, store_url: str) -> None:
    """A drain that commits between the reading of the list and that of the outbox hides no row."""
    wanted = append(ledger.store, [row(), row()])
    own = Store(store_url)
    drained: list[int] = []

    def drain_now(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM segment" in statement and not drained:
            drained.append(Ledger(own, str(ledger.root), SYSTEM).sync())

    event.listen(ledger.store.engine, "after_cursor_execute", drain_now)
    assert ids(ledger) == wanted
    assert drained == [2]
    assert ids(ledger) == wanted
    own.close()


def test_only_the_platform_may_maintain(ledger: Ledger) -> None:
    """An analyst reads, and moves or removes nothing."""
    analyst = Ledger(ledger.store, str(ledger.root), Actor("ana@acme.example", Role.ANALYST))
    for verb in (analyst.sync, analyst.compact, analyst.sweep, analyst.verify, analyst.status):
        with pytest.raises(Forbidden):
            verb()


# Checking


def test_verify_finds_damage(ledger: Ledger) -> None:
    """A changed byte, a missing file and a wrong entry are each named."""
    append(ledger.store, [row(at=NOON + n * DAY) for n in range(4)])
    ledger.sync()
    assert ledger.verify() == []
    changed, missing, wrong, _ = listed(ledger)
    content = bytearray(ledger.root.read(changed.path))
    content[len(content) // 2] ^= 1
    ledger.root.remove([changed.path, missing.path])
    ledger.root.write(changed.path, bytes(content))
    with ledger.store.write(SYSTEM) as tx:
        tx.session.execute(update(Segment).where(Segment.path == wrong.path).values(rows=2))
    problems = ledger.verify()
    assert [path in problem for path, problem in zip((changed.path, missing.path, wrong.path), problems, strict=True)]
    assert "checksum" in problems[0]
    assert "missing" in problems[1]
    assert "rows" in problems[2]


def test_verify_finds_a_row_that_occurs_twice(ledger: Ledger) -> None:
    """A request id that is in a segment and in the outbox too is named."""
    double = row()
    append(ledger.store, [double])
    ledger.sync()
    append(ledger.store, [double])
    assert ledger.verify() == [f"The request {double['request_id']} occurs 2 times."]


# Periods


def test_month_is_half_open() -> None:
    """A month starts with its first day and ends before the first of the next, over the year's end too."""
    assert Period.month("2026-12") == Period(datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


def test_days_include_today() -> None:
    """The last seven days are today and the six before it."""
    assert Period.days(7, NOON) == Period(datetime(2026, 11, 17, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC))


@pytest.mark.parametrize(
    ("start", "end"),
    [(datetime(2026, 1, 1), None), (NOON, NOON), (NOON, NOON - DAY)],  # noqa: DTZ001 - a moment without zone is the point
)
def test_period_refuses_bounds_that_cannot_be_meant(start: datetime, end: datetime | None) -> None:
    """A bound without time zone and an empty span are refused."""
    with pytest.raises(InvalidInput):
        Period(start, end)


@pytest.mark.parametrize("month", ["2026-13", "2026", "November"])
def test_month_must_be_one(month: str) -> None:
    """What is not a month is named."""
    with pytest.raises(InvalidInput, match=month):
        Period.month(month)


# What others rely on


def test_importing_the_ledger_is_light() -> None:
    """Importing the ledger loads no engine and no pandas: the gateway and `keydesk --help` stay quick."""
    code = "import sys, toolkit.ledger.ledger; assert not {'duckdb', 'pyarrow', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_documented_columns_are_those_of_the_view(ledger: Ledger) -> None:
    """`docs/ledger.md` names every column of `usage` with its type, in order."""
    view = ledger.sql("DESCRIBE usage").to_pylist()
    actual = [(column["column_name"], column["column_type"]) for column in view]
    text = (ROOT / "docs" / "ledger.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \| ([A-Z ]+) \|", text, re.MULTILINE)
    assert documented == actual


def test_documented_views_exist(ledger: Ledger) -> None:
    """Every view that `docs/ledger.md` names can be queried, and there is none that it does not name."""
    text = (ROOT / "docs" / "ledger.md").read_text()
    documented = re.findall(r"^- `(\w+)`: ", text, re.MULTILINE)
    assert documented == list(snapshot.TABLES)
    for view in documented:
        ledger.sql(f"SELECT * FROM {view}")
