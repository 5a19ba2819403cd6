"""A running gateway tests an upstream for an operator: what works, what it would cost, and what is to be set."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import func, select

from tests.conftest import ADMIN, CREDENTIAL, Running, gateway_process, invoke, wait_until
from tests.demo.conftest import running as running_demo
from tests.gateway.conftest import Gate, http_answer, raw_upstream
from tests.gateway.picky import Body, openai, picky, refusing
from toolkit.admin import upstream_tests
from toolkit.admin.upstreams import update_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Forbidden
from toolkit.core.policy import Role
from toolkit.core.upstream_test import Found
from toolkit.demo.disguise import Disguise
from toolkit.gateway.upstream_probe import LARGEST_LIST
from toolkit.providers.presets import PRESETS
from toolkit.store.actor import Actor
from toolkit.store.tables import AuditRow, Model, OutboxRow, Upstream, UpstreamTest

AT = {Dialect.OPENAI: "/openai/v1", Dialect.ANTHROPIC: "/anthropic", Dialect.GEMINI: "/gemini"}
"""Where the demo upstream has each dialect."""

KIND = {Dialect.OPENAI: "chat", Dialect.ANTHROPIC: "messages", Dialect.GEMINI: "generate"}


def tried(
    gate: Gate, url: str, dialect: Dialect = Dialect.OPENAI, *options: str, preset: str | None = None
) -> tuple[int, Any]:
    """Test an upstream at this address; return the exit code, and what was found."""
    name = gate.behind(url, dialect, upstream_model="gpt-5", preset=preset).model.replace("model", "upstream")
    told = invoke(gate.workspace.settings, "upstreams", "test", name, "--json", *options)
    return told.exit_code, json.loads(told.stdout)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_what_works_is_found_with_its_usage_and_its_price(gate: Gate, dialect: Dialect) -> None:
    """In each form that the dialect has; nobody is charged, and the audit log says who asked."""
    with picky(refusing(), KIND[dialect]) as upstream:
        with gate.workspace.read() as tx:
            before = tx.session.scalar(select(func.count()).select_from(OutboxRow))
        code, facts = tried(gate, upstream.url, dialect)
        assert code == 0, facts
        calls = facts["calls"]
        assert len(calls) == (4 if dialect is Dialect.OPENAI else 2)
        assert all(call["works"] and call["usage"] == {"input": 10, "output": 2} for call in calls)
        assert all(float(call["cost"]) > 0 for call in calls)
        assert facts["lacking"][0].endswith("-listed")
        assert facts["to_do"] == []
        with gate.workspace.read() as tx:
            assert tx.session.scalar(select(func.count()).select_from(OutboxRow)) == before
            assert tx.session.scalars(select(AuditRow.action).order_by(AuditRow.seq.desc())).first() == "upstream.test"


def test_a_planted_quirk_is_found_with_the_command_that_sets_it(gate: Gate) -> None:
    """And after the command nothing is left to do."""
    with picky(refusing("max_completion_tokens", "store")) as upstream:
        code, facts = tried(gate, upstream.url)
        assert code == 0, facts
        assert [call["left_out"] for call in facts["calls"]] == 2 * [["max_completion_tokens"]] + 2 * [["store"]]
        name, settings = facts["upstream"], gate.workspace.settings
        assert f"keydesk upstreams update {name} --output-bound max_tokens`." in facts["to_do"][0]
        assert f"keydesk upstreams update {name} --no-add-store`." in facts["to_do"][1]
        set_now = invoke(settings, "upstreams", "update", name, "--output-bound", "max_tokens", "--no-add-store")
        assert set_now.exit_code == 0
        assert json.loads(invoke(settings, "upstreams", "test", name, "--json").stdout)["to_do"] == []


def test_an_endpoint_that_is_not_there_is_told_apart(gate: Gate) -> None:
    """Few compatible servers have all of OpenAI's; one that has none is at another address."""
    answer = http_answer(b'{"detail":"Not Found"}', "Content-Type: application/json", status="404 X")
    with raw_upstream([answer]) as nothing:
        code, facts = tried(gate, nothing.url)
        assert code == 1
        assert all(call["absent"] for call in facts["calls"])
        assert (facts["models"], facts["listing_said"]) == (None, "404: Not Found")


