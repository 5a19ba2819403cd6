"""`toolkit.open()` lets an analyst read everything, change nothing, and hinder nobody."""

import contextlib
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import toolkit
from tests.account import open_account
from tests.conftest import World, usd, variables_of, wait_until
from tests.rows import append, row
from toolkit.admin import keys, organisations
from toolkit.billing.stores import open_billing_store
from toolkit.core.errors import Forbidden, InvalidInput, KeydeskError, NotFound, Unavailable
from toolkit.store.steps import STEPS
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store


@pytest.fixture
def reader(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """What `toolkit.open()` gives in a notebook beside the world."""
    for name, value in variables_of(world.workspace.settings).items():
        monkeypatch.setenv(name, value)
    workspace = toolkit.open()
    yield workspace
    workspace.close()


def test_services_refuse_to_write(world: World, reader: Workspace) -> None:
    """A verb that changes something is refused with what to do instead, and nothing has changed."""
    key = world.key().key
    with pytest.raises(Forbidden, match=r"toolkit\.open\(write=True\)"), reader.write() as tx:
        keys.disable(tx, key.id, confirm=key.name)
    with reader.read() as tx:
        assert keys.find(tx, key.id).status == "active"


def test_the_database_itself_refuses_to_write(reader: Workspace) -> None:
    """Whoever goes around the services meets the database's own read-only transaction."""
    with pytest.raises((DBAPIError, KeydeskError)), reader.read() as tx:
        tx.session.execute(text("UPDATE organisation SET name = 'mine now'"))
    for way_in in (reader.store.connect, reader.store.connect_postgres):
        with pytest.raises(Forbidden):
            way_in()


def test_ledger_is_not_kept_up(world: World, reader: Workspace) -> None:
    """A reader drains, merges and removes nothing, and leaves no file behind; others' acts stay as they are."""
    append(world.workspace.store, [row()])
    for verb in (reader.ledger.sync, reader.ledger.compact, reader.ledger.sweep):
        with pytest.raises(Forbidden):
            verb()
    assert reader.ledger.root.ages("usage") == {}
    assert reader.ledger.status().waiting == 1
    assert reader.ledger.verify() == []


@pytest.mark.only_store("sqlite")
@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO '{target}'",
        "COPY (PIVOT usage ON model USING sum(cost)) TO '{target}'",
        "WITH done AS (COPY (SELECT 1) TO '{target}') FROM done",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{target}'",
        "EXPLAIN ANALYZE WITH done AS (COPY (SELECT 1) TO '{target}') FROM done",
        "FROM json_execute_serialized_sql(json_serialize_sql('WITH x AS (COPY (SELECT 1) TO ''{target}'') FROM x'))",
        "SELECT 1; COPY (SELECT 1) TO '{target}'",
        "EXPORT DATABASE '{target}'",
        "ATTACH '{target}' AS mine",
        "CREATE TABLE mine AS SELECT 1",
        "CREATE TABLE mine AS PIVOT usage ON model USING sum(cost)",
        "CREATE OR REPLACE TEMP VIEW usage AS SELECT 1 AS cost",
        "SET GLOBAL TimeZone = 'Asia/Tokyo'",
        "INSTALL httpfs",
        "PRAGMA enable_profiling",
        "CALL enable_logging()",
        "FROM enable_logging()",
    ],
)
def test_query_that_does_not_only_read_is_refused(world: World, reader: Workspace, tmp_path: Path, query: str) -> None:
    """No query writes a file, over the key store or a segment for example, or leaves something in the engine."""
    append(world.workspace.store, [row(cost=7)])
    for workspace in (reader, world.workspace):
        with pytest.raises(InvalidInput, match=r"only read|one by one"):
            workspace.ledger.sql(query.format(target=tmp_path / "target"))
    assert not (tmp_path / "target").exists()
    assert reader.ledger.sql("SELECT cost FROM usage").to_pylist() == [{"cost": 7}]
    with pytest.raises(duckdb.CatalogException):
        reader.ledger.sql("FROM mine")


