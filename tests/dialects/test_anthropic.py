"""Anthropic's wire format: what is read, what is refused, what is forwarded, and how a stream is watched."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.usages import used
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.usage import Usage
from toolkit.dialects import anthropic
from toolkit.dialects.body import parse_object
from toolkit.dialects.media import Kind, Medium
from toolkit.dialects.shape import Shape

MESSAGES, COUNT = "messages", "messages/count_tokens"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
PNG = {"type": "base64", "media_type": "image/png", "data": "A" * 5000}


def inspect(endpoint: str = MESSAGES, **fields: Any) -> Shape:
    body = json.dumps({"model": "m", "max_tokens": 10, "messages": HELLO, **fields}).encode()
    return anthropic.inspect(endpoint, parse_object(body), len(body), None)


def content(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def test_request_is_read() -> None:
    """Every fact that a price can depend on is taken from the body."""
    body = {
        "model": "claude-x",
        "max_tokens": 50,
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [*HELLO, {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}],
        "tools": [{"name": "f", "input_schema": {}}, {"type": "bash_20250124", "name": "bash"}],
        "stream": True,
    }
    raw = json.dumps(body).encode()
    assert anthropic.inspect(MESSAGES, body, len(raw), None) == Shape(
        endpoint=MESSAGES,
        model="claude-x",
        stream=True,
        free=False,
        text_bytes=len(raw),
        messages=3,
        tools=2,
        media={},
        whole_context=False,
        choices=1,
        output_bound=50,
        output=True,
        usage_asked=True,
        long_cache=True,
        standard_tier="standard_only",
    )


@pytest.mark.parametrize("ttl", ["1h", "5m", None])
def test_the_longest_cache_that_is_asked_for_is_known(ttl: str | None) -> None:
    """In the body, a block, the result of a tool or a tool."""
    control = {"cache_control": {"type": "ephemeral"} | ({"ttl": ttl} if ttl else {})}
    text = {"type": "text", "text": "x", **control}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [text]}
    for asked in (
        control,
        {"system": [text]},
        {"messages": content(text)},
        {"messages": content(result)},
        {"tools": [{"name": "f", "input_schema": {}, **control}]},
    ):
        assert inspect(**asked).long_cache == (ttl == "1h")


def test_counting_tokens_is_free_and_needs_no_bound() -> None:
    """Token counting has no output, and `max_tokens` does not belong to it."""
    body = {"model": "m", "messages": HELLO}
    shape = anthropic.inspect(COUNT, body, 40, None)
    assert (shape.free, shape.output, shape.output_bound) == (True, False, None)
    with pytest.raises(Refusal, match="'max_tokens' is missing"):
        anthropic.inspect(MESSAGES, body, 40, None)


def test_inline_pictures_are_counted_wherever_they_stand() -> None:
    """Pictures in messages and in the results of tools are counted by piece, not by length."""
    image = {"type": "image", "source": PNG}
    shape = inspect(messages=content(image, {"type": "tool_result", "tool_use_id": "t", "content": [image]}))
    assert (shape.media, shape.whole_context) == ({Medium(Kind.PICTURE): 2}, False)
    assert shape.text_bytes < 400


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "image", "source": PNG}]}},
    ],
)
def test_parts_of_unknown_size_take_the_whole_context(block: dict[str, Any]) -> None:
    """What only the provider can count is held as the whole context window, inside tool results too."""
    assert inspect(messages=content(block)).whole_context
    for holder in ("tool_result", "search_result"):
        assert inspect(messages=content({"type": holder, "content": [block]})).whole_context


def test_the_bytes_of_a_document_are_no_text_but_its_text_is() -> None:
    """Base64 says nothing of a document's tokens; a document that is text has its bytes, and pictures within."""
    data = "A" * 100_000
    source = {"type": "base64", "media_type": "application/pdf", "data": data}
    shape = inspect(messages=content({"type": "tool_result", "content": [{"type": "document", "source": source}]}))
    assert (shape.media, shape.text_bytes < 400) == ({Medium(Kind.PDF, size=75_000): 1}, True)
    plain = {"type": "text", "media_type": "text/plain", "data": data}
    shape = inspect(messages=content({"type": "document", "source": plain}))
    assert (shape.media, shape.text_bytes > 100_000) == ({}, True)
    parts = {"type": "content", "content": [{"type": "image", "source": PNG}, {"type": "text", "text": "x"}]}
    assert inspect(messages=content({"type": "document", "source": parts})).media == {Medium(Kind.PICTURE): 1}


