"""OpenAI's wire format: what is read, what is refused, what is forwarded, and how a stream is watched."""

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.usages import used
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.usage import Usage
from toolkit.dialects import openai
from toolkit.dialects.body import parse_object
from toolkit.dialects.media import Kind, Medium
from toolkit.dialects.shape import Shape

CHAT, RESPONSES, EMBEDDINGS = "chat/completions", "responses", "embeddings"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
IMAGE = "data:image/png;base64," + "A" * 5000
LONG = "A" * 100_000
PNG = b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x09\0\0\0\x07").decode()


def inspect(endpoint: str, **fields: Any) -> Shape:
    body = json.dumps({"model": "m", **fields}).encode()
    return openai.inspect(endpoint, parse_object(body), len(body), None)


def chat(**fields: Any) -> Shape:
    return inspect(CHAT, **{"messages": HELLO, **fields})


def responses(**fields: Any) -> Shape:
    return inspect(RESPONSES, **{"input": "hello", **fields})


def content(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def test_chat_request_is_read() -> None:
    """Every fact that a price can depend on is taken from the body."""
    body = {
        "model": "gpt-x",
        "messages": [{"role": "system", "content": "be brief"}, *HELLO],
        "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}],
        "functions": [{"name": "h"}],
        "n": 3,
        "max_completion_tokens": 50,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    raw = json.dumps(body).encode()
    assert openai.inspect(CHAT, body, len(raw), None) == Shape(
        endpoint=CHAT,
        model="gpt-x",
        stream=True,
        free=False,
        text_bytes=len(raw),
        messages=2,
        tools=3,
        media={},
        whole_context=False,
        choices=3,
        output_bound=50,
        output=True,
        usage_asked=True,
        standard_tier="default",
    )


def test_larger_of_two_bounds_is_held() -> None:
    """A server may obey either of the two names, so the larger one counts."""
    assert chat(max_tokens=70, max_completion_tokens=20).output_bound == 70
    assert chat(max_tokens=None).output_bound is None


def test_inline_pictures_are_counted_by_piece_and_not_by_length() -> None:
    """Its base64 is no text."""
    shape = chat(messages=content({"type": "image_url", "image_url": {"url": IMAGE}}, {"type": "text", "text": "?"}))
    assert (shape.media, shape.whole_context) == ({Medium(Kind.PICTURE): 1}, False)
    assert shape.text_bytes < 300
    shape = responses(input=content({"type": "input_image", "image_url": IMAGE}))
    assert (shape.media, shape.whole_context) == ({Medium(Kind.PICTURE): 1}, False)
    assert shape.text_bytes < 300


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:application/pdf;base64,AAAA"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}},
    ],
)
def test_parts_of_unknown_size_take_the_whole_context(part: dict[str, Any]) -> None:
    """What only the provider can count is held as the whole context window."""
    assert chat(messages=content(part)).whole_context


@pytest.mark.parametrize(
    ("file", "medium"),
    [
        ({"file_data": f"data:application/pdf;base64,{LONG}"}, Medium(Kind.PDF, size=75_000)),
        ({"file_data": f"data:text/csv;base64,{LONG}"}, Medium(Kind.TEXT, size=75_000)),
        ({"file_data": LONG}, Medium(Kind.DOCUMENT, size=75_000)),
        ({"file_data": "https://example.com/a.pdf"}, Medium(Kind.PDF, by_url=True)),
    ],
    ids=["pdf", "csv", "bare", "address"],
)
def test_the_bytes_of_a_document_are_no_text(file: dict[str, Any], medium: Medium) -> None:
    """Chat and Responses have it in different places; the whole context window is held for it in both."""
    for shape in (
        chat(messages=content({"type": "file", "file": {"filename": "a", **file}})),
        responses(input=content({"type": "input_file", "filename": "a", **file})),
    ):
        assert shape.text_bytes < 300
        assert (shape.media, shape.whole_context) == ({medium: 1}, True)


