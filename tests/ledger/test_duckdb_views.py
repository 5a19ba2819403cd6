"""What an analyst finds in the views, and that a query reads no more than it has to."""

# ruff: noqa: F401, F811 - fixtures are imported, and are arguments of tests

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from tests.buckets import bucket, bucket_server
from tests.conftest import ADMIN, World, examples, usd
from tests.ledgers import ids, kept, ledger, listed, root, store, tuples
from tests.rows import NOON, append, row
from toolkit.admin import organisations, wallet
from toolkit.admin.prices import set_price
from toolkit.core.errors import Unavailable
from toolkit.core.period import Period
from toolkit.core.policy import Role
from toolkit.core.pricing import PriceSheet, Tier
from toolkit.ledger import snapshot
from toolkit.ledger.ledger import Ledger
from toolkit.store.actor import SYSTEM, Actor
from toolkit.store.database import Store
from toolkit.store.tables import Price

pytestmark = pytest.mark.any_store

DAY = timedelta(days=1)
COST = "SELECT sum(cost) FROM usage"


@pytest.fixture
def three_days(ledger: Ledger) -> list[str]:
    """A call on each of three days, worth 1, 10 and 100; the last still waits in the outbox."""
    made = append(ledger.store, [row(at=NOON, cost=1)])
    ledger.sync()
    made += append(ledger.store, [row(at=NOON + DAY, cost=10)])
    ledger.sync()
    return made + append(ledger.store, [row(at=NOON + 2 * DAY, cost=100)])


def spoil(ledger: Ledger, path: str) -> None:
    """Put something else in a segment's place."""
    ledger.root.remove([path])
    ledger.root.write(path, b"no Parquet")


@pytest.mark.parametrize(
    ("start", "end", "cost"),
    [
        (None, None, 111),
        (NOON, None, 111),
        (NOON + timedelta(microseconds=1), None, 110),
        (None, NOON + DAY, 1),
        (None, NOON + DAY + timedelta(microseconds=1), 11),
        (NOON + DAY, NOON + 2 * DAY, 10),
        (NOON + 2 * DAY, None, 100),
    ],
)
def test_period_narrows_the_view_exactly(
    ledger: Ledger, three_days: list[str], start: datetime | None, end: datetime | None, cost: int
) -> None:
    """With a period `usage` holds its calls and no others: the start counts, the end does not."""
    assert tuples(ledger, COST, period=Period(start, end)) == [(cost,)]


def test_request_id_narrows_the_view(ledger: Ledger, three_days: list[str]) -> None:
    """With a request id `usage` holds that call alone, wherever it is kept."""
    for request_id in three_days:
        assert tuples(ledger, "SELECT request_id FROM usage", request_id=request_id) == [(request_id,)]
    assert tuples(ledger, "SELECT request_id FROM usage", request_id="req_none") == []


def test_files_of_other_days_are_not_opened(ledger: Ledger, three_days: list[str]) -> None:
    """A query that is narrowed does without the files that it cannot need: they may as well be spoilt."""
    first, _ = listed(ledger)
    spoil(ledger, first.path)
    assert tuples(ledger, COST, period=Period(NOON + DAY, None)) == [(110,)]
    assert tuples(ledger, COST, request_id=three_days[1]) == [(10,)]
    with pytest.raises((Unavailable, duckdb.Error)):
        ledger.sql(COST)


