"""Row security: in every view of the ledger, an actor of one organisation sees that organisation's rows alone.

Rows of the key store are held back before they cross to DuckDB, those of the request log by a condition of the view.
That is no wall against code: who runs Python beside the files is trusted with them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Table, select, true

from toolkit.ledger.duckdb_engine import sql_literal
from toolkit.store import audit
from toolkit.store.actor import Actor
from toolkit.store.tables import ApiKey, AuditRow, Organisation, Plan, PlanModel, Price
from toolkit.store.transaction import Transaction


def visible_rows(table: Table, actor: Actor) -> ColumnElement[bool]:
    """Return the condition that a row of the key store is one that the actor may see."""
    org_id = actor.org_id
    if org_id is None or table is Plan.__table__:
        return true()
    if table is Organisation.__table__:
        return table.c.id == org_id
    if table is Price.__table__:  # which models other organisations call is theirs to know
        included = select(PlanModel.model_id).join(ApiKey, ApiKey.plan_id == PlanModel.plan_id)
        return table.c.model_id.in_(included.where(ApiKey.org_id == org_id))
    if table is AuditRow.__table__:
        return table.c.chain == org_id
    if "org_id" in table.columns:
        return table.c.org_id == org_id
    return table.c.key_id.in_(select(ApiKey.id).where(ApiKey.org_id == org_id))


def visible_calls(actor: Actor) -> str:
    """Return the condition that a row of the request log is one that the actor may see, as DuckDB's SQL."""
    return "true" if actor.org_id is None else f"org_id = {sql_literal(actor.org_id)}"


def name_readers(tx: Transaction, table: Table) -> dict[str, Callable[[Any], Any]]:
    """Return how the columns of a table that say who did or made something are read.

    People of an organisation do not learn the names of the platform's people.
    """
    named = [name for name in table.columns.keys() if name in audit.NAMES]  # noqa: SIM118 - not a dict
    if tx.actor.org_id is None or not named:
        return {}
    shown = audit.names_shown(tx)
    readers: dict[str, Callable[[Any], Any]] = dict.fromkeys(named, shown)
    if table is AuditRow.__table__:
        readers |= dict.fromkeys(("before", "after"), partial(audit.facts_shown, shown=shown))
    return readers
