"""Fields and betas at the gateway: what moves a hold, what is left out, and that the caller and the operator learn."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import World
from tests.gateway.conftest import Behind, Gate, RawUpstream, dialect_of, http_answer, raw_upstream, request_of
from tests.gateway.test_refusals import assert_refused
from toolkit.admin import catalog, plans
from toolkit.admin.upstreams import update_upstream
from toolkit.core.catalog import PlanFacts
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal
from toolkit.core.hosted_tools import HostedTools
from toolkit.core.policy import HoldPolicy, KeyFacts, KeyStatus
from toolkit.core.unknown_fields import UnknownFields
from toolkit.gateway.app import create_app
from toolkit.gateway.field_policy import judge_hosted
from toolkit.store import unknown_fields
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store

PASS, LEAVE_OUT, REFUSE = UnknownFields.PASS, UnknownFields.LEAVE_OUT, UnknownFields.REFUSE

MILLION_BETA = {"anthropic-beta": "context-1m-2025-08-07,claude-code-20250219"}


def test_beta_that_opens_a_larger_window_is_refused_where_it_could_be_filled(gate: Gate) -> None:
    """What is held is bounded by the model's window here; the refusal names the command that raises it."""
    path, body = request_of("messages", "x" * 250_000)
    reply = gate.send(path, body, MILLION_BETA)
    assert_refused(
        gate, reply, 400, "unsupported_feature", "keydesk models update claude-test --context-window 1000000"
    )
    assert reply.json["error"]["details"]["param"] == "anthropic-beta"


def test_beta_that_opens_a_larger_window_passes_with_a_call_that_cannot_fill_one(gate: Gate) -> None:
    """Claude Code sends it with every call of a model that has it."""
    path, body = request_of("messages", "[[demo tokens=4]]")
    reply = gate.send(path, body, MILLION_BETA)
    assert reply.status == 200
    assert gate.row().overrun == 0


def test_thinking_that_is_counted_beside_the_bound_is_held(gate: Gate) -> None:
    """Qwen's budget comes on top of `max_tokens`, so it is held on top."""
    held: list[int] = []
    path, body = request_of("chat", "[[demo tokens=4]]")
    for fields in ({"max_tokens": 100}, {"max_tokens": 100, "thinking_budget": 1_000}, {"max_tokens": 1_100}):
        assert gate.send(path, {**body, **fields}).status == 200
        held.append(gate.rows()[-1].held)
    bounded, beside, larger = held
    assert bounded < larger <= beside


# -- what is unknown --------------------------------------------------------------------------------------------------

ANSWERS = {
    Dialect.OPENAI: {"id": "1", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}},
    Dialect.ANTHROPIC: {"id": "1", "content": [], "usage": {"input_tokens": 5, "output_tokens": 1}},
}


@contextmanager
def behind(
    gate: Gate,
    dialect: Dialect,
    upstream: UnknownFields = PASS,
    plan: UnknownFields = PASS,
    *,
    answer: bytes | None = None,
) -> Iterator[tuple[Behind, RawUpstream]]:
    """A model at an upstream of the test's own, with its and its plan's say on unknown fields."""
    whole = http_answer(json.dumps(ANSWERS[dialect]).encode(), "Content-Type: application/json")
    with raw_upstream([answer or whole]) as raw:
        found = gate.behind(raw.url, dialect)
        with gate.workspace.write() as tx:
            facts = catalog.load(tx)
            update_upstream(tx, facts.models[found.model].upstream, unknown_fields=upstream)
            plans.update(tx, found.gate.key.key.plan_id, unknown_fields=plan)
        yield found, raw


def forwarded(raw: RawUpstream) -> tuple[bytes, dict[str, object]]:
    """Return head (in lower case) and body of the only request that came."""
    (request,) = raw.requests
    head, _, body = request.partition(b"\r\n\r\n")
    return head.lower(), json.loads(body)


