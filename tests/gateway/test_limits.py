"""Monthly limit and wallet: strict keys never go over, fitting lowers an injected bound, parallel calls change nothing.

At 1.25 times the base price a token of `gpt-test` costs 2,500 nano-USD in and 12,500 out; of `gemini-test` 1,250 and
10,000. The input of a hold is the body's bytes and 80 tokens for the request and its message.
"""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import usd
from tests.gateway.conftest import Gate, Reply, make_gate, request_of
from toolkit.admin import wallet
from toolkit.core.policy import HoldPolicy
from toolkit.store.tables import KeyMonth, Organisation

pytestmark = pytest.mark.any_store

PRICES = {
    "chat": (2_500, 12_500),
    "responses": (2_500, 12_500),
    "messages": (7_500, 18_750),  # the dearest input is an hour's cache write, 6 USD a million
    "generate": (1_250, 10_000),
}


def hold_of(kind: str, bound: int, text: str = "hello", **fields: Any) -> int:
    """Return by hand what a call of one message holds with an output bound of `bound` tokens, in nano-USD."""
    each_in, each_out = PRICES[kind]
    _, body = request_of(kind, text, **fields)
    return (len(json.dumps(body)) + 80) * each_in + bound * each_out


def bound_upstream_got(gate: Gate, kind: str, reply: Reply) -> int:
    """Return the output bound that the demo upstream received."""
    witness = gate.witness(reply.request_id)
    assert witness is not None
    body = witness["body"]
    if kind == "generate":
        return int(body["generationConfig"]["maxOutputTokens"])
    return int(body["max_output_tokens" if kind == "responses" else "max_completion_tokens"])


def limited(gate: Gate, what: str, amount: int) -> Gate:
    """Return a key that may spend `amount`, by its own limit or by its organisation's wallet."""
    if what == "limit":
        gate.update(monthly_limit=amount)
        return gate
    return make_gate(gate.running, money=amount)


REASONS = {"limit": "api_key_quota_exceeded", "wallet": "billing_shortfall"}


@pytest.mark.parametrize("kind", ["chat", "generate"])
def test_default_bound_is_injected(gate: Gate, kind: str) -> None:
    """A call without a bound gets the model's default, and that is what is held."""
    reply = gate.ask(kind, "hello")
    assert bound_upstream_got(gate, kind, reply) == 4_096
    assert "x-max-tokens-fitted" not in reply.headers
    assert gate.row().held == hold_of(kind, 4_096)


@pytest.mark.parametrize("what", ["limit", "wallet"])
@pytest.mark.parametrize("kind", ["chat", "generate"])
def test_fitting(gate: Gate, kind: str, what: str) -> None:
    """What is left pays for 2,000 tokens: that bound is injected, the header says so, the upstream really got it."""
    poor = limited(gate, what, hold_of(kind, 2_001) - 1)
    reply = poor.ask(kind, "hello")
    assert reply.status == 200
    assert reply.headers["x-max-tokens-fitted"] == "2000"
    assert bound_upstream_got(poor, kind, reply) == 2_000
    assert poor.row().held == hold_of(kind, 2_000)


def test_a_responses_call_gets_the_models_longest_output(gate: Gate) -> None:
    """Codex takes an answer that is cut for a broken stream, asks again, and pays again: so none is cut by us."""
    reply = gate.ask("responses", "hello")
    assert bound_upstream_got(gate, "responses", reply) == 8_192
    assert gate.row().held == hold_of("responses", 8_192)


@pytest.mark.parametrize("what", ["limit", "wallet"])
def test_a_responses_call_is_never_fitted(gate: Gate, what: str) -> None:
    """What does not fit is refused with the bound that would, and that one is admitted."""
    poor = limited(gate, what, hold_of("responses", 2_001) - 1)
    refused = poor.ask("responses", "hello")
    assert (refused.status, refused.type) == (402, REASONS[what])
    fits = int(refused.json["error"]["details"]["largest_output_bound"])
    assert fits == 2_000
    fits -= 10  # the field has a length of its own
    reply = poor.ask("responses", "hello", max_output_tokens=fits)
    assert (reply.status, bound_upstream_got(poor, "responses", reply)) == (200, fits)


