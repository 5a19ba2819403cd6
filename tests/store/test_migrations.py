"""The steps of the schema lead to the tables of `store.tables`, from any start, once, whoever else is starting."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from tests.conftest import ADMIN, variables_of
from tests.stores import StoreKind, Stores
from toolkit.core.errors import Unavailable
from toolkit.core.settings import Settings
from toolkit.store import migrations
from toolkit.store.database import Store
from toolkit.store.tables import Base

pytestmark = pytest.mark.both_stores

OPEN = """
import sys
from toolkit import environment
from toolkit.store.database import Store
sys.stdin.readline()
Store.open(environment.read_settings(), make=True).close()
"""


def schema_of(store: Store) -> dict[str, Any]:
    """Return all tables of a store: columns, keys, constraints and indexes, in a form that compares."""
    look = inspect(store.engine)
    schema = {}
    for table in look.get_table_names():
        schema[table] = {
            "columns": [(c["name"], str(c["type"]), c["nullable"]) for c in look.get_columns(table)],
            "primary key": look.get_pk_constraint(table)["constrained_columns"],
            "foreign keys": sorted(
                (f["constrained_columns"], f["referred_table"], f["referred_columns"])
                for f in look.get_foreign_keys(table)
            ),
            "uniques": sorted((str(u["name"]), u["column_names"]) for u in look.get_unique_constraints(table)),
            "checks": sorted((str(c["name"]), c["sqltext"]) for c in look.get_check_constraints(table)),
            "indexes": sorted(
                (
                    str(i["name"]),
                    i["column_names"],
                    bool(i["unique"]),
                    str(i.get("dialect_options", {}).get(f"{look.dialect.name}_where")),
                )
                for i in look.get_indexes(table)
            ),
        }
    return schema


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """A store that has not been migrated."""
    settings.data_dir.mkdir(parents=True)
    store = Store(settings.store_url)
    yield store
    store.close()


def test_the_steps_make_the_tables_of_the_models(
    store: Store, stores: Stores, store_kind: StoreKind, tmp_path: Path
) -> None:
    """Columns, types, nullability, keys, uniques, checks and indexes are those that `store.tables` declares."""
    store.migrate()
    declared_url = stores.make(store_kind, tmp_path)
    declared = Store(declared_url)
    with declared.write(ADMIN) as tx:
        Base.metadata.create_all(tx.session.connection())
    migrated, wanted = schema_of(store), schema_of(declared)
    declared.close()
    stores.drop(declared_url)
    assert migrated.pop("schema_step")
    assert sorted(migrated) == sorted(wanted)
    for table, facts in wanted.items():
        assert sorted(migrated[table].pop("columns")) == sorted(facts.pop("columns")), table
        assert migrated[table] == facts, table


def test_the_columns_of_the_request_log_have_the_models_order(store: Store) -> None:
    """Rows are written by name, yet the order is kept: what a person sees in the two places is alike."""
    store.migrate()
    columns = [name for name, _, _ in schema_of(store)["outbox"]["columns"]]
    assert columns == [column.name for column in Base.metadata.tables["outbox"].columns]


def test_the_steps_are_sql_that_other_databases_share() -> None:
    """No SQLite word that PostgreSQL does not know; integers that hold money are 64 bits wide there too."""
    for _, statements in migrations.STEPS:
        words = set(statements.upper().replace("(", " ").replace(",", " ").split())
        assert not words & {
            "AUTOINCREMENT",
            "INTEGER",
            "INT",
            "REAL",
            "FLOAT",
            "DATETIME",
            "WITHOUT",
            "STRICT",
            "PRAGMA",
        }


def test_an_empty_store_runs_every_step_and_a_second_time_none(store: Store) -> None:
    """Migrating is harmless when there is nothing to do; each step is recorded with its moment."""
    names = [name for name, _ in migrations.STEPS]
    assert store.migrate() == names
    assert store.migrate() == []
    with store.read(ADMIN) as tx:
        steps = tx.session.execute(text("SELECT version, name, applied_at FROM schema_step ORDER BY version")).all()
    assert [(version, name) for version, name, _ in steps] == list(enumerate(names, 1))
    assert all(applied > 0 for _, _, applied in steps)


def test_a_later_step_runs_on_a_store_that_has_the_earlier_ones(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there stays, and only what is new runs."""
    store.migrate()
    later = ("second step", "CREATE TABLE later (id TEXT PRIMARY KEY); INSERT INTO later VALUES ('kept');")
    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, later))
    assert store.migrate() == ["second step"]
    assert store.migrate() == []
    with store.read(ADMIN) as tx:
        assert tx.session.execute(text("SELECT id FROM later")).scalar_one() == "kept"