def test_an_account_that_is_not_served_is_said_once(gate: Gate) -> None:
    """With the cure, and without our credential."""
    error = openai(f"Incorrect API key provided: {CREDENTIAL}", code="invalid_api_key")
    with picky(lambda _: error) as upstream:
        upstream.status = upstream.listing_status = 401
        code, facts = tried(gate, upstream.url)
        assert (code, facts["fault"]) == (1, "credential")
        assert len(facts["calls"]) == 2  # the other form is not even tried
        assert "Make a new key at the provider" in facts["to_do"][0]
        assert CREDENTIAL not in json.dumps(facts)


def test_listed_models_are_added_with_public_prices(gate: Gate) -> None:
    """Those that have one; a model that the catalog has not is called without a price."""
    with picky(refusing()) as upstream:
        code, facts = tried(gate, upstream.url, Dialect.OPENAI, "--model", "gpt-listed", "--add-models")
        assert code == 0
        assert upstream.bodies[0]["model"] == "gpt-listed"
        assert [call["cost"] for call in facts["calls"]] == [None] * 4
        assert (facts["lacking"], facts["added"]) == (["gpt-listed", "gpt-4o-mini"], ["gpt-4o-mini"])
        with gate.workspace.read() as tx:
            assert tx.session.get_one(Model, "gpt-4o-mini").upstream == facts["upstream"]


def test_a_list_of_a_hostile_provider_tells_no_secret(gate: Gate) -> None:
    """Nor does it turn a terminal's text around; a name counts once."""
    with picky(refusing()) as upstream:
        names = ["gpt-5", "gpt-5", f"x-{CREDENTIAL}", "red\x1b[31m", "left\u202eright", 7, "y" * 1_000, "gpt-6"]
        upstream.listing = [{"id": name} for name in names]  # bare, as Together's is
        code, facts = tried(gate, upstream.url)
        assert (code, facts["models"], facts["lacking"]) == (0, ["gpt-5", "gpt-6"], ["gpt-6"])


def test_a_bound_that_is_ignored_is_found(gate: Gate) -> None:
    """A strict hold would bound nothing; the other name of a chat's bound may be the one that counts."""
    with picky(refusing()) as upstream:
        upstream.output_tokens = 400
        code, facts = tried(gate, upstream.url)
        assert code == 0
        assert all(call["beyond_bound"] for call in facts["calls"])
        (step,) = facts["to_do"]
        assert step.startswith("It ignores the bound on output of chat/completions and responses")
        assert f"keydesk upstreams update {facts['upstream']} --output-bound max_tokens" in step


def test_an_answer_without_end_is_not_read_to_its_end(gate: Gate) -> None:
    """The gateway serves callers meanwhile."""
    with picky(refusing()) as upstream:
        upstream.padding = LARGEST_LIST + 1
        code, facts = tried(gate, upstream.url)
        assert (code, facts["models"]) == (1, None)
        assert facts["listing_said"] == "200: its list is longer than 4,194,304 bytes"
        assert all(call["said"] == "200: its answer is longer than 524,288 bytes" for call in facts["calls"])


@pytest.mark.world
@pytest.mark.parametrize("preset", ["deepseek", "groq", "mistral", "azure-openai", "anthropic", "google"])
def test_a_provider_that_is_as_its_preset_says_needs_nothing(gate: Gate, preset: str) -> None:
    """The demo upstream in its disguise: it works in what the preset claims, and tells its usage."""
    row = PRESETS[preset]
    with running_demo(0, Disguise(row)) as demo:
        code, facts = tried(gate, demo + AT[row.dialect], row.dialect, preset=preset)
        assert (code, facts["to_do"]) == (0, [])
        assert facts["models"]
        works = {call["form"] for call in facts["calls"] if call["works"]}
        assert works == {name for name in row.endpoints if name in works | {"responses"}}
        assert all(call["usage"] for call in facts["calls"] if call["works"])


