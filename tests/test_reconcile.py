"""`reconcile` finds nothing in honest books, and whatever a test tampers with."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.conftest import World, usd
from tests.test_billing import INSTANCE, NOW, Till, ended, fixed, till_of
from toolkit import billing, keys, reconcile, wallet
from toolkit.database import Actor, utc_now
from toolkit.errors import Forbidden
from toolkit.models import micros
from toolkit.policy import Outcome, Role
from toolkit.pricing import MILLION, PriceSheet
from toolkit.reconcile import MOST_SHOWN
from toolkit.usage import Usage


@pytest.fixture
def till(world: World) -> Iterator[Till]:
    """Books with a charged, an overrun, a broken, a refused and an open call; half of them in the ledger."""
    for till in till_of(world, monthly_limit=usd(20)):
        billing.renew_lease(till.connection, INSTANCE, NOW, utc_now().replace(year=2100))
        for at, ending in enumerate([ended(Usage(1500, 500, output_tokens=200)), ended(None, Outcome.UPSTREAM_ERROR)]):
            call = till.call(sheet=PriceSheet.flat(input=usd(2), output=usd(10), request=at))
            till.admit(call, fixed(usd(1)))
            billing.settle(till.connection, call, ending)
        world.desk.ledger.sync()
        till.spend(usd(3), hold=usd(2))
        billing.refuse(
            till.connection, call := till.call(), till.refused(call, fixed(usd(99))), NOW, catalog_version=None
        )
        till.admit(till.call(), fixed(usd(4)))
        yield till


def found(till: Till) -> dict[str, list[str]]:
    """Run reconcile; return the violations by the title of their check."""
    return {finding.title: finding.violations for finding in reconcile.run(till.world.desk) if finding.violations}


def only(till: Till) -> str:
    """Return the one violation that there is."""
    ((violation,),) = found(till).values()
    return violation


def test_honest_books_balance(till: Till) -> None:
    """Every check has looked at something and found nothing."""
    findings = reconcile.run(till.world.desk)
    assert [finding.violations for finding in findings] == [[]] * len(findings)
    assert all(finding.checked > 0 for finding in findings), findings
    assert {finding.invariant for finding in findings} == {"I2", "I3", "I4", "I5", "I6"}


def test_empty_books_balance(world: World) -> None:
    """A store without a single call is no violation."""
    assert all(not finding.violations for finding in reconcile.run(world.desk))


def test_progress_counts_every_check(till: Till) -> None:
    """The progress bar of the command ends at its total."""
    seen: list[tuple[int, int]] = []
    findings = reconcile.run(till.world.desk, lambda done, total: seen.append((done, total)))
    assert seen == [(number, len(findings)) for number in range(1, len(findings) + 1)]


TAMPERING: dict[str, tuple[str, str, str]] = {
    "a row's cost": (
        "UPDATE outbox SET cost = cost - 1, overrun = overrun - 1 WHERE overrun > 0",
        "Each charge is its tokens × prices × multiplier, rounded once",
        "was charged 2.999999999 USD; its tokens make 3 USD",
    ),
    "a row's tokens": (
        "UPDATE outbox SET output_tokens = 1000, output_price = 1000000000 WHERE overrun > 0",
        "Each charge is its tokens × prices × multiplier, rounded once",
        "its tokens make 3.001 USD",
    ),
    "a cost without usage": (
        "UPDATE outbox SET cost = 5 WHERE outcome = 'refused'",
        "Each charge is its tokens × prices × multiplier, rounded once",
        "its tokens make 0 USD",
    ),
    "a deleted row": (
        "DELETE FROM outbox WHERE overrun > 0",
        "Each key's monthly totals are the sums of its calls",
        "Key app in 2026-11: 2 calls in the log and 3 in the totals",
    ),
    "the wallet's settlements": (
        "UPDATE organisation SET settled = settled - 1000000000",
        "Each wallet's settlements are the sum of its calls",
        "Acme: the wallet settled 2.",
    ),
    "the wallet's credits": (
        "UPDATE organisation SET credited = credited + 1",
        "Each wallet's credits are the sum of its entries",
        "Acme: the wallet says 100.000000001 USD, its entries sum to 100 USD",
    ),
    "a wallet entry": (
        "DELETE FROM wallet_entry",
        "Each wallet's credits are the sum of its entries",
        "its entries sum to 0 USD",
    ),
    "what the wallet holds": (
        "UPDATE organisation SET held = held + 1",
        "What a wallet holds is the sum of its open holds",
        "Acme: the wallet holds 4.000000001 USD, its open holds sum to 4 USD",
    ),
    "a month's spend": (
        "UPDATE key_month SET spent = spent - 7",
        "Each key's monthly totals are the sums of its calls",
        "Key app in 2026-11: 3 calls in the log and 3 in the totals",
    ),
    "a month's calls": (
        "UPDATE key_month SET calls = calls + 1",
        "Each key's monthly totals are the sums of its calls",
        "3 calls in the log and 4 in the totals",
    ),
    "a month that never was": (
        "INSERT INTO key_month SELECT key_id, '2026-10', 0, 5, 0, 0 FROM key_month",
        "Each key's monthly totals are the sums of its calls",
        "Key app in 2026-10: 0 calls in the log and 0 in the totals, costing 0 USD and 0.000000005 USD",
    ),
    "a month's holds": (
        "UPDATE key_month SET held = 0",
        "What a key holds in a month is the sum of its open holds",
        "totals hold 0 USD, open holds sum to 4 USD",
    ),
    "a hold": (
        "UPDATE hold SET amount = amount - 1",
        "What a wallet holds is the sum of its open holds",
        "open holds sum to 3.999999999 USD",
    ),
    "an overrun": (
        "UPDATE outbox SET overrun = overrun + 1 WHERE overrun > 0",
        "Each overrun is what a charge exceeds its hold by",
        "cost 3 USD with 2 USD held; its overrun says 1.000000001 USD",
    ),
    "a call that ended and still holds": (
        "UPDATE outbox SET request_id = (SELECT request_id FROM hold) WHERE overrun > 0",
        "Each request id occurs once, and no call that ended still holds money",
        "ended, but still holds money",
    ),
    "a dead gateway's hold": (
        "DELETE FROM gateway_instance",
        "No hold belongs to a gateway that has ended",
        "its gateway gateway_test has ended",
    ),
    "an audit row": (
        "UPDATE audit SET reason = 'nothing to see' WHERE action = 'key.create'",
        "The audit log's chains are whole",
        "was changed",
    ),
    "the limit, behind the audit log's back": (
        "UPDATE api_key SET monthly_limit = 1000000",
        "No strict key is over its monthly limit, but for recorded overruns or a lowered limit",
        "limit 0.001 USD, overruns 1 USD",
    ),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_found(till: Till, what: str) -> None:
    """The check that guards the figure names it, with the amounts that disagree."""
    statement, title, words = TAMPERING[what]
    assert till.connection.execute(statement).rowcount == 1
    violations = found(till)[title]
    assert any(words in violation for violation in violations), violations


def test_a_doubled_row_is_found(till: Till) -> None:
    """A row that is in the ledger and in the outbox counts twice, and is named."""
    query = "SELECT * FROM usage WHERE usage_source = 'reported' AND overrun = 0"
    (row,) = till.world.desk.ledger.sql(query).to_pylist()
    columns = [name for (name,) in till.connection.execute("SELECT name FROM pragma_table_info('outbox')")]
    values = [micros(row[name]) if isinstance(row[name], datetime) else row[name] for name in columns]
    till.connection.execute(f"INSERT INTO outbox VALUES ({', '.join('?' * len(columns))})", values)
    violations = found(till)
    assert (
        f"{row['request_id']} occurs 2 times."
        in violations["Each request id occurs once, and no call that ended still holds money"]
    )
    assert "Each wallet's settlements are the sum of its calls" in violations


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "first bytes": lambda content: content[:4] + bytes([content[4] ^ 0xFF]) + content[5:],
    "middle": lambda content: content[:6000] + bytes(64) + content[6064:],
    "cut": lambda content: content[: len(content) // 2],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_segment_is_a_finding(till: Till, damage: str) -> None:
    """Whatever happened to a file of the ledger, it is named; what cannot be checked says so."""
    (file,) = segment_files(till)
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    assert file.name in found(till)["Each ledger segment is the file that was written"][0]


def test_a_missing_segment_is_a_finding(till: Till) -> None:
    """A file that is gone is named."""
    (file,) = segment_files(till)
    file.unlink()
    violations = found(till)
    assert file.name in violations["Each ledger segment is the file that was written"][0]
    assert "Not checked" in violations["Each wallet's settlements are the sum of its calls"][0]


def segment_files(till: Till) -> list[Path]:
    """Return the ledger's files."""
    return list(till.world.desk.settings.ledger_root.rglob("*.parquet"))


