"""What the audits judge: the key store as it stands, and what the ledger says of the last days.

`snapshot_reader` reads it. The checks that judge it (`keys`,
`operators`, `prices`, `records`, `charges`) are pure; `findings` runs them all. `docs/audits.md` lists them.
"""

import json
import shlex
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from toolkit.admin.public_prices import PublicPrice
from toolkit.admin.wallet import Payment
from toolkit.checks.reconcile_runs import Run
from toolkit.checks.request_log import Calls, Doubted, ServedCalls
from toolkit.core.policy import KeyStatus, is_live
from toolkit.store.audit import BrokenLink
from toolkit.store.holds import OpenHold
from toolkit.store.refused_fields import Refused
from toolkit.store.smaller_limits import Smaller
from toolkit.store.tables import (
    ApiKey,
    KeyMonth,
    Model,
    Organisation,
    Plan,
    Price,
    RetiredSecret,
    Upstream,
    UpstreamIncident,
)
from toolkit.store.unknown_fields import Seen


class Act(NamedTuple):
    """A row of the audit log; before and after as they were."""

    chain: str
    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    before: dict[str, Any]
    after: dict[str, Any]
    reason: str


class Person(NamedTuple):
    """An operator, without the password's hash."""

    id: str
    email: str
    role: str
    org_id: str | None
    created_at: datetime


class Secret(NamedTuple):
    """What is known of a key's present secret: when it was made, and when it came in a URL."""

    created_at: datetime
    first_in_url_at: datetime | None
    last_in_url_at: datetime | None


class Failures(NamedTuple):
    """Failed sign-ins of one subject of the throttle."""

    subject: str
    tries: int
    first_at: datetime
    last_at: datetime


class Break(NamedTuple):
    """A place where an audit chain does not hold, and when the last row up to it was written."""

    link: BrokenLink
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What an actor may see of the key store and of the ledger at one moment.

    Args:
        now: UTC.
        whole: whether the actor is of no single organisation; what belongs to the platform is empty otherwise.
        orgs, plans: by id; `plan_models` has what plans include.
        owned: models that only organisations' own accounts serve: these organisations, by the model's id.
        owners: whose own account an upstream is: the organisation, by the upstream's name.
        keys: deleted ones too, by organisation and name.
        secrets: of the keys that are not deleted.
        months: running totals by key and billing month, for the last three months.
        unusual: by key, what the days of these months that stand out cost beyond what is usual, nano-USD.
        last_used: when a key last made a call that was admitted, or refused for another reason than its secret.
        last_unauthorized: when a key's old or dead secret was last refused.
        retired: rotated and deleted secrets that were used since.
        acts: of the period and of `HISTORY` before it; those that add operators, plans and prices from the beginning.
        people, failures, prices, models, last_run, unknown: the platform's; models by id; the last are fields that
            nobody knows.
        price_models: models whose prices a routed model's calls can have beside its own, by its id; the platform's.
        published: the prices in force that were copied from genai-prices, with what it says now; the platform's.
        uncalled: upstreams that the gateway never calls, and why; the platform's.
        incidents: upstreams that do not serve our account; to an organisation those of its own account.
        refused: fields that gateways add and upstreams refuse; the platform's.
        smaller: limits of models that their upstreams have smaller; the platform's.
        breaks: where an audit chain does not hold.
        holds: money set aside for calls under way.
        repeated: payments whose reference was credited more than once though nobody said that it should be, each with
            all its credits, the oldest first.
        calls: the request log, summed up.
        doubted: calls of the period whose usage is doubted.
        served: charged calls of the period, by the tier and region that their provider says had served; the platform's.
    """

    now: datetime
    whole: bool
    orgs: dict[str, Organisation]
    plans: dict[str, Plan]
    plan_models: dict[str, frozenset[str]]
    owned: dict[str, frozenset[str]]
    owners: dict[str, str]
    keys: list[ApiKey]
    secrets: dict[str, Secret]
    months: dict[str, dict[str, KeyMonth]]
    unusual: dict[str, dict[date, int]]
    last_used: dict[str, datetime]
    last_unauthorized: dict[str, datetime]
    retired: list[RetiredSecret]
    acts: list[Act]
    people: list[Person]
    failures: list[Failures]
    prices: list[Price]
    price_models: dict[str, frozenset[str]]
    published: list[tuple[Price, PublicPrice | None]]
    models: dict[str, Model]
    last_run: Run | None
    unknown: list[Seen]
    uncalled: list[tuple[Upstream, str]]
    incidents: list[UpstreamIncident]
    refused: list[Refused]
    smaller: list[Smaller]
    breaks: list[Break]
    holds: list[OpenHold]
    repeated: list[list[Payment]]
    calls: list[Calls]
    doubted: list[Doubted]
    served: list[ServedCalls]
    _named: Counter[str] = field(init=False)
    _acts_on: dict[str, list[Act]] = field(init=False)
    _calls_with: dict[str, list[Calls]] = field(init=False)

    def __post_init__(self) -> None:
        # Each check of keys looks at each key: what is one key's must not be sought among everybody's.
        acts_on: dict[str, list[Act]] = {}
        for act in self.acts:
            acts_on.setdefault(act.subject, []).append(act)
        calls_with: dict[str, list[Calls]] = {}
        for row in self.calls:
            calls_with.setdefault(row.key_id, []).append(row)
        object.__setattr__(self, "_named", Counter(key.name for key in self.keys))
        object.__setattr__(self, "_acts_on", acts_on)
        object.__setattr__(self, "_calls_with", calls_with)

    def acts_on(self, subject: str) -> list[Act]:
        """Return the acts at hand whose subject has this id, in their order."""
        return self._acts_on.get(subject, [])

    def calls_with(self, key_id: str) -> list[Calls]:
        """Return the sums of the calls at hand that were made with a key."""
        return self._calls_with.get(key_id, [])

    def key_label(self, key: ApiKey) -> str:
        """Return a key's name, marked if the key is deleted."""
        return f"{key.name} (deleted)" if key.status == KeyStatus.DELETED else key.name

    def key_argument(self, key: ApiKey) -> str:
        """Return what names the key on the command line: its name where only one key has it, else its id."""
        return shlex.quote(key.name) if self._named[key.name] == 1 and not key.name.startswith("-") else key.id

    def org_name(self, org_id: str | None) -> str | None:
        """Return an organisation's name."""
        return None if org_id is None else self.orgs[org_id].name if org_id in self.orgs else org_id

    def scope(self, key: ApiKey) -> frozenset[str]:
        """Return a key's model scope; empty is all models of its plan."""
        return frozenset(json.loads(key.scope))

    def is_live(self, key: ApiKey) -> bool:
        """Whether the key admits calls: active, not expired, its organisation not suspended."""
        return is_live(key.status, key.expires_at, self.now) and not self.orgs[key.org_id].suspended

    @property
    def live(self) -> list[ApiKey]:
        """The keys that admit calls."""
        return [key for key in self.keys if self.is_live(key)]

    def since(self, days: int) -> datetime:
        """Return the moment that lies so many days back."""
        return self.now - timedelta(days=days)


def last_months(now: datetime) -> list[str]:
    """Return this billing month and the two before it, the newest first."""
    numbers = (now.year * 12 + now.month - 1 - back for back in range(3))
    return [f"{number // 12:04}-{number % 12 + 1:02}" for number in numbers]
