"""Whether a gateway can admit calls: whether the key store takes commits, which a full disk or a lost lease forbids."""

import asyncio
import math
import sqlite3
import time
from collections.abc import Callable, Iterable

import psycopg
from sqlalchemy.exc import DBAPIError

from toolkit.billing import leases
from toolkit.core.errors import Unavailable
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store

FRESH = 10.0
"""Seconds for which a commit shows that the next one will do, too."""

PROBE_EVERY = 1.0
"""Seconds between two commits that are made for this alone, whoever asks."""

_SQLITE = {
    sqlite3.SQLITE_FULL: "The disk of the key store is full.",
    sqlite3.SQLITE_READONLY: "The key store can only be read: its file or disk is read-only.",
    sqlite3.SQLITE_BUSY: "Another process keeps the key store locked.",
    sqlite3.SQLITE_IOERR: "The disk of the key store does not read or write.",
    sqlite3.SQLITE_CORRUPT: "The key store is damaged. Run: keydesk reconcile",
    sqlite3.SQLITE_NOTADB: "The key store is damaged. Run: keydesk reconcile",
}
_POSTGRES = {
    "53100": "The disk of the key store is full.",
    "25006": "The key store can only be read: it is a standby, or read-only.",
    "55P03": "Another process keeps the key store locked.",
    "57014": "Another process keeps the key store locked.",
}
"""By SQLSTATE; PostgreSQL, "Error Codes"."""

AWAY = "The key store cannot be reached."
NO_LEASE = "The gateway has lost its lease, and takes calls again as soon as it has renewed it."

Moments = tuple[float, float]


class Readiness:
    """Says whether a gateway can admit calls.

    Args:
        store: the key store.
        instance_id: the gateway's.
        commits: each returns when a commit last succeeded and when one last failed, on the monotonic clock.
        has_lease: whether the gateway's lease holds.
    """

    def __init__(
        self, store: Store, instance_id: str, commits: Iterable[Callable[[], Moments]], has_lease: Callable[[], bool]
    ) -> None:
        self._store = store
        self._instance_id = instance_id
        self._commits = list(commits)
        self._has_lease = has_lease
        self._probed = -math.inf
        self._fault: str | None = None
        self._probing = asyncio.Lock()

    async def fault(self) -> str | None:
        """Return why calls cannot be admitted, a sentence without a path or a secret; None if they can."""
        fault = None if self._is_fresh() else await self._probed_fault()
        return fault or (None if self._has_lease() else NO_LEASE)

    def _is_fresh(self) -> bool:
        moments = [commits() for commits in self._commits]
        succeeded = max(moment for moment, _ in moments)
        return time.monotonic() - succeeded < FRESH and succeeded > max(moment for _, moment in moments)

    async def _probed_fault(self) -> str | None:
        async with self._probing:
            if time.monotonic() - self._probed >= PROBE_EVERY:
                self._fault = await asyncio.to_thread(self._probe)
                self._probed = time.monotonic()
        return self._fault

    def _probe(self) -> str | None:
        try:
            with self._store.write(SYSTEM) as tx:
                leases.touch(tx, self._instance_id)
        except Unavailable as error:
            return reason(error)
        return None


def reason(error: Unavailable) -> str:
    """Return why the key store did not take a commit, without a path, an address or a secret."""
    cause = error.__cause__
    fault = cause.orig if isinstance(cause, DBAPIError) else cause
    if isinstance(fault, sqlite3.Error):
        return _SQLITE.get(getattr(fault, "sqlite_errorcode", 0) & 0xFF, AWAY)
    if isinstance(fault, psycopg.Error):
        return _POSTGRES.get(fault.sqlstate or "", AWAY)
    return AWAY
