"""A driver's connection that fails when it is told to: before or after any of its statements, or by being cut."""

import contextlib
import socket
import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg

from toolkit.billing.stores import BillingStore
from toolkit.store.database import Store
from toolkit.store.locks import lock_orgs
from toolkit.workspace import Workspace


class Fault(NamedTuple):
    """What goes wrong.

    Args:
        step: at the how manyth step of a batch, from 0; there is one before and one after each statement, and
            one more when the answers to a pipeline have come.
        cut: whether the transaction is lost with it, as when the server or the network dies, or a disk is full;
            else only the statement fails.
    """

    step: int
    cut: bool


class Shaky:
    """A driver's connection with at most one fault.

    Args:
        real: the driver's own.
        fault: what is to happen, if anything.
    """

    def __init__(self, real: Any, fault: Fault | None = None) -> None:
        self.real = real
        self.fault = fault
        self.steps = 0
        self.fired = False
        self.commit_sent = False

    def _step(self) -> None:
        self.steps += 1
        if self.fault is not None and self.steps == self.fault.step + 1:
            self.fired = True
            if self.fault.cut:
                _cut(self.real)
            raise _error(self.real)

    def _run(self, method: str, statement: str, *values: Any, **options: Any) -> Any:
        self._step()
        answer = getattr(self.real, method)(statement, *values, **options)
        self.commit_sent = self.commit_sent or statement == "COMMIT"
        self._step()
        return answer

    def execute(self, statement: str, *values: Any, **options: Any) -> Any:
        """Run a statement, unless it fails."""
        return self._run("execute", statement, *values, **options)

    def executemany(self, statement: str, *values: Any) -> Any:
        """Run a statement many times, unless it fails."""
        return self._run("executemany", statement, *values)

    @contextlib.contextmanager
    def pipeline(self) -> Iterator[Any]:
        """Send statements together."""
        with self.real.pipeline() as pipeline:
            yield pipeline
        self._step()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def _error(real: Any) -> Exception:
    if isinstance(real, sqlite3.Connection):
        error = sqlite3.OperationalError("made up by a test")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        return error
    return psycopg.OperationalError("made up by a test")


def _cut(real: Any) -> None:
    if isinstance(real, sqlite3.Connection):
        if real.in_transaction:
            real.execute("ROLLBACK")  # as SQLite does by itself when the disk is full
        return
    with contextlib.suppress(OSError), socket.socket(fileno=socket.dup(real.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)


def shake(store: Store, billing_store: Any, fault: Fault | None) -> Shaky:
    """Let the next batch of a billing store meet a fault; return its connection, which counts the steps."""
    connection = billing_store._connection
    if connection is None:
        connection = store.connect_postgres() if store.is_postgres else billing_store._connect()
    shaky = billing_store._connection = Shaky(connection.real if isinstance(connection, Shaky) else connection, fault)
    return shaky


def settle_down(workspace: Workspace, org_id: str) -> None:
    """Wait for the end of a transaction whose connection was cut: the server may still be at work on its COMMIT.

    It had an organisation's lock; whoever gets that lock next sees the outcome. So does a settlement that is tried
    again.
    """
    with workspace.write() as tx:
        lock_orgs(tx, org_id)


def steps_of(store: Store, billing_store: BillingStore, jobs: Any) -> int:
    """Run a batch without faults; return at how many steps one might have come."""
    shaky = shake(store, billing_store, None)
    billing_store.run(jobs)
    return shaky.steps
