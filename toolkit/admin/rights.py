"""Rights: who may do what. Every service asks here before it does anything.

| role | may |
|---|---|
| platform_admin | everything, and alone: organisations, plans, prices, upstreams, wallet, its own operators |
| org_admin | its organisation's keys, org admins and analysts; see its spend, wallet, requests and audit log |
| analyst | read, of one organisation or (given none) of all |
"""

from toolkit.core.errors import Forbidden, NotFound
from toolkit.core.policy import Role
from toolkit.store.transaction import Transaction


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


def may_know(tx: Transaction, org_id: str | None) -> bool:
    """Whether the actor may know of what is an organisation's own, or with None everybody's."""
    return org_id is None or tx.actor.org_id in {None, org_id}


def require_operator_admin(tx: Transaction, org_id: str | None) -> None:
    """Raise unless the actor may add and change people of this organisation, or with None those of no single one."""
    if tx.actor.role is Role.ANALYST:
        raise Forbidden("Analysts may look, not change. Ask an org admin.")
    if tx.actor.role is not Role.PLATFORM_ADMIN and tx.actor.org_id != org_id:
        raise Forbidden("An org admin adds and changes org admins and analysts of the own organisation only.")
