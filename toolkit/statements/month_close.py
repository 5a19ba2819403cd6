"""Month close: a billing month of one organisation, frozen as a statement whose hash stands in the audit log.

The figures of the calls come from the usage ledger; the key store's running totals must agree with them to the
nano-USD. A closed month gets no further call: closing needs that no call of it is under way, and raises the
catalog's version, so that an admission which was judged before is judged anew, by a clock that has passed the month's
end. What is corrected later stands in the next statement. `docs/month-close.md` has the rules and the reasons.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import select

from toolkit.admin import catalog, organisations, rights
from toolkit.core.errors import Conflict, NotFound
from toolkit.core.ids import new_id
from toolkit.core.money import show_usd, usd
from toolkit.core.period import Period, billing_month
from toolkit.statements.figures import Figures, canonical, digest, figures_of, say_written_off
from toolkit.statements.figures_builder import Moved, build, calls_of, moved, written_off_of
from toolkit.statements.sequence import ACTION, Due, acts_of, changed, due, left_out, not_next, said
from toolkit.store import audit, holds
from toolkit.store.locks import lock_catalog, lock_orgs
from toolkit.store.tables import Statement
from toolkit.store.transaction import Transaction
from toolkit.workspace import Workspace

__all__ = [
    "Due",
    "Figures",
    "Standing",
    "close",
    "draft",
    "due",
    "figures_of",
    "find",
    "list_all",
    "require_closable",
    "say_written_off",
    "standing",
    "verify",
]

T = TypeVar("T")

_TRIES = 3
_MOST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """How a billing month of one organisation stands.

    Args:
        org_id, org: whose; id and name.
        month: such as "2026-10".
        state: "closed", "draft", or in words why its turn has not come.
        figures: frozen, or a draft's; None if its turn has not come.
        obstacle: why it cannot be closed now, in words; empty if it can, or is closed.
        sha256: of the frozen figures; empty before.
    """

    org_id: str
    org: str
    month: str
    state: str
    figures: Figures | None
    obstacle: str = ""
    sha256: str = ""

    @property
    def closable(self) -> bool:
        """Whether it can be closed now."""
        return self.state == "draft" and not self.obstacle

    @property
    def verdict(self) -> str:
        """Whether it can be closed, by which command, or why not; or what it was closed as."""
        if self.state == "closed":
            assert self.figures is not None  # noqa: S101 - frozen
            at = f"{datetime.fromisoformat(self.figures['closed_at']):%Y-%m-%d %H:%M}"
            return f"{self.month} was closed at {at} UTC by {self.figures['closed_by']}. SHA-256 {self.sha256}"
        if self.obstacle:
            return f"{self.month} cannot be closed. {self.obstacle}"
        return f"{self.month} can be closed: keydesk month close {self.month} --org {shlex.quote(self.org)}"


def close(workspace: Workspace, org: str, month: str, *, first: bool = False) -> Statement:
    """Freeze a billing month of one organisation.

    Only once the month has ended, by the store's clock, and none of its calls is under way. Months are closed one
    after the other, from the oldest that has calls or wallet entries.

    Args:
        workspace: as a platform admin.
        org: id or name.
        month: such as "2026-10", UTC.
        first: whether a first statement may leave out earlier months, which can then never be closed. They are in its
            opening balance.

    Returns:
        The statement, committed together with its row in the audit log.

    Raises:
        InvalidInput: not a month.
        NotFound: no such organisation.
        Forbidden: the actor is not a platform admin.
        Conflict: the month has not ended, has open holds (which are named), is closed already, is not the next one,
            would leave out earlier ones, an earlier statement was changed, or ledger, running totals and wallet do
            not agree. Nothing was changed.
    """
    period = Period.month(month)

    def attempt() -> Statement:
        with workspace.read() as tx:  # what is refused is refused before the ledger is asked
            org_id = require_closable(tx, org, month, first=first)
        calls = calls_of(workspace.ledger, org_id, period)  # outside the transaction: SQLite's would stop the gateways
        written_off = written_off_of(workspace.ledger, org_id, period)
        with workspace.write() as tx:
            lock_catalog(tx)
            lock_orgs(tx, org_id)
            _require_closable(tx, org_id, month, first=first)
            figures = build(tx, org_id, month, calls, written_off, _last(tx, org_id))
            return _freeze(tx, org_id, month, figures | _closed(tx.now.isoformat(), tx.actor.name))

    return _repeated(attempt)


def require_closable(tx: Transaction, org: str, month: str, *, first: bool = False) -> str:
    """Raise what `close` would raise before it looks into the books; return the organisation's id.

    Args:
        tx: as a platform admin.
        org: id or name.
        month: such as "2026-10".
        first: as for `close`.
    """
    Period.month(month)
    rights.require_platform_admin(tx)
    org_id = organisations.find(tx, org).id
    _require_closable(tx, org_id, month, first=first)
    return org_id


def draft(workspace: Workspace, org: str, month: str) -> Figures:
    """Return what the statement of a month would say now; the month may be under way. Nothing is frozen.

    Args:
        workspace: as anybody who may see the organisation.
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

    with workspace.read() as tx:
        org_id = organisations.find(tx, org).id

    def attempt() -> Figures:
        calls = calls_of(workspace.ledger, org_id, period)
        written_off = written_off_of(workspace.ledger, org_id, period)
        with workspace.read() as tx:
            if reason := _behind(tx, org_id, month):
                raise Conflict(reason)
            return build(tx, org_id, month, calls, written_off, _last(tx, org_id)) | _closed(None, None)

    return _repeated(attempt)


