"""What only the till over SQLite does."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.account import (
    Account,
    account,
    fixed,
    till,
)
from tests.billing.stores.test_stores import another_writer
from tests.faults import shake
from toolkit.billing.stores import open_till, sqlite
from toolkit.billing.stores.sqlite import SqliteTill
from toolkit.core.errors import Unavailable
from toolkit.store.database import Store

__all__ = ["account", "till"]  # fixtures


def test_a_sqlite_store_that_cannot_be_opened_is_unavailable(account: Account, tmp_path: Path) -> None:
    """No file can be made in a folder that is not there."""
    with (
        closing(SqliteTill(Store(f"sqlite:///{tmp_path / 'nowhere' / 'keydesk.db'}"))) as till,
        pytest.raises(Unavailable, match="cannot be reached"),
    ):
        till.run([account.asked(account.call(), fixed(1))])


def test_a_sqlite_store_that_stays_locked_is_unavailable(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the busy time the batch is given up, nothing is written, and the next one succeeds."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.1)
    job = account.asked(account.call(), fixed(1))
    began = time.monotonic()
    with another_writer(account), pytest.raises(Unavailable, match="locked"):
        account.till.run([job])
    assert 0.1 <= time.monotonic() - began < 5
    assert account.count("hold") == 0
    account.do(job)


def test_commits_are_on_the_disk(account: Account) -> None:
    """SQLite's tills commit with `synchronous=FULL` unless the settings say otherwise."""
    store = Store(account.world.desk.settings.store_url)
    with closing(open_till(store)) as till:
        connection = shake(store, till, None).real
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
