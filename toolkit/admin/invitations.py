"""Invitations: one-time links by which a person sets the password to sign in with, as a new operator or anew.

The link carries a random token; the store keeps only its SHA-256, so a copy of the store accepts no invitation.
"""

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import select

from toolkit.admin import operators, sessions
from toolkit.admin.rights import require_operator_admin
from toolkit.core import words
from toolkit.core.errors import Conflict, NotFound
from toolkit.core.ids import new_id
from toolkit.core.passwords import PasswordHash, require_hash
from toolkit.core.policy import Role
from toolkit.store import audit
from toolkit.store.actor import SYSTEM, Actor
from toolkit.store.database import Store
from toolkit.store.locks import lock_name
from toolkit.store.tables import Invitation, Operator
from toolkit.store.transaction import Transaction

LIFETIME = timedelta(hours=72)

GONE = (
    "This link is not valid any more: it was used, withdrawn or replaced, or is older than three days. Ask for another."
)
"""Why of these is not told: whoever has a link that does not hold learns nothing by it."""


class Invited(NamedTuple):
    """An invitation just made.

    Args:
        invitation: as the store keeps it.
        token: that its link carries; shown this once.
    """

    invitation: Invitation
    token: str


class Guest(NamedTuple):
    """Whom a link is for.

    Args:
        email: to sign in with.
        is_new: whether an operator is made; else one gets a new password.
    """

    email: str
    is_new: bool


def invite(tx: Transaction, email: str, role: Role, *, org_id: str | None = None) -> Invited:
    """Invite a person who is to sign in. An earlier invitation of the same e-mail ends.

    Args:
        tx: as a platform admin, or as an org admin of the organisation.
        email: to sign in with.
        role: what the person may do.
        org_id: as `operators.add` takes it.

    Raises:
        InvalidInput: bad e-mail, or a role that does not fit the organisation.
        NotFound: no such organisation.
        Conflict: there is such an operator, or another organisation has invited that person.
        Forbidden: no right.
    """
    role = Role(role)
    require_operator_admin(tx, org_id)
    email = words.check_email(email)
    operators.check_role(tx, role, org_id)
    lock_name(tx, operators.CHANGES)
    if operators.with_email(tx, email) is not None:
        raise Conflict(f"There is already an operator {email}.")
    if any(tx.actor.org_id not in {None, earlier.org_id} for earlier in _open(tx, email)):
        raise Conflict(f"{email} is invited by others already. Ask a platform admin.")
    return _issue(tx, "operator.invite", email, role, org_id, None)


def password_link(tx: Transaction, email: str) -> Invited:
    """Make a link by which an operator sets a new password; the present one holds until then.

    Args:
        tx: as a platform admin, or as an org admin of the operator's organisation.
        email: whose.

    Raises:
        NotFound: no such operator, or another organisation's.
        Forbidden: no right.
    """
    lock_name(tx, operators.CHANGES)
    operator = operators.find(tx, email)
    require_operator_admin(tx, operator.org_id)
    return _issue(tx, "operator.password_link", operator.email, Role(operator.role), operator.org_id, operator.id)


def list_open(tx: Transaction) -> list[Invitation]:
    """Return the invitations that can still be accepted and that the actor may withdraw, the newest first."""
    require_operator_admin(tx, tx.actor.org_id)
    query = select(Invitation).where(Invitation.ended_at.is_(None), Invitation.expires_at > tx.now)
    if tx.actor.org_id is not None:
        query = query.where(Invitation.org_id == tx.actor.org_id)
    return list(tx.session.scalars(query.order_by(Invitation.created_at.desc(), Invitation.id)))


def withdraw(tx: Transaction, invitation_id: str, *, reason: str = "") -> Invitation:
    """End an invitation, so that its link does nothing.

    Raises:
        NotFound: there is none that is open and that the actor may withdraw.
        Forbidden: no right.
    """
    lock_name(tx, operators.CHANGES)
    found = next((each for each in list_open(tx) if each.id == invitation_id), None)
    if found is None:
        raise NotFound(f"There is no open invitation {invitation_id!r}.")
    found.ended_at = tx.now
    tx.session.flush()
    audit.record(
        tx, "operator.withdraw_invitation", found.id, org_id=found.org_id, after={"email": found.email}, reason=reason
    )
    return found


