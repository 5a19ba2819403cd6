"""Request bodies: everything that two JSON readers could understand differently is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.dialects.body import (
    MAX_DEPTH,
    Ban,
    check_bans,
    dump_object,
    guard_names,
    parse_object,
    read_count,
    read_flag,
    read_kind,
    read_object,
    read_objects,
    read_text,
)
from toolkit.errors import Refusal, RefusalType

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


@pytest.mark.parametrize("key", ["Model", "MODEL", "ſtream", "\u212aind"])
def test_name_in_other_case_is_refused(key: str) -> None:
    """A name that another reader could take for ours is refused, Unicode's look-alikes included."""
    with pytest.raises(Refusal) as caught:
        guard_names({key: 1}, frozenset({"model", "stream", "kind"}))
    assert caught.value.param == key
    guard_names({"model": 1, "temperature": 1}, frozenset({"model", "stream", "kind"}))


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


def test_ban_lets_harmless_values_pass() -> None:
    """Null, empty and expressly allowed values pass; 0 is not false and anything else is unsupported."""
    bans = {"store": Ban("because", (False,))}
    check_bans({"store": None}, bans)
    check_bans({"store": []}, bans)
    check_bans({"store": {}}, bans)
    check_bans({"store": False}, bans)
    for value in (True, 0, "false", [1]):
        with pytest.raises(Refusal) as caught:
            check_bans({"store": value}, bans, "config")
        assert caught.value.type is RefusalType.UNSUPPORTED_FEATURE
        assert caught.value.param == "config.store"
        assert "because" in caught.value.message
