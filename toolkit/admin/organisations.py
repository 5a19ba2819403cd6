"""Organisations: add, rename, suspend, resume, find, list."""

from sqlalchemy import select

from toolkit.admin.rights import require_platform_admin
from toolkit.core import words
from toolkit.core.errors import Conflict, NotFound
from toolkit.core.ids import new_id
from toolkit.store import audit
from toolkit.store.locks import lock_name, lock_orgs
from toolkit.store.tables import Organisation
from toolkit.store.transaction import Transaction

NAMES = "organisation names"
"""Name of a lock: who adds or renames an organisation does it alone."""


def add(tx: Transaction, name: str) -> Organisation:
    """Add an organisation with an empty wallet.

    Raises:
        InvalidInput: the name cannot be used.
        Conflict: it is another's, or differs from it in case alone.
    """
    require_platform_admin(tx)
    name = words.check_name(name, "organisation's name")
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


def rename(tx: Transaction, org: str, name: str, *, reason: str = "") -> Organisation:
    """Give an organisation another name; its keys, wallet and history are by its id and stay.

    Args:
        tx: as a platform admin.
        org: id or present name.
        name: the new one.
        reason: for the audit log.

    Raises as `add`; NotFound: no such organisation.
    """
    found = _for_change(tx, org)
    name = words.check_name(name, "organisation's name")
    _require_free_name(tx, name, found)
    before = found.name
    if name != before:
        found.name = name
        tx.session.flush()
        audit.record(
            tx, "org.rename", found.id, org_id=found.id, before={"name": before}, after={"name": name}, reason=reason
        )
    return found


def suspend(tx: Transaction, org: str, *, confirm: str, reason: str = "") -> Organisation:
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


def resume(tx: Transaction, org: str, *, confirm: str, reason: str = "") -> Organisation:
    """Let the keys of a suspended organisation call again, each as it was. Args and errors as `suspend`."""
    return _set_suspended(tx, org, False, confirm, reason)


def _set_suspended(tx: Transaction, org: str, suspended: bool, confirm: str, reason: str) -> Organisation:
    found = _for_change(tx, org)
    words.check_confirmed(confirm, found.name, "organisation's name")
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


def _for_change(tx: Transaction, org: str) -> Organisation:
    require_platform_admin(tx)
    found = find(tx, org)
    lock_orgs(tx, found.id)
    return found


def _require_free_name(tx: Transaction, name: str, present: Organisation | None = None) -> None:
    """Raise Conflict if another organisation has the name, or one that differs in case alone."""
    lock_name(tx, NAMES)
    wanted = words.folded(name)
    for other_id, other in tx.session.execute(select(Organisation.id, Organisation.name)):
        if words.folded(other) == wanted and (present is None or other_id != present.id):
            raise Conflict(f"There is already an organisation named {other!r}. Choose another name.")


def find(tx: Transaction, name_or_id: str) -> Organisation:
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


def list_all(tx: Transaction) -> list[Organisation]:
    """Return the organisations that the actor may see, by name."""
    query = select(Organisation).order_by(Organisation.name)
    if tx.actor.org_id is not None:
        query = query.where(Organisation.id == tx.actor.org_id)
    return list(tx.session.scalars(query))