def test_how_closely_a_picture_is_looked_at_is_read() -> None:
    """`detail` stands in `image_url` in Chat, beside it in Responses; a screenshot has it too."""
    url = f"data:image/png;base64,{PNG}"
    sized = Medium(Kind.PICTURE, width=9, height=7)
    assert chat(messages=content({"type": "image_url", "image_url": {"url": url, "detail": "low"}})).media == {
        sized._replace(detail="low"): 1
    }
    part = {"type": "input_image", "image_url": url, "detail": "original"}
    screenshot = {"type": "computer_screenshot", "image_url": url, "detail": "high"}
    given = [
        {"role": "user", "content": [part, {"type": "input_image", "image_url": url}]},
        {"type": "computer_call_output", "call_id": "c", "output": screenshot},
    ]
    assert responses(input=given).media == {sized._replace(detail=detail): 1 for detail in ("original", "", "high")}


def test_a_document_that_is_sent_as_a_picture_holds_the_whole_context() -> None:
    """What the bytes are counts, not what they are declared as."""
    url = "data:image/png;base64," + b64encode(b"%PDF-1.7 and so on").decode()
    shape = chat(messages=content({"type": "image_url", "image_url": {"url": url}}))
    assert ([medium.kind for medium in shape.media], shape.whole_context) == ([Kind.PDF], True)


def test_documents_in_tool_results_are_found() -> None:
    """The output of a function call may hold images and files too."""
    output = [
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
        {"type": "input_image", "image_url": IMAGE},
    ]
    shape = responses(input=[*HELLO, {"type": "function_call_output", "call_id": "c", "output": output}])
    assert (shape.whole_context, shape.messages) == (True, 2)
    assert shape.media == {Medium(Kind.PDF, by_url=True): 1, Medium(Kind.PICTURE): 1}


def test_embeddings_have_no_output() -> None:
    """Embedding requests are read in each of their input forms."""
    for given_input, count in (("text", 1), (["a", "b"], 2), ([1, 2, 3], 3), ([[1], [2]], 2)):
        shape = inspect(EMBEDDINGS, input=given_input)
        assert (shape.output, shape.output_bound, shape.messages) == (False, None, count)
    with pytest.raises(Refusal, match="'input' must be"):
        inspect(EMBEDDINGS, input=[])


INVALID: list[tuple[str, Callable[[], Shape]]] = [
    ("n", lambda: chat(n=1000)),
    ("n", lambda: chat(n=0)),
    ("n", lambda: chat(n=True)),
    ("max_tokens", lambda: chat(max_tokens=-1)),
    ("max_completion_tokens", lambda: chat(max_completion_tokens=0)),
    ("max_output_tokens", lambda: responses(max_output_tokens=10**9)),
    ("stream", lambda: chat(stream="yes")),
    ("stream_options", lambda: chat(stream_options=[1])),
    ("stream_options.include_usage", lambda: chat(stream_options={"include_usage": 1})),
    ("model", lambda: inspect(CHAT, model=None, messages=HELLO)),
    ("messages", lambda: chat(messages=[])),
    ("messages", lambda: chat(messages="hello")),
    ("messages[0]", lambda: chat(messages=["hello"])),
    ("messages[0].content[0]", lambda: chat(messages=content("hello"))),
    ("messages[0].content[0].type", lambda: chat(messages=content({"type": ["text"]}))),
    ("messages[0].content[0].image_url", lambda: chat(messages=content({"type": "image_url"}))),
    (
        "messages[0].content[0].image_url.URL",
        lambda: chat(messages=content({"type": "image_url", "image_url": {"url": "data:,", "URL": "https://x"}})),
    ),
    ("tools[0].type", lambda: chat(tools=[{"name": "f"}])),
    ("input", lambda: responses(input=5)),
    ("instructions", lambda: responses(instructions=[{"type": "input_image", "image_url": "https://example.com"}])),
    ("Max_Tokens", lambda: chat(Max_Tokens=5)),
    ("Store", lambda: responses(Store=True)),
]


@pytest.mark.parametrize(("param", "call"), INVALID, ids=[f"{i}-{p}" for i, (p, _) in enumerate(INVALID)])
def test_wrong_values_are_refused_by_name(param: str, call: Callable[[], Shape]) -> None:
    """A malformed field is `invalid_request`, and the refusal names it."""
    with pytest.raises(Refusal) as caught:
        call()
    assert (caught.value.type, caught.value.param) == (RefusalType.INVALID_REQUEST, param)


