"""Corrections: what a call costs after all, when its charge turned out to be wrong, or is given back.

The row of a call is never changed. The difference is booked as an adjustment in the wallet that names the call, and
counts for the key's monthly limit in the call's month; once that month is closed, in the present one. Each correction
gives the whole charge that is right, so the same one again books nothing.
"""

from dataclasses import dataclass

from sqlalchemy import select, update

from toolkit.admin import rights
from toolkit.core.errors import Conflict, InvalidInput, NotConfirmed, NotFound
from toolkit.core.ids import new_id
from toolkit.core.money import check_amount, usd
from toolkit.core.period import billing_month
from toolkit.core.policy import NOT_ADMITTED
from toolkit.core.words import check_reason
from toolkit.store import audit
from toolkit.store.locks import lock_orgs
from toolkit.store.tables import HoldRow, KeyMonth, Organisation, Statement, WalletEntry
from toolkit.store.transaction import Transaction, store_now
from toolkit.workspace import Workspace

ACTION = "wallet.correct"


@dataclass(frozen=True, slots=True)
class Charge:
    """What a call that has ended costs.

    Args:
        request_id: of the call.
        org_id, org: whose; id and name.
        key_id, key: that called; id and name.
        month: the billing month of the call.
        cost: what was charged when it ended, nano-USD.
        corrected: what corrections have added since, nano-USD; below zero if they took from it.
    """

    request_id: str
    org_id: str
    org: str
    key_id: str
    key: str
    month: str
    cost: int
    corrected: int

    @property
    def present(self) -> int:
        """What the call costs now, nano-USD."""
        return self.cost + self.corrected


@dataclass(frozen=True, slots=True)
class Correction:
    """What a correction did.

    Args:
        before: the charge until then.
        charge: what is right, nano-USD.
        month: the billing month whose limit it counts for.
        balance: of the wallet now, nano-USD.
        entry: the wallet's entry; None if the charge was right already, and nothing was booked.
    """

    before: Charge
    charge: int
    month: str
    balance: int
    entry: WalletEntry | None

    @property
    def moved(self) -> bool:
        """Whether it counts for another month than the call's, which is closed."""
        return self.entry is not None and self.month != self.before.month


def correct(workspace: Workspace, request_id: str, charge: int, reason: str, *, confirm: str) -> Correction:
    """Set what a call costs; 0 gives its charge back.

    Args:
        workspace: as a platform admin. The call is looked up in the ledger: this is no verb for a call's own time.
        request_id: Keydesk's id of the call.
        charge: the whole charge that is right, nano-USD; not a difference.
        reason: why.
        confirm: must be the request id.

    Raises:
        Forbidden: the actor is not a platform admin.
        InvalidInput: a charge below zero, or no reason.
        NotConfirmed: `confirm` is something else.
        NotFound: there is no such call.
        Conflict: it is still under way, or was refused. Nothing was changed.
    """
    if check_amount(charge, "charge") < 0:
        raise InvalidInput("A charge is zero or more. 0 gives back what was charged.")
    if not reason.strip():
        raise InvalidInput("A correction needs a reason.")
    found = find(workspace, request_id)
    if confirm != found.request_id:
        raise NotConfirmed(f"To correct the charge of {found.request_id}, confirm with its request id.")
    with workspace.write() as tx:
        rights.require_platform_admin(tx)
        lock_orgs(tx, found.org_id)
        org = tx.session.get_one(Organisation, found.org_id, populate_existing=True)
        before = _with_corrections(tx, found)
        by = charge - before.present
        month = _open_month(tx, before)
        if by == 0:
            return Correction(before, charge, month, org.balance, None)
        entry = _book(tx, org, before, by, month, check_reason(reason))
        return Correction(before, charge, month, org.balance, entry)


