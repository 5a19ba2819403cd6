"""Doubts: calls that were charged by estimate, not at all, or other than the provider said."""

from typing import Any

import pytest

from tests.account import fixed
from tests.audits import BEGINNING, DAY, NOW, Scene, scene
from tests.conftest import usd
from toolkit.admin import organisations
from toolkit.admin.upstreams import list_upstreams
from toolkit.billing import leases
from toolkit.checks.finding import Severity
from toolkit.core.policy import Outcome, Role
from toolkit.core.service_tier import Served
from toolkit.core.usage import OverrunReason, Usage, UsageSource
from toolkit.statements import corrections
from toolkit.store.actor import Actor

__all__ = ["scene"]  # a fixture

ESTIMATED = UsageSource.ESTIMATED


def let_call(scene: Scene, name: str, calls: int, odd: int, upstream: str = "test-openai", **options: Any) -> None:
    """Let a new key call so often at 1 cent, `odd` times in another way."""
    key = scene.key(name)
    for number in range(calls):
        scene.call(key, NOW - DAY, usd(0.01), upstream=upstream, **(options if number < odd else {}))


def test_many_estimates_are_found_for_the_upstream_alone(scene: Scene) -> None:
    """An upstream that sends no usage explains its keys' estimates; they are not found once more."""
    let_call(scene, "quiet", 20, 20, "test-gemini", source=ESTIMATED)
    let_call(scene, "right", 20, 0)
    (finding,) = scene.found("calls-estimated")
    assert (finding.kind, finding.subject, finding.severity) == ("upstream", "test-gemini", Severity.MEDIUM)
    assert {name: str(value) for name, value in finding.evidence.items()} == {
        "calls": "20",
        "cost_nano": str(usd(0.2)),
        "share_of_calls": "1.0000",
        "share_of_cost": "1.0000",
    }
    assert "The upstream sends no usage" in finding.action


def test_a_key_whose_callers_leave_is_found(scene: Scene) -> None:
    """Two of 40 calls are 5 %; of one upstream with others they are too few. One of 20 is enough, of 19 not judged."""
    let_call(scene, "leaver", 40, 2, source=ESTIMATED, outcome=Outcome.ABORTED)
    let_call(scene, "few", 19, 1, source=ESTIMATED)
    let_call(scene, "many", 100, 2, source=ESTIMATED)
    (finding,) = scene.found("calls-estimated")
    assert (finding.kind, finding.subject, finding.severity) == ("key", "leaver", Severity.LOW)
    assert finding.sentence == (
        "2 calls of the last 30 days (5.0 %) and $0.02 of cost (5.0 %) are estimates; outcome: aborted."
    )
    assert finding.action == (
        "Callers leave before the answer ends: see whether their time limit is too short. "
        "`keydesk requests --key leaver` lists the calls."
    )


def test_abandoned_calls_are_found(scene: Scene) -> None:
    """What was written off when its gateway died, with the money that had been held."""
    let_call(scene, "app", 20, 0)
    let_call(scene, "other", 200, 0, upstream="test-gemini")
    account = scene._account(scene.key("unlucky"))
    account.admit(account.call(received_at=NOW - DAY), fixed(usd(3)))
    assert leases.sweep(scene.workspace.store) == 1
    (finding,) = scene.found("calls-abandoned")
    assert (finding.kind, finding.subject, finding.severity) == ("upstream", "test-openai", Severity.MEDIUM)
    assert {name: str(value) for name, value in finding.evidence.items()} == {
        "calls": "1",
        "held_nano": str(usd(3)),
        "share_of_calls": "0.0476",
        "forwarded": "0",
        "response_ids": "[]",
    }


def test_a_forwarded_call_that_was_written_off_is_found_though_it_is_rare(scene: Scene) -> None:
    """With the id that the provider knows it by: it may be on its invoice."""
    account = scene._account(scene.key("unlucky"))
    call = account.call(received_at=NOW - DAY)
    account.admit(call, fixed(usd(3)))
    with scene.workspace.write() as tx:
        leases.note_progress(tx, {call.request_id: leases.Progress("resp_1", 4_000)})
    assert leases.sweep(scene.workspace.store) == 1
    (finding,) = scene.found("calls-abandoned")
    assert finding.sentence.endswith("1 had certainly been forwarded, among them resp_1.")
    assert (finding.evidence["forwarded"], finding.evidence["response_ids"]) == (1, ["resp_1"])


