"""The demo upstream against the official SDKs, and against raw HTTP where an SDK would hide what was sent."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import Any

import anthropic
import httpx2
import openai
import pytest
import uvicorn
from anthropic.types import Message, MessageTokensCount, ModelInfo, RawMessageStreamEvent
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types
from openai.types import CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionFunctionToolParam
from openai.types.responses import FunctionToolParam, Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.conftest import wait_until
from toolkit.demo import delivery, text
from toolkit.demo.upstream import create_app

Json = dict[str, Any]

SCHEMA: Json = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 2},
    },
    "required": ["city"],
}
ARGUMENTS = {"city": "weather", "unit": "celsius", "days": 2}
TOOL_PROMPT = "What is the weather? Use the tool."
LONG = " ".join(f"Line {number} of a long report." for number in range(300))


@contextmanager
def running(pace: float) -> Iterator[str]:
    """Run a demo upstream on a free port and give its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(pace), log_level="critical", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with running(0) as address:
        yield address


@pytest.fixture
def http(base: str) -> Iterator[httpx2.Client]:
    """A plain client with every provider's credential; the witness starts empty."""
    headers = {"authorization": "Bearer k", "x-api-key": "k", "x-goog-api-key": "k", "x-request-id": "call-1"}
    with httpx2.Client(base_url=base, headers=headers, timeout=60) as client:
        client.delete("/demo/calls")
        yield client


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


def chat(prompt: str, **more: Any) -> tuple[str, Json]:
    return "/openai/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": prompt}], **more}


def response(prompt: str, **more: Any) -> tuple[str, Json]:
    return "/openai/v1/responses", {"model": "m", "input": prompt, **more}


def message(prompt: str, **more: Any) -> tuple[str, Json]:
    body = {"model": "m", "max_tokens": 1_000, "messages": [{"role": "user", "content": prompt}], **more}
    return "/anthropic/v1/messages", body


def content(prompt: str, stream: bool = False, **more: Any) -> tuple[str, Json]:
    verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return f"/gemini/v1beta/models/m:{verb}", {"contents": [{"role": "user", "parts": [{"text": prompt}]}], **more}


CALLS: list[Callable[..., tuple[str, Json]]] = [chat, response, message, content]
each_call = pytest.mark.parametrize("call", CALLS)


def post(http: httpx2.Client, path: str, body: Json) -> Any:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(http: httpx2.Client, path: str, body: Json) -> list[Json]:
    """Collect the JSON of a stream's events."""
    sent = http.post(path, json=body)
    assert sent.status_code == 200, sent.text
    assert sent.headers["content-type"] == "text/event-stream"
    lines = [line.removeprefix("data: ") for line in sent.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def last_call(http: httpx2.Client) -> Json:
    calls = http.get("/demo/calls").json()
    found: Json = calls[-1]
    return found


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


def test_chat_stream_keeps_usage_to_itself_unless_asked(http: httpx2.Client) -> None:
    """Without `include_usage` no chunk speaks of usage, and the stream still ends with `[DONE]`."""
    path, body = chat("Tides", stream=True)
    assert not any("usage" in one for one in events(http, path, body))
    assert http.post(path, json=body).text.endswith("data: [DONE]\n\n")
    assert last_call(http)["usage"] is None


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


def test_content_streams_as_one_array_without_sse(http: httpx2.Client) -> None:
    """Without `alt=sse` the stream is a JSON array whose elements are the same chunks."""
    path, body = content("Tides [[demo tokens=6]]", stream=True)
    elements = post(http, path.removesuffix("?alt=sse"), body)
    assert len(elements) == 4
    found = events(http, path, body)
    assert [one["candidates"] for one in elements] == [one["candidates"] for one in found]


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


# Text and tokens


def test_the_same_prompt_gets_the_same_answer_in_sentences(http: httpx2.Client) -> None:
    """An answer is stable, ends like a sentence and speaks of what was asked."""
    answers = {post(http, *chat("Tell me about lighthouses"))["choices"][0]["message"]["content"] for _ in range(3)}
    assert len(answers) == 1
    assert answers.pop().endswith(".")
    assert post(http, *chat("Something else"))["choices"][0]["message"]["content"] not in answers


def test_media_and_tools_count_a_little_and_directives_nothing(http: httpx2.Client) -> None:
    """A large image is not counted by its bytes; tools are counted as JSON; directives are free."""
    plain = post(http, *chat("Describe it"))["usage"]["prompt_tokens"]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 40_000}}
    parts = [{"type": "text", "text": "Describe it [[demo tokens=3]]"}, image]
    path, body = chat("")
    body["messages"][0]["content"] = parts
    assert post(http, path, body)["usage"]["prompt_tokens"] == plain + 85
    tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
    with_tools = post(http, *chat("Describe it", tools=tools))["usage"]["prompt_tokens"]
    assert plain < with_tools <= plain + len(json.dumps(tools))