def test_unknown_fields_and_betas_pass_by_default(gate: Gate) -> None:
    """Each release of a coding tool brings new ones; nothing is said to have been left out."""
    with behind(gate, Dialect.ANTHROPIC) as (model, raw):
        path, body = request_of("messages", "hello", model=model.model, fooBar=1)
        reply = model.gate.send(path, body, {"anthropic-beta": "new-2027-01-01", "anthropic-tomorrow": "1"})
        assert (reply.status, "x-keydesk-left-out" in reply.headers) == (200, False)
        head, sent = forwarded(raw)
        assert sent["fooBar"] == 1
        assert b"anthropic-beta: new-2027-01-01" in head
        assert b"anthropic-tomorrow: 1" in head


@pytest.mark.parametrize(("of_upstream", "of_plan"), [(LEAVE_OUT, PASS), (PASS, LEAVE_OUT), (LEAVE_OUT, LEAVE_OUT)])
def test_unknown_fields_and_betas_are_left_out_and_named(
    gate: Gate, of_upstream: UnknownFields, of_plan: UnknownFields
) -> None:
    """Where upstream or plan say so; what is known goes on."""
    with behind(gate, Dialect.ANTHROPIC, of_upstream, of_plan) as (model, raw):
        path, body = request_of("messages", "hello", model=model.model, fooBar=1, thinking={"type": "disabled", "x": 2})
        betas = "claude-code-20250219, new-2027-01-01"
        reply = model.gate.send(path, body, {"anthropic-beta": betas, "anthropic-tomorrow": "1"})
        assert reply.status == 200
        names = "fooBar, thinking.x, anthropic-beta=new-2027-01-01, anthropic-tomorrow"
        assert reply.headers["x-keydesk-left-out"] == names
        head, sent = forwarded(raw)
        assert "fooBar" not in sent
        assert sent["thinking"] == {"type": "disabled"}
        assert b"anthropic-beta: claude-code-20250219\r\n" in head
        assert b"tomorrow" not in head


def test_left_out_is_named_on_a_refusal_too(gate: Gate) -> None:
    """The caller sees what would not have gone on when the money is missing."""
    with behind(gate, Dialect.OPENAI, LEAVE_OUT) as (model, _):
        model.gate.update(monthly_limit=0)
        reply = model.ask("chat", fooBar=1)
        assert (reply.status, reply.headers["x-keydesk-left-out"]) == (402, "fooBar")


def test_left_out_is_named_on_a_stream_too(gate: Gate) -> None:
    """In its head, and the stream's own options keep what is known."""
    events = b"".join(b"data: " + data + b"\n\n" for data in (json.dumps(ANSWERS[Dialect.OPENAI]).encode(), b"[DONE]"))
    answer = http_answer(events, "Content-Type: text/event-stream")
    with behind(gate, Dialect.OPENAI, LEAVE_OUT, answer=answer) as (model, raw):
        reply = model.ask("chat", stream=True, stream_options={"include_obfuscation": False, "new": 1})
        assert (reply.status, reply.headers["x-keydesk-left-out"]) == (200, "stream_options.new")
        assert forwarded(raw)[1]["stream_options"] == {"include_obfuscation": False, "include_usage": True}


@pytest.mark.parametrize(
    ("of_upstream", "of_plan", "command"),
    [(REFUSE, LEAVE_OUT, "keydesk upstreams update"), (PASS, REFUSE, "keydesk plans update")],
)
def test_unknown_fields_are_refused_by_name(
    gate: Gate, of_upstream: UnknownFields, of_plan: UnknownFields, command: str
) -> None:
    """The stricter wins, and the message says who can change it, with the command; nothing is held."""
    with behind(gate, Dialect.OPENAI, of_upstream, of_plan) as (model, raw):
        reply = model.ask("chat", fooBar=1)
        assert (reply.status, reply.type) == (400, "unsupported_feature")
        assert "'fooBar'" in reply.message
        assert command in reply.message
        assert "platform admin" in reply.message
        assert raw.requests == []
        assert model.gate.totals() == (0, 0)


