"""Month close: what a statement says, that it cannot change, and that no call slips past it."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from tests.account import Account, account, billing_store, ended, fixed, open_account
from tests.books import Books
from tests.conftest import ADMIN, ROOT, World, at_once, usd, variables_of
from toolkit.admin import keys, organisations, wallet
from toolkit.billing import leases
from toolkit.billing.leases import Progress
from toolkit.billing.rules import Admitted
from toolkit.billing.state import Stale
from toolkit.checks import reconcile
from toolkit.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from toolkit.core.policy import Role
from toolkit.core.usage import Usage
from toolkit.statements import month_close
from toolkit.statements.figures import Figures, canonical, digest, figures_of
from toolkit.statements.figures_builder import calls_of
from toolkit.store import audit
from toolkit.store.actor import Actor
from toolkit.store.tables import Statement

pytestmark = pytest.mark.any_store

__all__ = ["account", "billing_store"]  # fixtures

OCTOBER = datetime(2026, 10, 14, 9, 30, tzinfo=UTC)
SEPTEMBER = datetime(2026, 9, 14, 9, 30, tzinfo=UTC)
AUGUST = datetime(2026, 8, 14, 9, 30, tzinfo=UTC)
BEGINNING = datetime(2024, 12, 31, tzinfo=UTC)
LAST_SECOND = datetime(2026, 10, 31, 23, 59, 59, 999_999, tzinfo=UTC)


@pytest.fixture
def world(world: World) -> World:
    """The usual world, whose organisation was there before 2025."""
    with world.workspace.write() as tx:
        organisations.find(tx, "Acme").created_at = BEGINNING
    return world


def pay(world: World, amount: int, reference: str, at: datetime, reason: str = "") -> None:
    """Put money into the wallet at a moment; with a reason it is an adjustment."""
    with world.workspace.store.write(ADMIN, at) as tx:
        if reason:
            wallet.adjust(tx, world.org_id, amount, reference, reason)
        else:
            wallet.credit(tx, world.org_id, amount, reference)


def close(world: World, month: str = "2026-10", *, first: bool = False) -> Statement:
    """Close a month."""
    return month_close.close(world.workspace, "Acme", month, first=first)


def closed(world: World, month: str = "2026-10", *, first: bool = False) -> Figures:
    """Close a month and return the figures."""
    return figures_of(close(world, month, first=first))


def verified(world: World, month: str = "2026-10") -> list[str]:
    """Return what is wrong with a statement."""
    with world.workspace.read() as tx:
        return month_close.verify(tx, month_close.find(tx, "Acme", month))


def bridge(figures: Figures) -> tuple[int, ...]:
    """Return opening, credits, adjustments, charged, closing."""
    return tuple(figures["wallet"][name] for name in ("opening", "credits", "adjustments", "charged", "closing"))


# -- what it says -----------------------------------------------------------------------------------------------------


def test_a_statement_adds_up_calls_by_key_and_model(account: Account) -> None:
    """Tokens by kind, cost at list price, what the multiplier added, and the charge: figures worked out by hand."""
    other = open_account(account.world, account.billing_store, name="other")
    for who, tokens in ((account, 1_000), (account, 3), (other, 2_000)):
        call = who.call(received_at=OCTOBER)
        who.admit(call, fixed(usd(1)))
        who.settle(call, ended(Usage(input_tokens=tokens, cached_input_tokens=2, output_tokens=100)))
    failed = other.call(received_at=OCTOBER, model="other-test")
    other.admit(failed, fixed(usd(1)))
    other.settle(failed, ended(None))
    figures = closed(account.world)
    # 2 USD fresh, 0.50 cached, 10 out a million: (998 x 2,000 + 2 x 500 + 100 x 10,000) nano = 2,997,000; x 1.25 =
    # 3,746,250. (1 x 2,000 + 1,000 + 1,000,000) = 1,003,000; x 1.25 = 1,253,750. 1,998 fresh: 4,997,000; 6,246,250.
    mine, theirs = 2_997_000 + 1_003_000, 4_997_000
    sums = [(group["key"], group["calls"], group["list_cost"], group["charged"]) for group in figures["keys"]]
    assert sums == [("other", 2, theirs, 6_246_250), ("app", 2, mine, 5_000_000)]
    by_model = [(group["model"], group["calls"], group["charged"]) for group in figures["models"]]
    assert by_model == [("gpt-test", 3, 11_246_250), ("other-test", 1, 0)]
    cells = [(group["key"], group["model"], group["calls"]) for group in figures["keys_and_models"]]
    assert sorted(cells) == [("app", "gpt-test", 2), ("other", "gpt-test", 1), ("other", "other-test", 1)]
    assert figures["totals"] == {
        "calls": 4,
        "input_tokens": 3_003,
        "cached_input_tokens": 6,
        "cache_write_5m_tokens": 0,
        "cache_write_1h_tokens": 0,
        "output_tokens": 300,
        "reasoning_tokens": 0,
        "list_cost": mine + theirs,
        "list_cost_usd": "0.008997",
        "multiplier_effect": 2_249_250,
        "multiplier_effect_usd": "0.00224925",
        "charged": 11_246_250,
        "charged_usd": "0.01124625",
    }


def test_a_statement_names_the_calls_that_a_dead_gateway_left(account: Account) -> None:
    """The provider may bill them: how many were certainly forwarded, and by which ids it knows them."""
    calls = [account.call(received_at=OCTOBER) for _ in range(4)]
    for call in calls:
        account.admit(call, fixed(usd(1)), "gateway_dead")
    notes = {calls[0].request_id: Progress("resp_1", 4_000), calls[1].request_id: Progress(None, 0)}
    with account.world.workspace.write() as tx:
        leases.note_progress(tx, notes)
        forgotten = [hold for hold in leases.held_by(tx, "gateway_dead") if hold.request_id == calls[3].request_id]
    leases.abandon(account.world.workspace.store, forgotten, leases.FORGOTTEN)  # it was never forwarded
    leases.sweep(account.world.workspace.store)
    figures = closed(account.world)
    assert figures["written_off"] == {
        "calls": 3,
        "upstreams": [
            {
                "upstream": "test-openai",
                "calls": 3,
                "held": usd(3),
                "held_usd": "3",
                "forwarded": 2,
                "seen_bytes": 4_000,
                "response_ids": ["resp_1"],
            }
        ],
    }
    words = month_close.say_written_off(figures)
    assert "3 calls written off" in words
    assert "test-openai: 3 calls, of which 2 had certainly been forwarded (its ids: resp_1)" in words
    del figures["written_off"]  # a statement of an earlier version
    assert month_close.say_written_off(figures) == ""
    assert (figures["totals"]["calls"], figures["totals"]["charged"]) == (4, 0)


@pytest.mark.only_store("sqlite")
def test_the_parts_make_the_whole(world: World) -> None:
    """Keys, models and their pairs each sum to the totals, in every column."""
    books = Books(world)
    made = [world.key(f"key {number}").key for number in range(4)]
    for number in range(12):
        books.settle(made[number % 4], 7 + number * 13, at=OCTOBER, model=f"model {number % 3}", output_tokens=number)
    figures = closed(world)
    for part in ("keys", "models", "keys_and_models"):
        for name, total in figures["totals"].items():
            if isinstance(total, int):
                assert sum(group[name] for group in figures[part]) == total, (part, name)


def test_refused_calls_and_other_months_do_not_count(world: World) -> None:
    """A month is that of admission, from its first instant to its last, UTC."""
    books, key = Books(world), world.key().key
    first = datetime(2026, 10, 1, tzinfo=UTC)
    for at in (first, LAST_SECOND):
        books.settle(key, 5, at=at)
    for at in (first - timedelta(microseconds=1), LAST_SECOND + timedelta(microseconds=1)):
        books.settle(key, 900, at=at)
    books.refuse(key, OCTOBER)
    totals = closed(world, first=True)["totals"]
    assert (totals["calls"], totals["charged"]) == (2, 10)


def test_the_wallet_is_a_bridge_from_month_to_month(world: World) -> None:
    """Opening + credits + adjustments − charged = closing, the next one's opening, and what the wallet has."""
    books, key = Books(world), world.key().key
    pay(world, usd(10), "INV-1", AUGUST)
    books.settle(key, usd(1), at=AUGUST)
    pay(world, usd(20), "INV-2", SEPTEMBER)
    pay(world, -usd(3), "corr-1", SEPTEMBER, "the payment was short")
    books.settle(key, usd(4), at=SEPTEMBER)
    books.settle(key, usd(2), at=OCTOBER)
    september, october = closed(world, "2026-09", first=True), closed(world)
    assert bridge(september) == (usd(9), usd(20), -usd(3), usd(4), usd(22))
    assert bridge(october) == (usd(22), 0, 0, usd(2), usd(20))
    # The world's first payment of 100 USD was booked after October.
    assert {name: october["since"][name] for name in ("entries", "charged", "balance")} == {
        "entries": usd(100),
        "charged": 0,
        "balance": usd(120),
    }
    (credit,), (adjustment,) = september["credits"], september["adjustments"]
    assert (credit["reference"], credit["amount_usd"], credit["at"]) == ("INV-2", "20", SEPTEMBER.isoformat())
    assert (adjustment["reason"], adjustment["amount"]) == ("the payment was short", -usd(3))
    assert october["previous_sha256"] == digest(canonical(september))