UNSUPPORTED: list[tuple[str, Callable[[], Shape]]] = [
    ("previous_response_id", lambda: responses(previous_response_id="resp_1")),
    ("conversation", lambda: responses(conversation={"id": "conv_1"})),
    ("prompt", lambda: responses(prompt={"id": "pmpt_1"})),
    ("background", lambda: responses(background=True)),
    ("store", lambda: responses(store=True)),
    ("store", lambda: chat(store=True)),
    ("service_tier", lambda: chat(service_tier="priority")),
    ("service_tier", lambda: responses(service_tier="flex")),
    ("web_search_options", lambda: chat(web_search_options={"search_context_size": "low"})),
    ("modalities", lambda: chat(modalities=["text", "audio"])),
    ("audio", lambda: chat(audio={"voice": "ash", "format": "wav"})),
    ("prediction", lambda: chat(prediction={"type": "content", "content": "x"})),
    ("best_of", lambda: chat(best_of=5)),
    ("moderation", lambda: chat(moderation={"model": "omni"})),
    ("context_management", lambda: responses(context_management=[{"type": "compaction"}])),
    ("prompt_cache_options.ttl", lambda: chat(prompt_cache_options={"ttl": "12h"})),
    (
        "prompt_cache_options.comparison_response_id",
        lambda: responses(prompt_cache_options={"comparison_response_id": "r"}),
    ),
    ("messages[0].audio", lambda: chat(messages=[{"role": "assistant", "audio": {"id": "a"}}])),
    ("messages[0].content[0].type", lambda: chat(messages=content({"type": "input_audio", "input_audio": {}}))),
    ("messages[0].content[0].type", lambda: chat(messages=content({"type": "hologram"}))),
    ("messages[0].content[0].file.file_id", lambda: chat(messages=content({"type": "file", "file": {"file_id": "f"}}))),
    (
        "messages[0].content[0].prompt_cache_breakpoint.ttl",
        lambda: chat(messages=content({"type": "text", "prompt_cache_breakpoint": {"ttl": "12h"}})),
    ),
    ("input[0].content[0].file_id", lambda: responses(input=content({"type": "input_file", "file_id": "f"}))),
    ("input[0].content[0].file_id", lambda: responses(input=content({"type": "input_image", "file_id": "f"}))),
    (
        "input[0].output[0].file_id",
        lambda: responses(
            input=[{"type": "computer_call_output", "output": {"type": "computer_screenshot", "file_id": "f"}}]
        ),
    ),
    ("input[0].type", lambda: responses(input=[{"type": "item_reference", "id": "msg_1"}])),
    ("input[0]", lambda: responses(input=[{"id": "msg_1"}])),
    ("input[0]", lambda: responses(input=[{"id": "msg_1", "role": "user", "type": None}])),
    ("input[0]", lambda: responses(input=[{"id": "msg_1", "role": "assistant", "content": None}])),
    ("input[0]", lambda: responses(input=[{"type": "reasoning", "id": "rs_1", "summary": []}])),
    ("input[0]", lambda: responses(input=[{"type": "compaction", "id": "cmp_1"}])),
    ("input[0].type", lambda: responses(input=[{"type": "mcp_approval_response", "approve": True}])),
    ("input[0].tools[0].type", lambda: responses(input=[{"type": "additional_tools", "tools": [{"type": "mcp"}]}])),
    ("tools[0].type", lambda: chat(tools=[{"type": "web_search"}])),
    ("tools[0].environment", lambda: responses(tools=[{"type": "shell", "environment": {"type": "container_auto"}}])),
    (
        "tools[0].tools[0].type",
        lambda: responses(tools=[{"type": "namespace", "name": "n", "tools": [{"type": "file_search"}]}]),
    ),
    *[
        ("tools[0].type", lambda kind=kind: responses(tools=[{"type": kind}]))
        for kind in (
            "web_search",
            "web_search_preview",
            "file_search",
            "code_interpreter",
            "image_generation",
            "mcp",
            "tool_search",
            "programmatic_tool_calling",
            "a_tool_of_tomorrow",
        )
    ],
]