# Bounds, reasoning, caches

BOUNDS: list[tuple[Callable[..., tuple[str, Json]], Json, str]] = [
    (chat, {"max_tokens": 12}, "length"),
    (chat, {"max_completion_tokens": 12, "max_tokens": 50}, "length"),
    (response, {"max_output_tokens": 12}, "incomplete"),
    (message, {"max_tokens": 12}, "max_tokens"),
    (content, {"generationConfig": {"maxOutputTokens": 12}}, "MAX_TOKENS"),
    (content, {"generation_config": {"max_output_tokens": 12}}, "MAX_TOKENS"),
]


def output_of(body: Json) -> tuple[int, int, str]:
    """Output tokens with reasoning, reasoning tokens, and why it ended."""
    if "choices" in body:
        usage = body["usage"]
        details = usage["completion_tokens_details"]
        return usage["completion_tokens"], details["reasoning_tokens"], body["choices"][0]["finish_reason"]
    if "candidates" in body:
        usage = body["usageMetadata"]
        thought = usage.get("thoughtsTokenCount", 0)
        return usage["candidatesTokenCount"] + thought, thought, body["candidates"][0]["finishReason"]
    if body["type" if "type" in body else "object"] == "message":
        thinking = sum(text.count(one["thinking"]) for one in body["content"] if one["type"] == "thinking")
        return body["usage"]["output_tokens"], thinking, body["stop_reason"]
    usage = body["usage"]
    return usage["output_tokens"], usage["output_tokens_details"]["reasoning_tokens"], body["status"]


@pytest.mark.parametrize(("call", "bound", "reason"), BOUNDS)
@pytest.mark.parametrize("directive", ["[[demo tokens=80]]", "[[demo tokens=80 reasoning=7]]", "[[demo reasoning=90]]"])
def test_bounds_hold_with_reasoning_included(
    http: httpx2.Client, call: Callable[..., tuple[str, Json]], bound: Json, reason: str, directive: str
) -> None:
    """No answer is longer than its bound, whatever is dictated, and it says that it was cut."""
    output, reasoning, ended = output_of(post(http, *call(f"Tides {directive}", **bound)))
    assert (output, ended) == (12, reason)
    assert reasoning == {"[[demo tokens=80]]": 0, "[[demo tokens=80 reasoning=7]]": 7}.get(directive, 12)


THINKING: list[tuple[Callable[..., tuple[str, Json]], Json]] = [
    (chat, {"reasoning_effort": "medium"}),
    (response, {"reasoning": {"effort": "medium", "summary": "auto"}}),
    (message, {"thinking": {"type": "enabled", "budget_tokens": 1_024}, "max_tokens": 2_000}),
    (content, {"generationConfig": {"thinkingConfig": {"thinkingBudget": 512, "includeThoughts": True}}}),
]