@pytest.mark.only_store("sqlite")
def test_a_wallet_below_zero_closes_below_zero(world: World) -> None:
    """A debt is a balance like any other."""
    pay(world, -usd(7), "bounced", OCTOBER, "the payment bounced")
    assert bridge(closed(world)) == (0, 0, -usd(7), 0, -usd(7))


@pytest.mark.only_store("sqlite")
def test_a_month_without_calls_closes_too(world: World) -> None:
    """Months are closed one after the other, the idle ones as well."""
    assert closed(world)["totals"]["calls"] == 0


@pytest.mark.only_store("sqlite")
def test_figures_are_whole_numbers_and_text(world: World) -> None:
    """No float is anywhere in the canonical form, and each amount is there as decimal USD too."""
    books = Books(world)
    books.settle(world.key("naïve ☃").key, 1, at=OCTOBER)
    pay(world, usd(1), "INV", OCTOBER)
    statement = close(world)

    def look(value: Any) -> None:
        assert not isinstance(value, float)
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
            look(item)

    figures = figures_of(statement)
    look(figures)
    assert statement.figures.isascii()
    assert canonical(figures) == statement.figures
    assert figures["keys"][0]["charged_usd"] == "0.000000001"


def test_a_deleted_key_is_named(world: World) -> None:
    """Who spent it stands there, though the key is gone."""
    books, key = Books(world), world.key("gone").key
    books.settle(key, 5, at=OCTOBER)
    with world.workspace.write() as tx:
        keys.delete(tx, key.id, confirm="gone")
    assert closed(world)["keys"][0]["key"] == "gone (deleted)"


