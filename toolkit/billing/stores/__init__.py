"""Billing stores: how a batch of billing jobs meets the key store. One file for each kind of store."""

from collections.abc import Sequence
from typing import Any, Protocol

from toolkit.billing.state import Job
from toolkit.store.database import Store

BATCH = 256
"""Most jobs in one transaction: it keeps other writers waiting for a few milliseconds only."""


class BillingStore(Protocol):
    """Judges batches of jobs, each batch in one transaction. Not for two threads at once."""

    def run(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """Judge jobs in turn and commit; return each one's result, or the exception that it raised.

        Raises:
            Unavailable: the key store cannot be reached, or the commit's outcome is not known. A later batch
                connects anew.
            Exception: what some job wrote does not fit the store; nothing of the batch is kept.
        """

    def close(self) -> None:
        """Close the connection."""


def open_billing_store(store: Store) -> BillingStore:
    """Return a billing store for a key store; it connects at its first batch, and closes with `close`."""
    if store.is_postgres:
        from toolkit.billing.stores.postgres import PostgresBillingStore

        return PostgresBillingStore(store)
    from toolkit.billing.stores.sqlite import SqliteBillingStore

    return SqliteBillingStore(store)
