"""Whatever stands in a stream, in whatever order: reading it never fails, and how it was cut changes nothing."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.dialect import Dialect
from toolkit.dialects import MODULES
from toolkit.dialects.meter import StreamMeter
from toolkit.dialects.sse import Framing, framing_of, has_begun

VALUES: list[object] = [
    {"id": "x", "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": ""}]},
    {"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"id": 7, "choices": "none", "usage": [], "candidates": {}, "error": None},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": -1}},
    {"choices": [{"error": {"message": "no"}}]},
    {"error": {"message": "no", "code": 500}},
    {"error": "no"},
    {"object": "error", "message": "no"},
    {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 1}}},
    {"type": "content_block_delta", "delta": {"text": "hi"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
    {"type": "error", "error": {"type": "api_error"}},
    {"type": "response.created", "response": {"id": "r", "error": None}},
    {"type": "response.output_text.delta", "delta": "hi"},
    {"type": "response.completed", "response": {"usage": {"input_tokens": 1, "output_tokens": 1}}},
    {"type": "response.failed", "response": {"error": {"code": "server_error"}}},
    {"candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}], "usageMetadata": {}},
    {"candidates": [{"finishReason": "", "content": None}], "promptFeedback": {"blockReason": ""}},
    [{"error": {"message": "no"}}],
    [],
    None,
    1,
    "error",
]
NAMES = ["", "event: error\n", "event:ping\n", "event: message_stop\r\n", "event: response.completed\r", "id: 1\n"]
EVENTS = st.builds(
    lambda name, value, end: f"{name}data: {json.dumps(value)}{end}".encode(),
    st.sampled_from(NAMES),
    st.sampled_from(VALUES),
    st.sampled_from(["\n\n", "\r\n\r\n", "\r\r", "\n", ""]),
)
ODD = st.sampled_from(
    [b"\xef\xbb\xbf", b": hi\n\n", b"data: [DONE]\n\n", b"data:[DONE]\n\n", b"\n\n", b"data\n\n", b"\xff"]
)
ELEMENTS = st.builds(lambda value, between: json.dumps(value).encode() + between, st.sampled_from(VALUES), ODD)
PLACES = st.lists(st.integers(min_value=0))
ENDPOINTS = {
    Dialect.OPENAI: ("chat/completions", "responses"),
    Dialect.ANTHROPIC: ("messages",),
    Dialect.GEMINI: ("streamGenerateContent",),
}


def read(meter: StreamMeter, stream: bytes, places: list[int]) -> tuple[object, ...]:
    """Return what a meter makes of a stream that comes in pieces, and what it lets pass."""
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    passed = b"".join(b"".join(meter.feed(stream[a:b])) for a, b in pairwise(edges))
    meter.end()
    passed += b"".join(meter.finish())
    told = meter.complete, meter.ended, meter.failed, meter.response_id, meter.oddities, meter.output_seen, meter.report
    return passed, *told


@pytest.mark.parametrize(("dialect", "endpoint"), [(one, name) for one, names in ENDPOINTS.items() for name in names])
@given(stream=st.lists(EVENTS | ODD).map(b"".join), places=PLACES)
def test_any_events_are_read_however_they_are_cut(
    dialect: Dialect, endpoint: str, stream: bytes, places: list[int]
) -> None:
    """The same passes, and the same is known of it."""
    meters = [MODULES[dialect].Meter(endpoint, sse=True) for _ in range(2)]
    whole = read(meters[0], stream, [])
    assert read(meters[1], stream, places) == whole


@given(stream=st.lists(ELEMENTS | ODD).map(lambda parts: b"[" + b",".join(parts)), places=PLACES)
def test_any_array_is_read_however_it_is_cut(stream: bytes, places: list[int]) -> None:
    """And each byte passes, for an array is not to be taken apart."""
    meters = [MODULES[Dialect.GEMINI].Meter("streamGenerateContent", sse=False) for _ in range(2)]
    whole = read(meters[0], stream, [])
    assert whole[0] == stream
    assert read(meters[1], stream, places) == whole


@pytest.mark.parametrize(
    ("body", "framing"),
    [
        (b'{"id":1}', Framing.OBJECT),
        (b'\xef\xbb\xbf \n{"id":1}', Framing.OBJECT),
        (b" [", Framing.ARRAY),
        (b"data: x", Framing.EVENTS),
        (b"data:x", Framing.EVENTS),
        (b"data\n", Framing.EVENTS),
        (b"\r\n: comment", Framing.EVENTS),
        (b"event: x", Framing.EVENTS),
        (b"id: 1", Framing.EVENTS),
        (b"retry: 1", Framing.EVENTS),
        (b"d", Framing.EVENTS),
        (b"database is away", None),
        (b"<html>", None),
        (b"eventually", None),
        (b"OK", None),
        (b"", None),
        (b"\xef\xbb\xbf", None),
    ],
)
def test_a_body_is_what_it_begins_as(body: bytes, framing: Framing | None) -> None:
    """Whatever its content type says."""
    assert framing_of(body) is framing


def test_a_body_has_begun_with_its_first_byte_that_says_something() -> None:
    """White space and a byte order mark, or a part of one, say nothing yet."""
    assert not any(map(has_begun, (b"", b"\n \r\n", b"\xef", b"\xef\xbb", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n")))
    assert all(map(has_begun, (b"{", b"\xef\xbb\xbf{", b"\n\n:", b"\xef\xbbx")))


@pytest.mark.parametrize("stream", [b"[[]", b'[{"a": 1},[]', b"[[],{}"])
def test_an_empty_array_in_an_array_is_not_its_end(stream: bytes) -> None:
    """What comes behind it is as good as what comes before."""
    meter = MODULES[Dialect.GEMINI].Meter("streamGenerateContent", sse=False)
    error = b',{"error": {"message": "no", "code": 500}}'
    assert read(meter, stream + error, [])[0] == stream + error
    assert meter.failed
    assert not meter.ended
