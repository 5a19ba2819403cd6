"""The prepaid wallet of an organisation: credits and adjustments in, settlements out.

balance = credits + adjustments − settlements; available = balance − open holds. The entries are append-only; the
running totals stand in the organisation's row and are checked against the entries by `reconcile`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select

from toolkit.admin import organisations, rights
from toolkit.core import words
from toolkit.core.errors import Conflict, InvalidInput
from toolkit.core.ids import new_id
from toolkit.core.money import check_amount, show_usd, usd
from toolkit.core.payment_reference import reference_key
from toolkit.store import audit
from toolkit.store.locks import lock_name, lock_orgs
from toolkit.store.tables import Organisation, WalletEntry
from toolkit.store.transaction import Transaction


class Payment(NamedTuple):
    """A credit; `org` is None where it is not the actor's to know."""

    entry_id: str
    org: str | None
    amount: int
    reference: str
    created_at: datetime


def credit(
    tx: Transaction, org: str, amount: int, reference: str, reason: str = "", *, same_reference: bool = False
) -> WalletEntry:
    """Put money into a wallet.

    Args:
        tx: as a platform admin.
        org: id or name.
        amount: nano-USD, above zero.
        reference: the payment's own reference; the same one, however spelled (`reference`), is not credited twice, to
            this organisation or another.
        reason: free text.
        same_reference: credit it though the reference has been credited before: one payment for two organisations.

    Raises:
        InvalidInput: amount not above zero, or no reference.
        Conflict: the reference has been credited already.
    """
    if check_amount(amount, "credit") <= 0:
        raise InvalidInput("A credit must be above zero. Use an adjustment to take money out.")
    return _enter(tx, org, "credit", amount, reference, reason, same_reference=same_reference)


def adjust(tx: Transaction, org: str, amount: int, reference: str, reason: str) -> WalletEntry:
    """Correct a wallet, up or down, with a reason.

    Raises:
        InvalidInput: amount zero, no reference or no reason.
        Conflict: the reference has been used for an adjustment already.
    """
    if check_amount(amount, "adjustment") == 0:
        raise InvalidInput("An adjustment of zero changes nothing.")
    if not reason.strip():
        raise InvalidInput("An adjustment needs a reason.")
    return _enter(tx, org, "adjustment", amount, reference, reason)


def set_low_balance(tx: Transaction, org: str, amount: int | None) -> Organisation:
    """Say from which balance on a wallet is low, which is alerted.

    Args:
        tx: as a platform admin, or as an org admin of the organisation.
        org: id or name.
        amount: nano-USD, above zero; None: it never is.

    Raises:
        Forbidden: the actor may not.
        InvalidInput: amount not above zero.
    """
    owner = organisations.find(tx, org)
    rights.require_key_admin(tx, owner.id)
    if amount is not None and check_amount(amount, "low balance") <= 0:
        raise InvalidInput("A low balance must be above zero; `none` is for a wallet that never is low.")
    lock_orgs(tx, owner.id)
    before = {"low_balance_usd": _usd(owner.low_balance)}
    owner.low_balance = amount
    tx.session.flush()
    audit.record(tx, "wallet.low", owner.id, org_id=owner.id, before=before, after={"low_balance_usd": _usd(amount)})
    return owner


def _usd(amount: int | None) -> str | None:
    return None if amount is None else usd(amount)


