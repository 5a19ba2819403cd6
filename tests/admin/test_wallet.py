"""The wallet: money in, corrections, and what can never be booked."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text

from tests.conftest import World, at_once, usd
from toolkit.admin import organisations, wallet
from toolkit.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from toolkit.core.money import LARGEST_AMOUNT
from toolkit.core.policy import Role
from toolkit.store import audit
from toolkit.store.actor import Actor

pytestmark = pytest.mark.any_store


def balance(world: World) -> int:
    """Return the organisation's balance."""
    with world.workspace.read() as tx:
        return organisations.find(tx, world.org_id).balance


def test_a_credit_raises_the_balance_and_is_an_entry(world: World) -> None:
    """By id or name of the organisation; the newest entry comes first."""
    world.credit(usd(5), "INV-1")
    with world.workspace.write() as tx:
        wallet.credit(tx, "Acme", 1, "INV-2", "a nano-USD")
    assert balance(world) == usd(105) + 1
    with world.workspace.read() as tx:
        found = wallet.entries(tx, "Acme")
    assert [(entry.kind, entry.amount, entry.reference) for entry in found] == [
        ("credit", 1, "INV-2"),
        ("credit", usd(5), "INV-1"),
        ("credit", usd(100), "first payment"),
    ]


def test_an_adjustment_goes_up_or_down_even_below_zero(world: World) -> None:
    """A bounced payment may leave a debt: what is booked is what happened."""
    with world.workspace.write() as tx:
        wallet.adjust(tx, "Acme", usd(2), "corr-1", "we charged too much")
        wallet.adjust(tx, "Acme", -usd(150), "corr-2", "the payment bounced")
    assert balance(world) == -usd(48)


@pytest.mark.parametrize("org", ["Acme", "Rival"])
@pytest.mark.parametrize(
    "reference",
    ["INV 1", " INV 1", "INV 1\n", "inv 1", "INV   1", "\uff29\uff2e\uff36 \uff11"],
)
def test_a_reference_is_credited_once(world: World, org: str, reference: str) -> None:
    """The same payment, however spelled and to whomever, is never credited twice; nothing is booked."""
    world.credit(usd(5), "INV 1")
    with world.workspace.write() as tx:
        organisations.add(tx, "Rival")
    already = r"already used for a credit of \$5\.00"
    with world.workspace.write() as tx, pytest.raises(Conflict, match=rf"{already} to 'Acme'|{already}; nothing"):
        wallet.credit(tx, org, usd(5), reference)
    assert balance(world) == usd(105)
    with world.workspace.read() as tx:
        assert organisations.find(tx, "Rival").balance == 0


def test_a_reference_counts_for_its_kind(world: World) -> None:
    """A correction may name the payment that it corrects, in each organisation."""
    world.credit(usd(5), "INV-1")
    with world.workspace.write() as tx:
        organisations.add(tx, "Rival")
        for org in ("Acme", "Rival"):
            wallet.adjust(tx, org, -usd(5), "INV-1", "it bounced")
    assert balance(world) == usd(100)


def test_one_payment_for_two_organisations_is_credited_when_that_is_said(world: World) -> None:
    """The audit log says so, and names no other organisation; a third credit must be meant as well."""
    world.credit(usd(5), "INV-1")
    with world.workspace.write() as tx:
        rival = organisations.add(tx, "Rival").id
        wallet.credit(tx, "Rival", usd(3), "inv-1", same_reference=True)
        organisations.add(tx, "Third")
        with pytest.raises(Conflict, match="--same-reference"):
            wallet.credit(tx, "Third", usd(3), "INV-1")
        with pytest.raises(Conflict, match=r"nothing was booked\.$"):  # one organisation has one credit of a payment
            wallet.credit(tx, "Acme", usd(3), "inv-1")
    with world.workspace.acting_as(Actor("x@example.com", Role.ORG_ADMIN, rival)).read() as tx:
        (entry,) = wallet.entries(tx, "Rival")
        acts = audit.rows(tx)
    assert entry.same_reference
    assert acts[0].after == '{"amount_usd": "3", "balance_usd": "3", "reference": "inv-1", "same_reference": true}'
    assert "Acme" not in str([(act.before, act.after, act.reason) for act in acts])