def test_rows_in_segments_and_outbox_count_once(world: World) -> None:
    """A statement does not depend on how far the drain is."""
    books, key = Books(world), world.key().key
    books.settle(key, 5, at=OCTOBER)
    world.workspace.ledger.sync()
    books.settle(key, 6, at=OCTOBER)
    assert closed(world)["totals"]["charged"] == 11


# -- when it may be closed --------------------------------------------------------------------------------------------


def test_a_month_that_has_not_ended_stays_open(world: World) -> None:
    """By the store's clock; the message says when it ends."""
    month = f"{datetime.now(UTC):%Y-%m}"
    with pytest.raises(Conflict, match=rf"{month} ends at .* 00:00 UTC; by the key store's clock"):
        close(world, month)


@pytest.mark.only_store("sqlite")
def test_a_month_is_written_in_one_way(world: World) -> None:
    """What is not a month is told so, whatever is asked of it."""
    for month in ("2026-1", "26-10", "2026-13", "October", "2026-10-01", ""):
        for act in (close, verified):
            with pytest.raises(InvalidInput, match="is not a month"):
                act(world, month)


def test_open_holds_keep_a_month_open_and_are_named(world: World) -> None:
    """Which call, how long, whose gateway, and what will end it; holds of later months do not matter."""
    books, key = Books(world), world.key().key
    books.gateway("gateway_alive")
    books.gateway("gateway_dead", timedelta(hours=-1))
    alive = books.hold(key, usd(2), at=LAST_SECOND, instance="gateway_alive")
    dead = books.hold(key, usd(3), at=SEPTEMBER, instance="gateway_dead")
    books.hold(key, usd(1))
    with pytest.raises(Conflict) as caught:
        close(world)
    message = str(caught.value)
    assert "2 of the calls until the end of 2026-10 may still be charged" in message
    assert f"{alive} by key app to gpt-test holds $2.00 for " in message
    assert "gateway gateway_alive is alive: wait until it has settled the call" in message
    assert f"{dead} by key app to gpt-test holds $3.00 for " in message
    assert "gateway gateway_dead has ended, and no gateway runs that could release it: start one" in message
    assert message.count("\n") == 2


def test_months_are_closed_one_after_the_other(world: World) -> None:
    """From the first that was closed on, none is left out and none is closed twice."""
    close(world, "2026-08")
    with pytest.raises(Conflict, match="close 2026-09 first"):
        close(world, "2026-10")
    with pytest.raises(Conflict, match=r"2026-08 was closed at .* by admin@keydesk\.local.*adjustment"):
        close(world, "2026-08")
    with pytest.raises(Conflict, match="first statement of this organisation is 2026-08"):
        close(world, "2026-07")
    close(world, "2026-09")


def test_a_first_statement_leaves_nothing_out_by_accident(world: World) -> None:
    """Months with calls or payments before it could never be closed: they are named, unless that is what is wanted."""
    pay(world, usd(20), "INV-1", datetime(2026, 7, 2, tzinfo=UTC))
    books, key = Books(world), world.key().key
    for at, cost in ((AUGUST, usd(1.5)), (SEPTEMBER, usd(2))):
        books.settle(key, cost, at=at)
    with pytest.raises(Conflict) as caught:
        close(world)
    assert str(caught.value) == (
        "2026-10 would be the first statement. 2026-07 ($20.00 booked in the wallet), 2026-08 ($1.50 charged) and "
        "2026-09 ($2.00 charged) could then never be closed: close 2026-07 first, or say --first (first=True) to leave "
        "them out."
    )
    with world.workspace.read() as tx:
        assert month_close.list_all(tx) == []
    for month in ("2026-07", "2026-08"):
        close(world, month)
    with pytest.raises(Conflict, match="close 2026-09 first"):  # once there is a first one, nothing is left out
        close(world, first=True)


def test_many_months_that_would_be_left_out_are_counted(world: World) -> None:
    """The first four are named."""
    books, key = Books(world), world.key().key
    for month in range(1, 10):
        books.settle(key, usd(month), at=datetime(2026, month, 3, tzinfo=UTC))
    with pytest.raises(Conflict, match=r"2026-04 \(\$4\.00 charged\) and 5 later ones could then never be closed"):
        close(world)
    assert closed(world, first=True)["before"]["charged"] == usd(45)


