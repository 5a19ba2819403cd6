"""What keys, organisations and plans are called, for the ledger's rows: read once, and kept until one has changed."""

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, func, select

from toolkit.core.policy import KeyStatus
from toolkit.store.database import Store
from toolkit.store.tables import ApiKey, Organisation, Plan
from toolkit.store.transaction import Transaction

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_KEPT = 256
"""Actors' organisations of one store whose names are kept; beyond that all are read anew."""


class Names(NamedTuple):
    """Names by id, each id once.

    Args:
        keys: id, name, label (marked if the key is deleted), org (its organisation's name), owner, environment.
        plans: id, name.
    """

    keys: "pa.Table"
    plans: "pa.Table"


_kept: WeakKeyDictionary[Engine, dict[str | None, tuple[Any, Names]]] = WeakKeyDictionary()


def read(store: Store, tx: Transaction) -> Names:
    """Return the names that the transaction's actor may see, as they are in its snapshot.

    Args:
        store: whose transaction it is.
        tx: a read transaction.
    """
    seen = tx.actor.org_id
    kept = _kept.setdefault(store.engine, {})
    state = _state(tx, seen)
    known = kept.get(seen)  # once: another thread may drop them all meanwhile
    if known is not None and known[0] == state:
        return known[1]
    names = _read(tx, seen)
    if len(kept) >= _MOST_KEPT:
        kept.clear()
    kept[seen] = state, names
    return names


def _state(tx: Transaction, seen: str | None) -> Any:
    """Return what differs whenever a name does: each change raises a key's version, and no key's row ever goes."""
    keys = select(func.count(), func.sum(ApiKey.version))
    orgs = select(Organisation.id, Organisation.name).order_by(Organisation.id)
    if seen is not None:
        keys, orgs = keys.where(ApiKey.org_id == seen), orgs.where(Organisation.id == seen)
    execute = tx.session.execute
    return execute(keys).one(), execute(orgs).all(), execute(select(Plan.id, Plan.name).order_by(Plan.id)).all()


def _read(tx: Transaction, seen: str | None) -> Names:
    import pyarrow as pa

    query = select(ApiKey.id, ApiKey.name, ApiKey.status, Organisation.name, ApiKey.owner, ApiKey.environment)
    query = query.join(Organisation, Organisation.id == ApiKey.org_id)
    if seen is not None:
        query = query.where(ApiKey.org_id == seen)
    keys = [
        (key_id, name, f"{name} (deleted)" if status == KeyStatus.DELETED else name, *rest)
        for key_id, name, status, *rest in tx.session.execute(query)
    ]
    return Names(
        _table(pa, ("id", "name", "label", "org", "owner", "environment"), keys),
        _table(pa, ("id", "name"), tx.session.execute(select(Plan.id, Plan.name).order_by(Plan.id)).all()),
    )


def _table(pa: Any, columns: tuple[str, ...], rows: Any) -> "pa.Table":
    values = list(zip(*rows, strict=True)) or [()] * len(columns)
    return pa.table({name: pa.array(column, pa.string()) for name, column in zip(columns, values, strict=True)})