def test_an_audit_row_that_was_removed_is_found(till: Till) -> None:
    """A gap in a chain is named with its place."""
    till.connection.execute("DELETE FROM audit WHERE action = 'wallet.credit'")
    assert "is missing" in " ".join(found(till)["The audit log's chains are whole"])


def test_a_limit_that_was_lowered_is_no_violation(till: Till) -> None:
    """Spend above a limit that the audit log says was lowered since is as it should be."""
    with till.world.desk.store.write(till.world.desk.actor, NOW) as tx:
        keys.update(tx, till.key_id, monthly_limit=usd(0.01))
    assert found(till) == {}


def test_an_overrun_beyond_the_limit_is_no_violation(till: Till) -> None:
    """Recorded overruns explain a month above its limit."""
    till.spend(usd(30), hold=usd(10))
    assert found(till) == {}


def test_an_adjustment_below_what_is_held_is_no_violation(till: Till) -> None:
    """A correction may take more than is left; reconcile accepts it because an entry explains it."""
    with till.world.desk.write() as tx:
        wallet.adjust(tx, "Acme", -usd(99), "chargeback 1", "the payment bounced")
    assert till.org()["credited"] - till.org()["settled"] - till.org()["held"] < 0
    assert found(till) == {}


def test_a_wallet_below_zero_without_reason_is_found(till: Till) -> None:
    """Money that was spent though it was not there is named."""
    till.connection.execute("UPDATE wallet_entry SET amount = 5000000000")
    till.connection.execute("UPDATE organisation SET credited = 5000000000")
    assert only(till).startswith("Acme: -2.")