def test_what_is_due_is_the_oldest_month_that_is_over(world: World) -> None:
    """Of each organisation that the actor sees, the oldest first; one that has nothing to close is not there."""

    def due(**options: str) -> list[tuple[str, str]]:
        with world.workspace.read() as tx:
            return [(waiting.month, waiting.org) for waiting in month_close.due(tx, **options)]

    assert due() == []  # paid this month, which is not over
    with world.workspace.write() as tx:
        organisations.add(tx, "Idle").created_at = BEGINNING
        rival = organisations.add(tx, "Rival").id
    Books(world).settle(world.key().key, 5, at=OCTOBER)
    with world.workspace.store.write(ADMIN, SEPTEMBER) as tx:
        wallet.credit(tx, rival, 5, "INV")
    assert due() == [("2026-09", "Rival"), ("2026-10", "Acme")]
    assert due(org="Acme") == [("2026-10", "Acme")]
    month_close.close(world.workspace, "Rival", "2026-09")
    assert due() == [("2026-10", "Acme"), ("2026-10", "Rival")]
    own = world.workspace.acting_as(Actor("x@example.com", Role.ANALYST, world.org_id))
    with own.read() as tx:
        assert month_close.due(tx) == [("2026-10", "Acme")]
    close(world)
    assert ("2026-10", "Acme") not in due()


@pytest.mark.parametrize("sign", ["made", "paid", "called"])
def test_the_first_month_is_not_before_the_organisation_began(world: World, sign: str) -> None:
    """Made, paid or called: whichever came first. A month mistyped would be the one that all others have to follow."""
    if sign == "paid":
        pay(world, usd(1), "INV", SEPTEMBER)
    if sign == "called":
        Books(world).settle(world.key().key, 1, at=SEPTEMBER)
    with world.workspace.write() as tx:
        organisations.find(tx, "Acme").created_at = SEPTEMBER if sign == "made" else OCTOBER
    for act in (month_close.close, month_close.draft):
        with pytest.raises(
            Conflict, match="The organisation began later: the first month that can be closed is 2026-09"
        ):
            act(world.workspace, "Acme", "2016-09")
    assert closed(world, "2026-09")["month"] == "2026-09"


def test_a_draft_stands_beside_what_keeps_it_from_being_closed(world: World) -> None:
    """A month that would leave out earlier ones, has calls under way or is not over has figures, and a reason."""
    books, key = Books(world), world.key().key
    this = f"{datetime.now(UTC):%Y-%m}"

    def standing(month: str) -> tuple[str, bool, str]:
        found = month_close.standing(world.workspace, "Acme", month)
        return found.state, found.figures is not None, found.obstacle

    books.hold(key, usd(1), at=OCTOBER)
    assert standing("2026-10")[:2] == ("draft", True)
    assert "1 of the calls until the end of 2026-10 may still be charged" in standing("2026-10")[2]
    assert f"{this} ends at" in standing(this)[2]
    books.settle(key, 5, at=SEPTEMBER)
    assert standing("2026-10")[:2] == ("draft", True)
    assert "close 2026-09 first" in standing("2026-10")[2]


def test_a_month_stands_as_closed_as_a_draft_or_behind_another(world: World) -> None:
    """Whoever looks at many organisations is told which month comes first; only books that disagree are an error."""

    def standing(month: str) -> tuple[str, Any]:
        found = month_close.standing(world.workspace, "Acme", month)
        assert (found.org_id, found.org) == (world.org_id, "Acme")
        return found.state, found.figures

    assert standing("2024-11") == ("The organisation began later: the first month that can be closed is 2024-12.", None)
    kept = closed(world, "2026-08")
    assert standing("2026-08") == ("closed", kept)
    assert standing("2026-09") == ("draft", month_close.draft(world.workspace, "Acme", "2026-09"))
    assert standing("2026-10") == ("Months are closed one after the other: close 2026-09 first.", None)
    for month, verdict in (
        ("2026-08", f" by admin@keydesk.local. SHA-256 {digest(canonical(kept))}"),
        ("2026-09", "2026-09 can be closed: keydesk month close 2026-09 --org Acme"),
        ("2026-10", "2026-10 cannot be closed. Months are closed one after the other: close 2026-09 first."),
    ):
        found = month_close.standing(world.workspace, "Acme", month)
        assert found.verdict.endswith(verdict)
        assert found.closable == (month == "2026-09")
    books = Books(world)
    books.settle(world.key().key, 5, at=SEPTEMBER)
    books.execute("DELETE FROM outbox")
    with pytest.raises(Conflict, match="running totals"):
        standing("2026-09")
    books.execute("UPDATE statement SET figures = '{}'")
    state, figures = standing("2026-08")
    assert ("The statement of 2026-08 was changed" in state, figures) == (True, None)


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_only_the_platform_closes_and_the_organisation_reads(world: World, role: Role) -> None:
    """Their own statements, figures and drafts; those of others are not found."""
    own = World(world.workspace.acting_as(Actor("x@example.com", role, world.org_id)), world.org_id, world.plan_id)
    with pytest.raises(Forbidden):
        close(own)
    close(world)
    assert verified(own) == []
    assert month_close.draft(own.workspace, "Acme", "2026-11")["org"]["name"] == "Acme"
    with world.workspace.write() as tx:
        rival = organisations.add(tx, "Rival").id
    strange = world.workspace.acting_as(Actor("x@example.com", role, rival))
    with strange.read() as tx:
        assert month_close.list_all(tx) == []
        with pytest.raises(NotFound):
            month_close.find(tx, world.org_id, "2026-10")
    with pytest.raises(NotFound):
        month_close.draft(strange, "Acme", "2026-11")