@pytest.mark.parametrize(("call", "wish"), THINKING)
def test_reasoning_is_counted_when_asked_for(
    http: httpx2.Client, call: Callable[..., tuple[str, Json]], wish: Json
) -> None:
    """Reasoning that was asked for is reported, on top of the visible text, and none is otherwise."""
    assert output_of(post(http, *call("Tides [[demo tokens=30]]", **wish)))[:2] == (94, 64)
    assert output_of(post(http, *call("Tides [[demo tokens=30]]")))[:2] == (30, 0)


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


@pytest.mark.parametrize(
    ("call", "field", "details"),
    [
        (chat, "prompt_tokens", "prompt_tokens_details"),
        (response, "input_tokens", "input_tokens_details"),
    ],
)
def test_openai_caches_long_beginnings(
    http: httpx2.Client, call: Callable[..., tuple[str, Json]], field: str, details: str
) -> None:
    """A beginning of 1,024 tokens and more that was seen before is reported as cached, as a part of the input."""
    subject = f"{field} {LONG}"
    first = post(http, *call(f"{subject} First question?"))["usage"]
    second = post(http, *call(f"{subject} And another one?"))["usage"]
    assert first[details]["cached_tokens"] == 0
    assert 1_024 <= second[details]["cached_tokens"] < second[field]
    assert second[details]["cached_tokens"] % 128 == 0


def test_gemini_caches_long_beginnings_and_no_short_ones(http: httpx2.Client) -> None:
    """A long prompt seen twice is cached; a short one never is."""
    used = [post(http, *content(LONG))["usageMetadata"] for _ in range(2)]
    assert [one.get("cachedContentTokenCount", 0) >= 1_024 for one in used] == [False, True]
    short = [post(http, *content("A short one"))["usageMetadata"] for _ in range(2)]
    assert not any("cachedContentTokenCount" in one for one in short)


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


def test_dictated_counts_are_reported_exactly(http: httpx2.Client) -> None:
    """Each dialect's fields say what the directive dictates, whatever the prompt was."""
    prompt = "Tides [[demo input=1000 cached=400 tokens=100]] [[demo reasoning=20 cache_write_5m=7 cache_write_1h=9]]"
    used = post(http, *chat(prompt))["usage"]
    assert (used["prompt_tokens"], used["completion_tokens"], used["total_tokens"]) == (1_000, 120, 1_120)
    assert used["prompt_tokens_details"]["cached_tokens"] == 400
    assert used["completion_tokens_details"]["reasoning_tokens"] == 20
    used = post(http, *response(prompt))["usage"]
    assert (used["input_tokens"], used["output_tokens"], used["input_tokens_details"]["cached_tokens"]) == (
        1_000,
        120,
        400,
    )
    used = post(http, *message(prompt))["usage"]
    assert (used["input_tokens"], used["output_tokens"], used["cache_read_input_tokens"]) == (1_000, 120, 400)
    assert used["cache_creation_input_tokens"] == 16
    assert used["cache_creation"] == {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 9}
    used = post(http, *content(prompt))["usageMetadata"]
    assert (used["promptTokenCount"], used["candidatesTokenCount"], used["totalTokenCount"]) == (1_000, 100, 1_120)
    assert (used["cachedContentTokenCount"], used["thoughtsTokenCount"]) == (400, 20)


@each_call
@pytest.mark.parametrize("stream", [False, True])
def test_usage_can_be_left_out(http: httpx2.Client, call: Callable[..., tuple[str, Json]], stream: bool) -> None:
    """`nousage` reports nothing anywhere in the answer."""
    path, body = call("Tides [[demo nousage]]", stream=stream)
    shown = http.post(path, json=body).text
    assert '"usage":{' not in shown
    assert "usageMetadata" not in shown
    assert last_call(http)["usage"] is None


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


# Refusals and faults


