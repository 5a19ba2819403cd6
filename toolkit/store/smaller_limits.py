"""Limits of models that are set larger here than their upstreams have them, as errors about a bound have said.

Gateways count it by a `tally`; `keydesk findings` says how they are set right.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import and_, delete, or_, select, text

from toolkit.core.moments import micros
from toolkit.store.locks import lock_name
from toolkit.store.tables import Model, ModelWay, SmallerLimit
from toolkit.store.tally import Counted
from toolkit.store.transaction import Transaction

KEPT = timedelta(days=90)
"""How long a row is kept that no error renews."""

At = tuple[str, str, str, int]
"""Upstream, its name of the model, the limit's name, and how many tokens it is there."""

_ADD = text(
    "INSERT INTO smaller_limit (upstream, model, name, most, seen, first_at, last_at)"
    " VALUES (:upstream, :model, :name, :most, :times, :last_at, :last_at)"
    " ON CONFLICT (upstream, model, name) DO UPDATE SET seen = smaller_limit.seen + excluded.seen,"
    " most = excluded.most, last_at ="
    " CASE WHEN smaller_limit.last_at > excluded.last_at THEN smaller_limit.last_at ELSE excluded.last_at END"
)


def add(tx: Transaction, counts: Mapping[At, Counted]) -> None:
    """Add to what is counted already; for a `tally`."""
    lock_name(tx, "smaller limits")
    tx.session.execute(delete(SmallerLimit).where(SmallerLimit.last_at < tx.now - KEPT))
    tx.session.execute(
        _ADD,
        [
            {
                "upstream": upstream,
                "model": model,
                "name": name,
                "most": most,
                "times": times,
                "last_at": micros(last_at),
            }
            for (upstream, model, name, most), (times, last_at) in sorted(counts.items())
        ],
    )


class Smaller(NamedTuple):
    """A limit of a model that is set larger than an upstream of it has it.

    Args:
        model: its public id.
        upstream: whose limit is smaller.
        name: of the limit, `max_output` or `context_window`.
        set_to: tokens, here.
        default_output: the bound where a caller gives none, in tokens.
        most: tokens, there.
        times: how often a bound was lowered for it, since `first_at`.
    """

    model: str
    upstream: str
    name: str
    set_to: int
    default_output: int
    most: int
    times: int
    first_at: datetime
    last_at: datetime


def smaller(tx: Transaction) -> list[Smaller]:
    """Return the limits that are still set larger than an upstream has them, by model."""
    own = and_(Model.upstream == SmallerLimit.upstream, Model.upstream_model == SmallerLimit.model)
    way = and_(
        ModelWay.model_id == Model.id,
        ModelWay.upstream == SmallerLimit.upstream,
        ModelWay.upstream_model == SmallerLimit.model,
    )
    query = select(Model, SmallerLimit).join(SmallerLimit, or_(own, select(ModelWay).where(way).exists()))
    found = tx.session.execute(query.order_by(Model.id, SmallerLimit.name, SmallerLimit.upstream))
    return [
        Smaller(
            model.id,
            row.upstream,
            row.name,
            getattr(model, row.name),
            model.default_output,
            row.most,
            row.seen,
            row.first_at,
            row.last_at,
        )
        for model, row in found
        if getattr(model, row.name) > row.most
    ]
