"""Each coding tool finishes a task of several turns by the commands of docs/clients.md, and counts what we charge."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.gateway.clients.conftest import TASK, Desk, Ended, Kinds, kinds_of

pytestmark = pytest.mark.world


def codex(ended: Ended) -> Kinds:
    """What Codex says of its turn."""
    usage = next(event["usage"] for event in ended.events if event["type"] == "turn.completed")
    return Kinds(
        usage["input_tokens"],
        usage["cached_input_tokens"],
        usage["cache_write_input_tokens"],
        usage["output_tokens"],
        usage["reasoning_output_tokens"],
    )


def claude(ended: Ended) -> Kinds:
    """What Claude Code says of its session, by model and in sum."""
    said = json.loads(ended.output)
    usage, models = said["usage"], said["modelUsage"].values()
    read, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
    assert sum(model["cacheReadInputTokens"] for model in models) == read
    assert sum(model["cacheCreationInputTokens"] for model in models) == written
    return Kinds(
        usage["input_tokens"] + read + written,
        read,
        written,
        usage["output_tokens"],
        usage["output_tokens_details"]["thinking_tokens"],
    )


def gemini(ended: Ended) -> Kinds:
    """What Gemini CLI says of all its models."""
    tokens = [model["tokens"] for model in json.loads(ended.output)["stats"]["models"].values()]
    thoughts = sum(one["thoughts"] for one in tokens)
    return Kinds(
        sum(one["prompt"] for one in tokens),
        sum(one["cached"] for one in tokens),
        0,
        sum(one["candidates"] for one in tokens) + thoughts,
        thoughts,
    )


def opencode(ended: Ended) -> Kinds:
    """What opencode says of its steps."""
    tokens = [event["part"]["tokens"] for event in ended.events if event["type"] == "step_finish"]
    read, written = (sum(one["cache"][kind] for one in tokens) for kind in ("read", "write"))
    reasoning = sum(one["reasoning"] for one in tokens)
    return Kinds(
        sum(one["input"] for one in tokens) + read + written,
        read,
        written,
        sum(one["output"] for one in tokens) + reasoning,
        reasoning,
    )


TOOLS = [
    pytest.param("Codex", codex, 0, id="codex"),
    pytest.param("Codex with a provider of its own", codex, 0, id="codex-provider"),
    pytest.param("Claude Code", claude, 0, id="claude-code"),
    pytest.param("Gemini CLI", gemini, 1, id="gemini-cli"),
    pytest.param("opencode", opencode, 1, id="opencode"),
    pytest.param("opencode with Anthropic's models", opencode, 1, id="opencode-anthropic"),
]
"""Section of the page, how to read what the tool says that it used, and its calls beside the task's own."""


@pytest.mark.parametrize(("section", "said", "beside"), TOOLS)
def test_a_task_of_several_turns(desk: Desk, section: str, said: Callable[[Ended], Kinds], beside: int) -> None:
    """The file is edited, the command has run; each call was 200, came upstream once, and costs what the tool says."""
    ended = desk.follow(section, f"{TASK} > seen.txt [[demo reasoning=24]]")
    rows, calls = desk.gate.rows(), desk.upstream_calls()
    assert ended.status == 0, ended.output + ended.errors
    assert (ended.folder / "notes.txt").read_text() == "hello world\nsecond line\n"
    assert (ended.folder / "seen.txt").read_text() == "hello world\nsecond line\n"

    assert [(row.status, row.outcome, row.usage_source, row.usage_doubt) for row in rows] == [
        (200, "completed", "reported", None)
    ] * (4 + beside)
    assert [call["request_id"] for call in calls] == [row.request_id for row in rows]
    # Gemini CLI counts what its router used; opencode leaves out what gave the conversation its title.
    counted = [row for row, call in zip(rows, calls, strict=True) if section == "Gemini CLI" or offers_tools(call)]
    assert said(ended) == kinds_of(counted)
    assert len({(row.input_tokens, row.cached_input_tokens, row.reasoning_tokens) for row in counted}) == len(counted)
    assert kinds_of(counted).cached
    assert kinds_of(counted).reasoning


@pytest.mark.parametrize(
    ("section", "beside"), [pytest.param(tool.values[0], tool.values[2], id=tool.id) for tool in TOOLS]
)
def test_a_refusal_for_money_is_not_asked_again(desk: Desk, section: str, beside: int) -> None:
    """Each call is refused once, without cost, and the person reads why."""
    desk.gate.update(monthly_limit=0)
    ended = desk.follow(section)
    assert ended.status
    assert "monthly limit of $0.00 does not allow this call" in ended.output + ended.errors
    assert [(row.refusal, row.cost) for row in desk.gate.rows()] == [("api_key_quota_exceeded", 0)] * (1 + beside)


def offers_tools(call: dict[str, Any]) -> bool:
    """Whether a request offers the tools of an agent."""
    body = call["body"]
    return bool(body.get("tools")) or any(item.get("type") == "additional_tools" for item in body.get("input", []))