def test_media_by_address_are_counted() -> None:
    """Nothing of their size is known, but a picture is no document."""
    blocks = [
        {"type": kind, "source": {"type": "url", "url": "https://example.com/a"}} for kind in ("image", "document")
    ]
    assert inspect(messages=content(*blocks)).media == {
        Medium(Kind.PICTURE, by_url=True): 1,
        Medium(Kind.PDF, by_url=True): 1,
    }


PICTURE = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}

INVALID: list[tuple[str, Callable[[], Shape]]] = [
    ("max_tokens", lambda: inspect(max_tokens=-5)),
    ("max_tokens", lambda: inspect(max_tokens=True)),
    ("max_tokens", lambda: inspect(max_tokens=10**8)),
    ("model", lambda: inspect(model=5)),
    ("messages", lambda: inspect(messages=[])),
    ("messages[0]", lambda: inspect(messages=["x"])),
    ("stream", lambda: inspect(stream=1)),
    ("system", lambda: inspect(system=5)),
    ("Max_Tokens", lambda: inspect(Max_Tokens=5)),
    ("cache_control.ttl", lambda: inspect(cache_control={"type": "ephemeral", "ttl": "1d"})),
    ("tools[0].cache_control.ttl", lambda: inspect(tools=[{"name": "f", "cache_control": {"ttl": 5}}])),
    (
        "messages[0].content[0].content[0].cache_control.ttl",
        lambda: inspect(
            messages=content({"type": "tool_result", "content": [{"type": "text", "cache_control": {"ttl": "2h"}}]})
        ),
    ),
    (
        "messages[0].content[0].source.type",
        lambda: inspect(messages=content({"type": "image", "source": {"type": "s3"}})),
    ),
    ("messages[0].content[0].type", lambda: inspect(messages=content({"type": {}}))),
    ("messages[0].content", lambda: inspect(messages=[{"role": "user", "content": PICTURE}])),
    (
        "messages[0].content[0].content",
        lambda: inspect(messages=content({"type": "tool_result", "content": PICTURE})),
    ),
    (
        "messages[0].content[0].source.content",
        lambda: inspect(messages=content({"type": "document", "source": {"type": "content", "content": PICTURE}})),
    ),
    (
        "messages[0].content[0].source.Type",
        lambda: inspect(messages=content({"type": "image", "source": {"type": "base64", "data": "", "Type": "url"}})),
    ),
]


@pytest.mark.parametrize(("param", "call"), INVALID, ids=[f"{i}-{p}" for i, (p, _) in enumerate(INVALID)])
def test_wrong_values_are_refused_by_name(param: str, call: Callable[[], Shape]) -> None:
    """A malformed field is `invalid_request`, and the refusal names it."""
    with pytest.raises(Refusal) as caught:
        call()
    assert (caught.value.type, caught.value.param) == (RefusalType.INVALID_REQUEST, param)


