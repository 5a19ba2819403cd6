"""The official SDKs and curl work through the gateway, changed only in base URL and key."""

import json
import shutil
import subprocess
from typing import Any

import pytest
from google.genai import types

from tests.gateway.conftest import Gate, request_of

pytestmark = pytest.mark.world

WEATHER: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}


def test_openai_chat(gate: Gate) -> None:
    """A chat answer has text, and its id and usage are those of the request-log row."""
    with gate.openai() as client:
        answer = client.chat.completions.create(
            model="gpt-test", messages=[{"role": "user", "content": "Tell me about budgets"}]
        )
    row = gate.row()
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert (row.response_id, row.input_tokens, row.output_tokens) == (
        answer.id,
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )


def test_openai_chat_stream(gate: Gate) -> None:
    """A chat stream has the same text as the plain answer to the same prompt."""
    with gate.openai() as client:
        plain = client.chat.completions.create(model="gpt-test", messages=[{"role": "user", "content": "Budgets?"}])
        with client.chat.completions.create(
            model="gpt-test", messages=[{"role": "user", "content": "Budgets?"}], stream=True
        ) as stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text
    assert text == plain.choices[0].message.content


def test_openai_responses(gate: Gate) -> None:
    """Responses answers, plain and as a stream with its final event."""
    with gate.openai() as client:
        plain = client.responses.create(model="gpt-test", input="Tell me about budgets")
        with client.responses.stream(model="gpt-test", input="Tell me about budgets") as stream:
            for _ in stream:
                pass
            final = stream.get_final_response()
    assert plain.output_text
    assert final.output_text == plain.output_text
    assert [row.endpoint for row in gate.rows()] == ["responses", "responses"]


def test_openai_compaction(gate: Gate) -> None:
    """A conversation is compacted, by the call for it or in a stream, and goes on with what is left of it."""
    with gate.openai() as client:
        raw = client.responses.with_raw_response.compact(model="gpt-test", input="Tell me about budgets")
        compacted, output = raw.parse(), raw.http_response.json()["output"]
        again = [*output, {"role": "user", "content": "And wages?"}, {"type": "compaction_trigger"}]
        with client.responses.stream(model="gpt-test", input=again) as stream:
            final = stream.until_done().get_final_response()
    assert compacted.usage.output_tokens == gate.rows()[0].output_tokens
    assert [item.type for item in compacted.output] == ["message", "compaction"]
    assert [item.type for item in final.output] == ["compaction"]
    assert [row.endpoint for row in gate.rows()] == ["responses/compact", "responses"]


@pytest.mark.parametrize("stream", [False, True])
def test_openai_responses_tool_loop(gate: Gate, stream: bool) -> None:
    """The loop of OpenAI's guides: what the model said goes back as it came, with reasoning that nobody has kept."""
    behind = gate.behind(f"{gate.running.upstream}/openai/v1", upstream_model="gpt-5.5")
    tools: Any = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}]
    asked: list[Any] = []
    with behind.gate.openai() as client:
        for _ in range(2):
            asked.append({"role": "user", "content": "use the tool [[demo reasoning=20]]"})
            for kind in ("function_call", "message"):
                output: list[Any]
                if stream:
                    with client.responses.stream(model=behind.model, input=asked, tools=tools) as events:
                        output = [*events.until_done().get_final_response().output]
                else:
                    output = [*client.responses.create(model=behind.model, input=asked, tools=tools).output]
                assert [item.type for item in output] == ["reasoning", kind]
                asked += output
                asked += [
                    {"type": "function_call_output", "call_id": item.call_id, "output": "sunny"}
                    for item in output
                    if item.type == "function_call"
                ]
    rows = behind.gate.rows()
    assert [(row.status, row.outcome, row.reasoning_tokens) for row in rows] == [(200, "completed", 20)] * 4
    last = gate.witness(rows[-1].request_id)
    assert last is not None
    kept = [item for item in last["body"]["input"] if item.get("type") == "reasoning"]
    assert len(kept) == 3
    assert all(item["encrypted_content"] for item in kept)


