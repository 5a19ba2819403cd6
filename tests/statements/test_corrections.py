"""A call's charge is corrected: wallet, key month, limit, statement and audit log say the same, and once."""

import json
import uuid
from datetime import datetime, timedelta
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.account import NOW, Account, account, billing_store, dollars, ended, fixed, open_account
from tests.conftest import ADMIN, World, at_once, examples, usd
from toolkit.admin import organisations
from toolkit.admin.key_summaries import summaries
from toolkit.billing.stores import BillingStore
from toolkit.checks import reconcile
from toolkit.core.errors import Conflict, Forbidden, InvalidInput, NotConfirmed, NotFound, RefusalType
from toolkit.core.money import parse_usd
from toolkit.core.period import billing_month
from toolkit.core.policy import Role
from toolkit.core.pricing import MILLION
from toolkit.core.usage import Usage
from toolkit.statements import corrections, month_close
from toolkit.statements.corrections import Correction, correct
from toolkit.statements.figures import figures_of
from toolkit.store import audit
from toolkit.store.actor import Actor

__all__ = ["account", "billing_store"]  # fixtures

pytestmark = pytest.mark.any_store


def spent_call(account: Account, amount: int, at: datetime | None = None) -> str:
    """Charge a call; return its request id."""
    options = {} if at is None else {"received_at": at}
    call = account.call(sheet=dollars(amount), multiplier=MILLION, **options)
    account.admit(call, fixed(amount))
    account.settle(call, ended(Usage()))
    return call.request_id


def corrected(account: Account, request_id: str, charge: int, reason: str = "the provider billed less") -> Correction:
    """Correct a call."""
    return correct(account.world.workspace, request_id, charge, reason, confirm=request_id)


def month_of(account: Account, month: str = "2026-11") -> dict[str, int]:
    """Return what a key month counts."""
    query = "SELECT spent, corrected FROM key_month WHERE key_id = :key AND month = :month"
    return account.row(query, key=account.key_id, month=month)


def violations(world: World) -> list[str]:
    """Return what reconcile finds."""
    return [words for finding in reconcile.run(world.workspace) for words in finding.violations]


@pytest.mark.parametrize("drained", [False, True])
def test_a_correction_books_the_difference(account: Account, drained: bool) -> None:
    """The wallet gets back what was charged too much, by an entry that names the call; the row stays as it was."""
    request_id = spent_call(account, usd(3))
    if drained:
        account.world.workspace.ledger.sync()
    done = corrected(account, request_id, usd(1))
    assert (done.before.present, done.charge, done.balance) == (usd(3), usd(1), usd(99))
    assert done.entry is not None
    assert (done.entry.kind, done.entry.amount, done.entry.reference) == ("adjustment", usd(2), request_id)
    assert (done.entry.request_id, done.entry.key_id) == (request_id, account.key_id)
    assert account.org() == {"credited": usd(102), "settled": usd(3), "held": 0}
    assert month_of(account) == {"spent": usd(3), "corrected": -usd(2)}
    assert account.world.workspace.ledger.sql("SELECT cost FROM usage").to_pylist() == [{"cost": usd(3)}]
    assert violations(account.world) == []


def test_a_second_correction_replaces_the_first(account: Account) -> None:
    """The figure is the whole charge: the difference to the present one is booked, up or down."""
    request_id = spent_call(account, usd(3))
    for charge in (usd(1), usd(5), 0):
        assert corrected(account, request_id, charge).before.present + month_of(account)["corrected"] >= 0
    assert month_of(account) == {"spent": usd(3), "corrected": -usd(3)}
    with account.world.workspace.read() as tx:
        found = corrections.of_call(tx, request_id)
    assert [entry.amount for entry in found] == [usd(2), -usd(4), usd(5)]
    assert [entry.reference for entry in found] == [request_id, f"{request_id} #2", f"{request_id} #3"]
    assert account.org()["credited"] == usd(103)
    assert violations(account.world) == []


def test_the_same_correction_again_books_nothing(account: Account) -> None:
    """It says so: there is no entry, and nothing in the audit log."""
    request_id = spent_call(account, usd(3))
    corrected(account, request_id, usd(1))
    state = account.org(), account.count("wallet_entry"), account.count("audit")
    again = corrected(account, request_id, usd(1))
    assert (again.entry, again.before.present) == (None, usd(1))
    assert (account.org(), account.count("wallet_entry"), account.count("audit")) == state