def test_overruns_are_found(scene: Scene) -> None:
    """Calls that cost more than was held, by how much and with which model; those before the period are not."""
    key = scene.key("app")
    scene.call(key, NOW - DAY, usd(3), hold=usd(2))
    scene.call(key, NOW - DAY, usd(3), hold=usd(3))
    scene.call(key, NOW - 31 * DAY, usd(9), hold=usd(2))
    (finding,) = scene.found("calls-overrun")
    assert (finding.subject, finding.severity) == ("app", Severity.MEDIUM)
    assert finding.evidence == {"calls": 1, "overrun_nano": usd(1), "models": ["gpt-test"], "reasons": []}
    assert "`keydesk requests --overruns --key app`" in finding.action


@pytest.mark.parametrize(
    ("usage", "reason", "words"),
    [
        (Usage(150_000), "context_window", "`keydesk models update gpt-test --context-window 150000`"),
        (Usage(10, output_tokens=8_000), "output_bound", "`keydesk models update gpt-test --default-output 8000`"),
        (Usage(10, output_tokens=20_000), "output_bound", "`keydesk models update gpt-test --default-output 8192`"),
        (Usage(90_000), "context_window", "`keydesk models list`"),
        (Usage(10, output_tokens=100), "output_bound", "`keydesk models list`"),
        (Usage(10), "unknown_field", "fields that Keydesk does not know"),
    ],
)
def test_an_overrun_proposes_the_right_limit(scene: Scene, usage: Usage, reason: str, words: str) -> None:
    """The model's window, or the bound that is held by default, to what was seen; another key's own limits stay."""
    scene.ending(scene.key("app"), usage, overrun_reason=OverrunReason(reason))
    (finding,) = scene.found("calls-overrun")
    assert words in finding.action
    assert finding.evidence["reasons"] == [reason]


def test_doubtful_calls_are_found_until_they_are_corrected(scene: Scene) -> None:
    """With their sum, the charge that the provider's counts would make, and the command that books it."""
    key = scene.key("app")
    said = '{"prompt_tokens":1000000,"completion_tokens":7}'
    cut = scene.ending(
        key, Usage(300, output_tokens=7), usage_doubt="1,000,000 input tokens, more than", provider_usage=said
    )
    scene.ending(key, Usage(300), usage_doubt="prompt_tokens is negative", provider_usage='{"prompt_tokens":-5}')
    (finding,) = scene.found("calls-doubtful")
    assert (finding.subject, finding.severity) == ("gpt-test", Severity.MEDIUM)
    assert "2 calls of the last 30 days" in finding.sentence
    assert "input tokens, more than" in finding.sentence
    assert "prompt_tokens is negative" in finding.sentence
    # (1,000,000 × 2,000 + 7 × 10,000) × 1.25 nano-USD
    assert f"`keydesk requests correct {cut} --charge 2.5000875 --reason 'as the provider reported'`" in finding.action
    assert finding.evidence["reported_nano"] == 2_500_087_500
    assert finding.evidence["cost_nano"] == (300 * 2_000 + 7 * 10_000 + 300 * 2_000) * 5 // 4
    corrections.correct(scene.workspace, cut, 0, "a gift", confirm=cut)
    (finding,) = scene.found("calls-doubtful")
    assert "1 call of" in finding.sentence
    assert "requests correct" not in finding.action


def test_calls_that_another_tier_or_region_served_are_found(scene: Scene) -> None:
    """With how many, and what to do; what the priced tier served, or cost nothing, is not."""
    key = scene.key("app")
    for served in (Served("priority"), Served("priority", "us"), Served("default", "global"), Served()):
        scene.ending(key, Usage(1_000), served=served)
    scene.ending(key, Usage(), served=Served("flex"))
    (finding,) = scene.found("calls-other-tier")
    assert (finding.kind, finding.subject, finding.severity) == ("model", "gpt-test", Severity.MEDIUM)
    assert "2 calls of the last 30 days, $0.005000, were charged at the standard price" in finding.sentence
    assert "priority (2) and us (1)" in finding.sentence
    assert "`keydesk upstreams update test-openai --pin-tier`" in finding.action
    assert "default region" in finding.action
    assert finding.evidence == {"calls": 2, "cost_nano": 5_000_000, "served": {"priority": 2, "us": 1}}


@pytest.mark.parametrize("check", ["calls-estimated", "calls-abandoned"])
def test_an_organisation_does_not_see_upstreams(scene: Scene, check: str) -> None:
    """Upstreams are the platform's: its own key is found instead."""
    let_call(scene, "quiet", 20, 20, source=ESTIMATED, outcome=Outcome.ABANDONED)
    with scene.acting(BEGINNING) as tx:
        assert list_upstreams(tx)
        organisations.add(tx, "Other")
    for org_id, kind in ((None, "upstream"), (scene.world.org_id, "key")):
        ledger = scene.workspace.acting_as(Actor("ann", Role.ANALYST, org_id)).ledger
        assert [finding.kind for finding in scene.report(ledger).findings if finding.check == check] == [kind]
