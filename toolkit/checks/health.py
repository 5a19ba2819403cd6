"""Health: which processes are alive, how the stores stand, and which versions run."""

from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from platform import python_version

from sqlalchemy import func, select, text

from toolkit import environment
from toolkit.admin import rights
from toolkit.checks import reconcile_runs
from toolkit.checks.reconcile_runs import Run
from toolkit.ledger.ledger import Ledger, Status
from toolkit.store import migrations
from toolkit.store.tables import AlertRunner, GatewayInstance, HoldRow
from toolkit.store.transaction import Transaction, store_now

LATE = 60.0
"""Seconds that a row may wait for the ledger: the drain moves rows once a second."""

_WORDS = ("extra ==", "extra==")


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway process that was heard of.

    Args:
        id: of the process.
        version: of Keydesk; None if it is of before that was noted.
        started_at: UTC.
        lease_until: until when it is taken to be alive, UTC; it renews that three times as often.
        alive: whether that lies ahead.
        open_calls: holds that it owns.
    """

    id: str
    version: str | None
    started_at: datetime
    lease_until: datetime
    alive: bool
    open_calls: int


@dataclass(frozen=True, slots=True)
class KeyStore:
    """The key store.

    Args:
        kind: "SQLite" or "PostgreSQL".
        name: where it is, without a password.
        size: bytes.
        schema: version of its schema.
    """

    kind: str
    name: str
    size: int
    schema: int


@dataclass(frozen=True, slots=True)
class Health:
    """How a Keydesk stands at a moment.

    Args:
        at: UTC, by the store's clock.
        version, python: of the process that looks.
        gateways: the living first, then the youngest.
        alerts_until: until when a process has the lease to send alerts; None if none has.
        store: the key store.
        ledger: the usage ledger.
        ledger_root: where its segments are.
        last_run: the last reconciliation, if there was one.
        packages: what Keydesk needs, and the versions that are installed, by name.
    """

    at: datetime
    version: str
    python: str
    gateways: list[Gateway]
    alerts_until: datetime | None
    store: KeyStore
    ledger: Status
    ledger_root: str
    last_run: Run | None
    packages: dict[str, str]

    @property
    def is_drained(self) -> bool:
        """Whether somebody moves rows into the ledger."""
        return self.ledger.oldest_seconds < LATE

    @property
    def faults(self) -> list[str]:
        """What is not as it should be, in sentences with what to do."""
        said = []
        alive = [gateway for gateway in self.gateways if gateway.alive]
        if not alive:
            said.append("No gateway runs, so no call is answered: start one with `keydesk gateway`, or `keydesk up`.")
        versions = {gateway.version for gateway in alive} | {self.version}
        if len(versions) > 1:
            said.append("Not all processes run the same version: restart those that are older.")
        if not self.is_drained:
            said.append("Nobody moves rows into the ledger: start `keydesk ledger sync --follow`, or `keydesk up`.")
        if self.alerts_until is None:
            said.append("Nobody sends alerts: start `keydesk alerts run`, or `keydesk up`.")
        if self.last_run is None:
            said.append("The books were never reconciled: run `keydesk reconcile`, every day.")
        elif not self.last_run.clean:
            said.append("The last reconciliation found violations: `keydesk reconcile` shows them.")
        return said


def read(ledger: Ledger) -> Health:
    """Return how everything stands.

    Args:
        ledger: of a platform admin.

    Raises:
        Forbidden: the actor is no platform admin.
        Unavailable: the key store or the segments' place cannot be reached.
    """
    with ledger.store.read(ledger.actor) as tx:
        rights.require_platform_admin(tx)
        now = store_now(tx)
        gateways, alerts = _gateways(tx, now), tx.session.scalar(select(AlertRunner.lease_until))
        last_run, schema = reconcile_runs.last_run(tx), migrations.schema_version(tx.session.connection())
        store = KeyStore("PostgreSQL" if ledger.store.is_postgres else "SQLite", ledger.store.name, _size(tx), schema)
    return Health(
        at=now,
        version=environment.version(),
        python=python_version(),
        gateways=gateways,
        alerts_until=alerts if alerts is not None and alerts >= now else None,
        store=store,
        ledger=ledger.status(),
        ledger_root=str(ledger.root),
        last_run=last_run,
        packages=packages(),
    )


def packages() -> dict[str, str]:
    """Return the packages that Keydesk names as needed, with the versions that are installed, by name."""
    try:
        needed = metadata.requires("keydesk") or []
    except metadata.PackageNotFoundError:  # run from a folder that was not installed
        return {}
    found = {}
    for line in needed:
        requirement, _, condition = line.partition(";")
        name = _name(requirement)
        try:
            if not any(word in condition for word in _WORDS):
                found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # not for this system
            continue
    return dict(sorted(found.items()))


def _name(requirement: str) -> str:
    """Return the name in a requirement, such as `psycopg[binary]>=3.3`."""
    return next((requirement[:place] for place, sign in enumerate(requirement) if sign in "[<>=!~ ("), requirement)


def _gateways(tx: Transaction, now: datetime) -> list[Gateway]:
    counts = select(HoldRow.instance_id, func.count()).group_by(HoldRow.instance_id)
    calls: dict[str, int] = {row[0]: row[1] for row in tx.session.execute(counts)}
    found = [
        Gateway(row.id, row.version, row.started_at, row.lease_until, row.lease_until >= now, calls.get(row.id, 0))
        for row in tx.session.scalars(select(GatewayInstance).order_by(GatewayInstance.started_at.desc()))
    ]
    return sorted(found, key=lambda gateway: not gateway.alive)


def _size(tx: Transaction) -> int:
    """Return the bytes of the key store: of SQLite with what has not been merged into its file yet."""
    bind = tx.session.get_bind()
    if bind.dialect.name == "postgresql":
        return int(tx.session.scalar(text("SELECT pg_database_size(current_database())")) or 0)
    path = Path(str(tx.session.connection().engine.url.database))
    files = (path, path.with_name(f"{path.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
