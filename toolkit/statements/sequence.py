"""The sequence of closed months: which month of an organisation is next, and whether closed ones were changed.

Months are closed one after the other. The first statement decides where they begin: what lies before it can never be
closed. The audit log says what was closed, the statements are compared with it.
"""

import json
from collections import defaultdict
from typing import Any, NamedTuple

from sqlalchemy import func, select

from toolkit.admin import organisations
from toolkit.core.money import show_usd
from toolkit.core.period import Period, billing_month, next_month
from toolkit.statements.figures import digest
from toolkit.store.tables import ApiKey, AuditRow, KeyMonth, Organisation, Statement, WalletEntry
from toolkit.store.transaction import Transaction

ACTION = "month.close"
"""What the audit log calls the closing of a month."""

_MOST_SHOWN = 5


class Due(NamedTuple):
    """A month that is over and waits to be closed, and whose it is (a name)."""

    month: str
    org: str


def due(tx: Transaction, *, org: str | None = None) -> list[Due]:
    """Return the month that each organisation has to close next, if it is over; the oldest first.

    That is the one after its last statement; without one, the oldest that has calls or wallet entries.

    Args:
        tx: any actor, who is told of what they may see.
        org: id or name of one organisation; None is all.
    """
    shown = [organisations.find(tx, org)] if org else organisations.list_all(tx)
    called = select(ApiKey.org_id, func.min(KeyMonth.month)).join(KeyMonth, KeyMonth.key_id == ApiKey.id)
    paid = select(WalletEntry.org_id, func.min(WalletEntry.created_at)).group_by(WalletEntry.org_id)
    oldest = {of: billing_month(at) for of, at in tx.session.execute(paid)}
    for of, month in tx.session.execute(called.where(KeyMonth.calls > 0).group_by(ApiKey.org_id)):
        oldest[of] = min(month, oldest.get(of, month))
    closed = select(Statement.org_id, func.max(Statement.month)).group_by(Statement.org_id)
    oldest |= {of: next_month(month) for of, month in tx.session.execute(closed)}
    this = billing_month(tx.now)
    return sorted(Due(oldest[found.id], found.name) for found in shown if oldest.get(found.id, this) < this)


def not_next(tx: Transaction, org_id: str, month: str, acts: dict[str, AuditRow]) -> str:
    """Return why a month cannot be closed after those that are; empty if it can.

    Args:
        tx: any actor.
        org_id: whose.
        month: such as "2026-10".
        acts: from `acts_of`.
    """
    if not acts:
        first = _first_month(tx, org_id)
        if month < first:
            return f"The organisation began later: the first month that can be closed is {first}."
        return ""
    first, last = min(acts), max(acts)
    if month in acts:
        return (
            f"{month} was closed at {acts[month].at:%Y-%m-%d %H:%M} UTC by {acts[month].actor}. What is wrong in it is "
            "corrected by an adjustment of the wallet, which stands in the next statement."
        )
    if month < first:
        return f"The first statement of this organisation is {first}: an earlier month cannot be closed."
    if month != next_month(last):
        return f"Months are closed one after the other: close {next_month(last)} first."
    return ""


def left_out(tx: Transaction, org_id: str, month: str) -> str:
    """Return which months a first statement would leave out for ever, and how not to; empty if it leaves out none."""
    spent = (
        select(KeyMonth.month, func.sum(KeyMonth.spent))
        .join(ApiKey, ApiKey.id == KeyMonth.key_id)
        .where(ApiKey.org_id == org_id, KeyMonth.month < month, KeyMonth.calls > 0)
        .group_by(KeyMonth.month)
    )
    paid = select(WalletEntry.created_at, WalletEntry.amount).where(
        WalletEntry.org_id == org_id, WalletEntry.created_at < Period.month(month).start
    )
    entries: dict[str, int] = defaultdict(int)
    for at, amount in tx.session.execute(paid):
        entries[billing_month(at)] += amount
    words = {of: f"{of} ({show_usd(amount)} booked in the wallet)" for of, amount in entries.items()}
    words |= {of: f"{of} ({show_usd(int(amount))} charged)" for of, amount in tx.session.execute(spent)}
    if not words:
        return ""
    names = [words[of] for of in sorted(words)]
    if len(names) > _MOST_SHOWN:
        names[_MOST_SHOWN - 1 :] = [f"{len(names) - _MOST_SHOWN + 1:,} later ones"]
    return (
        f"{month} would be the first statement. {' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))} could "
        f"then never be closed: close {min(words)} first, or say --first (first=True) to leave "
        f"{'it' if len(words) == 1 else 'them'} out."
    )


def _first_month(tx: Transaction, org_id: str) -> str:
    """Return the month in which an organisation was made, paid or called first, whichever came first."""
    made = tx.session.get_one(Organisation, org_id).created_at
    paid = tx.session.scalar(select(func.min(WalletEntry.created_at)).where(WalletEntry.org_id == org_id))
    keys = select(ApiKey.id).where(ApiKey.org_id == org_id)
    called = tx.session.scalar(select(func.min(KeyMonth.month)).where(KeyMonth.key_id.in_(keys)))
    return min(billing_month(made), billing_month(paid or made), called or billing_month(made))


def changed(tx: Transaction, org_id: str, acts: dict[str, AuditRow]) -> str:
    """Return which of an organisation's statements are not those that were closed, by the audit log; empty if all are.

    A statement begins where the one before ended and corrects those before: nothing may be built on a changed one.
    """
    query = select(Statement).where(Statement.org_id == org_id)
    kept = {statement.month: statement for statement in tx.session.scalars(query)}
    found = []
    for month in sorted(acts.keys() | kept.keys()):
        statement, row = kept.get(month), acts.get(month)
        if row is None:
            found.append(f"The audit log does not know the statement of {month}.")
        elif not month:
            found.append(f"Row {row.seq} of the audit log, which closed a month, was changed: it names none.")
        elif statement is None or statement.id != row.subject:
            found.append(f"The audit log's row {row.seq} says that {month} was closed: there is no such statement.")
        else:
            sha256 = said(row).get("sha256")
            if (statement.audit_seq, statement.sha256, digest(statement.figures)) != (row.seq, sha256, sha256):
                check = f"keydesk month show {month} --org {org_id} --verify"
                found.append(f"The statement of {month} was changed: `{check}` says more.")
    return " ".join([*found, "Restore what was closed from a backup of the key store."] if found else [])


def acts_of(tx: Transaction, org_id: str) -> dict[str, AuditRow]:
    """Return the rows of the audit log that closed an organisation's months; the first, if a month has several.

    One that somebody changed so that it names no month is under "".
    """
    query = select(AuditRow).where(AuditRow.chain == org_id, AuditRow.action == ACTION).order_by(AuditRow.seq.desc())
    return {str(said(row).get("month", "")): row for row in tx.session.scalars(query)}


def said(row: AuditRow) -> dict[str, Any]:
    """Return what a row of the audit log says; of one that somebody made unreadable nothing."""
    try:
        facts = json.loads(row.after or "{}")
    except (ValueError, RecursionError):
        facts = {}
    return facts if isinstance(facts, dict) else {}
