"""Month close: a billing month of one organisation, frozen as a statement whose hash stands in the audit log.

The figures of the calls come from the usage ledger; the key store's running totals must agree with them to the
nano-USD. A closed month gets no further call: closing needs that no call of it is under way, and raises the
catalog's version, so that an admission which was judged before is judged anew, by a clock that has passed the month's
end. What is corrected later stands in the next statement. `docs/month-close.md` has the rules and the reasons.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import func, select

from toolkit import accounts, audit, catalog, holds
from toolkit.credentials import new_id
from toolkit.database import Transaction, lock_catalog, lock_orgs
from toolkit.desk import Desk
from toolkit.errors import Conflict, NotFound
from toolkit.models import ApiKey, AuditRow, KeyMonth, Organisation, Statement, WalletEntry
from toolkit.period import Period
from toolkit.pricing import billing_month, next_month, show_usd, usd
from toolkit.statement_figures import (
    Figures,
    Moved,
    build,
    calls_of,
    canonical,
    digest,
    figures_of,
    moved,
)

__all__ = [
    "Figures",
    "Standing",
    "close",
    "draft",
    "figures_of",
    "find",
    "list_all",
    "require_closable",
    "standing",
    "verify",
]

T = TypeVar("T")

_ACTION = "month.close"
_TRIES = 3
_MOST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """How a billing month of one organisation stands.

    Args:
        org_id, org: whose; id and name.
        state: "closed", "draft", or in words why its turn has not come.
        figures: frozen, or a draft's; None if its turn has not come.
    """

    org_id: str
    org: str
    state: str
    figures: Figures | None


def close(desk: Desk, org: str, month: str) -> Statement:
    """Freeze a billing month of one organisation.

    Only once the month has ended, by the store's clock, and none of its calls is under way. Months are closed one
    after the other; the first one closed may be any since the organisation began.

    Args:
        desk: as a platform admin.
        org: id or name.
        month: such as "2026-10", UTC.

    Returns:
        The statement, committed together with its row in the audit log.

    Raises:
        InvalidInput: not a month.
        NotFound: no such organisation.
        Forbidden: the actor is not a platform admin.
        Conflict: the month has not ended, has open holds (which are named), is closed already, is not the next one,
            an earlier statement was changed, or ledger, running totals and wallet do not agree. Nothing was changed.
    """
    period = Period.month(month)

    def attempt() -> Statement:
        with desk.read() as tx:  # what is refused is refused before the ledger is asked
            org_id = require_closable(tx, org, month)
        calls = calls_of(desk.ledger, org_id, period)  # outside the transaction: SQLite's would stop the gateways
        with desk.write() as tx:
            lock_catalog(tx)
            lock_orgs(tx, org_id)
            _require_closable(tx, org_id, period, month)
            figures = build(tx, org_id, month, calls, _last(tx, org_id))
            return _freeze(tx, org_id, month, figures | _closed(tx.now.isoformat(), tx.actor.name))

    return _repeated(attempt)


def require_closable(tx: Transaction, org: str, month: str) -> str:
    """Raise what `close` would raise before it looks into the books; return the organisation's id.

    Args:
        tx: as a platform admin.
        org: id or name.
        month: such as "2026-10".
    """
    period = Period.month(month)
    accounts.require_platform_admin(tx)
    org_id = accounts.find_org(tx, org).id
    _require_closable(tx, org_id, period, month)
    return org_id


def draft(desk: Desk, org: str, month: str) -> Figures:
    """Return what the statement of a month would say now; the month may be under way. Nothing is frozen.

    Args:
        desk: as anybody who may see the organisation.
        org: id or name.
        month: such as "2026-10", UTC.

    Returns:
        Figures as `close` freezes them, but for `closed_at` and `closed_by`, which are None.

    Raises:
        InvalidInput, NotFound: as `close`.
        Conflict: the month is closed or is not the next one, an earlier statement was changed, or ledger, running
            totals and wallet do not agree.
    """
    period = Period.month(month)

    with desk.read() as tx:
        org_id = accounts.find_org(tx, org).id

    def attempt() -> Figures:
        calls = calls_of(desk.ledger, org_id, period)
        with desk.read() as tx:
            _require_next(tx, org_id, month)
            return build(tx, org_id, month, calls, _last(tx, org_id)) | _closed(None, None)

    return _repeated(attempt)


def standing(desk: Desk, org: str, month: str) -> Standing:
    """Return how a month stands: what was frozen, a draft, or what has to be done before there can be one.

    Args:
        desk: as anybody who may see the organisation.
        org: id or name.
        month: such as "2026-10", UTC.

    Raises:
        InvalidInput, NotFound: as `close`.
        Conflict: it is the month's turn, but ledger, running totals and wallet do not agree.
    """
    Period.month(month)
    with desk.read() as tx:
        found = accounts.find_org(tx, org)
        acts = _acts(tx, found.id)
        changed = _changed(tx, found.id, acts)
        if month in acts and not changed:
            return Standing(found.id, found.name, "closed", figures_of(find(tx, found.id, month)))
        if reason := changed or _not_next(tx, found.id, month, acts):
            return Standing(found.id, found.name, reason, None)
    return Standing(found.id, found.name, "draft", draft(desk, found.id, month))


def _closed(at: str | None, by: str | None) -> Figures:
    return {"closed_at": at, "closed_by": by}


def _repeated(attempt: Callable[[], T]) -> T:
    """Return what an attempt does; one that calls were settled in the middle of is made again."""
    for _ in range(_TRIES - 1):
        try:
            return attempt()
        except Moved:
            pass
    return attempt()


def find(tx: Transaction, org: str, month: str) -> Statement:
    """Return the statement of a closed month.

    Args:
        tx: as anybody who may see the organisation.
        org: id or name.
        month: such as "2026-10".

    Raises:
        InvalidInput: not a month.
        NotFound: no such organisation, or its month is not closed.
    """
    Period.month(month)
    found = accounts.find_org(tx, org)
    statement = tx.session.scalar(select(Statement).where(Statement.org_id == found.id, Statement.month == month))
    if statement is None:
        raise NotFound(f"{month} of {found.name} is not closed. `keydesk month close` does it once it has ended.")
    return statement


def list_all(tx: Transaction, *, org: str | None = None) -> list[Statement]:
    """Return the statements that the actor may see, the newest month first.

    Args:
        tx: any actor.
        org: id or name of one organisation; None is all.
    """
    query = select(Statement).order_by(Statement.month.desc(), Statement.org_id)
    for org_id in {tx.actor.org_id, accounts.find_org(tx, org).id if org else None} - {None}:
        query = query.where(Statement.org_id == org_id)
    return list(tx.session.scalars(query))


def verify(tx: Transaction, statement: Statement) -> list[str]:
    """Check that a statement is the one that was closed, and that the books still say what it says.

    Returns:
        One sentence for each thing that is wrong; none if all is well.
    """
    problems = []
    hashed = digest(statement.figures)
    if hashed != statement.sha256:
        problems.append(f"Its figures were changed: their SHA-256 is {hashed}, not {statement.sha256}.")
    row = _acts(tx, statement.org_id).get(statement.month)
    if row is None or (row.subject, row.seq) != (statement.id, statement.audit_seq):
        problems.append("The audit log does not know it.")
    elif _said(row).get("sha256") != hashed:
        problems.append(f"Row {row.seq} of the organisation's audit log says that its SHA-256 is another one.")
    theirs = Transaction(tx.session, replace(tx.actor, org_id=statement.org_id))  # who sees their chain and no other
    problems += [f"Row {link.seq} of the organisation's audit log: {link.problem}." for link in audit.verify(theirs)]
    if not problems:
        problems += filter(None, [_changed(tx, statement.org_id, _acts(tx, statement.org_id))])
    if not problems:
        problems += [
            f"The books have moved since: key {key_id} has {calls:+} calls and {usd(charge)} USD that no statement has "
            "yet. The next one will show it as an adjustment; `keydesk reconcile` may say why."
            for (month, key_id), calls, charge in moved(tx, statement.org_id)
            if month == statement.month
        ]
    return problems


def _require_closable(tx: Transaction, org_id: str, period: Period, month: str) -> None:
    """Raise Conflict unless a month has ended, is the next one, and has no open hold."""
    assert period.end is not None  # noqa: S101 - a month has both ends
    if tx.now < period.end:
        raise Conflict(
            f"{month} ends at {period.end:%Y-%m-%d} 00:00 UTC; by the key store's clock it is "
            f"{tx.now:%Y-%m-%d %H:%M}. Close it then."
        )
    _require_next(tx, org_id, month)
    open_holds = [hold for hold in holds.open_holds(tx, org=org_id) if billing_month(hold.admitted_at) <= month]
    if open_holds:
        raise Conflict(_in_the_way(month, open_holds))


def _in_the_way(month: str, found: Sequence[holds.OpenHold]) -> str:
    """Return the refusal of a month of which calls are under way: which ones, and what will end them."""
    lines = [f"{month} cannot be closed yet: {len(found)} of its calls may still be charged."]
    for hold in found[:_MOST_SHOWN]:
        age = str(timedelta(seconds=max(int(hold.age.total_seconds()), 0)))
        if not hold.orphaned:
            fate = "is alive: wait until it has settled the call"
        elif hold.overdue:
            fate = "has ended, and no gateway runs that could release it: start one"
        else:
            fate = "has ended: another one releases it within seconds"
        lines.append(
            f"  {hold.request_id} by key {hold.key} to {hold.model} holds {show_usd(hold.amount)} for {age} (h:mm:ss);"
            f" its gateway {hold.instance_id} {fate}."
        )
    if len(found) > _MOST_SHOWN:
        lines.append(f"  and {len(found) - _MOST_SHOWN:,} more; `keydesk holds` lists all.")
    return "\n".join(lines)


def _require_next(tx: Transaction, org_id: str, month: str) -> None:
    """Raise Conflict unless a month is the next one, and all that were closed are as they were."""
    acts = _acts(tx, org_id)
    if reason := _changed(tx, org_id, acts) or _not_next(tx, org_id, month, acts):
        raise Conflict(reason)


def _not_next(tx: Transaction, org_id: str, month: str, acts: dict[str, AuditRow]) -> str:
    """Return why a month cannot be closed after those that are; empty if it can."""
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


def _first_month(tx: Transaction, org_id: str) -> str:
    """Return the month in which an organisation was made, paid or called first, whichever came first."""
    made = tx.session.get_one(Organisation, org_id).created_at
    paid = tx.session.scalar(select(func.min(WalletEntry.created_at)).where(WalletEntry.org_id == org_id))
    keys = select(ApiKey.id).where(ApiKey.org_id == org_id)
    called = tx.session.scalar(select(func.min(KeyMonth.month)).where(KeyMonth.key_id.in_(keys)))
    return min(billing_month(made), billing_month(paid or made), called or billing_month(made))


def _changed(tx: Transaction, org_id: str, acts: dict[str, AuditRow]) -> str:
    """Return which of an organisation's statements are not those that were closed, by the audit log; empty if all are.

    A statement begins where the one before ended and corrects those before: nothing may be built on a changed one.
    """
    query = select(Statement).where(Statement.org_id == org_id)
    kept = {statement.month: statement for statement in tx.session.scalars(query)}
    changed = []
    for month in sorted(acts.keys() | kept.keys()):
        statement, row = kept.get(month), acts.get(month)
        if row is None:
            changed.append(f"The audit log does not know the statement of {month}.")
        elif not month:
            changed.append(f"Row {row.seq} of the audit log, which closed a month, was changed: it names none.")
        elif statement is None or statement.id != row.subject:
            changed.append(f"The audit log's row {row.seq} says that {month} was closed: there is no such statement.")
        else:
            said = _said(row).get("sha256")
            if (statement.audit_seq, statement.sha256, digest(statement.figures)) != (row.seq, said, said):
                check = f"keydesk month show {month} --org {org_id} --verify"
                changed.append(f"The statement of {month} was changed: `{check}` says more.")
    return " ".join([*changed, "Restore what was closed from a backup of the key store."] if changed else [])


def _acts(tx: Transaction, org_id: str) -> dict[str, AuditRow]:
    """Return the rows of the audit log that closed an organisation's months; the first, if a month has several.

    One that somebody changed so that it names no month is under "".
    """
    query = select(AuditRow).where(AuditRow.chain == org_id, AuditRow.action == _ACTION).order_by(AuditRow.seq.desc())
    return {str(_said(row).get("month", "")): row for row in tx.session.scalars(query)}


def _said(row: AuditRow) -> Figures:
    """Return what a row of the audit log says; of one that somebody made unreadable nothing."""
    try:
        facts = json.loads(row.after or "{}")
    except (ValueError, RecursionError):
        facts = {}
    return facts if isinstance(facts, dict) else {}


def _last(tx: Transaction, org_id: str) -> Statement | None:
    query = select(Statement).where(Statement.org_id == org_id).order_by(Statement.month.desc()).limit(1)
    return tx.session.scalar(query)


def _freeze(tx: Transaction, org_id: str, month: str, figures: Figures) -> Statement:
    text = canonical(figures)
    statement_id, sha256 = new_id("statement"), digest(text)
    row = audit.record(
        tx,
        _ACTION,
        statement_id,
        org_id=org_id,
        after={
            "month": month,
            "calls": figures["totals"]["calls"],
            "charged_usd": figures["totals"]["charged_usd"],
            "closing_usd": figures["wallet"]["closing_usd"],
            "sha256": sha256,
        },
    )
    statement = Statement(
        id=statement_id,
        org_id=org_id,
        month=month,
        figures=text,
        sha256=sha256,
        audit_seq=row.seq,
        closed_at=tx.now,
        closed_by=tx.actor.name,
    )
    tx.session.add(statement)
    catalog.changed(tx)  # whoever was judged before this, but is not admitted yet, is judged anew: in a later month
    tx.session.flush()
    return statement
