"""Sessions of people who are signed in to the dashboard: opened, found, ended.

The cookie carries a random id; the store keeps only its SHA-256, so a copy of the store opens no session.
"""

import hashlib
from datetime import timedelta

from sqlalchemy import select, update

from toolkit.admin import sign_in_throttle
from toolkit.admin.rights import require_operator_admin
from toolkit.core.policy import Role
from toolkit.store.actor import SYSTEM, Actor
from toolkit.store.database import Store
from toolkit.store.tables import Invitation, Operator, SignInSession
from toolkit.store.transaction import Transaction

LIFETIME = timedelta(hours=12)


def digest(session_id: str) -> str:
    """Return what the store keeps of a session's id."""
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()


def find(store: Store, session_id: str) -> Actor | None:
    """Return who is signed in with this session, or None if it is unknown, expired or ended."""
    with store.read(SYSTEM) as tx:
        operator = tx.session.scalar(
            select(Operator)
            .join(SignInSession, SignInSession.operator_id == Operator.id)
            .where(
                SignInSession.digest == digest(session_id),
                SignInSession.ended_at.is_(None),
                SignInSession.expires_at > tx.now,
                Operator.disabled_at.is_(None),
            )
        )
    return Actor(operator.email, Role(operator.role), operator.org_id) if operator else None


def sign_out(store: Store, session_id: str) -> None:
    """End a session; every tab that uses it is signed out at its next message."""
    with store.write(SYSTEM) as tx:
        tx.session.execute(
            update(SignInSession)
            .where(SignInSession.digest == digest(session_id), SignInSession.ended_at.is_(None))
            .values(ended_at=tx.now)
        )


def end_all(tx: Transaction, operator: Operator, *, keep: str | None = None) -> None:
    """End every session and open password link of an operator and forget failed tries, as they are changed.

    Args:
        tx: the transaction of the change.
        operator: whose.
        keep: digest of a session that stays.
    """
    tx.session.execute(
        update(Invitation)
        .where(Invitation.operator_id == operator.id, Invitation.ended_at.is_(None))
        .values(ended_at=tx.now)
    )
    ended = update(SignInSession).where(SignInSession.operator_id == operator.id, SignInSession.ended_at.is_(None))
    if keep is not None:
        ended = ended.where(SignInSession.digest != keep)
    tx.session.execute(ended.values(ended_at=tx.now))
    sign_in_throttle.forget(tx, operator.email)


def of_operators(tx: Transaction) -> dict[str, list[SignInSession]]:
    """Return the open sessions of those whom the actor may change, by the operator's id, the newest first."""
    require_operator_admin(tx, tx.actor.org_id)
    query = (
        select(SignInSession)
        .join(Operator, Operator.id == SignInSession.operator_id)
        .where(SignInSession.ended_at.is_(None), SignInSession.expires_at > tx.now)
        .order_by(SignInSession.created_at.desc())
    )
    if tx.actor.org_id is not None:
        query = query.where(Operator.org_id == tx.actor.org_id)
    found: dict[str, list[SignInSession]] = {}
    for session in tx.session.scalars(query):
        found.setdefault(session.operator_id, []).append(session)
    return found
