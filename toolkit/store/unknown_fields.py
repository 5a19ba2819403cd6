"""Unknown fields: how often calls had a field, beta or header that Keydesk does not know, by upstream and plan.

Gateways count them by a `tally`; `keydesk findings` names them, so that somebody decides what becomes of them.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, select, text

from toolkit.core.moments import micros
from toolkit.core.secrets import redact
from toolkit.core.strictness import stricter
from toolkit.core.unknown_fields import UnknownFields
from toolkit.store.locks import lock_name
from toolkit.store.tables import Plan, UnknownField, Upstream
from toolkit.store.tally import Counted
from toolkit.store.transaction import Transaction

MOST_NAMES = 100
"""Names that are kept of one upstream: callers choose them, so there could be any number."""

OTHER = "(other)"
"""Stands for all names beyond."""

KEPT = timedelta(days=90)
"""How long a name is kept that is not seen any more: its place is for others then."""

At = tuple[str, str, str]
"""Upstream, plan id and name; see `fields.readable`."""

_ADD = text(
    "INSERT INTO unknown_field (upstream, plan_id, name, seen, first_at, last_at)"
    " VALUES (:upstream, :plan_id, :name, :times, :last_at, :last_at)"
    " ON CONFLICT (upstream, plan_id, name) DO UPDATE SET seen = unknown_field.seen + excluded.seen, last_at ="
    " CASE WHEN unknown_field.last_at > excluded.last_at THEN unknown_field.last_at ELSE excluded.last_at END"
)


def add(tx: Transaction, counts: Mapping[At, Counted]) -> None:
    """Add to what is counted already, at most `MOST_NAMES` names of an upstream, the rest under one; for a `tally`.

    A secret that stands in a name is not kept.
    """
    lock_name(tx, "unknown fields")
    tx.session.execute(delete(UnknownField).where(UnknownField.last_at < tx.now - KEPT))
    names: dict[str, set[str]] = {}
    for upstream, name in tx.session.execute(select(UnknownField.upstream, UnknownField.name)):
        names.setdefault(upstream, set()).add(name)
    added: dict[At, Counted] = {}
    for (upstream, plan_id, raw), (times, last_at) in sorted(counts.items()):
        kept, name = names.setdefault(upstream, set()), redact(raw)
        if name not in kept and len(kept - {OTHER}) >= MOST_NAMES:
            name = OTHER
        kept.add(name)
        past = added.get((upstream, plan_id, name))
        added[upstream, plan_id, name] = (
            Counted(past.times + times, max(past.last_at, last_at)) if past else Counted(times, last_at)
        )
    tx.session.execute(
        _ADD,
        [
            {"upstream": upstream, "plan_id": plan_id, "name": name, "times": times, "last_at": micros(last_at)}
            for (upstream, plan_id, name), (times, last_at) in sorted(added.items())
        ],
    )


class Seen(NamedTuple):
    """A name that calls of a plan to an upstream had.

    Args:
        plan: its name.
        times: how often, since `first_at`.
        treatment: what becomes of it now, the stricter of both.
    """

    upstream: str
    plan: str
    name: str
    times: int
    first_at: datetime
    last_at: datetime
    treatment: UnknownFields


def seen(tx: Transaction) -> list[Seen]:
    """Return what was counted, by upstream, the most frequent first."""
    query = (
        select(UnknownField, Plan.name, Upstream.unknown_fields, Plan.unknown_fields)
        .join(Upstream, Upstream.name == UnknownField.upstream)
        .join(Plan, Plan.id == UnknownField.plan_id)
        .order_by(UnknownField.upstream, UnknownField.seen.desc(), UnknownField.name, Plan.name)
    )
    return [
        Seen(row.upstream, plan, row.name, row.seen, row.first_at, row.last_at, stricter(*map(UnknownFields, wishes)))
        for row, plan, *wishes in tx.session.execute(query)
    ]
