"""What only the billing store over SQLite does."""

from contextlib import closing
from pathlib import Path

import pytest

from tests.account import (
    Account,
    account,
    billing_store,
    fixed,
)
from tests.billing.stores.test_stores import another_writer
from tests.faults import shake
from toolkit.billing.stores import open_billing_store, sqlite
from toolkit.billing.stores.sqlite import SqliteBillingStore
from toolkit.core.errors import Unavailable
from toolkit.store.database import Store

__all__ = ["account", "billing_store"]  # fixtures


def test_a_sqlite_store_that_cannot_be_opened_is_unavailable(account: Account, tmp_path: Path) -> None:
    """No file can be made in a folder that is not there."""
    with (
        closing(SqliteBillingStore(Store(f"sqlite:///{tmp_path / 'nowhere' / 'keydesk.db'}"))) as billing_store,
        pytest.raises(Unavailable, match="cannot be reached"),
    ):
        billing_store.run([account.asked(account.call(), fixed(1))])


def test_a_sqlite_store_that_stays_locked_is_unavailable(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the busy time the batch is given up, nothing is written, and the next one succeeds."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.1)
    job = account.asked(account.call(), fixed(1))
    with another_writer(account), pytest.raises(Unavailable, match="locked"):
        account.billing_store.run([job])
    assert account.count("hold") == 0
    account.do(job)


def test_commits_are_on_the_disk(account: Account) -> None:
    """SQLite's billing stores commit with `synchronous=FULL` unless the settings say otherwise."""
    store = Store(account.world.workspace.settings.store_url)
    with closing(open_billing_store(store)) as billing_store:
        connection = shake(store, billing_store, None).real
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