def find(workspace: Workspace, request_id: str) -> Charge:
    """Return what a call that has ended costs, with its corrections; args and errors as of `correct`."""
    request_id = request_id.strip()
    with workspace.read() as tx:
        rights.require_platform_admin(tx)
        under_way = tx.session.get(HoldRow, request_id) is not None
    if under_way:
        raise Conflict(f"The call {request_id} is still under way. It can be corrected once it has ended.")
    query = "SELECT org_id, org, key_id, key, month, cost::BIGINT AS cost, outcome FROM usage"
    rows = workspace.ledger.sql(query, request_id=request_id).to_pylist()
    if not rows:
        raise NotFound(f"There is no request {request_id!r} in the log.")
    row = rows[0]
    if row.pop("outcome") in NOT_ADMITTED:
        raise Conflict(f"The call {request_id} was refused, so it used nothing and has no charge to correct.")
    with workspace.read() as tx:
        return _with_corrections(tx, Charge(request_id=request_id, corrected=0, **row))


def of_call(tx: Transaction, request_id: str) -> list[WalletEntry]:
    """Return the entries that correct a call, the oldest first, as far as the actor may see them."""
    query = select(WalletEntry).where(WalletEntry.request_id == request_id)
    if tx.actor.org_id is not None:
        query = query.where(WalletEntry.org_id == tx.actor.org_id)
    return list(tx.session.scalars(query.order_by(WalletEntry.created_at, WalletEntry.id)))


def _with_corrections(tx: Transaction, call: Charge) -> Charge:
    # What a call costs more, its wallet has less.
    corrected = -sum(entry.amount for entry in of_call(tx, call.request_id))
    return Charge(call.request_id, call.org_id, call.org, call.key_id, call.key, call.month, call.cost, corrected)


def _open_month(tx: Transaction, call: Charge) -> str:
    """Return the month that a correction counts for: the call's, or the present one if that is closed."""
    closed = select(Statement.id).where(Statement.org_id == call.org_id, Statement.month >= call.month)
    return call.month if tx.session.scalar(closed.limit(1)) is None else billing_month(store_now(tx))


def _book(tx: Transaction, org: Organisation, call: Charge, by: int, month: str, reason: str) -> WalletEntry:
    """Book what a call costs more, or less: in the wallet, in the key's month, and in the audit log."""
    entry = WalletEntry(
        id=new_id("entry"),
        org_id=org.id,
        kind="adjustment",
        amount=-by,
        reference=_reference(tx, org.id, call.request_id),
        reason=reason,
        created_at=tx.now,
        created_by=tx.actor.name,
        request_id=call.request_id,
        key_id=call.key_id,
        call_month=call.month,
        month=month,
    )
    balance = org.balance
    org.credited = check_amount(org.credited - by, "sum of all credits")
    tx.session.add(entry)
    at = (KeyMonth.key_id == call.key_id, KeyMonth.month == month)
    last_call_at = tx.session.scalar(select(KeyMonth.last_call_at).where(KeyMonth.key_id == call.key_id).limit(1))
    if tx.session.scalar(select(KeyMonth.month).where(*at)) is None:
        assert last_call_at is not None  # noqa: S101 - the call's own month is there
        totals = KeyMonth(key_id=call.key_id, month=month, calls=0, spent=0, held=0, last_call_at=last_call_at)
        tx.session.add(totals)
    tx.session.flush()
    tx.session.execute(update(KeyMonth).where(*at).values(corrected=KeyMonth.corrected + by))
    audit.record(
        tx,
        ACTION,
        entry.id,
        org_id=org.id,
        before={"balance_usd": usd(balance), "charge_usd": usd(call.present)},
        after={
            "balance_usd": usd(org.balance),
            "charge_usd": usd(call.present + by),
            "amount_usd": usd(entry.amount),
            "reference": entry.reference,
            "request_id": call.request_id,
            "key_id": call.key_id,
            "month": month,
        },
        reason=reason,
    )
    return entry


def _reference(tx: Transaction, org_id: str, request_id: str) -> str:
    """Return a reference that names the call and that no adjustment has yet."""
    of_org = select(WalletEntry.reference).where(WalletEntry.org_id == org_id, WalletEntry.kind == "adjustment")
    taken = set(tx.session.scalars(of_org.where(WalletEntry.reference.startswith(request_id, autoescape=True))))
    number, reference = 1, request_id
    while reference in taken:
        number += 1
        reference = f"{request_id} #{number}"
    return reference
