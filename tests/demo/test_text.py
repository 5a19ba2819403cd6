"""The demo upstream's tokens, prose, schema values and directives, without any server."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import examples
from toolkit.demo import text


@given(st.text())
@examples(50)
def test_tokens_are_the_text_and_never_more_than_its_bytes(sample: str) -> None:
    """Tokens joined are the text, and there are at most as many as UTF-8 bytes."""
    pieces = list(text.tokens(sample))
    assert "".join(pieces) == sample
    assert len(pieces) == text.count(sample) <= len(sample.encode("utf-8", "surrogatepass"))


@given(st.text(), st.integers(0, 20))
@examples(50)
def test_a_cut_text_has_the_tokens_asked_for(sample: str, limit: int) -> None:
    """Cutting keeps the beginning, with exactly the limit's tokens or all there are."""
    short = text.cut(sample, limit)
    assert sample.startswith(short)
    assert text.count(short) == min(limit, text.count(sample))


@given(st.text(max_size=80), st.integers(0, 2**64 - 1), st.integers(0, 400))
@examples(50)
def test_prose_has_the_length_that_was_dictated(prompt: str, number: int, length: int) -> None:
    """Answers and thoughts of a dictated length have exactly that many tokens."""
    assert text.count(text.answer(prompt, number, length)) == length
    assert text.count(text.thoughts(prompt, number, length)) == length


@given(
    st.recursive(
        st.sampled_from([{"type": kind} for kind in ("string", "integer", "number", "boolean", "null", "STRING")]),
        lambda inner: st.one_of(
            st.builds(lambda items: {"type": "array", "items": items}, inner),
            st.builds(
                lambda parts: {"type": "object", "properties": parts}, st.dictionaries(st.text(max_size=5), inner)
            ),
            st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3)),
        ),
        max_leaves=8,
    )
)
@examples(50)
def test_any_schema_gets_arguments(schema: dict[str, Any]) -> None:
    """Whatever the schema, a value that JSON can hold is made from it."""
    json.dumps(text.example(schema, "Tides"))


def test_a_schema_that_contains_itself_ends() -> None:
    """A recursive schema gives a value of limited depth."""
    schema = {"type": "object", "properties": {"next": {"$ref": "#"}, "child": {"$ref": "#/$defs/node"}}}
    schema["$defs"] = {"node": {"type": "object", "properties": {"child": {"$ref": "#/$defs/node"}}}}
    assert set(text.example(schema, "Tides")) == {"next", "child"}


def test_the_answer_names_its_topic() -> None:
    """Among the sentences that are used some name what was asked."""
    assert any("lighthouses" in text.answer("Tell me about lighthouses", number, None) for number in range(3))


def test_directives_are_read_together() -> None:
    """Several directives, in one pair of brackets or in more, add up; the prompt is free of them."""
    prompt = "Tides [[demo tokens=5 delay=0.5]] and more[[demo nousage]]"
    assert text.Directives.read(prompt) == text.Directives(tokens=5, delay=0.5, nousage=True)
    assert text.without_directives(prompt) == "Tides and more"


@pytest.mark.parametrize(
    "wrong",
    ["color=red", "tokens", "tokens=-1", "tokens=1.5", "tokens=9999999", "status=200", "delay=soon", "nousage=1"],
)
def test_wrong_directives_are_named(wrong: str) -> None:
    """A directive that does not exist, or has no usable value, is an error that repeats it."""
    with pytest.raises(ValueError, match=wrong.split("=", maxsplit=1)[0]):
        text.Directives.read(f"Tides [[demo {wrong}]]")


def test_a_directive_is_found_behind_one_that_does_not_end() -> None:
    """What only begins like one is text."""
    assert text.without_directives("[[demo x  [[demo tokens=1]] y") == "[[demo x y"
    assert text.Directives.read("[[demo x  [[demo tokens=1]]").tokens == 1