def test_a_step_that_fails_leaves_the_store_as_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables that the step made before its error are gone again, and it is not recorded."""
    store.migrate()
    before = schema_of(store)
    broken = ("broken step", "CREATE TABLE half (id TEXT); CREATE TABLE half (id TEXT);")
    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, broken))
    with pytest.raises(Unavailable):
        store.migrate()
    assert schema_of(store) == before
    monkeypatch.undo()
    assert store.migrate() == []


def test_a_store_of_a_newer_version_is_refused(store: Store) -> None:
    """An older program does not touch it, and says what to do."""
    store.migrate()
    with store.write(ADMIN) as tx:
        tx.session.execute(text("INSERT INTO schema_step VALUES (99, 'from the future', 0)"))
    with pytest.raises(Unavailable, match=r"schema version 99; this Keydesk knows up to .*newer version"):
        store.migrate()


@pytest.mark.parametrize("processes", [3])
def test_processes_that_start_at_once_migrate_once(store: Store, settings: Settings, processes: int) -> None:
    """One does it, the others wait for it; none fails."""
    starting = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=variables_of(settings)
        )
        for _ in range(processes)
    ]
    for process in starting:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in starting:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    with store.read(ADMIN) as tx:
        assert tx.session.execute(text("SELECT count(*) FROM schema_step")).scalar_one() == len(migrations.STEPS)


def test_the_unique_name_of_live_keys_is_enforced_by_the_store(store: Store) -> None:
    """Even past the services, two live keys of one organisation cannot share a name."""
    store.migrate()
    (index,) = [i for i in schema_of(store)["api_key"]["indexes"] if i[0] == "api_key_live_name_unique"]
    assert index[1:3] == (["org_id", "name"], True)
    assert index[3].replace("::text", "").strip("()") == "status <> 'deleted'"


def test_a_foreign_key_is_enforced(store: Store) -> None:
    """A row whose parent is not there is refused."""
    store.migrate()
    orphan = "INSERT INTO plan_model (plan_id, model_id) VALUES ('plan_none', 'none')"
    with pytest.raises(IntegrityError), store.write(ADMIN) as tx:
        tx.session.execute(text(orphan))


@pytest.mark.only_store("sqlite")
def test_foreign_keys_are_enforced_on_the_hot_path_too(store: Store) -> None:
    """SQLite has to be told so on each connection."""
    with closing(store.connect()) as connection:
        assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1


@pytest.mark.only_store("postgresql")
def test_a_role_that_may_make_no_tables_is_told(store: Store, settings: Settings) -> None:
    """The message has PostgreSQL's own words; on a store that is up to date such a role works."""
    role = f"keydesk_test_{os.getpid()}"
    _execute(store, f"CREATE ROLE {role}")
    try:
        mark = "&" if "?" in settings.store_url else "?"
        with closing(Store(f"{settings.store_url}{mark}options=-crole%3D{role}")) as humble:
            with pytest.raises(Unavailable, match="permission denied for schema public"):
                humble.migrate()
            store.migrate()
            _execute(store, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
            assert humble.migrate() == []
    finally:
        _execute(store, f"DROP OWNED BY {role}")
        _execute(store, f"DROP ROLE {role}")


def _execute(store: Store, statement: str) -> None:
    with store.write(ADMIN) as tx:
        tx.session.execute(text(statement))
