"""The state of one transaction: what a batch of jobs has locked and read, and what it changes. Pure.

A billing store (`stores`) makes it, the jobs of `rules` are judged on it in turn, and the billing store writes what has
changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from toolkit.core.policy import KeyFacts


class Stale(Exception):
    """The key or the catalog changed after its facts were read.

    Args:
        key, catalog: whether it did.
    """

    def __init__(self, *, key: bool, catalog: bool) -> None:
        super().__init__()
        self.key = key
        self.catalog = catalog


@dataclass(slots=True)
class Wallet:
    """An organisation's wallet as it stands in a transaction, nano-USD."""

    balance: int
    held: int
    held_before: int
    settled_by: int = 0

    @property
    def held_by(self) -> int:
        """The change of what is held."""
        return self.held - self.held_before


@dataclass(slots=True)
class Month:
    """One key's running totals of a billing month as they stand in a transaction, nano-USD."""

    spent: int = 0
    held: int = 0
    calls_by: int = 0
    spent_by: int = 0
    held_by: int = 0
    last_call_at: int = 0
    corrected: int = 0

    @property
    def counted(self) -> int:
        """What counts against the monthly limit beside open holds: what was spent, as corrected since."""
        return self.spent + self.corrected


class KeyState(NamedTuple):
    """What proves that the facts of a key are still true, and its limit now."""

    version: int
    monthly_limit: int | None
    suspended: bool
    """Whether its organisation is."""


class Hold(NamedTuple):
    """A row of the table of holds, in the order of its columns."""

    request_id: str
    instance_id: str
    org_id: str
    key_id: str
    plan_id: str
    month: str
    admitted_at: int
    amount: int
    limit_amount: int
    dialect: str
    endpoint: str
    stream: bool
    model: str
    upstream: str
    price_id: str
    multiplier: int
    response_id: str | None = None
    seen_bytes: int | None = None
    credential: str | None = None


class LogRow(NamedTuple):
    """A row of the request log, in the order of its columns (`tables.OutboxRow` says what they mean)."""

    request_id: str
    org_id: str
    key_id: str
    plan_id: str
    admitted_at: int
    settled_at: int
    outcome: str
    refusal: str | None
    status: int
    dialect: str
    endpoint: str
    stream: bool
    model: str | None
    upstream: str | None
    response_id: str | None
    usage_source: str | None
    input_tokens: int
    cached_input_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    output_tokens: int
    reasoning_tokens: int
    price_id: str | None
    multiplier: int
    input_price: int
    cached_input_price: int
    cache_write_5m_price: int
    cache_write_1h_price: int
    output_price: int
    request_price: int
    cost: int
    held: int
    overrun: int
    first_byte_ms: int | None
    duration_ms: int | None
    error: str | None
    tags: str | None
    usage_doubt: str | None
    overrun_reason: str | None
    provider_usage: str | None
    seen_bytes: int | None
    resent: bool | None
    service_tier: str | None
    inference_geo: str | None
    credential: str | None


@dataclass(slots=True)
class RowsWanted:
    """What a batch has to lock and read before it can be judged."""

    orgs: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    months: set[tuple[str, str]] = field(default_factory=set)  # key, billing month
    recent: set[tuple[str, str]] = field(default_factory=set)  # key, model
    holds: list[str] = field(default_factory=list)  # request ids; these holds are taken away
    refused: set[tuple[str, str, int]] = field(default_factory=set)  # key, reason, minute


@dataclass(slots=True)
class BatchState:
    """The state that a batch is judged from, and what it changes. Only a billing store makes one.

    What is missing did not exist: a key without an entry is unknown, a month without one has no calls yet. The holds
    that were asked for have been taken out of the store; those that are in `holds` at the end go into it.
    """

    catalog_version: int
    wallets: dict[str, Wallet]
    keys: dict[str, KeyState]
    months: dict[tuple[str, str], Month]
    recent: dict[tuple[str, str], int]
    holds: dict[str, Hold]
    refused: dict[tuple[str, str, int], int]
    new_rows: list[LogRow] = field(default_factory=list)
    new_recent: dict[tuple[str, str], int] = field(default_factory=dict)
    new_refused: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def month(self, key_id: str, month: str) -> Month:
        """Return a key's totals of a month, which may be its first call's."""
        found = self.months.get((key_id, month))
        if found is None:
            found = self.months[key_id, month] = Month()
        return found

    def require_current(self, key: KeyFacts, catalog_version: int) -> KeyState:
        """Raise Stale unless the facts that a call was judged by are still the store's."""
        state = self.keys.get(key.key_id)
        key_changed = state is None or state.version != key.version or state.suspended != key.org_suspended
        catalog_changed = self.catalog_version != catalog_version
        if state is None or key_changed or catalog_changed:
            raise Stale(key=key_changed, catalog=catalog_changed)
        return state

    def place(self, hold: Hold) -> None:
        """Put a hold there and into the totals.

        Raises:
            ValueError: its request has one.
        """
        if hold.request_id in self.holds:
            raise ValueError(f"the request {hold.request_id} has a hold")
        wallet, month = self.wallets[hold.org_id], self.month(hold.key_id, hold.month)
        self.holds[hold.request_id] = hold
        wallet.held += hold.amount
        month.held += hold.limit_amount
        month.held_by += hold.limit_amount
        month.last_call_at = max(month.last_call_at, hold.admitted_at)

    def release(self, hold: Hold, cost: int) -> None:
        """Take a hold away and out of the totals, and put a charge in."""
        wallet, month = self.wallets[hold.org_id], self.month(hold.key_id, hold.month)
        del self.holds[hold.request_id]
        wallet.held -= hold.amount
        wallet.balance -= cost
        wallet.settled_by += cost
        month.held -= hold.limit_amount
        month.held_by -= hold.limit_amount
        month.spent += cost
        month.spent_by += cost
        month.calls_by += 1
        month.last_call_at = max(month.last_call_at, hold.admitted_at)

    def wallet_changes(self) -> list[tuple[str, int, int]]:
        """Return organisation, change of what is held, change of what was settled."""
        return [(org, w.held_by, w.settled_by) for org, w in self.wallets.items() if w.held_by or w.settled_by]

    def month_changes(self) -> list[tuple[str, str, int, int, int, int]]:
        """Return key, month, changes of calls, spent and held, and the last call's moment."""
        return [
            (*at, m.calls_by, m.spent_by, m.held_by, m.last_call_at) for at, m in self.months.items() if m.last_call_at
        ]


T_co = TypeVar("T_co", covariant=True)


class Job(Protocol[T_co]):
    """One thing to do in a shared transaction."""

    def want(self, wanted: RowsWanted) -> None:
        """Say what must be locked and read first."""

    def judge(self, batch: BatchState) -> T_co:
        """Do it. Whatever is raised is raised before anything in `batch` has changed."""


def judge(jobs: Sequence[Job[Any]], batch: BatchState) -> list[Any]:
    """Judge jobs in turn; return each one's result, or the exception that it raised."""
    results: list[Any] = []
    for job in jobs:
        try:
            results.append(job.judge(batch))
        except Exception as error:  # noqa: BLE001 - given to the one who asked
            results.append(error)
    return results


def wanted_by(jobs: Sequence[Job[Any]]) -> RowsWanted:
    """Return what a billing store has to lock and read for these jobs."""
    wanted = RowsWanted()
    for job in jobs:
        job.want(wanted)
    return wanted