@pytest.mark.parametrize(("param", "call"), UNSUPPORTED, ids=[f"{i}-{p}" for i, (p, _) in enumerate(UNSUPPORTED)])
def test_what_cannot_be_metered_is_refused_by_name(param: str, call: Callable[[], Shape]) -> None:
    """Provider-side state and anything without a price is `unsupported_feature`, with the field and a reason."""
    with pytest.raises(Refusal) as caught:
        call()
    assert (caught.value.type, caught.value.param) == (RefusalType.UNSUPPORTED_FEATURE, param)
    assert f"'{param}' is not supported here: " in caught.value.message


@pytest.mark.parametrize(
    ("item", "cure"),
    [
        ({"type": "item_reference", "id": "msg_1"}, "when told store: false"),
        ({"id": "msg_1"}, "when told store: false"),
        ({"type": "compaction", "id": "cmp_1"}, "needs its encrypted_content"),
        ({"type": "reasoning", "id": "rs_1", "summary": []}, "include: ['reasoning.encrypted_content']"),
    ],
)
def test_what_refers_to_an_earlier_turn_is_refused_with_the_cure(item: dict[str, Any], cure: str) -> None:
    """Nothing is kept for a tenant at the provider; the caller learns how to send it along."""
    with pytest.raises(Refusal) as caught:
        responses(input=[item])
    assert cure in caught.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {"store": False, "service_tier": "auto", "background": False, "previous_response_id": None},
        {"include": ["reasoning.encrypted_content"], "reasoning": {"effort": "low"}, "tools": []},
        {"prompt_cache_retention": "24h", "prompt_cache_options": {"ttl": "30m"}, "service_tier": "default"},
        {
            "tools": [
                {"type": "shell", "environment": {"type": "local"}},
                {"type": "apply_patch"},
                {"type": "local_shell"},
            ]
        },
        {"tools": [{"type": "tool_search", "execution": "client"}, {"type": "custom", "name": "c"}]},
        {"input": [{"type": "reasoning", "encrypted_content": "x"}, {"type": "function_call", "arguments": "{}"}]},
        {"input": [{"type": "shell_call_output", "output": [{"stdout": "a", "stderr": ""}]}]},
        {"input": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]}]},
    ],
)
def test_harmless_features_pass(fields: dict[str, Any]) -> None:
    """What changes no price and refers to no state is forwarded."""
    assert responses(**fields).output


NAMES = [
    *("model", "messages", "input", "content", "type", "tools", "n", "stream", "stream_options", "output", "store"),
    *("max_tokens", "image_url", "url", "file", "file_id", "environment", "role", "prompt_cache_options", "modalities"),
    *("prompt_cache_breakpoint", "functions", "instructions", "audio", "Model", "include_usage", "execution"),
]
VALUES = ["text", "image_url", "input_image", "input_file", "function", "namespace", "message", "reasoning", "m", IMAGE]
HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(VALUES) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=30,
)


@given(st.sampled_from(openai.ENDPOINTS), st.dictionaries(st.sampled_from(NAMES), HOSTILE), st.booleans())
def test_any_object_ends_in_a_shape_or_a_refusal(endpoint: str, body: dict[str, Any], named: bool) -> None:
    """No body makes the reader fail otherwise, and what passes can be rewritten."""
    if named:
        body = {"messages": HELLO, "input": "x", **body, "model": "m"}
    try:
        outcome: object = openai.inspect(endpoint, body, 10_000, None)
        openai.rewrite(endpoint, body, upstream_model="u", output_bound=5, include_usage=True)
    except Refusal as refusal:
        outcome = refusal.type
    assert isinstance(outcome, Shape) or outcome in (RefusalType.INVALID_REQUEST, RefusalType.UNSUPPORTED_FEATURE)


def rewrite(
    endpoint: str, body: dict[str, Any], bound: int | None = None, usage: bool = False
) -> dict[str, Any] | None:
    before = json.dumps(body)
    changed = openai.rewrite(endpoint, body, upstream_model="up", output_bound=bound, include_usage=usage)
    assert json.dumps(body) == before, "the input was changed"
    return changed


