"""The sums that must agree: wallets, their entries, keys' months, holds and the charge of every call, as SQL."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolkit.core.errors import Unavailable
from toolkit.core.money import usd
from toolkit.ledger.pricing_sql import ADMITTED
from toolkit.workspace import Workspace

MOST_SHOWN = 20
"""Violations of one check that are spelled out; the rest are counted."""


@dataclass(frozen=True, slots=True)
class SumCheck:
    """A check as SQL: `checked` counts what is looked at, `wrong` selects what disagrees, for `say` to put in words."""

    invariant: str
    title: str
    checked: str
    wrong: str
    say: Callable[..., str]


def money(nano: int | None) -> str:
    """Return an amount as a violation has it."""
    return f"{usd(nano or 0)} USD"


# A charge anew, apart from `core.pricing` and `ledger.pricing_sql`: what checks them must not share their mistakes.
_CHARGE = """
    (greatest(input_tokens - cached_input_tokens - cache_write_5m_tokens - cache_write_1h_tokens, 0)::HUGEINT
     * input_price
     + cached_input_tokens::HUGEINT * cached_input_price
     + cache_write_5m_tokens::HUGEINT * cache_write_5m_price
     + cache_write_1h_tokens::HUGEINT * cache_write_1h_price
     + output_tokens::HUGEINT * output_price
     + request_price::HUGEINT * 1000000) * multiplier
