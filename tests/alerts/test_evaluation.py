"""What is told, once and again."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, event, insert, select, update

from tests.conftest import World, at_once, usd
from tests.rows import append, row
from toolkit.admin import keys, wallet
from toolkit.admin.upstreams import add_upstream
from toolkit.alerts import evaluation, queue
from toolkit.core.account_fault import AccountFault
from toolkit.core.dialect import Dialect
from toolkit.core.period import billing_month
from toolkit.store import incidents
from toolkit.store.actor import SYSTEM
from toolkit.store.tables import Alert, ApiKey, KeyMonth, Model, ModelWay, Price
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store

NOW = datetime(2026, 12, 9, 8, tzinfo=UTC)
HOLDER = "runner_of_the_tests"


@pytest.fixture(autouse=True)
def _lease(world: World) -> None:
    with world.workspace.write() as tx:
        assert queue.take_lease(tx, HOLDER, timedelta(hours=1))


def limited(world: World, name: str, limit: int | None, spent: int, now: datetime = NOW, corrected: int = 0) -> str:
    """Return a new key that has spent something this month."""
    key_id = world.key(name, monthly_limit=limit).key.id
    spend(world, key_id, spent, now, corrected)
    return key_id


def spend(world: World, key_id: str, spent: int, now: datetime = NOW, corrected: int = 0) -> None:
    """Say what a key has spent in a month."""
    with world.workspace.write() as tx:
        month = tx.session.get(KeyMonth, (key_id, billing_month(now)))
        if month is None:
            month = KeyMonth(key_id=key_id, month=billing_month(now), calls=1, held=0, last_call_at=now)
            tx.session.add(month)
        month.spent, month.corrected = spent, corrected


def told(world: World, now: datetime = NOW) -> list[tuple[str, int]]:
    """Look, and return the type and the threshold of what is new."""
    before = {alert.id for alert in alerts(world)}
    evaluation.tell(world.workspace.store, HOLDER, now)
    new = [json.loads(alert.body) for alert in alerts(world) if alert.id not in before]
    return sorted((body["type"], body["data"].get("threshold_percent", 0)) for body in new)


def alerts(world: World) -> list[Alert]:
    """Return all alerts."""
    with world.workspace.read() as tx:
        return list(tx.session.scalars(select(Alert)))


@contextmanager
def statements(workspace: Workspace) -> Iterator[list[str]]:
    """Count what the store is asked."""
    seen: list[str] = []

    def note(_c: object, _k: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(workspace.store.engine, "before_cursor_execute", note)
    yield seen
    event.remove(workspace.store.engine, "before_cursor_execute", note)


@pytest.mark.both_stores
def test_each_threshold_of_a_limit_is_told_once(world: World) -> None:
    """From 49 % to 100 %: four alerts, and none by looking again."""
    key_id = limited(world, "app", usd(10), usd(4.99))
    seen = []
    for spent in (4.99, 5, 7.99, 8, 9.49, 9.5, 9.99, 10, 12):
        spend(world, key_id, usd(spent))
        seen += [threshold for _, threshold in told(world) + told(world)]
    assert seen == [50, 80, 95, 100]


def test_several_thresholds_passed_at_once_are_one_alert(world: World) -> None:
    """The highest."""
    limited(world, "app", usd(10), usd(9.6))
    assert told(world) == [("key.limit", 95)]


def test_another_limit_arms_it_anew_and_so_does_the_way_back(world: World) -> None:
    """80 % of $10 is told, then 80 % of $12, and of $10 again; of no limit nothing is."""
    key_id = limited(world, "app", usd(10), usd(9.4))
    seen = [told(world)]
    for limit in (usd(11), usd(100), usd(10), None, usd(10)):
        with world.workspace.write() as tx:
            keys.update(tx, key_id, monthly_limit=limit)
        seen.append(told(world))
    assert [[threshold for _, threshold in alerts] for alerts in seen] == [[80], [80], [], [80], [], [80]]


def test_another_month_arms_it_anew(world: World) -> None:
    """December's 80 % and January's."""
    key_id = limited(world, "app", usd(10), usd(8))
    assert told(world) == [("key.limit", 80)]
    january = NOW + timedelta(days=31)
    spend(world, key_id, usd(1), january)
    assert told(world, january) == []
    spend(world, key_id, usd(8), january)
    assert told(world, january) == [("key.limit", 80)]


def test_a_correction_counts_and_passes_no_threshold_twice(world: World) -> None:
    """What was given back is not spent; the charge that follows passes nothing that was not passed before."""
    key_id = limited(world, "app", usd(10), usd(8), corrected=-usd(1))
    assert told(world) == [("key.limit", 50)]
    spend(world, key_id, usd(8))
    assert told(world) == [("key.limit", 80)]
    spend(world, key_id, usd(8), corrected=-usd(5))
    assert told(world) == []
    spend(world, key_id, usd(8))
    assert told(world) == []


@pytest.mark.both_stores
def test_thresholds_are_exact_to_the_nano_dollar(world: World) -> None:
    """The first amount that is 95 % of a limit is told as such, the one before it is not; none overflows."""
    for number, limit in enumerate([1, 3, 99, 101, 1_000_000_007, 8_999_999_999_999_999_999]):
        first = -(-limit * 95 // 100)
        key_id = limited(world, f"app {number}", limit, first - 1)
        assert all(threshold < 95 for _, threshold in told(world))
        spend(world, key_id, first)
        assert told(world) == [("key.limit", 100 if first >= limit else 95)]


def test_keys_without_a_limit_or_not_active_tell_nothing(world: World) -> None:
    """No limit, a limit of nothing, a disabled key."""
    limited(world, "open", None, usd(10))
    limited(world, "closed", 0, 0)
    key_id = limited(world, "off", usd(1), usd(1))
    with world.workspace.write() as tx:
        keys.disable(tx, key_id, confirm="off")
    assert told(world) == []


def test_a_look_costs_one_statement_however_many_keys_there_are(world: World) -> None:
    """With 300 keys under their thresholds as with one; with news of 300 a fixed number more."""
    key_id = limited(world, "app", usd(10), usd(1))
    with world.workspace.write() as tx:
        key = tx.session.get_one(ApiKey, key_id)
        columns = {c.key: getattr(key, c.key) for c in ApiKey.__table__.columns}
        more = [columns | {"id": f"key_{n}", "name": f"app {n}"} for n in range(300)]
        tx.session.execute(insert(ApiKey), more)
        month = {"month": "2026-12", "calls": 1, "spent": usd(1), "held": 0, "last_call_at": NOW, "corrected": 0}
        tx.session.execute(insert(KeyMonth), [month | {"key_id": one["id"]} for one in more])
    with statements(world.workspace) as seen:
        evaluation.tell(world.workspace.store, HOLDER, NOW)
    assert len([one for one in seen if not one.startswith(("BEGIN", "SET", "PRAGMA"))]) == 1
    with world.workspace.write() as tx:
        tx.session.execute(update(KeyMonth).values(spent=usd(10)))
    with statements(world.workspace) as seen:
        evaluation.tell(world.workspace.store, HOLDER, NOW)
    assert len(seen) < 20
    assert len(alerts(world)) == 301


@pytest.mark.both_stores
def test_two_looks_at_once_tell_one_thing(world: World) -> None:
    """Of two processes that look at the same moment, one queues."""
    limited(world, "app", usd(10), usd(8))
    store = world.workspace.store
    at_once(
        lambda: evaluation.tell(store, HOLDER, NOW),
        lambda: evaluation.tell(store, "another", NOW),
        lambda: evaluation.tell(store, "a third", NOW),
    )
    assert len(alerts(world)) == 1


@pytest.mark.both_stores
def test_a_lease_has_one_holder_until_it_ends(world: World) -> None:
    """Neither another process nor a former holder queues anything."""
    store = world.workspace.store
    with store.write(SYSTEM) as tx:
        assert not queue.take_lease(tx, "another", timedelta(hours=1))
        assert queue.take_lease(tx, HOLDER, timedelta(seconds=-1))
    with store.write(SYSTEM) as tx:
        assert queue.take_lease(tx, "another", timedelta(hours=1))
    limited(world, "app", usd(10), usd(8))
    assert evaluation.tell(store, HOLDER, NOW) == 0
    assert evaluation.tell(store, "another", NOW) == 1


def test_a_low_wallet_is_told_when_it_becomes_low(world: World) -> None:
    """Below its threshold; again after it was filled, or with another threshold."""
    with world.workspace.write() as tx:
        wallet.set_low_balance(tx, world.org_id, usd(100))
    assert told(world) == []
    with world.workspace.write() as tx:
        wallet.adjust(tx, world.org_id, -usd(1), "ticket 1", "test")
    assert told(world) + told(world) == [("wallet.low", 0)]
    world.credit(usd(1), "second payment")
    assert told(world) == []
    with world.workspace.write() as tx:
        wallet.set_low_balance(tx, world.org_id, usd(200))
    assert told(world) == [("wallet.low", 0)]
    with world.workspace.write() as tx:
        wallet.set_low_balance(tx, world.org_id, None)
    assert told(world) == []


def test_a_key_that_expires_is_told_a_week_before(world: World) -> None:
    """Once; again with another expiry; not when it has expired."""
    now = datetime.now(UTC)
    key_id = world.key("app", expires_at=now + timedelta(days=8)).key.id
    assert told(world, now) == []
    assert told(world, now + timedelta(days=1, minutes=1)) == [("key.expires", 0)]
    with world.workspace.write() as tx:
        keys.update(tx, key_id, expires_at=now + timedelta(days=5))
    assert told(world, now) + told(world, now) == [("key.expires", 0)]
    assert told(world, now + timedelta(days=6)) == []


def test_an_upstream_that_refuses_our_account_is_told_to_the_platform(world: World) -> None:
    """Once while it lasts, with what helps, and though it comes back soon; again when it comes back later."""
    at = incidents.At("test-openai", AccountFault.CREDIT, "")

    def refused(when: datetime) -> None:
        with world.workspace.write() as tx:
            incidents.write(tx, {at: incidents.Refused(when, when, 3, "insufficient_quota")}, {})

    refused(NOW)
    assert told(world) + told(world) == [("upstream.refuses", 0)]
    (alert,) = alerts(world)
    assert alert.org_id is None
    assert "no credit" in alert.body
    with world.workspace.write() as tx:
        incidents.write(tx, {}, {at: NOW + timedelta(minutes=1)})
    assert told(world) == []
    refused(NOW + timedelta(minutes=5))
    assert told(world) == []
    with world.workspace.write() as tx:
        incidents.write(tx, {}, {at: NOW + timedelta(minutes=6)})
    assert told(world) == []
    refused(NOW + timedelta(hours=3))
    assert told(world) == [("upstream.refuses", 0)]


def test_a_refused_account_of_an_organisation_is_told_to_it_too(world: World) -> None:
    """Who can add credit there; the alert says whose it is."""
    with world.workspace.write() as tx:
        add_upstream(tx, "acme-own", Dialect.OPENAI, "http://127.0.0.1:9", "ACME_API_KEY", org=world.org_id)
        at = incidents.At("acme-own", AccountFault.CREDIT, "", "ACME_API_KEY")
        incidents.write(tx, {at: incidents.Refused(NOW, NOW, 3, "insufficient_quota")}, {})
    assert told(world) + told(world) == [("upstream.refuses", 0)]
    (alert,) = alerts(world)
    assert alert.org_id == world.org_id
    assert json.loads(alert.body)["data"]["organisation"] == {"id": world.org_id, "name": "Acme"}


def test_a_model_without_a_price_is_told(world: World) -> None:
    """Until it has one, or its way to an upstream has another model's."""
    with world.workspace.write() as tx:
        model = tx.session.get_one(Model, "gpt-test")
        columns = {c.key: getattr(model, c.key) for c in Model.__table__.columns}
        tx.session.execute(insert(Model), [columns | {"id": "unpriced"}])
    assert told(world, datetime.now(UTC)) == [("model.unpriced", 0)]
    with world.workspace.write() as tx:
        way = {"model_id": "unpriced", "upstream": "test-openai", "position": 0, "upstream_model": "x", "weight": 0}
        tx.session.execute(insert(ModelWay), [way | {"price_model": "gpt-test"}])
    assert told(world, datetime.now(UTC)) == []
    with world.workspace.write() as tx:
        tx.session.execute(delete(ModelWay))
    assert told(world, datetime.now(UTC)) == [("model.unpriced", 0)]
    with world.workspace.write() as tx:
        price = tx.session.scalars(select(Price).where(Price.model_id == "gpt-test")).one()
        columns = {c.key: getattr(price, c.key) for c in Price.__table__.columns}
        tx.session.execute(insert(Price), [columns | {"id": "p", "model_id": "unpriced"}])
    assert told(world, datetime.now(UTC)) == []


