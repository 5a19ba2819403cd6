"""The steps of the schema lead to the tables of `store.tables`, once, whoever else is starting, and it is said."""

import errno
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
from toolkit.admin import organisations
from toolkit.core.errors import Unavailable
from toolkit.core.settings import Settings
from toolkit.store import steps
from toolkit.store.database import Store
from toolkit.store.migrations import Migration
from toolkit.store.steps import Step
from toolkit.store.tables import Base
from toolkit.workspace import Workspace

pytestmark = pytest.mark.both_stores

OPEN = """
import sys
from toolkit import environment
from toolkit.store.database import Store
sys.stdin.readline()
Store.open(environment.read_settings(), make=True).close()
"""


LATEST = steps.STEPS[-1].version
NEXT = Step(LATEST + 1, "second step", "CREATE TABLE later (id TEXT PRIMARY KEY); INSERT INTO later VALUES ('kept');")
"""A step that a later version might have."""


def copies_in(settings: Settings) -> list[Path]:
    """Return the copies of a SQLite store, whole or not, that lie beside it."""
    return sorted(settings.data_dir.glob("*.schema-*"))


def start_at_once(settings: Settings, script: str) -> list[str]:
    """Run a script in three processes that begin at the same moment; return what each wrote to stderr."""
    starting = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=variables_of(settings)
        )
        for _ in range(3)
    ]
    for process in starting:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1].decode() for process in starting]
    assert [process.returncode for process in starting] == [0, 0, 0], errors
    return errors


