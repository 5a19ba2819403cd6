"""The demo upstream answers the official SDKs."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic.types import Message, MessageTokensCount, ModelInfo, RawMessageStreamEvent
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types
from openai.types import CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionFunctionToolParam
from openai.types.responses import FunctionToolParam, Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.demo.test_upstream import SCHEMA, chat, events, message, post, response
from toolkit.demo import text

pytestmark = pytest.mark.world
ARGUMENTS = {"city": "weather", "unit": "celsius", "days": 2}
TOOL_PROMPT = "What is the weather? Use the tool."


@pytest.fixture
def oai(base: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{base}/openai/v1", api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(base: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=f"{base}/anthropic", api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
def gemini(base: str) -> Iterator[genai.Client]:
    options = genai_types.HttpOptions(base_url=f"{base}/gemini")
    with closing(genai.Client(api_key="k", http_options=options)) as client:
        yield client


# Shapes


def test_chat_completion_is_typed(http: httpx2.Client) -> None:
    """A chat completion validates strictly, and its usage is the tokens of its text."""
    done = ChatCompletion.model_validate(post(http, *chat("Tell me about tides")))
    assert done.choices[0].finish_reason == "stop"
    assert done.usage is not None
    assert done.usage.completion_tokens == text.count(done.choices[0].message.content or "") > 10
    assert done.usage.prompt_tokens == text.count("Tell me about tides") + 3


def test_chat_stream_is_typed_and_ends_with_usage(http: httpx2.Client) -> None:
    """Every chunk validates; usage comes in a last chunk without choices, because it was asked for."""
    path, body = chat("Tides [[demo tokens=20]]", stream=True, stream_options={"include_usage": True})
    chunks = [ChatCompletionChunk.model_validate(one) for one in events(http, path, body)]
    assert [len(one.choices) for one in chunks[-2:]] == [1, 0]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    written = "".join(one.choices[0].delta.content or "" for one in chunks[:-1])
    assert chunks[-1].usage.completion_tokens == text.count(written) == 20


def test_choices_are_counted_together(oai: openai.OpenAI) -> None:
    """`n` gives that many different answers, and usage is their sum, streamed or not."""
    ask: Any = {"model": "m", "messages": [{"role": "user", "content": "Name a river [[demo tokens=15]]"}], "n": 3}
    done = oai.chat.completions.create(**ask)
    assert len({one.message.content for one in done.choices}) == 3
    assert done.usage is not None
    assert done.usage.completion_tokens == 45
    written = {0: "", 1: "", 2: ""}
    with oai.chat.completions.create(**ask, stream=True) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                written[choice.index] += choice.delta.content or ""
    assert list(written.values()) == [one.message.content for one in done.choices]


def test_response_is_typed(http: httpx2.Client) -> None:
    """A response validates strictly, and its usage is the tokens of its text."""
    done = Response.model_validate(post(http, *response("Tell me about tides", instructions="Be brief")))
    assert done.status == "completed"
    assert done.usage is not None
    assert done.usage.output_tokens == text.count(done.output_text) > 10


def test_response_stream_has_the_full_sequence(http: httpx2.Client) -> None:
    """Events validate, are numbered, come in the documented order and end with the whole response."""
    path, body = response("Tides [[demo tokens=4]]", stream=True)
    adapter: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
    found = [adapter.validate_python(one) for one in events(http, path, body)]
    assert [one.type for one in found] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [one.sequence_number for one in found] == list(range(10))
    last = found[-1]
    assert last.type == "response.completed"
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == text.count(last.response.output_text) == 4


def test_a_freeform_tool_is_called_by_a_text(http: httpx2.Client) -> None:
    """OpenAI's custom tools: the pieces of the input join, the call names its namespace, and all of it validates."""
    tools = [{"type": "namespace", "name": "functions", "tools": [{"type": "custom", "name": "exec"}]}]
    items = [{"type": "additional_tools", "role": "developer", "tools": tools}, {"role": "user", "content": "Tides"}]
    more = {"tool_choice": "required", "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "low"}}
    body = {"model": "m", "input": items, "stream": True, **more}
    adapter: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
    found = [adapter.validate_python(one) for one in events(http, "/openai/v1/responses", body)]
    last = found[-1]
    assert last.type == "response.completed"
    thought, call = last.response.output
    assert thought.type == "reasoning"
    assert thought.encrypted_content
    assert call.type == "custom_tool_call"
    assert (call.name, call.namespace, call.input) == ("exec", "functions", "Tides")
    assert "".join(one.delta for one in found if one.type == "response.custom_tool_call_input.delta") == call.input


def test_message_is_typed(http: httpx2.Client) -> None:
    """A message validates strictly, and its usage is the tokens of its text."""
    done = Message.model_validate(post(http, *message("Tell me about tides")))
    assert done.stop_reason == "end_turn"
    assert done.content[0].type == "text"
    assert done.usage.output_tokens == text.count(done.content[0].text) > 10


def test_message_stream_has_the_full_sequence(http: httpx2.Client) -> None:
    """Events validate and come in the documented order; the usage at the end is cumulative."""
    path, body = message("Tides [[demo tokens=4]]", stream=True)
    found = events(http, path, body)
    assert [one["type"] for one in found] == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    adapter: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
    for one in found:
        if one["type"] != "ping":
            adapter.validate_python(one)
    assert found[0]["message"]["usage"]["output_tokens"] == 1
    assert found[-2]["usage"]["output_tokens"] == 4


def test_message_stream_accumulates(claude: anthropic.Anthropic) -> None:
    """The SDK's own accumulator gets the text and usage that the plain answer has."""
    ask: Any = {"model": "m", "max_tokens": 200, "messages": [{"role": "user", "content": "Tides"}]}
    plain = claude.messages.create(**ask)
    with claude.messages.stream(**ask) as stream:
        streamed = stream.get_final_message()
    assert streamed.content[0].type == plain.content[0].type == "text"
    assert streamed.content[0].text == plain.content[0].text
    assert streamed.usage.output_tokens == plain.usage.output_tokens


def test_content_is_typed(gemini: genai.Client) -> None:
    """Gemini's SDK reads text, reason and usage, and streaming gives the same text with a growing count."""
    done = gemini.models.generate_content(model="m", contents="Tell me about tides")
    assert done.candidates is not None
    assert done.candidates[0].finish_reason is genai_types.FinishReason.STOP
    assert done.usage_metadata is not None
    assert done.usage_metadata.candidates_token_count == text.count(done.text or "") > 10
    chunks = list(gemini.models.generate_content_stream(model="m", contents="Tell me about tides"))
    assert "".join(one.text or "" for one in chunks) == done.text
    counts = [one.usage_metadata.candidates_token_count or 0 for one in chunks if one.usage_metadata]
    assert counts == sorted(counts)
    assert counts[-1] == done.usage_metadata.candidates_token_count


def test_models_are_listed(oai: openai.OpenAI, claude: anthropic.Anthropic, gemini: genai.Client) -> None:
    """Each SDK lists its dialect's models."""
    assert next(Model.model_validate(one.to_dict()).id for one in oai.models.list()) == "demo-gpt"
    assert next(ModelInfo.model_validate(one.to_dict()).id for one in claude.models.list()) == "demo-claude"
    assert next(one.name for one in gemini.models.list()) == "models/demo-gemini"


def test_openai_embeddings(http: httpx2.Client, oai: openai.OpenAI) -> None:
    """Embeddings are unit vectors that depend on the text alone, as numbers and in base64."""
    body = {"model": "m", "input": ["a tide", "a river"], "dimensions": 8}
    plain = CreateEmbeddingResponse.model_validate(post(http, "/openai/v1/embeddings", body))
    through_sdk = oai.embeddings.create(model="m", input=["a tide", "a river"], dimensions=8)
    assert [one.embedding for one in through_sdk.data] == [pytest.approx(one.embedding) for one in plain.data]
    assert sum(number * number for number in plain.data[0].embedding) == pytest.approx(1)
    assert plain.data[0].embedding != plain.data[1].embedding
    assert plain.usage.prompt_tokens == 4


def test_gemini_embeddings(gemini: genai.Client, http: httpx2.Client) -> None:
    """One content and several are embedded, with usage."""
    several = gemini.models.embed_content(model="m", contents=list[Any](["a tide", "a river"]))
    assert several.embeddings is not None
    assert [len(one.values or []) for one in several.embeddings] == [768, 768]
    one = post(http, "/gemini/v1beta/models/m:embedContent", {"content": {"parts": [{"text": "a tide"}]}})
    assert one["embedding"]["values"] == pytest.approx(several.embeddings[0].values)
    assert one["usageMetadata"]["promptTokenCount"] == 2


def test_tokens_are_counted_as_in_the_call(http: httpx2.Client, gemini: genai.Client) -> None:
    """The free counting calls give the input that the real call reports."""
    path, body = message(TOOL_PROMPT, system="Be brief", tools=[{"name": "weather", "input_schema": SCHEMA}])
    counted = post(http, f"{path}/count_tokens", {key: body[key] for key in body if key != "max_tokens"})
    assert MessageTokensCount.model_validate(counted).input_tokens == post(http, path, body)["usage"]["input_tokens"]
    total = gemini.models.count_tokens(model="m", contents="Tell me about tides").total_tokens
    reported = gemini.models.generate_content(model="m", contents="Tell me about tides").usage_metadata
    assert reported is not None
    assert total == reported.prompt_token_count == text.count("Tell me about tides") + 3


def test_reasoning_is_shown_where_the_dialect_shows_it(
    claude: anthropic.Anthropic, gemini: genai.Client, oai: openai.OpenAI
) -> None:
    """Thinking streams as a block with a signature, a thought part, and a summary."""
    with claude.messages.stream(
        model="m",
        max_tokens=2_000,
        messages=[{"role": "user", "content": "Tides"}],
        thinking={"type": "enabled", "budget_tokens": 1_024},
    ) as stream:
        done = stream.get_final_message()
    thinking, written = done.content
    assert thinking.type == "thinking"
    assert thinking.signature
    assert written.type == "text"
    assert done.usage.output_tokens == text.count(thinking.thinking) + text.count(written.text)

    config = genai_types.GenerateContentConfig(
        thinking_config=genai_types.ThinkingConfig(thinking_budget=32, include_thoughts=True)
    )
    candidates = gemini.models.generate_content(model="m", contents="Tides", config=config).candidates
    assert candidates is not None
    assert candidates[0].content is not None
    assert [one.thought for one in candidates[0].content.parts or []] == [True, None]

    with oai.responses.create(
        model="m", input="Tides", reasoning={"effort": "low", "summary": "auto"}, stream=True
    ) as events_:
        kinds = {one.type for one in events_}
    assert "response.reasoning_summary_text.delta" in kinds


def test_anthropic_writes_marked_blocks_and_reads_them_after(claude: anthropic.Anthropic) -> None:
    """Blocks with cache_control are written once, by their time to live, then read; input counts neither."""

    def used(question: str) -> anthropic.types.Usage:
        return claude.messages.create(
            model="m",
            max_tokens=50,
            system=[
                {"type": "text", "text": "Rules. " * 40, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
                {"type": "text", "text": "Facts. " * 20, "cache_control": {"type": "ephemeral"}},
            ],
            messages=[{"role": "user", "content": question}],
        ).usage

    first, second = used("One?"), used("Another one?")
    assert first.cache_creation is not None
    assert second.cache_creation is not None
    long, short = first.cache_creation.ephemeral_1h_input_tokens, first.cache_creation.ephemeral_5m_input_tokens
    assert (long, short) == (text.count("Rules. " * 40) + 3, text.count("Facts. " * 20))
    assert (first.cache_creation_input_tokens, first.cache_read_input_tokens) == (long + short, 0)
    assert (second.cache_creation_input_tokens, second.cache_read_input_tokens) == (0, long + short)
    assert (first.input_tokens, second.input_tokens) == (text.count("One?") + 3, text.count("Another one?") + 3)


# Tools


def chat_tools(*names: str) -> list[ChatCompletionFunctionToolParam]:
    return [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in names]


def test_chat_calls_a_tool(oai: openai.OpenAI) -> None:
    """Asked to use the tool, the model calls the first one with arguments that fit its schema, streamed too."""
    ask: Any = {
        "model": "m",
        "messages": [{"role": "user", "content": TOOL_PROMPT}],
        "tools": chat_tools("weather", "b"),
    }
    done = oai.chat.completions.create(**ask)
    calls = done.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert (calls[0].function.name, json.loads(calls[0].function.arguments)) == ("weather", ARGUMENTS)
    assert done.choices[0].finish_reason == "tool_calls"
    with oai.chat.completions.stream(**ask) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls"
    assert final.message.tool_calls is not None
    assert json.loads(final.message.tool_calls[0].function.arguments) == ARGUMENTS


def test_tool_choice_decides(oai: openai.OpenAI) -> None:
    """A named tool is called unasked, `required` calls the first, `none` calls nothing even when asked."""

    def called(choice: Any, prompt: str = "Tides") -> list[str]:
        done = oai.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": prompt}],
            tools=chat_tools("a", "b"),
            tool_choice=choice,
        )
        return [one.function.name for one in done.choices[0].message.tool_calls or [] if one.type == "function"]

    assert called({"type": "function", "function": {"name": "b"}}) == ["b"]
    assert called("required") == ["a"]
    assert called("auto") == []
    assert called("none", TOOL_PROMPT) == []
    assert called("auto", "Tides [[demo calls=3]]") == ["a", "b", "a"]


def test_responses_call_tools_in_parallel(oai: openai.OpenAI) -> None:
    """Parallel calls are items with ids of their own, and their arguments stream."""
    tools: list[FunctionToolParam] = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}]
    with oai.responses.create(model="m", input=f"{TOOL_PROMPT} [[demo calls=2]]", tools=tools, stream=True) as stream:
        found = list(stream)
    deltas = [one.delta for one in found if one.type == "response.function_call_arguments.delta"]
    last = found[-1]
    assert last.type == "response.completed"
    calls = [one for one in last.response.output if one.type == "function_call"]
    assert len({one.call_id for one in calls}) == 2
    assert "".join(deltas) == "".join(one.arguments for one in calls)
    assert json.loads(calls[0].arguments) == ARGUMENTS


