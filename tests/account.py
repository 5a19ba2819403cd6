"""A key, and a real billing store of a real key store that bills its calls: for the tests of all that is billed."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
import pytest
from sqlalchemy import text

from tests.conftest import OPENAI_SHEET, World
from toolkit.admin import keys, secret_lookup
from toolkit.billing.call import Call, Ending
from toolkit.billing.hold_estimate import HoldBound
from toolkit.billing.rules import Admit, Admitted, Receipt, Refuse, Settle
from toolkit.billing.state import Job
from toolkit.billing.stores import BillingStore, open_billing_store
from toolkit.core import ids
from toolkit.core.errors import Refusal
from toolkit.core.moments import micros
from toolkit.core.policy import KeyFacts, Outcome
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.core.usage import Usage

T = TypeVar("T")

UNIQUE = (sqlite3.IntegrityError, psycopg.IntegrityError)
"""What a billing store raises when a request id is there already."""

PART = MILLION * MILLION
MULTIPLIER = MILLION * 5 // 4
INSTANCE = "gateway_test"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def fixed(amount: int, *, fixed: bool = True) -> HoldBound:
    """Return the bound of a call that can cost at most `amount`, whatever it puts out."""
    return HoldBound(base=amount * PART, each=0, output_bound=0, fixed=fixed)


def by_token(base: int, each: int, output_bound: int, *, fixed: bool) -> HoldBound:
    """Return a bound of `base` plus `each` nano-USD for every token of output."""
    return HoldBound(base * PART, each * PART, output_bound, fixed)


def dollars(amount: int) -> PriceSheet:
    """Return a sheet under which each request costs `amount` at multiplier 1, and tokens nothing."""
    return PriceSheet.flat(input=0, output=0, request=amount)


@dataclass
class Account:
    """A key of an organisation, and a billing store that bills its calls."""

    world: World
    billing_store: BillingStore
    secret: str = field(repr=False)
    key_id: str

    # -- doing --------------------------------------------------------------------------------------------------

    def do(self, job: Job[T]) -> T:
        """Have a job judged and committed alone; raise what it raised."""
        result: Any
        (result,) = self.billing_store.run([job])
        if isinstance(result, BaseException):
            raise result
        return result  # type: ignore[no-any-return]  # a billing store does not say what it returns

    def facts(self) -> KeyFacts:
        """Look the key up, as the gateway does for each call."""
        digests = [digest.value for digest in self.world.workspace.keyring.digests(self.secret)]
        with self.world.workspace.read() as tx:
            found = secret_lookup.find_live(tx, digests)
        assert found is not None
        return found

    @property
    def catalog_version(self) -> int:
        """The catalog's version now."""
        return int(self.row("SELECT version FROM catalog_version")["version"])

    def call(self, **changes: Any) -> Call:
        """Return a call by the key as it stands now."""
        at = changes.pop("received_at", NOW)
        call = Call(
            request_id=ids.new_request_id(micros(at) // 1000),
            key=changes.pop("key", None) or self.facts(),
            received_at=at,
            dialect="openai",
            endpoint="chat/completions",
            stream=False,
            model="gpt-test",
            upstream="test-openai",
            price_id="price_test",
            sheet=OPENAI_SHEET,
            multiplier=MULTIPLIER,
        )
        return replace(call, **changes)

    def asked(self, call: Call, bound: HoldBound, instance: str = INSTANCE) -> Admit:
        """Return the job that admits a call against the present catalog."""
        return Admit(call, bound, self.catalog_version, instance)

    def admit(self, call: Call, bound: HoldBound, instance: str = INSTANCE) -> Admitted:
        """Admit a call against the present catalog."""
        return self.do(self.asked(call, bound, instance))

    def settle(self, call: Call, ending: Ending) -> Receipt | None:
        """Settle a call."""
        return self.do(Settle(call, ending))

    def refuse(self, call: Call, refusal: Refusal, now: datetime, *, catalog_version: int | None) -> None:
        """Log a refusal."""
        self.do(Refuse(call, refusal, now, catalog_version))

    def spend(self, amount: int, hold: int | None = None) -> Receipt:
        """Admit and settle a call that costs `amount`."""
        call = self.call(sheet=dollars(amount), multiplier=MILLION)
        self.admit(call, fixed(amount if hold is None else hold))
        receipt = self.settle(call, ended(Usage()))
        assert receipt is not None
        return receipt

    def refused(self, call: Call, bound: HoldBound) -> Refusal:
        """Return the refusal that an admission meets."""
        with pytest.raises(Refusal) as caught:
            self.admit(call, bound)
        return caught.value

    def update(self, **options: Any) -> None:
        """Change the key's options as an operator does."""
        with self.world.workspace.write() as tx:
            keys.update(tx, self.key_id, **options)

    def execute(self, statement: str, **values: object) -> None:
        """Do to the store what no service does."""
        with self.world.workspace.write() as tx:
            tx.session.execute(text(statement), values)

    # -- looking ------------------------------------------------------------------------------------------------

    def rows(self, query: str, **values: object) -> list[dict[str, Any]]:
        """Return the rows of a query, as another connection sees them."""
        with self.world.workspace.read() as tx:
            return [dict(row) for row in tx.session.execute(text(query), values).mappings()]

    def row(self, query: str, **values: object) -> dict[str, Any]:
        """Return the one row of a query."""
        (row,) = self.rows(query, **values)
        return row

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        return int(self.row(f"SELECT count(*) AS count FROM {table}")["count"])

    def org(self) -> dict[str, Any]:
        """The organisation's running totals."""
        return self.row("SELECT credited, settled, held FROM organisation WHERE id = :id", id=self.world.org_id)

    def month(self, month: str = "2026-11") -> dict[str, Any]:
        """The key's running totals of a month."""
        query = "SELECT calls, spent, held, last_call_at FROM key_month WHERE key_id = :key AND month = :month"
        return self.row(query, key=self.key_id, month=month)

    def holds(self) -> list[dict[str, Any]]:
        """The open holds of all keys."""
        return self.rows("SELECT * FROM hold ORDER BY request_id")

    def log(self) -> list[dict[str, Any]]:
        """The request log of all keys."""
        return self.rows("SELECT * FROM outbox ORDER BY request_id")

    def state(self) -> list[list[dict[str, Any]]]:
        """All that billing may change."""
        tables = {
            "organisation": "id",
            "key_month": "key_id, month",
            "hold": "request_id",
            "outbox": "request_id",
            "recent_cost": "key_id, model",
            "refusal_count": "key_id, refusal, minute",
        }
        return [self.rows(f"SELECT * FROM {table} ORDER BY {order}") for table, order in tables.items()]


def ended(usage: Usage | None, outcome: Outcome = Outcome.COMPLETED, status: int = 200) -> Ending:
    """Return the ending of a call."""
    return Ending(outcome, NOW + timedelta(seconds=2), status, usage, duration_ms=2000)


def open_account(world: World, billing_store: BillingStore, **options: Any) -> Account:
    """Return the account of a fresh key."""
    new = world.key(**options)
    return Account(world, billing_store, new.secret, new.key.id)


@pytest.fixture
def billing_store(world: World) -> Iterator[BillingStore]:
    """A billing store of the world's key store."""
    with closing(open_billing_store(world.workspace.store)) as billing_store:
        yield billing_store


@pytest.fixture
def account(world: World, billing_store: BillingStore) -> Account:
    """The account of a key without a limit, of an organisation with 100 USD."""
    return open_account(world, billing_store)