@pytest.mark.parametrize("path", ["/openai/v1/models", "/anthropic/v1/models", "/gemini/v1beta/models"])
def test_a_call_needs_the_dialects_credential(base: str, path: str) -> None:
    """No key, an empty key and a key in another dialect's header are all 401."""
    wrong = {"/openai": {"x-api-key": "k"}, "/anthropic": {"x-goog-api-key": "k"}}.get(path[:-10], {"x-api-key": "k"})
    for headers in ({}, {"authorization": "Bearer"}, wrong):
        assert httpx2.get(base + path, headers=headers).status_code == 401


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


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/openai/v1/chat/completions", {"model": "m"}),
        ("/openai/v1/chat/completions", chat("Tides", n=0)[1]),
        ("/openai/v1/chat/completions", chat("Tides", max_tokens="many")[1]),
        ("/openai/v1/chat/completions", chat("[[demo color=red]]")[1]),
        ("/openai/v1/chat/completions", chat("[[demo tokens=-4]]")[1]),
        ("/openai/v1/chat/completions", []),
        ("/openai/v1/responses", {"model": "m", "input": []}),
        ("/openai/v1/embeddings", {"model": "m", "input": ""}),
        ("/anthropic/v1/messages", {"model": "m", "messages": [{"role": "user", "content": "Tides"}]}),
        ("/gemini/v1beta/models/m:generateContent", {"contents": []}),
        ("/gemini/v1beta/models/m:batchEmbedContents", {"requests": [{}]}),
    ],
)
def test_bad_requests_are_refused(http: httpx2.Client, path: str, body: Any) -> None:
    """What is missing or wrong is a 400 in the dialect's shape, never a crash."""
    refused = http.post(path, json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"]


def test_unknown_paths_are_refused_in_the_dialects_shape(http: httpx2.Client) -> None:
    """A path or method that does not exist is a 404 or 405 that says so."""
    assert http.post("/anthropic/v1/nothing", json={}).json()["error"]["type"] == "not_found_error"
    assert http.post("/gemini/v1beta/models/m:dance", json={}).json()["error"]["status"] == "NOT_FOUND"
    assert http.get("/openai/v1/chat/completions").status_code == 405


@each_call
def test_break_drops_the_connection(http: httpx2.Client, call: Callable[..., tuple[str, Json]]) -> None:
    """After three chunks the connection goes away in the middle of the body."""
    path, body = call("Tides [[demo tokens=40 break=3]]", stream=True)
    with http.stream("POST", path, json=body) as stream:
        pieces = stream.iter_raw()
        collected: list[bytes] = []
        with pytest.raises(httpx2.RemoteProtocolError):
            collected.extend(pieces)
    assert last_call(http)["state"] == "error"
    assert last_call(http)["chunks_sent"] == 3
    assert b"".join(collected).count(b"data: ") >= 3


@each_call
def test_break_drops_a_plain_answer_in_its_middle(http: httpx2.Client, call: Callable[..., tuple[str, Json]]) -> None:
    """Without a stream the body stops before the length it announced."""
    path, body = call("Tides [[demo break=3]]")
    with pytest.raises(httpx2.RemoteProtocolError):
        http.post(path, json=body)


TERMINAL = ("[DONE]", 'finish_reason":"', "response.completed", "message_stop", "finishReason")


@each_call
def test_truncate_ends_without_the_terminal_event(http: httpx2.Client, call: Callable[..., tuple[str, Json]]) -> None:
    """The body ends cleanly after three chunks, and nothing in it says that the answer is complete."""
    path, body = call("Tides [[demo tokens=40 truncate=3]]", stream=True)
    shown = http.post(path, json=body).text
    assert not any(sign in shown for sign in TERMINAL)
    assert last_call(http)["chunks_sent"] == 3
    path, body = call("Tides [[demo tokens=40 truncate=3]]")
    with pytest.raises(json.JSONDecodeError):
        http.post(
            path.replace("streamGenerateContent?alt=sse", "generateContent"), json=body | {"stream": False}
        ).json()


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


@each_call
def test_a_fault_beyond_the_answer_still_happens(http: httpx2.Client, call: Callable[..., tuple[str, Json]]) -> None:
    """A fault that is ordered for later than the last chunk comes before the terminal event."""
    path, body = call("Tides [[demo tokens=4 truncate=99]]", stream=True)
    shown = http.post(path, json=body).text
    assert last_call(http)["chunks_sent"] == 2
    assert not any(sign in shown for sign in TERMINAL)


# Pace


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each pause that an upstream makes; nobody waits for them."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(delivery, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": sleep}))
    return made


