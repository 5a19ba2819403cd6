"""Builds what a statement says of one organisation's billing month, from the usage ledger and the key store.

The calls are the ledger's, and must agree with the running totals that settlements keep. The wallet's part is a bridge:
opening + credits + adjustments − charged = closing.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import select

from toolkit.billing.leases import FORGOTTEN
from toolkit.core.errors import Conflict
from toolkit.core.money import usd
from toolkit.core.period import Period, billing_month
from toolkit.core.policy import Outcome
from toolkit.ledger.ledger import Ledger
from toolkit.ledger.pricing_sql import ADMITTED, charge_sql
from toolkit.statements.figures import CORRECTED_CALL, FORM, MONEY, SUMS, TOKENS, Figures, figures_of
from toolkit.store.tables import ApiKey, AuditRow, KeyMonth, Organisation, Statement, WalletEntry
from toolkit.store.transaction import Transaction

MOST_IDS = 1_000
"""Response ids that a statement names of one upstream; the request log has all."""

_LIST_COST = charge_sql("1000000")

_MONTH = re.compile(r"(?<!\d)\d{4}-(?:0[1-9]|1[0-2])(?!\d)")

_Totals = dict[tuple[str, str], tuple[int, int]]
"""Month and key → calls and charge (nano-USD)."""


class Moved(Conflict):
    """The ledger and the running totals are of different moments, or disagree."""


def calls_of(ledger: Ledger, org_id: str, period: Period) -> list[dict[str, Any]]:
    """Return the sums of a period's admitted calls by key and model, the costliest first."""
    where, values = period.where()
    tokens = ", ".join(f"sum({name})::BIGINT AS {name}" for name in TOKENS)
    sums: list[dict[str, Any]] = ledger.sql(
        f"SELECT key_id, key_label AS key, coalesce(model, '') AS model, count(*) AS calls, {tokens},"
        f" sum({_LIST_COST})::BIGINT AS list_cost, sum(cost - {_LIST_COST})::BIGINT AS multiplier_effect,"
        " sum(cost)::BIGINT AS charged"
        f" FROM usage WHERE {ADMITTED} AND org_id = ? AND {where}"
        " GROUP BY ALL ORDER BY charged DESC, key_id, model",
        [org_id, *values],
        period=period,
    ).to_pylist()
    return sums


def written_off_of(ledger: Ledger, org_id: str, period: Period) -> Figures:
    """Return the calls of a period that were written off, for their gateway had died or lost touch with its store.

    They cost nothing here, yet their provider may bill them: by upstream, how many were known to have been forwarded,
    how much of their answers had come, and the ids by which the provider knows them. Calls that are known not to have
    been forwarded are left out.
    """
    where, values = period.where()
    upstreams = ledger.sql(
        "SELECT coalesce(upstream, '') AS upstream, count(*) AS calls, sum(held)::BIGINT AS held,"
        " count(seen_bytes) AS forwarded, coalesce(sum(seen_bytes), 0)::BIGINT AS seen_bytes,"
        " coalesce(list(response_id ORDER BY request_id) FILTER (response_id IS NOT NULL), []) AS response_ids"
        f" FROM usage WHERE outcome = '{Outcome.ABANDONED}' AND error IS DISTINCT FROM ? AND org_id = ? AND {where}"
        " GROUP BY ALL ORDER BY upstream",
        [FORGOTTEN, org_id, *values],
        period=period,
    ).to_pylist()
    return {
        "calls": sum(group["calls"] for group in upstreams),
        "upstreams": [
            _with_usd(group | {"response_ids": group["response_ids"][:MOST_IDS]}, ("held",)) for group in upstreams
        ],
    }