def test_statements_are_listed_newest_first(world: World) -> None:
    """Of one organisation or of all."""
    with world.workspace.write() as tx:
        organisations.add(tx, "Rival").created_at = BEGINNING
    close(world, "2026-09")
    close(world)
    month_close.close(world.workspace, "Rival", "2026-10")
    with world.workspace.read() as tx:
        assert [statement.month for statement in month_close.list_all(tx, org="Acme")] == ["2026-10", "2026-09"]
        assert len(month_close.list_all(tx)) == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("UPDATE key_month SET spent = spent + 1", r"1 calls in the ledger and 1 in the running totals, costing"),
        ("UPDATE key_month SET calls = calls + 1", r"1 calls in the ledger and 2 in the running totals"),
        ("DELETE FROM outbox", r"0 calls in the ledger and 1 in the running totals"),
        ("UPDATE organisation SET settled = settled - 1", "does not follow from its entries and calls"),
        ("UPDATE organisation SET credited = credited + 1", "does not follow from its entries and calls"),
        ("UPDATE wallet_entry SET amount = amount + 1", "does not follow from its entries and calls"),
    ],
)
@pytest.mark.only_store("sqlite")
def test_books_that_disagree_by_a_nano_usd_are_not_closed(world: World, damage: str, message: str) -> None:
    """Ledger, running totals and wallet agree exactly, or nothing is closed and reconcile is named."""
    books = Books(world)
    books.settle(world.key().key, usd(1), at=OCTOBER)
    books.execute(damage)
    with pytest.raises(Conflict, match=f"{message}(?s:.)*keydesk reconcile"):
        close(world)
    with world.workspace.read() as tx:
        assert month_close.list_all(tx) == []
        assert audit.rows(tx, limit=1)[0].action == "key.create"


@pytest.mark.only_store("sqlite")
def test_a_draft_says_what_the_statement_would(world: World) -> None:
    """But for who closed it and when; the running month has one too, and nothing is kept."""
    books, key = Books(world), world.key().key
    books.settle(key, usd(1), at=OCTOBER)
    drafted = month_close.draft(world.workspace, "Acme", "2026-10")
    figures = closed(world)
    assert (drafted.pop("closed_at"), drafted.pop("closed_by")) == (None, None)
    assert figures.pop("closed_at") is not None
    assert figures.pop("closed_by") == "admin@keydesk.local"
    assert drafted == figures
    books.settle(key, usd(2), at=OCTOBER + timedelta(days=31))
    assert month_close.draft(world.workspace, "Acme", "2026-11")["totals"]["charged"] == usd(2)


# -- that it cannot change --------------------------------------------------------------------------------------------


def test_the_hash_stands_in_the_audit_log(world: World) -> None:
    """In the organisation's own chain, with what the month came to."""
    Books(world).settle(world.key().key, usd(1.25), at=OCTOBER)
    statement = close(world)
    with world.workspace.read() as tx:
        (row,) = audit.rows(tx, subject=statement.id)
        assert audit.verify(tx) == []
    assert (row.chain, row.seq, row.action) == (world.org_id, statement.audit_seq, "month.close")
    after = json.loads(row.after or "")
    assert after == {
        "month": "2026-10",
        "calls": 1,
        "charged_usd": "1.25",
        "closing_usd": "-1.25",
        "sha256": statement.sha256,
    }
    assert statement.sha256 == digest(statement.figures)
    assert verified(world) == []


def forged(world: World) -> tuple[str, str]:
    """Return figures in which a digit was changed, and their right hash."""
    with world.workspace.read() as tx:
        figures = month_close.find(tx, "Acme", "2026-10").figures
    changed = figures.replace('"charged":5', '"charged":6')
    assert changed != figures
    return changed, digest(changed)


def test_a_changed_statement_is_found(world: World) -> None:
    """Figures alone, with a fitting hash, or with the audit log's row too: each leaves a trace."""
    books = Books(world)
    books.settle(world.key().key, 5, at=OCTOBER)
    statement = close(world)
    figures, sha256 = forged(world)
    books.execute("UPDATE statement SET figures = :figures", figures=figures)
    assert [problem.partition(":")[0] for problem in verified(world)] == [
        "Its figures were changed",
        f"Row {statement.audit_seq} of the organisation's audit log says that its SHA-256 is another one.",
    ]
    books.execute("UPDATE statement SET sha256 = :sha256", sha256=sha256)
    assert len(verified(world)) == 1
    books.execute(
        "UPDATE audit SET after = replace(after, :old, :new) WHERE action = 'month.close'",
        old=statement.sha256,
        new=sha256,
    )
    assert verified(world) == [f"Row {statement.audit_seq} of the organisation's audit log: was changed."]