def test_a_first_credit_is_no_repetition_though_it_is_called_one(world: World) -> None:
    """So the next one with this reference is refused."""
    with world.workspace.write() as tx:
        assert not wallet.credit(tx, "Acme", usd(5), "INV-1", same_reference=True).same_reference
        with pytest.raises(Conflict):
            wallet.credit(tx, "Acme", usd(5), "inv-1")


@pytest.mark.parametrize("amount", [0, -1, 1.5, True, "5", LARGEST_AMOUNT + 1, 10**30])
def test_a_credit_is_an_amount_above_zero(world: World, amount: Any) -> None:
    """Floats, text and what no store can keep are refused before anything is booked."""
    with world.workspace.write() as tx, pytest.raises(InvalidInput):
        wallet.credit(tx, "Acme", amount, "INV-1")
    assert balance(world) == usd(100)


def test_credits_never_outgrow_the_store(world: World) -> None:
    """The sum of all credits is bounded as each of them is."""
    with world.workspace.write() as tx, pytest.raises(InvalidInput, match="sum of all credits"):
        wallet.credit(tx, "Acme", LARGEST_AMOUNT, "INV-1")
    with world.workspace.write() as tx:
        wallet.credit(tx, "Acme", LARGEST_AMOUNT - usd(100), "INV-1")
    with world.workspace.read() as tx:
        stored = tx.session.execute(text("SELECT credited FROM organisation")).scalar_one()
    assert (type(stored), stored) == (int, LARGEST_AMOUNT)


@pytest.mark.parametrize(
    ("amount", "reference", "reason"),
    [
        (0, "r", "why"),
        (0.5, "r", "why"),
        (1, "", "why"),
        (1, "  ", "why"),
        (1, "x" * 81, "why"),
        (1, "a\x00b", "why"),
        (1, "r", ""),
        (1, "r", " \n"),
    ],
)
def test_an_adjustment_needs_amount_reference_and_reason(
    world: World, amount: Any, reference: str, reason: str
) -> None:
    """Nobody can correct money without saying what and why."""
    with world.workspace.write() as tx, pytest.raises(InvalidInput):
        wallet.adjust(tx, "Acme", amount, reference, reason)


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_only_the_platform_books(world: World, role: Role) -> None:
    """An organisation sees its own entries, and books nothing."""
    workspace = world.workspace.acting_as(Actor("x@example.com", role, world.org_id))
    with workspace.write() as tx:
        assert len(wallet.entries(tx, "Acme")) == 1
        with pytest.raises(Forbidden):
            wallet.credit(tx, "Acme", usd(1), "INV-1")
        with pytest.raises(Forbidden):
            wallet.adjust(tx, "Acme", usd(1), "INV-1", "why")


def test_another_organisations_wallet_is_not_found(world: World) -> None:
    """Neither by id nor by name."""
    with world.workspace.write() as tx:
        rival = organisations.add(tx, "Rival").id
    with world.workspace.acting_as(Actor("x@example.com", Role.ORG_ADMIN, rival)).read() as tx:
        for wanted in (world.org_id, "Acme"):
            with pytest.raises(NotFound):
                wallet.entries(tx, wanted)


def test_each_booking_is_audited_with_the_balance_before_and_after(world: World) -> None:
    """In the organisation's own chain."""
    world.credit(usd(5), "INV-1")
    with world.workspace.read() as tx:
        newest = audit.rows(tx, limit=1)[0]
    assert (newest.action, newest.chain) == ("wallet.credit", world.org_id)
    assert newest.before == '{"balance_usd": "100"}'
    assert newest.after == '{"amount_usd": "5", "balance_usd": "105", "reference": "INV-1"}'


@pytest.mark.both_stores
def test_payments_that_arrive_at_once_are_each_booked_once(world: World) -> None:
    """None is lost, a reference that is used twice is refused the second time, and the totals agree."""
    with world.workspace.write() as tx:
        rival = replace(world, org_id=organisations.add(tx, "Rival").id)
    acts = [
        partial(one.credit, usd(5), reference)
        for one in (world, rival)
        for reference in ("INV-1", "INV-2", "INV-3", "inv-1", "inv-2", "inv-3")
    ]
    results = at_once(*acts)
    assert results.count(None) == 3
    assert {type(result) for result in results if result is not None} == {Conflict}
    assert balance(world) + balance(rival) == usd(115)
    with world.workspace.read() as tx:
        for one in (world, rival):
            assert sum(entry.amount for entry in wallet.entries(tx, one.org_id)) == balance(one)
