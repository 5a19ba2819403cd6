"""PostgreSQL as key store: sessions that are as durable and as patient as they must be, locks, and lost servers."""

import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from tests.conftest import ADMIN, World, at_once, make_world, settings_for, usd
from tests.postgres import FAST, Server
from toolkit.admin import keys, organisations, wallet
from toolkit.admin.sign_in import open_session
from toolkit.billing.stores import open_billing_store
from toolkit.core.errors import Unavailable
from toolkit.store import engines
from toolkit.store.database import Store
from toolkit.store.locks import lock_catalog, lock_name, lock_orgs
from toolkit.store.transaction import Transaction
from toolkit.workspace import Workspace

pytestmark = pytest.mark.only_store("postgresql")

SETTINGS = "SELECT " + ", ".join(
    f"current_setting('{name}')" for name in ("synchronous_commit", "lock_timeout", "application_name")
)


def database_of(store_url: str) -> str:
    """Return the name of a test's own database."""
    return str(psycopg.conninfo.conninfo_to_dict(store_url)["dbname"])


@pytest.mark.parametrize(
    ("given", "libpq"),
    [
        ("postgresql://ada:p%40ss@db.example:6543/keys", "ada p@ss db.example 6543 keys"),
        ("postgresql://ada@one,two:5433/keys?sslmode=require", "ada - one,two ,5433 keys"),
        ("postgresql://ada@/keys?host=/run/postgresql", "ada - /run/postgresql - keys"),
    ],
)
def test_a_url_says_what_libpq_makes_of_it(given: str, libpq: str) -> None:
    """Several hosts, sockets and options of libpq work; ours fill in what the URL leaves open."""
    parameters = engines.postgres_parameters(given)
    names = ("user", "password", "host", "port", "dbname")
    assert " ".join(parameters.get(name, "-") for name in names) == libpq
    assert parameters["application_name"] == "keydesk"


def test_the_url_outdoes_our_defaults() -> None:
    """Whoever asks for another time limit or name gets it."""
    parameters = engines.postgres_parameters("postgresql://h/db?connect_timeout=1&application_name=mine")
    assert (parameters["connect_timeout"], parameters["application_name"]) == ("1", "mine")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_spelling_of_the_scheme_opens_the_store(store_url: str, scheme: str) -> None:
    """`postgresql://`, as libpq writes it, `postgres://`, as hosts do, and SQLAlchemy's own."""
    store = Store(store_url.replace("postgresql", scheme, 1))
    assert store.is_postgres
    with store.read(ADMIN) as tx:
        assert tx.session.execute(text("SELECT 1")).scalar_one() == 1
    store.close()


