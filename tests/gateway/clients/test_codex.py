"""What Codex makes of long answers and of broken ones, with its own retries."""

import pytest

from tests.conftest import usd
from tests.gateway.clients.conftest import SHEET, Desk

pytestmark = pytest.mark.world


def test_a_long_answer_is_one_call(desk: Desk) -> None:
    """20,000 tokens end as they should: nothing is cut at a bound, which Codex would take for a fault and ask again."""
    ended = desk.follow("Codex", "Tell me about budgets [[demo tokens=20000]]")
    assert ended.status == 0, ended.output + ended.errors
    [row] = desk.gate.rows()
    assert len(desk.upstream_calls()) == 1
    assert (row.status, row.outcome, row.usage_source) == (200, "completed", "reported")
    assert row.output_tokens - row.reasoning_tokens == 20_000


def test_money_that_runs_out_in_the_middle_ends_the_turn(desk: Desk) -> None:
    """The call that is not covered any more is made once, and Codex shows what is spent and what it needs."""
    desk.gate.update(monthly_limit=usd(1.92))  # a call holds 1.90 USD, for 128,000 tokens of output, and costs 0.04
    ended = desk.follow("Codex")
    rows = desk.gate.rows()
    assert [(row.status, row.refusal) for row in rows] == [(200, None), (402, "api_key_quota_exceeded")]
    assert ended.status == 1
    assert "monthly limit of $1.92 does not allow this call" in ended.events[-1]["error"]["message"]
    assert [call["request_id"] for call in desk.upstream_calls()] == [rows[0].request_id]


def test_the_hosted_search_that_codex_offers_goes_no_further(desk: Desk) -> None:
    """A tool that has no price is left out of the call; those that Codex runs itself stay."""
    desk.follow("Codex with a provider of its own", "Tell me about budgets")
    [call] = desk.upstream_calls()
    kinds = {tool["type"] for tool in call["body"]["tools"]}
    assert "function" in kinds
    assert "web_search" not in kinds


@pytest.mark.parametrize("fault", ["break=5", "truncate=5", "error_event=5"])
def test_a_broken_stream_ends_the_turn_with_our_words(desk: Desk, fault: str) -> None:
    """Codex asks five times more. Each of the six calls costs its input and the words that came, as estimated."""
    ended = desk.follow("Codex", f"Tell me about budgets [[demo {fault}]]")
    rows = desk.gate.rows()
    assert ended.status == 1
    assert ended.events[-1]["type"] == "turn.failed"
    assert "if it lasts, give the operator the request id." in ended.events[-1]["error"]["message"]
    assert len(rows) == len(desk.upstream_calls()) == 6
    for row in rows:
        assert (row.status, row.outcome, row.usage_source) == (200, "upstream_error", "estimated")
        assert row.input_tokens > 10_000  # Codex' own instructions and tools
        assert 0 < row.output_tokens < 20  # five chunks of two tokens, reasoning that nobody saw left out
        assert (
            row.cost == (row.input_tokens * SHEET.tiers[0].input + row.output_tokens * SHEET.tiers[0].output) // 10**6
        )


def test_a_conversation_is_compacted_and_goes_on(desk: Desk) -> None:
    """A full context costs one more call, whose sealed answer stands before the next question; all are charged."""
    assert desk.follow("Codex", "Tell me about budgets [[demo tokens=400]]").status == 0
    options = "--json --skip-git-repo-check -c model_auto_compact_token_limit=200"
    resume = f"codex exec resume --last {options} 'And about wages [[demo tokens=30]]'"
    ended = desk.run("bash", "-euc", f"export CODEX_API_KEY={desk.gate.secret}\n{resume}")
    assert ended.status == 0, ended.output + ended.errors
    last = [[item["type"] for item in call["body"]["input"]][-2:] for call in desk.upstream_calls()]
    assert last == [["message", "message"], ["message", "compaction_trigger"], ["compaction", "message"]]
    rows = desk.gate.rows()
    assert [(row.status, row.outcome, row.usage_source) for row in rows] == [(200, "completed", "reported")] * 3
    assert all(row.cost > 0 for row in rows)
    assert len({row.tags for row in rows}) == 1
    assert "session" in str(rows[0].tags)
