"""GET /v1/key: what the holder of a key is told, in every credential form, and how little it costs the store."""

import asyncio
import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import event

from tests.conftest import World, usd
from tests.gateway.conftest import Gate, Reply
from toolkit.admin import key_standing, keys, organisations
from toolkit.billing.batcher import Batcher
from toolkit.billing.stores import open_billing_store
from toolkit.core.errors import Unavailable
from toolkit.core.period import billing_month, next_month
from toolkit.core.policy import Unauthorized
from toolkit.gateway import key_endpoint
from toolkit.gateway.endpoint import Gateway
from toolkit.gateway.key_cache import KeyCache
from toolkit.gateway.key_endpoint import KeyEndpoint
from toolkit.store.actor import SYSTEM
from toolkit.store.tally import Tallies

FORMS: dict[str, Callable[[str], tuple[str, dict[str, str]]]] = {
    "Bearer": lambda secret: ("/v1/key", {"Authorization": f"Bearer {secret}"}),
    "api-key": lambda secret: ("/v1/key", {"api-key": secret}),
    "x-api-key": lambda secret: ("/v1/key", {"x-api-key": secret}),
    "x-goog-api-key": lambda secret: ("/v1/key", {"x-goog-api-key": secret}),
    "?key=": lambda secret: (f"/v1/key?key={secret}", {}),
}


def ask(gate: Gate, method: str = "GET") -> Reply:
    """Ask about the gate's key."""
    return gate.send("/v1/key", method=method)


def test_the_holder_reads_limit_spend_and_what_is_left(gate: Gate) -> None:
    """Amounts are those of the store, exact, in both forms; the secret and the organisation's balance are not told."""
    gate.update(monthly_limit=usd(5))
    assert gate.ask("chat", "hello").status == 200
    spent, held = gate.totals()
    reply = ask(gate)
    told = reply.json
    month = billing_month(datetime.now(UTC))
    assert (told["monthly_limit_nano"], told["spent_nano"], told["held_nano"]) == (usd(5), spent, held)
    assert told["left_nano"] == usd(5) - spent - held
    assert (told["monthly_limit_usd"], told["held_usd"]) == ("5", "0")
    assert told["resets_at"] == f"{next_month(month)}-01T00:00:00Z"
    assert {"id": "gpt-test", "dialect": "openai"} in told["callable_models"]
    assert (told["calls"], told["calls_possible"], told["reason"]) == (1, True, None)
    assert reply.headers["cache-control"] == "no-store"
    assert int(reply.headers["age"]) < 60
    assert gate.secret not in reply.body.decode()
    assert "balance" not in reply.body.decode()


@pytest.mark.parametrize("form", FORMS)
def test_every_credential_form_is_taken(gate: Gate, form: str) -> None:
    """Whatever SDK somebody has the key in, the same answer comes."""
    path, headers = FORMS[form](gate.secret)
    reply = gate.send(path, headers=headers, method="GET", secret=None)
    assert (reply.status, reply.json["display"]) == (200, gate.key.key.display)


def test_head_is_taken_and_other_methods_are_not(gate: Gate) -> None:
    """As on every path that is read."""
    head = ask(gate, "HEAD")
    assert (head.status, head.body) == (200, b"")
    post = ask(gate, "POST")
    assert (post.status, post.type, post.headers["allow"]) == (405, "method_not_allowed", "GET, HEAD")


def test_a_key_that_admits_nothing_is_told_what_a_call_is_told(gate: Gate) -> None:
    """Rotated: the one 401. Suspended: 403. In the envelope of the credential's dialect."""
    with gate.workspace.write() as tx:
        organisations.suspend(tx, gate.org_id, confirm=organisations.find(tx, gate.org_id).name)
    suspended = gate.send("/v1/key", headers={"x-api-key": gate.secret}, method="GET", secret=None)
    assert (suspended.status, suspended.json["type"]) == (403, "error")
    with gate.workspace.write() as tx:
        organisations.resume(tx, gate.org_id, confirm=organisations.find(tx, gate.org_id).name)
        keys.rotate(tx, gate.workspace.keyring, gate.key_id, confirm=gate.key.key.name)
    assert ask(gate).message == gate.ask("chat", "hello").message


