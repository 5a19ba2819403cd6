"""Request bodies: everything that two JSON readers could understand differently is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.errors import Refusal, RefusalType
from toolkit.dialects import body
from toolkit.dialects.body import (
    MAX_DEPTH,
    MAX_NAMES,
    MAX_NUMBERS,
    MAX_VALUES,
    dump_object,
    parse_object,
    read_count,
    read_flag,
    read_kind,
    read_object,
    read_objects,
    read_text,
    text_bytes,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def refusal_of(body: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse_object(body)
    assert caught.value.type is RefusalType.INVALID_REQUEST
    return caught.value


@given(st.dictionaries(st.text(), JSON))
def test_object_is_read_as_json_reads_it(value: dict[str, object]) -> None:
    """A well-formed object comes out as the standard reader gives it, and survives being written again."""
    assert parse_object(json.dumps(value).encode()) == value
    assert parse_object(dump_object(value)) == value


@given(st.binary(max_size=64))
def test_any_bytes_end_in_an_object_or_a_refusal(body: bytes) -> None:
    """Garbage never raises anything but a refusal."""
    try:
        outcome: object = parse_object(body)
    except Refusal as refusal:
        outcome = refusal.type
    assert isinstance(outcome, dict) or outcome is RefusalType.INVALID_REQUEST


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"\xff{}", "UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"{'model': 1}", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too large"),
        (b"[1]", "must be a JSON object"),
        (b'"model"', "must be a JSON object"),
        (b'{"a": ' * 200 + b"1" + b"}" * 200, "nested"),
        (b'{"a": ' * 90_000, "nested"),
    ],
)
def test_malformed_body_is_refused_with_its_reason(body: bytes, words: str) -> None:
    """The message says which rule the body breaks."""
    assert words in refusal_of(body).message


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "cheap", "model": "dear"}',
        b'{"model": "cheap", "mod\\u0065l": "dear"}',
        b'{"messages": [{"content": {"model": 1, "model": 1}}]}',
    ],
)
def test_key_given_twice_is_refused_by_name(body: bytes) -> None:
    """Duplicates are found at any depth and after escapes are decoded, and the key is named."""
    refusal = refusal_of(body)
    assert refusal.param == "model"
    assert '"model"' in refusal.message


def test_nesting_up_to_the_limit_is_read() -> None:
    """The deepest body that is allowed is read, and one level more is refused."""
    assert parse_object(b'{"a": ' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH)
    assert "nested" in refusal_of(b'{"a": ' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1)).message


def test_many_brackets_in_a_flat_body_are_fine() -> None:
    """Only depth is limited, not the number of objects or brackets in text."""
    body = {"messages": [{"content": "[[{{"} for _ in range(1000)]}
    assert parse_object(json.dumps(body).encode()) == body


def test_half_a_surrogate_pair_is_written_as_an_escape() -> None:
    """Text that has no UTF-8 can still be forwarded."""
    assert parse_object(dump_object({"a": "\ud800", "b": "é"})) == {"a": "\ud800", "b": "é"}


@pytest.mark.parametrize("value", [True, 0, 129, -1, 1.0, "2", [1], {}])
def test_count_outside_its_range_is_refused(value: object) -> None:
    """Only integers in range count; true is not 1, and the message says what came and what is right."""
    with pytest.raises(Refusal) as caught:
        read_count({"n": value}, "n", 1, 128)
    assert caught.value.param == "n"
    assert "1 to 128" in caught.value.message


def test_absent_and_null_are_the_same() -> None:
    """A field that is null counts as not given."""
    assert read_count({"n": None}, "n", 1, 2) is read_count({}, "n", 1, 2) is None
    assert read_flag({"stream": None}, "stream") is False
    assert read_objects({"tools": None}, "tools") == []
    assert read_object({"options": None}, "options") == {}
    assert read_kind({"type": None}, "") == ""


@pytest.mark.parametrize("value", [None, 1, "", "a" * 300, "a\nb", "\ud800", ["m"]])
def test_model_must_be_printable_text(value: object) -> None:
    """A model id that is no text, empty, very long or holds control characters is refused."""
    with pytest.raises(Refusal) as caught:
        read_text({"model": value}, "model")
    assert caught.value.param == "model"


def test_item_of_the_wrong_type_is_named_by_its_path() -> None:
    """The refusal names the item in the array."""
    with pytest.raises(Refusal) as caught:
        read_objects({"messages": [{}, "x"]}, "messages", "a")
    assert caught.value.param == "a.messages[1]"


def test_long_values_are_not_echoed() -> None:
    """A prompt that lands in the wrong field does not come back in the error."""
    with pytest.raises(Refusal) as caught:
        read_flag({"stream": "secret " * 50}, "stream")
    assert len(caught.value.message) < 120


class Counted(str):
    """A name that counts how often it is compared."""

    __slots__ = ()
    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def comparisons_of(names: int) -> int:
    """Return how often names are compared to find the last one given twice."""
    pairs: list[tuple[str, object]] = [(Counted(f"name {number}"), 1) for number in range(names)]
    Counted.comparisons = 0
    with pytest.raises(Refusal, match="given twice"):
        body._unique([*pairs, (Counted(f"name {names - 1}"), 2)])
    return Counted.comparisons


def test_a_key_given_twice_is_found_without_comparing_all_with_all() -> None:
    """Twice the names are at most twice the work."""
    assert comparisons_of(8_000) <= 2 * comparisons_of(4_000) + 100


def test_an_object_has_a_bounded_number_of_names() -> None:
    """As many as are allowed are read; with one more the message names the number."""
    assert len(parse_object(json.dumps(dict.fromkeys(map(str, range(MAX_NAMES)))).encode())) == MAX_NAMES
    assert "10,000" in refusal_of(json.dumps(dict.fromkeys(map(str, range(MAX_NAMES + 1)))).encode()).message


@pytest.mark.world
@pytest.mark.parametrize(
    "item",
    [
        b"1",
        b'{"a":1}',
        b'"\\","',
        *(pytest.param(item, marks=pytest.mark.world) for item in (b"[]", b"{}", b'""', b"null", b"[1]")),
    ],
)
def test_a_body_has_a_bounded_number_of_values(item: bytes) -> None:
    """It is told before anything is built, and whatever the values are."""
    each = 2 if item in {b'{"a":1}', b"[1]"} else 1
    fits = MAX_VALUES // each - 2
    assert len(parse_object(b'{"a":[' + item + (b"," + item) * (fits - 1) + b"]}")["a"]) == fits
    too_many = b'{"a":[' + item + (b"," + item) * (fits + 2) + b"]}"
    assert "500,000 values" in refusal_of(too_many).message
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body, "_DECODER", None)  # nothing is read
        refusal_of(too_many)


def test_commas_and_brackets_in_text_are_no_values() -> None:
    """A long text passes, whatever it holds."""
    text = '[,{"\\' * MAX_VALUES
    assert parse_object(json.dumps({"a": text}).encode()) == {"a": text}


def test_token_ids_may_be_many_but_nothing_else() -> None:
    """Where numbers are allowed in millions, strings and arrays are bounded all the same."""
    tokens = b'{"input":[' + b"1," * 1_000_000 + b"1]}"
    assert len(parse_object(tokens, MAX_NUMBERS)["input"]) == 1_000_001
    refusal_of(tokens)
    for item in (b"[],", b'"",', b"{},"):
        with pytest.raises(Refusal, match="values"):
            parse_object(b'{"input":[' + item * 1_100_000 + b"1]}", MAX_NUMBERS)


def test_long_names_and_numbers_do_not_come_back() -> None:
    """What is shown of an input is short, however long it is."""
    name = "k" * 1_000_000
    assert len(refusal_of(b'{"%s":1,"%s":2}' % (name.encode(), name.encode())).message) < 200


def test_text_is_counted_in_utf8_without_names() -> None:
    """Strings count by their bytes, half a surrogate pair too; token ids count as one byte each."""
    assert text_bytes({"name": ["é", "\ud800", {"x": "ab"}], "n": [1, 2, 3], "z": None}) == 2 + 3 + 2 + 3 + 1