def test_messages_call_tools_in_parallel(claude: anthropic.Anthropic) -> None:
    """Tool blocks have ids of their own and stream as JSON; the message stops for tool use."""
    ask: Any = {
        "model": "m",
        "max_tokens": 500,
        "messages": [{"role": "user", "content": f"{TOOL_PROMPT} [[demo calls=2]]"}],
        "tools": [{"name": "weather", "input_schema": SCHEMA}],
    }
    with claude.messages.stream(**ask) as stream:
        done = stream.get_final_message()
    assert done.stop_reason == "tool_use"
    blocks = [one for one in done.content if one.type == "tool_use"]
    assert [one.input for one in blocks] == [ARGUMENTS, ARGUMENTS]
    assert len({one.id for one in blocks}) == 2
    assert done.usage.output_tokens == 2 * (1 + text.count(json.dumps(ARGUMENTS, separators=(",", ":"))))


def test_a_tool_result_is_answered_in_words(claude: anthropic.Anthropic) -> None:
    """After the tool's result the model does not call it again, so that an agent's loop ends."""
    done = claude.messages.create(
        model="m",
        max_tokens=200,
        messages=[
            {"role": "user", "content": TOOL_PROMPT},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "Rain"}]},
        ],
        tools=[{"name": "weather", "input_schema": SCHEMA}],
    )
    assert done.stop_reason == "end_turn"