def test_a_second_row_in_the_audit_log_does_not_hide_the_first(world: World) -> None:
    """Who can write may append; what was said first stands."""
    books = Books(world)
    books.settle(world.key().key, 5, at=OCTOBER)
    statement = close(world)
    figures, sha256 = forged(world)
    with world.workspace.write() as tx:
        row = audit.record(
            tx, "month.close", statement.id, org_id=world.org_id, after={"month": "2026-10", "sha256": sha256}
        )
    books.execute(
        "UPDATE statement SET figures = :figures, sha256 = :sha256, audit_seq = :seq",
        figures=figures,
        sha256=sha256,
        seq=row.seq,
    )
    assert verified(world) == ["The audit log does not know it."]


def test_a_statement_that_was_removed_is_missed(world: World) -> None:
    """Its month cannot be closed anew, nor the next one: the audit log knows of it."""
    books = Books(world)
    close(world, "2026-08")
    close(world, "2026-09")
    for removed in ("2026-08", "2026-09"):
        books.execute("DELETE FROM statement WHERE month = :removed", removed=removed)
        for month in ("2026-09", "2026-10"):
            with pytest.raises(Conflict, match=f"{removed} was closed: there is no such statement.*backup"):
                close(world, month)


DAMAGES = (
    "UPDATE statement SET figures = replace(figures, 'Acme', 'Bcme') WHERE month = :month",
    "UPDATE statement SET figures = 'x' WHERE month = :month",
    "UPDATE statement SET sha256 = 'x' WHERE month = :month",
    "UPDATE statement SET audit_seq = audit_seq + 1 WHERE month = :month",
    "UPDATE audit SET after = replace(after, 'sha256', 'sha') WHERE after LIKE '%' || :month || '%'",
)


@pytest.mark.only_store("sqlite")
def test_nothing_is_built_on_a_statement_that_was_changed(world: World) -> None:
    """The next one begins with the last one's balance and corrects all before: the changed one is named, of any age."""
    months = ("2026-08", "2026-09")
    kept = {month: close(world, month) for month in months}
    books = Books(world)
    for month, statement in kept.items():
        with world.workspace.read() as tx:
            (row,) = audit.rows(tx, subject=statement.id)
        for damage in DAMAGES:
            books.execute(damage, month=month)
            with pytest.raises(
                Conflict, match=f"^The statement of {month} was changed: `keydesk .*` says more.*backup"
            ):
                close(world)
            assert all(verified(world, each) for each in months), damage
            books.execute(
                "UPDATE statement SET figures = :figures, sha256 = :sha256, audit_seq = :seq WHERE month = :month",
                figures=statement.figures,
                sha256=statement.sha256,
                seq=statement.audit_seq,
                month=month,
            )
            books.execute("UPDATE audit SET after = :after WHERE subject = :id", after=row.after, id=statement.id)
            assert not any(verified(world, each) for each in months), damage
    close(world)


@pytest.mark.only_store("sqlite")
def test_what_was_made_unreadable_is_found_like_any_change(world: World) -> None:
    """Figures or the audit log's row: checking and closing say so, and do not break."""
    books = Books(world)
    close(world, "2026-08")
    statement = close(world, "2026-09")
    for text in ("x", "[1]", "{}", '{"month": 5}', "[" * 100_000, "1" * 5_000):
        books.execute("UPDATE statement SET figures = :text WHERE month = '2026-09'", text=text)
        with world.workspace.read() as tx, pytest.raises(Conflict, match="2026-09 was changed: it cannot be read"):
            figures_of(month_close.find(tx, "Acme", "2026-09"))
        assert "Its figures were changed" in verified(world, "2026-09")[0]
        assert verified(world, "2026-08")
        with pytest.raises(Conflict, match="of 2026-09"):
            close(world)
    assert "The statement of 2026-09 was changed" in verified(world, "2026-08")[0]
    for text in ("x", "[1]", '{"month": 5}', '{"month": [1], "sha256": [1]}', "[" * 100_000):
        books.execute("UPDATE audit SET after = :text WHERE subject = :id", text=text, id=statement.id)
        assert "The audit log does not know it." in verified(world, "2026-09")
        with pytest.raises(Conflict, match="The audit log does not know the statement of 2026-09"):
            close(world)
    books.execute("DELETE FROM statement WHERE month = '2026-09'")
    with pytest.raises(
        Conflict, match=f"Row {statement.audit_seq} of the audit log, which closed a month, was changed"
    ):
        close(world)


def test_only_the_organisations_own_part_of_the_audit_log_is_walked(world: World) -> None:
    """What somebody did to another chain is no flaw of this statement; `keydesk audit` finds it."""
    close(world)
    books = Books(world)
    assert books.execute("UPDATE audit SET after = 'x' WHERE chain <> :own", own=world.org_id)
    assert verified(world) == []
    books.execute("UPDATE audit_head SET seq = seq + 1 WHERE chain = :own", own=world.org_id)
    assert len(verified(world)) == 1


# -- what comes later -------------------------------------------------------------------------------------------------


