"""Ledgers for the tests, in a folder and in a bucket, and what the tests ask of them.

A test that uses `ledger` runs on both; on PostgreSQL and SQLite, too, if its module is marked `both_stores`.
"""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.buckets import bucket, bucket_server
from toolkit.ledger import segments
from toolkit.ledger.ledger import Ledger
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.tables import Segment
from toolkit.workspace import Workspace

__all__ = ["bucket", "bucket_server", "ids", "kept", "ledger", "listed", "root", "store", "tuples"]


@pytest.fixture
def store(workspace: Workspace) -> Store:
    """An empty key store."""
    return workspace.store


@pytest.fixture(params=["folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where the test's ledger has its segments: in a folder, and in a bucket."""
    found: Path | str = request.getfixturevalue("bucket") if request.param == "bucket" else tmp_path / "ledger"
    return found


@pytest.fixture
def ledger(store: Store, root: Path | str) -> Ledger:
    """An empty ledger, as the platform sees it."""
    return Ledger(store, root, SYSTEM)


def ids(ledger: Ledger) -> list[str]:
    """Return the ids of all requests, sorted."""
    found: list[str] = ledger.sql("SELECT request_id FROM usage ORDER BY 1").column(0).to_pylist()
    return found


def tuples(ledger: Ledger, query: str, **narrowed: Any) -> list[tuple[Any, ...]]:
    """Return a query's rows."""
    return [tuple(found.values()) for found in ledger.sql(query, **narrowed).to_pylist()]


def listed(ledger: Ledger) -> list[Segment]:
    """Return the segments in the list."""
    with ledger.store.read(SYSTEM) as tx:
        return list(tx.session.scalars(select(Segment).order_by(Segment.path)))


def kept(ledger: Ledger) -> list[str]:
    """Return all files on the ledger's storage, listed or not."""
    return sorted(ledger.root.ages(segments.FOLDER))