def build(
    tx: Transaction,
    org_id: str,
    month: str,
    calls: list[dict[str, Any]],
    written_off: Figures,
    last: Statement | None,
) -> Figures:
    """Return a statement's figures, from the ledger's sums and the key store.

    Args:
        tx: in which nobody else changes what is the organisation's, or a snapshot.
        org_id: whose.
        month: such as "2026-10".
        calls: from `calls_of`.
        written_off: from `written_off_of`.
        last: the organisation's statement before, if there is one.

    Raises:
        Moved: the ledger's sums and the running totals are of different moments, or disagree.
        Conflict: running totals, ledger and wallet do not agree; nothing may be closed.
    """
    org = tx.session.get_one(Organisation, org_id, populate_existing=True)
    period = Period.month(month)
    start, end = period.start, period.end
    assert start is not None  # noqa: S101 - a month has both ends
    assert end is not None  # noqa: S101
    totals = _key_months(tx, org_id)
    keys = _grouped(calls, "key_id", "key")
    _require_agreement(month, keys, totals)

    before = {at: sums for at, sums in totals.items() if at[0] < month}
    entries = _entries(tx, org_id, month)
    if last is None:
        earlier = [entry for entry, _ in entries if _booked_in(entry) < month]
        opening = sum(entry.amount for entry in earlier) - sum(spent for _, spent in before.values())
        booked = [entry for entry, _ in entries if _booked_in(entry) >= month]
        moves = []
    else:
        opening = figures_of(last)["wallet"]["closing"]
        # An entry that the last statement could not know, though it bears a date before that one's end, is here too.
        booked = [entry for entry, seq in entries if _booked_in(entry) >= month or seq > last.audit_seq]
        moves = moved(tx, org_id)
    credited = [_entry(entry) for entry in booked if entry.kind == "credit"]
    adjustments = [_entry(entry) | _about(entry, month) for entry in booked if entry.kind == "adjustment"]
    adjustments += [_correction(tx, *found) for found in moves]

    total = {name: sum(group[name] for group in calls) for name in SUMS}
    bridge = {
        "opening": opening,
        "credits": sum(line["amount"] for line in credited),
        "adjustments": sum(line["amount"] for line in adjustments),
        "charged": total["charged"],
    }
    bridge["closing"] = bridge["opening"] + bridge["credits"] + bridge["adjustments"] - bridge["charged"]
    since = _since(tx, org, totals, month)
    if bridge["closing"] + since["entries"] - since["charged"] != org.balance:
        raise Conflict(
            f"The wallet of {org.name} does not follow from its entries and calls: {month} would end with "
            f"{usd(bridge['closing'])} USD, but the wallet leads to "
            f"{usd(org.balance - since['entries'] + since['charged'])} USD. `keydesk reconcile` says what is wrong."
        )
    return {
        "form": FORM,
        "org": {"id": org.id, "name": org.name},
        "month": month,
        "from": start.isoformat(),
        "until": end.isoformat(),
        "totals": _with_usd(total, MONEY),
        "keys": [_with_usd(group, MONEY) for group in keys],
        "models": [_with_usd(group, MONEY) for group in _grouped(calls, "model")],
        "keys_and_models": [_with_usd(group, MONEY) for group in calls],
        "written_off": written_off,
        "wallet": _with_usd(bridge, tuple(bridge)),
        "credits": credited,
        "adjustments": adjustments,
        **_with_usd({"corrected": _corrected(adjustments)}, ("corrected",)),
        "since": _with_usd(since | {"balance": org.balance}, (*since, "balance")),
        "before": _before(last, before),
        "previous_sha256": last.sha256 if last else None,
    }


def _key_months(tx: Transaction, org_id: str) -> _Totals:
    """Return the running totals of an organisation's keys in all months."""
    query = (
        select(KeyMonth.month, KeyMonth.key_id, KeyMonth.calls, KeyMonth.spent)
        .join(ApiKey, ApiKey.id == KeyMonth.key_id)
        .where(ApiKey.org_id == org_id)
    )
    return {(month, key): (calls, spent) for month, key, calls, spent in tx.session.execute(query)}


def _require_agreement(month: str, keys: Sequence[Mapping[str, Any]], totals: _Totals) -> None:
    logged = {group["key_id"]: (group["calls"], group["charged"]) for group in keys}
    kept = {key_id: sums for (of, key_id), sums in totals.items() if of == month}
    for key_id in sorted(logged.keys() | kept.keys()):
        (calls, charged), (ended, spent) = logged.get(key_id, (0, 0)), kept.get(key_id, (0, 0))
        if (calls, charged) != (ended, spent):
            raise Moved(
                f"Key {key_id} in {month}: {calls:,} calls in the ledger and {ended:,} in the running totals, costing "
                f"{usd(charged)} and {usd(spent)} USD. Nothing was closed; `keydesk reconcile` says what is wrong."
            )


def _booked_in(entry: WalletEntry) -> str:
    """Return the billing month whose books an entry belongs to: a correction's is that of its call, unless closed."""
    return entry.month or billing_month(entry.created_at)


def _entries(tx: Transaction, org_id: str, month: str) -> list[tuple[WalletEntry, int]]:
    """Return the wallet's entries up to a month's end, the oldest first, each with its number in the audit log."""
    acts = select(AuditRow.subject, AuditRow.seq).where(AuditRow.chain == org_id, AuditRow.action.startswith("wallet."))
    seqs = dict(tx.session.execute(acts).all())
    query = select(WalletEntry).where(WalletEntry.org_id == org_id)
    found = tx.session.scalars(query.order_by(WalletEntry.created_at, WalletEntry.id))
    return [(entry, seqs.get(entry.id, 0)) for entry in found if _booked_in(entry) <= month]


def _since(tx: Transaction, org: Organisation, totals: _Totals, month: str) -> dict[str, int]:
    """Return what the wallet was given, and what was charged to it, after a month: nano-USD."""
    entries = tx.session.scalars(select(WalletEntry).where(WalletEntry.org_id == org.id))
    given = sum(entry.amount for entry in entries if _booked_in(entry) > month)
    charged = sum(spent for (of, _), (_, spent) in totals.items() if of > month)
    return {"entries": given, "charged": charged}


