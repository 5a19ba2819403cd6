"""A suspended organisation: its keys are refused at once and everywhere, nothing is lost, and all comes back."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import Running
from tests.gateway.conftest import KINDS, Gate, Reply, dialect_of, http_answer, make_gate, raw_upstream
from tests.stores import StoreKind
from toolkit.admin import keys, organisations
from toolkit.core.dialect import Dialect
from toolkit.core.secrets import new_secret

pytestmark = pytest.mark.any_store

FREE: list[tuple[str, str, Any, dict[str, str]]] = [
    ("GET", "/v1/models", None, {}),
    ("GET", "/v1/models/gpt-test", None, {}),
    ("GET", "/anthropic/v1/models", None, {}),
    ("GET", "/v1beta/models", None, {}),
    (
        "POST",
        "/v1/messages/count_tokens",
        {"model": "claude-test", "messages": [{"role": "user", "content": "hello"}]},
        {"anthropic-version": "2023-06-01"},
    ),
    ("POST", "/v1beta/models/gemini-test:countTokens", {"contents": [{"parts": [{"text": "hello"}]}]}, {}),
]
"""Endpoints that cost nothing."""


@pytest.fixture
def two(gateways: Callable[..., Running], store_kind: StoreKind) -> Gate:
    """A key at a gateway of two processes that share a port."""
    return make_gate(gateways(store_kind, workers=2))


def suspend(gate: Gate) -> None:
    """Suspend the key's organisation."""
    with gate.workspace.write() as tx:
        organisations.suspend(tx, gate.org_id, confirm=organisations.find(tx, gate.org_id).name)


def resume(gate: Gate) -> None:
    """Resume it."""
    with gate.workspace.write() as tx:
        organisations.resume(tx, gate.org_id, confirm=organisations.find(tx, gate.org_id).name)


def free_calls(gate: Gate) -> list[Reply]:
    """Ask all that costs nothing."""
    return [gate.send(path, body, headers, method=method) for method, path, body, headers in FREE]


def error_type(reply: Reply) -> str:
    """Return our reason in an answer's envelope, in whichever dialect."""
    error = reply.json["error"]
    if "details" in error:
        details = error["details"]
        return str(details["error_code"] if isinstance(details, dict) else details[0]["reason"])
    return str(error["type"])


@pytest.mark.world
def test_every_process_refuses_the_next_call_and_resume_brings_all_back(two: Gate) -> None:
    """Though each has the key in its memory; free endpoints and listings are refused as well."""
    kinds = KINDS * 4
    with ThreadPoolExecutor(8) as threads:
        assert {reply.status for reply in threads.map(lambda kind: two.ask(kind, "hello"), kinds)} == {200}
        suspend(two)
        refused = list(threads.map(lambda kind: two.ask(kind, "hello"), kinds)) + free_calls(two)
        assert {(reply.status, error_type(reply)) for reply in refused} == {(403, "organisation_suspended")}
        resume(two)
        again = list(threads.map(lambda kind: two.ask(kind, "hello"), kinds)) + free_calls(two)
        assert {reply.status for reply in again} == {200}
    rows = [row for row in two.rows() if row.refusal == "organisation_suspended"]
    assert len(rows) == len(refused)
    assert {(row.outcome, row.status, row.cost) for row in rows} == {("refused", 403, 0)}


@pytest.mark.parametrize("kind", ["chat", "messages", "generate"])
def test_the_callers_are_told_whom_to_ask(gate: Gate, kind: str) -> None:
    """In each dialect's own envelope; nothing is held."""
    suspend(gate)
    reply = gate.ask(kind, "hello")
    assert reply.status == 403
    assert "is suspended" in reply.message
    assert "Ask an org admin" in reply.message
    assert gate.totals() == (0, 0)
    if dialect_of(kind) is Dialect.GEMINI:
        assert reply.json["error"]["status"] == "PERMISSION_DENIED"


def test_a_dead_key_is_not_told_that_its_organisation_is_suspended(gate: Gate) -> None:
    """Disabled, rotated and unknown ones stay 401, with the words they always have."""
    disabled, rotated = gate.another("disabled"), gate.another("rotated")
    with gate.workspace.write() as tx:
        keys.disable(tx, disabled.key_id, confirm="disabled")
        keys.rotate(tx, gate.workspace.keyring, rotated.key_id, confirm="rotated")
    suspend(gate)
    replies = [gate.ask("chat", "hello", secret=s) for s in (disabled.secret, rotated.secret, new_secret())]
    assert [reply.status for reply in replies] == [401] * 3
    assert len({reply.message for reply in replies}) == 1
    assert "suspended" not in replies[0].message


def test_a_call_under_way_finishes_and_is_charged(gate: Gate) -> None:
    """What was admitted before the suspension is answered, settled, and in the log."""
    asked, go_on = threading.Event(), threading.Event()
    answer = http_answer(
        b'{"id":"a","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant",'
        b'"content":"done"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}',
        "Content-Type: application/json",
    )
    with raw_upstream([asked.set, lambda: go_on.wait(20), answer]) as upstream, ThreadPoolExecutor(1) as threads:
        behind = gate.behind(upstream.url)
        reply = threads.submit(behind.ask, "chat")
        assert asked.wait(20)
        suspend(gate)
        assert behind.ask("chat").status == 403
        go_on.set()
        assert reply.result(20).status == 200
    rows = {row.outcome: row for row in behind.gate.rows()}
    assert rows["completed"].cost > 0
    assert behind.gate.held_calls() == []
