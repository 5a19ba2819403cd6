"""Signing in to the dashboard: password check with a throttle, and sessions that can be ended.

The cookie carries a random id; the store keeps only its SHA-256, so a copy of the store opens no session.
"""

import hashlib
import secrets
from datetime import timedelta

from sqlalchemy import delete, func, or_, select, update

from toolkit import accounts, audit
from toolkit.credentials import new_id
from toolkit.database import SYSTEM, Actor, Store, lock_name
from toolkit.errors import SignInFailed
from toolkit.models import Operator, SignInFailure, SignInSession
from toolkit.policy import Role

LIFETIME = timedelta(hours=12)
THROTTLE_WINDOW = timedelta(minutes=15)
TRIES_PER_EMAIL = 8
TRIES_PER_ADDRESS = 40


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def email_subject(email: str) -> str:
    """Return how the throttle knows an e-mail, or whatever was typed for one: by its digest."""
    return f"email:{_digest(email)}"


def sign_in(store: Store, email: str, password: str, address: str) -> str:
    """Check a password and open a session; return the id for the cookie.

    Takes about 0.3 s of CPU (bcrypt): call it in a thread, never on an event loop.

    Args:
        store: the key store.
        email, password: as typed.
        address: the client's, for the throttle.

    Raises:
        SignInFailed: wrong, or too many failures in the last 15 minutes; the message does not say which part.
    """
    email = email.strip().lower()[:256]
    this_try = _begin_try(store, email, address)
    with store.read(SYSTEM) as tx:
        operator = accounts.find_operator(tx, email)
    if not accounts.password_matches(operator, password) or operator is None:
        raise SignInFailed("E-mail or password is wrong.")
    session_id = secrets.token_urlsafe(32)
    with store.write(Actor(operator.email, Role(operator.role), operator.org_id)) as tx:
        # Locked: a password that is reset at this moment ends the session, or is seen here.
        current = tx.session.get(Operator, operator.id, with_for_update={"key_share": True})
        if current is None or current.password_hash != operator.password_hash:
            raise SignInFailed("E-mail or password is wrong.")
        current.last_sign_in_at = tx.now
        tx.session.add(
            SignInSession(
                digest=_digest(session_id),
                operator_id=operator.id,
                created_at=tx.now,
                expires_at=tx.now + LIFETIME,
                ended_at=None,
            )
        )
        forgiven = or_(SignInFailure.subject == email_subject(email), SignInFailure.id.in_(this_try))
        tx.session.execute(delete(SignInFailure).where(forgiven))
        audit.record(tx, "operator.sign_in", operator.id, org_id=operator.org_id)
    return session_id


def _begin_try(store: Store, email: str, address: str) -> list[str]:
    """Count a try as failed until it has succeeded, so that no number of tries at once gets past the throttle.

    Returns:
        The ids of its failures: one for the e-mail, one for the address.
    """
    subjects = {email_subject(email): TRIES_PER_EMAIL, f"address:{address}": TRIES_PER_ADDRESS}
    with store.write(SYSTEM) as tx:
        lock_name(tx, "sign-in")
        tx.session.execute(delete(SignInFailure).where(SignInFailure.failed_at <= tx.now - THROTTLE_WINDOW))
        for subject, allowed in subjects.items():
            failures = tx.session.scalar(
                select(func.count()).select_from(SignInFailure).where(SignInFailure.subject == subject)
            )
            if (failures or 0) >= allowed:
                raise SignInFailed(
                    "Too many failed tries. Wait 15 minutes, or ask a platform admin to reset the password."
                )
        failed = [SignInFailure(id=new_id("fail"), subject=subject, failed_at=tx.now) for subject in subjects]
        tx.session.add_all(failed)
    return [failure.id for failure in failed]


def find(store: Store, session_id: str) -> Actor | None:
    """Return who is signed in with this session, or None if it is unknown, expired or ended."""
    with store.read(SYSTEM) as tx:
        operator = tx.session.scalar(
            select(Operator)
            .join(SignInSession, SignInSession.operator_id == Operator.id)
            .where(
                SignInSession.digest == _digest(session_id),
                SignInSession.ended_at.is_(None),
                SignInSession.expires_at > tx.now,
            )
        )
    return Actor(operator.email, Role(operator.role), operator.org_id) if operator else None


def sign_out(store: Store, session_id: str) -> None:
    """End a session; every tab that uses it is signed out at its next message."""
    with store.write(SYSTEM) as tx:
        tx.session.execute(
            update(SignInSession)
            .where(SignInSession.digest == _digest(session_id), SignInSession.ended_at.is_(None))
            .values(ended_at=tx.now)
        )


def end_all(store: Store, operator_id: str) -> None:
    """End every session of an operator and forget failed tries, as after a password reset."""
    with store.write(SYSTEM) as tx:
        tx.session.execute(
            update(SignInSession)
            .where(SignInSession.operator_id == operator_id, SignInSession.ended_at.is_(None))
            .values(ended_at=tx.now)
        )
        operator = tx.session.get(Operator, operator_id)
        if operator is not None:
            tx.session.execute(delete(SignInFailure).where(SignInFailure.subject == email_subject(operator.email)))