def test_gemini_calls_a_tool(gemini: genai.Client) -> None:
    """A function call has its arguments and an id, streamed too."""
    declaration = genai_types.FunctionDeclaration(name="weather", parameters_json_schema=SCHEMA)
    config = genai_types.GenerateContentConfig(
        tools=[genai_types.Tool(function_declarations=[declaration])],
        automatic_function_calling=genai_types.AutomaticFunctionCallingConfig(disable=True),
    )
    done = gemini.models.generate_content(model="m", contents=TOOL_PROMPT, config=config)
    assert done.function_calls is not None
    assert (done.function_calls[0].name, done.function_calls[0].args) == ("weather", ARGUMENTS)
    assert done.function_calls[0].id
    streamed = gemini.models.generate_content_stream(model="m", contents=TOOL_PROMPT, config=config)
    assert [call.args for one in streamed for call in one.function_calls or []] == [ARGUMENTS]
    forced = genai_types.FunctionCallingConfig(mode=genai_types.FunctionCallingConfigMode.NONE)
    config.tool_config = genai_types.ToolConfig(function_calling_config=forced)
    assert gemini.models.generate_content(model="m", contents=TOOL_PROMPT, config=config).function_calls is None
    forced.mode = genai_types.FunctionCallingConfigMode.ANY
    config.tool_config = genai_types.ToolConfig(function_calling_config=forced)
    assert gemini.models.generate_content(model="m", contents="Tides", config=config).function_calls


