"""The key stores of all releases, this one's too, are brought up to date, and what they held is still there."""

import gzip
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

import toolkit
from tests.conftest import ADMIN
from tests.store.releases.make import EMAIL, HERE, PASSWORD, open_in
from tests.store.test_migrations import schema_of
from toolkit.admin import key_summaries, sign_in, wallet
from toolkit.store import audit, migrations, steps
from toolkit.store.database import Store
from toolkit.store.tables import Base, KeyMonth
from toolkit.workspace import Workspace

FILES = sorted(HERE.glob("*.db.gz"))


@pytest.fixture(params=FILES, ids=lambda path: path.name.removesuffix(".db.gz"))
def released(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The file of a release's key store, in a data folder of its own."""
    file = tmp_path / "data" / "keydesk.db"
    file.parent.mkdir(mode=0o700)
    file.write_bytes(gzip.decompress(request.param.read_bytes()))
    return file


@pytest.fixture
def migrated(released: Path) -> Iterator[Workspace]:
    """Keydesk, opened on the key store of a release."""
    workspace = open_in(released.parent)
    yield workspace
    workspace.close()


def counts(file: Path) -> dict[str, int]:
    """Return how many rows each table has."""
    with closing(sqlite3.connect(file)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {table: database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in tables}


def test_this_release_has_its_stores() -> None:
    """Whoever raises the version makes them."""
    ours = {path.name for path in FILES if path.name.startswith(f"{toolkit.__version__}-")}
    assert ours == {f"{toolkit.__version__}-{kind}.db.gz" for kind in ("empty", "filled")}


def test_every_row_of_a_release_is_kept(released: Path) -> None:
    """The schema is the present one afterwards, and its tables hold as many rows; a filled store had some in each."""
    before = counts(released)
    workspace = open_in(released.parent)
    with closing(Store(f"sqlite:///{released.parent / 'made.db'}")) as made:
        made.migrate()
        assert schema_of(workspace.store) == schema_of(made)
    workspace.close()
    after = counts(released)
    del before["schema_step"]
    assert {table: after[table] for table in before if table in after} == before
    if before["organisation"]:
        assert all(before.values())
    assert after.keys() >= Base.metadata.tables.keys()


def test_the_steps_of_a_release_are_what_they_were(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that has shipped is never edited: run today, it makes the schema that it made then."""
    with closing(Store(f"sqlite:///{released}")) as store, store.read(ADMIN) as tx:
        version = migrations.schema_version(tx.session.connection())
        then = schema_of(store)
    monkeypatch.setattr(steps, "STEPS", tuple(step for step in steps.STEPS if step.version <= version))
    with closing(Store(f"sqlite:///{released.parent / 'made.db'}")) as made:
        made.migrate()
        assert schema_of(made) == then


@pytest.mark.parametrize("released", [path for path in FILES if "filled" in path.name], indirect=True)
def test_what_a_release_kept_is_read_and_goes_on(migrated: Workspace) -> None:
    """Keys with what they spent, wallets, an intact audit log; and whoever had a password signs in with it."""
    with migrated.read() as tx:
        summaries = key_summaries.summaries(tx, deleted=True)
        assert any(month.calls for month in tx.session.scalars(select(KeyMonth)))  # of the month that it was kept in
        assert all(wallet.entries(tx, org) for org in {summary.key.org_id for summary in summaries})
        assert audit.verify(tx) == []
    assert sign_in.open_session(migrated.store, EMAIL, PASSWORD, "192.0.2.9")
