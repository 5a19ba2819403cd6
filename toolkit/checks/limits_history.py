"""Limits in their own time: did an admission let a key pass its monthly limit, or a wallet fall below zero?

A limit that was raised hides what went before, and one that was lowered makes it look wrong; so each call is judged by
the cap that was in force when it was admitted. The audit log knows when limits and wallets changed.
"""

import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import func, select

from toolkit.core.moments import micros, moment
from toolkit.core.money import parse_usd, usd
from toolkit.core.policy import HoldPolicy
from toolkit.ledger.pricing_sql import ADMITTED
from toolkit.store.tables import ApiKey, AuditRow, Organisation, WalletEntry
from toolkit.store.transaction import Transaction

_SLOT = 300_000_000  # microseconds: waiting commits and clocks that differ put a call into a neighbouring slot at most
_EVER = 2**40  # slots
_NO_CAP = 2**62  # nano-USD


@dataclass(frozen=True, slots=True)
class Caps:
    """What is capped.

    Args:
        owner, month, amount: columns of the ledger's views `usage` and `holds`: whose call it is, the month that the
            cap is for, and what a hold takes of it.
        view: of the owners.
        state: a column of that view that changes with every change of the cap.
        told: reads from the audit log, in order: owner, moment, cap in nano-USD, whether calls were held for in full,
            and the state.
        say: puts what `exceeded` selects into words.
        given_back: DuckDB's SQL for what made room under the cap again: owner, month, moment, and amount below zero.
    """

    owner: str
    month: str
    amount: str
    view: str
    state: str
    told: Callable[[Transaction], Iterator[tuple[str, datetime, int, bool, int]]]
    say: Callable[[str, str, int, int, int], str]
    given_back: str = "SELECT '' AS owner, '' AS month, NULL::TIMESTAMPTZ AS moment, 0::BIGINT AS amount WHERE false"


@dataclass(frozen=True, slots=True)
class _Cap:
    """From a slot of time on, `amount` nano-USD; not `firm` is policy `expected`, which may hold less than the cost."""

    since: int
    amount: int
    firm: bool