def schema_of(store: Store) -> dict[str, Any]:
    """Return all tables of a store: columns, keys, constraints and indexes, in a form that compares."""
    look = inspect(store.engine)
    schema = {}
    for table in look.get_table_names():
        schema[table] = {
            "columns": [(c["name"], str(c["type"]), c["nullable"]) for c in look.get_columns(table)],
            "primary key": (
                look.get_pk_constraint(table)["name"],
                look.get_pk_constraint(table)["constrained_columns"],
            ),
            "foreign keys": sorted(
                # Of a key that stands beside its column, as SQLite wants it of a new one, the inspector tells no name.
                (
                    f["name"] or f"{table}_{f['constrained_columns'][0]}_fkey",
                    f["constrained_columns"],
                    f["referred_table"],
                    f["referred_columns"],
                )
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
    """Columns, types, nullability, keys, uniques, checks, indexes and their names are those of `store.tables`."""
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


def test_columns_and_attributes_have_one_name() -> None:
    """Who has read the code can write SQL, and the other way round."""
    for mapper in Base.registry.mappers:
        assert all(attribute.key == attribute.columns[0].name for attribute in mapper.column_attrs)


def test_versions_follow_each_other() -> None:
    """Each step leads to the version after; the first lies above all that was there before the first release."""
    assert [step.version for step in steps.STEPS] == list(range(100, 100 + len(steps.STEPS)))


def test_the_steps_are_sql_that_other_databases_share() -> None:
    """No SQLite word that PostgreSQL does not know; integers that hold money are 64 bits wide there too."""
    for step in steps.STEPS:
        words = set(step.sql.upper().replace("(", " ").replace(",", " ").split())
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


def test_an_empty_store_runs_every_step_and_a_second_time_none(store: Store, settings: Settings) -> None:
    """Migrating is harmless when there is nothing to do; each step is recorded with its moment. Nothing is copied."""
    assert store.migrate() == Migration(store.name, 0, steps.STEPS)
    assert store.migrate() is None
    assert copies_in(settings) == []
    with store.read(ADMIN) as tx:
        rows = tx.session.execute(text("SELECT version, name, applied_at FROM schema_step ORDER BY version")).all()
    assert [(version, name) for version, name, _ in rows] == [(step.version, step.name) for step in steps.STEPS]
    assert all(applied > 0 for _, _, applied in rows)


@pytest.fixture
def older(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with an organisation, which lacks one step that this Keydesk has."""
    store.migrate()
    with store.write(ADMIN) as tx:
        organisations.add(tx, "Acme")
    monkeypatch.setattr(steps, "STEPS", (*steps.STEPS, NEXT))
    return store


def test_a_later_step_runs_on_a_store_that_has_the_earlier_ones(
    older: Store, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """What is there stays, only what is new runs, and the log says from where to where, and what of the way back."""
    Store.open(settings).close()
    assert older.migrate() is None
    with older.read(ADMIN) as tx:
        assert tx.session.execute(text("SELECT id FROM later")).scalar_one() == "kept"
        assert organisations.find(tx, "Acme")
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"Brought the key store {older.name} from schema {LATEST} to {LATEST + 1} (second step).")
    if older.is_postgres:
        assert "No copy of it was made: the way back is the dump" in said
    else:
        (copy,) = copies_in(settings)
        assert f"A copy of it as it was is {copy};" in said


@pytest.mark.only_store("sqlite")
def test_the_copy_is_the_store_as_it_was(older: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """For this user alone to read, it has what was there, also what lay in the WAL; who goes back to it finds that."""
    migration = older.migrate()
    assert migration is not None
    copy = migration.copy
    assert copy is not None
    assert copies_in(settings) == [copy]
    assert copy.stat().st_mode & 0o777 == 0o600
    monkeypatch.undo()
    with pytest.raises(Unavailable) as refusal:
        Store.open(settings)
    assert f"go back to the copy {copy}" in str(refusal.value)
    older.close()
    path = settings.data_dir / "keydesk.db"  # and now as the message says
    for file in (path, path.with_name("keydesk.db-wal"), path.with_name("keydesk.db-shm")):
        file.unlink(missing_ok=True)
    copy.rename(path)
    with closing(Store.open(settings)) as store, store.read(ADMIN) as tx:
        assert store.migration is None
        assert [org.name for org in organisations.list_all(tx)] == ["Acme"]


def test_a_step_that_fails_leaves_the_store_as_it_was(
    older: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables that the step made before its error are gone again, it is not recorded, and the message says so."""
    before = schema_of(older)
    broken = Step(LATEST + 2, "broken step", "CREATE TABLE half (id TEXT); CREATE TABLE half (id TEXT);")
    monkeypatch.setattr(steps, "STEPS", (*steps.STEPS, broken))
    with pytest.raises(Unavailable, match="'broken step' of the key store's schema failed") as failure:
        older.migrate()
    assert schema_of(older) == before
    if not older.is_postgres:
        (copy,) = copies_in(settings)
        assert f"The key store is as it was, with schema {LATEST}; a copy of it is {copy}." in str(failure.value)
    monkeypatch.undo()
    assert older.migrate() is None


@pytest.mark.only_store("sqlite")
def test_a_store_that_cannot_be_copied_is_not_changed(
    older: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: the message says that nothing was done, and no half copy is left."""
    before = schema_of(older)

    def full(_self: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(Unavailable, match=r"no copy of it can be made .*No space left on device.*Nothing was changed"):
        older.migrate()
    assert schema_of(older) == before
    assert copies_in(settings) == []


def test_who_only_reads_migrates_nothing(older: Store, settings: Settings) -> None:
    """The message says who does; the schema stays, and there is no copy."""
    with pytest.raises(Unavailable, match=rf"has schema {LATEST}, and this Keydesk reads {LATEST + 1}\. .*keydesk up"):
        Workspace.open(settings, write=False)
    assert "later" not in schema_of(older)
    assert copies_in(settings) == []


def test_a_store_of_a_newer_version_is_refused(store: Store, settings: Settings) -> None:
    """An older program does not touch it, also not to read, and says what to do."""
    store.migrate()
    with store.write(ADMIN) as tx:
        tx.session.execute(text("INSERT INTO schema_step VALUES (999, 'from the future', 0)"))
    way_back = "restore the dump" if store.is_postgres else "restore the backup that was made before the upgrade"
    for write in (True, False):
        with pytest.raises(Unavailable, match=f"schema 999; this Keydesk knows schemas up to .*newer.*{way_back}"):
            Workspace.open(settings, write=write)


@pytest.mark.parametrize("version", [1, 15, 99])
def test_a_store_from_before_the_first_release_is_refused(store: Store, settings: Settings, version: int) -> None:
    """To write and to read; the message names the way out, and the store is as it was."""
    with store.write(ADMIN) as tx:
        tx.session.execute(text("CREATE TABLE schema_step (version BIGINT PRIMARY KEY, name TEXT, applied_at BIGINT)"))
        tx.session.execute(text("INSERT INTO schema_step VALUES (:version, 'early', 0)"), {"version": version})
    before = schema_of(store)
    for write in (True, False):
        with pytest.raises(Unavailable) as refusal:
            Workspace.open(settings, write=write)
        assert f"has schema {version}, from before the first release" in str(refusal.value)
        assert "the version that wrote it makes one with `ledger export calls.parquet`" in str(refusal.value)
        assert "a new folder (KEYDESK_DATA_DIR)" in str(refusal.value)
    assert schema_of(store) == before
    assert copies_in(settings) == []


@pytest.mark.world
def test_processes_that_start_at_once_make_a_store_once(store: Store, settings: Settings) -> None:
    """One does it, the others wait for it; none fails."""
    assert start_at_once(settings, OPEN) == ["", "", ""]
    with store.read(ADMIN) as tx:
        assert tx.session.execute(text("SELECT count(*) FROM schema_step")).scalar_one() == len(steps.STEPS)


@pytest.mark.world
def test_processes_that_start_at_once_migrate_once(older: Store, settings: Settings) -> None:
    """One does it, copies the store, and says so; the others wait for it, and have nothing to say."""
    script = f"from toolkit.store import steps\nsteps.STEPS += (steps.Step(*{tuple(NEXT)!r}),)\n{OPEN}"
    (said,) = filter(None, start_at_once(settings, script))
    assert said.startswith(f"Brought the key store {older.name} from schema {LATEST} to {LATEST + 1} (second step).")
    assert len(copies_in(settings)) == (0 if older.is_postgres else 1)


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
            assert humble.migrate() is None
    finally:
        _execute(store, f"DROP OWNED BY {role}")
        _execute(store, f"DROP ROLE {role}")


def _execute(store: Store, statement: str) -> None:
    with store.write(ADMIN) as tx:
        tx.session.execute(text(statement))