def cut(content: bytes) -> bytes:
    """Return what a full disk or a broken copy leaves of a file."""
    return content[: len(content) // 2]


def overwritten(content: bytes) -> bytes:
    """Return a file with another one's bytes in its middle."""
    middle = len(content) // 2
    return content[:middle] + bytes(range(256)) + content[middle + 256 :]


def without_its_end(content: bytes) -> bytes:
    """Return a file whose list of columns is spoilt, between the data and the last bytes that say what it is."""
    length = int.from_bytes(content[-8:-4], "little")
    return content[: -length - 8] + bytes(length) + content[-8:]


@pytest.mark.parametrize("damage", [cut, overwritten, without_its_end, lambda _: b"", lambda _: b"no Parquet"])
def test_a_damaged_segment_is_a_sentence(
    ledger: Ledger, three_days: list[str], damage: Callable[[bytes], bytes]
) -> None:
    """Whatever has become of the file, who reads it is told what checks the ledger, and gets no traceback."""
    path = listed(ledger)[0].path
    content = ledger.root.read(path)
    ledger.root.remove([path])
    ledger.root.write(path, damage(content))
    with pytest.raises(Unavailable, match="keydesk ledger verify"):
        ledger.sql("SELECT * FROM usage")


def test_a_mistake_in_a_query_is_no_damage(ledger: Ledger, three_days: list[str]) -> None:
    """An analyst who mistypes or divides badly reads DuckDB's own words."""
    for query in ("SELECT nothing FROM usage", "SELECT model::INT FROM usage"):
        with pytest.raises(duckdb.Error) as caught:
            ledger.sql(query)
        assert "ledger verify" not in str(caught.value)


def test_filter_on_the_day_skips_files_too(ledger: Ledger, three_days: list[str]) -> None:
    """A query that filters on `day` by itself opens only that day's files, and the one that it knows the columns by."""
    spoil(ledger, listed(ledger)[1].path)
    assert tuples(ledger, f"{COST} WHERE day = '{NOON:%Y-%m-%d}'") == [(1,)]


@pytest.mark.world
@examples(25)
@given(
    hours=st.lists(st.integers(0, 96), min_size=1, max_size=12),
    bounds=st.tuples(st.integers(-1, 97), st.integers(-1, 97)).filter(lambda pair: pair[0] < pair[1]),
    drained=st.integers(0, 12),
)
@pytest.mark.only_store("sqlite")
def test_narrowed_query_finds_what_a_filter_finds(
    world: World, hours: list[int], bounds: tuple[int, int], drained: int
) -> None:
    """Whatever is drained, a period given beside the query selects what the same one selects within it."""
    ledger = world.workspace.ledger
    append(ledger.store, [row(at=NOON + timedelta(hours=hour)) for hour in hours])
    if drained:
        ledger.sync(limit=drained)
    period = Period(*(NOON + timedelta(hours=bound) for bound in bounds))
    condition, values = period.where()
    query = "SELECT request_id FROM usage"
    narrowed = tuples(ledger, f"{query} ORDER BY 1", period=period)
    assert narrowed == tuples(ledger, f"{query} WHERE {condition} ORDER BY 1", params=values)


def test_query_without_the_log_reads_none_of_it(world: World) -> None:
    """What does not name `usage` copies no waiting row and opens no file; names of keys are read only for who asks."""
    ledger = world.workspace.ledger
    world.key("app")
    for _ in range(2):
        append(ledger.store, [row()])
        ledger.sync(1)
    append(ledger.store, [row()])
    spoil(ledger, listed(ledger)[0].path)
    asked: list[str] = []

    def watch(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    event.listen(ledger.store.engine, "before_cursor_execute", watch)
    assert tuples(ledger, "SELECT name FROM orgs") == [("Acme",)]
    assert not [statement for statement in asked if "outbox" in statement or "segment" in statement]
    assert not [statement for statement in asked if "FROM api_key" in statement]
    assert tuples(ledger, "SELECT name FROM keys") == [("app",)]
    assert [statement for statement in asked if "FROM api_key" in statement]


def test_long_outbox_is_read_in_pieces(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """More waiting rows than cross at a time are seen all the same, once, and a query may use `usage` twice."""
    monkeypatch.setattr(snapshot, "AT_ONCE", 3)
    wanted = append(ledger.store, [row(cost=1, first_byte_ms=n if n % 2 else None) for n in range(10)])
    assert ids(ledger) == wanted
    twice = "SELECT count(*), sum(a.cost), count(b.first_byte_ms) FROM usage a JOIN usage b USING (request_id)"
    assert tuples(ledger, twice) == [(10, 10, 5)]
    assert ledger.sync(limit=7) == 7
    assert ids(ledger) == wanted


def test_prices_have_a_row_for_each_tier(world: World) -> None:
    """The price book is columns with the names that `usage` has, one row for each context-size tier."""
    tiers = (Tier(0, usd(1), usd(2), usd(3), usd(4), usd(5)), Tier(2_000, usd(6), usd(7), usd(8), usd(9), usd(10)))
    with world.workspace.write() as tx:
        set_price(tx, "gpt-test", PriceSheet(tiers, request=usd(11)))
    query = """
        SELECT above_tokens, input_price, cached_input_price, cache_write_5m_price, cache_write_1h_price, output_price,
               request_price, recorded_by
        FROM prices WHERE model = 'gpt-test' ORDER BY recorded_at DESC, above_tokens LIMIT 2
    """
    name = ADMIN.name
    assert tuples(world.workspace.ledger, query) == [
        (0, usd(1), usd(2), usd(3), usd(4), usd(5), usd(11), name),
        (2_000, usd(6), usd(7), usd(8), usd(9), usd(10), usd(11), name),
    ]


def test_price_of_a_call_is_found_by_its_id(world: World) -> None:
    """`usage.price_id` leads to the entry that was applied."""
    with world.workspace.read() as tx:
        price = tx.session.query(Price).filter_by(model_id="gpt-test").one()
    append(world.workspace.store, [row(world.key().key, price_id=price.id)])
    joined = "SELECT p.model, p.input_price FROM usage u JOIN prices p ON p.id = u.price_id"
    assert tuples(world.workspace.ledger, joined) == [("gpt-test", usd(2))]


def test_audit_log_is_a_view(world: World) -> None:
    """Each act is a row; an organisation's people see its own chain, and nobody else's."""
    world.key("mine")
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Globex")
        wallet.credit(tx, other.id, usd(1), "theirs")
    act = "SELECT action, actor FROM AUDIT WHERE action = 'key.create'"
    assert tuples(world.workspace.ledger, act) == [("key.create", ADMIN.name)]
    seen = world.workspace.acting_as(Actor("boss@acme.example", Role.ORG_ADMIN, world.org_id)).ledger
    assert tuples(seen, "SELECT DISTINCT chain FROM audit") == [(world.org_id,)]


def test_no_view_has_a_digest(world: World) -> None:
    """Nothing in any view says what a secret or its digest is."""
    new = world.key()
    with world.workspace.read() as tx:
        found = tx.session.connection().exec_driver_sql("SELECT digest FROM live_secret").scalars().all()
    assert len(found) == 1
    for view in ("usage", *snapshot.TABLES):
        text = str(world.workspace.ledger.sql(f"SELECT * FROM {view}").to_pylist())
        assert found[0] not in text, view
        assert new.secret not in text, view
