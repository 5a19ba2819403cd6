"""Streams are cut into events without changing a byte, however they arrive."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.conftest import examples
from toolkit.dialects import sse
from toolkit.dialects.sse import ArraySplitter, EventSplitter, data_of, element_of, name_of

STREAM = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: x", b"event: y", b": ping", b"a"])).map(b"".join)
OBJECTS = st.lists(
    st.dictionaries(st.text(), st.text() | st.lists(st.integers() | st.dictionaries(st.text(), st.text())))
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def run(splitter: EventSplitter | ArraySplitter, chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    return [piece for chunk in chunks for piece in splitter.feed(chunk)], splitter.rest()


def lines_before_blank(data: bytes) -> int:
    """Count events as the standard does: runs of lines that are not empty, ended by an empty one."""
    text = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return sum(1 for block in text.split(b"\n\n")[:-1] if block.strip(b"\n"))


@given(STREAM, st.lists(st.integers(min_value=0)))
@example(b"data: x\r\n\r\ndata: y\r\n\r\n", [8, 9, 10])
def test_no_byte_is_lost_or_changed(data: bytes, places: list[int]) -> None:
    """Events and rest put together are the input, at any chunking."""
    events, rest = run(EventSplitter(), cut(data, places))
    assert b"".join(events) + rest == data


@given(STREAM, st.lists(st.integers(min_value=0)))
def test_chunking_does_not_change_the_events(data: bytes, places: list[int]) -> None:
    """The same names and data come out at any chunking, and as many as the standard counts."""
    whole, _ = run(EventSplitter(), [data])
    parts, _ = run(EventSplitter(), cut(data, places))
    assert [(name_of(e), data_of(e)) for e in parts] == [(name_of(e), data_of(e)) for e in whole]
    # A last "\r" after "\n" may be half of a line end, so it closes nothing yet.
    settled = data[:-1] if data.endswith(b"\n\r") else data
    assert len(whole) == lines_before_blank(settled)


def test_line_end_cut_in_two_stays_with_its_event() -> None:
    """The carriage return of a last empty line waits for its line feed, so an event is always whole."""
    splitter = EventSplitter()
    assert splitter.feed(b"data: 1\r\n\r") == []
    assert splitter.feed(b"\ndata: 2") == [b"data: 1\r\n\r\n"]
    assert splitter.rest() == b"data: 2"


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n"])
def test_every_kind_of_line_end_closes_an_event(end: bytes) -> None:
    """An event passes as soon as its empty line is there, whatever line ends the upstream uses."""
    splitter = EventSplitter()
    assert splitter.feed(b"event: a" + end[:1] + b"data: 1" + end) == [b"event: a" + end[:1] + b"data: 1" + end]
    assert splitter.rest() == b""


def test_several_data_lines_are_joined() -> None:
    """Data lines are joined by newlines; one space after the colon is not data."""
    assert data_of(b"event: a\ndata: 1\ndata:2\ndata:  3\n\n") == b"1\n2\n 3"
    assert data_of(b'data: {"a":1}\n\n') == b'{"a":1}'
    assert data_of(b": comment\n\n") is None
    assert data_of(b"data: 1\r\n\r\n") == b"1"


def test_name_is_found_on_any_line() -> None:
    """The event's name is read wherever it stands; a comment has none."""
    assert name_of(b"data: 1\nevent: done\n\n") == b"done"
    assert name_of(b": event: x\n\n") is None


def test_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that never ends does not fill the memory."""
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    splitter = EventSplitter()
    splitter.feed(b"data: " + b"x" * 900)
    with pytest.raises(ValueError, match="longer"):
        splitter.feed(b"x" * 900)
    array = ArraySplitter()
    array.feed(b'[{"a": "' + b"x" * 900)
    array.feed(b"x" * 900)
    with pytest.raises(ValueError, match="longer"):
        array.feed(b"x" * 900)


@examples(25)
@given(OBJECTS, st.sampled_from([None, 2]), st.booleans(), st.lists(st.integers(min_value=0)))
@example([{"a": 'x"]}\\'}], None, True, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
def test_array_is_cut_into_its_elements(
    elements: list[dict[str, object]], indent: int | None, ascii_only: bool, places: list[int]
) -> None:
    """Each piece ends with one element, nothing is lost, and brackets in strings mean nothing."""
    data = json.dumps(elements, indent=indent, ensure_ascii=ascii_only).encode() + b"\n"
    pieces, rest = run(ArraySplitter(), cut(data, places))
    assert b"".join(pieces) + rest == data
    assert [json.loads(element_of(piece)) for piece in pieces if element_of(piece)] == elements
    assert pieces[-1].endswith(b"]")
    assert element_of(pieces[-1]) == b""


def test_element_passes_before_the_next_one_starts() -> None:
    """An element is passed on as soon as its last brace is there."""
    splitter = ArraySplitter()
    assert splitter.feed(b'[{"a": 1}') == [b'[{"a": 1}']
    assert splitter.feed(b',\r\n{"a": {"b": "}') == []
    assert splitter.feed(b'"}}') == [b',\r\n{"a": {"b": "}"}}']
    assert splitter.feed(b"]") == [b"]"]


def looked_at(splitter: Any, chunks: list[bytes], monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many bytes a splitter's patterns are given while it takes chunks."""
    total = 0

    class Counted:
        def __init__(self, pattern: Any) -> None:
            self.pattern = pattern

        def __getattr__(self, name: str) -> Any:
            def call(data: bytes, start: int = 0) -> Any:
                nonlocal total
                total += len(data) - start
                return getattr(self.pattern, name)(data, start)

            return call

    with monkeypatch.context() as patch:
        for name in ("_TOKEN", "_REST_OF_STRING", "_BLANK_LINE", "_LINE_ENDS"):
            patch.setattr(sse, name, Counted(getattr(sse, name)))
        for chunk in chunks:
            splitter.feed(chunk)
    return total


@pytest.mark.parametrize(
    ("make", "chunk"),
    [
        (ArraySplitter, b'\\"' * 500),
        (ArraySplitter, b"x" * 1_000),
        (ArraySplitter, b"\\" * 999),
        (EventSplitter, b"\n" * 1_000),
        (EventSplitter, b"\r\n" * 500),
        (EventSplitter, b"x\n" * 500),
        (EventSplitter, b"x" * 1_000),
    ],
)
def test_no_byte_is_looked_at_again_and_again(make: Any, chunk: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many chunks of an event that does not end are twice the work."""
    start = [b'[{"a":"' if make is ArraySplitter else b""]
    few = looked_at(make(), start + [chunk] * 50, monkeypatch)
    many = looked_at(make(), start + [chunk] * 100, monkeypatch)
    assert many <= 2.2 * few
