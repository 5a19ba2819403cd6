"""Leases: which gateways are alive by the store's clock, and what becomes of the holds of those that are not."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from tests.account import INSTANCE, MULTIPLIER, NOW, Account, account, billing_store, ended, fixed
from tests.conftest import usd
from toolkit.billing import leases
from toolkit.billing.leases import Asked, Progress
from toolkit.billing.rules import Settle
from toolkit.billing.state import Hold
from toolkit.billing.stores import BATCH
from toolkit.core.moments import micros, moment
from toolkit.core.usage import Usage
from toolkit.store import transaction
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.tables import GatewayInstance
from toolkit.store.transaction import store_now, utc_now

pytestmark = pytest.mark.both_stores

__all__ = ["account", "billing_store"]  # fixtures

SECOND = timedelta(seconds=1)


def store_of(account: Account) -> Store:
    """Return the key store behind an account."""
    return account.world.workspace.store


def renew(account: Account, instance: str = INSTANCE, length: timedelta = timedelta(minutes=5)) -> datetime:
    """Renew a gateway's lease."""
    with store_of(account).write(SYSTEM) as tx:
        return leases.renew(tx, instance, length)


def expire(account: Account, instance: str, ago: timedelta = SECOND) -> None:
    """Let a gateway's lease have ended some time ago, by the store's clock."""
    with store_of(account).write(SYSTEM) as tx:
        tx.session.get_one(GatewayInstance, instance).lease_until = store_now(tx) - ago


def held_by(account: Account, instance: str) -> list[Hold]:
    """Return a gateway's open holds."""
    with store_of(account).read(SYSTEM) as tx:
        return leases.held_by(tx, instance)


