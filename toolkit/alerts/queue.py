"""The queue of alerts on their way, in the key store; and the lease of the one process that sends them.

An alert is taken from the queue after its receiver has taken it. So what a process that is killed in between has sent
is sent again: receivers drop what they have by its id, which stays the same.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, select, text, update

from toolkit.alerts.mail import Mailbox, Security
from toolkit.core.moments import micros
from toolkit.store.tables import AlertDelivery, AlertMailbox, AlertRunner
from toolkit.store.transaction import Transaction, store_now

GIVEN_UP_AFTER = timedelta(days=3)
"""How long an alert is tried."""

FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(hours=1)
"""Pauses after a failure double from the first to the longest."""

AT_ONCE = 20
"""Alerts of one destination that are read at a time: one that has many waiting takes no place from others."""


DESTINATIONS = "alert destinations"
"""The lock of all destinations."""


class Delivery(NamedTuple):
    """An alert to be sent now.

    Args:
        alert_id: stays the same over all tries.
        destination_id, url: where to.
        any_address: whether it may lie in a private network.
        body: JSON.
        fired_at: microseconds since 1970.
        tries: how often it was tried in vain.
        queued_at: UTC.
        mailbox: how it is mailed; None for a webhook.
    """

    alert_id: str
    destination_id: str
    url: str
    any_address: bool
    body: str
    fired_at: int
    tries: int
    queued_at: int
    mailbox: Mailbox | None = None


_DUE = text(
    "SELECT alert_id, destination_id, url, any_address, body, fired_at, tries, queued_at FROM ("
    " SELECT d.alert_id, d.destination_id, t.url, t.any_address, a.body, a.fired_at, d.tries, d.queued_at,"
    " row_number() OVER (PARTITION BY d.destination_id ORDER BY d.tries, d.queued_at, d.alert_id) AS place"
    " FROM alert_delivery d JOIN alert a ON a.id = d.alert_id JOIN alert_destination t ON t.id = d.destination_id"
    " WHERE d.ended_at IS NULL AND d.due_at <= :now) waiting"
    " WHERE place <= :most ORDER BY destination_id, place"
)
_TAKE = text(
    "INSERT INTO alert_runner (id, holder, lease_until) VALUES (1, :holder, :until) ON CONFLICT (id) DO UPDATE SET"
    " holder = excluded.holder, lease_until = excluded.lease_until"
    " WHERE alert_runner.holder = excluded.holder OR alert_runner.lease_until < :now RETURNING holder"
)


def take_lease(tx: Transaction, holder: str, length: timedelta) -> bool:
    """Take the lease, or renew it; return whether it is the holder's.

    Args:
        tx: a write transaction.
        holder: an id of the process.
        length: how long it is the holder's, by the store's clock.
    """
    now = store_now(tx)
    values = {"holder": holder, "until": micros(now + length), "now": micros(now)}
    return tx.session.execute(_TAKE, values).first() is not None


def holds_lease(tx: Transaction, holder: str) -> bool:
    """Whether the lease is the holder's; nobody takes it until the transaction ends."""
    found = tx.session.get(AlertRunner, 1, with_for_update=True, populate_existing=True)
    return found is not None and found.holder == holder and found.lease_until >= store_now(tx)


def end_lease(tx: Transaction, holder: str) -> None:
    """Give the lease back: another process need not wait for its end."""
    tx.session.execute(delete(AlertRunner).where(AlertRunner.holder == holder))


def is_free(tx: Transaction) -> bool:
    """Whether no process has the lease: nothing is sent."""
    until = tx.session.scalar(select(AlertRunner.lease_until))
    return until is None or until < store_now(tx)


def is_of(tx: Transaction, holder: str) -> bool:
    """Whether the lease is, or was last, the holder's."""
    return tx.session.scalar(select(AlertRunner.holder)) == holder


def due(tx: Transaction, but: Collection[str]) -> dict[str, list[Delivery]]:
    """Return what is to be sent now, by destination, what was tried least first.

    Args:
        tx: any transaction.
        but: ids of destinations that are being sent to.
    """
    found: dict[str, list[Delivery]] = {}
    for row in tx.session.execute(_DUE, {"now": micros(tx.now), "most": AT_ONCE}):
        delivery = Delivery(*row)
        if delivery.destination_id not in but:
            found.setdefault(delivery.destination_id, []).append(delivery)
    mailed = select(AlertMailbox).where(AlertMailbox.destination_id.in_(found))
    for mail in tx.session.scalars(mailed) if found else ():
        found[mail.destination_id] = [each._replace(mailbox=mailbox(mail)) for each in found[mail.destination_id]]
    return found


def mailbox(row: AlertMailbox) -> Mailbox:
    """Return how alerts are mailed, as the store has it."""
    return Mailbox(
        row.host,
        row.port,
        Security(row.security),
        row.login,
        row.password_name,
        row.sender,
        tuple(row.recipients.split(",")),
    )


def taken(tx: Transaction, delivery: Delivery) -> None:
    """Note that a receiver has taken an alert."""
    _end(tx, delivery, None, tx.now)


def failed(tx: Transaction, delivery: Delivery, failure: str) -> None:
    """Note that an alert could not be delivered: its destination is tried again after a pause, or no more.

    Args:
        tx: a write transaction.
        delivery: what was tried.
        failure: why, in words.
    """
    given_up = micros(tx.now - GIVEN_UP_AFTER) > delivery.queued_at
    _end(tx, delivery, failure, tx.now if given_up else None)
    after = tx.now + min(FIRST_PAUSE * 2 ** min(delivery.tries, 20), LONGEST_PAUSE)
    waiting = update(AlertDelivery).where(
        AlertDelivery.destination_id == delivery.destination_id,
        AlertDelivery.ended_at.is_(None),
        AlertDelivery.due_at < after,
    )
    tx.session.execute(waiting.values(due_at=after))


def _end(tx: Transaction, delivery: Delivery, failure: str | None, at: datetime | None) -> None:
    row = update(AlertDelivery).where(
        AlertDelivery.alert_id == delivery.alert_id, AlertDelivery.destination_id == delivery.destination_id
    )
    tx.session.execute(row.values(ended_at=at, failure=failure, tries=AlertDelivery.tries + 1))
