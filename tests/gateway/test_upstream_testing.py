"""A running gateway tests an upstream for an operator: what works, what it would cost, and what is to be set."""

import json
from typing import Any

import pytest
from sqlalchemy import func, select

from tests.conftest import ADMIN, CREDENTIAL, invoke
from tests.gateway.conftest import Gate, http_answer, raw_upstream
from tests.gateway.picky import openai, picky, refusing
from toolkit.admin import upstream_tests
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Forbidden
from toolkit.core.policy import Role
from toolkit.store.actor import Actor
from toolkit.store.tables import AuditRow, OutboxRow, Upstream

KIND = {Dialect.OPENAI: "chat", Dialect.ANTHROPIC: "messages", Dialect.GEMINI: "generate"}


def tried(
    gate: Gate, url: str, dialect: Dialect = Dialect.OPENAI, *options: str, **behind: Any
) -> tuple[int, str, Any]:
    """Test an upstream at this address; return the exit code, the words, and what JSON has."""
    model = gate.behind(url, dialect, upstream_model=behind.pop("upstream_model", "gpt-5"), **behind).model
    name = model.replace("model", "upstream")
    settings = gate.workspace.settings
    told = invoke(settings, "upstreams", "test", name, *options)
    return told.exit_code, told.output, json.loads(invoke(settings, "upstreams", "test", name, "--json").output)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_what_works_is_said_with_its_usage_and_its_price(gate: Gate, dialect: Dialect) -> None:
    """In each form that the dialect has; nobody is charged, and the audit log says who asked."""
    with picky(refusing(), KIND[dialect]) as upstream:
        with gate.workspace.read() as tx:
            before = tx.session.scalar(select(func.count()).select_from(OutboxRow))
        code, words, facts = tried(gate, upstream.url, dialect)
        assert code == 0, words
        calls = facts["calls"]
        assert len(calls) == (4 if dialect is Dialect.OPENAI else 2)
        assert all(call["works"] and call["usage"]["input"] == 10 and call["usage"]["output"] == 2 for call in calls)
        assert all(float(call["cost"]) > 0 for call in calls)
        assert "works; 10 input and 2 output tokens; $0.0000" in words
        assert "-listed" in words
        assert "To do" not in words
        assert facts["to_do"] == []
        with gate.workspace.read() as tx:
            assert tx.session.scalar(select(func.count()).select_from(OutboxRow)) == before
            assert tx.session.scalars(select(AuditRow.action).order_by(AuditRow.seq.desc())).first() == "upstream.test"


@pytest.mark.parametrize(
    ("field", "option"),
    [
        ("stream_options", "--no-add-stream-options"),
        ("max_completion_tokens", "--output-bound max_tokens"),
        ("store", "--no-add-store"),
    ],
)
def test_a_planted_quirk_is_found_with_the_command_that_sets_it(gate: Gate, field: str, option: str) -> None:
    """And after the command nothing is left to do."""
    with picky(refusing(field)) as upstream:
        code, words, facts = tried(gate, upstream.url)
        assert code == 0, words
        (step,) = facts["to_do"]
        assert f"It refuses {field}: keydesk upstreams update {facts['upstream']} {option}." in step
        assert f"without {field}, which it refuses" in words
        settings = gate.workspace.settings
        assert invoke(settings, "upstreams", "update", facts["upstream"], *option.split()).exit_code == 0
        again = json.loads(invoke(settings, "upstreams", "test", facts["upstream"], "--json").output)
        assert again["to_do"] == []


def test_an_endpoint_that_is_not_there_is_no_failure(gate: Gate) -> None:
    """Few compatible servers have all of OpenAI's."""
    with raw_upstream(
        [http_answer(b'{"detail":"Not Found"}', "Content-Type: application/json", status="404 X")]
    ) as all_of:
        code, words, facts = tried(gate, all_of.url)
        assert code == 1  # nothing is there
        assert all(call["absent"] for call in facts["calls"])
        assert "models: not listed; 404" in words
        assert "chat/completions, whole: not there" in words


def test_an_account_that_is_not_served_is_said_once(gate: Gate) -> None:
    """With the cure, and without our credential."""
    error = openai(f"Incorrect API key provided: {CREDENTIAL}", code="invalid_api_key")
    with picky(lambda _: error) as upstream:
        upstream.status = upstream.listing_status = 401
        code, words, facts = tried(gate, upstream.url)
        assert (code, facts["fault"]) == (1, "credential")
        assert len(facts["calls"]) == 2  # the other form is not even tried
        assert "Make a new key at the provider" in facts["to_do"][0]
        assert CREDENTIAL not in words


def test_a_model_that_the_catalog_has_not_is_called_without_a_price(gate: Gate) -> None:
    """And the command that adds it is named."""
    with picky(refusing()) as upstream:
        code, words, _ = tried(gate, upstream.url, Dialect.OPENAI, "--model", "gpt-listed")
        assert code == 0
        assert upstream.bodies[0]["model"] == "gpt-listed"
        assert "it has no price here" in words
        assert "keydesk models add gpt-listed --upstream" in words


def test_a_missing_credential_is_said(gate: Gate) -> None:
    """By its name; the provider is not asked."""
    code, words, _ = tried_without_facts(gate, credential_env="TEST_MISSING_API_KEY")
    assert code != 0
    assert "the credential TEST_MISSING_API_KEY" in words


def tried_without_facts(gate: Gate, **behind: Any) -> tuple[int, str, None]:
    """Test an upstream that cannot be asked."""
    name = gate.behind("http://127.0.0.1:9", **behind).model.replace("model", "upstream")
    told = invoke(gate.workspace.settings, "upstreams", "test", name)
    return told.exit_code, told.output, None


def test_only_a_platform_admin_may(gate: Gate) -> None:
    """It spends the platform's money."""
    with gate.workspace.read() as tx:
        name = tx.session.scalars(select(Upstream.name)).first()
    assert name is not None
    for role, org in ((Role.ORG_ADMIN, gate.org_id), (Role.ANALYST, None)):
        with gate.workspace.acting_as(Actor("ann@example.com", role, org)).write() as tx, pytest.raises(Forbidden):
            upstream_tests.ask(tx, name)
    assert ADMIN.role is Role.PLATFORM_ADMIN