UNSUPPORTED: list[tuple[str, Callable[[], Shape]]] = [
    ("container", lambda: inspect(container="c_1")),
    ("mcp_servers", lambda: inspect(mcp_servers=[{"type": "url", "url": "https://example.com"}])),
    ("thread", lambda: inspect(thread={"type": "create"})),
    ("fallbacks", lambda: inspect(fallbacks="default")),
    ("fallback_credit_token", lambda: inspect(fallback_credit_token="t")),
    ("billing_policy", lambda: inspect(billing_policy={"type": "billing_policy", "bill_to": "user_profile"})),
    ("compaction", lambda: inspect(compaction={"type": "summary"})),
    ("service_tier", lambda: inspect(service_tier="priority")),
    ("speed", lambda: inspect(speed="fast")),
    ("speed", lambda: inspect(COUNT, speed="fast")),
    ("inference_geo", lambda: inspect(inference_geo="us")),
    ("diagnostics.previous_message_id", lambda: inspect(diagnostics={"previous_message_id": "msg_1"})),
    ("context_management.edits[0].type", lambda: inspect(context_management={"edits": [{"type": "compact_20260112"}]})),
    (
        "messages[0].content[0].source.type",
        lambda: inspect(messages=content({"type": "document", "source": {"type": "file", "file_id": "f"}})),
    ),
    (
        "messages[0].content[0].content[0].source.type",
        lambda: inspect(
            messages=content(
                {"type": "tool_result", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}
            )
        ),
    ),
    ("messages[0].content[0].type", lambda: inspect(messages=content({"type": "container_upload", "file_id": "f"}))),
    ("messages[0].content[0].type", lambda: inspect(messages=content({"type": "server_tool_use"}))),
    ("messages[0].content[0].type", lambda: inspect(messages=content({"type": "a_block_of_tomorrow"}))),
    *[
        ("tools[0].type", lambda kind=kind: inspect(tools=[{"type": kind, "name": "t"}]))
        for kind in (
            "web_search_20250305",
            "web_fetch_20260318",
            "code_execution_20260521",
            "tool_search_tool_regex_20251119",
            "mcp_toolset",
            "advisor_20260301",
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
    "fields",
    [
        {"service_tier": "standard_only", "speed": "standard", "inference_geo": "global", "container": None},
        {"diagnostics": {"previous_message_id": None}, "mcp_servers": [], "thinking": {"type": "adaptive"}},
        {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
        {
            "tools": [
                {"type": kind} for kind in ("custom", "text_editor_20250728", "computer_20251124", "memory_20250818")
            ]
        },
        {"messages": content({"type": "thinking", "thinking": "x"}, {"type": "tool_use", "id": "t", "input": {}})},
    ],
)
def test_harmless_features_pass(fields: dict[str, Any]) -> None:
    """What changes no price and refers to no state is forwarded."""
    assert inspect(**fields).output


NAMES = [
    *(
        "model",
        "messages",
        "content",
        "type",
        "tools",
        "stream",
        "system",
        "max_tokens",
        "source",
        "data",
        "media_type",
    ),
    *("cache_control", "ttl", "diagnostics", "context_management", "edits", "container", "role", "speed", "Model"),
]
VALUES = ["text", "image", "document", "tool_result", "base64", "content", "url", "image/png", "5m", "m", "custom"]
HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(VALUES) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=30,
)


@given(st.sampled_from(anthropic.ENDPOINTS), st.dictionaries(st.sampled_from(NAMES), HOSTILE), st.booleans())
def test_any_object_ends_in_a_shape_or_a_refusal(endpoint: str, body: dict[str, Any], named: bool) -> None:
    """No body makes the reader fail otherwise, and what passes can be rewritten."""
    if named:
        body = {"messages": HELLO, **body, "model": "m", "max_tokens": 5}
    try:
        outcome: object = anthropic.inspect(endpoint, body, 10_000, None)
        anthropic.rewrite(endpoint, body, upstream_model="u", output_bound=5, include_usage=True)
    except Refusal as refusal:
        outcome = refusal.type
    assert isinstance(outcome, Shape) or outcome in (RefusalType.INVALID_REQUEST, RefusalType.UNSUPPORTED_FEATURE)


def test_only_the_model_is_rewritten() -> None:
    """The bound is the caller's own, so only the model's name ever changes, in a copy."""
    body = {"model": "m", "max_tokens": 5, "messages": HELLO}
    changed = anthropic.rewrite(MESSAGES, body, upstream_model="up", output_bound=9, include_usage=True)
    assert changed == {**body, "model": "up"}
    assert body["model"] == "m"
    assert anthropic.rewrite(MESSAGES, body, upstream_model="m", output_bound=9, include_usage=True) is None


def test_usage_is_normalised_to_all_input() -> None:
    """The wire's input leaves out what the cache read and wrote; ours does not."""
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 1000,
        "cache_creation": {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 600},
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 30},
        "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 3},
    }
    assert used(anthropic.usage_of(MESSAGES, {"usage": usage})) == Usage(
        input_tokens=1110,
        cached_input_tokens=100,
        cache_write_5m_tokens=400,
        cache_write_1h_tokens=600,
        output_tokens=50,
        reasoning_tokens=30,
    )
    assert anthropic.usage_of(COUNT, {"input_tokens": 5, "usage": usage}) is None


@pytest.mark.parametrize(
    ("total", "split", "short", "long"),
    [
        (70, None, 70, 0),
        (70, {}, 70, 0),
        (70, {"ephemeral_1h_input_tokens": 30}, 40, 30),
        (20, {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 30}, 10, 30),
        (None, {"ephemeral_5m_input_tokens": 10}, 10, 0),
        (None, {"ephemeral_5m_input_tokens": -10}, 0, 0),
    ],
)
def test_cache_writes_without_a_life_count_as_five_minutes(total: object, split: object, short: int, long: int) -> None:
    """The larger of total and split is charged, and what the split leaves open is the short cache's."""
    usage = {"input_tokens": 1, "cache_creation_input_tokens": total, "cache_creation": split}
    assert used(anthropic.usage_of(MESSAGES, {"usage": usage})) == Usage(
        input_tokens=1 + short + long, cache_write_5m_tokens=short, cache_write_1h_tokens=long
    )


@given(HOSTILE)
def test_garbage_instead_of_usage_never_fails(value: object) -> None:
    """Reading usage never raises, whatever came."""
    anthropic.usage_of(MESSAGES, {"usage": value})
    answer = {"usage": {"input_tokens": 1, "cache_creation": value, "output_tokens": "9"}}
    assert used(anthropic.usage_of(MESSAGES, answer)).output_tokens == 9


