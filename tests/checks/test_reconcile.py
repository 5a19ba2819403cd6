"""`reconcile` finds nothing in honest books, and whatever a test tampers with."""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.books import Books
from tests.conftest import ADMIN, World, usd
from tests.rows import append, row
from toolkit.admin import keys, organisations, wallet
from toolkit.checks import reconcile, reconcile_integrity, reconcile_runs
from toolkit.checks.reconcile_runs import RUNS_KEPT
from toolkit.checks.reconcile_sums import MOST_SHOWN
from toolkit.core.errors import Conflict, Unavailable
from toolkit.core.moments import micros
from toolkit.core.policy import HoldPolicy, Role
from toolkit.core.pricing import MILLION
from toolkit.reports import refusals, spend
from toolkit.statements import corrections
from toolkit.store.actor import Actor
from toolkit.store.tables import ApiKey, Reconciliation
from toolkit.store.transaction import Transaction, utc_now
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store

CAP = "No strict key was let beyond its limit, but for recorded overruns"
WALLET = "No wallet was let below zero, but for overruns and adjustments"
TOTALS = "Each key's monthly totals are the sums of its calls"
CHARGE = "Each charge is its tokens × prices × multiplier, rounded once"
ENTRIES = "Each wallet's credits are the sum of its entries"
SETTLED = "Each wallet's settlements are the sum of its calls"
HELD = "What a wallet holds is the sum of its open holds"
KEY_HELD = "What a key holds in a month is the sum of its open holds"
OVERRUN = "Each overrun is what a charge exceeds its hold by"
ONCE = "Each request id occurs once, and no call that ended still holds money"
FILES = "Each ledger segment is the file that was written"
ORPHANS = "No hold outlives its gateway"
CHAINS = "The audit log's chains are whole"
TOLD = "Limits and wallet entries are those that the audit log tells"