@pytest.mark.only_store("sqlite")
def test_a_later_adjustment_stands_in_its_own_month_and_names_the_one_it_corrects(world: World) -> None:
    """By its reason or its reference; the closed statement stays as it was."""
    pay(world, usd(50), "INV-1", SEPTEMBER)
    before = close(world, "2026-09").figures
    pay(world, -usd(2), "corr-1", OCTOBER, "2026-09 was charged too little")
    pay(world, usd(1), "ticket 7 of 2026-09", OCTOBER + timedelta(days=1), "goodwill")
    pay(world, usd(3), "corr-2", OCTOBER + timedelta(days=2), "goodwill, see order 12026-091 of 2026-10 and 2026-99")
    figures = closed(world)
    assert [(line["amount"], line["corrects"]) for line in figures["adjustments"]] == [
        (-usd(2), "2026-09"),
        (usd(1), "2026-09"),
        (usd(3), None),
    ]
    assert bridge(figures) == (usd(50), 0, usd(2), 0, usd(52))
    with world.workspace.read() as tx:
        assert month_close.find(tx, "Acme", "2026-09").figures == before
    assert verified(world, "2026-09") == []


@pytest.mark.only_store("sqlite")
def test_what_is_booked_between_a_months_end_and_its_close_belongs_to_the_next(world: World) -> None:
    """The close may be days late; it changes no month."""
    pay(world, usd(5), "INV-1", OCTOBER)
    assert bridge(closed(world, "2026-09")) == (0, 0, 0, 0, 0)
    assert bridge(closed(world)) == (0, usd(5), 0, 0, usd(5))


@pytest.mark.parametrize("at", [AUGUST, SEPTEMBER])
@pytest.mark.only_store("sqlite")
def test_an_entry_that_bears_a_closed_months_date_is_in_the_next_statement(world: World, at: datetime) -> None:
    """Whenever it says it was booked: it is counted once, where it can still be."""
    close(world, "2026-09")
    pay(world, usd(5), "late", at)
    figures = closed(world)
    assert bridge(figures) == (0, usd(5), 0, 0, usd(5))
    assert [line["reference"] for line in figures["credits"]] == ["late"]


def test_a_call_that_the_books_have_more_is_a_correction_of_the_next_statement(world: World) -> None:
    """Its key, its month and its charge; once. The closed statement is not edited, and says that the books moved."""
    books, key = Books(world), world.key().key
    books.settle(key, 5, at=SEPTEMBER)
    before = close(world, "2026-09").figures
    books.settle(key, 7, at=SEPTEMBER)
    (problem,) = verified(world, "2026-09")
    assert f"The books have moved since: key {key.id} has +1 calls and 0.000000007 USD" in problem
    figures = closed(world)
    (line,) = figures["adjustments"]
    assert (line["kind"], line["corrects"], line["key_id"], line["calls"], line["amount"]) == (
        "correction",
        "2026-09",
        key.id,
        1,
        -7,
    )
    assert bridge(figures) == (-5, 0, -7, 0, -12)
    with world.workspace.read() as tx:
        assert month_close.find(tx, "Acme", "2026-09").figures == before
    assert verified(world, "2026-09") == []
    assert verified(world) == []


@pytest.mark.only_store("sqlite")
def test_a_correction_is_stated_once_and_a_second_one_adds_to_it(world: World) -> None:
    """Statements and corrections together always say what the books say."""
    books, key = Books(world), world.key().key
    close(world, "2026-07")
    for month, cost in (("2026-08", 11), ("2026-09", 13)):
        books.settle(key, cost, at=datetime(2026, 7, 5, tzinfo=UTC))
        assert bridge(closed(world, month))[2] == -cost
    assert bridge(closed(world)) == (-24, 0, 0, 0, -24)


@pytest.mark.only_store("sqlite")
def test_what_lay_before_the_first_statement_may_be_corrected_too(world: World) -> None:
    """As one line of no month."""
    books, key = Books(world), world.key().key
    books.settle(key, 5, at=AUGUST)
    assert closed(world, "2026-09", first=True)["before"] == {"calls": 1, "charged": 5, "charged_usd": "0.000000005"}
    books.settle(key, 6, at=AUGUST)
    (line,) = closed(world)["adjustments"]
    assert (line["corrects"], line["key_id"], line["calls"], line["amount"]) == (None, None, 1, -6)
    assert verified(world) == []


# -- that nothing slips past it ---------------------------------------------------------------------------------------


def test_a_call_that_was_judged_before_the_close_is_judged_anew(account: Account) -> None:
    """A gateway that stood still may send an old admission: it is stale, and its second judgement is of a later month.

    The gateway reads the catalog anew for it, and its clock is never before that reading (`gateway.key_cache`).
    """
    late = account.asked(account.call(received_at=LAST_SECOND), fixed(usd(1)))
    close(account.world)
    with pytest.raises(Stale):
        account.do(late)
    assert (account.holds(), account.org()["held"]) == ([], 0)
    account.admit(account.call(received_at=LAST_SECOND + timedelta(microseconds=1)), fixed(usd(1)))


def rounds(act: Callable[[str, datetime], None], number: int) -> None:
    """Do something with each of some months in a row, given its last instant."""
    for month in range(1, number + 1):
        act(f"2025-{month:02}", datetime(2025, month + 1, 1, tzinfo=UTC) - timedelta(microseconds=1))


