"""How often each client asks again after each of our answers, with its own defaults; docs/clients.md has the table.

A refusal for want of money must never be asked again: it costs a call each time, and can only be refused anew.
"""

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import anthropic
import openai
import pytest
from google import genai

from tests.conftest import ROOT, Running, free_port, gateway_process
from tests.gateway.clients.conftest import INSTALLED, Desk, node_folder
from tests.gateway.clients.relay import relay
from tests.gateway.conftest import Gate, make_gate
from toolkit.admin import keys

pytestmark = pytest.mark.world

SCRIPT = Path(__file__).with_name("ask_once.mjs")

ANSWERS = {
    "401": "",
    "402 limit": "",
    "402 wallet": "",
    "403": "",
    "429": "[[demo status=429]]",
    "502 account": "[[demo status=401]]",
    "502 failed": "[[demo status=500]]",
    "503": "[[demo status=503]]",
    "529": "[[demo status=529]]",
    "504": "[[demo delay=20]]",
    "broken stream": "[[demo tokens=40 break=3]]",
}
"""Our answers, as the table's columns name them, with what the demo upstream is told to do for them."""

BUSY = ("429", "502 failed", "503", "529")
"""Answers after which a call may be made again. Coding tools do so for minutes, which is not measured here."""

FIRST_BYTE = "2"
"""Seconds that the gateway waits for a first byte here."""

Ask = Callable[[str, str, str, bool], None]
"""Ask the gateway at an address with a secret for something, as a stream or not."""


def openai_chat(url: str, secret: str, text: str, stream: bool) -> None:
    """OpenAI's SDK, chat completions."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key=secret) as client:
        asked = client.chat.completions.create(
            model="gpt-test", messages=[{"role": "user", "content": text}], stream=stream
        )
        read(asked)


def openai_responses(url: str, secret: str, text: str, stream: bool) -> None:
    """OpenAI's SDK, Responses."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key=secret) as client:
        read(client.responses.create(model="gpt-test", input=text, stream=stream))


def anthropic_messages(url: str, secret: str, text: str, stream: bool) -> None:
    """Anthropic's SDK."""
    with anthropic.Anthropic(base_url=url, api_key=secret) as client:
        read(
            client.messages.create(
                model="claude-test", max_tokens=100, messages=[{"role": "user", "content": text}], stream=stream
            )
        )


def google_genai(url: str, secret: str, text: str, stream: bool) -> None:
    """Google's SDK."""
    with genai.Client(api_key=secret, http_options=genai.types.HttpOptions(base_url=url)) as client:
        if stream:
            read(client.models.generate_content_stream(model="gemini-test", contents=text))
        else:
            client.models.generate_content(model="gemini-test", contents=text)


def openai_agents(url: str, secret: str, text: str, stream: bool) -> None:
    """The Agents SDK of OpenAI, which streams or not."""
    import asyncio

    from agents import Agent, OpenAIResponsesModel, Runner, set_tracing_disabled

    set_tracing_disabled(True)

    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=secret) as client:
            agent = Agent(name="books", model=OpenAIResponsesModel(model="gpt-test", openai_client=client))
            if stream:
                async for _ in Runner.run_streamed(agent, text).stream_events():
                    pass
            else:
                await Runner.run(agent, text)

    asyncio.run(run())


def javascript(sdk: str) -> Ask:
    """Return what asks with a JavaScript SDK."""

    def ask(url: str, secret: str, text: str, stream: bool) -> None:
        subprocess.run(
            [f"{node_folder()}/node", "--input-type=module", "-", sdk, url, secret, text, *["stream"] * stream],
            check=False,
            input=SCRIPT.read_text(),
            text=True,
            capture_output=True,
            cwd=INSTALLED.parent,
            timeout=280,
        )

    return ask


def read(answer: object) -> None:
    """Read a stream to its end."""
    if isinstance(answer, Iterator):
        for _ in answer:
            pass


CLIENTS: dict[str, Ask] = {
    "openai (Python), chat": openai_chat,
    "openai (Python), Responses": openai_responses,
    "anthropic (Python)": anthropic_messages,
    "google-genai (Python)": google_genai,
    "openai-agents (Python)": openai_agents,
    "openai (JavaScript)": javascript("openai"),
    "@anthropic-ai/sdk": javascript("@anthropic-ai/sdk"),
    "@google/genai": javascript("@google/genai"),
    "ai": javascript("ai"),
}