START = datetime(2026, 11, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def app(world: World) -> ApiKey:
    """A key with a monthly limit of 20 USD."""
    return world.key("app", monthly_limit=usd(20)).key


@pytest.fixture
def books(world: World, app: ApiKey) -> Books:
    """A charged, an overrun, a broken, a refused and an open call; half of them in the ledger."""
    books = Books(world)
    books.gateway()
    books.settle(app, usd(0.5), held=usd(1))
    books.settle(app, 0, held=usd(1), outcome="upstream_error", usage_source=None, status=502)
    world.workspace.ledger.sync()
    books.settle(app, usd(3), held=usd(2))
    books.refuse(app)
    books.hold(app, usd(4))
    return books


def found(world: World) -> dict[str, list[str]]:
    """Run reconcile; return the violations by the title of their check."""
    return {finding.title: finding.violations for finding in reconcile.run(world.workspace) if finding.violations}


def violations_of(world: World, title: str) -> list[str]:
    """Run one check alone; return its violations."""
    (check,) = (check for _, name, check in reconcile._steps(world.workspace) if name == title)
    return check()[1]


def at(world: World, moment: datetime, act: Callable[[Transaction], object]) -> None:
    """Let an operator act at a moment."""
    with world.workspace.store.write(ADMIN, moment) as tx:
        act(tx)


def test_honest_books_balance(world: World, app: ApiKey, books: Books) -> None:
    """Every check has looked at something and found nothing."""
    corrected = books.settle(app, usd(0.5))
    corrections.correct(world.workspace, corrected, usd(0.4), "a tenth too much", confirm=corrected)
    findings = reconcile.run(world.workspace)
    assert [finding.violations for finding in findings] == [[]] * len(findings)
    assert all(finding.checked > 0 for finding in findings), findings
    assert {finding.invariant for finding in findings} == {"I2", "I3", "I4", "I5", "I6"}


def test_a_call_that_was_turned_away_at_a_full_queue_never_began(world: World, app: ApiKey, books: Books) -> None:
    """As a refused one: the books balance with it, no report counts it as a call, and the refusals have it."""
    ledger = world.workspace.ledger
    calls = spend.totals(ledger).calls
    turned_away = row(app, outcome="queue_full", refusal="upstream_overloaded", status=503, multiplier=0)
    (request_id,) = append(world.workspace.store, [turned_away])
    assert found(world) == {}
    assert (spend.totals(ledger).calls, spend.totals(ledger).refused) == (calls, 2)
    assert sorted(refusals.table(ledger)["refusal"]) == ["api_key_quota_exceeded", "upstream_overloaded"]
    with pytest.raises(Conflict, match="refused"):
        corrections.find(world.workspace, request_id)


def test_empty_books_balance(workspace: Workspace) -> None:
    """A store without a single organisation is no violation."""
    assert all(not finding.violations for finding in reconcile.run(workspace))


@pytest.mark.only_store("sqlite")
def test_an_overwritten_page_is_the_first_thing_that_is_said(world: World, books: Books) -> None:
    """An index that lost its entries hides no row from the other checks: SQLite's own check sees it."""
    store, file = world.workspace.store, world.workspace.settings.data_dir / "keydesk.db"
    with store.read(ADMIN) as tx:
        root = tx.session.scalars(
            text("SELECT rootpage FROM sqlite_master WHERE name = 'api_key_live_name_unique'")
        ).one()
        size = tx.session.scalars(text("PRAGMA page_size")).one()
    with closing(store.connect()) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    with file.open("r+b") as pages:
        pages.seek((root - 1) * size + 3)
        pages.write(bytes(2))  # the number of its entries
    findings = reconcile.run(world.workspace)
    assert findings[0].title == "The key store's own check of its pages finds nothing"
    assert "restore the key store from a backup" in findings[0].violations[0]


@pytest.mark.only_store("sqlite")
def test_checks_of_a_damaged_store_say_that_they_could_not_look(world: World, books: Books) -> None:
    """A table that cannot be read ends the checks that need it, and not the run."""
    store, file = world.workspace.store, world.workspace.settings.data_dir / "keydesk.db"
    with store.read(ADMIN) as tx:
        root = tx.session.scalars(text("SELECT rootpage FROM sqlite_master WHERE name = 'wallet_entry'")).one()
        size = tx.session.scalars(text("PRAGMA page_size")).one()
    with closing(store.connect()) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    with file.open("r+b") as pages:
        pages.seek((root - 1) * size)
        pages.write(b"\xff" * size)
    wrong = found(world)
    assert ENTRIES in wrong
    assert all("Not checked" in sentence for sentence in wrong[ENTRIES])
    assert all("keydesk reconcile" not in sentence for sentences in wrong.values() for sentence in sentences)
    assert CHAINS not in wrong


def test_progress_names_every_check(world: World, books: Books) -> None:
    """The progress bar says what is being checked, and ends at its total."""
    seen: list[tuple[int, int, str]] = []
    findings = reconcile.run(world.workspace, lambda done, total, name: seen.append((done, total, name)))
    titles = [finding.title for finding in findings]
    assert seen == [(done, len(titles), title) for done, title in enumerate([*titles, ""])]


TAMPERING: dict[str, tuple[str, str, str]] = {
    "a row's cost": (
        "UPDATE outbox SET cost = cost - 1, overrun = overrun - 1 WHERE overrun > 0",
        CHARGE,
        "was charged 2.999999999 USD; its tokens make 3 USD",
    ),
    "a row's tokens": (
        "UPDATE outbox SET output_tokens = 1000, output_price = 1000000000 WHERE overrun > 0",
        CHARGE,
        "its tokens make 3.001 USD",
    ),
    "a cost without usage": (
        "UPDATE outbox SET cost = 5 WHERE outcome = 'refused'",
        CHARGE,
        "its tokens make 0 USD",
    ),
    "a deleted row": (
        "DELETE FROM outbox WHERE overrun > 0",
        TOTALS,
        "Key app in 2026-11: 2 calls in the log and 3 in the totals, costing 0.5 USD and 3.5 USD",
    ),
    "a row's organisation": (
        "UPDATE outbox SET org_id = 'org_ghost' WHERE overrun > 0",
        SETTLED,
        "org_ghost: the wallet settled 0 USD, its calls cost 3 USD",
    ),
    "the wallet's settlements": (
        "UPDATE organisation SET settled = settled - 1000000000",
        SETTLED,
        "Acme: the wallet settled 2.5 USD, its calls cost 3.5 USD",
    ),
    "the wallet's credits": (
        "UPDATE organisation SET credited = credited + 1",
        ENTRIES,
        "Acme: the wallet says 100.000000001 USD, its entries sum to 100 USD",
    ),
    "a wallet entry": ("DELETE FROM wallet_entry", ENTRIES, "its entries sum to 0 USD"),
    "a wallet entry that nobody made": (
        "UPDATE wallet_entry SET amount = amount + 7",
        TOLD,
        "Acme: its wallet was given 100.000000007 USD; the audit log says 100 USD",
    ),
    "what the wallet holds": (
        "UPDATE organisation SET held = held + 1",
        HELD,
        "Acme: the wallet holds 4.000000001 USD, its open holds sum to 4 USD",
    ),
    "a month's spend": (
        "UPDATE key_month SET spent = spent - 7",
        TOTALS,
        "Key app in 2026-11: 3 calls in the log and 3 in the totals",
    ),
    "a month's calls": ("UPDATE key_month SET calls = calls + 1", TOTALS, "3 calls in the log and 4 in the totals"),
    "a month that never was": (
        "INSERT INTO key_month SELECT key_id, '2026-10', 0, 5, 0, 0, 0 FROM key_month",
        TOTALS,
        "Key app in 2026-10: 0 calls in the log and 0 in the totals, costing 0 USD and 0.000000005 USD",
    ),
    "a month's totals": (
        "DELETE FROM key_month",
        KEY_HELD,
        "Key app in 2026-11: totals hold 0 USD, open holds sum to 4 USD",
    ),
    "a month's holds": (
        "UPDATE key_month SET held = 0",
        KEY_HELD,
        "Key app in 2026-11: totals hold 0 USD, open holds sum to 4 USD",
    ),
    "a hold": ("UPDATE hold SET amount = amount - 1", HELD, "open holds sum to 3.999999999 USD"),
    "an overrun": (
        "UPDATE outbox SET overrun = overrun + 1 WHERE overrun > 0",
        OVERRUN,
        "cost 3 USD with 2 USD held; its overrun says 1.000000001 USD",
    ),
    "a call that ended and still holds": (
        "UPDATE outbox SET request_id = (SELECT request_id FROM hold) WHERE overrun > 0",
        ONCE,
        "req_hold_0001 ended, but still holds money",
    ),
    "an audit row": (
        "UPDATE audit SET reason = 'nothing to see' WHERE action = 'key.create'",
        CHAINS,
        "was changed",
    ),
    "the limit, behind the audit log's back": (
        "UPDATE api_key SET monthly_limit = 1000000",
        TOLD,
        "Key app: its limit is 0.001 USD, policy strict; the audit log says 20 USD, policy strict.",
    ),
    "the policy, behind the audit log's back": (
        "UPDATE api_key SET hold_policy = 'expected'",
        TOLD,
        "Key app: its limit is 20 USD, policy expected; the audit log says 20 USD, policy strict.",
    ),
    "a key that nobody made": (
        "DELETE FROM audit WHERE action = 'key.create'",
        TOLD,
        "Key app: the audit log does not know it.",
    ),
}


@pytest.mark.only_store("sqlite")  # the checks are DuckDB's; honest books are read on both
@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_found(world: World, books: Books, what: str) -> None:
    """The check that guards the figure names it, with the amounts that disagree."""
    statement, title, words = TAMPERING[what]
    assert books.execute(statement) == 1
    violations = violations_of(world, title)
    assert any(words in violation for violation in violations), violations


def test_a_doubled_row_is_found(world: World, books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is in the ledger and in the outbox counts twice and is named, however few ids are compared at once."""
    world.workspace.ledger.sync(limit=1)
    world.workspace.ledger.sync()
    query = "SELECT * FROM usage WHERE usage_source = 'reported' AND overrun = 0"
    (double,) = world.workspace.ledger.sql(query).to_pylist()
    columns = set(row())
    append(world.workspace.store, [{name: value for name, value in double.items() if name in columns}])
    monkeypatch.setattr(reconcile_integrity, "IDS_AT_ONCE", 1)
    violations = found(world)
    assert violations[ONCE] == [f"{double['request_id']} occurs 2 times."]
    assert SETTLED in violations


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "first bytes": lambda content: content[:4] + bytes([content[4] ^ 0xFF]) + content[5:],
    "middle": lambda content: content[:6000] + bytes(64) + content[6064:],
    "cut": lambda content: content[: len(content) // 2],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_segment_is_a_finding(world: World, books: Books, damage: str) -> None:
    """Whatever happened to a file of the ledger, it is named; what cannot be checked says so."""
    (file,) = segment_files(world)
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    assert file.name in violations_of(world, FILES)[0]


def test_a_missing_segment_is_a_finding(world: World, books: Books) -> None:
    """A file that is gone is named, and every check that needs it says that it could not be made."""
    (file,) = segment_files(world)
    file.unlink()
    violations = found(world)
    assert file.name in violations[FILES][0]
    for title in (CAP, WALLET, SETTLED, TOTALS, CHARGE, ONCE):
        assert "Not checked" in violations[title][0]


@pytest.mark.parametrize("column", ["rows", "size"])
def test_a_list_that_tells_of_another_file_is_a_finding(world: World, books: Books, column: str) -> None:
    """Rows and size of a file are compared with the list's."""
    books.execute(f"UPDATE segment SET {column} = {column} + 1")
    assert segment_files(world)[0].name in violations_of(world, FILES)[0]


def segment_files(world: World) -> list[Path]:
    """Return the ledger's files."""
    return list(Path(world.workspace.settings.ledger_root).rglob("*.parquet"))


def test_an_audit_row_that_was_removed_is_found(world: World, books: Books) -> None:
    """A gap in a chain is named with its place."""
    books.execute("DELETE FROM audit WHERE action = 'wallet.credit'")
    assert "is missing" in " ".join(violations_of(world, CHAINS))


# --- caps in their time


@pytest.mark.only_store("sqlite")
def test_spend_above_a_limit_is_found(world: World, app: ApiKey) -> None:
    """Calls that together cost more than the limit, each within its hold, were let beyond it."""
    books = Books(world)
    for _ in range(3):
        books.settle(app, usd(7))
    assert violations_of(world, CAP) == ["Key app in 2026-11: let up to 21 USD under a limit of 20 USD."]


@pytest.mark.only_store("sqlite")
def test_an_open_hold_above_the_limit_is_found(world: World, app: ApiKey) -> None:
    """What calls under way hold counts like spend."""
    books = Books(world)
    books.gateway()
    books.settle(app, usd(7))
    books.hold(app, usd(13) + 1)
    assert violations_of(world, CAP) == ["Key app in 2026-11: let up to 20.000000001 USD under a limit of 20 USD."]


@pytest.mark.only_store("sqlite")
def test_a_hold_above_the_limit_is_found_though_the_call_was_cheap(world: World, app: ApiKey) -> None:
    """A call that held more than the whole limit should never have been admitted."""
    Books(world).settle(app, 1, held=usd(21))
    assert violations_of(world, CAP) == ["Key app in 2026-11: let up to 21 USD under a limit of 20 USD."]


@pytest.mark.only_store("sqlite")
def test_months_have_a_limit_each(world: World, app: ApiKey) -> None:
    """The limit of a month is not used up by another one's calls."""
    books = Books(world)
    for month in (9, 10, 11):
        books.settle(app, usd(19), at=START.replace(month=month))
    assert found(world) == {}


@pytest.mark.only_store("sqlite")
def test_an_overrun_beyond_the_limit_is_no_violation(world: World, books: Books, app: ApiKey) -> None:
    """Recorded overruns explain a month above its limit."""
    books.settle(app, usd(30), held=usd(10))
    assert found(world) == {}


@pytest.mark.only_store("sqlite")
def test_a_limit_that_was_lowered_is_no_violation(world: World, app: ApiKey) -> None:
    """Spend from before the limit was lowered is as it should be; so are free calls after it."""
    books = Books(world)
    books.settle(app, usd(15), at=START)
    at(world, START + HOUR, lambda tx: keys.update(tx, app.id, monthly_limit=usd(1)))
    books.settle(app, 0, at=START + 2 * HOUR)
    assert found(world) == {}


@pytest.mark.only_store("sqlite")
def test_a_call_after_the_limit_was_lowered_is_found(world: World, app: ApiKey) -> None:
    """A lowered limit excuses what went before it, not what was admitted after it."""
    books = Books(world)
    books.settle(app, usd(15), at=START)
    at(world, START + HOUR, lambda tx: keys.update(tx, app.id, monthly_limit=usd(1)))
    books.settle(app, 5, at=START + 2 * HOUR)
    assert violations_of(world, CAP) == ["Key app in 2026-11: let up to 15.000000005 USD under a limit of 1 USD."]


@pytest.mark.only_store("sqlite")
def test_a_limit_that_was_raised_since_hides_nothing(world: World, app: ApiKey) -> None:
    """What was let beyond the limit of its time is found though today's limit would allow it."""
    books = Books(world)
    books.settle(app, usd(25), at=START)
    at(world, START + HOUR, lambda tx: keys.update(tx, app.id, monthly_limit=usd(50)))
    assert violations_of(world, CAP) == [
        "Key app in 2026-11: let up to 25 USD under a limit of 20 USD, in force until about 2026-11-10 01:00 UTC."
    ]


@pytest.mark.only_store("sqlite")
def test_a_raised_limit_allows_more(world: World, app: ApiKey) -> None:
    """Calls after a raise are judged by it; so is one in the same minute, whichever came first."""
    books = Books(world)
    books.settle(app, usd(20), at=START)
    at(world, START + HOUR, lambda tx: keys.update(tx, app.id, monthly_limit=usd(50)))
    books.settle(app, usd(10), at=START + HOUR - timedelta(seconds=30))
    books.settle(app, usd(20), at=START + 2 * HOUR)
    assert found(world) == {}


@pytest.mark.only_store("sqlite")
def test_a_limit_of_another_month_counts_for_that_month(world: World, app: ApiKey) -> None:
    """A limit that was lowered in December says nothing about November's spend."""
    books = Books(world)
    books.settle(app, usd(18), at=START)
    at(world, START.replace(month=12), lambda tx: keys.update(tx, app.id, monthly_limit=usd(2)))
    books.settle(app, usd(1), at=START.replace(month=12, day=20))
    assert found(world) == {}
    books.settle(app, usd(2), at=START.replace(month=12, day=21))
    assert violations_of(world, CAP) == ["Key app in 2026-12: let up to 3 USD under a limit of 2 USD."]


@pytest.mark.only_store("sqlite")
def test_an_overrun_uses_the_limit_up_once_the_call_has_ended(world: World, app: ApiKey) -> None:
    """After a later change of the limit, earlier calls count with what they really cost."""
    books = Books(world)
    books.settle(app, usd(30), held=usd(10), at=START)
    at(world, START + HOUR, lambda tx: keys.update(tx, app.id, monthly_limit=usd(25)))
    books.settle(app, usd(1), at=START + 2 * HOUR)
    assert violations_of(world, CAP) == ["Key app in 2026-11: let up to 31 USD under a limit of 25 USD."]


def test_policy_expected_may_pass_the_limit(world: World) -> None:
    """Under `expected` the limit may be passed; what had ended before the key became strict counts again."""
    key = world.key("agents", monthly_limit=usd(5), hold_policy=HoldPolicy.EXPECTED).key
    books = Books(world)
    books.settle(key, usd(9), at=START)
    assert found(world) == {}
    at(world, START + HOUR, lambda tx: keys.update(tx, key.id, hold_policy=HoldPolicy.STRICT))
    assert found(world) == {}
    books.settle(key, usd(1), at=START + 2 * HOUR)
    assert violations_of(world, CAP) == ["Key agents in 2026-11: let up to 10 USD under a limit of 5 USD."]


def test_a_wallet_that_was_let_below_zero_is_found(world: World) -> None:
    """Money that was spent though it was not there is named, also when it has come in since."""
    books, key = Books(world), world.key().key
    books.settle(key, usd(104), at=START)
    at(world, START + HOUR, lambda tx: wallet.credit(tx, "Acme", usd(50), "second payment"))
    assert violations_of(world, WALLET) == [
        "Acme: let up to 104 USD on a wallet that had been given 100 USD, in force until about 2026-11-10 01:00 UTC."
    ]


@pytest.mark.only_store("sqlite")
def test_a_wallet_may_be_overrun(world: World) -> None:
    """Overruns that were recorded explain a wallet below zero."""
    Books(world).settle(world.key().key, usd(104), held=usd(99))
    assert found(world) == {}


@pytest.mark.only_store("sqlite")
def test_an_adjustment_below_what_is_held_is_no_violation(world: World, books: Books) -> None:
    """A correction may take more than is left; nothing was admitted after it."""
    at(world, datetime(2026, 11, 24, tzinfo=UTC), lambda tx: wallet.adjust(tx, "Acme", -usd(99), "r 1", "bounced"))
    assert found(world) == {}


@pytest.mark.only_store("sqlite")
def test_a_call_after_an_adjustment_below_zero_is_found(world: World) -> None:
    """A correction excuses what went before it, not what was admitted after it."""
    books, key = Books(world), world.key().key
    books.settle(key, usd(60), at=START)
    at(world, START + HOUR, lambda tx: wallet.adjust(tx, "Acme", -usd(50), "r 1", "bounced"))
    books.settle(key, usd(1), at=START + 2 * HOUR)
    assert violations_of(world, WALLET) == ["Acme: let up to 61 USD on a wallet that had been given 50 USD."]


def test_many_changes_of_a_limit_are_followed(world: World, app: ApiKey) -> None:
    """Each of fifty limits is the one in force for its hour; one call too many in one of them is found."""
    books = Books(world)
    for hour in range(50):
        limit = usd(hour + 1)
        at(world, START + hour * HOUR, lambda tx, limit=limit: keys.update(tx, app.id, monthly_limit=limit))  # type: ignore[misc]
        books.settle(app, usd(1), at=START + hour * HOUR + HOUR / 2)
    assert found(world) == {}
    books.settle(app, 1, at=START + 10 * HOUR + HOUR / 2)
    violations = violations_of(world, CAP)
    assert violations[0] == (
        "Key app in 2026-11: let up to 11.000000001 USD under a limit of 11 USD, "
        "in force until about 2026-11-10 11:00 UTC."
    )
    assert len(violations) == MOST_SHOWN + 1
    assert violations[-1] == "and 20 more"  # of the hours from the eleventh on


# --- orphaned holds


def test_a_dead_gateways_hold_is_found(world: World, app: ApiKey) -> None:
    """A hold whose gateway is not known any more should have been swept long ago."""
    books = Books(world)
    books.hold(app, usd(4), at=utc_now() - HOUR)
    (orphan,) = violations_of(world, ORPHANS)
    assert orphan.startswith("Hold of 4 USD for req_hold_0001 by key app: its gateway gateway_test has ended")


@pytest.mark.parametrize(("seconds", "orphaned"), [(-300, True), (-30, False), (30, False)])
def test_a_lease_that_just_ended_is_left_to_the_sweep(world: World, app: ApiKey, seconds: int, orphaned: bool) -> None:
    """Gateways get the time of a few sweeps to release what a dead one held."""
    books = Books(world)
    books.hold(app, usd(4), at=utc_now() - HOUR)
    books.gateway(lease=timedelta(seconds=seconds))
    assert bool(violations_of(world, ORPHANS)) is orphaned


# --- sums and words


@pytest.mark.only_store("sqlite")
def test_no_more_than_twenty_violations_are_spelled_out(world: World, books: Books, app: ApiKey) -> None:
    """A disaster is summed up."""
    for _ in range(MOST_SHOWN + 5):
        books.settle(app, 1)
    books.execute("UPDATE outbox SET overrun = 1 WHERE cost = 1")
    (violations,) = found(world).values()
    assert len(violations) == MOST_SHOWN + 1
    assert violations[-1] == "and 5 more"


@pytest.mark.only_store("sqlite")
def test_a_charge_of_a_half_is_checked_half_to_even(world: World) -> None:
    """The check rounds as the charge does: halves to even, and hundreds of millions of tokens without overflow."""
    books, key = Books(world), world.key().key
    for tokens, price, multiplier, cost in (
        (1, 500_000, MILLION, 0),
        (3, 500_000, MILLION, 2),
        (10**8, usd(999), 10 * MILLION, 10**8 * 999_000 * 10),
    ):
        books.settle(key, cost, output_tokens=tokens, output_price=price, multiplier=multiplier, request_price=0)
    assert violations_of(world, CHARGE) == []


# --- who runs it, and the record


def test_others_check_what_they_may_see(world: World, books: Books) -> None:
    """An org admin's check covers its organisation: another one's violation is not in it, its own is."""
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Borealis")
    books.execute("UPDATE organisation SET settled = settled + 1 WHERE name = 'Acme'")
    ours = reconcile.run(world.workspace.acting_as(Actor("a@example.com", Role.ORG_ADMIN, world.org_id)))
    theirs = reconcile.run(world.workspace.acting_as(Actor("b@example.com", Role.ANALYST, other.id)))
    everybody = reconcile.run(world.workspace.acting_as(Actor("c@example.com", Role.ANALYST)))
    assert [finding.title for finding in ours if finding.violations] == [SETTLED]
    assert [finding.title for finding in theirs if finding.violations] == []
    assert [finding.title for finding in everybody if finding.violations] == [SETTLED]
    assert "Acme" not in str(theirs)
    assert {finding.title: finding.checked for finding in theirs}[ONCE] == 0
    assert FILES not in {finding.title for finding in theirs}
    assert FILES in {finding.title for finding in everybody}


def test_a_platform_admins_run_is_recorded(world: World, books: Books) -> None:
    """The record says when, by whom, how long, how many rows, and what was found; the newest is the last run."""
    before = utc_now()
    findings = reconcile.run(world.workspace)
    books.execute("UPDATE organisation SET settled = settled + 1")
    with world.workspace.read() as tx:
        first = reconcile_runs.last_run(tx)
    broken = reconcile.run(world.workspace)
    with world.workspace.read() as tx:
        second = reconcile_runs.last_run(tx)
    assert first is not None
    assert second is not None
    assert before <= first.started_at < second.started_at <= utc_now()
    assert (first.actor, first.rows, first.clean, first.results) == (ADMIN.name, 4, True, findings)
    assert (second.clean, second.results) == (False, broken)
    assert 0 <= first.duration_ms <= (utc_now() - before) / timedelta(milliseconds=1)


def test_a_run_of_a_reader_is_not_recorded(world: World, books: Books) -> None:
    """Who may only look leaves no trace in the store."""
    for actor in (Actor("a@example.com", Role.ORG_ADMIN, world.org_id), Actor("b@example.com", Role.ANALYST)):
        assert reconcile.run(world.workspace.acting_as(actor))
    with world.workspace.read() as tx:
        assert reconcile_runs.last_run(tx) is None


def test_a_store_that_cannot_be_written_is_checked_all_the_same(
    world: World, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The findings come back though no record can be made."""

    def refuse(*_: object) -> None:
        raise Unavailable("The key store is read-only.")

    monkeypatch.setattr(world.workspace.store, "write", refuse)
    assert reconcile.run(world.workspace)
    with world.workspace.read() as tx:
        assert reconcile_runs.last_run(tx) is None


def test_an_org_sees_that_a_run_was_and_no_more(world: World, books: Books) -> None:
    """Amounts and names of others' books stay with the platform; when the run was and whether all was well does not."""
    books.execute("UPDATE organisation SET settled = settled + 1")
    reconcile.run(world.workspace)
    with world.workspace.acting_as(Actor("a@example.com", Role.ORG_ADMIN, world.org_id)).read() as tx:
        run = reconcile_runs.last_run(tx)
    assert run is not None
    assert not run.clean
    assert (run.actor, run.duration_ms, run.rows, run.results) == ("", 0, 0, [])


def test_the_newest_hundred_runs_are_kept(world: World) -> None:
    """Old records go when new ones come."""
    with world.workspace.write() as tx:
        for number in range(RUNS_KEPT + 5):
            tx.session.add(
                Reconciliation(
                    id=f"run_{number}",
                    started_at=START + number * HOUR / 60,
                    actor="x",
                    duration_ms=1,
                    rows=0,
                    clean=True,
                    findings="[]",
                )
            )
    reconcile.run(world.workspace)
    with world.workspace.read() as tx:
        kept = tx.session.scalars(text("SELECT started_at FROM reconciliation ORDER BY started_at")).all()
    assert len(kept) == RUNS_KEPT
    assert kept[0] == micros(START + 6 * HOUR / 60)
