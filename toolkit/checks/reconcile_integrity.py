"""The records that must be whole: the key store, the ledger's files, request ids, holds, limits and audit chains."""

from sqlalchemy import func, select, text

from toolkit.checks import limits_history
from toolkit.checks.limits_history import Caps
from toolkit.checks.reconcile_sums import MOST_SHOWN, Result, ask, money, shortened
from toolkit.core.errors import Unavailable
from toolkit.ledger import segments
from toolkit.store import audit, holds
from toolkit.store.tables import AuditRow, Segment
from toolkit.workspace import Workspace

IDS_AT_ONCE = 1_000_000
"""Request ids that are compared with each other at a time."""

SOUND = "The key store's own check of its pages finds nothing"

ONCE = "Each request id occurs once, and no call that ended still holds money"


def within_limits(workspace: Workspace, capped: Caps) -> Result:
    """Check that no admission went beyond the limit, or the wallet, of its time."""
    with workspace.read() as tx:
        query, params = limits_history.exceeded(tx, capped)
    return ask(workspace, "SELECT len($owner)", query, capped.say, params)


def once(workspace: Workspace) -> Result:
    """Check that each request id is there once, `IDS_AT_ONCE` at a time."""
    with workspace.read() as tx:
        # Sorted here: PostgreSQL may sort text as a language does, DuckDB compares bytes.
        listed = sorted(tx.session.execute(select(Segment.first_request_id, Segment.rows)).all())
    cuts, rows = [""], 0
    for first_id, of_segment in listed:
        if rows + of_segment > IDS_AT_ONCE and rows:
            cuts.append(first_id)
            rows = 0
        rows += of_segment
    checked, violations = 0, list[str]()
    for start, end in zip(cuts, [*cuts[1:], None], strict=True):
        within = "request_id >= $start" + ("" if end is None else " AND request_id < $end")
        of_range, wrong = ask(
            workspace,
            f"SELECT count(*) FROM usage WHERE {within}",
            f"""
            SELECT request_id, count(*) AS times FROM usage WHERE {within} GROUP BY request_id HAVING count(*) > 1
            UNION ALL
            SELECT request_id, 0 FROM holds
            WHERE {within} AND request_id IN (SELECT request_id FROM usage WHERE {within})
            """,
            lambda request_id, times: (
                f"{request_id} {f'occurs {times} times' if times else 'ended, but still holds money'}."
            ),
            {"start": start} | ({} if end is None else {"end": end}),
        )
        checked += of_range
        violations += wrong
    return checked, shortened(violations)


def sound(workspace: Workspace) -> Result:
    """Ask the database whether it is whole: what it reads from an overwritten page may look like any other row."""
    repair = "Stop Keydesk and restore the key store from a backup."
    try:
        with workspace.read() as tx:
            if workspace.store.is_postgres:  # which notes what a page's checksum has shown to whoever read it
                query = "SELECT coalesce(checksum_failures, 0) FROM pg_stat_database WHERE datname = current_database()"
                failures = tx.session.scalars(text(query)).one()
                return 1, [f"{failures:,} pages did not match their checksums. {repair}"] if failures else []
            pages = tx.session.scalars(text("PRAGMA page_count")).one()
            told = tx.session.scalars(text(f"PRAGMA integrity_check({MOST_SHOWN})")).all()
    except Unavailable as error:
        return 0, [str(error)]  # with its own cure
    return pages, [] if told == ["ok"] else [f"{line}. {repair}" for line in told]


def files(workspace: Workspace) -> Result:
    """Check that each file of the ledger is the one that was written."""
    listed = workspace.ledger.segment_list.read()
    return len(listed), shortened(segments.damage(workspace.ledger.root, listed))


def orphans(workspace: Workspace) -> Result:
    """Check that no hold is left of a gateway that has ended."""
    with workspace.read() as tx:
        found = holds.open_holds(tx)
    return len(found), shortened(
        [
            f"Hold of {money(hold.amount)} for {hold.request_id} by key {hold.key}: its gateway {hold.instance_id} "
            "has ended, and no other one has released it. A running gateway does so within seconds."
            for hold in found
            if hold.overdue
        ]
    )


def chains(workspace: Workspace) -> Result:
    """Check that no row of the audit log was changed, removed or reordered."""
    with workspace.read() as tx:
        query = select(func.count()).select_from(AuditRow)
        if tx.actor.org_id is not None:
            query = query.where(AuditRow.chain == tx.actor.org_id)
        acts = tx.session.scalar(query) or 0
        broken = [f"Chain {link.chain}, row {link.seq}: {link.problem}." for link in audit.verify(tx)]
    return acts, shortened(broken)


def recorded(workspace: Workspace) -> Result:
    """Check that limits and wallets are what the acts in the audit log made them."""
    with workspace.read() as tx:
        looked, wrong = limits_history.unrecorded(tx)
    return looked, shortened(wrong)