def standing(workspace: Workspace, org: str, month: str) -> Standing:
    """Return how a month stands: what was frozen, a draft, or what has to be done before there can be one.

    Args:
        workspace: as anybody who may see the organisation.
        org: id or name.
        month: such as "2026-10", UTC.

    Raises:
        InvalidInput, NotFound: as `close`.
        Conflict: it is the month's turn, but ledger, running totals and wallet do not agree.
    """
    Period.month(month)
    with workspace.read() as tx:
        found = organisations.find(tx, org)
        whose = found.id, found.name, month
        acts = acts_of(tx, found.id)
        if month in acts and not changed(tx, found.id, acts):
            statement = find(tx, found.id, month)
            return Standing(*whose, "closed", figures_of(statement), sha256=statement.sha256)
        if reason := _behind(tx, found.id, month):
            return Standing(*whose, reason, None, reason)
        obstacle = _obstacle(tx, found.id, month)
    return Standing(*whose, "draft", draft(workspace, found.id, month), obstacle)


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
    found = organisations.find(tx, org)
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
    for org_id in {tx.actor.org_id, organisations.find(tx, org).id if org else None} - {None}:
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
    row = acts_of(tx, statement.org_id).get(statement.month)
    if row is None or (row.subject, row.seq) != (statement.id, statement.audit_seq):
        problems.append("The audit log does not know it.")
    elif said(row).get("sha256") != hashed:
        problems.append(f"Row {row.seq} of the organisation's audit log says that its SHA-256 is another one.")
    theirs = Transaction(tx.session, replace(tx.actor, org_id=statement.org_id))  # who sees their chain and no other
    problems += [f"Row {link.seq} of the organisation's audit log: {link.problem}." for link in audit.verify(theirs)]
    if not problems:
        problems += filter(None, [changed(tx, statement.org_id, acts_of(tx, statement.org_id))])
    if not problems:
        problems += [
            f"The books have moved since: key {key_id} has {calls:+} calls and {usd(charge)} USD that no statement has "
            "yet. The next one will show it as an adjustment; `keydesk reconcile` may say why."
            for (month, key_id), calls, charge in moved(tx, statement.org_id)
            if month == statement.month
        ]
    return problems


def _require_closable(tx: Transaction, org_id: str, month: str, *, first: bool) -> None:
    if reason := _obstacle(tx, org_id, month, first=first):
        raise Conflict(reason)


def _obstacle(tx: Transaction, org_id: str, month: str, *, first: bool = False) -> str:
    """Return why a month cannot be closed: it has not ended, is not the next one, or has open holds; empty if it can.

    Args:
        tx: any actor.
        org_id: whose.
        month: such as "2026-10".
        first: as for `close`.
    """
    end = Period.month(month).end
    assert end is not None  # noqa: S101 - a month has both ends
    if tx.now < end:
        return (
            f"{month} ends at {end:%Y-%m-%d} 00:00 UTC; by the key store's clock it is {tx.now:%Y-%m-%d %H:%M}. "
            "Close it then."
        )
    if reason := _behind(tx, org_id, month):
        return reason
    if not first and not acts_of(tx, org_id) and (reason := left_out(tx, org_id, month)):
        return reason
    open_holds = [hold for hold in holds.open_holds(tx, org=org_id) if billing_month(hold.admitted_at) <= month]
    return _in_the_way(month, open_holds) if open_holds else ""


def _behind(tx: Transaction, org_id: str, month: str) -> str:
    """Return why a month is not the next one, or which that were closed are not as they were; empty if all is well."""
    acts = acts_of(tx, org_id)
    return changed(tx, org_id, acts) or not_next(tx, org_id, month, acts)


def _in_the_way(month: str, found: Sequence[holds.OpenHold]) -> str:
    """Return the refusal of a month of which calls are under way: which ones, and what will end them."""
    lines = [f"{len(found)} of the calls until the end of {month} may still be charged."]
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


def _last(tx: Transaction, org_id: str) -> Statement | None:
    query = select(Statement).where(Statement.org_id == org_id).order_by(Statement.month.desc()).limit(1)
    return tx.session.scalar(query)


def _freeze(tx: Transaction, org_id: str, month: str, figures: Figures) -> Statement:
    text = canonical(figures)
    statement_id, sha256 = new_id("statement"), digest(text)
    row = audit.record(
        tx,
        ACTION,
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