@pytest.mark.parametrize(("default", "wanted"), [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")])
def test_a_commit_is_durable_whatever_the_servers_default(
    workspace: Workspace, store_url: str, stores_connection: "psycopg.Connection[object]", default: str, wanted: str
) -> None:
    """`synchronous_commit` is raised to `on`, and a stronger one is kept; on the hot path too."""
    stores_connection.execute(f"ALTER DATABASE {database_of(store_url)} SET synchronous_commit = {default}")
    store = Store(store_url)
    with store.write(ADMIN) as tx:
        assert tuple(tx.session.execute(text(SETTINGS)).one()) == (wanted, "30s", "keydesk")
    with closing(store.connect_postgres()) as connection:
        assert connection.execute(SETTINGS).fetchone() == (wanted, "30s", "keydesk")
    store.close()


@pytest.fixture
def stores_connection(store_url: str) -> Iterator["psycopg.Connection[object]"]:
    """A connection to the test's database, past the store."""
    with psycopg.connect(store_url, autocommit=True) as connection:
        yield connection


def test_a_reader_takes_no_locks_and_a_writer_reads_what_is_committed(workspace: Workspace) -> None:
    """Reads are REPEATABLE READ and read-only, writes READ COMMITTED, whatever a connection did before."""
    level = text("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')")
    for _ in range(2):
        with workspace.read() as tx:
            assert tuple(tx.session.execute(level).one()) == ("repeatable read", "on")
        with workspace.write() as tx:
            assert tuple(tx.session.execute(level).one()) == ("read committed", "off")


def waits(workspace: Workspace, act: "threading.Thread") -> bool:
    """Whether a thread's transaction waits for a lock; returns once it does, or has ended."""
    act.start()
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    while act.is_alive():
        with workspace.read() as tx:
            if tx.session.execute(waiting).scalar_one():
                return True
    return False


def test_an_organisations_lock_excludes_its_other_writers_alone(world: World) -> None:
    """Another transaction on the same organisation waits and then sees what was done; one on another does not."""
    workspace = world.workspace
    with workspace.write() as tx:
        other = organisations.add(tx, "Other").id
    done: list[str] = []

    def pay_in(org: str) -> None:
        with workspace.write() as tx:
            wallet.credit(tx, org, usd(1), f"payment {org}")
            done.append(org)

    with workspace.write() as tx:
        lock_orgs(tx, world.org_id)
        assert not waits(workspace, threading.Thread(target=pay_in, args=(other,)))
        blocked = threading.Thread(target=pay_in, args=(world.org_id,))
        assert waits(workspace, blocked)
        wallet.adjust(tx, world.org_id, usd(-100), "correction", "a test")
        assert done == [other]
    blocked.join(20)
    with workspace.read() as tx:
        assert organisations.find(tx, world.org_id).credited == usd(1)


@pytest.mark.parametrize("lock", [lock_catalog, lambda tx: lock_name(tx, "drain")], ids=["catalog", "name"])
def test_a_lock_is_held_until_the_transaction_ends(workspace: Workspace, lock: Callable[[Transaction], None]) -> None:
    """Whoever wants the same one waits."""

    def take() -> None:
        with workspace.write() as tx:
            lock(tx)

    with workspace.write() as tx:
        lock(tx)
        blocked = threading.Thread(target=take)
        assert waits(workspace, blocked)
    blocked.join(20)
    assert not blocked.is_alive()


def test_whoever_waits_too_long_is_told(
    world: World, stores_connection: "psycopg.Connection[object]", store_url: str
) -> None:
    """The store is busy then, not broken: nothing was changed, and it may be tried again."""
    stores_connection.execute(f"ALTER DATABASE {database_of(store_url)} SET statement_timeout = '100ms'")
    impatient = Store(store_url)
    with world.workspace.write() as tx:
        lock_catalog(tx)
        with pytest.raises(Unavailable, match=r"timeout\. Nothing was changed"), impatient.write(ADMIN) as other:
            lock_catalog(other)
    with impatient.write(ADMIN) as tx:
        lock_catalog(tx)
    impatient.close()


def test_a_deadlock_is_no_broken_store(world: World) -> None:
    """Of two that take locks in the wrong order one is told to try again, and the other goes on."""
    met = threading.Barrier(2)

    def take(first: Callable[[Transaction], None], second: Callable[[Transaction], None]) -> None:
        with world.workspace.write() as tx:
            first(tx)
            met.wait(20)
            second(tx)

    def org(tx: Transaction) -> None:
        lock_orgs(tx, world.org_id)

    results = at_once(partial(take, lock_catalog, org), partial(take, org, lock_catalog))
    (loser,) = [result for result in results if result is not None]
    assert isinstance(loser, Unavailable)
    assert "is busy: deadlock detected. Nothing was changed; try again." in str(loser)


def terminate(connection: "psycopg.Connection[object]") -> None:
    """End every other connection to the database, as a server that goes down does."""
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def test_a_lost_connection_is_replaced(workspace: Workspace, stores_connection: "psycopg.Connection[object]") -> None:
    """The transaction under way fails and changes nothing; idle connections that were lost too are not noticed."""
    with pytest.raises(Unavailable, match=r"cannot be reached: .*Nothing was changed.*KEYDESK_STORE_URL"):
        add_orgs(workspace, "One", "Two", between=lambda: terminate(stores_connection))
    with workspace.read() as tx:
        assert organisations.list_all(tx) == []
    terminate(stores_connection)
    add_orgs(workspace, "Three")
    with workspace.read() as tx:
        assert [org.name for org in organisations.list_all(tx)] == ["Three"]


def test_a_connection_that_is_lost_in_a_commit_leaves_the_outcome_open(
    workspace: Workspace, stores_connection: "psycopg.Connection[object]"
) -> None:
    """The message says so, rather than that nothing was changed."""

    def lose() -> None:
        with workspace.write() as tx:
            organisations.add(tx, "Acme")
            terminate(stores_connection)

    with pytest.raises(Unavailable, match="not known whether the change was made"):
        lose()


def add_orgs(workspace: Workspace, *names: str, between: Callable[[], None] = lambda: None) -> None:
    """Add organisations in one transaction, and do something before the last."""
    with workspace.write() as tx:
        for name in names:
            if name == names[-1]:
                between()
            organisations.add(tx, name)


def test_a_server_that_cannot_be_reached_is_named_without_the_password() -> None:
    """The message says where it was sought and what to see to; no part of the error has the password."""
    store = Store("postgresql://ada:hunter2@127.0.0.1:9/keys")
    wanted = r"store postgresql://ada@127\.0\.0\.1:9/keys cannot be reached: .*refused.*See that PostgreSQL runs"
    with pytest.raises(Unavailable, match=wanted) as caught:
        store.migrate()
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in f"{store!r} {store.engine!r} {store.engine.url!r}"


@pytest.mark.world
@pytest.mark.only_store("sqlite")  # which has no server that other tests need
def test_a_server_that_stops_is_waited_for(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """While it is down every service is unavailable; when it is up again, the same store goes on with what it had."""
    server = Server(tmp_path_factory.mktemp("restart") / "runtime", FAST)
    try:
        workspace = Workspace.open(settings_for(tmp_path, server.url()), ADMIN, make=True)
        world = make_world(workspace)
        key = world.key().key
        with closing(open_billing_store(workspace.store)) as billing_store:
            billing_store.run([])
            server.stop()
            for attempt in (
                lambda: world.credit(usd(1), "while it is down"),
                workspace.ledger.sync,
                lambda: open_session(workspace.store, "ada@example.com", "wrong", "test"),
                lambda: Workspace.open(workspace.settings, ADMIN),
                lambda: billing_store.run([]),
            ):
                with pytest.raises(Unavailable, match="cannot be reached"):
                    attempt()
            server.start()
            assert billing_store.run([]) == []
        world.credit(usd(1), "when it is up")
        with workspace.read() as tx:
            assert organisations.find(tx, world.org_id).credited == usd(101)
            assert keys.find(tx, key.id).name == "app"
        assert workspace.ledger.sync() == 0
        workspace.close()
    finally:
        server.remove()