def test_overrun_of_a_call_with_unknown_fields_has_that_reason(gate: Gate) -> None:
    """What nobody knows may be what broke the bound."""
    usage = {"prompt_tokens": 90_000, "completion_tokens": 1, "total_tokens": 90_001}
    answer = http_answer(
        json.dumps({"id": "1", "choices": [], "usage": usage}).encode(), "Content-Type: application/json"
    )
    with raw_upstream([answer]) as raw:
        model = gate.behind(raw.url)
        assert model.ask("chat", "hello", fooBar=1, max_tokens=5).status == 200
        row = model.gate.row()
        assert row.overrun > 0
        assert row.overrun_reason == "unknown_field"


def test_long_list_of_what_was_left_out_has_an_end(gate: Gate) -> None:
    """A header of at most 1 kB, in ASCII, whatever the names are."""
    with behind(gate, Dialect.OPENAI, LEAVE_OUT) as (model, raw):
        names = {str(number) + "é,\n" * 50: 1 for number in range(500)}
        path, body = request_of("chat", "hello")
        reply = model.gate.send(path, {**body, "model": model.model, **names})
        assert reply.status == 200
        listed = reply.headers["x-keydesk-left-out"]
        assert len(listed) <= 1_000
        assert listed.endswith(", ...")
        assert set(forwarded(raw)[1]) == {"model", "messages", "max_completion_tokens"}