def test_delays_are_kept(http: httpx2.Client, pauses: list[float]) -> None:
    """`delay` holds back the first byte, `chunk_delay` each chunk after the first."""
    path, body = chat("Tides [[demo tokens=6 delay=0.3 chunk_delay=0.1]]", stream=True)
    http.post(path, json=body)
    chunks = last_call(http)["chunks_sent"]
    assert chunks > 1
    assert pauses == [0.3] + [0.1] * (chunks - 1)


def test_the_usual_pace_is_that_of_a_provider(pauses: list[float]) -> None:
    """At pace 1 an answer of 12 tokens takes its 0.15 s and 60 tokens a second, and streams meanwhile."""
    with running(1) as address:
        path, body = chat("Tides [[demo tokens=12]]", stream=True)
        httpx2.post(address + path, json=body, headers={"authorization": "Bearer k"})
    first, *others = pauses
    assert first >= 0.15
    assert len(others) > 1
    assert 0.15 + 10 / 60 <= sum(pauses) < 2


# The witness


def test_the_witness_tells_what_arrived_but_no_header_value(base: str) -> None:
    """It shows id, path, names and body; a secret in a header or in the URL is nowhere in it."""
    path, body = chat("Tides")
    headers = {"authorization": "Bearer sk-hidden", "x-request-id": "call-7"}
    with httpx2.Client(base_url=base, headers=headers) as client:
        client.delete("/demo/calls")
        client.post(f"{path}?key=sk-hidden", json=body)
        shown = client.get("/demo/calls").text
    assert "sk-hidden" not in shown
    (call,) = json.loads(shown)
    assert (call["request_id"], call["path"], call["model"], call["body"]) == ("call-7", path, "m", body)
    assert call["query"] == ["key"]
    assert "authorization" in call["headers"]
    assert (call["state"], call["status"]) == ("finished", 200)
    assert call["usage"]["completion_tokens"] == call["tokens_sent"] > 0


def test_text_that_utf8_cannot_hold_breaks_nothing(http: httpx2.Client) -> None:
    """Half a surrogate pair, which JSON can spell, is answered, streamed and shown by the witness."""
    for call in CALLS:
        for stream in (False, True):
            path, body = call("Tides \ud800 use the tool", stream=stream)
            assert http.post(path, content=json.dumps(body)).status_code == 200
    assert len(http.get("/demo/calls").json()) == 8


@each_call
def test_a_client_that_leaves_a_stream_is_noticed(http: httpx2.Client, call: Callable[..., tuple[str, Json]]) -> None:
    """Closing the connection in the middle of a stream ends the call."""
    path, body = call("Tides [[demo tokens=100 chunk_delay=0.05]]", stream=True)
    with http.stream("POST", path, json=body) as stream:
        pieces = stream.iter_raw()
        next(pieces)
        assert last_call(http)["state"] == "running"
    wait_for(http, "disconnected")
    assert 1 <= last_call(http)["chunks_sent"] < 99


@pytest.mark.parametrize("order", ["delay=30", "status=500 delay=30"])
def test_a_client_that_leaves_before_the_answer_is_noticed(http: httpx2.Client, order: str) -> None:
    """A caller that gives up while it waits for the first byte ends the call."""
    path, body = chat(f"Tides [[demo {order}]]")
    with pytest.raises(httpx2.ReadTimeout):
        http.post(path, json=body, timeout=httpx2.Timeout(20, read=0.2))
    wait_for(http, "disconnected")


def wait_for(http: httpx2.Client, state: str) -> None:
    """Wait until the newest call is in a state."""
    wait_until(lambda: last_call(http)["state"] == state, f"the call to be {state}")
