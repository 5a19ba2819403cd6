"""The demo upstream against the official SDKs, and against raw HTTP where an SDK would hide what was sent."""

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from tests.conftest import wait_until
from tests.demo.conftest import running
from toolkit.demo import delivery, text

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
LONG = " ".join(f"Line {number} of a long report." for number in range(300))


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


def test_chat_stream_keeps_usage_to_itself_unless_asked(http: httpx2.Client) -> None:
    """Without `include_usage` no chunk speaks of usage, and the stream still ends with `[DONE]`."""
    path, body = chat("Tides", stream=True)
    assert not any("usage" in one for one in events(http, path, body))
    assert http.post(path, json=body).text.endswith("data: [DONE]\n\n")
    assert last_call(http)["usage"] is None


def test_content_streams_as_one_array_without_sse(http: httpx2.Client) -> None:
    """Without `alt=sse` the stream is a JSON array whose elements are the same chunks."""
    path, body = content("Tides [[demo tokens=6]]", stream=True)
    elements = post(http, path.removesuffix("?alt=sse"), body)
    assert len(elements) == 4
    found = events(http, path, body)
    assert [one["candidates"] for one in elements] == [one["candidates"] for one in found]


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


# Refusals and faults


@pytest.mark.parametrize("path", ["/openai/v1/models", "/anthropic/v1/models", "/gemini/v1beta/models"])
def test_a_call_needs_the_dialects_credential(base: str, path: str) -> None:
    """No key, an empty key and a key in another dialect's header are all 401."""
    wrong = {"/openai": {"x-api-key": "k"}, "/anthropic": {"x-goog-api-key": "k"}}.get(path[:-10], {"x-api-key": "k"})
    for headers in ({}, {"authorization": "Bearer"}, wrong):
        assert httpx2.get(base + path, headers=headers).status_code == 401


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
