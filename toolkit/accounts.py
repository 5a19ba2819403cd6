"""Organisations and operators, and the rights that every service asks for here.

| role | may |
|---|---|
| platform_admin | everything, and alone: organisations, plans, prices, upstreams, wallet, operators |
| org_admin | its organisation's keys; see its spend, wallet, requests and audit log |
| analyst | read, of one organisation or (given none) of all |
"""

import re
import unicodedata

from sqlalchemy import select

from toolkit import audit
from toolkit.credentials import PasswordHash, new_id, require_hash, verify_password
from toolkit.database import Transaction, lock_name
from toolkit.errors import Conflict, Forbidden, InvalidInput, NotFound
from toolkit.models import Operator, Organisation
from toolkit.policy import Role

_LETTER = r"[^@\s<>\"\x00-\x1f\ud800-\udfff]"
_EMAIL = re.compile(rf"{_LETTER}{{1,64}}@{_LETTER}{{1,190}}")
_NAME = re.compile(r"\S(?:.{0,78}\S)?")


def require_platform_admin(tx: Transaction) -> None:
    """Raise Forbidden unless the actor is a platform admin."""
    if tx.actor.role is not Role.PLATFORM_ADMIN:
        raise Forbidden("Only a platform admin may do this.")


def require_key_admin(tx: Transaction, org_id: str) -> None:
    """Raise unless the actor may change the organisation's keys: NotFound for another organisation's."""
    require_reader(tx, org_id)
    if tx.actor.role is Role.ANALYST:
        raise Forbidden("Analysts may look, not change. Ask an org admin.")


def require_reader(tx: Transaction, org_id: str) -> None:
    """Raise NotFound unless the actor may see the organisation."""
    if tx.actor.org_id not in {None, org_id}:
        raise NotFound("No such organisation.")


def check_name(name: str, what: str) -> str:
    """Return the name without surrounding space, its accents composed: names that look alike are alike.

    Raises:
        InvalidInput: empty, longer than 80 characters, or holding control characters.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if _NAME.fullmatch(name) is None or not name.isprintable():
        raise InvalidInput(f"The {what} must have 1 to 80 printable characters.")
    return name


def add_org(tx: Transaction, name: str) -> Organisation:
    """Add an organisation with an empty wallet."""
    require_platform_admin(tx)
    name = check_name(name, "organisation's name")
    lock_name(tx, "organisation names")
    if tx.session.scalar(select(Organisation).where(Organisation.name == name)):
        raise Conflict(f"There is already an organisation named {name!r}.")
    org = Organisation(
        id=new_id("org"),
        name=name,
        suspended=False,
        created_at=tx.now,
        created_by=tx.actor.name,
        credited=0,
        settled=0,
        held=0,
    )
    tx.session.add(org)
    tx.session.flush()
    audit.record(tx, "org.add", org.id, org_id=org.id, after={"name": name})
    return org


def find_org(tx: Transaction, name_or_id: str) -> Organisation:
    """Return the organisation with this id or name.

    Raises:
        NotFound: there is none that the actor may see.
    """
    org = tx.session.get(Organisation, name_or_id) or tx.session.scalar(
        select(Organisation).where(Organisation.name == name_or_id)
    )
    if org is None or tx.actor.org_id not in {None, org.id}:
        raise NotFound(f"No organisation is named {name_or_id!r}. `keydesk orgs list` shows them.")
    return org


def list_orgs(tx: Transaction) -> list[Organisation]:
    """Return the organisations that the actor may see, by name."""
    query = select(Organisation).order_by(Organisation.name)
    if tx.actor.org_id is not None:
        query = query.where(Organisation.id == tx.actor.org_id)
    return list(tx.session.scalars(query))


def _normal_email(email: str) -> str:
    email = email.strip().lower()
    if _EMAIL.fullmatch(email) is None:
        raise InvalidInput(f"{email!r} is not an e-mail address.")
    return email


def add_operator(
    tx: Transaction, email: str, role: Role, password: PasswordHash, *, org_id: str | None = None
) -> Operator:
    """Add a person who may sign in.

    Args:
        tx: a write transaction.
        email: to sign in with.
        role: what the person may do.
        password: hashed before the transaction began.
        org_id: the organisation of an org admin or analyst; None is all, for a platform admin or analyst.

    Raises:
        InvalidInput: bad e-mail, a password that is not hashed, or a role that does not fit the organisation.
        NotFound: no such organisation.
        Conflict: the e-mail is taken.
    """
    require_platform_admin(tx)
    email = _normal_email(email)
    role = Role(role)  # the checks below must not miss a plain word from a notebook
    if role is Role.ORG_ADMIN and org_id is None:
        raise InvalidInput("An org admin belongs to an organisation: say which.")
    if role is Role.PLATFORM_ADMIN and org_id is not None:
        raise InvalidInput("A platform admin belongs to no organisation.")
    if org_id is not None and tx.session.get(Organisation, org_id) is None:
        raise NotFound(f"There is no organisation {org_id!r}.")
    lock_name(tx, "operator names")
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
    )
    tx.session.add(operator)
    tx.session.flush()
    audit.record(tx, "operator.add", operator.id, org_id=org_id, after={"email": email, "role": role})
    return operator


def find_operator(tx: Transaction, email: str) -> Operator | None:
    """Return the operator with this e-mail, or None."""
    email = email.strip().lower()
    if _EMAIL.fullmatch(email) is None:
        return None
    return tx.session.scalar(select(Operator).where(Operator.email == email))


def list_operators(tx: Transaction) -> list[Operator]:
    """Return all operators, by e-mail."""
    require_platform_admin(tx)
    return list(tx.session.scalars(select(Operator).order_by(Operator.email)))


def reset_password(tx: Transaction, email: str, password: PasswordHash) -> Operator:
    """Give an operator a new password; ends nothing else (`sessions.end_all` ends the sessions).

    Raises:
        NotFound: no such operator.
        InvalidInput: the password is not hashed.
    """
    require_platform_admin(tx)
    operator = find_operator(tx, email)
    if operator is None:
        raise NotFound(f"There is no operator {email}. `keydesk operators list` shows them.")
    operator.password_hash = require_hash(password)
    audit.record(tx, "operator.reset_password", operator.id, org_id=operator.org_id, after={"email": operator.email})
    return operator


def password_matches(operator: Operator | None, password: str) -> bool:
    """Whether the password is the operator's; takes the same time for an operator that does not exist."""
    return verify_password(password, operator.password_hash if operator else None)
