"""Operators: add, find, list; reset a password, sign out, disable, enable, remove, give another role.

Each change ends the person's sessions in its own transaction, so that nobody goes on with rights that are gone. An org
admin may do all this for the org admins and analysts of the own organisation. Nobody changes the own role or shuts
the own way in, and the last platform admin who can sign in stays.
"""

from sqlalchemy import delete, func, select

from toolkit.admin import sessions
from toolkit.admin.rights import require_operator_admin
from toolkit.core import words
from toolkit.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from toolkit.core.ids import new_id
from toolkit.core.passwords import PasswordHash, require_hash, verify_password
from toolkit.core.policy import Role
from toolkit.store import audit
from toolkit.store.locks import lock_name
from toolkit.store.tables import Operator, Organisation, SignInSession
from toolkit.store.transaction import Transaction

CHANGES = "operators"
"""Name of a lock: who adds or changes an operator does it alone."""


def add(tx: Transaction, email: str, role: Role, password: PasswordHash, *, org_id: str | None = None) -> Operator:
    """Add a person who may sign in.

    Args:
        tx: as a platform admin, or as an org admin of the organisation.
        email: to sign in with; unique among all operators.
        role: what the person may do.
        password: hashed before the transaction began.
        org_id: an org admin's or analyst's organisation; None is all, for an analyst whom the platform adds.

    Raises:
        InvalidInput: bad e-mail, a password that is not hashed, or a role that does not fit the organisation.
        NotFound: no such organisation.
        Conflict: the e-mail is taken.
        Forbidden: no right.
    """
    role = Role(role)  # the checks below must not miss a plain word from a notebook
    require_operator_admin(tx, org_id)
    email = words.check_email(email)
    check_role(tx, role, org_id)
    lock_name(tx, CHANGES)
    if tx.session.scalar(select(Operator).where(Operator.email == email)):
        raise Conflict(f"There is already an operator {email}.")
    operator = Operator(
        id=new_id("op"),
        email=email,
        role=role,
        org_id=org_id,
        password_hash=require_hash(password),
        created_at=tx.now,
        created_by=tx.actor.name,
        last_sign_in_at=None,
        disabled_at=None,
    )
    tx.session.add(operator)
    tx.session.flush()
    if org_id is not None:
        audit.remember(tx, org_id, email)
    audit.record(tx, "operator.add", operator.id, org_id=org_id, after={"email": email, "role": role})
    return operator


def check_role(tx: Transaction, role: Role, org_id: str | None) -> None:
    """Raise unless somebody of this organisation, or of none, may have the role.

    Raises:
        InvalidInput: an org admin of none, or a platform admin of one.
        NotFound: no such organisation.
    """
    if role is Role.ORG_ADMIN and org_id is None:
        raise InvalidInput("An org admin belongs to an organisation: say which.")
    if role is Role.PLATFORM_ADMIN and org_id is not None:
        raise InvalidInput("A platform admin belongs to no organisation.")
    if org_id is not None and tx.session.get(Organisation, org_id) is None:
        raise NotFound(f"There is no organisation {org_id!r}.")


def with_email(tx: Transaction, email: str) -> Operator | None:
    """Return the operator with this e-mail, or None."""
    try:
        email = words.check_email(email)
    except InvalidInput:
        return None
    return tx.session.scalar(select(Operator).where(Operator.email == email))


def list_all(tx: Transaction) -> list[Operator]:
    """Return the operators whom the actor may change, by e-mail: all, or those of an org admin's organisation."""
    query = select(Operator).order_by(Operator.email)
    require_operator_admin(tx, tx.actor.org_id)
    if tx.actor.org_id is not None:
        query = query.where(Operator.org_id == tx.actor.org_id)
    return list(tx.session.scalars(query))


def password_matches(operator: Operator | None, password: str) -> bool:
    """Whether the password is the operator's; takes the same time for an operator that does not exist."""
    return verify_password(password, operator.password_hash if operator else None)


def find(tx: Transaction, email: str) -> Operator:
    """Return an operator whom the actor may change.

    Raises:
        NotFound: no such operator; another organisation's, or the platform's for an org admin, is not told from none.
        Forbidden: no right.
    """
    require_operator_admin(tx, tx.actor.org_id)
    operator = with_email(tx, email)
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


def end_sessions(tx: Transaction, email: str, *, reason: str = "") -> Operator:
    """Sign an operator out everywhere; password and role stay. Args and errors as `reset_password`.

    Args:
        reason: for the audit log.
    """
    operator = _for_change(tx, email)
    sessions.end_all(tx, operator)
    audit.record(
        tx, "operator.end_sessions", operator.id, org_id=operator.org_id, after={"email": operator.email}, reason=reason
    )
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
    require_operator_admin(tx, org_id)
    check_role(tx, role, org_id)
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
    lock_name(tx, CHANGES)
    operator = find(tx, email)
    # A sign-in that is under way at this moment waits, and then sees what has changed.
    tx.session.refresh(operator, with_for_update={"key_share": True})
    return operator


def _for_grave_change(tx: Transaction, email: str, confirm: str) -> Operator:
    operator = _for_change(tx, email)
    if tx.actor.is_named(operator.email):
        raise Forbidden("Nobody disables, removes or re-roles themselves. Ask another admin.")
    words.check_confirmed(confirm, operator.email, "e-mail address")
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
