"""A small world with a clock of its own, for the tests of the audits: what happened when is exact."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.account import Account, dollars, fixed
from tests.conftest import World, make_world, usd
from toolkit.admin import operators
from toolkit.admin.keys import NewSecret
from toolkit.admin.prices import list_prices
from toolkit.billing.call import Call, Ending
from toolkit.billing.stores import BillingStore, open_billing_store
from toolkit.checks import findings
from toolkit.checks.findings import AuditReport, Finding, Thresholds
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Outcome, Role
from toolkit.core.pricing import MILLION
from toolkit.core.usage import Usage, UsageSource
from toolkit.ledger.ledger import Ledger
from toolkit.store import holds, transaction
from toolkit.store.actor import Actor
from toolkit.store.tables import ApiKey
from toolkit.store.transaction import Transaction
from toolkit.workspace import Workspace

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
"""When the audits are made."""

BEGINNING = datetime(2026, 6, 1, 9, tzinfo=UTC)
"""When the organisation, its plan and its models were made."""

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
PASSWORD = "a-long-enough-password"


@dataclass
class Clock:
    """The store's clock."""

    now: datetime


@dataclass(frozen=True)
class Scene:
    """The world, its clock, and a billing store that bills its calls."""

    world: World
    clock: Clock
    billing_store: BillingStore

    @property
    def workspace(self) -> Workspace:
        """Keydesk, as a platform admin."""
        return self.world.workspace

    # -- letting things happen ----------------------------------------------------------------------------------

    @contextmanager
    def acting(self, at: datetime, name: str = "admin@keydesk.local") -> Iterator[Transaction]:
        """Open a transaction at a moment, in somebody's name, with the rights of the platform."""
        self.clock.now = at
        with self.workspace.store.write(Actor(name, Role.PLATFORM_ADMIN)) as tx:
            yield tx

    def key(self, name: str = "app", age: timedelta = 60 * DAY, **options: Any) -> NewSecret:
        """Create a key that is `age` old at NOW."""
        self.clock.now = NOW - age
        return self.world.key(name, **options)

    def operator(self, email: str, role: Role, at: datetime, org: str | None = None) -> str:
        """Add an operator; return the id."""
        with self.acting(at) as tx:
            return operators.add(tx, email, role, hash_password(PASSWORD), org_id=org).id

    def call(
        self, key: NewSecret, at: datetime, cost: int = usd(1), *, hold: int | None = None, **options: Any
    ) -> None:
        """Let a key call: admitted, then settled.

        Args:
            key: which.
            at: admission, UTC.
            cost: what is charged, nano-USD; `hold`: what is held before, as much by default.
            options: of the call, such as its model; `outcome` and `source` of its ending.
        """
        outcome = options.pop("outcome", Outcome.COMPLETED)
        source = options.pop("source", UsageSource.REPORTED)
        account = self._account(key)
        call = account.call(received_at=at, sheet=dollars(cost), multiplier=MILLION, **options)
        account.admit(call, fixed(cost if hold is None else hold))
        account.settle(call, Ending(outcome, at + MINUTE, 200, Usage(source=source), duration_ms=60_000))

    def ending(self, key: NewSecret, usage: Usage, **facts: Any) -> str:
        """Let a call of a day ago, for which hardly anything was held, end with this usage and these facts of it.

        Returns:
            Its request id.
        """
        account, at = self._account(key), NOW - DAY
        with self.workspace.read() as tx:
            (price,) = list_prices(tx, "gpt-test")
        call = account.call(received_at=at, price_id=price.id)
        account.admit(call, fixed(1))
        account.settle(call, Ending(Outcome.COMPLETED, at + MINUTE, 200, usage, duration_ms=60_000, **facts))
        return call.request_id

    def refuse(self, key: NewSecret, at: datetime, refusal: RefusalType, **options: Any) -> None:
        """Let a call of a key be refused."""
        account = self._account(key)
        call: Call = account.call(received_at=at, **options)
        account.refuse(call, Refusal(refusal, "refused"), at, catalog_version=None)

    def _account(self, key: NewSecret) -> Account:
        return Account(self.world, self.billing_store, key.secret, key.key.id)

    def change(self, key: NewSecret | ApiKey, **columns: object) -> None:
        """Do to a key's row what no service does."""
        key_id = key.key.id if isinstance(key, NewSecret) else key.id
        with self.workspace.write() as tx:
            row = tx.session.get_one(ApiKey, key_id)
            for name, value in columns.items():
                setattr(row, name, value)

    # -- auditing -----------------------------------------------------------------------------------------------

    def report(self, ledger: Ledger | None = None, **options: Any) -> AuditReport:
        """Make all audits at NOW."""
        self.clock.now = NOW
        known_heads = options.pop("known_heads", None)
        thresholds = Thresholds(**options)
        return findings.run(ledger or self.workspace.ledger, thresholds=thresholds, known_heads=known_heads, now=NOW)

    def found(self, check: str, **options: Any) -> list[Finding]:
        """Return what one check finds at NOW."""
        return [finding for finding in self.report(**options).findings if finding.check == check]

    def subjects(self, check: str, **options: Any) -> list[str]:
        """Return whom one check finds at NOW."""
        return [finding.subject for finding in self.found(check, **options)]


@contextmanager
def clock_of_the_store() -> Iterator[Clock]:
    """Let every transaction happen when the clock says."""
    clock = Clock(BEGINNING)
    with pytest.MonkeyPatch.context() as patch:
        for module in (transaction, holds):
            patch.setattr(module, "store_now", lambda _tx: clock.now)
        yield clock


@contextmanager
def a_scene(workspace: Workspace) -> Iterator[Scene]:
    """Make an organisation with 1,000 USD, models and a plan at BEGINNING, in an empty Keydesk."""
    with clock_of_the_store() as clock, closing(open_billing_store(workspace.store)) as billing_store:
        yield Scene(make_world(workspace, money=usd(1000)), clock, billing_store)


@pytest.fixture
def scene(workspace: Workspace) -> Iterator[Scene]:
    """An organisation with 1,000 USD, models and a plan, made at BEGINNING."""
    with a_scene(workspace) as scene:
        yield scene