def test_what_cannot_be_corrected(account: Account) -> None:
    """A call under way, one that is not there, a refused one; a charge below zero; no reason; no confirmation."""
    workspace = account.world.workspace
    call = account.call()
    account.admit(call, fixed(usd(1)))
    with pytest.raises(Conflict, match="still under way"):
        corrected(account, call.request_id, 0)
    with pytest.raises(NotFound, match="no request 'req_nobody'"):
        corrected(account, "req_nobody", 0)
    account.update(monthly_limit=0)
    refused = account.call()
    refusal = account.refused(refused, fixed(usd(1)))
    account.refuse(refused, refusal, refused.received_at, catalog_version=None)
    with pytest.raises(Conflict, match="was refused"):
        corrected(account, refused.request_id, 1)
    account.settle(call, ended(Usage()))
    with pytest.raises(InvalidInput, match="zero or more"):
        corrected(account, call.request_id, -1)
    with pytest.raises(InvalidInput, match="needs a reason"):
        corrected(account, call.request_id, 1, " ")
    with pytest.raises(NotConfirmed, match=call.request_id):
        correct(workspace, call.request_id, 1, "x", confirm="yes")
    assert account.count("wallet_entry") == 1


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_only_a_platform_admin_corrects(account: Account, role: Role) -> None:
    """Those of the organisation see a correction, and make none."""
    request_id = spent_call(account, usd(3))
    corrected(account, request_id, 0)
    theirs = account.world.workspace.acting_as(Actor("org@example.com", role, account.world.org_id))
    with pytest.raises(Forbidden):
        correct(theirs, request_id, usd(1), "mine", confirm=request_id)
    with theirs.read() as tx:
        assert len(corrections.of_call(tx, request_id)) == 1
    with account.world.workspace.write() as tx:
        other = organisations.add(tx, "Other")
    with account.world.workspace.acting_as(Actor("x", role, other.id)).read() as tx:
        assert corrections.of_call(tx, request_id) == []


def test_the_limit_counts_what_was_corrected(account: Account) -> None:
    """A refund makes room under the monthly limit, a higher charge takes it; the 402 says what is counted."""
    account.update(monthly_limit=usd(3))
    request_id = spent_call(account, usd(3))
    assert account.refused(account.call(), fixed(1)).type is RefusalType.API_KEY_QUOTA_EXCEEDED
    corrected(account, request_id, usd(1))
    refusal = account.refused(account.call(), fixed(usd(2) + 1))
    assert (refusal.details["spent_usd"], refusal.details["limit_usd"]) == ("1", "3")
    spent_call(account, usd(2))
    corrected(account, request_id, usd(9))
    assert account.refused(account.call(), fixed(1)).details["spent_usd"] == "11"
    with account.world.workspace.store.read(ADMIN, NOW) as tx:
        (summary,) = summaries(tx)
    assert (summary.spent, summary.corrected, summary.counted) == (usd(5), usd(6), usd(11))
    assert violations(account.world) == []


def test_room_that_a_refund_made_is_no_violation(world: World, billing_store: BillingStore) -> None:
    """Calls that a refund let pass do not break the cap in the log's own figures; without it they would."""
    account = open_account(world, billing_store, monthly_limit=usd(3))
    request_id = spent_call(account, usd(3))
    corrected(account, request_id, 0)
    spent_call(account, usd(3))
    assert violations(account.world) == []
    account.execute("UPDATE wallet_entry SET request_id = NULL WHERE request_id IS NOT NULL")
    assert any("under a limit of 3 USD" in words for words in violations(account.world))


