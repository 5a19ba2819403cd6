"""Refused fields: how often an upstream's model refused a field that gateways add to requests.

Gateways count it by a `tally`; `keydesk findings` says which setting of the upstream makes calls go on at once.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, select, text

from toolkit.core.added_fields import REMEDIES
from toolkit.core.moments import micros
from toolkit.store.locks import lock_name
from toolkit.store.tables import RefusedField, Upstream
from toolkit.store.tally import Counted
from toolkit.store.transaction import Transaction

KEPT = timedelta(days=90)
"""How long a row is kept that no refusal renews."""

At = tuple[str, str, str]
"""Upstream, its name of the model, and the field's name."""

_ADD = text(
    "INSERT INTO refused_field (upstream, model, name, seen, first_at, last_at)"
    " VALUES (:upstream, :model, :name, :times, :last_at, :last_at)"
    " ON CONFLICT (upstream, model, name) DO UPDATE SET seen = refused_field.seen + excluded.seen, last_at ="
    " CASE WHEN refused_field.last_at > excluded.last_at THEN refused_field.last_at ELSE excluded.last_at END"
)


def add(tx: Transaction, counts: Mapping[At, Counted]) -> None:
    """Add to what is counted already; for a `tally`."""
    lock_name(tx, "refused fields")
    tx.session.execute(delete(RefusedField).where(RefusedField.last_at < tx.now - KEPT))
    tx.session.execute(
        _ADD,
        [
            {"upstream": upstream, "model": model, "name": name, "times": times, "last_at": micros(last_at)}
            for (upstream, model, name), (times, last_at) in sorted(counts.items())
        ],
    )


class Refused(NamedTuple):
    """A field that an upstream does not take.

    Args:
        models: the upstream's names of those that refused it.
        times: how often, since `first_at`.
    """

    upstream: str
    name: str
    models: tuple[str, ...]
    times: int
    first_at: datetime
    last_at: datetime


def refused(tx: Transaction) -> list[Refused]:
    """Return the fields that are still added to requests though they were refused, by upstream and name."""
    query = select(RefusedField, Upstream).join(Upstream, Upstream.name == RefusedField.upstream)
    rows: dict[tuple[str, str], list[RefusedField]] = {}
    for row, upstream in tx.session.execute(query.order_by(RefusedField.upstream, RefusedField.name)):
        remedy = REMEDIES.get(row.name)
        if remedy is None or getattr(upstream, remedy.trait) != remedy.value:
            rows.setdefault((row.upstream, row.name), []).append(row)
    return [
        Refused(
            upstream,
            name,
            tuple(sorted(row.model for row in found)),
            sum(row.seen for row in found),
            min(row.first_at for row in found),
            max(row.last_at for row in found),
        )
        for (upstream, name), found in rows.items()
    ]