def exceeded(tx: Transaction, caps: Caps) -> tuple[str, dict[str, Any]]:
    """Return the DuckDB query, with its parameters, of what admissions let beyond the cap of their time.

    Time is cut into spans of one cap. If a call that held something was admitted in a span, all calls admitted until
    the span's end must fit under its cap: with what each surely had spent or held by then, which is the lesser of its
    cost and its hold, or its whole cost if it had ended before the span; less what corrections had given back. So
    overruns are allowed for, and no verdict hangs on the order of two calls. An owner whose cap changes between this
    and the query is left to the next time.

    Args:
        tx: reads the audit log as far as the actor may.
        caps: `KEYS` or `WALLETS`.

    Returns:
        The query selects what `caps.say` takes: name, month, used, cap, last slot.
    """
    histories: dict[str, list[_Cap]] = defaultdict(list)
    states: dict[str, int] = {}
    for owner, at, amount, firm, state in caps.told(tx):
        history, states[owner] = histories[owner], state
        if not history:
            history.append(_Cap(-_EVER, amount, firm))
        elif (history[-1].amount, history[-1].firm) != (amount, firm):
            history.append(_Cap(max(micros(at) // _SLOT, history[-1].since), amount, firm))
    params: dict[str, list[Any]] = {name: [] for name in ("owner", "state", "first", "last", "cap", "firm_since")}
    for owner, history in histories.items():
        for span in _spans(history):
            if span[2] < _NO_CAP:
                for column, value in zip(params.values(), (owner, states[owner], *span), strict=True):
                    column.append(value)
    query = f"""
        WITH spans AS (
            SELECT unnest($owner::VARCHAR[]) AS owner, unnest($state::BIGINT[]) AS state,
                   unnest($first::BIGINT[]) AS first, unnest($last::BIGINT[]) AS last,
                   unnest($cap::BIGINT[]) AS cap, unnest($firm_since::BIGINT[]) AS firm_since
        ), owners AS (
            SELECT owner, bool_or(first > {-_EVER} OR last < {_EVER}) AS changed FROM spans GROUP BY owner
        ), parts AS (
            SELECT {caps.owner} AS owner, {caps.month} AS month, epoch_us(admitted_at) // {_SLOT} AS began,
                   epoch_us(settled_at) // {_SLOT} AS ended, least(cost, held) AS sure, cost, held
            FROM usage WHERE {ADMITTED}
            UNION ALL
            SELECT {caps.owner}, {caps.month}, epoch_us(admitted_at) // {_SLOT}, NULL,
                   {caps.amount}, {caps.amount}, {caps.amount} FROM holds
            UNION ALL
            SELECT owner, month, epoch_us(moment) // {_SLOT}, epoch_us(moment) // {_SLOT}, amount, amount, NULL
            FROM ({caps.given_back})
        ), calls AS (  -- times matter only to those whose cap ever changed
            SELECT owner, month, CASE WHEN changed THEN began ELSE 0 END AS began,
                   CASE WHEN changed THEN ended END AS ended,
                   sum(sure) AS sure, sum(cost) AS cost, max(held) AS held
            FROM parts JOIN owners USING (owner) GROUP BY ALL
        ), sums AS (
            SELECT owner, month, state, first, last, cap, coalesce(max(held) FILTER (began >= first), 0) AS largest,
                   sum(CASE WHEN ended + 2 < first THEN cost WHEN began >= firm_since THEN sure ELSE 0 END) AS total
            FROM calls JOIN spans USING (owner) WHERE began <= last GROUP BY ALL
        )
        SELECT name, month, greatest(total, largest)::BIGINT AS used, cap, last
        FROM sums JOIN {caps.view} AS capped ON capped.id = sums.owner AND capped.{caps.state} = sums.state
        WHERE largest > 0 AND greatest(total, largest) > cap ORDER BY name, month, first
    """
    return query, params


def _spans(history: Sequence[_Cap]) -> Iterator[tuple[int, int, int, int]]:
    """Yield spans that cover all time: first and last slot, cap, and since when all calls were held for in full.

    A change may have been seen by calls of the slot before its own, and unseen by those of the slot after it: there
    the higher of both caps counts.
    """
    firsts = [cap.since - 1 for cap in history]
    lasts = [*(cap.since + 1 for cap in history[1:]), _EVER]
    edges = sorted({-_EVER, *firsts[1:], *(last + 1 for last in lasts)})
    firm_since = -_EVER
    for first, end in pairwise(edges):
        seen = history[bisect_left(lasts, first) : bisect_right(firsts, first)]
        if not all(cap.firm for cap in seen):
            firm_since = end
        yield first, end - 1, max(cap.amount for cap in seen), firm_since


def unrecorded(tx: Transaction) -> tuple[int, list[str]]:
    """Return how many limits and wallets were looked at, and a sentence for each that differs from the audit log."""
    limits = {key_id: (_limit(facts), facts["policy"]) for _, key_id, _, facts in _acts(tx, "key")}
    given = {org_id: amount for org_id, _, amount, _, _ in _wallets(tx)}
    keys = select(ApiKey.id, ApiKey.name, ApiKey.monthly_limit, ApiKey.hold_policy)
    booked = select(WalletEntry.org_id, func.sum(WalletEntry.amount).label("amount")).group_by(WalletEntry.org_id)
    sums = booked.subquery()
    wallets = select(Organisation.id, Organisation.name, sums.c.amount).outerjoin(
        sums, sums.c.org_id == Organisation.id
    )
    if tx.actor.org_id is not None:
        keys = keys.where(ApiKey.org_id == tx.actor.org_id)
        wallets = wallets.where(Organisation.id == tx.actor.org_id)
    looked, wrong = 0, []
    for key_id, name, limit, policy in tx.session.execute(keys):
        looked += 1
        told = limits.get(key_id)
        if told is None:
            wrong.append(f"Key {name}: the audit log does not know it.")
        elif told != (limit, policy):
            wrong.append(
                f"Key {name}: its limit is {_in_words(limit)}, policy {policy}; "
                f"the audit log says {_in_words(told[0])}, policy {told[1]}."
            )
    for org_id, name, amount in tx.session.execute(wallets):
        looked += 1
        entries, told_sum = int(amount or 0), given.get(org_id, 0)
        if entries != told_sum:
            wrong.append(f"{name}: its wallet was given {usd(entries)} USD; the audit log says {usd(told_sum)} USD.")
    return looked, wrong


def _in_words(limit: int | None) -> str:
    return "none" if limit is None else f"{usd(limit)} USD"


def _acts(tx: Transaction, noun: str) -> Iterator[tuple[str, str, datetime, dict[str, Any]]]:
    """Yield chain, subject, moment and new facts of each act on a noun, chain by chain in the order of the acts."""
    query = select(AuditRow.chain, AuditRow.subject, AuditRow.at, AuditRow.after)
    query = query.where(AuditRow.action.startswith(f"{noun}."))
    if tx.actor.org_id is not None:
        query = query.where(AuditRow.chain == tx.actor.org_id)
    ordered = query.order_by(AuditRow.chain, AuditRow.seq).execution_options(yield_per=1_000)
    for chain, subject, at, after in tx.session.execute(ordered):
        if after is not None:
            yield chain, subject, at, json.loads(after)


def _limit(facts: dict[str, Any]) -> int | None:
    told = facts["monthly_limit_usd"]
    return None if told is None else parse_usd(told)


def _keys(tx: Transaction) -> Iterator[tuple[str, datetime, int, bool, int]]:
    for _, key_id, at, facts in _acts(tx, "key"):
        limit, strict = _limit(facts), facts["policy"] == HoldPolicy.STRICT
        yield key_id, at, limit if strict and limit is not None else _NO_CAP, strict, facts["version"]


def _wallets(tx: Transaction) -> Iterator[tuple[str, datetime, int, bool, int]]:
    given: dict[str, int] = defaultdict(int)
    for org_id, _, at, facts in _acts(tx, "wallet"):
        given[org_id] += parse_usd(facts["amount_usd"])
        yield org_id, at, given[org_id], True, given[org_id]


def _until(last: int) -> str:
    # A span ends two slots before the next change: calls of the slot before it may have seen it.
    return f", in force until about {moment((last + 2) * _SLOT):%Y-%m-%d %H:%M} UTC" if last < _EVER else ""


KEYS = Caps(
    owner="key_id",
    month="month",
    amount="limit_amount",
    view="keys",
    state="version",
    told=_keys,
    say=lambda name, month, used, cap, last: (
        f"Key {name} in {month}: let up to {usd(used)} USD under a limit of {usd(cap)} USD{_until(last)}."
    ),
    # A correction that charges more came after the calls that it must not accuse.
    given_back=(
        "SELECT key_id AS owner, month, created_at AS moment, -amount AS amount FROM wallet_entries"
        " WHERE request_id IS NOT NULL AND amount > 0"
    ),
)
WALLETS = Caps(
    owner="org_id",
    month="''",
    amount="amount",
    view="orgs",
    state="credited",
    told=_wallets,
    say=lambda name, _month, used, cap, last: (
        f"{name}: let up to {usd(used)} USD on a wallet that had been given {usd(cap)} USD{_until(last)}."
    ),
)