class Counted:
    """A key endpoint in this process, and what it asks of the store."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[str] = []

    def run(self, secret: str, times: int, between: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
        """Ask twice as often as `times` at once, with something done between; return the answers."""
        store = self.world.workspace.store

        async def work() -> list[dict[str, Any]]:
            cache = KeyCache(store, self.world.workspace.keyring, Batcher(billing_store), Tallies(store))
            await cache.open()
            endpoint = KeyEndpoint(cast("Gateway", SimpleNamespace(key_cache=cache)), None, "key")
            digests = cache.digests(secret)
            self.asked.clear()
            found = await asyncio.gather(*(endpoint._recent(digests) for _ in range(times)))
            between()
            found += await asyncio.gather(*(endpoint._recent(digests) for _ in range(times)))
            return [json.loads(answer.body) for answer in found]

        def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            self.asked.append(statement)

        event.listen(store.engine, "before_cursor_execute", note)
        try:
            with closing(open_billing_store(store)) as billing_store:
                return asyncio.run(work())
        finally:
            event.remove(store.engine, "before_cursor_execute", note)


def test_a_thousand_questions_cost_the_store_one_reading(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks at once shares it, and who asks within its second gets it again."""
    monkeypatch.setattr(key_endpoint, "FRESH", 3600.0)
    counted = Counted(world)
    answers = counted.run(world.key().secret, 500)
    assert len(answers) == 1000
    assert len({answer["as_of"] for answer in answers}) == 1
    assert len([statement for statement in counted.asked if "key_month" in statement]) == 1
    assert len([statement for statement in counted.asked if "live_secret" in statement]) == 1


def test_an_older_answer_is_read_anew_with_what_has_changed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that was changed is seen by the next reading, whatever the gateway remembers of the key."""
    monkeypatch.setattr(key_endpoint, "FRESH", 0.0)
    new = world.key(monthly_limit=usd(1))

    def change() -> None:
        with world.workspace.write() as tx:
            keys.update(tx, new.key.id, monthly_limit=usd(2))

    before, after = Counted(world).run(new.secret, 1, change)
    assert (before["left_usd"], after["left_usd"]) == ("1", "2")


def test_a_key_that_was_disabled_is_refused_by_the_next_reading(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last answer is for a store that is away, not for a key that is."""
    monkeypatch.setattr(key_endpoint, "FRESH", 0.0)
    new = world.key()

    def change() -> None:
        with world.workspace.write() as tx:
            keys.disable(tx, new.key.id, confirm=new.key.name)

    with pytest.raises(Unauthorized):
        Counted(world).run(new.secret, 1, change)


@pytest.mark.parametrize("oldest", [3600.0, 0.0])
def test_a_store_that_is_away_is_bridged_by_the_last_answer(
    world: World, monkeypatch: pytest.MonkeyPatch, oldest: float
) -> None:
    """While that is young enough; after that the gateway says that it cannot know."""
    monkeypatch.setattr(key_endpoint, "FRESH", 0.0)
    monkeypatch.setattr(key_endpoint, "OLDEST", oldest)

    def away() -> None:
        def fail(*_arguments: object) -> None:
            raise Unavailable("away")

        monkeypatch.setattr(key_standing, "totals", fail)

    if oldest:
        before, after = Counted(world).run(world.key().secret, 1, away)
        assert before == after
    else:
        with pytest.raises(Unavailable):
            Counted(world).run(world.key().secret, 1, away)


@pytest.mark.both_stores
def test_the_totals_of_a_key_are_those_of_its_month(world: World) -> None:
    """A key without a call has none; the wallet is told only as empty or not."""
    new = world.key()
    with world.workspace.store.read(SYSTEM) as tx:
        found = key_standing.totals(tx, new.key.id)
        assert found is not None
        assert (found.calls, found.counted, found.held, found.wallet_empty) == (0, 0, 0, False)
        assert (found.org_name, found.version) == ("Acme", new.key.version)
        assert abs(found.as_of - datetime.now(UTC)) < timedelta(minutes=5)
        assert key_standing.totals(tx, "key_none") is None


def test_a_limit_with_nothing_left_is_told(gate: Gate) -> None:
    """Calls are not possible, and the reason is the one that a call is refused with."""
    gate.update(monthly_limit=0)
    told = ask(gate).json
    assert (told["calls_possible"], told["reason"], told["left_usd"]) == (False, "api_key_quota_exceeded", "0")


def test_an_empty_wallet_is_told_without_what_is_in_it(gate: Gate) -> None:
    """What the organisation has is not its keys' holders' to know."""
    with gate.workspace.write() as tx:
        org = organisations.add(tx, f"Poor of {gate.org_id}")
        poor = keys.create(tx, gate.workspace.keyring, org=org.id, name="app", plan=gate.plan_id)
    told = gate.send("/v1/key", method="GET", secret=poor.secret).json
    assert (told["calls_possible"], told["reason"]) == (False, "billing_shortfall")
    assert "$" not in told["message"]
