"""Operators after they were added: reset a password, disable, enable, remove, give another role.

Each verb ends the person's sessions in its own transaction, so that nobody goes on with rights that are gone. An org
admin may do all this for the org admins and analysts of the own organisation. Nobody changes the own role or shuts
the own way in, and the last platform admin who can sign in stays.
"""

from sqlalchemy import delete, func, select

from toolkit.admin import accounts, sessions
from toolkit.core.errors import Conflict, Forbidden, NotFound
from toolkit.core.passwords import PasswordHash, require_hash
from toolkit.core.policy import Role
from toolkit.store import audit
from toolkit.store.database import Transaction, lock_name
from toolkit.store.tables import Operator, SignInSession


def find(tx: Transaction, email: str) -> Operator:
    """Return an operator whom the actor may change.

    Raises:
        NotFound: no such operator; another organisation's, or the platform's for an org admin, is not told from none.
        Forbidden: no right.
    """
    accounts.require_operator_admin(tx, tx.actor.org_id)
    operator = accounts.find_operator(tx, email)
    if operator is None or tx.actor.org_id not in {None, operator.org_id}:
        raise NotFound(f"There is no operator {email}. `keydesk operators list` shows them.")
    return operator


def reset_password(tx: Transaction, email: str, password: PasswordHash) -> Operator:
    """Give an operator a new password, end their sessions and forget their failed tries.

    Args:
        tx: as a platform admin, or as an org admin of the operator's organisation.
        email: whose.
        password: the new one, hashed before the transaction began.

    Raises:
        NotFound: no such operator, or another organisation's.
        InvalidInput: the password is not hashed.
        Forbidden: no right.
    """
    operator = _for_change(tx, email)
    operator.password_hash = require_hash(password)
    sessions.end_all(tx, operator)
    audit.record(tx, "operator.reset_password", operator.id, org_id=operator.org_id, after={"email": operator.email})
    return operator


def disable(tx: Transaction, email: str, *, confirm: str, reason: str = "") -> Operator:
    """Keep an operator from signing in until enabled again, and end their sessions.

    Args:
        tx, email: as in `reset_password`; not the actor.
        confirm: must equal the e-mail.
        reason: for the audit log.

    Raises:
        NotFound, NotConfirmed, Forbidden: as `reset_password`; or the actor's own, or not confirmed.
        Conflict: disabled already, or the last platform admin.
    """
    operator = _for_grave_change(tx, email, confirm)
    if operator.disabled_at is not None:
        raise Conflict(f"{operator.email} is already disabled.")
    _require_another_platform_admin(tx, operator)
    operator.disabled_at = tx.now
    sessions.end_all(tx, operator)
    _record(tx, "operator.disable", operator, reason)
    return operator


def enable(tx: Transaction, email: str, *, confirm: str, reason: str = "") -> Operator:
    """Let a disabled operator sign in again, with the password they had. Args and errors as `disable`."""
    operator = _for_grave_change(tx, email, confirm)
    if operator.disabled_at is None:
        raise Conflict(f"{operator.email} is not disabled.")
    operator.disabled_at = None
    _record(tx, "operator.enable", operator, reason)
    return operator


def remove(tx: Transaction, email: str, *, confirm: str, reason: str = "") -> Operator:
    """Take an operator away for good; the audit log and what they made go on to name them. Args as `disable`.

    Returns:
        The operator as it was.
    """
    operator = _for_grave_change(tx, email, confirm)
    _require_another_platform_admin(tx, operator)
    sessions.end_all(tx, operator)
    tx.session.execute(delete(SignInSession).where(SignInSession.operator_id == operator.id))
    audit.record(
        tx,
        "operator.remove",
        operator.id,
        org_id=operator.org_id,
        before={"email": operator.email, "role": operator.role},
        reason=reason,
    )
    tx.session.delete(operator)
    tx.session.flush()
    return operator


def set_role(
    tx: Transaction, email: str, role: Role, *, org_id: str | None = None, confirm: str, reason: str = ""
) -> Operator:
    """Give an operator another role, and end their sessions: the next sign-in has the new rights.

    Args:
        tx, email, confirm, reason: as in `disable`.
        role: the new one; an org admin gives those of the own organisation.
        org_id: the organisation for the new role; by default the present one. A platform admin has none.

    Raises:
        NotFound, NotConfirmed, Forbidden, Conflict: as `disable`, or nothing would change.
        InvalidInput: the role does not fit the organisation.
    """
    role = Role(role)
    operator = _for_grave_change(tx, email, confirm)
    before = operator.org_id
    if org_id is None and role is not Role.PLATFORM_ADMIN:
        org_id = before
    accounts.require_operator_admin(tx, org_id)
    accounts.check_role(tx, role, org_id)
    if (operator.role, before) == (role, org_id):
        raise Conflict(f"{operator.email} is {role} already.")
    if role is not Role.PLATFORM_ADMIN:
        _require_another_platform_admin(tx, operator)
    facts = {"email": operator.email, "role": operator.role, "org": before}
    operator.role, operator.org_id = role, org_id
    sessions.end_all(tx, operator)
    if org_id is not None:
        audit.remember(tx, org_id, operator.email)
    # Whose person it was and whose it is now, both can read it; in the order in which chains are locked.
    for chain in sorted({before, org_id}, key=lambda org: org or audit.PLATFORM):
        audit.record(
            tx,
            "operator.set_role",
            operator.id,
            org_id=chain,
            before=facts,
            after={"email": operator.email, "role": role, "org": org_id},
            reason=reason,
        )
    return operator


def _for_change(tx: Transaction, email: str) -> Operator:
    """Return an operator whom the actor may change, as they are behind the lock of all such changes."""
    lock_name(tx, accounts.OPERATORS)
    operator = find(tx, email)
    # A sign-in that is under way at this moment waits, and then sees what has changed.
    tx.session.refresh(operator, with_for_update={"key_share": True})
    return operator


def _for_grave_change(tx: Transaction, email: str, confirm: str) -> Operator:
    operator = _for_change(tx, email)
    if tx.actor.is_named(operator.email):
        raise Forbidden("Nobody disables, removes or re-roles themselves. Ask another admin.")
    accounts.check_confirmed(confirm, operator.email, "e-mail address")
    return operator


def _require_another_platform_admin(tx: Transaction, operator: Operator) -> None:
    """Raise Conflict if without this one no platform admin could sign in; behind the lock of all such changes."""
    if operator.role != Role.PLATFORM_ADMIN or operator.disabled_at is not None:
        return
    others = select(func.count()).where(
        Operator.role == Role.PLATFORM_ADMIN, Operator.disabled_at.is_(None), Operator.id != operator.id
    )
    if not tx.session.scalar(others):
        raise Conflict(
            f"{operator.email} is the last platform admin who can sign in. Add or enable another one first: "
            "keydesk operators add EMAIL --role platform_admin."
        )


def _record(tx: Transaction, action: str, operator: Operator, reason: str) -> None:
    tx.session.flush()
    disabled = operator.disabled_at is not None
    audit.record(
        tx,
        action,
        operator.id,
        org_id=operator.org_id,
        before={"email": operator.email, "disabled": not disabled},
        after={"email": operator.email, "disabled": disabled},
        reason=reason,
    )
