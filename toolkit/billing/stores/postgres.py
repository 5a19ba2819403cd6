"""A billing store over PostgreSQL: two round trips a batch, by psycopg's pipeline mode.

The first begins the transaction, locks the organisations' rows in order of id, and reads. Under READ COMMITTED a
statement sees all that was committed before it began, so what is read behind the locks is current: every writer of
an organisation's wallet, keys, months and holds takes its row's lock first. The second writes and commits.
"""

from collections.abc import Sequence
from typing import Any

import psycopg

from toolkit.billing.state import BatchState, Hold, Job, KeyState, LogRow, Month, RowsWanted, Wallet, judge, wanted_by
from toolkit.core.errors import Unavailable
from toolkit.store.database import Store

_HOLD = ", ".join(Hold._fields)
_LOG = ", ".join(LogRow._fields)
_PG_TYPES = {int: "bigint", str: "text", bool: "boolean"}


def _arrays(row: type[Any]) -> str:
    kinds = [hint if isinstance(hint, type) else hint.__args__[0] for hint in row.__annotations__.values()]
    return ", ".join(f"%s::{_PG_TYPES[kind]}[]" for kind in kinds)


_READ_CATALOG = "SELECT version FROM catalog_version"
_READ_WALLETS = "SELECT id, credited - settled, held FROM organisation WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"
_READ_KEYS = (
    "SELECT k.id, k.version, k.monthly_limit, o.suspended FROM api_key k JOIN organisation o ON o.id = k.org_id"
    " WHERE k.id = ANY(%s)"
)
_READ_MONTHS = (
    "SELECT m.key_id, m.month, m.spent, m.held, m.corrected FROM key_month m"
    " JOIN unnest(%s::text[], %s::text[]) AS at (key_id, month) ON at.key_id = m.key_id AND at.month = m.month"
)
_READ_RECENT = (
    "SELECT r.key_id, r.model, r.cost FROM recent_cost r"
    " JOIN unnest(%s::text[], %s::text[]) AS at (key_id, model) ON at.key_id = r.key_id AND at.model = r.model"
)
_READ_REFUSED = (
    "SELECT c.key_id, c.refusal, c.minute, c.refused FROM refusal_count c"
    " JOIN unnest(%s::text[], %s::text[], %s::bigint[]) AS at (key_id, refusal, minute)"
    " ON at.key_id = c.key_id AND at.refusal = c.refusal AND at.minute = c.minute"
)
_TAKE_HOLDS = f"DELETE FROM hold WHERE request_id = ANY(%s) RETURNING {_HOLD}"
_ADD_HOLDS = f"INSERT INTO hold ({_HOLD}) SELECT * FROM unnest({_arrays(Hold)})"
_ADD_ROWS = f"INSERT INTO outbox ({_LOG}) SELECT * FROM unnest({_arrays(LogRow)})"
_CHANGE_WALLETS = (
    "UPDATE organisation o SET held = o.held + by.held, settled = o.settled + by.settled"
    " FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS by (id, held, settled) WHERE o.id = by.id"
)
_CHANGE_MONTHS = (
    "INSERT INTO key_month AS m (key_id, month, calls, spent, held, last_call_at, corrected)"
    " SELECT *, 0 FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])"
    " ON CONFLICT (key_id, month) DO UPDATE SET calls = m.calls + excluded.calls, spent = m.spent + excluded.spent,"
    " held = m.held + excluded.held, last_call_at = greatest(m.last_call_at, excluded.last_call_at)"
)
_SET_RECENT = (
    "INSERT INTO recent_cost (key_id, model, cost) SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[])"
    " ON CONFLICT (key_id, model) DO UPDATE SET cost = excluded.cost"
)
_ADD_REFUSED = (
    "INSERT INTO refusal_count (key_id, refusal, minute, refused)"
    " SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[])"
    " ON CONFLICT (key_id, refusal, minute) DO UPDATE SET refused = refusal_count.refused + excluded.refused"
)


class PostgresBillingStore:
    """Judges batches of jobs and commits them.

    Args:
        store: a PostgreSQL key store; the billing store has a connection of its own.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connection: psycopg.Connection[Any] | None = None

    def run(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """Judge jobs in turn and commit, as `BillingStore` says."""
        try:
            connection = self._connection = self._connection or self._store.connect_postgres()
            batch = _read(connection, wanted_by(jobs))
            results = judge(jobs, batch)
            _write_and_commit(connection, batch)
        except (psycopg.IntegrityError, psycopg.DataError):
            self.close()
            raise  # a job's fault, not the store's
        except psycopg.Error as error:
            self.close()  # which rolls back whatever had not been committed
            raise Unavailable(f"The key store cannot be reached: {error}") from error
        except BaseException:
            self.close()
            raise
        return results

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _columns(rows: Any) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _read(connection: psycopg.Connection[Any], wanted: RowsWanted) -> BatchState:
    def ask(query: str, *values: Any) -> psycopg.Cursor[Any]:
        return connection.execute(query, values, binary=True)

    with connection.pipeline():
        connection.execute("BEGIN")
        wallets = ask(_READ_WALLETS, list(wanted.orgs))
        version = ask(_READ_CATALOG)
        keys = ask(_READ_KEYS, list(wanted.keys)) if wanted.keys else ()
        months = ask(_READ_MONTHS, *_columns(wanted.months)) if wanted.months else ()
        recent = ask(_READ_RECENT, *_columns(wanted.recent)) if wanted.recent else ()
        holds = ask(_TAKE_HOLDS, wanted.holds) if wanted.holds else ()
        refused = ask(_READ_REFUSED, *_columns(wanted.refused)) if wanted.refused else ()
    return BatchState(
        catalog_version=version.fetchall()[0][0],
        wallets={org: Wallet(balance, held, held) for org, balance, held in wallets},
        keys={key: KeyState(number, limit, suspended) for key, number, limit, suspended in keys},
        months={(key, month): Month(spent, held, corrected=corrected) for key, month, spent, held, corrected in months},
        recent={(key, model): cost for key, model, cost in recent},
        holds={row[0]: Hold(*row) for row in holds},
        refused={(key, refusal, minute): count for key, refusal, minute, count in refused},
    )


def _write_and_commit(connection: psycopg.Connection[Any], batch: BatchState) -> None:
    def tell(query: str, rows: Any) -> None:
        if rows:
            connection.execute(query, _columns(rows))

    with connection.pipeline():
        tell(_ADD_HOLDS, batch.holds.values())
        tell(_ADD_ROWS, batch.new_rows)
        tell(_SET_RECENT, [(*at, cost) for at, cost in batch.new_recent.items()])
        tell(_ADD_REFUSED, [(*at, count) for at, count in sorted(batch.new_refused.items())])
        tell(_CHANGE_WALLETS, batch.wallet_changes())
        tell(_CHANGE_MONTHS, batch.month_changes())
        connection.execute("COMMIT")