def guest_of(tx: Transaction, token: str) -> Guest:
    """Return whom a link is for; reading it uses nothing up.

    Raises:
        NotFound: it does not hold (any more).
    """
    found = _find(tx, token)
    return Guest(found.email, found.operator_id is None)


def accept(store: Store, token: str, password: PasswordHash) -> str:
    """Set the password that a link asks for, once; return the e-mail to sign in with.

    A new operator has the role of the invitation; of one who is there all sessions end.

    Args:
        store: the key store.
        token: of the link.
        password: hashed before.

    Raises:
        NotFound: the link does not hold (any more).
        InvalidInput: the password is not hashed.
    """
    hashed = require_hash(password)
    with store.read(SYSTEM) as tx:
        found = _find(tx, token)
        guest = Actor(found.email, Role(found.role), found.org_id)
    with store.write(guest) as tx:
        lock_name(tx, operators.CHANGES)
        found = _find(tx, token)
        found.ended_at = tx.now
        operator = operators.with_email(tx, found.email)
        if found.operator_id is None and operator is None:
            operator = _admit(tx, found, hashed)
        elif operator is not None and operator.id == found.operator_id:
            operator.password_hash = hashed
            sessions.end_all(tx, operator)
            _record(tx, "operator.set_password", operator)
        else:  # somebody was added, or removed and added again, meanwhile
            raise NotFound(GONE)
        return operator.email


def _admit(tx: Transaction, invitation: Invitation, hashed: str) -> Operator:
    operator = Operator(
        id=new_id("op"),
        email=invitation.email,
        role=invitation.role,
        org_id=invitation.org_id,
        password_hash=hashed,
        created_at=tx.now,
        created_by=invitation.created_by,
        last_sign_in_at=None,
        disabled_at=None,
    )
    tx.session.add(operator)
    tx.session.flush()
    if operator.org_id is not None:
        audit.remember(tx, operator.org_id, operator.email)
    _record(tx, "operator.accept_invitation", operator)
    return operator


def _record(tx: Transaction, action: str, operator: Operator) -> None:
    tx.session.flush()
    audit.record(
        tx, action, operator.id, org_id=operator.org_id, after={"email": operator.email, "role": operator.role}
    )


def _issue(
    tx: Transaction, action: str, email: str, role: Role, org_id: str | None, operator_id: str | None
) -> Invited:
    for earlier in _open(tx, email):
        earlier.ended_at = tx.now
    token = secrets.token_urlsafe(32)
    invitation = Invitation(
        id=new_id("inv"),
        digest=_digest(token),
        email=email,
        role=role,
        org_id=org_id,
        operator_id=operator_id,
        created_at=tx.now,
        created_by=tx.actor.name,
        expires_at=tx.now + LIFETIME,
        ended_at=None,
    )
    tx.session.add(invitation)
    tx.session.flush()
    facts: dict[str, object] = {"email": email, "role": role, "expires_at": _iso(invitation.expires_at)}
    audit.record(tx, action, invitation.id, org_id=org_id, after=facts)
    return Invited(invitation, token)


def _open(tx: Transaction, email: str) -> list[Invitation]:
    query = select(Invitation).where(
        Invitation.email == email, Invitation.ended_at.is_(None), Invitation.expires_at > tx.now
    )
    return list(tx.session.scalars(query))


def _find(tx: Transaction, token: str) -> Invitation:
    found = tx.session.scalar(
        select(Invitation).where(
            Invitation.digest == _digest(token), Invitation.ended_at.is_(None), Invitation.expires_at > tx.now
        )
    )
    if found is None:
        raise NotFound(GONE)
    return found


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
