"""The past of the demo data: calls and what operators did, in order of time, written as they would have been then."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby

from sqlalchemy import select

from toolkit.admin import catalog, keys, organisations, secret_lookup, wallet
from toolkit.billing.call import Call
from toolkit.billing.rules import Refuse
from toolkit.billing.stores import BillingStore, open_billing_store
from toolkit.core.catalog import Catalog
from toolkit.core.dialect import Dialect
from toolkit.core.ids import new_request_id
from toolkit.core.moments import micros
from toolkit.core.money import NANO
from toolkit.core.policy import KeyFacts, KeyStatus, Role, Unauthorized
from toolkit.demo.past_call import PastCall, past_call
from toolkit.demo.scenario import CREDITS, DAYS, KEYS, ROTATED, DemoKey
from toolkit.demo.traffic import DemoCall
from toolkit.store.actor import SYSTEM, Actor
from toolkit.store.tables import ApiKey, LiveSecret, Organisation, RetiredSecret
from toolkit.store.tally import Counted
from toolkit.store.transaction import Transaction
from toolkit.workspace import Workspace

BATCH = 2_000
"""Calls of one transaction."""

OLD_SECRET_USES = 37
"""How often somebody calls with the secret that was rotated away, every third hour up to now."""

PLATFORM = Actor("maria@keydesk.local", Role.PLATFORM_ADMIN)


class History:
    """Writes calls of the past, and what operators did in between, in order of time.

    Args:
        workspace: opened as a platform admin.
        start: midnight of the first day.
        now: up to which there are calls.
    """

    def __init__(self, workspace: Workspace, start: datetime, now: datetime) -> None:
        self._workspace = workspace
        self._start = start
        self._now = now
        self._catalog = Catalog(0, {}, {})
        self._facts: dict[tuple[str, str], KeyFacts] = {}

    def play(self, calls: list[DemoCall], progress: Callable[[int, int], None]) -> None:
        """Write what an earlier load has not written yet.

        Args:
            calls: all of them, in order of time.
            progress: called with calls done and calls in all.
        """
        acts = self._acts()
        with closing(open_billing_store(self._workspace.store)) as billing_store:
            played = _played_until(self._workspace)
            done = sum(call.at <= played for call in calls) if played else 0
            for day, of_day in groupby(calls, key=lambda call: (call.at - self._start).days):
                while acts and acts[0][0] <= day:
                    acts.pop(0)[1](self._start + timedelta(days=day))
                    self._facts.clear()
                batch = [call for call in of_day if played is None or call.at > played]
                for first in range(0, len(batch), BATCH):
                    self._play_batch(billing_store, batch[first : first + BATCH])
                    done += len(batch[first : first + BATCH])
                    progress(done, len(calls))

    def _acts(self) -> list[tuple[int, Callable[[datetime], None]]]:
        """Return what operators do, by day; each act is harmless when it is done again."""
        acts: list[tuple[int, Callable[[datetime], None]]] = []
        for key in KEYS:
            acts.append((key.since, partial(self._create, key)))
            if key.until < DAYS:
                acts.append((key.until, partial(self._delete, key)))
        acts += [(day, partial(self._pay_in, day)) for day in (0, 30, 60)]
        acts.append((DAYS // 2, self._rotate))
        return sorted(acts, key=lambda act: act[0])

    def _create(self, key: DemoKey, at: datetime) -> None:
        with self._workspace.store.write(PLATFORM, at) as tx:
            if _find(tx, key) is None:
                keys.create(
                    tx,
                    self._workspace.keyring,
                    org=key.org,
                    name=key.name,
                    plan=key.plan,
                    monthly_limit=None if key.limit is None else key.limit * NANO,
                    hold_policy=key.policy,
                )

    def _delete(self, key: DemoKey, at: datetime) -> None:
        with acting_for(self._workspace, key.org, at) as tx:
            found = _find(tx, key)
            if found is not None and found.status != KeyStatus.DELETED:
                keys.delete(tx, found.id, confirm=key.name, reason="The prototype was replaced.")

    def _rotate(self, at: datetime) -> None:
        with acting_for(self._workspace, ROTATED.org, at) as tx:
            found = _find(tx, ROTATED)
            if found is not None and found.rotated_at is None:
                keys.rotate(
                    tx, self._workspace.keyring, found.id, confirm=found.name, reason="Seen in a shared notebook."
                )

    def _pay_in(self, day: int, at: datetime) -> None:
        for org, dollars in CREDITS.items():
            with self._workspace.store.write(PLATFORM, at) as tx:
                reference = f"invoice {org.split()[0].upper()} {at:%Y-%m}-{day // 30 + 1}"
                if not any(entry.reference == reference for entry in wallet.entries(tx, org)):
                    wallet.credit(tx, org, dollars * NANO, reference)

    def _play_batch(self, billing_store: BillingStore, batch: list[DemoCall]) -> None:
        if not self._facts:
            self._read_facts()
        for result in billing_store.run([self._job(call) for call in batch]):
            if isinstance(result, BaseException):
                raise result

    def _read_facts(self) -> None:
        with self._workspace.store.read(PLATFORM) as tx:
            self._catalog = catalog.load(tx)
            digests = tx.session.execute(
                select(Organisation.name, ApiKey.name, LiveSecret.digest)
                .join(ApiKey, ApiKey.org_id == Organisation.id)
                .join(LiveSecret, LiveSecret.key_id == ApiKey.id)
            ).all()
            found = {(org, name): secret_lookup.find_live(tx, [digest]) for org, name, digest in digests}
        self._facts = {key: facts for key, facts in found.items() if facts is not None}

    def _job(self, demo: DemoCall) -> PastCall:
        return past_call(demo, self._facts[demo.key.org, demo.key.name], self._catalog)

    def use_old_secret(self) -> None:
        """Somebody still calls with the secret that was rotated away, and is refused as a gateway does it."""
        with self._workspace.store.read(PLATFORM) as tx:
            found = tx.session.execute(
                select(RetiredSecret.digest, RetiredSecret.uses)
                .join(ApiKey, ApiKey.id == RetiredSecret.key_id)
                .join(Organisation, Organisation.id == ApiKey.org_id)
                .where(Organisation.name == ROTATED.org, ApiKey.name == ROTATED.name)
            ).one()
            facts = secret_lookup.find_retired(tx, [found.digest])
        assert facts is not None  # noqa: S101 - it was rotated half-way
        with closing(open_billing_store(self._workspace.store)) as billing_store:
            for number in range(OLD_SECRET_USES - found.uses, 0, -1):  # an earlier load may have made some
                at = self._now - timedelta(hours=3 * number)
                call = Call(
                    new_request_id(micros(at) // 1000), facts, at, Dialect.OPENAI, "chat/completions", stream=False
                )
                (failed,) = billing_store.run([Refuse(call, Unauthorized(facts), at, None)])
                if isinstance(failed, BaseException):
                    raise failed
                with self._workspace.store.write(SYSTEM) as tx:
                    secret_lookup.note_retired(tx, {found.digest: Counted(1, at)})


def _find(tx: Transaction, key: DemoKey) -> ApiKey | None:
    org = organisations.find(tx, key.org)
    return tx.session.scalar(select(ApiKey).where(ApiKey.org_id == org.id, ApiKey.name == key.name))


@contextmanager
def acting_for(workspace: Workspace, org: str, at: datetime) -> Iterator[Transaction]:
    """Open a transaction in the name of an organisation's own admin."""
    with workspace.store.read(PLATFORM) as tx:
        org_id = organisations.find(tx, org).id
    name = f"admin@{org.lower().replace(' ', '-')}.example"
    with workspace.store.write(Actor(name, Role.ORG_ADMIN, org_id), at) as tx:
        yield tx


def _played_until(workspace: Workspace) -> datetime | None:
    """Return the admission of the last call that an earlier load wrote, or None."""
    with workspace.read() as tx:
        made = select(ApiKey.id).where(ApiKey.created_by == PLATFORM.name)  # their secrets are known to nobody
        ids = list(tx.session.scalars(made))
    last = workspace.ledger.sql(
        "SELECT max(admitted_at) FROM usage WHERE key_id IN (SELECT unnest(?::VARCHAR[]))", [ids]
    )
    played: datetime | None = last.column(0)[0].as_py()
    return played