def _enter(
    tx: Transaction,
    org_name: str,
    kind: str,
    amount: int,
    reference: str,
    reason: str,
    *,
    same_reference: bool = False,
) -> WalletEntry:
    rights.require_platform_admin(tx)
    if not reference.strip():
        raise InvalidInput(f"Every {kind} needs a reference, such as the payment's number.")
    reference = words.check_name(reference, "reference")
    org = organisations.find(tx, org_name)
    lock_orgs(tx, org.id)
    earlier = tx.session.scalar(
        select(WalletEntry).where(
            WalletEntry.org_id == org.id, WalletEntry.kind == kind, WalletEntry.reference == reference
        )
    )
    if earlier is not None:
        raise Conflict(
            f"Reference {reference!r} was already used for a {kind} of {show_usd(earlier.amount)}; nothing was booked."
        )
    key = None
    if kind == "credit":
        lock_name(tx, "payment references")
        key = reference_key(reference)
        elsewhere = tx.session.scalar(select(WalletEntry).where(WalletEntry.reference_key == key))
        if elsewhere is not None:
            if not same_reference:
                raise _credited_before(tx, org, reference, elsewhere)
            key = None
        same_reference = elsewhere is not None
    entry = WalletEntry(
        id=new_id("entry"),
        org_id=org.id,
        kind=kind,
        amount=amount,
        reference=reference,
        reason=words.check_reason(reason),
        created_at=tx.now,
        created_by=tx.actor.name,
        reference_key=key,
        same_reference=same_reference,
    )
    before = org.balance
    org.credited = check_amount(org.credited + amount, "sum of all credits")
    tx.session.add(entry)
    tx.session.flush()
    audit.record(
        tx,
        f"wallet.{kind}",
        entry.id,
        org_id=org.id,
        before={"balance_usd": usd(before)},
        after={"balance_usd": usd(org.balance), "amount_usd": usd(amount), "reference": reference}
        | ({"same_reference": True} if same_reference else {}),
        reason=reason,
    )
    return entry


def _credited_before(tx: Transaction, org: Organisation, reference: str, earlier: WalletEntry) -> Conflict:
    name = tx.session.get_one(Organisation, earlier.org_id).name
    spelled = "" if earlier.reference == reference else f", as {earlier.reference!r}"
    way_out = " Should one payment really be for both, say so: --same-reference, or same_reference=True in Python."
    return Conflict(
        f"Reference {reference!r} was already used for a credit of {show_usd(earlier.amount)} to {name!r} at "
        f"{earlier.created_at:%Y-%m-%d %H:%M} UTC{spelled}; nothing was booked."
        + ("" if earlier.org_id == org.id else way_out)
    )


def entries(tx: Transaction, org: str) -> list[WalletEntry]:
    """Return the wallet's entries, newest first."""
    org_id = organisations.find(tx, org).id
    query = select(WalletEntry).where(WalletEntry.org_id == org_id).order_by(WalletEntry.created_at.desc())
    return list(tx.session.scalars(query))


def corrected(tx: Transaction, org_id: str) -> int:
    """Return what corrections have added to an organisation's charges, nano-USD; below zero if they gave back more."""
    query = select(func.sum(WalletEntry.amount)).where(
        WalletEntry.org_id == org_id, WalletEntry.request_id.is_not(None)
    )
    return -int(tx.session.scalar(query) or 0)


def repeated_credits(tx: Transaction, orgs: Mapping[str, Organisation]) -> list[list[Payment]]:
    """Return payments that were credited more than once though nobody said that it should be, each with its credits.

    Args:
        tx: any transaction.
        orgs: those that the actor may see, by id; a payment is returned if one of them has a credit of it.
    """
    unmarked = select(WalletEntry).where(
        WalletEntry.kind == "credit", WalletEntry.reference_key.is_(None), WalletEntry.same_reference.is_(False)
    )
    again = list(tx.session.scalars(unmarked))
    keys = {reference_key(entry.reference) for entry in again}
    first = tx.session.scalars(select(WalletEntry).where(WalletEntry.reference_key.in_(keys))) if keys else ()
    payments: dict[str, list[WalletEntry]] = {}
    for entry in (*first, *again):
        payments.setdefault(reference_key(entry.reference), []).append(entry)
    return [
        [
            Payment(e.id, orgs[e.org_id].name if e.org_id in orgs else None, e.amount, e.reference, e.created_at)
            for e in sorted(entries, key=lambda entry: (entry.created_at, entry.id))
        ]
        for entries in payments.values()
        if any(entry.org_id in orgs for entry in entries)
    ]