def test_unknown_names_are_counted_once_a_call_and_stored_without_a_write_for_each(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of the call; they are in the store when the gateway has stopped."""
    begun: list[object] = []
    write = Store.write

    def counted(self: Store, *values: Any) -> Any:
        begun.append(self)
        return write(self, *values)

    with world.workspace.write() as tx:
        plans.update(tx, world.plan_id, unknown_fields=REFUSE)
    secret = world.key().secret
    monkeypatch.setattr(Store, "write", counted)
    body = {"model": "gpt-test", "messages": [{"role": "user", "content": "hello"}], "fooBar": 1, "x\ny" * 50: 2}
    assert asyncio.run(called(world, secret, body, times=20)) == [400] * 20
    during = len(begun)
    with world.workspace.store.read(SYSTEM) as tx:
        found = {row.name: (row.upstream, row.times) for row in unknown_fields.seen(tx)}
    assert found == {"fooBar": ("test-openai", 20), ("x?y" * 50)[:64]: ("test-openai", 20)}
    assert during < 10


OFFERED: dict[str, tuple[dict[str, Any], str]] = {
    "chat": ({"type": "web_search"}, "tools[*].web_search"),
    "responses": ({"type": "web_search"}, "tools[*].web_search"),
    "messages": ({"type": "web_search_20250305", "name": "w"}, "tools[*].web_search_20250305"),
    "generate": ({"googleSearch": {}}, "tools[*].googleSearch"),
}


@pytest.mark.parametrize("kind", OFFERED)
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_a_hosted_tool_that_is_merely_offered_does_not_go_on(gate: Gate, kind: str, large: bool) -> None:
    """The call is answered without it, and the answer names it; so too where another process reads the body."""
    tool, name = OFFERED[kind]
    usage = {"input_tokens": 9, "output_tokens": 2, "prompt_tokens": 9, "completion_tokens": 2}
    answer = {"id": "x", "usage": usage, "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 2}}
    with raw_upstream([http_answer(json.dumps(answer).encode(), "Content-Type: application/json")]) as upstream:
        behind = gate.behind(upstream.url, dialect_of(kind))
        reply = behind.ask(kind, "word " * (60_000 if large else 1), tools=[tool])
    assert (reply.status, reply.headers["x-keydesk-left-out"]) == (200, name)
    sent = json.loads(upstream.requests[0].partition(b"\r\n\r\n")[2])
    assert "tools" not in sent
    assert behind.gate.row().cost > 0


@pytest.mark.parametrize("kind", OFFERED)
@pytest.mark.parametrize(
    ("of_plan", "of_key", "who"),
    [("refuse", "leave_out", "keydesk plans update"), ("leave_out", "refuse", "keydesk keys update key_")],
)
def test_hosted_tools_are_refused_where_plan_or_key_say_so(
    gate: Gate, kind: str, of_plan: str, of_key: str, who: str
) -> None:
    """The stricter wins at the next call; the message names the tool and who can have it left out; nothing is held."""
    tool, name = OFFERED[kind]
    behind = gate.behind("http://127.0.0.1:9", dialect_of(kind))
    with gate.workspace.write() as tx:
        plans.update(tx, behind.gate.key.key.plan_id, hosted_tools=HostedTools(of_plan))
    behind.gate.update(hosted_tools=HostedTools(of_key))
    reply = behind.ask(kind, "hello", tools=[tool])
    assert_refused(behind.gate, reply, 400, "unsupported_feature", who)
    assert f"'{name}'" in reply.message
    assert behind.ask(kind, "hello").status == 502


def test_the_name_of_a_hosted_tool_makes_no_refusal_longer() -> None:
    """A type of a thousand signs is cut, as it is in the header."""
    key = KeyFacts("key_1", "org", "plan", 1, KeyStatus.ACTIVE, False, frozenset(), None, HoldPolicy.STRICT, None)
    plan = PlanFacts("plan", "basic", 1, frozenset(), PASS, HostedTools.REFUSE)
    with pytest.raises(Refusal) as caught:
        judge_hosted((f"tools[*].{'x' * 1_000}",), key, plan)
    assert len(caught.value.message) < 500
    assert len(caught.value.param or "") == 64
    judge_hosted(("tools[*].web_search",), key, replace(plan, hosted_tools=HostedTools.LEAVE_OUT))


SEARCHED: dict[str, tuple[dict[str, Any], str]] = {
    "responses": (
        {"input": [{"type": "web_search_call", "id": "ws", "action": {"type": "search", "query": "the news"}}]},
        "input[*].web_search_call",
    ),
    "messages": (
        {
            "messages": [
                {"role": "user", "content": "hello"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "the news"}},
                        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                    ],
                },
                {"role": "user", "content": "and now?"},
            ]
        },
        "messages[*].content[*].server_tool_use, messages[*].content[*].web_search_tool_result",
    ),
    "generate": (
        {"contents": [{"parts": [{"executableCode": {"language": "PYTHON", "code": "print('the news')"}}]}]},
        "contents[*].parts[*].executableCode",
    ),
}


@pytest.mark.parametrize("kind", SEARCHED)
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_a_search_of_an_earlier_answer_goes_on_as_text(gate: Gate, kind: str, large: bool) -> None:
    """A conversation that began at the provider goes on; so too where another process reads the body."""
    fields, name = SEARCHED[kind]
    if large:
        fields = {**fields, "metadata" if kind != "generate" else "labels": {"a": "word " * 120_000}}
    usage = {"input_tokens": 9, "output_tokens": 2}
    answer = {"id": "x", "usage": usage, "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 2}}
    with raw_upstream([http_answer(json.dumps(answer).encode(), "Content-Type: application/json")]) as upstream:
        behind = gate.behind(upstream.url, dialect_of(kind))
        reply = behind.ask(kind, "", **fields)
    assert (reply.status, reply.headers["x-keydesk-left-out"]) == (200, name)
    body = upstream.requests[0].partition(b"\r\n\r\n")[2]
    assert b"the news" in body
    assert not any(sign in body for sign in (b'"type":"web_search_call"', b'"server_tool_use",', b'"executableCode":'))
    assert behind.gate.row().cost > 0


async def called(world: World, secret: str, body: object, times: int) -> list[int]:
    """Call a gateway in this process some times; return the statuses once it has stopped."""
    statuses: list[int] = []
    app = create_app(world.workspace.settings)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async with app.router.lifespan_context(app):
        for _ in range(times):
            path = "/v1/chat/completions"
            scope = {
                "type": "http",
                "method": "POST",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "client": ("127.0.0.1", 1),
                "headers": [(b"authorization", f"Bearer {secret}".encode())],
            }
            await app(scope, receive, send)
    return statuses
