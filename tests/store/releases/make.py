"""Makes this release's two key stores, beside this file: `python -m tests.store.releases.make`."""

import gzip
import sys
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Table, func, insert, select

import toolkit
from toolkit import environment
from toolkit.admin import operators, organisations, sign_in
from toolkit.checks import reconcile
from toolkit.core.errors import SignInFailed
from toolkit.core.passwords import hash_password
from toolkit.core.period import billing_month
from toolkit.core.policy import Role
from toolkit.demo import data
from toolkit.statements import month_close
from toolkit.store.tables import Base, Moment
from toolkit.store.transaction import Transaction
from toolkit.workspace import Workspace

HERE = Path(__file__).parent
EMAIL, PASSWORD = "ada@example.com", "correct horse battery"
PEPPER = "a pepper for stores that nobody calls"


def open_in(folder: Path) -> Workspace:
    """Open a Keydesk in a folder, whose key store is made if there is none."""
    variables = {"KEYDESK_DATA_DIR": str(folder), "KEYDESK_PEPPER": PEPPER.encode().hex()}
    return Workspace.open(environment.read_settings(variables), make=True)


def fill(workspace: Workspace) -> None:
    """Let some of everything happen: calls and acts of operators, and what remains in tables that are still empty."""
    data.load(workspace, calls=60)
    with workspace.write() as tx:
        operators.add(tx, EMAIL, Role.PLATFORM_ADMIN, hash_password(PASSWORD))
        org = organisations.list_all(tx)[0].id
        last_month = billing_month(tx.now.replace(day=1) - timedelta(days=1))
    sign_in.open_session(workspace.store, EMAIL, PASSWORD, "192.0.2.7")
    with suppress(SignInFailed):
        sign_in.open_session(workspace.store, EMAIL, PASSWORD[1:], "192.0.2.8")
    month_close.close(workspace, org, last_month, first=True)
    reconcile.run(workspace)
    with workspace.write() as tx:
        for table in Base.metadata.sorted_tables:
            if not tx.session.scalar(select(func.count()).select_from(table)):
                tx.session.execute(insert(table).values(row_of(tx, table)))


def row_of(tx: Transaction, table: Table) -> dict[str, Any]:
    """Return a row that a table takes: what it refers to is there, and numbers, moments and words are any."""
    row: dict[str, Any] = {}
    for column in table.columns:
        reference = next(iter(column.foreign_keys), None)
        if reference is not None:
            row[column.name] = tx.session.scalars(select(reference.column).limit(1)).one()
        else:
            row[column.name] = tx.now if isinstance(column.type, Moment) else column.type.python_type(1)
    return row


def main() -> None:
    """Write both files."""
    for name, filled in (("empty", False), ("filled", True)):
        with tempfile.TemporaryDirectory() as folder:
            workspace = open_in(Path(folder))
            if filled:
                fill(workspace)
            workspace.close()  # the last connection takes the write-ahead log into the file
            path = HERE / f"{toolkit.__version__}-{name}.db.gz"
            path.write_bytes(gzip.compress(Path(folder, "keydesk.db").read_bytes(), mtime=0))
            sys.stdout.write(f"{path.name}: {path.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
