"""Destinations: to whom alerts are sent. Platform admins name them for all, org admins for their own organisation.

Who has access to an organisation must not reach what lies behind the machine that sends: what an org admin names is
sent to public addresses alone, by https.
"""

import json
from typing import NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select

from toolkit.admin import organisations, rights
from toolkit.alerts import mail, messages, queue, webhook
from toolkit.alerts.mail import Mailbox
from toolkit.core import words
from toolkit.core.destinations import fault_of_host
from toolkit.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from toolkit.core.ids import new_id
from toolkit.core.policy import Role
from toolkit.core.secrets import Keyring
from toolkit.store import audit
from toolkit.store.actor import Actor
from toolkit.store.locks import lock_name, lock_orgs
from toolkit.store.tables import Alert, AlertDelivery, AlertDestination, AlertMailbox
from toolkit.store.transaction import Transaction

MOST = 20
"""Destinations of one organisation, and of the platform: each may be sent to at the same time."""

LONGEST_URL = 2_048
"""Characters."""

NOBODY_SENDS = "No process sends alerts. Start one with `keydesk alerts run` (or `keydesk up`), then ask again."


NOBODY = "nobody to tell"
"""What becomes of an alert for which there is no destination."""


class Delivered(NamedTuple):
    """An alert and what became of it at one destination.

    Args:
        alert: what was noticed.
        destination: its name; None if there was none to send it to.
        delivery: what became of it there.
    """

    alert: Alert
    destination: str | None
    delivery: AlertDelivery | None

    @property
    def state(self) -> str:
        """What became of it, in a word or three."""
        if self.delivery is None:
            return NOBODY
        if self.delivery.ended_at is None:
            return "waiting"
        return "given up" if self.delivery.failure else "sent"

    @property
    def message(self) -> str:
        """What the alert says."""
        return str(json.loads(self.alert.body)["data"]["message"])


def add(tx: Transaction, keyring: Keyring, name: str, url: str, org: str | None = None) -> tuple[AlertDestination, str]:
    """Add a destination; return it, and the secret that its receiver verifies signatures with.

    Args:
        tx: as a platform admin, or as an org admin of the organisation.
        keyring: the peppers, from which the secret is derived.
        name: not another's of the same organisation.
        url: of the receiver, https; a platform admin may name one of http, and one in a private network.
        org: id or name of whose alerts it gets; None is everybody's, and the platform's own.

    Raises:
        Forbidden: the actor may not.
        InvalidInput: the URL cannot be used, or not by this actor.
        Conflict: the name is taken, or there are too many.
    """
    org_id = organisations.find(tx, org).id if org is not None else tx.actor.org_id
    _require_admin(tx, org_id)
    any_address = tx.actor.role is Role.PLATFORM_ADMIN
    check_url(url, any_address=any_address)
    row = _entered(tx, name, url, org_id, any_address=any_address)
    audit.record(tx, "destination.add", row.id, org_id=org_id, after=_facts(row))
    return row, webhook.secret_of(keyring, row.id)


def add_mailbox(tx: Transaction, name: str, mailbox: Mailbox, org: str | None = None) -> AlertDestination:
    """Add a destination that gets alerts by e-mail.

    Args:
        tx: as a platform admin: a mail server may lie in a private network, and its password is the platform's.
        name: not another's of the same organisation.
        mailbox: by which server, from and to whom.
        org: id or name of whose alerts it gets; None is everybody's, and the platform's own.

    Raises:
        Forbidden: the actor may not.
        InvalidInput: a value cannot be used.
        Conflict: the name is taken, or there are too many.
    """
    rights.require_platform_admin(tx)
    mail.check(mailbox)
    org_id = organisations.find(tx, org).id if org is not None else None
    row = _entered(tx, name, f"mailto:{','.join(mailbox.recipients)}", org_id, any_address=True)
    tx.session.add(
        AlertMailbox(
            destination_id=row.id,
            host=mailbox.host,
            port=mailbox.port,
            security=mailbox.security,
            login=mailbox.login,
            password_name=mailbox.password_name,
            sender=mailbox.sender,
            recipients=",".join(mailbox.recipients),
        )
    )
    tx.session.flush()
    facts = {"server": f"{mailbox.host}:{mailbox.port}", "password": mailbox.password_name}
    audit.record(tx, "destination.add", row.id, org_id=org_id, after=_facts(row) | facts)
    return row


