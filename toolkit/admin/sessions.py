"""Sessions of people who are signed in to the dashboard: opened, found, ended.

The cookie carries a random id; the store keeps only its SHA-256, so a copy of the store opens no session.
"""

import hashlib
from datetime import timedelta

from sqlalchemy import select, update

from toolkit.admin import sign_in_throttle
from toolkit.core.policy import Role
from toolkit.store.actor import SYSTEM, Actor
from toolkit.store.database import Store
from toolkit.store.tables import Operator, SignInSession
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


def end_all(tx: Transaction, operator: Operator) -> None:
    """End every session of an operator and forget failed tries, in the transaction that changes the operator."""
    tx.session.execute(
        update(SignInSession)
        .where(SignInSession.operator_id == operator.id, SignInSession.ended_at.is_(None))
        .values(ended_at=tx.now)
    )
    sign_in_throttle.forget(tx, operator.email)