TOOLS = ["Codex", "Claude Code", "Gemini CLI", "opencode"]


@pytest.fixture(scope="module")
def impatient(gateways: Callable[..., Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway on the shared store that waits two seconds for a first byte."""
    shared = gateways("sqlite", workers=1)
    settings = replace(shared.world.workspace.settings, gateway_port=free_port())
    log: Path = tmp_path_factory.mktemp("impatient") / "gateway.log"
    with gateway_process(settings, log, {"KEYDESK_FIRST_BYTE_TIMEOUT": FIRST_BYTE}) as server:
        yield replace(shared, url=f"http://127.0.0.1:{settings.gateway_port}", log=log, process=server)


def key_for(answer: str, running: Running, another: str) -> Gate:
    """Return a key that meets an answer; `another` is a model that the client does not call."""
    gate = make_gate(running, **({"money": 0} if answer == "402 wallet" else {}))
    if answer == "401":
        with gate.workspace.write() as tx:
            keys.disable(tx, gate.key_id, confirm=gate.key.key.name)
    elif answer == "402 limit":
        gate.update(monthly_limit=0)
    elif answer == "403":
        gate.update(models=[another])
    return gate


def calls_of(ask: Ask, answer: str, running: Running) -> int:
    """Return how many calls a client makes that meets an answer each time."""
    gate = key_for(answer, running, "embed-test")
    with relay(running.url) as counted:
        with contextlib.suppress(Exception):
            ask(counted.url, gate.secret, f"Budgets? {ANSWERS[answer]}", answer == "broken stream")
        return len(counted.calls)


def calls_of_tool(tool: str, answer: str, running: Running, folder: Path) -> int:
    """Return how many calls a coding tool makes for a task, by the page's commands, that meets an answer each time."""
    gate = key_for(answer, running, "gpt-6.2-sol" if tool == "Claude Code" else "claude-opus-5-5")
    home, work = folder / f"{answer} home", folder / f"{answer} work"
    home.mkdir()
    work.mkdir()
    with relay(running.url) as counted:
        desk = Desk(replace(gate, running=replace(running, url=counted.url)), home, work)
        desk.follow(tool, f"Tell me about budgets {ANSWERS[answer]}")
        return len(counted.calls)


def documented(first: str) -> dict[str, dict[str, int]]:
    """Return a table of the page: calls by answer, of each client.

    Args:
        first: the heading of its first column.
    """
    page = (ROOT / "docs/clients.md").read_text().partition("\n## Retries\n")[2]
    header, rows = re.findall(rf"^\| {first} (\|.*)\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)[0]
    answers = [name.strip() for name in header.strip("|").split("|")]
    table = {}
    for row in rows.splitlines():
        name, *counts = (cell.strip() for cell in row.strip("|").split("|"))
        table[name] = dict(zip(answers, map(int, counts), strict=True))
    return table


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_asks_as_often_as_the_page_says(impatient: Running, client: str) -> None:
    """Measured with the client's own defaults."""
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda answer: calls_of(CLIENTS[client], answer, impatient), ANSWERS))
    assert dict(zip(ANSWERS, found, strict=True)) == documented("client")[client]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_coding_tool_asks_as_often_as_the_page_says(
    agents_gateway: Running, impatient: Running, tool: str, tmp_path: Path
) -> None:
    """Measured by the page's own commands, for what no other try can help, and a stream that breaks off."""
    running = replace(agents_gateway, url=impatient.url)
    final = [answer for answer in ANSWERS if answer not in BUSY]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda answer: calls_of_tool(tool, answer, running, tmp_path), final))
    assert dict(zip(final, found, strict=True)) == documented("tool")[tool]


def test_no_refusal_for_want_of_money_is_asked_again() -> None:
    """Nor one of a wrong key, or of a model that it may not call: at most a call for each model that a tool uses."""
    for first, most in (("client", 1), ("tool", 2)):
        for name, counts in documented(first).items():
            refused = {counts[answer] for answer in ("401", "402 limit", "402 wallet", "403")}
            assert len(refused) == 1, name
            assert max(refused) <= most, name