def test_fitted_stream_says_so(gate: Gate) -> None:
    """A stream's head carries the header too, and the upstream got the bound beside `stream_options`."""
    gate.update(monthly_limit=hold_of("chat", 2_000, stream=True))
    reply = gate.ask("chat", "hello", stream=True)
    assert reply.headers["x-max-tokens-fitted"] == "2000"
    assert bound_upstream_got(gate, "chat", reply) == 2_000


@pytest.mark.parametrize("what", ["limit", "wallet"])
@pytest.mark.parametrize("kind", ["chat", "generate"])
def test_never_fitted_below_1024(gate: Gate, kind: str, what: str) -> None:
    """1,024 tokens still fit; a nano-USD less and the call is refused."""
    least = hold_of(kind, 1_024)
    poor = limited(gate, what, least - 1)
    refused = poor.ask(kind, "hello")
    assert (refused.status, refused.type) == (402, REASONS[what])
    if what == "limit":
        poor.update(monthly_limit=least)
    else:
        with poor.workspace.write() as tx:
            wallet.credit(tx, poor.org_id, 1, f"one nano-USD for {poor.org_id}")
    reply = poor.ask(kind, "hello")
    assert reply.headers["x-max-tokens-fitted"] == "1024"


@pytest.mark.parametrize("what", ["limit", "wallet"])
@pytest.mark.parametrize(
    ("kind", "field"), [("chat", "max_tokens"), ("responses", "max_output_tokens"), ("messages", "max_tokens")]
)
def test_explicit_bound_is_refused_with_the_bound_that_fits(gate: Gate, kind: str, field: str, what: str) -> None:
    """An explicit bound is never lowered: the refusal names the largest that fits, and that one is admitted."""
    too_large: dict[str, Any] = {field: 900}
    poor = limited(gate, what, hold_of(kind, 700, **too_large))
    refused = poor.ask(kind, "hello", **too_large)
    assert (refused.status, refused.type) == (402, REASONS[what])
    assert "at most 700 tokens would fit" in refused.message
    assert refused.json["error"]["details"]["largest_output_bound"] == "700"
    bounds: list[dict[str, Any]] = [{field: 701}, {field: 700}]
    assert [poor.ask(kind, "hello", **bound).status for bound in bounds] == [402, 200]


def test_every_choice_is_held(gate: Gate) -> None:
    """Four choices hold four times the bound."""
    gate.ask("chat", "hello", n=4, max_tokens=100)
    assert gate.row().held == hold_of("chat", 400, n=4, max_tokens=100)


def test_limit_of_zero(gate: Gate) -> None:
    """A limit of 0 allows nothing that costs anything, and listings still work."""
    gate.update(monthly_limit=0)
    assert gate.ask("chat", "hello").status == 402
    assert gate.send("/v1/embeddings", {"model": "embed-test", "input": "x"}).status == 402
    assert gate.send("/v1/models", method="GET").status == 200
    assert gate.totals() == (0, 0)


def test_spending_up_to_the_limit(gate: Gate) -> None:
    """Call after call, a strict key stops before it would go over."""
    limit = usd(0.2)
    gate.update(monthly_limit=limit)
    statuses = [gate.ask("chat", "[[demo input=100 cached=0 tokens=3000]]", max_tokens=3000).status for _ in range(8)]
    assert statuses == [200] * 5 + [402] * 3  # a call costs 0.03775 USD
    assert gate.totals() == (5 * 37_750_000, 0)


def test_calls_of_last_month_do_not_count(gate: Gate) -> None:
    """A limit is for the month: what was spent in another month is not in its way."""
    gate.update(monthly_limit=usd(0.1))
    with gate.workspace.write() as tx:
        tx.session.add(
            KeyMonth(key_id=gate.key_id, month="2020-01", calls=1, spent=usd(50), held=0, last_call_at=tx.now)
        )
    assert gate.ask("chat", "hello").status == 200


def test_wallet_is_shared_by_the_keys_of_an_organisation(gate: Gate) -> None:
    """What one key spends is gone for the other."""
    poor = make_gate(gate.running, money=usd(0.1))
    other = poor.another("other")
    assert poor.ask("chat", "[[demo input=100 cached=0 tokens=6000]]", max_tokens=6000).status == 200  # 0.07525 USD
    reply = other.ask("chat", "hello", max_tokens=6000)
    assert (reply.status, reply.type) == (402, "billing_shortfall")
    assert reply.json["error"]["details"]["balance_usd"] == "0.02475"


