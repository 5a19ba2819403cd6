"""The key store's transactions: whole or not at all, from a stable view, with honest errors."""

import sqlite3
import traceback
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from tests.conftest import ADMIN
from toolkit import environment
from toolkit.admin import organisations
from toolkit.core.errors import Forbidden, InvalidInput, Unavailable
from toolkit.core.settings import Settings
from toolkit.store import database
from toolkit.store.database import Store
from toolkit.store.tables import Organisation
from toolkit.store.transaction import store_now, utc_now
from toolkit.workspace import Workspace

pytestmark = pytest.mark.both_stores


def names(workspace: Workspace) -> list[str]:
    """Return the names of all organisations."""
    with workspace.read() as tx:
        return [org.name for org in organisations.list_all(tx)]


def add_and_fail(workspace: Workspace, error: type[BaseException]) -> None:
    """Add an organisation in a transaction that fails."""
    with workspace.write() as tx:
        organisations.add(tx, "Acme")
        raise error


def test_a_transaction_commits_at_its_end(workspace: Workspace) -> None:
    """What it wrote is there for the next one."""
    with workspace.write() as tx:
        organisations.add(tx, "Acme")
    assert names(workspace) == ["Acme"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, Forbidden])
def test_any_error_rolls_everything_back(workspace: Workspace, error: type[BaseException]) -> None:
    """Audit rows and all; the error itself reaches the caller."""
    with pytest.raises(error):
        add_and_fail(workspace, error)
    assert names(workspace) == []
    with workspace.read() as tx:
        assert tx.session.execute(text("SELECT count(*) FROM audit")).scalar_one() == 0


def test_a_reader_sees_one_state(workspace: Workspace) -> None:
    """What another connection commits meanwhile does not show until the next read."""
    with workspace.read() as tx:
        assert organisations.list_all(tx) == []
        with workspace.write() as other:
            organisations.add(other, "Acme")
        tx.session.expire_all()
        assert organisations.list_all(tx) == []
    assert names(workspace) == ["Acme"]


def test_a_reader_cannot_write(workspace: Workspace) -> None:
    """A change inside a read transaction is refused and leaves nothing behind; the next write works."""
    with pytest.raises(Unavailable, match=r"read-?only"), workspace.read() as tx:
        organisations.add(tx, "Sneaked in")
    with workspace.write() as tx:
        organisations.add(tx, "Acme")
    assert names(workspace) == ["Acme"]


def test_readers_do_not_wait_for_a_writer(workspace: Workspace) -> None:
    """A read during a write shows the state before it."""
    with workspace.write() as tx:
        organisations.add(tx, "Acme")
        assert names(workspace) == []


@pytest.mark.only_store("sqlite")
def test_a_writer_that_waits_too_long_is_told(
    workspace: Workspace, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is unavailable then, not broken; afterwards it works again."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT", 0.05)
    impatient = Store(settings.store_url)
    with workspace.write():
        with pytest.raises(Unavailable, match="locked"), impatient.write(ADMIN):
            pytest.fail("two writers at once")
        with closing(impatient.connect()) as connection, pytest.raises(Exception, match="locked"):
            connection.execute("BEGIN IMMEDIATE")
    with impatient.write(ADMIN) as tx:
        organisations.add(tx, "Acme")
    impatient.close()
    assert names(workspace) == ["Acme"]


def test_a_statement_that_breaks_a_rule_is_not_taken_for_a_broken_store(workspace: Workspace) -> None:
    """Integrity errors keep their class: they are a program's mistake."""
    with pytest.raises(IntegrityError), workspace.write() as tx:
        tx.session.execute(text("INSERT INTO catalog_version (id, version) VALUES (1, 1)"))


@pytest.mark.only_store("sqlite")
def test_a_file_that_is_no_database_is_unavailable(settings: Settings) -> None:
    """The message names it."""
    settings.data_dir.mkdir(parents=True)
    (settings.data_dir / "keydesk.db").write_bytes(b"these bytes are no database" * 100)
    with pytest.raises(Unavailable, match="not a database"):
        Store.open(settings, make=True)


@pytest.mark.only_store("sqlite")
@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        ("database disk image is malformed", "restore it from a backup"),
        ("database or disk is full", "make room on the disk"),
        ("attempt to write a readonly database", "must be able to write to it"),
        ("unable to open database file", "must be able to write to its folder"),
        ("something new", "Nothing was changed"),
    ],
)
def test_a_fault_of_the_store_comes_with_its_cure(workspace: Workspace, reason: str, cure: str) -> None:
    """Whoever meets it reads what SQLite said, and what to do."""
    with pytest.raises(Unavailable, match=f"{reason}. .*{cure}"), workspace.read():
        raise OperationalError("SELECT 1", {}, sqlite3.OperationalError(reason))


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    """A file is in its place, say."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be made"):
        Store.open(environment.read_settings({"KEYDESK_DATA_DIR": str(tmp_path / "file")}), make=True)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://u:hunter2@h/db",
        "postgresql://u:hunter2%zz@h/db",
        "postgresql://u@h/db?passphrase=hunter2",
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    """The message says what it must be, and shows no password."""
    with pytest.raises(InvalidInput, match="sqlite:///PATH") as caught:
        Store(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["with space", "a?b=c", "per%20cent", "#hash", "it's", "ключ"])
def test_a_folder_of_any_name_holds_the_store(tmp_path: Path, name: str) -> None:
    """Both kinds of connection open the file that stands in it."""
    folder = tmp_path / name
    store = Store.open(environment.read_settings({"KEYDESK_DATA_DIR": str(folder)}), make=True)
    with closing(store.connect()) as connection:
        assert connection.execute("SELECT version FROM catalog_version").fetchone()["version"] == 1
        (file,) = [row["file"] for row in connection.execute("PRAGMA database_list")]
    assert Path(file) == folder / "keydesk.db"
    assert (folder / "keydesk.db").stat().st_mode & 0o077 == 0
    store.close()


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_every_connection_has_the_same_durability(tmp_path: Path, synchronous: str) -> None:
    """WAL, and as durable as the settings say, on the hot path too."""
    environ = {"KEYDESK_DATA_DIR": str(tmp_path), "KEYDESK_SQLITE_SYNCHRONOUS": synchronous}
    store = Store.open(environment.read_settings(environ), make=True)
    wanted = {"FULL": 2, "NORMAL": 1}[synchronous]
    with closing(store.connect()) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == wanted
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    with store.read(ADMIN) as tx:
        assert tx.session.execute(text("PRAGMA synchronous")).scalar_one() == wanted
    store.close()


def test_the_clock_of_a_transaction_stands_still(workspace: Workspace) -> None:
    """One moment for all it writes; an injected one is taken as it is."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    with workspace.store.write(ADMIN, at) as tx:
        assert tx.now == at
        organisations.add(tx, "Acme")
    with workspace.read() as tx:
        assert tx.session.scalars(select(Organisation.created_at)).one() == at


def test_the_stores_clock_goes_on_during_a_transaction(workspace: Workspace) -> None:
    """What leases are judged by is the present, also in a transaction that has waited, and in UTC."""
    with workspace.write() as tx:
        first, second = store_now(tx), store_now(tx)
        assert tx.now - timedelta(seconds=60) < first < second < utc_now() + timedelta(seconds=60)
