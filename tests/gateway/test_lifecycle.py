"""What is done to a key acts on its very next call, in every gateway process; what it did before stays on record."""

import json
import select
import signal
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import text

from tests.conftest import Running, usd, wait_until
from tests.gateway.conftest import Gate, make_gate, request_of
from tests.gateway.test_limits import hold_of, in_parallel
from tests.stores import StoreKind
from toolkit.admin import keys, plans
from toolkit.admin.models import add_model
from toolkit.admin.prices import set_price
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.reports import requests, spend
from toolkit.store.transaction import utc_now

pytestmark = pytest.mark.any_store

TRIES = 8
"""Calls after each change, each on a connection of its own, so that every process gets some."""


@pytest.fixture
def crowd(gateways: Callable[..., Running], store_kind: StoreKind) -> Running:
    """A gateway of two processes that share port and key store."""
    return gateways(store_kind, workers=2)


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
def key(gateways: Callable[..., Running], store_kind: StoreKind, request: pytest.FixtureRequest) -> Gate:
    """A fresh key that every process of the gateway has seen in use."""
    running = gateways(store_kind, workers=request.param)
    gate = make_gate(running)
    assert statuses(gate) == {200}
    return gate


def statuses(gate: Gate, secret: str = "", *, model: str = "gpt-test") -> set[int]:
    """Return the statuses of calls that reach every process."""
    return {gate.ask("chat", "[[demo tokens=4]]", secret=secret, model=model).status for _ in range(TRIES)}


def test_rotate(key: Gate) -> None:
    """The old secret is dead when rotate returns; the new one has the key's id, options and spend."""
    with key.workspace.write() as tx:
        rotated = keys.rotate(tx, key.workspace.keyring, key.key_id, confirm="app")
    assert statuses(key) == {401}
    assert statuses(key, rotated.secret) == {200}
    assert [row.outcome for row in key.rows()].count("completed") == 2 * TRIES
    assert key.totals()[0] == sum(row.cost for row in key.rows())


def test_uses_of_an_old_secret_are_logged(key: Gate) -> None:
    """Operators see who still uses the old secret; the answer does not tell."""
    with key.workspace.write() as tx:
        keys.rotate(tx, key.workspace.keyring, key.key_id, confirm="app")
    before = {row.request_id for row in key.rows()}
    statuses(key)
    refused = [row for row in key.rows() if row.request_id not in before]
    assert {(row.refusal, row.status, row.cost) for row in refused} == {("unauthorized", 401, 0)}
    assert len(refused) == TRIES


def test_disable_and_enable(key: Gate) -> None:
    """A disabled key is refused at once, and works at once when it is enabled again."""
    with key.workspace.write() as tx:
        keys.disable(tx, key.key_id, confirm="app")
    assert statuses(key) == {401}
    with key.workspace.write() as tx:
        keys.enable(tx, key.key_id, confirm="app")
    assert statuses(key) == {200}


def test_delete(key: Gate) -> None:
    """A deleted key is refused at once."""
    with key.workspace.write() as tx:
        keys.delete(tx, key.key_id, confirm="app")
    assert statuses(key) == {401}


def test_scope(key: Gate) -> None:
    """A narrowed scope acts at once, for calls and for listings; so does a widened one."""
    key.update(models=["embed-test"])
    assert statuses(key) == {403}
    listings = {tuple(model["id"] for model in key.send("/v1/models", method="GET").json["data"]) for _ in range(TRIES)}
    assert listings == {("embed-test",)}
    key.update(models=[])
    assert statuses(key) == {200}


def test_plan(key: Gate) -> None:
    """Another plan's models and multiplier hold from the next call on."""
    with key.workspace.write() as tx:
        plan = plans.add(tx, f"double {key.key_id}", 2 * MILLION, ["other-test"])
    key.update(plan=plan.id)
    assert statuses(key) == {404}  # no other key of the organisation has a plan with the old one
    costs = {
        key.ask("chat", "[[demo input=1000 cached=0 tokens=100]]", model="other-test").headers["x-cost-usd"]
        for _ in range(TRIES)
    }
    assert costs == {"0.006"}  # (1,000 × 2,000 + 100 × 10,000) × 2


def test_lowered_limit(key: Gate) -> None:
    """A limit below what is spent stops the next call; without a limit it goes on."""
    key.update(monthly_limit=1)
    assert statuses(key) == {402}
    key.update(monthly_limit=None)
    assert statuses(key) == {200}


def test_new_price(key: Gate) -> None:
    """A new price holds for calls admitted after it was set, in every process."""
    model = f"priced-{key.key_id}"
    with key.workspace.write() as tx:
        add_model(
            tx,
            model,
            "test-openai",
            sheet=PriceSheet.flat(input=usd(1), output=0),
            context_window=100_000,
            default_output=4_096,
            max_output=8_192,
        )
        plan = plans.add(tx, model, MILLION, [model])
    key.update(plan=plan.id)

    def costs() -> set[str]:
        order = "[[demo input=1000 cached=0 tokens=1]]"
        return {key.ask("chat", order, model=model).headers["x-cost-usd"] for _ in range(TRIES)}

    assert costs() == {"0.001"}
    with key.workspace.write() as tx:
        set_price(tx, model, PriceSheet.flat(input=usd(3), output=0))
    assert costs() == {"0.003"}


