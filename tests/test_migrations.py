"""The steps of the schema lead to the tables of `models`, from any start, once, whoever else is starting."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

from tests.conftest import ADMIN
from toolkit import migrations
from toolkit.database import Store
from toolkit.errors import Unavailable
from toolkit.models import Base
from toolkit.settings import Settings

OPEN = """
import sys
from toolkit.database import Store
from toolkit.settings import Settings
sys.stdin.readline()
Store.open(Settings.from_env({"KEYDESK_DATA_DIR": sys.argv[1]})).close()
"""


def schema_of(url: str) -> dict[str, Any]:
    """Return all tables of a database: columns, keys, constraints and indexes, in a form that compares."""
    engine = create_engine(url, poolclass=NullPool)
    look = inspect(engine)
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
                (str(i["name"]), i["column_names"], bool(i["unique"]), str(i["dialect_options"].get("sqlite_where")))
                for i in look.get_indexes(table)
            ),
        }
    return schema


@pytest.fixture
def store(settings: Settings) -> Store:
    """A store that has not been migrated."""
    settings.data_dir.mkdir(parents=True)
    return Store(settings.store_url)


def test_the_steps_make_the_tables_of_the_models(settings: Settings, tmp_path: Path) -> None:
    """Columns, types, nullability, keys, uniques, checks and indexes are those that `models` declares."""
    Store.open(settings).close()
    declared = f"sqlite:///{tmp_path / 'declared.db'}"
    engine = create_engine(declared, poolclass=NullPool)
    Base.metadata.create_all(engine)
    migrated = schema_of(settings.store_url)
    assert migrated.pop("schema_step")
    wanted = schema_of(declared)
    assert sorted(migrated) == sorted(wanted)
    for table, facts in wanted.items():
        assert sorted(migrated[table].pop("columns")) == sorted(facts.pop("columns")), table
        assert migrated[table] == facts, table


def test_the_columns_of_the_request_log_have_the_models_order(settings: Settings) -> None:
    """Rows are written by name, yet the order is kept: what a person sees in the two places is alike."""
    Store.open(settings).close()
    columns = [name for name, _, _ in schema_of(settings.store_url)["outbox"]["columns"]]
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
    store.close()


def test_a_later_step_runs_on_a_store_that_has_the_earlier_ones(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there stays, and only what is new runs."""
    store.migrate()
    later = ("second step", "CREATE TABLE later (id TEXT PRIMARY KEY); INSERT INTO later VALUES ('kept');")
    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, later))
    assert store.migrate() == ["second step"]
    assert store.migrate() == []
    with store.read(ADMIN) as tx:
        assert tx.session.execute(text("SELECT id FROM later")).scalar_one() == "kept"
    store.close()


def test_a_step_that_fails_leaves_the_store_as_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables that the step made before its error are gone again, and it is not recorded."""
    store.migrate()
    before = schema_of(str(store.url))
    broken = ("broken step", "CREATE TABLE half (id TEXT); CREATE TABLE half (id TEXT);")
    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, broken))
    with pytest.raises(Unavailable):
        store.migrate()
    assert schema_of(str(store.url)) == before
    monkeypatch.undo()
    assert store.migrate() == []
    store.close()


def test_a_store_of_a_newer_version_is_refused(store: Store) -> None:
    """An older program does not touch it, and says what to do."""
    store.migrate()
    with store.write(ADMIN) as tx:
        tx.session.execute(text("INSERT INTO schema_step VALUES (99, 'from the future', 0)"))
    with pytest.raises(Unavailable, match=r"schema version 99; this Keydesk knows up to .*newer version"):
        store.migrate()
    store.close()


def test_two_processes_that_start_at_once_migrate_once(settings: Settings) -> None:
    """One does it, the others wait for it; none fails."""
    settings.data_dir.mkdir(parents=True)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(settings.data_dir)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    store = Store(settings.store_url)
    with store.read(ADMIN) as tx:
        assert tx.session.execute(text("SELECT count(*) FROM schema_step")).scalar_one() == len(migrations.STEPS)
    store.close()


def test_the_unique_name_of_live_keys_is_enforced_by_the_store(settings: Settings) -> None:
    """Even past the services, two live keys of one organisation cannot share a name."""
    Store.open(settings).close()
    (index,) = [i for i in schema_of(settings.store_url)["api_key"]["indexes"] if i[0] == "api_key_live_name_unique"]
    assert index[1:] == (["org_id", "name"], True, "status <> 'deleted'")


def test_foreign_keys_are_enforced(settings: Settings) -> None:
    """A connection of either kind refuses a row whose parent is not there."""
    store = Store.open(settings)
    connection = store.connect()
    assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    connection.close()
    with store.read(ADMIN) as tx:
        assert tx.session.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
    store.close()