def test_body_that_needs_no_change_is_forwarded_as_it_came() -> None:
    """Nothing to change gives None, so the raw bytes go on."""
    assert rewrite(CHAT, {"model": "up", "messages": HELLO}) is None
    assert rewrite(RESPONSES, {"model": "up", "input": "x", "store": False}) is None
    assert rewrite(EMBEDDINGS, {"model": "up", "input": "x"}, bound=9) is None


def test_only_what_policy_decides_is_changed() -> None:
    """The upstream's model name, the default bound and the wish for usage are put in; all else stays."""
    body = {
        "model": "m",
        "messages": HELLO,
        "stream": True,
        "seed": 7,
        "stream_options": {"include_obfuscation": False},
    }
    assert rewrite(CHAT, body, 100, True) == {
        **body,
        "model": "up",
        "max_completion_tokens": 100,
        "stream_options": {"include_obfuscation": False, "include_usage": True},
    }


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_explicit_bound_is_never_touched(name: str) -> None:
    """A bound that the caller gave stays alone, under either name."""
    assert rewrite(CHAT, {"model": "up", name: 5}, 100) is None


def test_responses_are_not_stored() -> None:
    """OpenAI stores responses by default, so an absent `store` is sent as false."""
    assert rewrite(RESPONSES, {"model": "up", "input": "x", "store": None}, 10) == {
        "model": "up",
        "input": "x",
        "store": False,
        "max_output_tokens": 10,
    }


@given(HOSTILE)
def test_garbage_instead_of_usage_is_no_usage(value: object) -> None:
    """Reading usage never fails, and no count is ever negative."""
    for answer in ({"usage": value}, {"usage": {"prompt_tokens": 5, "prompt_tokens_details": value}}):
        report = openai.usage_of(CHAT, answer)
        assert report is None or report.usage.input_tokens >= report.usage.cached_input_tokens >= 0


def test_zeros_after_a_good_usage_do_not_replace_it() -> None:
    """A stream's last usage counts, unless it is of zeros."""
    meter = openai.Meter(CHAT, sse=True)
    zeros = {"prompt_tokens": 0, "completion_tokens": 0}
    meter.feed(sse(chunk("hi", finish="stop"), USAGE_CHUNK, USAGE_CHUNK | {"usage": zeros}, "[DONE]"))
    assert used(meter.report) == Usage(input_tokens=9, output_tokens=2)


LOGPROBS = ["message.output_text.logprobs"]