def test_expiry(key: Gate) -> None:
    """A key is refused from the moment it expires, by the store's clock as the gateway last heard it."""
    expires_at = utc_now() + timedelta(seconds=1.5)
    key.update(expires_at=expires_at)
    reply = key.ask("chat", "[[demo tokens=4]]")
    assert reply.status == 200 or utc_now() > expires_at
    wait_until(lambda: utc_now() > expires_at, "the expiry")
    wait_until(lambda: statuses(key) == {401}, "the refusal")  # on a busy machine it heard the clock late
    assert statuses(key) == {401}


@pytest.mark.parametrize("verb", ["rotate", "disable", "delete"])
def test_call_under_way_is_finished_and_charged(key: Gate, verb: str) -> None:
    """What was admitted before is answered to its end, and paid."""
    with key.streaming("chat", "[[demo tokens=40 chunk_delay=0.02 input=100 cached=0]]") as (_, answer):
        answer.read1(100)
        with key.workspace.write() as tx:
            if verb == "rotate":
                keys.rotate(tx, key.workspace.keyring, key.key_id, confirm="app")
            else:
                getattr(keys, verb)(tx, key.key_id, confirm="app")
        assert answer.read().endswith(b"data: [DONE]\n\n")
    row = key.rows()[-1]
    assert (row.outcome, row.cost) == ("completed", 750_000)  # (100 × 2,000 + 40 × 10,000) × 1.25
    assert key.totals()[1] == 0
    assert statuses(key) == {401}


def test_deleted_keys_requests_are_still_found(gate: Gate) -> None:
    """By id, before and after the ledger has taken them over, and the charts still name the key."""
    reply = gate.ask("chat", "hello")
    cost = gate.row().cost
    with gate.workspace.write() as tx:
        keys.delete(tx, gate.key_id, confirm="app")
    for _ in range(2):
        found = requests.search(gate.workspace.ledger, request_id=reply.request_id)
        assert found["key_id"].to_list() == [gate.key_id]
        assert found["key"].to_list() == ["app"]
        assert found["cost"].to_list() == [cost]
        by_key = spend.table(gate.workspace.ledger, by=["key"], org=gate.org_id)
        assert by_key["key"].to_list() == ["app"]
        assert by_key["cost"].to_list() == [cost]
        gate.workspace.ledger.sync()


def test_limit_holds_across_processes(crowd: Running) -> None:
    """Thirty calls at once over two processes, five of which fit: five are admitted."""
    gate = make_gate(crowd)
    order = "[[demo delay=0.8 input=100 cached=0 tokens=1000]]"
    gate.update(monthly_limit=5 * hold_of("chat", 1_000, order, max_tokens=1_000))
    assert in_parallel([gate], 30, order, max_tokens=1_000) == [200] * 5 + [402] * 25
    assert gate.totals() == (5 * 12_750_000, 0)


def test_store_kept_busy_by_another_writer(gate: Gate) -> None:
    """While another process writes, a call waits for its turn and is then judged by what was written."""
    path, body = request_of("chat", "hello")
    headers = {"Authorization": f"Bearer {gate.secret}"}
    with gate.connection() as connection:
        with gate.workspace.write() as tx:
            keys.disable(tx, gate.key_id, confirm="app")
            connection.request("POST", path, json.dumps(body), headers)
            assert select.select([connection.sock], [], [], 0.5)[0] == []
        assert connection.getresponse().status == 401
    assert [(row.refusal, row.cost) for row in gate.rows()] == [("unauthorized", 0)]


def test_store_that_cannot_be_reached(running: Running) -> None:
    """Without its key store the gateway lets nobody through: 503 with Retry-After; when it is back, calls go on."""
    gate = make_gate(running, plan=running.world.plan_id)
    assert gate.ask("chat", "hello").status == 200
    with gate.workspace.write() as tx:
        tx.session.execute(text("ALTER TABLE hold RENAME TO elsewhere"))
    for kind in ("chat", "messages", "generate"):
        reply = gate.ask(kind, "hello")
        assert (reply.status, reply.type, reply.headers["retry-after"]) == (503, "unavailable", "1")
        assert "elsewhere" not in reply.message
    with gate.workspace.write() as tx:
        tx.session.execute(text("ALTER TABLE elsewhere RENAME TO hold"))
    assert gate.ask("chat", "hello").status == 200


def test_calls_under_way_are_finished_when_the_gateway_stops(running: Running) -> None:
    """A stopped gateway takes no new calls, but ends and charges those it has."""
    gate = make_gate(running, plan=running.world.plan_id)
    with gate.streaming("chat", "[[demo tokens=40 chunk_delay=0.05 input=100 cached=0]]") as (_, answer):
        answer.read1(100)
        running.process.send_signal(signal.SIGTERM)
        assert answer.read().endswith(b"data: [DONE]\n\n")
    running.process.wait(60)
    assert gate.row().outcome == "completed"
    assert gate.totals() == (750_000, 0)