def test_openai_embeddings(gate: Gate) -> None:
    """Embeddings come for every input, and only their input is charged."""
    with gate.openai() as client:
        answer = client.embeddings.create(model="embed-test", input=["one", "two"])
    assert [item.index for item in answer.data] == [0, 1]
    assert gate.row().output_tokens == 0


def test_openai_models(gate: Gate) -> None:
    """The listing holds what the key may call in this dialect, and one model can be looked up."""
    with gate.openai() as client:
        assert [model.id for model in client.models.list()] == ["cent-test", "embed-test", "gpt-test"]
        assert client.models.retrieve("gpt-test").owned_by == "test-openai"


def test_openai_tool_call_unchanged(gate: Gate) -> None:
    """The upstream gets the tools as they were sent, and its call reaches the caller with its arguments."""
    tools = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER, "strict": True}}]
    with gate.openai() as client:
        raw = client.chat.completions.with_raw_response.create(
            model="gpt-test",
            messages=[{"role": "user", "content": "use the tool"}],
            tools=tools,  # type: ignore[arg-type]
        )
    call = raw.parse().choices[0].message.tool_calls[0]  # type: ignore[index]
    witness = gate.witness(raw.headers["x-request-id"])
    assert witness is not None
    assert witness["body"]["tools"] == tools
    assert call.function.name == "weather"  # type: ignore[union-attr]
    assert set(json.loads(call.function.arguments)) == {"city", "days"}  # type: ignore[union-attr]


def test_openai_tool_call_streamed(gate: Gate) -> None:
    """The pieces of a streamed call's arguments join to JSON."""
    with (
        gate.openai() as client,
        client.chat.completions.create(
            model="gpt-test",
            messages=[{"role": "user", "content": "use the tool"}],
            tools=[{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}],
            stream=True,
        ) as stream,
    ):
        deltas = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or []]
    arguments = "".join(delta.function.arguments or "" for delta in deltas if delta.function)
    assert set(json.loads(arguments)) == {"city", "days"}


def test_anthropic_message(gate: Gate) -> None:
    """A message has text, and its usage is that of the row."""
    with gate.anthropic() as client:
        answer = client.messages.create(
            model="claude-test", max_tokens=200, messages=[{"role": "user", "content": "Budgets?"}]
        )
    row = gate.row()
    assert answer.content[0].type == "text"
    assert (row.response_id, row.output_tokens) == (answer.id, answer.usage.output_tokens)


@pytest.mark.parametrize("prefix", ["", "/anthropic"])
def test_anthropic_stream(gate: Gate, prefix: str) -> None:
    """A message stream ends with the whole message, under both base URLs."""
    with (
        gate.anthropic(path=prefix) as client,
        client.messages.stream(
            model="claude-test", max_tokens=200, messages=[{"role": "user", "content": "Budgets?"}]
        ) as stream,
    ):
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text
    assert final.stop_reason == "end_turn"
    assert gate.row().output_tokens == final.usage.output_tokens


def test_anthropic_tool_call_unchanged(gate: Gate) -> None:
    """A tool call passes through, plain and streamed, with the tools as they were sent."""
    tools = [{"name": "weather", "description": "Forecast", "input_schema": WEATHER}]
    with gate.anthropic() as client:
        raw = client.messages.with_raw_response.create(
            model="claude-test",
            max_tokens=500,
            messages=[{"role": "user", "content": "use the tool"}],
            tools=tools,  # type: ignore[arg-type]
        )
        with client.messages.stream(
            model="claude-test",
            max_tokens=500,
            messages=[{"role": "user", "content": "use the tool"}],
            tools=tools,  # type: ignore[arg-type]
        ) as stream:
            streamed = stream.get_final_message()
    witness = gate.witness(raw.headers["x-request-id"])
    assert witness is not None
    assert witness["body"]["tools"] == tools
    for message in (raw.parse(), streamed):
        call = next(block for block in message.content if block.type == "tool_use")
        assert set(call.input) == {"city", "days"}


