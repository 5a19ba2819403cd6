"""The journal: what each transaction did to money, in the order of the commits, written by triggers of the store.

A trigger runs inside the transaction that sets it off, so a line is there exactly if its transaction committed. On
SQLite one writer has the whole store, so the lines stand in the order of the commits. On PostgreSQL every writer of an
organisation's money locks its row first, so they do for each organisation.
"""

from dataclasses import dataclass

from tests.chaos.stores import Reader, execute

TABLE = "chaos_journal"

_COLUMNS = "what, org_id, key_id, month, request_id, note, a, b, c"

_TYPES = "what TEXT, org_id TEXT, key_id TEXT, month TEXT, request_id TEXT, note TEXT, a BIGINT, b BIGINT, c BIGINT"
_MADE_BY_SQLITE = f"""
CREATE TABLE {TABLE} (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL DEFAULT ((julianday('now') - 2440587.5) * 86400000),
    {_TYPES}
)
"""
_MADE_BY_POSTGRES = f"""
CREATE TABLE {TABLE} (
    seq BIGSERIAL PRIMARY KEY,
    at DOUBLE PRECISION NOT NULL DEFAULT extract(epoch FROM clock_timestamp()) * 1000,
    {_TYPES}
)
"""

# Table, change, and what the journal says of it; {row} is the row before or after.
_LINES = {
    "hold_placed": (
        "hold",
        "INSERT",
        "'hold', {row}.org_id, {row}.key_id, {row}.month, {row}.request_id, '', {row}.amount, {row}.limit_amount, 0",
    ),
    "hold_released": (
        "hold",
        "DELETE",
        "'release', {row}.org_id, {row}.key_id, {row}.month, {row}.request_id, '', {row}.amount, {row}.limit_amount, 0",
    ),
    "row_written": (
        "outbox",
        "INSERT",
        "'row', {row}.org_id, {row}.key_id, '', {row}.request_id, {row}.outcome, {row}.cost, {row}.held, 0",
    ),
    "wallet_made": (
        "organisation",
        "INSERT",
        "'wallet', {row}.id, '', '', '', '', {row}.credited, {row}.settled, {row}.held",
    ),
    "wallet_changed": (
        "organisation",
        "UPDATE",
        "'wallet', {row}.id, '', '', '', '', {row}.credited, {row}.settled, {row}.held",
    ),
    "month_begun": (
        "key_month",
        "INSERT",
        "'month', '', {row}.key_id, {row}.month, '', '', {row}.calls, {row}.spent, {row}.held",
    ),
    "month_changed": (
        "key_month",
        "UPDATE",
        "'month', '', {row}.key_id, {row}.month, '', '', {row}.calls, {row}.spent, {row}.held",
    ),
    "key_made": ("api_key", "INSERT", "'key', {row}.org_id, {row}.id, '', '', '', {row}.monthly_limit, 0, 0"),
    "key_changed": ("api_key", "UPDATE", "'key', {row}.org_id, {row}.id, '', '', '', {row}.monthly_limit, 0, 0"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the journal.

    Args:
        at: when the change was made, milliseconds on the machine's wall clock.
        what: `hold` and `release` (a: against the wallet, b: against the limit), `row` (a: cost, note: outcome),
            `wallet` (a: credited, b: settled, c: held), `month` (a: calls, b: spent, c: held), `key` (a: limit).
    """

    seq: int
    at: float
    what: str
    org_id: str
    key_id: str
    month: str
    request_id: str
    note: str
    a: int | None
    b: int
    c: int


def install(url: str) -> None:
    """Have the store keep the journal from now on."""
    statements = [_MADE_BY_SQLITE if url.startswith("sqlite") else _MADE_BY_POSTGRES]
    for name, (table, change, values) in _LINES.items():
        insert = (
            f"INSERT INTO {TABLE} ({_COLUMNS}) VALUES ({values.format(row='OLD' if change == 'DELETE' else 'NEW')})"
        )
        trigger = f"CREATE TRIGGER chaos_{name} AFTER {change} ON {table}"
        if url.startswith("sqlite"):
            statements.append(f"{trigger} BEGIN {insert}; END")
        else:
            body = f"$$ BEGIN {insert}; RETURN NULL; END $$"
            statements.append(f"CREATE FUNCTION chaos_{name}() RETURNS trigger LANGUAGE plpgsql AS {body}")
            statements.append(f"{trigger} FOR EACH ROW EXECUTE FUNCTION chaos_{name}()")
    execute(url, *statements)


def read(reader: Reader) -> list[Line]:
    """Return the journal, in the order of the commits."""
    (rows,) = reader.snapshot(f"SELECT seq, at, {_COLUMNS} FROM {TABLE} ORDER BY seq")
    return [Line(*row) for row in rows]
