"""Incidents: a provider does not serve our account, since when and in which words; until a call succeeds again.

Gateways note them in memory and write them beside the calls, so a call that succeeds costs no look at the store. There
is one row for an upstream, a fault, our credential and, where other models may do, a model: its last incident.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import select, text, update

from toolkit.core.account_fault import AccountFault
from toolkit.core.moments import micros
from toolkit.store.locks import lock_name
from toolkit.store.tables import Upstream, UpstreamIncident
from toolkit.store.transaction import Transaction

SAME = timedelta(hours=1)
"""An incident that comes back so soon after its end goes on: of several machines of a provider, one may still do."""


class At(NamedTuple):
    """Which incident.

    Args:
        upstream: its name.
        fault: an `AccountFault`.
        model: the upstream's name of the model, where other models may do; else empty.
        credential: the name of our credential; empty if it does not matter, or is not known.
    """

    upstream: str
    fault: AccountFault
    model: str
    credential: str = ""


class Refused(NamedTuple):
    """Calls that were refused, since what was written before.

    Args:
        first_at, last_at: UTC.
        calls: how many.
        words: what the provider said to the last one, scrubbed.
    """

    first_at: datetime
    last_at: datetime
    calls: int
    words: str


_ADD = text(
    "INSERT INTO upstream_incident (upstream, fault, model, credential, first_at, last_at, calls, words, ended_at)"
    " VALUES (:upstream, :fault, :model, :credential, :first_at, :last_at, :calls, :words, NULL)"
    " ON CONFLICT (upstream, fault, model, credential) DO UPDATE SET"
    " first_at = CASE WHEN upstream_incident.ended_at < :same THEN excluded.first_at"
    " ELSE upstream_incident.first_at END,"
    " calls = CASE WHEN upstream_incident.ended_at < :same THEN 0 ELSE upstream_incident.calls END + excluded.calls,"
    " last_at = CASE WHEN upstream_incident.last_at > excluded.last_at THEN upstream_incident.last_at"
    " ELSE excluded.last_at END,"
    " words = excluded.words,"
    " ended_at = CASE WHEN upstream_incident.ended_at > excluded.last_at THEN upstream_incident.ended_at END"
)
_END = text(
    "UPDATE upstream_incident SET ended_at = :at WHERE upstream = :upstream AND fault = :fault AND model = :model"
    " AND credential = :credential AND ended_at IS NULL AND last_at <= :at"
)


def write(tx: Transaction, refused: Mapping[At, Refused], answered: Mapping[At, datetime]) -> None:
    """Write what a gateway has seen.

    Args:
        tx: which may write.
        refused: calls that add to an incident, or begin one.
        answered: incidents that have ended, and when the call succeeded (UTC) that showed it; a refusal that another
            gateway has seen since keeps it open.
    """
    lock_name(tx, "incidents")
    for at, seen in sorted(refused.items()):
        moments = {"first_at": micros(seen.first_at), "last_at": micros(seen.last_at)}
        same = micros(seen.first_at - SAME)
        tx.session.execute(_ADD, {**at._asdict(), **moments, "calls": seen.calls, "words": seen.words, "same": same})
    for at, moment in sorted(answered.items()):
        tx.session.execute(_END, {**at._asdict(), "at": micros(moment)})


def end_with(tx: Transaction, upstream: str, credentials: Collection[str]) -> None:
    """End the incidents of credentials that an upstream has no more: no call can show that they are over."""
    tx.session.execute(
        update(UpstreamIncident)
        .where(UpstreamIncident.upstream == upstream, UpstreamIncident.ended_at.is_(None))
        .where(UpstreamIncident.credential.in_(credentials))
        .values(ended_at=tx.now)
    )


def end_all(tx: Transaction, upstream: str) -> None:
    """End the incidents of an upstream that is called no more."""
    lasting = UpstreamIncident.ended_at.is_(None)
    tx.session.execute(
        update(UpstreamIncident).where(UpstreamIncident.upstream == upstream, lasting).values(ended_at=tx.now)
    )


def open_incidents(tx: Transaction) -> list[UpstreamIncident]:
    """Return the incidents that last, by upstream, the oldest first; to an organisation those of its own accounts."""
    query = select(UpstreamIncident).where(UpstreamIncident.ended_at.is_(None))
    if tx.actor.org_id is not None:
        query = query.join(Upstream, Upstream.name == UpstreamIncident.upstream)
        query = query.where(Upstream.org_id == tx.actor.org_id)
    found = list(tx.session.scalars(query.order_by(UpstreamIncident.upstream, UpstreamIncident.first_at)))
    for incident in found:
        tx.session.expunge(incident)
    return found