def test_anthropic_count_tokens_is_free(gate: Gate) -> None:
    """Counting tokens works and costs nothing, even for a key whose limit is 0."""
    gate.update(monthly_limit=0)
    with gate.anthropic() as client:
        counted = client.messages.count_tokens(model="claude-test", messages=[{"role": "user", "content": "Budgets?"}])
    assert counted.input_tokens > 0
    assert gate.row().cost == 0


def test_anthropic_models(gate: Gate) -> None:
    """The listing is in Anthropic's form and holds its dialect's models only."""
    with gate.anthropic() as client:
        assert [model.id for model in client.models.list()] == ["claude-test"]
        assert client.models.retrieve("claude-test").max_input_tokens == 100_000


def test_genai_generate(gate: Gate) -> None:
    """An answer has text, and its usage is that of the row."""
    with gate.genai() as client:
        answer = client.models.generate_content(model="gemini-test", contents="Budgets?")
    row = gate.row()
    assert answer.text
    assert answer.usage_metadata is not None
    assert (row.response_id, row.input_tokens) == (answer.response_id, answer.usage_metadata.prompt_token_count)


@pytest.mark.parametrize("prefix", ["", "/gemini"])
def test_genai_stream(gate: Gate, prefix: str) -> None:
    """A stream's pieces join to an answer, under both base URLs."""
    with gate.genai(path=prefix) as client:
        pieces = list(client.models.generate_content_stream(model="gemini-test", contents="Budgets?"))
    assert "".join(piece.text or "" for piece in pieces)
    assert pieces[-1].usage_metadata is not None
    assert gate.row().output_tokens == pieces[-1].usage_metadata.candidates_token_count


def test_genai_tool_call_unchanged(gate: Gate) -> None:
    """A function call reaches the caller with its arguments."""
    declaration = types.FunctionDeclaration(name="weather", description="Forecast", parameters_json_schema=WEATHER)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declaration])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    with gate.genai() as client:
        answer = client.models.generate_content(model="gemini-test", contents="use the tool", config=config)
    calls = answer.function_calls
    assert calls is not None
    assert calls[0].name == "weather"
    assert set(calls[0].args or {}) == {"city", "days"}


def test_genai_embeddings_and_count(gate: Gate) -> None:
    """Embeddings and token counts work; the count is free."""
    with gate.genai() as client:
        embedded = client.models.embed_content(model="gemini-embed-test", contents="one")
        counted = client.models.count_tokens(model="gemini-test", contents="Budgets?")
    assert embedded.embeddings is not None
    assert embedded.embeddings[0].values
    assert counted.total_tokens
    assert gate.rows()[-1].cost == 0


def test_genai_models(gate: Gate) -> None:
    """The listing is in Gemini's form and holds its dialect's models only."""
    with gate.genai() as client:
        assert [model.name for model in client.models.list()] == ["models/gemini-embed-test", "models/gemini-test"]
        assert client.models.get(model="gemini-test").input_token_limit == 100_000
        pages = client.models.list(config={"page_size": 1})
        assert (len(pages), [model.name for model in pages]) == (1, ["models/gemini-embed-test", "models/gemini-test"])


def curl(url: str, body: object, *options: str) -> Any:
    """Send a JSON body with curl; return the answer's JSON."""
    command = ["curl", "--silent", "--fail-with-body", url, "-H", "Content-Type: application/json", *options]
    done = subprocess.run([*command, "-d", json.dumps(body)], capture_output=True, check=True, timeout=30)
    return json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(gate: Gate) -> None:
    """The command of the first five minutes works as it is pasted."""
    path, body = request_of("chat", "Hello")
    answer = curl(gate.url + path, body, "-H", f"Authorization: Bearer {gate.secret}")
    assert answer["choices"][0]["message"]["content"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_with_the_key_in_the_url(gate: Gate) -> None:
    """Gemini's `?key=` is read as a credential."""
    path, body = request_of("generate", "Hello")
    answer = curl(f"{gate.url}{path}?key={gate.secret}", body)
    assert answer["candidates"][0]["content"]["parts"][0]["text"]
