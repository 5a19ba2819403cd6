"""What only the billing store over PostgreSQL does."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.account import Account, account, billing_store, fixed, open_account
from tests.billing.stores.test_stores import another_writer, full_batch, store_of
from tests.conftest import wait_until
from tests.faults import shake
from toolkit.admin import organisations
from toolkit.billing.rules import Admitted
from toolkit.billing.stores import open_billing_store
from toolkit.billing.stores.postgres import PostgresBillingStore
from toolkit.core.errors import Unavailable
from toolkit.store.database import Store

__all__ = ["account", "billing_store"]  # fixtures

pytestmark = pytest.mark.parametrize("store_kind", ["postgresql"], indirect=True)


def test_a_connection_that_the_server_ends_is_made_anew(account: Account) -> None:
    """After a fail-over the batch under way is `Unavailable`, and the next one connects again."""
    account.admit(account.call(), fixed(1))
    pid = shake(store_of(account), account.billing_store, None).real.info.backend_pid
    account.rows("SELECT pg_terminate_backend(:pid)", pid=pid)
    wait_until(lambda: not account.rows("SELECT 1 FROM pg_stat_activity WHERE pid = :pid", pid=pid), "its end")
    with pytest.raises(Unavailable):
        account.admit(account.call(), fixed(1))
    account.admit(account.call(), fixed(1))
    assert account.count("hold") == 2


def test_a_server_that_does_not_answer_is_unavailable(account: Account) -> None:
    """A billing store does not need a server to be made, only to run."""
    billing_store = PostgresBillingStore(Store("postgresql://nobody@127.0.0.1:9/nothing"))
    with pytest.raises(Unavailable, match="cannot be reached"):
        billing_store.run([account.asked(account.call(), fixed(1))])
    billing_store.close()


def test_an_organisation_that_stays_locked_is_unavailable(account: Account) -> None:
    """After the lock's time limit the batch is given up, nothing is written, and the next one succeeds."""
    job = account.asked(account.call(), fixed(1))
    shake(store_of(account), account.billing_store, None).real.execute("SET lock_timeout = '100ms'")
    with another_writer(account), pytest.raises(Unavailable, match="lock timeout"):
        account.billing_store.run([job])
    assert account.count("hold") == 0
    account.do(job)


def test_organisations_do_not_wait_for_each_other(account: Account) -> None:
    """While one organisation is locked, another's calls go on."""
    with account.world.workspace.write() as tx:
        other = organisations.add(tx, "Other")
    second = open_account(replace(account.world, org_id=other.id), account.billing_store)
    shake(store_of(account), account.billing_store, None).real.execute("SET lock_timeout = '10s'")
    job = second.asked(second.call(), fixed(0))
    with account.world.workspace.write() as tx:
        tx.session.execute(text("UPDATE organisation SET held = held WHERE id = :id"), {"id": account.world.org_id})
        assert isinstance(second.do(job), Admitted)


def test_a_batch_takes_two_round_trips(account: Account, tmp_path: Path) -> None:
    """Whatever is in it: PostgreSQL is waited for twice, once to lock and read, once to write and commit."""
    jobs = full_batch(account)
    account.admit(account.call(), fixed(1))
    connection = shake(store_of(account), account.billing_store, None).real.pgconn
    with (tmp_path / "trace").open("w+b") as trace:
        connection.trace(trace.fileno())
        account.billing_store.run(jobs)
        connection.untrace()
        trace.seek(0)
        messages = [line.split(b"\t") for line in trace.read().splitlines()]
    syncs = [number for number, message in enumerate(messages) if message[-1].startswith(b"Sync") or b"Sync" in message]
    waits = [message for message in messages if b"ReadyForQuery" in message]
    assert (len(syncs), len(waits)) == (2, 2)


def test_commits_are_on_the_disk_whatever_the_server_is_set_to(account: Account) -> None:
    """A PostgreSQL that answers before it has written is told to wait: a lost hold is money let through."""
    store = store_of(account)
    with closing(store.connect_postgres()) as connection:
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
        with closing(open_billing_store(store)) as billing_store:
            assert shake(store, billing_store, None).real.execute("SHOW synchronous_commit").fetchone()[0] == "on"
        connection.execute(f'ALTER DATABASE "{name}" RESET synchronous_commit')
