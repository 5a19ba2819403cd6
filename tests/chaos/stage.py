"""What the calls of a chaos run need: a model served by the witness, organisations with money, and keys.

Everything is made and changed through the services, as the CLI and the dashboard do.
"""

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ADMIN
from toolkit.admin import keys, operators, organisations, plans, wallet
from toolkit.admin.models import add_model
from toolkit.admin.upstreams import add_upstream
from toolkit.checks import reconcile
from toolkit.core.dialect import Dialect
from toolkit.core.money import NANO
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.environment import read_settings
from toolkit.workspace import Workspace

MODEL = "witness-model"
CONTEXT_WINDOW, DEFAULT_OUTPUT, MAX_OUTPUT = 100_000, 4_096, 8_192
MULTIPLIER = MILLION * 5 // 4
SHEET = PriceSheet.flat(input=2 * NANO + 11, output=10 * NANO + 19)
"""Prices whose sums rarely coincide, so that an amount tells which calls it is made of."""

OPERATOR, PASSWORD = "chaos@keydesk.test", "correct horse battery"


@dataclass
class Caller:
    """A key and its newest secret, as its owner knows them."""

    key_id: str
    org_id: str
    name: str
    secret: str = field(repr=False)
    limit: int | None = None


class Stage:
    """A Keydesk set up for chaos.

    Args:
        folder: its data folder.
        environment: as its processes have it.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ledger = folder / "ledger"
        self.workspace = Workspace.open(
            read_settings({name: value for name, value in environment.items() if name.startswith("KEYDESK_")}),
            ADMIN,
            make=True,
        )
        self._numbers = itertools.count()
        self._turn = threading.Lock()

    def open(self, witness_url: str) -> None:
        """Fill the empty store."""
        with self.workspace.write() as tx:
            add_upstream(tx, "witness", Dialect.OPENAI, witness_url, "TEST_UPSTREAM_API_KEY")
            add_model(
                tx,
                MODEL,
                "witness",
                sheet=SHEET,
                context_window=CONTEXT_WINDOW,
                default_output=DEFAULT_OUTPUT,
                max_output=MAX_OUTPUT,
            )
            self._plan = plans.add(tx, "standard", MULTIPLIER, [MODEL]).id
            operators.add(tx, OPERATOR, Role.PLATFORM_ADMIN, hash_password(PASSWORD))

    def add_org(self, name: str, money: int) -> str:
        """Add an organisation with that much nano-USD; return its id."""
        with self.workspace.write() as tx:
            org = organisations.add(tx, name).id
        self.credit(org, money)
        return org

    def credit(self, org_id: str, amount: int) -> None:
        """Put money into a wallet."""
        with self._turn, self.workspace.write() as tx:
            wallet.credit(tx, org_id, amount, f"payment {next(self._numbers)}")

    def add_key(self, org_id: str, limit: int | None = None) -> Caller:
        """Add a strict key."""
        name = f"key {next(self._numbers)}"
        with self.workspace.write() as tx:
            new = keys.create(tx, self.workspace.keyring, org=org_id, name=name, plan=self._plan, monthly_limit=limit)
        return Caller(new.key.id, org_id, name, new.secret, limit)

    def raise_limit(self, caller: Caller, amount: int) -> None:
        """Raise a key's monthly limit by so much."""
        with self._turn:
            caller.limit = (caller.limit or 0) + amount
            with self.workspace.write() as tx:
                keys.update(tx, caller.key_id, monthly_limit=caller.limit)

    def rotate(self, caller: Caller) -> str:
        """Give a key a new secret; return it."""
        with self.workspace.write() as tx:
            return keys.rotate(tx, self.workspace.keyring, caller.key_id, confirm=caller.name).secret

    def change(self, verb: Callable[..., object], caller: Caller) -> None:
        """Disable, enable or delete a key."""
        with self.workspace.write() as tx:
            verb(tx, caller.key_id, confirm=caller.name)

    def reconcile(self) -> list[str]:
        """Return what `keydesk reconcile` would say is wrong."""
        return [violation for finding in reconcile.run(self.workspace) for violation in finding.violations]

    def close(self) -> None:
        """Close the store."""
        self.workspace.close()
