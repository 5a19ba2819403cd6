"""A billing store over SQLite: one BEGIN IMMEDIATE … COMMIT on the driver's own connection."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from toolkit.billing.state import BatchState, Hold, Job, KeyState, LogRow, Month, RowsWanted, Wallet, judge, wanted_by
from toolkit.core.dialect import Dialect
from toolkit.core.errors import RefusalType, Unavailable
from toolkit.core.policy import Outcome
from toolkit.core.usage import OverrunReason, UsageSource
from toolkit.store.database import BUSY_TIMEOUT, Store
from toolkit.store.engines import begin_immediate

_HOLD = ", ".join(Hold._fields)
_LOG = ", ".join(LogRow._fields)

_READ_CATALOG = "SELECT version FROM catalog_version"
_READ_WALLETS = "SELECT id, credited - settled, held FROM organisation WHERE id IN (SELECT value FROM json_each(?))"
_READ_KEYS = (
    "SELECT k.id, k.version, k.monthly_limit, o.suspended FROM api_key k JOIN organisation o ON o.id = k.org_id"
    " WHERE k.id IN (SELECT value FROM json_each(?))"
)
_READ_MONTHS = (
    "SELECT m.key_id, m.month, m.spent, m.held, m.corrected FROM json_each(?) AS at"
    # CROSS JOIN: the planner keeps this order
    " CROSS JOIN key_month m ON m.key_id = at.value ->> 0 AND m.month = at.value ->> 1"
)
_READ_RECENT = "SELECT cost FROM recent_cost WHERE key_id = ? AND model = ?"
_READ_REFUSED = "SELECT refused FROM refusal_count WHERE key_id = ? AND refusal = ? AND minute = ?"
_TAKE_HOLDS = f"DELETE FROM hold WHERE request_id IN (SELECT value FROM json_each(?)) RETURNING {_HOLD}"
_ADD_HOLD = f"INSERT INTO hold ({_HOLD}) VALUES ({', '.join('?' * len(Hold._fields))})"
_ADD_ROW = f"INSERT INTO outbox ({_LOG}) VALUES ({', '.join('?' * len(LogRow._fields))})"
_CHANGE_WALLET = "UPDATE organisation SET held = held + ?2, settled = settled + ?3 WHERE id = ?1"
_CHANGE_MONTH = (
    "INSERT INTO key_month (key_id, month, calls, spent, held, last_call_at, corrected) VALUES (?, ?, ?, ?, ?, ?, 0)"
    " ON CONFLICT (key_id, month) DO UPDATE SET calls = calls + excluded.calls, spent = spent + excluded.spent,"
    " held = held + excluded.held, last_call_at = max(last_call_at, excluded.last_call_at)"
)
_SET_RECENT = (
    "INSERT INTO recent_cost (key_id, model, cost) VALUES (?, ?, ?)"
    " ON CONFLICT (key_id, model) DO UPDATE SET cost = excluded.cost"
)
_ADD_REFUSED = (
    "INSERT INTO refusal_count (key_id, refusal, minute, refused) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (key_id, refusal, minute) DO UPDATE SET refused = refused + excluded.refused"
)


class SqliteBillingStore:
    """Judges batches of jobs and commits them.

    Args:
        store: a SQLite key store; the billing store has a connection of its own.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connection: sqlite3.Connection | None = None

    def run(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """Judge jobs in turn and commit, as `BillingStore` says. With `synchronous=FULL` a commit is on the disk."""
        try:
            connection = self._connection = self._connection or self._connect()
            try:
                begin_immediate(connection, BUSY_TIMEOUT)
                batch = _read(connection, wanted_by(jobs))
                results = judge(jobs, batch)
                _write(connection, batch)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError):
            raise  # a job's fault, not the store's
        except sqlite3.Error as error:
            self.close()
            raise Unavailable(f"The key store cannot be reached: {error}") from error
        return results

    def _connect(self) -> sqlite3.Connection:
        _teach_driver()
        connection = self._store.connect()
        connection.row_factory = None
        connection.execute("PRAGMA busy_timeout = 0")  # `begin_immediate` waits
        return connection

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _teach_driver() -> None:
    """Tell the driver how to bind nothing, truth values and words of ours, with the result that it comes to anyway.

    It would look for a way at each of them, and build two errors before it takes it as it is: seven times the time.
    """
    sqlite3.register_adapter(type(None), _as_it_is)
    sqlite3.register_adapter(bool, int)
    for words in (Dialect, Outcome, OverrunReason, RefusalType, UsageSource):
        sqlite3.register_adapter(words, str)


def _as_it_is(value: None) -> None:
    return value


def _array(ids: Iterable[str]) -> str:
    """Return ids as a JSON array. They hold letters, digits, `_` and `-` only; `json.dumps` takes ten times as long."""
    return '["' + '","'.join(ids) + '"]'


def _read(connection: sqlite3.Connection, wanted: RowsWanted) -> BatchState:
    execute = connection.execute
    return BatchState(
        catalog_version=execute(_READ_CATALOG).fetchone()[0],
        wallets={
            org: Wallet(balance, held, held) for org, balance, held in execute(_READ_WALLETS, (_array(wanted.orgs),))
        },
        keys={
            key: KeyState(version, limit, bool(suspended))
            for key, version, limit, suspended in execute(_READ_KEYS, (_array(wanted.keys),))
        }
        if wanted.keys
        else {},
        months={
            (key, month): Month(spent, held, corrected=corrected)
            for key, month, spent, held, corrected in execute(
                _READ_MONTHS, (f"[{','.join(map(_array, wanted.months))}]",)
            )
        },
        recent={at: row[0] for at in wanted.recent if (row := execute(_READ_RECENT, at).fetchone())},
        holds={row[0]: Hold(*row) for row in execute(_TAKE_HOLDS, (_array(wanted.holds),))} if wanted.holds else {},
        refused={at: row[0] for at in wanted.refused if (row := execute(_READ_REFUSED, at).fetchone())},
    )


def _write(connection: sqlite3.Connection, batch: BatchState) -> None:
    many = connection.executemany
    # The driver asks a tuple with names for each of its items by a method, and a plain one not.
    many(_ADD_HOLD, map(tuple, batch.holds.values()))
    if batch.new_rows:
        many(_ADD_ROW, map(tuple, batch.new_rows))
    if batch.new_recent:
        many(_SET_RECENT, [(*at, cost) for at, cost in batch.new_recent.items()])
    if batch.new_refused:
        many(_ADD_REFUSED, [(*at, count) for at, count in batch.new_refused.items()])
    many(_CHANGE_WALLET, batch.wallet_changes())
    many(_CHANGE_MONTH, batch.month_changes())