def test_no_more_than_twenty_violations_are_spelled_out(till: Till) -> None:
    """A disaster is summed up."""
    for _ in range(MOST_SHOWN + 5):
        till.spend(1)
    till.connection.execute("UPDATE outbox SET overrun = 1 WHERE cost = 1")
    (violations,) = found(till).values()
    assert len(violations) == MOST_SHOWN + 1
    assert violations[-1] == "and 5 more"


def test_a_charge_of_a_half_is_checked_half_to_even(till: Till) -> None:
    """The check rounds as the charge does: halves to even, and hundreds of millions of tokens without overflow."""
    for output, input_tokens, price in ((1, 0, 500_000), (3, 0, 500_000), (10**8, 10**8, usd(999))):
        sheet = PriceSheet.flat(input=price, output=price)
        call = till.call(sheet=sheet, multiplier=MILLION if price < usd(1) else 1000 * MILLION)
        till.admit(call, fixed(0))
        assert billing.settle(till.connection, call, ended(Usage(input_tokens, output_tokens=output)))
    assert not [title for title in found(till) if "rounded once" in title]


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_only_the_platform_reconciles(till: Till, role: Role) -> None:
    """An actor of one organisation cannot see what the checks need."""
    desk = till.world.desk.acting_as(Actor("x@example.com", role, till.world.org_id))
    with pytest.raises(Forbidden):
        reconcile.run(desk)