@pytest.mark.world
@pytest.mark.both_stores
def test_an_admission_of_the_last_second_and_a_close_do_not_both_win(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, again and again: the close sees the hold and refuses, or the admission comes too late for the month.

    Both begin when the close has only its transaction left to do, with one or the other a little ahead.
    """
    asked_ledger = threading.Event()

    def asking(*arguments: Any) -> list[dict[str, Any]]:
        found = calls_of(*arguments)
        asked_ledger.set()
        time.sleep(max(-lead[0], 0))
        return found

    monkeypatch.setattr(month_close, "calls_of", asking)
    lead = [0.0]  # of the close, in seconds

    def act(month: str, last: datetime) -> None:
        call = account.call(received_at=last)
        job = account.asked(call, fixed(usd(1)))
        lead[0] = (last.month - 3.5) / 300
        asked_ledger.clear()

        def admit() -> Admitted:
            asked_ledger.wait(20)
            time.sleep(max(lead[0], 0))
            return account.do(job)

        closing, admitted = at_once(partial(close, account.world, month), admit)
        if isinstance(closing, Statement):
            assert isinstance(admitted, Stale)
            assert figures_of(closing)["totals"]["calls"] == 0
        else:
            assert isinstance(closing, Conflict)
            assert isinstance(admitted, Admitted)
            account.settle(call, ended(Usage(output_tokens=1)))
            assert closed(account.world, month)["totals"]["calls"] == 1

    rounds(act, 6)


@pytest.mark.world
@pytest.mark.both_stores
def test_a_call_of_the_last_second_that_settles_during_the_close_is_in_it(account: Account) -> None:
    """At once, again and again: a statement that is made has the call; else there is none and the hold is named."""

    def act(month: str, last: datetime) -> None:
        call = account.call(received_at=last)
        account.admit(call, fixed(usd(1)))
        settle = partial(account.settle, call, ended(Usage(output_tokens=1_000)))
        closing, receipt = at_once(partial(close, account.world, month), settle)
        assert receipt is not None
        if not isinstance(closing, Statement):
            assert isinstance(closing, Conflict)
            assert call.request_id in str(closing)
            closing = close(account.world, month)
        assert figures_of(closing)["totals"]["charged"] == 12_500_000  # 1,000 x 10 USD a million x 1.25

    rounds(act, 5)
    assert verified(account.world, "2025-05") == []
    findings = [finding for finding in reconcile.run(account.world.workspace) if finding.invariant == "I4"]
    assert [finding.violations for finding in findings] == [[]] * len(findings)


def test_a_settlement_after_the_ledger_was_asked_makes_it_ask_again(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement is of the state that is locked, not of the one that was read before."""
    asked = calls_of
    tries: list[int] = []

    def slow(*arguments: Any) -> list[dict[str, Any]]:
        found = asked(*arguments)
        tries.append(len(found))
        if len(tries) == 1:
            call = account.call(received_at=LAST_SECOND)
            account.admit(call, fixed(usd(1)))
            account.settle(call, ended(Usage(output_tokens=1)))
        return found

    monkeypatch.setattr(month_close, "calls_of", slow)
    assert closed(account.world)["totals"]["calls"] == 1
    assert tries == [0, 1]


def test_a_hold_that_comes_after_the_ledger_was_asked_keeps_the_month_open(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is looked at behind the lock."""
    asked = calls_of

    def slow(*arguments: Any) -> list[dict[str, Any]]:
        found = asked(*arguments)
        account.admit(account.call(received_at=LAST_SECOND), fixed(usd(1)))
        return found

    monkeypatch.setattr(month_close, "calls_of", slow)
    with pytest.raises(Conflict, match="1 of the calls until the end of 2026-10 may still be charged"):
        close(account.world)


@pytest.mark.both_stores
def test_a_month_that_many_close_at_once_is_closed_once(world: World) -> None:
    """One gets the statement, the others are told who has it."""
    Books(world).settle(world.key().key, 5, at=OCTOBER)
    results = at_once(*[partial(close, world)] * 4)
    assert sum(isinstance(result, Statement) for result in results) == 1
    assert all(isinstance(result, Statement) or "was closed at" in str(result) for result in results)
    with world.workspace.read() as tx:
        assert len(month_close.list_all(tx)) == 1
        assert sum(row.action == "month.close" for row in audit.rows(tx)) == 1


CLOSE = """
import sys, toolkit
from toolkit.statements import month_close
from toolkit.core.errors import Conflict
workspace = toolkit.open(write=True)
print("ready", flush=True)
sys.stdin.readline()
try:
    print(month_close.close(workspace, "Acme", "2026-10").sha256)
except Conflict as error:
    print(error)
"""


@pytest.mark.world
@pytest.mark.only_store("sqlite")
def test_a_month_that_two_processes_close_is_closed_once(world: World) -> None:
    """The store's lock decides, not the process's."""
    Books(world).settle(world.key().key, 5, at=OCTOBER)
    with subprocess.Popen(
        [sys.executable, "-c", CLOSE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=variables_of(world.workspace.settings),
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        theirs, mine = at_once(partial(other.communicate, "go\n", timeout=60), partial(close, world))
    assert isinstance(theirs, tuple)
    said, errors = theirs
    assert errors == ""
    with world.workspace.read() as tx:
        (statement,) = month_close.list_all(tx)
    words = sorted([said.strip(), mine.sha256 if isinstance(mine, Statement) else str(mine)])
    assert statement.sha256 in words
    assert sum("was closed at" in each for each in words) == 1
    assert verified(world) == []
