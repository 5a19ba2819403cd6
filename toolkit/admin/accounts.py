"""Organisations and operators, and the rights that every service asks for here.

| role | may |
|---|---|
| platform_admin | everything, and alone: organisations, plans, prices, upstreams, wallet, its own operators |
| org_admin | its organisation's keys, org admins and analysts; see its spend, wallet, requests and audit log |
| analyst | read, of one organisation or (given none) of all |

Organisations and operators are added, found and listed here, and organisations changed; `operators` changes operators.
"""

from sqlalchemy import select

from toolkit.core import words
from toolkit.core.errors import Conflict, Forbidden, InvalidInput, NotConfirmed, NotFound
from toolkit.core.ids import new_id
from toolkit.core.passwords import PasswordHash, require_hash, verify_password
from toolkit.core.policy import Role
from toolkit.store import audit
from toolkit.store.database import Transaction, lock_name, lock_orgs
from toolkit.store.tables import Operator, Organisation

ORG_NAMES = "organisation names"
OPERATORS = "operators"
"""Names of locks: who adds or renames an organisation, and who adds or changes an operator, does it alone."""


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


def require_operator_admin(tx: Transaction, org_id: str | None) -> None:
    """Raise unless the actor may add and change people of this organisation, or with None those of no single one."""
    if tx.actor.role is Role.ANALYST:
        raise Forbidden("Analysts may look, not change. Ask an org admin.")
    if tx.actor.role is not Role.PLATFORM_ADMIN and tx.actor.org_id != org_id:
        raise Forbidden("An org admin adds and changes org admins and analysts of the own organisation only.")


def check_name(name: str, what: str) -> str:
    """Return the name without surrounding space, its accents composed: names that look alike are alike.

    Raises:
        InvalidInput: empty, longer than 80 characters, or holding characters that cannot be seen.
    """
    return words.check_line(name, what, words.NAME)


def check_confirmed(confirm: str, name: str, what: str) -> None:
    """Raise NotConfirmed unless what was given to confirm is the thing's name exactly."""
    if confirm != name:
        raise NotConfirmed(f"To confirm, give the {what} exactly: {name!r}, not {confirm!r}. Nothing was changed.")


def add_org(tx: Transaction, name: str) -> Organisation:
    """Add an organisation with an empty wallet.

    Raises:
        InvalidInput: the name cannot be used.
        Conflict: it is another's, or differs from it in case alone.
    """
    require_platform_admin(tx)
    name = check_name(name, "organisation's name")
    _require_free_name(tx, name)
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


def rename_org(tx: Transaction, org: str, name: str, *, reason: str = "") -> Organisation:
    """Give an organisation another name; its keys, wallet and history are by its id and stay.

    Args:
        tx: as a platform admin.
        org: id or present name.
        name: the new one.
        reason: for the audit log.

    Raises as `add_org`; NotFound: no such organisation.
    """
    found = _org_for_change(tx, org)
    name = check_name(name, "organisation's name")
    _require_free_name(tx, name, found)
    before = found.name
    if name != before:
        found.name = name
        tx.session.flush()
        audit.record(
            tx, "org.rename", found.id, org_id=found.id, before={"name": before}, after={"name": name}, reason=reason
        )
    return found


def suspend_org(tx: Transaction, org: str, *, confirm: str, reason: str = "") -> Organisation:
    """Refuse every call of an organisation's keys from the next one on, until it is resumed; nothing is lost.

    Calls under way finish and are charged.

    Args:
        tx: as a platform admin.
        org: id or name.
        confirm: must equal the organisation's name.
        reason: for the audit log.

    Raises:
        NotFound, NotConfirmed: no such organisation, or not its name.
        Conflict: it is suspended already.
    """
    return _set_suspended(tx, org, True, confirm, reason)


def resume_org(tx: Transaction, org: str, *, confirm: str, reason: str = "") -> Organisation:
    """Let the keys of a suspended organisation call again, each as it was. Args and errors as `suspend_org`."""
    return _set_suspended(tx, org, False, confirm, reason)


def _set_suspended(tx: Transaction, org: str, suspended: bool, confirm: str, reason: str) -> Organisation:
    found = _org_for_change(tx, org)
    check_confirmed(confirm, found.name, "organisation's name")
    if found.suspended == suspended:
        raise Conflict(f"The organisation {found.name!r} is {'already' if suspended else 'not'} suspended.")
    found.suspended = suspended
    tx.session.flush()
    audit.record(
        tx,
        "org.suspend" if suspended else "org.resume",
        found.id,
        org_id=found.id,
        before={"suspended": not suspended},
        after={"suspended": suspended},
        reason=reason,
    )
    return found


def _org_for_change(tx: Transaction, org: str) -> Organisation:
    require_platform_admin(tx)
    found = find_org(tx, org)
    lock_orgs(tx, found.id)
    return found


def _require_free_name(tx: Transaction, name: str, present: Organisation | None = None) -> None:
    """Raise Conflict if another organisation has the name, or one that differs in case alone."""
    lock_name(tx, ORG_NAMES)
    wanted = words.folded(name)
    for other_id, other in tx.session.execute(select(Organisation.id, Organisation.name)):
        if words.folded(other) == wanted and (present is None or other_id != present.id):
            raise Conflict(f"There is already an organisation named {other!r}. Choose another name.")


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


def add_operator(
    tx: Transaction, email: str, role: Role, password: PasswordHash, *, org_id: str | None = None
) -> Operator:
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
    lock_name(tx, OPERATORS)
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


def find_operator(tx: Transaction, email: str) -> Operator | None:
    """Return the operator with this e-mail, or None."""
    try:
        email = words.check_email(email)
    except InvalidInput:
        return None
    return tx.session.scalar(select(Operator).where(Operator.email == email))


def list_operators(tx: Transaction) -> list[Operator]:
    """Return the operators whom the actor may change, by e-mail: all, or those of an org admin's organisation."""
    query = select(Operator).order_by(Operator.email)
    require_operator_admin(tx, tx.actor.org_id)
    if tx.actor.org_id is not None:
        query = query.where(Operator.org_id == tx.actor.org_id)
    return list(tx.session.scalars(query))


def password_matches(operator: Operator | None, password: str) -> bool:
    """Whether the password is the operator's; takes the same time for an operator that does not exist."""
    return verify_password(password, operator.password_hash if operator else None)