def mailbox_of(tx: Transaction, row: AlertDestination) -> Mailbox | None:
    """Return how a destination's alerts are mailed; None if they are not, or the actor is of an organisation."""
    if tx.actor.org_id is not None:
        return None
    found = tx.session.get(AlertMailbox, row.id)
    return queue.mailbox(found) if found is not None else None


def _entered(tx: Transaction, name: str, url: str, org_id: str | None, *, any_address: bool) -> AlertDestination:
    """Enter a destination whose values were judged; return it.

    Raises:
        InvalidInput: the name cannot be one.
        Conflict: the name is taken, or there are too many.
    """
    name = words.check_name(name, "destination's name")
    if org_id is not None:
        lock_orgs(tx, org_id)
    lock_name(tx, queue.DESTINATIONS)
    others = [row.name for row in tx.session.scalars(select(AlertDestination).where(_of(org_id)))]
    if name in others:
        raise Conflict(f"There is already a destination named {name!r}. Choose another name.")
    if len(others) >= MOST:
        raise Conflict(f"There are {MOST} destinations already, which is the most. Remove one first.")
    row = AlertDestination(
        id=new_id("dest"),
        org_id=org_id,
        name=name,
        url=url,
        any_address=any_address,
        created_at=tx.now,
        created_by=tx.actor.name,
    )
    tx.session.add(row)
    tx.session.flush()
    return row


def remove(tx: Transaction, name: str, reason: str = "") -> AlertDestination:
    """Remove a destination, with all that waits to be sent to it.

    Raises:
        Forbidden: the actor may not.
        NotFound: there is none that the actor may see.
    """
    row = _for_change(tx, name)
    for table in (AlertDelivery, AlertMailbox):
        tx.session.execute(delete(table).where(table.destination_id == row.id))
    tx.session.execute(delete(AlertDestination).where(AlertDestination.id == row.id))
    audit.record(tx, "destination.remove", row.id, org_id=row.org_id, before=_facts(row), reason=reason)
    return row


def secret(tx: Transaction, keyring: Keyring, name: str) -> str:
    """Return the secret of a destination once more, for its receiver; the audit log says that it was shown.

    Raises:
        Forbidden: the actor may not.
        NotFound: there is none that the actor may see.
        Conflict: it gets e-mail, which is not signed.
    """
    row = _for_change(tx, name)
    if is_mailed(row):
        raise Conflict(f"{row.name!r} gets e-mail, which is not signed: there is no secret.")
    audit.record(tx, "destination.secret", row.id, org_id=row.org_id)
    return webhook.secret_of(keyring, row.id)


def test(tx: Transaction, name: str) -> str:
    """Queue a test alert for a destination; return the alert's id.

    Raises:
        Forbidden: the actor may not.
        NotFound: there is none that the actor may see.
        Conflict: no process sends.
    """
    row = _for_change(tx, name)
    if queue.is_free(tx):
        raise Conflict(NOBODY_SENDS)
    alert_id = new_id("alert")
    alert = Alert(
        id=alert_id,
        org_id=row.org_id,
        kind="test",
        subject=row.id,
        fired_at=tx.now,
        body=messages.test_body(alert_id, row.name, tx.now),
    )
    tx.session.add(alert)
    tx.session.flush()
    delivery = {"alert_id": alert_id, "destination_id": row.id, "queued_at": tx.now, "due_at": tx.now, "tries": 0}
    tx.session.execute(insert(AlertDelivery), [delivery])
    audit.record(tx, "destination.test", row.id, org_id=row.org_id, after={"alert": alert_id})
    return alert_id


def list_all(tx: Transaction) -> list[AlertDestination]:
    """Return the destinations that the actor may see, the platform's first."""
    query = select(AlertDestination)
    if tx.actor.org_id is not None:
        query = query.where(_of(tx.actor.org_id))
    found = list(tx.session.scalars(query))
    return sorted(found, key=lambda row: (row.org_id or "", row.name))


def find(tx: Transaction, name_or_id: str) -> AlertDestination:
    """Return the destination with this id or name.

    Raises:
        NotFound: there is none that the actor may see.
        Conflict: several have this name.
    """
    query = select(AlertDestination).where(or_(AlertDestination.id == name_or_id, AlertDestination.name == name_or_id))
    if tx.actor.org_id is not None:
        query = query.where(_of(tx.actor.org_id))
    found = list(tx.session.scalars(query))
    if len(found) > 1:
        raise Conflict(f"Several destinations are named {name_or_id!r}: give the id of one, by `keydesk alerts list`.")
    if not found:
        raise NotFound(f"No destination is named {name_or_id!r}. `keydesk alerts list` shows them.")
    return found[0]