def outcomes(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return the outcome of each call in the log."""
    return {row["request_id"]: row["outcome"] for row in rows}


def test_a_lease_lasts_from_the_stores_present_moment(account: Account) -> None:
    """It ends `length` after the moment that is returned, which is the store's own."""
    before = utc_now()
    now = renew(account, length=30 * SECOND)
    (row,) = account.rows("SELECT * FROM gateway_instance")
    assert before - SECOND < now < utc_now() + SECOND
    assert (moment(row["started_at"]), moment(row["lease_until"])) == (now, now + 30 * SECOND)


def test_a_renewal_moves_the_end_and_keeps_the_start(account: Account) -> None:
    """A heartbeat says that the same gateway is still alive."""
    first = renew(account, length=10 * SECOND)
    second = renew(account, length=20 * SECOND)
    row = account.row("SELECT * FROM gateway_instance")
    assert first < second
    assert (moment(row["started_at"]), moment(row["lease_until"])) == (first, second + 20 * SECOND)


def test_the_holds_of_a_living_gateway_stay(account: Account) -> None:
    """A sweep leaves alone whom the store knows to be alive, though another has died."""
    renew(account)
    renew(account, "gateway_dead")
    expire(account, "gateway_dead")
    account.admit(account.call(), fixed(usd(1)))
    assert leases.sweep(store_of(account)) == 0
    assert account.org()["held"] == usd(1)
    assert [row["id"] for row in account.rows("SELECT id FROM gateway_instance")] == [INSTANCE]


def test_a_sweep_writes_off_the_calls_of_a_dead_gateway(account: Account) -> None:
    """Its holds are released and its calls logged as abandoned at cost 0; a late settlement is lost."""
    renew(account)
    renew(account, "gateway_dead")
    dead, alive = account.call(stream=True), account.call()
    account.admit(dead, fixed(usd(3)), "gateway_dead")
    account.admit(alive, fixed(usd(4)))
    assert leases.sweep(store_of(account)) == 0
    expire(account, "gateway_dead")
    before = utc_now()
    assert leases.sweep(store_of(account)) == 1
    assert (account.org()["held"], account.month()["held"], account.month()["calls"]) == (usd(4), usd(4), 1)
    (row,) = account.log()
    expected = {
        "request_id": dead.request_id,
        "key_id": account.key_id,
        "org_id": account.world.org_id,
        "plan_id": account.world.plan_id,
        "outcome": "abandoned",
        "status": 0,
        "stream": True,
        "model": "gpt-test",
        "upstream": "test-openai",
        "dialect": "openai",
        "endpoint": "chat/completions",
        "cost": 0,
        "held": usd(3),
        "overrun": 0,
        "multiplier": MULTIPLIER,
        "price_id": "price_test",
        "input_tokens": 0,
        "output_price": 0,
        "usage_source": None,
        "refusal": None,
        "duration_ms": None,
        "admitted_at": micros(NOW),
        "error": leases.DIED,
    }
    assert {name: row[name] for name in expected} == expected
    assert before - SECOND < moment(row["settled_at"]) < utc_now() + SECOND
    assert account.settle(dead, ended(Usage(input_tokens=5))) is None
    assert account.settle(alive, ended(Usage(input_tokens=5))) is not None
    assert account.count("outbox") == 2


def note(account: Account, calls: dict[str, Progress]) -> None:
    """Note how far calls have come, as a heartbeat does."""
    with store_of(account).write(SYSTEM) as tx:
        leases.note_progress(tx, calls)


def test_what_a_dead_gateway_had_noted_stands_in_the_rows_of_its_calls(account: Account) -> None:
    """So that the provider's invoice can be looked through for them; of a younger call nothing is known."""
    renew(account)
    known, waiting, young, ended_before = (account.call(credential="TEST_API_KEY") for _ in range(4))
    for call in (known, waiting, young):
        account.admit(call, fixed(1))
    asked = Asked("second", "SECOND_API_KEY", "price_second")
    odd = "resp_\0\ud800" + "x" * 300
    note(account, {known.request_id: Progress("resp_1", 10), ended_before.request_id: Progress("resp_0", 1)})
    note(account, {known.request_id: Progress(odd, 20_000), waiting.request_id: Progress(None, 0, asked)})
    expire(account, INSTANCE)
    assert leases.sweep(store_of(account)) == 3
    noted = {row["request_id"]: (row["response_id"], row["seen_bytes"]) for row in account.log()}
    assert noted == {
        known.request_id: ("resp_??" + "x" * 193, 20_000),
        waiting.request_id: (None, 0),
        young.request_id: (None, None),
    }
    told = {row["request_id"]: (row["upstream"], row["credential"], row["price_id"]) for row in account.log()}
    assert told == {
        known.request_id: (known.upstream, known.credential, known.price_id),
        waiting.request_id: asked,
        young.request_id: (young.upstream, young.credential, young.price_id),
    }


def test_the_progress_of_all_calls_is_one_statement(account: Account) -> None:
    """However many calls are under way."""
    renew(account)
    calls = [account.call() for _ in range(300)]
    account.billing_store.run([account.asked(call, fixed(1)) for call in calls[:BATCH]])
    statements: list[str] = []
    engine = store_of(account).engine
    with store_of(account).write(SYSTEM) as tx:

        def noting(*values: Any) -> None:
            statements.append(values[2])

        event.listen(engine, "before_cursor_execute", noting)
        leases.note_progress(tx, {call.request_id: Progress("resp", number) for number, call in enumerate(calls)})
        event.remove(engine, "before_cursor_execute", noting)
        leases.note_progress(tx, {})
    assert len(statements) == 1
    assert sorted(hold["seen_bytes"] for hold in account.holds()) == list(range(BATCH))


def test_a_noted_call_is_settled_as_any_other(account: Account) -> None:
    """Its row says what the settlement says; and a settlement that failed puts the note back with the hold."""
    renew(account)
    call = account.call()
    account.admit(call, fixed(usd(1)))
    note(account, {call.request_id: Progress("resp_1", 10)})
    (hold,) = held_by(account, INSTANCE)
    assert (hold.response_id, hold.seen_bytes) == ("resp_1", 10)
    wrong = replace(ended(Usage(input_tokens=5)), ended_at=None)  # type: ignore[arg-type]
    assert isinstance(account.billing_store.run([Settle(call, wrong)])[0], TypeError)
    assert held_by(account, INSTANCE) == [hold]
    assert account.settle(call, ended(Usage(input_tokens=5))) is not None
    (row,) = account.log()
    assert (row["response_id"], row["seen_bytes"]) == (None, None)


@pytest.mark.only_store("postgresql")
def test_a_heartbeat_does_not_wait_for_a_settlement(account: Account) -> None:
    """A hold that is being taken away is passed over; the others are noted."""
    renew(account)
    going, staying = account.call(), account.call()
    for call in (going, staying):
        account.admit(call, fixed(1))
    with closing(store_of(account).connect_postgres()) as settling:
        settling.execute("BEGIN")
        settling.execute("DELETE FROM hold WHERE request_id = %s", [going.request_id])
        note(account, {call.request_id: Progress(None, 5) for call in (going, staying)})
        settling.execute("COMMIT")
    assert [(hold["request_id"], hold["seen_bytes"]) for hold in account.holds()] == [(staying.request_id, 5)]


def test_a_gateway_that_said_goodbye_is_swept_at_once(account: Account) -> None:
    """What a stopped instance still holds does not wait for its lease."""
    renew(account, length=timedelta(hours=1))
    account.admit(account.call(), fixed(usd(2)))
    with store_of(account).write(SYSTEM) as tx:
        leases.end(tx, INSTANCE)
    assert leases.sweep(store_of(account)) == 1
    assert account.org()["held"] == 0


def test_a_gateway_that_the_store_never_knew_is_dead(account: Account) -> None:
    """A hold whose owner has no lease belongs to nobody."""
    account.admit(account.call(), fixed(usd(2)), "gateway_unknown")
    assert leases.sweep(store_of(account)) == 1


def test_a_sweep_with_nothing_to_do_writes_nothing(account: Account) -> None:
    """It runs every few seconds in every gateway: it must not take the write lock for nothing."""
    renew(account)
    account.admit(account.call(), fixed(1))
    with store_of(account).write(SYSTEM), ThreadPoolExecutor(1) as thread:
        assert thread.submit(leases.sweep, store_of(account)).result(10) == 0


@pytest.mark.parametrize("minutes", [-1, 1])
def test_a_machines_own_clock_does_not_matter(account: Account, monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    """On PostgreSQL leases are judged by the server's clock: a sweeper a minute off neither kills nor spares."""
    if not store_of(account).is_postgres:
        pytest.skip("a SQLite store is on one machine")
    renew(account, "gateway_alive", 30 * SECOND)
    renew(account, "gateway_dead", 30 * SECOND)
    expire(account, "gateway_dead")
    account.admit(account.call(), fixed(1), "gateway_alive")
    dead = account.call()
    account.admit(dead, fixed(1), "gateway_dead")
    monkeypatch.setattr(transaction, "utc_now", lambda: utc_now() + timedelta(minutes=minutes))
    assert leases.sweep(store_of(account)) == 1
    assert list(outcomes(account.log())) == [dead.request_id]


@pytest.mark.world
def test_two_sweeps_at_once_write_each_call_off_once(account: Account) -> None:
    """Every gateway sweeps: what several find is released once, and counted once."""
    for many in (BATCH, BATCH, 7):
        account.billing_store.run([account.asked(account.call(), fixed(1), "gateway_dead") for _ in range(many)])
    sweepers = 4
    with ThreadPoolExecutor(sweepers) as threads:
        swept = list(threads.map(lambda _: leases.sweep(store_of(account)), range(sweepers)))
    assert sum(swept) == account.count("outbox") == 2 * BATCH + 7
    assert (account.org()["held"], account.month()["held"], account.month()["calls"]) == (0, 0, 2 * BATCH + 7)
    assert account.count("hold") == 0


def test_a_settlement_and_a_sweep_at_once_end_a_call_once(account: Account) -> None:
    """Each call is either charged or written off, whichever comes first; the totals say what the rows say."""
    calls = [account.call() for _ in range(60)]
    for call in calls:
        account.admit(call, fixed(usd(1)), "gateway_dead")
    with ThreadPoolExecutor(1) as thread:
        sweeping = thread.submit(leases.sweep, store_of(account))
        receipts = [account.settle(call, ended(Usage(input_tokens=1000))) for call in calls]
        swept = sweeping.result(30)
    charged = sum(receipt is not None for receipt in receipts)
    assert swept + charged == len(calls) == len(account.log())
    assert account.month()["spent"] == account.org()["settled"] == charged * 2_500_000
    assert (account.month()["held"], account.org()["held"], account.month()["calls"]) == (0, 0, len(calls))


def test_a_gateways_holds_are_found(account: Account) -> None:
    """They are listed just as they were placed, and only its own."""
    renew(account)
    call = account.call(stream=True)
    account.admit(call, fixed(usd(2)))
    account.admit(account.call(), fixed(usd(3)), "gateway_other")
    assert held_by(account, INSTANCE) == [
        Hold(
            request_id=call.request_id,
            instance_id=INSTANCE,
            org_id=account.world.org_id,
            key_id=account.key_id,
            plan_id=account.world.plan_id,
            month="2026-11",
            admitted_at=micros(NOW),
            amount=usd(2),
            limit_amount=usd(2),
            dialect="openai",
            endpoint="chat/completions",
            stream=True,
            model="gpt-test",
            upstream="test-openai",
            price_id="price_test",
            multiplier=MULTIPLIER,
        )
    ]


def test_forgotten_holds_are_written_off_with_their_reason(account: Account) -> None:
    """A gateway that did not learn of its own hold gives it back; one that was settled meanwhile is not counted."""
    renew(account)
    forgotten, settled = account.call(), account.call()
    for call in (forgotten, settled):
        account.admit(call, fixed(usd(1)))
    holds = held_by(account, INSTANCE)
    account.settle(settled, ended(Usage()))
    assert leases.abandon(store_of(account), holds, leases.FORGOTTEN) == 1
    assert outcomes(account.log()) == {forgotten.request_id: "abandoned", settled.request_id: "completed"}
    assert {row["error"] for row in account.log()} == {leases.FORGOTTEN, None}
    assert account.org()["held"] == 0
    assert leases.abandon(store_of(account), holds, leases.FORGOTTEN) == 0


def test_an_abandoned_call_counts_in_the_month_of_its_admission(account: Account) -> None:
    """However late it is swept."""
    last = NOW.replace(day=30, hour=23, minute=59, second=59)
    account.admit(account.call(received_at=last), fixed(usd(1)), "gateway_dead")
    account.admit(account.call(received_at=last + 2 * SECOND), fixed(usd(1)), "gateway_dead")
    leases.sweep(store_of(account))
    for month in ("2026-11", "2026-12"):
        totals = account.month(month)
        assert (totals["calls"], totals["spent"], totals["held"]) == (1, 0, 0)