def test_a_closed_month_is_left_alone(account: Account) -> None:
    """A correction of a call whose month is closed counts for the present one; the statement's line says which."""
    with account.world.workspace.read() as tx:
        at = (tx.now.replace(day=1) - timedelta(days=1)).replace(day=14)
        now, closed = billing_month(tx.now), billing_month(at)
    request_id, open_id = spent_call(account, usd(3), at), spent_call(account, usd(2), at)
    first = corrected(account, open_id, usd(1))
    assert (first.month, first.moved) == (closed, False)
    statement = month_close.close(account.world.workspace, account.world.org_id, closed, first=True)
    lines = figures_of(statement)["adjustments"]
    assert figures_of(statement)["corrected"] == -usd(1)
    assert [(line["kind"], line["request_id"], line["amount"]) for line in lines] == [
        ("call corrected", open_id, usd(1))
    ]
    done = corrected(account, request_id, 0)
    assert (done.month, done.moved) == (now, True)
    assert month_of(account, closed) == {"spent": usd(5), "corrected": -usd(1)}
    assert month_of(account, now) == {"spent": 0, "corrected": -usd(3)}
    assert violations(account.world) == []
    draft = month_close.draft(account.world.workspace, account.world.org_id, now)
    (line,) = [line for line in draft["adjustments"] if line["kind"] == "call corrected"]
    assert (line["corrects"], line["amount"], line["key_id"]) == (closed, usd(3), account.key_id)


def test_the_audit_log_tells_of_it(account: Account) -> None:
    """Who, which call, and both charges."""
    request_id = spent_call(account, usd(3))
    corrected(account, request_id, usd(1), "measured anew")
    with account.world.workspace.read() as tx:
        row = audit.rows(tx, limit=1)[0]
    assert (row.action, row.actor, row.reason) == (
        "wallet.correct",
        account.world.workspace.actor.name,
        "measured anew",
    )
    assert request_id in (row.after or "")
    assert '"charge_usd": "1"' in (row.after or "") or '"charge_usd":"1"' in (row.after or "")


@pytest.mark.world
@pytest.mark.both_stores
def test_corrections_at_once_end_with_one_sum(account: Account) -> None:
    """However many correct the same call at the same time, the wallet and the key month agree with the last one."""
    request_id = spent_call(account, usd(3))
    at_once(*(partial(corrected, account, request_id, usd(charge)) for charge in (0, 1, 2, 5, 0, 1)))
    with account.world.workspace.read() as tx:
        last = corrections.of_call(tx, request_id)[-1]
        row = audit.rows(tx, subject=last.id)[0]
    charge = parse_usd(json.loads(row.after or "")["charge_usd"])
    assert charge in {usd(amount) for amount in (0, 1, 2, 5)}
    assert month_of(account)["corrected"] == charge - usd(3)
    assert account.org()["credited"] - account.org()["settled"] == usd(100) - charge
    assert violations(account.world) == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("UPDATE key_month SET corrected = corrected + 1", "totals are corrected by"),
        ("UPDATE wallet_entry SET key_id = 'key_other' WHERE request_id IS NOT NULL", "is no call of that key"),
        ("UPDATE wallet_entry SET request_id = 'req_other' WHERE request_id IS NOT NULL", "is no call of that key"),
        ("UPDATE wallet_entry SET amount = amount + 5000000000 WHERE request_id IS NOT NULL", "was corrected to -"),
    ],
)
def test_reconcile_finds_a_correction_that_does_not_fit(account: Account, damage: str, words: str) -> None:
    """Entry, key month and call must agree."""
    corrected(account, spent_call(account, usd(3)), usd(1))
    account.execute(damage)
    assert any(words in violation for violation in violations(account.world))


@examples(15)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, usd(9))), max_size=8))
def test_any_corrections_balance(account: Account, acts: list[tuple[int, int]]) -> None:
    """After any corrections of any calls, the wallet is what it was given less what the calls cost now."""
    account.execute("DELETE FROM outbox")
    account.world.credit(3 * usd(9), uuid.uuid4().hex)
    calls = [spent_call(account, usd(amount)) for amount in (0, 1, 4)]
    before = account.org()
    kept = month_of(account)["corrected"]
    present = dict(zip(calls, (0, usd(1), usd(4)), strict=True))
    for number, charge in acts:
        done = corrected(account, calls[number], charge)
        assert (done.before.present, done.entry is None) == (present[calls[number]], charge == present[calls[number]])
        present[calls[number]] = charge
    moved = sum(present.values()) - usd(5)
    assert month_of(account)["corrected"] - kept == moved
    assert account.org()["credited"] - before["credited"] == -moved