def sse(*events: dict[str, Any] | str) -> bytes:
    lines = []
    for event in events:
        if isinstance(event, str):
            lines.append(f"data: {event}\n\n")
        elif event.get("type"):
            lines.append(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n")
        else:
            lines.append(f"data: {json.dumps(event)}\n\n")
    return "".join(lines).encode()


def chunk(text: str | None = None, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": {"content": text} if text is not None else {}, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice], "usage": None, **more}


USAGE_CHUNK = {
    "id": "chatcmpl-1",
    "choices": [],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}


def test_chat_stream_passes_all_but_its_end() -> None:
    """Every chunk passes unchanged at once; only [DONE] waits."""
    data = sse(chunk("he"), chunk("llo"), chunk(finish="stop"), USAGE_CHUNK)
    meter = openai.Meter(CHAT, sse=True)
    assert b"".join(meter.feed(data + sse("[DONE]"))) == data
    assert meter.complete
    assert not meter.failed
    assert meter.started
    assert used(meter.report) == Usage(input_tokens=9, output_tokens=2)
    assert meter.response_id == "chatcmpl-1"
    assert meter.finish() == [sse("[DONE]")]


def test_nothing_overtakes_what_is_kept_back() -> None:
    """A comment after the end waits with it, so the order of bytes stays."""
    meter = openai.Meter(CHAT, sse=True)
    end = sse("[DONE]") + b": bye\n\n"
    assert meter.feed(sse(chunk("hi")) + end) == [sse(chunk("hi"))]
    assert b"".join(meter.finish()) == end


def test_usage_that_was_not_asked_for_is_dropped() -> None:
    """The usage chunk is read and swallowed; a chunk that has choices is never dropped."""
    data = sse(chunk("hi", finish="stop", usage={"prompt_tokens": 9, "completion_tokens": 1}))
    meter = openai.Meter(CHAT, sse=True, drop_usage=True)
    assert b"".join(meter.feed(data + sse(USAGE_CHUNK) + sse("[DONE]"))) == data
    assert used(meter.report) == Usage(input_tokens=9, output_tokens=2)


@given(st.lists(st.text(), min_size=1), st.integers(min_value=1, max_value=50))
def test_chat_stream_is_the_same_at_any_chunking(texts: list[str], size: int) -> None:
    """What passes and what is kept back is the whole stream, and the estimate is that of its text."""
    data = sse(*(chunk(text) for text in texts), chunk(finish="length"), "[DONE]")
    meter = openai.Meter(CHAT, sse=True)
    passed = [piece for start in range(0, len(data), size) for piece in meter.feed(data[start : start + size])]
    assert b"".join(passed + meter.finish()) == data
    assert meter.output_seen == -(-len("".join(texts).encode()) // 4)


def test_stream_without_done_is_complete_when_all_choices_finished() -> None:
    """Servers that send no [DONE] end cleanly after the last finish reason, and not before."""
    meter = openai.Meter(CHAT, sse=True, choices=2)
    meter.feed(sse(chunk("a"), chunk(finish="stop")))
    seen = [meter.complete]
    meter.feed(sse(chunk(finish="stop", index=1)))
    seen.append(meter.complete)
    assert seen == [False, True]
    assert meter.finish() == []


def test_truncated_stream_is_not_complete() -> None:
    """A body that ends before the answer does is told from one that is whole."""
    meter = openai.Meter(CHAT, sse=True)
    meter.feed(sse(chunk("a"), chunk("b")))
    assert meter.finish() == []
    assert not meter.complete
    assert meter.report is None


def test_done_without_an_empty_line_still_ends_the_stream() -> None:
    """Some servers forget the last line end."""
    meter = openai.Meter(CHAT, sse=True)
    meter.feed(sse(chunk("a")) + b"data: [DONE]")
    assert meter.finish() == [b"data: [DONE]"]
    assert meter.complete


def test_error_in_a_chat_stream_is_kept_back_as_a_failure() -> None:
    """The provider's own error is the end of the stream, and no regular one."""
    meter = openai.Meter(CHAT, sse=True)
    error = sse({"error": {"message": "overloaded", "type": "server_error"}}, "[DONE]")
    assert meter.feed(sse(chunk("a")) + error) == [sse(chunk("a"))]
    assert meter.failed
    assert not meter.complete
    assert b"".join(meter.finish()) == error


def test_text_that_looks_like_an_end_is_text() -> None:
    """Quoted markers inside an answer mean nothing."""
    text = 'data: [DONE] "finish_reason":"stop" "usage":{"prompt_tokens":5} "error":{}'
    data = sse(chunk("x"), chunk(text))
    meter = openai.Meter(CHAT, sse=True)
    assert b"".join(meter.feed(data)) == data
    assert (meter.complete, meter.failed, meter.report) == (False, False, None)


def test_tool_arguments_and_reasoning_count_as_output() -> None:
    """The estimate covers all that a delta can carry."""
    delta = {
        "reasoning_content": "12345678",
        "tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "1234"}}],
        "refusal": "1234",
    }
    meter = openai.Meter(CHAT, sse=True)
    meter.feed(sse({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}))
    assert meter.output_seen == 4


def test_long_streams_do_not_pile_up() -> None:
    """Deltas are counted and let go from time to time, without changing the estimate."""
    meter = openai.Meter(CHAT, sse=True)
    data = sse(chunk("x" * 1000))
    for _ in range(1000):
        meter.feed(data)
    assert sum(len(piece) for piece in meter._deltas) < 300_000
    assert meter.output_seen == 250_000


RESPONSE = {"id": "resp_1", "usage": {"input_tokens": 5, "output_tokens": 3}}
CREATED = {"type": "response.created", "response": {"id": "resp_1", "usage": None}}
DELTA = {"type": "response.output_text.delta", "delta": "hello!!!"}


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed"])
@pytest.mark.parametrize("named", [True, False])
def test_responses_stream_waits_with_its_last_event(end: str, named: bool) -> None:
    """All three ends are kept back, with or without event names, and bring the usage."""
    events: list[dict[str, Any]] = [CREATED, DELTA, {"type": f"response.{end}", "response": RESPONSE}]
    *_, last = [sse(event if named else json.dumps(event)) for event in events]
    data = b"".join(sse(event if named else json.dumps(event)) for event in events[:-1])
    meter = openai.Meter(RESPONSES, sse=True)
    assert b"".join(meter.feed(data + last)) == data
    assert meter.finish() == [last]
    assert meter.complete
    assert meter.failed == (end == "failed")
    assert used(meter.report) == Usage(input_tokens=5, output_tokens=3)
    assert (meter.response_id, meter.output_seen) == ("resp_1", 2)


def test_error_event_in_a_responses_stream_is_a_failure() -> None:
    """Responses have an error event of their own."""
    error = sse({"type": "error", "code": "server_error", "message": "m", "param": None, "sequence_number": 2})
    meter = openai.Meter(RESPONSES, sse=True)
    assert meter.feed(sse(CREATED) + error) == [sse(CREATED)]
    assert (meter.failed, meter.complete) == (True, False)
    assert meter.finish() == [error]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (RefusalType.API_KEY_QUOTA_EXCEEDED, "insufficient_quota"),
        (RefusalType.BILLING_SHORTFALL, "insufficient_quota"),
        (RefusalType.UNSUPPORTED_FEATURE, "invalid_prompt"),
        (RefusalType.UPSTREAM_TIMEOUT, "server_error"),
        (RefusalType.UNAVAILABLE, "server_error"),
    ],
)
def test_a_failed_response_says_whether_another_try_can_help(kind: RefusalType, code: str) -> None:
    """Codex asks again after `server_error` alone."""
    event = openai.error_event(Refusal(kind, "no"), "req_1", sse=True, endpoint=RESPONSES, started=True)
    assert json.loads(event.partition(b"data: ")[2])["response"]["error"]["code"] == code


@pytest.mark.parametrize(
    ("model", "asked", "sent"),
    [
        ("gpt-5.5", {}, ["reasoning.encrypted_content"]),
        ("openai/o4-mini", {"include": ["message.output_text.logprobs"]}, [*LOGPROBS, "reasoning.encrypted_content"]),
        ("gpt-oss-120b", {"reasoning": {"effort": "low"}}, ["reasoning.encrypted_content"]),
        ("gpt-5.5", {"reasoning": {"effort": "none"}}, None),
        ("gpt-5-chat-latest", {}, None),
        ("gpt-4.1", {}, None),
        ("grok-4.1-fast", {}, ["reasoning.encrypted_content"]),
        ("grok-4-fast-non-reasoning", {}, None),
        ("gpt-5.5", {"store": False}, None),
        ("gpt-5.5", {"include": ["reasoning.encrypted_content"]}, ["reasoning.encrypted_content"]),
    ],
)
def test_reasoning_that_is_not_stored_is_asked_for(model: str, asked: dict[str, Any], sent: list[str] | None) -> None:
    """Where we add `store: false` the caller could not send it back otherwise; who says `store` himself knows."""
    body = {"model": model, "input": "x", **asked}
    changed = openai.rewrite(RESPONSES, body, upstream_model=model, output_bound=None, include_usage=True) or body
    assert changed.get("include") == sent


@pytest.mark.parametrize(
    ("endpoint", "last"), [(RESPONSES, [{"type": "compaction_trigger"}]), ("responses/compact", [])]
)
def test_a_compaction_is_as_long_as_the_model_makes_it(endpoint: str, last: list[dict[str, Any]]) -> None:
    """No bound of the request is held in place of the model's; and its words are never seen, as reasoning is not."""
    shape = inspect(endpoint, input=[*HELLO, *last], max_output_tokens=16)
    assert (shape.compacts, shape.output_bound, shape.reasoning) == (True, None, True)
    assert not responses(input=HELLO, max_output_tokens=16).compacts


def test_upstream_is_addressed_below_its_base() -> None:
    """Paths are relative to a base URL with /v1, and the credential goes into the bearer header."""
    assert openai.upstream_path(CHAT, "m", stream=True) == "/chat/completions"
    assert openai.auth_headers("secret") == {"authorization": "Bearer secret"}
    assert openai.response_id_of({"id": "x"}) == "x"
    assert openai.response_id_of({"id": 5}) is None
