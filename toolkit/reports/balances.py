"""Balances: what is in the wallets, and how it got there, as tables. Pure over a `Ledger`; each function is one query.

Amounts are int64 nano-USD. The actor of the ledger sees its organisation only.
"""

from typing import TYPE_CHECKING

from toolkit.core.period import Period
from toolkit.ledger.ledger import Ledger

if TYPE_CHECKING:
    import pandas as pd


def wallets(ledger: Ledger) -> "pd.DataFrame":
    """Return the wallets as the running totals have them, the emptiest first.

    Returns:
        org_id, org, credited (paid in, adjustments included), settled (charged), balance (the one less the other), held
        (set aside for calls under way) and available (what new calls may hold).
    """
    return ledger.df(
        """
        SELECT id AS org_id, name AS org, credited, settled, credited - settled AS balance, held,
               credited - settled - held AS available
        FROM orgs ORDER BY available, org
        """
    )


def bridge(ledger: Ledger, period: Period) -> "pd.DataFrame":
    """Return how each wallet came from the balance before a period to the one after it, and to that of now.

    Entries count when they were booked, charges when their call was admitted.

    Args:
        ledger: whose actor's wallets.
        period: with or without start and end.

    Returns:
        org_id, org, opening, credits, adjustments, charged (below zero), closing (the sum of these), since (all that
        came after the period) and balance (both together); in order of organisations' names.
    """
    return ledger.df(
        """
        WITH moves AS (
            SELECT org_id, kind, amount, created_at AS moved_at FROM wallet_entries
            UNION ALL
            SELECT org_id, 'charge', -cost, admitted_at FROM usage WHERE cost <> 0
        ), placed AS (
            SELECT org_id, amount,
                   CASE WHEN moved_at < $start THEN 'before' WHEN moved_at >= $end THEN 'later' ELSE kind END AS part
            FROM moves
        )
        SELECT orgs.id AS org_id, orgs.name AS org,
               coalesce(sum(amount) FILTER (part = 'before'), 0)::BIGINT AS opening,
               coalesce(sum(amount) FILTER (part = 'credit'), 0)::BIGINT AS credits,
               coalesce(sum(amount) FILTER (part = 'adjustment'), 0)::BIGINT AS adjustments,
               coalesce(sum(amount) FILTER (part = 'charge'), 0)::BIGINT AS charged,
               coalesce(sum(amount) FILTER (part <> 'later'), 0)::BIGINT AS closing,
               coalesce(sum(amount) FILTER (part = 'later'), 0)::BIGINT AS since,
               coalesce(sum(amount), 0)::BIGINT AS balance
        FROM orgs LEFT JOIN placed ON placed.org_id = orgs.id
        GROUP BY orgs.id, orgs.name ORDER BY orgs.name, orgs.id
        """,
        {"start": period.start, "end": period.end},
    )


def daily(ledger: Ledger, org_id: str, period: Period) -> "pd.DataFrame":
    """Return what a wallet held at the end of each day of a period on which money moved, and on its first and last.

    Entries count when they were booked, charges when their call was admitted.

    Args:
        ledger: whose actor may see the organisation; another's days are all zero.
        org_id: whose wallet.
        period: with start and end, at midnights in UTC.

    Returns:
        day, credits (adjustments included), charged (above zero) and balance; in order of days.
    """
    return ledger.df(
        """
        WITH moves AS (
            SELECT created_at::DATE AS day, amount AS credits, 0::BIGINT AS charged
            FROM wallet_entries WHERE org_id = $org AND created_at < $end
            UNION ALL
            SELECT day, 0, cost FROM usage WHERE org_id = $org AND cost <> 0 AND admitted_at < $end
            UNION ALL
            SELECT unnest([$start::TIMESTAMPTZ::DATE, ($end::TIMESTAMPTZ - INTERVAL 1 DAY)::DATE]), 0, 0
        ), days AS (
            SELECT day, sum(credits)::BIGINT AS credits, sum(charged)::BIGINT AS charged FROM moves GROUP BY day
        ), running AS (
            SELECT *, (sum(credits - charged) OVER (ORDER BY day))::BIGINT AS balance FROM days
        )
        SELECT * FROM running WHERE day >= $start::TIMESTAMPTZ::DATE ORDER BY day
        """,
        {"org": org_id, "start": period.start, "end": period.end},
    )
