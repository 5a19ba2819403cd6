"""The bound on a chat's output, and the other fields that are put in, where an upstream takes them otherwise."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.upstream_traits import USUAL, OutputBound, UpstreamTraits
from toolkit.dialects import openai
from toolkit.dialects.openai_fields import CHAT, RESPONSES

Json = dict[str, Any]
WORDS = ("max_tokens", "max_completion_tokens")
HELLO = [{"role": "user", "content": "hello"}]
one_word = pytest.mark.parametrize("word", WORDS)
bounds = st.none() | st.integers(1, 10_000)


def sent(body: Json, traits: UpstreamTraits, *, endpoint: str = CHAT, bound: int | None = None) -> Json:
    """Return what goes on of a request."""
    body = {"model": "m", **body}
    changed = openai.rewrite(endpoint, body, upstream_model="m", output_bound=bound, include_usage=True, traits=traits)
    return body if changed is None else changed


def bounds_of(body: Json) -> Json:
    """Return the bounds of a body."""
    return {name: body[name] for name in WORDS if name in body}


@one_word
@pytest.mark.parametrize("given", [*WORDS, "n_predict"])
def test_a_bound_goes_on_under_the_name_that_is_taken(word: str, given: str) -> None:
    """Whatever its caller called it."""
    assert bounds_of(sent({given: 7}, UpstreamTraits(output_bound=OutputBound(word)))) == {word: 7}


@one_word
def test_a_bound_that_is_put_in_has_that_name_too(word: str) -> None:
    """And a null beside it, which a strict server would refuse, is gone."""
    traits = UpstreamTraits(output_bound=OutputBound(word))
    assert bounds_of(sent({}, traits, bound=9)) == {word: 9}
    assert bounds_of(sent(dict.fromkeys(WORDS), traits, bound=9)) == {word: 9}


@one_word
@given(bounds, bounds, bounds)
def test_a_bound_is_renamed_and_never_dropped(
    word: str, given: int | None, other: int | None, put_in: int | None
) -> None:
    """What goes on has one bound if anybody set one, and it is no larger than the largest, which is held."""
    said = {"max_tokens": given, "max_completion_tokens": other}
    body = {name: value for name, value in said.items() if value is not None}
    added = None if body else put_in
    found = bounds_of(sent(body, UpstreamTraits(output_bound=OutputBound(word)), bound=added))
    largest = max([*body.values(), added or 0])
    assert list(found) == ([word] if largest else [])
    assert found.get(word, 0) <= largest


@given(st.dictionaries(st.sampled_from([*WORDS, "seed"]), st.integers(1, 9)))
def test_where_both_names_are_taken_nothing_is_renamed(body: Json) -> None:
    """What its caller sent goes on as it came."""
    assert sent(body, USUAL) == {"model": "m", **body}


@one_word
def test_other_endpoints_have_bounds_of_their_own(word: str) -> None:
    """Responses has a third name, which is everybody's."""
    body = sent(
        {"input": "x", "store": False}, UpstreamTraits(output_bound=OutputBound(word)), endpoint=RESPONSES, bound=5
    )
    assert body == {"model": "m", "input": "x", "store": False, "max_output_tokens": 5}


def test_usage_is_not_asked_for_where_that_is_not_taken() -> None:
    """Nor does a caller's own wish go on, who would be refused for it."""
    body: Json = {"messages": HELLO, "stream": True}
    assert sent(body, USUAL)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in sent(body, UpstreamTraits(add_stream_options=False))
    asked = {**body, "stream_options": {"include_usage": True}}
    assert sent(asked, UpstreamTraits(add_stream_options=False)) == {"model": "m", **body}


def test_a_response_says_nothing_of_store_where_that_is_not_taken() -> None:
    """Nor asks for sealed reasoning, which is for those who store nothing."""
    body: Json = {"input": "x", "reasoning": {"effort": "high"}}
    assert sent(body, USUAL, endpoint=RESPONSES)["store"] is False
    assert sent(body, UpstreamTraits(add_store=False), endpoint=RESPONSES) == {"model": "m", **body}
    said = {**body, "store": False}
    assert sent(said, UpstreamTraits(add_store=False), endpoint=RESPONSES) == {"model": "m", **said}