def test_each_sdk_raises_its_own_error(oai: openai.OpenAI, claude: anthropic.Anthropic, gemini: genai.Client) -> None:
    """A dictated status is raised as the SDK's typed exception, with the provider's error shape."""
    with pytest.raises(openai.RateLimitError) as limited:
        oai.chat.completions.create(model="m", messages=[{"role": "user", "content": "[[demo status=429]]"}])
    assert limited.value.code == "rate_limit_exceeded"
    with pytest.raises(anthropic.InternalServerError) as overloaded:
        claude.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "Tides [[demo status=529]]"}]
        )
    assert overloaded.value.status_code == 529
    assert overloaded.value.body == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "The demo upstream was told to answer 529."},
        "request_id": None,
    }
    with pytest.raises(genai_errors.ServerError) as unavailable:
        gemini.models.generate_content(model="m", contents="[[demo status=503]]")
    assert (unavailable.value.code, unavailable.value.status) == (503, "UNAVAILABLE")


def test_error_events_reach_the_sdks(oai: openai.OpenAI, claude: anthropic.Anthropic, gemini: genai.Client) -> None:
    """The provider's own error in the middle of a stream is raised, or delivered, by its SDK."""
    prompt = "Tides [[demo tokens=40 error_event=3]]"
    with pytest.raises(openai.APIError, match="had an error"):
        list(oai.chat.completions.create(model="m", messages=[{"role": "user", "content": prompt}], stream=True))
    kinds = [one.type for one in oai.responses.create(model="m", input=prompt, stream=True)]
    assert kinds.count("response.output_text.delta") == 3
    assert kinds[-2:] == ["error", "response.failed"]
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        list(
            claude.messages.create(
                model="m", max_tokens=99, messages=[{"role": "user", "content": prompt}], stream=True
            )
        )
    with pytest.raises(genai_errors.APIError, match="overloaded"):
        list(gemini.models.generate_content_stream(model="m", contents=prompt))