def sse(*events: dict[str, Any]) -> bytes:
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def start(**usage: Any) -> dict[str, Any]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    return {"type": "message_start", "message": message}


def delta(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
PING, STOP = {"type": "ping"}, {"type": "message_stop"}


def ending(**usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}


def test_stream_passes_all_but_its_end() -> None:
    """Every event passes unchanged at once; only message_stop waits."""
    data = sse(start(input_tokens=9, output_tokens=1), BLOCK, PING, delta("hello!!!"), ending(output_tokens=7))
    meter = anthropic.Meter(MESSAGES, sse=True)
    assert b"".join(meter.feed(data + sse(STOP))) == data
    assert meter.finish() == [sse(STOP)]
    assert (meter.complete, meter.failed, meter.response_id) == (True, False, "msg_1")
    assert used(meter.report) == Usage(input_tokens=9, output_tokens=7)
    assert meter.output_seen == 2


def test_usage_of_a_stream_is_the_last_report_of_each_side() -> None:
    """Values are cumulative, so nothing is added up; an input side that is smaller than the one before is no report."""
    first = start(
        input_tokens=9,
        output_tokens=1,
        cache_read_input_tokens=100,
        cache_creation_input_tokens=20,
        cache_creation={"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 20},
    )
    meter = anthropic.Meter(MESSAGES, sse=True)
    meter.feed(sse(first))
    assert used(meter.report) == Usage(129, 100, 0, 20, 1)
    meter.feed(sse(ending(output_tokens=5, cache_read_input_tokens=None, input_tokens=12)))
    meter.feed(sse(ending(output_tokens=8), STOP))
    assert used(meter.report) == Usage(129, 100, 0, 20, 8)


@pytest.mark.parametrize(
    ("first", "last", "wanted"),
    [
        # Zeros for what the start had said.
        (
            {"input_tokens": 1_200, "cache_read_input_tokens": 5_000, "output_tokens": 1},
            {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 7},
            Usage(6_200, 5_000, output_tokens=7),
        ),
        # Relays of other models tell only at the end what was read from the cache: a maximum a field would be 17,665.
        (
            {"input_tokens": 8_834, "output_tokens": 0},
            {"input_tokens": 18, "cache_read_input_tokens": 8_831, "output_tokens": 7},
            Usage(8_849, 8_831, output_tokens=7),
        ),
        # The end says how much was written to the cache, and only the start for how long.
        (
            {"input_tokens": 1, "cache_creation": {"ephemeral_1h_input_tokens": 20, "ephemeral_5m_input_tokens": 10}},
            {"input_tokens": 1, "cache_creation_input_tokens": 30, "output_tokens": 7},
            Usage(31, 0, 10, 20, 7),
        ),
        ({"input_tokens": 3, "output_tokens": 1}, {"output_tokens": "x"}, Usage(3, output_tokens=1)),
    ],
)
def test_a_report_is_taken_as_a_whole(first: dict[str, Any], last: dict[str, Any], wanted: Usage) -> None:
    """The end's input side replaces the start's, all kinds of it, unless it is smaller or missing."""
    meter = anthropic.Meter(MESSAGES, sse=True)
    meter.feed(sse(start(**first), BLOCK, delta("hello"), ending(**last), STOP))
    assert used(meter.report) == wanted


def test_output_is_missing_until_the_end_says_it() -> None:
    """What the start says of output is a beginning; without an end that says more it is not the whole."""
    meter = anthropic.Meter(MESSAGES, sse=True)
    meter.feed(sse(start(input_tokens=3, output_tokens=1), BLOCK, delta("hello")))
    assert meter.report is not None
    assert meter.report.output_missing
    meter.feed(sse(ending(output_tokens=2)))
    assert not meter.report.output_missing


def test_text_deltas_are_counted_by_kind() -> None:
    """Thinking, tool arguments and text are all output."""


@given(st.lists(st.text(), min_size=1), st.integers(min_value=1, max_value=60))
def test_stream_is_the_same_at_any_chunking(texts: list[str], size: int) -> None:
    """What passes and what is kept back is the whole stream, and the estimate is that of its text."""
    data = sse(start(input_tokens=1), BLOCK, *(delta(text) for text in texts), ending(output_tokens=2), STOP)
    meter = anthropic.Meter(MESSAGES, sse=True)
    passed = [piece for at in range(0, len(data), size) for piece in meter.feed(data[at : at + size])]
    assert b"".join(passed) == data[: -len(sse(STOP))]
    assert b"".join(passed + meter.finish()) == data
    assert meter.output_seen == -(-len("".join(texts).encode()) // 4)


def test_thinking_and_tool_input_count_as_output() -> None:
    """The estimate covers all that a delta can carry."""
    meter = anthropic.Meter(MESSAGES, sse=True)
    for part in ({"thinking": "12345678"}, {"partial_json": "1234"}, {"text": "1"}):
        meter.feed(sse({"type": "content_block_delta", "index": 0, "delta": part}))
    assert meter.output_seen == 4


TEXT = {"type": "text", "text": ""}
THOUGHT = {"type": "thinking", "thinking": "", "signature": "abc"}


@pytest.mark.parametrize(
    ("content", "usage", "refused"),
    [
        ([], {"input_tokens": 4_000, "output_tokens": 0}, True),
        ([], {"input_tokens": 4_000, "output_tokens": 1}, True),
        ([], {"input_tokens": 4_000}, True),
        ([], None, True),
        ([TEXT], {"input_tokens": 4_000, "output_tokens": 0}, True),
        ([{"type": "text", "text": "H"}], {"input_tokens": 4_000, "output_tokens": 0}, False),
        ([THOUGHT], {"input_tokens": 4_000, "output_tokens": 0}, False),
        ([{"type": "tool_use", "name": "f", "input": {}}], {"input_tokens": 4_000, "output_tokens": 0}, False),
        ([], {"input_tokens": 4_000, "output_tokens": 12}, False),
    ],
)
def test_a_refusal_before_any_output_is_told_apart(
    content: list[dict[str, Any]], usage: dict[str, Any] | None, refused: bool
) -> None:
    """Whole and streamed. Thoughts are output though they are not shown, and so are tokens that are reported alone."""
    answer = {"id": "x", "stop_reason": "refusal", "content": content, "usage": usage}
    whole = anthropic.usage_of(MESSAGES, answer)
    meter = anthropic.Meter(MESSAGES, sse=True)
    meter.feed(sse(start(input_tokens=4_000, output_tokens=1)))
    for index, block in enumerate(content):
        begun = {**block, "text": ""} if block["type"] == "text" else block
        meter.feed(sse({"type": "content_block_start", "index": index, "content_block": begun}))
        meter.feed(sse(delta(block["text"])) if block.get("text") else b"")
    last = {"type": "message_delta", "delta": {"stop_reason": "refusal"}, "usage": usage or {}}
    meter.feed(sse(last, STOP))
    assert whole is not None
    assert meter.report is not None
    assert (whole.refused, meter.report.refused) == (refused, refused)


def test_another_reason_to_stop_is_no_refusal() -> None:
    """An answer that says nothing is one."""
    usage = {"input_tokens": 4_000, "output_tokens": 0}
    report = anthropic.usage_of(MESSAGES, {"stop_reason": "end_turn", "content": [], "usage": usage})
    assert report is not None
    assert not report.refused


def test_truncated_stream_is_not_complete() -> None:
    """A body that ends without message_stop is told from one that is whole; its usage is what came."""
    meter = anthropic.Meter(MESSAGES, sse=True)
    meter.feed(sse(start(input_tokens=3, output_tokens=1), BLOCK, delta("x")) + b"event: content_block_delta\nda")
    assert b"".join(meter.finish()) == b"event: content_block_delta\nda"
    assert not meter.complete
    assert used(meter.report) == Usage(input_tokens=3, output_tokens=1)


def test_error_event_is_kept_back_as_a_failure() -> None:
    """The provider's own error is the end of the stream, and no regular one."""
    error = sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    meter = anthropic.Meter(MESSAGES, sse=True)
    assert meter.feed(sse(PING) + error) == [sse(PING)]
    assert (meter.failed, meter.complete) == (True, False)
    assert meter.finish() == [error]


def test_upstream_is_addressed_below_its_base() -> None:
    """Paths are relative to a base URL without a version, and the credential has its own header."""
    assert anthropic.upstream_path(COUNT, "m", stream=False) == "/v1/messages/count_tokens"
    assert anthropic.auth_headers("secret") == {"x-api-key": "secret"}
    assert anthropic.response_id_of({"id": "msg_1"}) == "msg_1"


def test_a_thread_is_refused_by_the_code_that_the_sdks_obey() -> None:
    """Their tool runners begin with one; told so, they go on without."""
    with pytest.raises(Refusal) as caught:
        inspect(thread={"type": "create"})
    assert anthropic.error_body(caught.value, "req_1")["error"]["details"] == {
        "error_code": "thread_unsupported_request",
        "param": "thread",
    }