def test_a_ledger_that_lags_is_told(world: World) -> None:
    """When the oldest row has waited a quarter of an hour; again when it comes again."""
    new = world.key("app").key
    now = datetime.now(UTC)
    append(world.workspace.store, [row(new, now)])
    assert told(world, now + timedelta(minutes=14)) == []
    assert told(world, now + timedelta(minutes=16)) == [("drain.late", 0)]
    world.workspace.ledger.sync()
    assert told(world, now + timedelta(minutes=17)) == []
    append(world.workspace.store, [row(new, now)])
    assert told(world, now + timedelta(minutes=18)) == [("drain.late", 0)]


def test_alerts_name_key_organisation_amounts_month_and_what_helps(world: World) -> None:
    """And no secret: neither the key's nor a part of it."""
    new = world.key("app", monthly_limit=usd(5))
    spend(world, new.key.id, usd(4.12))
    told(world)
    (alert,) = alerts(world)
    body = json.loads(alert.body)
    assert body["data"] == {
        "id": alert.id,
        "message": "API key 'app' of 'Acme' has spent $4.12 of its limit of $5.00 for 2026-12: 80 % are reached.",
        "organisation": {"id": world.org_id, "name": "Acme"},
        "key": {"id": new.key.id, "name": "app"},
        "threshold_percent": 80,
        "month": "2026-12",
        "limit_usd": "5",
        "spent_usd": "4.12",
        "help": f"keydesk keys update {new.key.id} --monthly-limit USD",
    }
    assert new.secret[:12] not in alert.body


def test_old_alerts_are_forgotten(world: World) -> None:
    """After 90 days, when something new is told."""
    limited(world, "app", usd(10), usd(8))
    told(world)
    later = NOW + timedelta(days=91)
    limited(world, "other", usd(10), usd(5), later)
    assert told(world, later) == [("key.limit", 50)]
    assert len(alerts(world)) == 1
