"""Usage in OpenAI's format: the total decides what is part of what. Where servers say it: tests/gateway/recorded."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.usage import Report, Usage
from toolkit.dialects.openai_usage import usage_of


def of(**usage: Any) -> Report:
    """Read a usage object."""
    report = usage_of({"usage": usage})
    assert report is not None
    return report


@pytest.mark.parametrize(("total", "output", "sure"), [(14_428, 4_308, True), (11_619, 1_499, False)])
def test_the_total_decides_where_reasoning_belongs(total: int, output: int, sure: bool) -> None:
    """Beside the output where the total says so; where it says otherwise, reasoning that is larger is in doubt."""
    report = of(
        prompt_tokens=10_120,
        completion_tokens=1_499,
        completion_tokens_details={"reasoning_tokens": 2_809},
        total_tokens=total,
    )
    assert report.usage.output_tokens == output
    assert (report.faults == ()) == sure


@pytest.mark.parametrize("total", [None, 0, 13_000])
def test_reasoning_larger_than_the_output_is_counted_beside_it(total: int | None) -> None:
    """It cannot be a part, and no total says otherwise: the dearer reading, in doubt."""
    report = of(
        prompt_tokens=10_120,
        completion_tokens=1_499,
        completion_tokens_details={"reasoning_tokens": 2_809},
        total_tokens=total,
    )
    assert (report.usage.output_tokens, report.usage.reasoning_tokens) == (4_308, 2_809)
    assert report.output_faults[-1] == "more reasoning tokens than output, counted beside it"


def test_cached_input_larger_than_the_input_is_counted_beside_it() -> None:
    """As Anthropic counts; in doubt, for nothing confirms it."""
    report = of(prompt_tokens=50, completion_tokens=7, cached_tokens=80)
    assert (report.usage.input_tokens, report.usage.cached_input_tokens) == (130, 80)
    assert report.input_faults == ("more tokens read from and written to the cache than input, counted beside it",)


def test_parts_never_exceed_a_whole_that_the_total_confirms() -> None:
    """A report that contradicts itself is cut to what is possible, and doubted."""
    report = of(
        prompt_tokens=10,
        prompt_tokens_details={"cached_tokens": 50, "cache_write_tokens": 9},
        completion_tokens=3,
        completion_tokens_details={"reasoning_tokens": 9},
        total_tokens=13,
    )
    assert report.usage == Usage(10, 10, output_tokens=3, reasoning_tokens=3)
    assert len(report.faults) == 2


def test_what_a_total_has_beyond_all_counts_is_output() -> None:
    """Hidden reasoning that has no count of its own is paid for as output; the row says that it is a guess."""
    report = of(prompt_tokens=100, completion_tokens=20, total_tokens=500)
    assert (report.usage.input_tokens, report.usage.output_tokens) == (100, 400)
    assert report.faults == ("a total that no reading of the counts explains",)


def test_a_total_that_is_too_small_lowers_nothing() -> None:
    """The counts are the dearer; that they do not fit is said."""
    report = of(prompt_tokens=100, completion_tokens=20, total_tokens=20)
    assert (report.usage.input_tokens, report.usage.output_tokens) == (100, 20)
    assert report.faults == ("a total that no reading of the counts explains",)


COUNTS = st.integers(0, 10**6)


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.none() | COUNTS)
def test_no_reading_is_below_the_counts(given_: int, made: int, cached: int, thought: int, total: int | None) -> None:
    """Whatever the total says: no less than both counts, or than the total; parts are within their wholes."""
    report = of(
        prompt_tokens=given_,
        completion_tokens=made,
        prompt_tokens_details={"cached_tokens": cached},
        completion_tokens_details={"reasoning_tokens": thought},
        total_tokens=total,
    )
    usage = report.usage
    assert usage.input_tokens >= given_
    assert usage.output_tokens >= made
    assert usage.cached_input_tokens <= usage.input_tokens
    assert usage.reasoning_tokens <= usage.output_tokens
    assert not total or total < given_ + made or usage.input_tokens + usage.output_tokens >= total


ODD: st.SearchStrategy[Any] = st.sampled_from([None, -1, True, 1.0, 1.5, "3", {}, []])
FEW = st.integers(0, 3) | ODD


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "prompt_tokens": FEW,
            "completion_tokens": FEW,
            "total_tokens": st.integers(0, 6) | ODD,
            "prompt_tokens_details": ODD
            | st.dictionaries(st.sampled_from(["cached_tokens", "cache_read_tokens", "cache_write_tokens"]), FEW),
            "completion_tokens_details": ODD | st.dictionaries(st.sampled_from(["reasoning_tokens", "audio"]), FEW),
        },
    )
)
def test_what_is_as_documented_is_read_as_everything_else_is(usage: dict[str, Any]) -> None:
    """The short reading of it says what the long one does, which a name that says nothing asks for."""
    short, long = usage_of({"usage": usage}), usage_of({"usage": usage | {"cost": None}})
    assert (short is None) == (long is None)
    if short is not None and long is not None:
        assert (short.usage, short.faults, short.has_gaps) == (long.usage, long.faults, long.has_gaps)