@pytest.mark.only_store("sqlite")
@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("FROM usage SELECT cost ORDER BY cost; -- once", [(1,), (2,), (3,)]),
        ("WITH mine AS (SELECT cost FROM usage) SELECT max(cost) FROM mine", [(3,)]),
        ("PIVOT (SELECT model, cost FROM usage) ON model USING sum(cost)", [(3, 3)]),
        ("SELECT cost AS c, cost AS c FROM usage WHERE model != 'delete' ORDER BY cost DESC;", [(2, 2), (1, 1)]),
        ("SELECT column_name FROM (DESCRIBE usage) LIMIT 1", [("request_id",)]),
        ("VALUES (1)", [(1,)]),
    ],
)
def test_query_of_any_form_that_reads_is_answered(
    world: World, reader: Workspace, query: str, rows: list[tuple[object, ...]]
) -> None:
    """All that DuckDB knows for asking is there, and a text that is a verb too does no harm."""
    append(world.workspace.store, [row(cost=1, model="a"), row(cost=2, model="a"), row(cost=3, model="delete")])
    answer = reader.ledger.sql(query)
    assert list(zip(*(column.to_pylist() for column in answer.columns), strict=True)) == rows
    for plan in ("EXPLAIN", "explain analyze"):
        assert reader.ledger.sql(f"{plan} {query}").num_rows == 1


def test_analyst_of_one_organisation_sees_it_alone(world: World, reader: Workspace) -> None:
    """An organisation is found by its name, and whoever sees one only is not let out of it by asking for none."""
    with world.workspace.write() as tx:
        organisations.add(tx, "Other")
    names = "SELECT name FROM orgs ORDER BY name"
    assert reader.as_analyst().ledger.sql(names)["name"].to_pylist() == ["Acme", "Other"]
    of_acme = reader.as_analyst("Acme")
    for analyst in (of_acme, of_acme.as_analyst(), of_acme.as_analyst("Acme")):
        assert analyst.ledger.sql(names)["name"].to_pylist() == ["Acme"]
    with pytest.raises(NotFound, match="Other"):
        of_acme.as_analyst("Other")


def test_asked_for_writing_is_given(world: World, reader: Workspace) -> None:
    """`toolkit.open(write=True)` opens the same Keydesk with all verbs."""
    key = world.key().key
    with closing(toolkit.open(write=True)) as workspace, workspace.write() as tx:
        keys.disable(tx, key.id, confirm=key.name)
    with reader.read() as tx:
        assert keys.find(tx, key.id).status == "disabled"


@pytest.mark.only_store("sqlite")
def test_missing_store_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening what is not there says how to make it, and makes nothing."""
    monkeypatch.setenv("KEYDESK_DATA_DIR", str(tmp_path / "data"))
    with pytest.raises(Unavailable, match="keydesk up"):
        toolkit.open()
    assert not (tmp_path / "data").exists()


def test_store_of_another_version_is_left_as_it_is(world: World, reader: Workspace) -> None:
    """A schema that this version does not fit is told; a reader migrates nothing."""
    with world.workspace.write() as tx:
        tx.session.execute(
            text(f"UPDATE schema_step SET version = {STEPS[-1].version + 1} WHERE version = {STEPS[-1].version}")
        )
    with pytest.raises(Unavailable, match=f"has schema {STEPS[-1].version + 1}"):
        toolkit.open()


def test_reading_does_not_block_settlements(world: World, reader: Workspace) -> None:
    """A notebook's open transaction and a query that runs for ever stop neither settlements nor the drain."""
    asking: queue.Queue[duckdb.DuckDBPyConnection] = queue.Queue()

    def ask_for_ever() -> None:
        with reader.ledger._views("") as cursor:
            asking.put(cursor)
            with pytest.raises(duckdb.InterruptException):
                cursor.execute("SELECT max(a.range * b.range) FROM range(100_000_000) a, range(100_000_000) b")

    with (
        reader.read() as tx,
        closing(open_billing_store(world.workspace.store)) as billing_store,
        ThreadPoolExecutor() as threads,
    ):
        assert tx.session.execute(text("SELECT count(*) FROM outbox")).scalar() == 0
        query = threads.submit(ask_for_ever)
        cursor = asking.get(timeout=20)
        account = open_account(world, billing_store)
        for _ in range(20):
            account.spend(usd(0.01))
        assert world.workspace.ledger.sync() == 20
        assert not query.done(), "the query was to run all the while"
        assert tx.session.execute(text("SELECT count(*) FROM segment")).scalar() == 0, "so was the transaction"

        def interrupted() -> bool:
            with contextlib.suppress(duckdb.ConnectionException):  # it has ended meanwhile
                cursor.interrupt()
            return query.done()

        wait_until(interrupted, "the query's end")
        query.result()
    assert reader.ledger.sql("SELECT count(*) AS calls FROM usage").to_pylist() == [{"calls": 20}]