def _stated(tx: Transaction, org_id: str) -> _Totals:
    """Return what all statements say of each closed month and key, the corrections in later ones included.

    What lay before the first statement stands there as one sum, of no month and no key.
    """
    stated: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))

    def add(month: str, key_id: str, calls: int, charged: int) -> None:
        before = stated[month, key_id]
        stated[month, key_id] = before[0] + calls, before[1] + charged

    for statement in tx.session.scalars(select(Statement).where(Statement.org_id == org_id).order_by(Statement.month)):
        figures = figures_of(statement)
        if figures["before"] is not None:
            add("", "", figures["before"]["calls"], figures["before"]["charged"])
        for group in figures["keys"]:
            add(statement.month, group["key_id"], group["calls"], group["charged"])
        for line in figures["adjustments"]:
            if line["kind"] == "correction":
                add(line["corrects"] or "", line["key_id"] or "", line["calls"], -line["amount"])
    return dict(stated)


def moved(tx: Transaction, org_id: str) -> list[tuple[tuple[str, str], int, int]]:
    """Return where the running totals of closed months are not what the statements say: place, calls, charge."""
    stated = _stated(tx, org_id)
    months = tx.session.scalars(select(Statement.month).where(Statement.org_id == org_id)).all()
    now: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for (month, key_id), (calls, spent) in _key_months(tx, org_id).items():
        if month <= max(months):
            at = (month, key_id) if month >= min(months) else ("", "")
            now[at] = now[at][0] + calls, now[at][1] + spent
    nothing = (0, 0)
    return [
        (at, now.get(at, nothing)[0] - stated.get(at, nothing)[0], now.get(at, nothing)[1] - stated.get(at, nothing)[1])
        for at in sorted(now.keys() | stated.keys())
        if now.get(at, nothing) != stated.get(at, nothing)
    ]


def _before(last: Statement | None, before: _Totals) -> Figures | None:
    """Return, for an organisation's first statement, what all earlier months come to."""
    if last is not None:
        return None
    sums = {"calls": sum(calls for calls, _ in before.values()), "charged": sum(sums[1] for sums in before.values())}
    return _with_usd(sums, ("charged",))


def _entry(entry: WalletEntry) -> Figures:
    line = {
        "kind": str(entry.kind),
        "id": entry.id,
        "at": entry.created_at.isoformat(),
        "by": entry.created_by,
        "reference": entry.reference,
        "reason": entry.reason,
        "amount": entry.amount,
    }
    return _with_usd(line, ("amount",))


def _about(entry: WalletEntry, month: str) -> Figures:
    """Return what an adjustment is about: the call whose charge it corrects, or the earlier month that it names."""
    if entry.request_id is not None:
        return {
            "kind": CORRECTED_CALL,
            "request_id": entry.request_id,
            "corrects": None if entry.call_month == month else entry.call_month,
            "key_id": entry.key_id,
            "calls": 0,
        }
    named = [of for of in _MONTH.findall(f"{entry.reason} {entry.reference}") if of < month]
    return {"corrects": named[0] if named else None, "key_id": None, "calls": 0}


def _corrected(adjustments: Iterable[Mapping[str, Any]]) -> int:
    """Return what corrections added to charges of calls, nano-USD; below zero if they gave back more."""
    return -sum(int(line["amount"]) for line in adjustments if line["kind"] == CORRECTED_CALL)


def _correction(tx: Transaction, place: tuple[str, str], calls: int, charged: int) -> Figures:
    """Return the line that brings calls into a statement which an earlier one should have had."""
    month, key_id = place
    line = {
        "kind": "correction",
        "id": None,
        "at": tx.now.isoformat(),
        "by": tx.actor.name,
        "reference": "",
        "reason": (
            f"{f'{month}, key {key_id}' if month else 'Months before the first statement'}: {calls:+} calls and "
            f"{usd(charged)} USD charged that no statement had."
        ),
        "amount": -charged,
        "corrects": month or None,
        "key_id": key_id or None,
        "calls": calls,
    }
    return _with_usd(line, ("amount",))


def _grouped(calls: Iterable[Mapping[str, Any]], *names: str) -> list[dict[str, Any]]:
    """Return sums by the first of the columns, the costliest first; the others are its labels."""
    groups: dict[str, dict[str, Any]] = {}
    for row in calls:
        group = groups.setdefault(row[names[0]], {name: row[name] for name in names} | dict.fromkeys(SUMS, 0))
        for name in SUMS:
            group[name] += row[name]
    return sorted(groups.values(), key=lambda group: (-group["charged"], group[names[0]]))


def _with_usd(facts: Mapping[str, Any], names: Iterable[str]) -> Figures:
    """Return facts with each amount again as decimal USD."""
    return {**facts, **{f"{name}_usd": usd(facts[name]) for name in names}}