"""

# Half to even, in integers: one more than the quotient if the rest is above one half, or is it and the quotient is odd.
_RECHARGED = """
    (exact // 1000000000000 + CASE WHEN exact % 1000000000000 > 500000000000
     OR (exact % 1000000000000 = 500000000000 AND exact // 1000000000000 % 2 = 1) THEN 1 ELSE 0 END)
"""

CHECKS = (
    SumCheck(
        "I3",
        "Each wallet's credits are the sum of its entries",
        "SELECT count(*) FROM orgs",
        """
        SELECT o.name, o.credited, coalesce(e.amount, 0) FROM orgs o
        LEFT JOIN (SELECT org_id, sum(amount)::BIGINT AS amount FROM wallet_entries GROUP BY ALL) e ON e.org_id = o.id
        WHERE o.credited <> coalesce(e.amount, 0)
        """,
        lambda name, kept, summed: f"{name}: the wallet says {money(kept)}, its entries sum to {money(summed)}.",
    ),
    SumCheck(
        "I3",
        "Each wallet's settlements are the sum of its calls",
        "SELECT count(*) FROM orgs",
        """
        SELECT coalesce(o.name, u.org_id), coalesce(o.settled, 0), coalesce(u.cost, 0) FROM orgs o
        FULL JOIN (SELECT org_id, sum(cost)::BIGINT AS cost FROM usage GROUP BY ALL) u ON u.org_id = o.id
        WHERE coalesce(o.settled, 0) <> coalesce(u.cost, 0)
        """,
        lambda name, kept, summed: f"{name}: the wallet settled {money(kept)}, its calls cost {money(summed)}.",
    ),
    SumCheck(
        "I3",
        "What a wallet holds is the sum of its open holds",
        "SELECT count(*) FROM orgs",
        """
        SELECT o.name, o.held, coalesce(h.amount, 0) FROM orgs o
        LEFT JOIN (SELECT org_id, sum(amount)::BIGINT AS amount FROM holds GROUP BY ALL) h ON h.org_id = o.id
        WHERE o.held <> coalesce(h.amount, 0)
        """,
        lambda name, kept, summed: f"{name}: the wallet holds {money(kept)}, its open holds sum to {money(summed)}.",
    ),
    SumCheck(
        "I3",
        "What corrections add to a key's month is what they take from its wallet",
        "SELECT count(*) FROM key_months",
        """
        SELECT coalesce(k.name, e.key_id, m.key_id), coalesce(e.month, m.month),
               coalesce(m.corrected, 0), coalesce(e.amount, 0)
        FROM key_months m
        FULL JOIN (SELECT key_id, month, -sum(amount)::BIGINT AS amount FROM wallet_entries
                   WHERE request_id IS NOT NULL GROUP BY ALL) e ON e.key_id = m.key_id AND e.month = m.month
        LEFT JOIN keys k ON k.id = coalesce(e.key_id, m.key_id)
        WHERE coalesce(m.corrected, 0) <> coalesce(e.amount, 0)
        """,
        lambda name, month, kept, summed: (
            f"Key {name} in {month}: totals are corrected by {money(kept)}, the wallet's corrections sum to "
            f"{money(summed)}."
        ),
    ),
    SumCheck(
        "I3",
        "Each correction is of a call of its key that ended, and leaves a charge of zero or more",
        "SELECT count(*) FROM wallet_entries WHERE request_id IS NOT NULL",
        f"""
        SELECT e.request_id, count(u.request_id) > 0 AS known, coalesce(max(u.cost), 0) - max(e.amount) AS charge
        FROM (SELECT request_id, org_id, key_id, call_month, min(month) AS month, sum(amount)::BIGINT AS amount
              FROM wallet_entries WHERE request_id IS NOT NULL GROUP BY ALL) e
        LEFT JOIN usage u ON u.request_id = e.request_id AND u.org_id = e.org_id AND u.key_id = e.key_id
                         AND u.month = e.call_month AND e.call_month <= e.month AND {ADMITTED}
        GROUP BY e.request_id HAVING NOT known OR charge < 0
        """,
        lambda request_id, known, charge: (
            f"{request_id} was corrected to {money(charge)}."
            if known
            else f"{request_id} was corrected, but is no call of that key and organisation that ended by that month."
        ),
    ),
    SumCheck(
        "I4",
        "Each key's monthly totals are the sums of its calls",
        "SELECT count(*) FROM key_months",
        f"""
        SELECT coalesce(k.name, u.key_id, m.key_id), coalesce(u.month, m.month),
               coalesce(u.calls, 0), coalesce(m.calls, 0), coalesce(u.cost, 0), coalesce(m.spent, 0)
        FROM (SELECT key_id, month, count(*)::BIGINT AS calls, sum(cost)::BIGINT AS cost FROM usage
              WHERE {ADMITTED} GROUP BY ALL) u
        FULL JOIN key_months m ON m.key_id = u.key_id AND m.month = u.month
        LEFT JOIN keys k ON k.id = coalesce(u.key_id, m.key_id)
        WHERE coalesce(u.calls, 0) <> coalesce(m.calls, 0) OR coalesce(u.cost, 0) <> coalesce(m.spent, 0)
        """,
        lambda name, month, rows, calls, cost, spent: (
            f"Key {name} in {month}: {rows} calls in the log and {calls} in the totals, "
            f"costing {money(cost)} and {money(spent)}."
        ),
    ),
    SumCheck(
        "I4",
        "What a key holds in a month is the sum of its open holds",
        "SELECT count(*) FROM key_months",
        """
        SELECT k.name, coalesce(m.month, h.month), coalesce(m.held, 0), coalesce(h.amount, 0) FROM key_months m
        FULL JOIN (SELECT key_id, month, sum(limit_amount)::BIGINT AS amount FROM holds GROUP BY ALL) h
          ON h.key_id = m.key_id AND h.month = m.month
        LEFT JOIN keys k ON k.id = coalesce(m.key_id, h.key_id)
        WHERE coalesce(m.held, 0) <> coalesce(h.amount, 0)
        """,
        lambda name, month, kept, summed: (
            f"Key {name} in {month}: totals hold {money(kept)}, open holds sum to {money(summed)}."
        ),
    ),
    SumCheck(
        "I4",
        "Each charge is its tokens × prices × multiplier, rounded once",
        "SELECT count(*) FROM usage WHERE usage_source IS NOT NULL",
        f"""
        SELECT request_id, cost, {_RECHARGED}::BIGINT AS right_cost
        FROM (SELECT *, {_CHARGE} AS exact FROM usage WHERE usage_source IS NOT NULL)
        WHERE cost <> {_RECHARGED}
        UNION ALL SELECT request_id, cost, 0 FROM usage WHERE usage_source IS NULL AND cost <> 0
        """,
        lambda request_id, cost, right: f"{request_id} was charged {money(cost)}; its tokens make {money(right)}.",
    ),
    SumCheck(
        "I4",
        "Each overrun is what a charge exceeds its hold by",
        "SELECT count(*) FROM usage",
        "SELECT request_id, cost, held, overrun FROM usage WHERE overrun <> greatest(cost - held, 0)",
        lambda request_id, cost, held, overrun: (
            f"{request_id} cost {money(cost)} with {money(held)} held; its overrun says {money(overrun)}."
        ),
    ),
)

Result = tuple[int, list[str]]
"""How many things were looked at, and a sentence for each that is wrong."""


def ask(
    workspace: Workspace, checked: str, wrong: str, say: Callable[..., str], params: dict[str, Any] | None = None
) -> Result:
    """Ask the ledger how many things were looked at and which are wrong; its rows are put into words by `say`."""
    import duckdb

    query = f"""
        WITH wrong AS MATERIALIZED ({wrong})
        SELECT ({checked}) AS checked, (SELECT count(*) FROM wrong) AS found,
               (SELECT list(w) FROM (FROM wrong LIMIT {MOST_SHOWN}) w) AS shown
    """
    try:
        (row,) = workspace.ledger.sql(query, params).to_pylist()
    except (duckdb.Error, Unavailable) as error:
        return 0, [f"Not checked, for the ledger cannot be read: {str(error).partition(chr(10))[0]}"]
    shown = [say(*fields.values()) for fields in row["shown"] or []]
    return row["checked"], shortened(shown, row["found"])


def shortened(violations: list[str], found: int | None = None) -> list[str]:
    """Return the first violations and how many more there are."""
    more = (len(violations) if found is None else found) - MOST_SHOWN
    return [*violations[:MOST_SHOWN], f"and {more:,} more"] if more > 0 else violations