@pytest.mark.world
@pytest.mark.parametrize(
    ("preset", "field", "words"),
    [
        ("groq", "max_completion_tokens", "--output-bound max_tokens"),
        ("together", "stream_options", "--no-add-stream-options"),
        ("xai", "store", "--no-add-store"),
    ],
)
def test_a_provider_that_differs_from_its_preset_is_said_to(gate: Gate, preset: str, field: str, words: str) -> None:
    """By the command that sets it."""
    with running_demo(0, Disguise(PRESETS[preset], frozenset({field}))) as demo:
        code, facts = tried(gate, demo + AT[Dialect.OPENAI], preset=preset)
        assert code == 0, facts
        (step,) = facts["to_do"]
        assert f"It refuses {field}: `keydesk upstreams update {facts['upstream']} {words}`." in step


@pytest.mark.world
def test_an_endpoint_that_a_preset_claims_and_that_is_not_there_is_said_to_be_missing(gate: Gate) -> None:
    """DeepSeek in the place of OpenAI."""
    with running_demo(0, Disguise(PRESETS["deepseek"])) as demo:
        code, facts = tried(gate, demo + AT[Dialect.OPENAI], preset="openai")
        assert code == 1
        assert "See why 2 calls failed that should work" in facts["to_do"][-1]


@pytest.mark.world
def test_a_gateway_that_is_killed_leaves_its_test_to_the_next(running: Running) -> None:
    """Whoever waits is told; the next gateway takes it, and answers."""
    workspace, asked = running.world.workspace, threading.Event()
    with picky(refusing()) as upstream, ThreadPoolExecutor(1) as pool:
        with workspace.write() as tx:
            update_upstream(tx, "test-openai", base_url=upstream.url)

        def hang(_: Body) -> None:
            asked.set()
            running.process.wait(60)

        upstream.refuse = hang
        waiting = pool.submit(invoke, workspace.settings, "upstreams", "test", "test-openai")
        assert asked.wait(60)
        running.process.kill()
        told = waiting.result(120)
        assert told.exit_code == 1
        assert "The gateway has ended before the test had" in told.output
        upstream.refuse = lambda _: None
        with gateway_process(workspace.settings, running.log.with_name("second.log")):

            def ended() -> UpstreamTest | None:
                with workspace.read() as tx:
                    return tx.session.scalars(select(UpstreamTest).where(UpstreamTest.ended_at.is_not(None))).first()

            wait_until(ended, "the end of the test")
            test = ended()
        assert test is not None
        assert (test.tries, test.failure) == (2, None)
        assert all(call.works for call in Found.from_json(test.found or "").calls)


def test_a_missing_credential_is_said(gate: Gate) -> None:
    """By its name; the provider is not asked."""
    behind = gate.behind("http://127.0.0.1:9", credential_env="TEST_MISSING_API_KEY")
    told = invoke(gate.workspace.settings, "upstreams", "test", behind.model.replace("model", "upstream"))
    assert told.exit_code != 0
    assert "the credential TEST_MISSING_API_KEY" in told.output


def test_only_a_platform_admin_may(gate: Gate) -> None:
    """It spends the platform's money."""
    with gate.workspace.read() as tx:
        name = tx.session.scalars(select(Upstream.name)).first()
    assert name is not None
    for role, org in ((Role.ORG_ADMIN, gate.org_id), (Role.ANALYST, None)):
        with gate.workspace.acting_as(Actor("ann@example.com", role, org)).write() as tx, pytest.raises(Forbidden):
            upstream_tests.ask(tx, name)
    assert ADMIN.role is Role.PLATFORM_ADMIN
