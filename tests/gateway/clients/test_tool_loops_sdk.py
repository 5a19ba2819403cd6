"""Python's tool loops work unchanged: OpenAI's Agents SDK, and the runner of Anthropic's SDK."""

import asyncio
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anthropic
import pytest
from agents import Agent, ModelSettings, OpenAIProvider, RunConfig, Runner, Usage, function_tool
from anthropic.lib.tools import beta_tool
from openai import AsyncOpenAI

from tests.gateway.clients.conftest import TASK, Desk, kinds_of

pytestmark = pytest.mark.world


@pytest.fixture
def folder(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the tools below work."""
    monkeypatch.chdir(desk.folder)
    return desk.folder


def read_file(path: str) -> str:
    """Read a file."""
    return Path(path).read_text()


def edit(path: str, old_string: str, new_string: str) -> str:
    """Replace a text in a file."""
    Path(path).write_text(Path(path).read_text().replace(old_string, new_string))
    return "done"


def bash(command: str) -> str:
    """Run a command."""
    return subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True).stdout


TOOLS = (read_file, edit, bash)


def check(folder: Path, said: str) -> None:
    """The file is edited, and the last answer says what the command printed."""
    assert (folder / "notes.txt").read_text() == "hello world\nsecond line\n"
    assert "hello world\nsecond line" in said


async def run_agent(desk: Desk, *, responses: bool, stream: bool) -> tuple[str, Usage]:
    """Let an agent of OpenAI's SDK do the task; return what it says, and what it says that it used."""
    async with AsyncOpenAI(base_url=f"{desk.gate.url}/v1", api_key=desk.gate.secret) as client:
        provider = OpenAIProvider(openai_client=client, use_responses=responses)
        agent = Agent("Editor", model="demo-gpt", tools=[function_tool(tool) for tool in TOOLS])
        told = ModelSettings(include_usage=True)  # without it, the SDK does not ask a stream of chat for its usage
        config = RunConfig(model_provider=provider, model_settings=told, tracing_disabled=True)
        if not stream:
            done = await Runner.run(agent, TASK, run_config=config)
            return str(done.final_output), done.context_wrapper.usage
        running = Runner.run_streamed(agent, TASK, run_config=config)
        async for _ in running.stream_events():
            pass
        return str(running.final_output), running.context_wrapper.usage


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("responses", [True, False], ids=["responses", "chat"])
def test_the_agents_sdk(desk: Desk, folder: Path, *, responses: bool, stream: bool) -> None:
    """Four calls; the SDK has counted what is charged."""
    said, usage = asyncio.run(run_agent(desk, responses=responses, stream=stream))
    check(folder, said)
    rows = desk.gate.rows()
    assert [(row.status, row.outcome, row.usage_source) for row in rows] == [(200, "completed", "reported")] * 4
    charged = kinds_of(rows)
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == (4, charged.input, charged.output)
    assert usage.input_tokens_details.cached_tokens == charged.cached
    assert usage.output_tokens_details.reasoning_tokens == charged.reasoning


@pytest.mark.parametrize("stream", [False, True])
def test_the_runner_of_anthropics_sdk(desk: Desk, folder: Path, *, stream: bool) -> None:
    """It begins with a thread that the provider would keep, is told that there are none, and sends all itself."""
    with anthropic.Anthropic(base_url=desk.gate.url, api_key=desk.gate.secret) as client:
        runner = client.beta.messages.tool_runner(
            model="claude-opus-5-5",
            max_tokens=4_000,
            messages=[{"role": "user", "content": TASK}],
            tools=[beta_tool(tool) for tool in TOOLS],
            stream=stream,
        )
        given: Iterable[Any] = runner
        turns = [turn.get_final_message() if stream else turn for turn in given]
    check(folder, turns[-1].content[-1].text)
    first, *rows = desk.gate.rows()
    assert (first.status, first.refusal, first.cost) == (400, "unsupported_feature", 0)
    assert [(row.status, row.input_tokens, row.output_tokens) for row in rows] == [
        (200, turn.usage.input_tokens, turn.usage.output_tokens) for turn in turns
    ]
    assert len(rows) == 4