def is_mailed(row: AlertDestination) -> bool:
    """Whether a destination gets e-mail, and no webhooks."""
    return row.url.startswith("mailto:")


def may_change(actor: Actor, row: AlertDestination) -> bool:
    """Whether an actor may remove and test a destination, and see its secret; services refuse others anyway."""
    if actor.role is Role.PLATFORM_ADMIN:
        return True
    return actor.role is Role.ORG_ADMIN and row.org_id == actor.org_id and not row.any_address


def shown_url(tx: Transaction, row: AlertDestination) -> str:
    """Return a destination's URL as the actor may read it: what follows the host may be a secret, not for analysts."""
    return row.url if tx.actor.role is not Role.ANALYST else _origin(row.url)


def history(
    tx: Transaction, *, org: str | None = None, alert_id: str | None = None, limit: int = 100
) -> list[Delivered]:
    """Return the newest alerts that the actor may see and what became of each, newest first.

    Args:
        tx: any actor; people of one organisation see its alerts, and what became of them at its own destinations.
        org: id or name; only alerts of this organisation.
        alert_id: only this one.
        limit: the most lines.
    """
    org_id = organisations.find(tx, org).id if org is not None else tx.actor.org_id
    query = select(Alert, AlertDestination.name, AlertDelivery).select_from(Alert)
    ours = AlertDelivery.alert_id == Alert.id
    if tx.actor.org_id is not None:
        own = select(AlertDestination.id).where(_of(tx.actor.org_id))
        ours = and_(ours, AlertDelivery.destination_id.in_(own))
    query = query.outerjoin(AlertDelivery, ours)
    query = query.outerjoin(AlertDestination, AlertDestination.id == AlertDelivery.destination_id)
    query = query.order_by(Alert.fired_at.desc(), Alert.id, AlertDelivery.destination_id).limit(limit)
    if org_id is not None:
        query = query.where(Alert.org_id == org_id)
    if alert_id is not None:
        query = query.where(Alert.id == alert_id)
    return [Delivered(*row) for row in tx.session.execute(query)]


def count_open(tx: Transaction) -> dict[str, int]:
    """Return how many alerts wait for each destination that has any, by its id."""
    query = select(AlertDelivery.destination_id, func.count()).where(AlertDelivery.ended_at.is_(None))
    return {row[0]: row[1] for row in tx.session.execute(query.group_by(AlertDelivery.destination_id))}


def check_url(url: str, *, any_address: bool) -> None:
    """Refuse what cannot be a destination's URL.

    Args:
        url: as it was typed.
        any_address: whether http and private networks are allowed.

    Raises:
        InvalidInput: says what is wrong with it.
    """
    if len(url) > LONGEST_URL:
        raise InvalidInput(f"The URL has {len(url):,} characters; at most {LONGEST_URL:,} are allowed.")
    try:
        parts = urlsplit(url)
        whole = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        whole = False
    if not whole or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput("The URL must look like https://alerts.example.com/keydesk, in ASCII.")
    if parts.username or parts.password:
        raise InvalidInput("The URL must hold no user or password: who receives an alert verifies its signature.")
    if not any_address and parts.scheme != "https":
        raise InvalidInput("The URL must begin with https://. Only a platform admin may name one of http.")
    if fault := fault_of_host(parts.hostname or "", public_only=not any_address):
        raise InvalidInput(f"Alerts cannot be sent there: {fault}.")


def _of(org_id: str | None) -> ColumnElement[bool]:
    return AlertDestination.org_id == org_id if org_id is not None else AlertDestination.org_id.is_(None)


def _require_admin(tx: Transaction, org_id: str | None) -> None:
    if org_id is None:
        rights.require_platform_admin(tx)
    else:
        rights.require_key_admin(tx, org_id)


def _for_change(tx: Transaction, name: str) -> AlertDestination:
    row = find(tx, name)
    _require_admin(tx, row.org_id)
    if row.any_address and tx.actor.role is not Role.PLATFORM_ADMIN:
        raise Forbidden(f"The destination {row.name!r} was named by the platform. Ask a platform admin.")
    if row.org_id is not None:
        lock_orgs(tx, row.org_id)
    lock_name(tx, queue.DESTINATIONS)
    return row


def _origin(url: str) -> str:
    if url.startswith("mailto:"):
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/…"


def _facts(row: AlertDestination) -> dict[str, str]:
    return {"name": row.name, "url": _origin(row.url)}