def test_money_that_comes_helps_at_once(gate: Gate) -> None:
    """A credit acts on the very next call."""
    poor = make_gate(gate.running, money=0)
    assert poor.ask("chat", "hello").status == 402
    with poor.workspace.write() as tx:
        wallet.credit(tx, poor.org_id, usd(1), f"first payment of {poor.org_id}")
    assert poor.ask("chat", "hello").status == 200


# -- policy `expected` ---------------------------------------------------------------------------------------


def test_expected_policy_holds_the_likely_cost(gate: Gate) -> None:
    """Once a key's calls are known to be cheap, a bound far above the limit is no reason to refuse."""
    gate.update(monthly_limit=usd(0.06))
    strict = gate.another("strict", monthly_limit=usd(0.06))
    expected = gate.another("expected", monthly_limit=usd(0.06), hold_policy=HoldPolicy.EXPECTED)
    cheap = "[[demo input=10 cached=0 tokens=10]]"  # 0.00015 USD
    for key in (strict, expected):
        assert key.ask("chat", cheap).status == 200
    assert strict.ask("chat", cheap, max_tokens=8000).status == 402
    assert expected.ask("chat", cheap, max_tokens=8000).status == 200


def test_expected_policy_is_strict_before_anything_is_known(gate: Gate) -> None:
    """The first call of a key has no past to go by."""
    key = gate.another("expected", monthly_limit=usd(0.06), hold_policy=HoldPolicy.EXPECTED)
    assert key.ask("chat", "hello", max_tokens=8000).status == 402


def test_expected_policy_is_strict_towards_the_wallet(gate: Gate) -> None:
    """The organisation's money is never promised twice, whatever a key's policy is."""
    poor = make_gate(gate.running, money=usd(0.06), hold_policy=HoldPolicy.EXPECTED)
    assert poor.ask("chat", "[[demo input=10 cached=0 tokens=10]]").status == 200
    reply = poor.ask("chat", "hello", max_tokens=8000)
    assert (reply.status, reply.type) == (402, "billing_shortfall")


def test_expected_policy_ends_at_the_limit(gate: Gate) -> None:
    """When less is left than a call is likely to cost, the next one is refused."""
    key = gate.another("expected", monthly_limit=usd(0.06), hold_policy=HoldPolicy.EXPECTED)
    dear = "[[demo input=10 cached=0 tokens=2000]]"  # 0.025025 USD
    statuses = [key.ask("chat", dear, max_tokens=2100).status for _ in range(5)]
    assert statuses == [200, 200, 402, 402, 402]


# -- parallel calls ------------------------------------------------------------------------------------------


def in_parallel(gates: list[Gate], calls: int, text: str, **fields: Any) -> list[int]:
    """Make calls all at once, in turn with each key; return their statuses."""
    barrier = threading.Barrier(calls)

    def call(number: int) -> int:
        barrier.wait()
        return gates[number % len(gates)].ask("chat", text, **fields).status

    with ThreadPoolExecutor(calls) as pool:
        return sorted(pool.map(call, range(calls)))


def test_thirty_parallel_calls_at_the_limit(gate: Gate) -> None:
    """Five of thirty fit: five are admitted, and at no moment do spent and held exceed the limit."""
    text = "[[demo delay=0.6 input=100 cached=0 tokens=1000]]"
    limit = 5 * hold_of("chat", 1_000, text, max_tokens=1_000)
    gate.update(monthly_limit=limit)
    seen: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.append(sum(gate.totals()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        statuses = in_parallel([gate], 30, text, max_tokens=1_000)
    finally:
        stop.set()
        watcher.join()
    assert statuses == [200] * 5 + [402] * 25
    assert max(seen) <= limit
    assert gate.totals() == (5 * 12_750_000, 0)


def test_thirty_parallel_calls_at_the_wallets_end(gate: Gate) -> None:
    """Three keys of one organisation draw on one wallet at once: it never goes below zero."""
    text = "[[demo delay=0.6 input=100 cached=0 tokens=1000]]"
    poor = make_gate(gate.running, money=7 * hold_of("chat", 1_000, text, max_tokens=1_000))
    keys = [poor, poor.another("second"), poor.another("third")]
    statuses = in_parallel(keys, 30, text, max_tokens=1_000)
    assert statuses == [200] * 7 + [402] * 23
    with gate.workspace.read() as tx:
        org = tx.session.get_one(Organisation, poor.org_id)
        assert org.settled == 7 * 12_750_000
        assert org.held == 0
        assert org.credited - org.settled >= 0
