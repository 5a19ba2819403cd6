"""Signing in to the dashboard: a password check behind a throttle, which opens a session."""

import secrets
from typing import NamedTuple

from toolkit.admin import operators, sessions, sign_in_throttle
from toolkit.admin.sign_in_throttle import Try
from toolkit.core import words
from toolkit.core.errors import SignInFailed
from toolkit.core.policy import Role
from toolkit.store import audit
from toolkit.store.actor import SYSTEM, Actor
from toolkit.store.database import Store
from toolkit.store.locks import lock_name
from toolkit.store.tables import Operator, SignInSession
from toolkit.store.transaction import Transaction

WRONG = "E-mail or password is wrong."


class Proven(NamedTuple):
    """An operator whose password was right a moment ago.

    Args:
        operator: as they were then.
        this: the try.
        counted: what was counted of it, to be forgiven.
    """

    operator: Operator
    this: Try
    counted: list[str]


def prove(store: Store, email: str, password: str, address: str) -> Proven:
    """Check a password behind the throttle.

    Takes about 0.3 s of CPU (bcrypt): call it in a thread, never on an event loop. No transaction is open meanwhile.

    Args:
        store: the key store.
        email, password: as typed.
        address: the client's, for the throttle.

    Raises:
        SignInFailed: wrong, or too many failures (`sign_in_throttle`); the message does not say which.
    """
    email = words.email_form(email)[:256]
    this = Try(email, sign_in_throttle.network(address))
    with store.read(SYSTEM) as tx:  # whoever must wait is told so without a write
        sign_in_throttle.require_turn(tx, this)
    with store.write(SYSTEM) as tx:
        # Counted as failed until it has succeeded, so that no number of tries at once gets past the throttle.
        lock_name(tx, "sign-in")
        sign_in_throttle.require_turn(tx, this)
        counted = sign_in_throttle.count(tx, this)
        operator = operators.with_email(tx, email)
    if not operators.password_matches(operator, password) or operator is None:
        raise SignInFailed(WRONG)
    return Proven(operator, this, counted)


def unchanged(tx: Transaction, proven: Proven) -> Operator:
    """Return the operator as they are now, locked: a change of this moment waits, or is seen here.

    Raises:
        SignInFailed: disabled, removed, or given another password, role or organisation since.
    """
    before = proven.operator
    current = tx.session.get(Operator, before.id, with_for_update={"key_share": True})
    if (
        current is None
        or current.disabled_at is not None
        or (current.password_hash, current.role, current.org_id) != (before.password_hash, before.role, before.org_id)
    ):
        raise SignInFailed(WRONG)
    return current


def forgive(tx: Transaction, proven: Proven) -> None:
    """Take back what was counted of a try that succeeded."""
    sign_in_throttle.forgive(tx, proven.this, proven.counted)


def open_session(store: Store, email: str, password: str, address: str) -> str:
    """Check a password and open a session; return the id for the cookie.

    Args and errors as `prove`; SignInFailed also for a disabled operator.
    """
    proven = prove(store, email, password, address)
    operator = proven.operator
    session_id = secrets.token_urlsafe(32)
    with store.write(Actor(operator.email, Role(operator.role), operator.org_id)) as tx:
        unchanged(tx, proven).last_sign_in_at = tx.now
        tx.session.add(
            SignInSession(
                digest=sessions.digest(session_id),
                operator_id=operator.id,
                created_at=tx.now,
                expires_at=tx.now + sessions.LIFETIME,
                ended_at=None,
                address=proven.this.address,
            )
        )
        forgive(tx, proven)
        audit.record(tx, "operator.sign_in", operator.id, org_id=operator.org_id)
    return session_id
