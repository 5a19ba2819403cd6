"""Locks of the key store, which a transaction holds until it ends.

An organisation's row is the lock of all that is its (keys, wallet, months, holds): whoever changes any of it first
calls `lock_orgs`, and what is read behind that is current. Locks are taken in one order everywhere: catalog,
organisations by id, names, then the rest, audit heads last. SQLite has one lock for everything, which a write
transaction holds from its beginning.
"""

from sqlalchemy import select, text

from toolkit.store.tables import CatalogVersion, Organisation
from toolkit.store.transaction import Transaction


def lock_orgs(tx: Transaction, *org_ids: str) -> None:
    """Take the locks of organisations, until the transaction ends: first of all, before anything is judged by.

    An organisation's row is the lock of all that is its: wallet, keys, their months, holds. What is read behind the
    lock is current; organisations that the session knows already are read anew. SQLite has one lock for everything.

    Args:
        tx: a write transaction.
        org_ids: whose; locked in order of id, so that no two transactions wait for each other.
    """
    if tx.is_postgres:
        query = select(Organisation).where(Organisation.id.in_(org_ids)).order_by(Organisation.id)
        # NO KEY UPDATE: rows that refer to the organisation may be added meanwhile.
        tx.session.scalars(query.with_for_update(key_share=True).execution_options(populate_existing=True)).all()


def lock_catalog(tx: Transaction) -> None:
    """Take the lock of upstreams, models, prices and plans, until the transaction ends; before any organisation's."""
    if tx.is_postgres:
        tx.session.scalars(select(CatalogVersion.version).with_for_update(key_share=True)).one()


def lock_name(tx: Transaction, name: str) -> None:
    """Take a lock that no row stands for, until the transaction ends; after organisations', before audit heads'.

    Args:
        tx: a write transaction.
        name: the same for all who must not act at once, such as "drain".
    """
    if tx.is_postgres:
        tx.session.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"keydesk {name}"}
        )
