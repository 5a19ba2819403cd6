"""The JavaScript SDKs' tool loops work unchanged, whole and streamed, and count what we charge."""

import json
from pathlib import Path

import pytest

from tests.gateway.clients.conftest import INSTALLED, TASK, Desk

pytestmark = pytest.mark.world

SCRIPT = Path(__file__).with_name("tool_loops.mjs")
LOOPS = [
    *("openai-chat", "openai-responses", "anthropic", "genai"),
    *("ai-openai", "ai-reasoning", "ai-compatible", "ai-anthropic", "ai-google"),
]
TELLS_OF_THE_LAST = {"genai"}
"""Google's SDK gives the usage of a loop's last call alone."""


@pytest.mark.parametrize("way", ["whole", "stream"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_tool_loop(desk: Desk, loop: str, way: str) -> None:
    """Four turns: the file is read and edited, the command has run, and each call costs what the SDK was told."""
    arguments = [f"{loop}/{way}", desk.gate.url, desk.gate.secret, str(desk.folder), f"{TASK} > seen.txt"]
    # Read from standard input, so that its imports are found from where the packages are.
    command = ["node", "--input-type=module", "-", *arguments]
    ended = desk.run(*command, folder=INSTALLED.parent, typed=SCRIPT.read_text())
    assert ended.status == 0, ended.errors
    assert (desk.folder / "notes.txt").read_text() == "hello world\nsecond line\n"
    assert (desk.folder / "seen.txt").read_text() == "hello world\nsecond line\n"

    said = json.loads(ended.output)
    assert "notes.txt now has world instead of wrld" in said["text"]
    rows = desk.gate.rows()
    if loop == "anthropic":
        # It begins with a thread that the provider would keep, is told that there are none here, and sends all itself.
        first = rows.pop(0)
        assert (first.status, first.refusal, first.cost) == (400, "unsupported_feature", 0)
    assert [(row.status, row.outcome, row.stream) for row in rows] == [(200, "completed", way == "stream")] * 4
    assert [call["request_id"] for call in desk.upstream_calls()] == [row.request_id for row in rows]
    charged = [
        {
            "input": row.input_tokens,
            "cached": row.cached_input_tokens,
            "output": row.output_tokens,
            "reasoning": row.reasoning_tokens,
        }
        for row in rows
    ]
    assert said["used"] == (charged[-1:] if loop in TELLS_OF_THE_LAST else charged)
