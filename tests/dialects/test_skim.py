"""What is read of answers that are too large to be built."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.dialect import Dialect
from toolkit.dialects import MODULES, skim
from toolkit.dialects.skim import LONGEST_STRING, MOST_ITEMS, is_light, stand_in
from toolkit.dialects.sse import data_of, name_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=60),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=60), inner, max_size=4),
    max_leaves=20,
)
USAGE = {"prompt_tokens": 7, "completion_tokens": 9}


@given(st.dictionaries(st.text(max_size=60), VALUES), st.booleans())
def test_what_is_short_is_read_whole(value: dict[str, Any], ascii_only: bool) -> None:
    """An object without long parts comes out as it is."""
    assert (
        skim.skim(json.dumps(value, ensure_ascii=ascii_only).encode(errors="replace")) == (value, 0) or not ascii_only
    )


@given(st.dictionaries(st.text(max_size=60), VALUES), VALUES)
def test_what_stands_behind_long_parts_is_read(value: dict[str, Any], filler: Any) -> None:
    """Long strings and arrays are passed over, whatever stands in them."""
    long = {"long": [filler] * 500, "text": 'x"\\[{' * 1_000, "usage": USAGE, **value}
    found, left_out = skim.skim(json.dumps(long).encode())
    assert found is not None
    assert found["usage"] == long["usage"]
    assert left_out > 0
    if "long" not in value:
        assert found["long"] == [filler] * MOST_ITEMS


@given(st.binary(max_size=200) | st.text(alphabet='{}[],:"\\ a1').map(str.encode))
def test_any_bytes_are_an_object_or_none(text: bytes) -> None:
    """Garbage raises nothing, and what another reader takes for an object is one here."""
    found, _ = skim.skim(text)
    assert found is None or isinstance(found, dict)


@pytest.mark.parametrize("text", [b'{"a":[1', b'{"a":"', b"[1]", b"1", b"", b'{"a":1}}', b'{"a":1} x', b"{" * 300])
def test_what_is_no_whole_object_is_none(text: bytes) -> None:
    """An answer that was cut off is no answer."""
    assert skim.skim(text) == (None, 0)


DETAILED = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 8}, "cache_creation": {"ephemeral": 1}}


@pytest.mark.parametrize("long", [{"answer": [{"x": [{"y": "z"}] * 2_000}] * 20}, {"answer": {"x": [[1]] * 30_000}}])
def test_usage_and_its_details_are_read_behind_thousands_of_values(long: dict[str, Any]) -> None:
    """An answer with log probabilities, or one that repeats many tools, says what it used last."""
    found, _ = skim.skim(json.dumps({"id": "r", **long, "usage": DETAILED}).encode())
    assert found is not None
    assert found["usage"] == DETAILED
    found, _ = skim.skim(json.dumps({"response": {"id": "r", **long, "usage": DETAILED}}).encode())
    assert found is not None
    assert found["response"]["usage"] == DETAILED


def test_names_of_usage_do_not_make_much_of_an_answer_be_built() -> None:
    """Who names everything so gets a bounded part of it built."""
    inner: dict[str, Any] = {"usage": {"usage": {}}}
    found, _ = skim.skim(json.dumps({"a": [inner] * 20_000, "b": {"c": [inner] * 20_000, "usage": inner}}).encode())
    assert len(json.dumps(found)) < 50_000


@pytest.mark.parametrize("value", ["[" * 5_000 + "]" * 5_000, "1" * 5_000, "-" + "1" * 5_000])
def test_what_cannot_be_built_hides_no_usage(value: str) -> None:
    """Arguments of a tool are JSON in some dialects: a model nests them deeply, or makes long numbers, if asked to."""
    found, _ = skim.skim(f'{{"content":{{"input":{value}}},"usage":{{"output_tokens":9}}}}'.encode())
    assert found is not None
    assert found["usage"] == {"output_tokens": 9}


def test_work_is_bounded_by_tokens_and_not_by_brackets() -> None:
    """What is left out is passed over by the thousand: few steps for many brackets."""
    text = b'{"a":[' + b"[[],{}]," * 100_000 + b'1],"usage":{}}'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skim, "_MOST_STEPS", 2_000)
        assert skim.skim(text)[0] is not None
    assert skim.skim(b'{"' + b'","'.join([b"x"] * 5_000_000))[0] is None


EVENTS: dict[Dialect, tuple[str, dict[str, Any], str]] = {
    Dialect.OPENAI: (
        "responses",
        {
            "type": "response.completed",
            "response": {
                "id": "r",
                "output": [{"type": "message", "content": [{"type": "output_text", "text": "x" * 600_000}]}],
                "usage": {"input_tokens": 7, "output_tokens": 9},
            },
        },
        "response.completed",
    ),
    Dialect.GEMINI: (
        "streamGenerateContent",
        {
            "candidates": [{"content": {"parts": [{"text": "x" * 600_000}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 9},
        },
        "",
    ),
}


@pytest.mark.parametrize("sse", [True, False])
@pytest.mark.parametrize("dialect", EVENTS)
def test_a_heavy_event_is_metered_as_if_it_had_been_read_here(dialect: Dialect, *, sse: bool) -> None:
    """What stands in for it decides; what the caller gets is the event itself."""
    endpoint, event, name = EVENTS[dialect]
    if not sse and dialect is Dialect.OPENAI:
        pytest.skip("only Gemini streams arrays")
    data = json.dumps(event).encode()
    piece = (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n" if sse else b"[" + data
    meter = MODULES[dialect].Meter(endpoint, sse=sse)
    passed = [part for start in range(0, len(piece), 16_384) for part in meter.feed(piece[start : start + 16_384])]
    assert meter.heavy == piece
    short, left_out = stand_in(piece, sse=sse)
    assert is_light(short)
    passed += meter.resume(short, left_out)
    meter.end()
    assert b"".join(passed + meter.finish()) == piece
    assert meter.complete
    assert meter.report is not None
    assert (meter.report.usage.input_tokens, meter.report.usage.output_tokens) == (7, 9)


def test_the_text_of_a_heavy_delta_counts() -> None:
    """When the stream breaks, what was seen is charged by its length, long strings too."""
    event = {"choices": [{"index": 0, "delta": {"content": "x" * 600_000}}]}
    piece = b"data: " + json.dumps(event).encode() + b"\n\n"
    meter = MODULES[Dialect.OPENAI].Meter("chat/completions", sse=True)
    assert meter.feed(piece) == []
    assert meter.resume(*stand_in(piece, sse=True)) == [piece]
    assert abs(meter.output_seen - 150_000) < 10


@pytest.mark.parametrize(("dialect", "endpoint"), [(Dialect.GEMINI, "streamGenerateContent"), (Dialect.OPENAI, "chat")])
def test_the_bytes_of_an_event_that_cannot_be_read_count(dialect: Dialect, endpoint: str) -> None:
    """The caller has got it, so it is not free; a comment is no event."""
    meter = MODULES[dialect].Meter(endpoint, sse=True)
    meter.feed(b": a comment\n\n")
    assert meter.output_seen == 0
    meter.feed(b'data: {"candidates":[{"finishReason":"STOP","n":' + b"1" * 8_000 + b"}]}\n\n")
    assert meter.output_seen > 2_000


def test_an_event_without_its_end_may_be_heavy() -> None:
    """Some servers forget the last empty line."""
    piece = b"event: response.completed\ndata: " + json.dumps(EVENTS[Dialect.OPENAI][1]).encode()
    meter = MODULES[Dialect.OPENAI].Meter("responses", sse=True)
    meter.feed(piece)
    meter.end()
    assert meter.heavy == piece
    passed = meter.resume(*stand_in(piece, sse=True))
    assert (passed + meter.finish(), meter.complete) == ([piece], True)


def test_name_and_data_stay_with_a_stand_in() -> None:
    """Data in several lines are one text, as the framing says; a name is kept."""
    piece = b'event: x\r\ndata: {"a":\r\ndata: "' + b"y" * (LONGEST_STRING + 1) + b'"}\r\n\r\n'
    short, left_out = stand_in(piece, sse=True)
    assert (name_of(short), data_of(short)) == (b"x", b'{"a": ""}')
    assert left_out == LONGEST_STRING + 3
