"""Usage in OpenAI's format is read wherever a server says it, and the total decides what is part of what."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.usages import used
from toolkit.core.usage import Report, Usage
from toolkit.dialects.openai_usage import usage_of


def of(**usage: Any) -> Report:
    """Read a usage object."""
    report = usage_of({"usage": usage})
    assert report is not None
    return report


PLACES: dict[str, tuple[dict[str, Any], Usage]] = {
    "OpenAI and OpenRouter, chat": (
        {
            "usage": {
                "prompt_tokens": 1_000,
                "completion_tokens": 200,
                "total_tokens": 1_200,
                "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 100, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 150, "image_tokens": 0},
                "cost": 0.0123,
            }
        },
        Usage(1_000, 600, 100, 0, 200, 150),
    ),
    "OpenAI, Responses": (
        {
            "usage": {
                "input_tokens": 10,
                "input_tokens_details": {
                    "cached_tokens": 4,
                    "cache_write_tokens": 5,
                    "cache_write_tokens_details": {"ttl_12h_tokens": 2, "ttl_30m_tokens": 3},
                },
                "output_tokens": 7,
                "output_tokens_details": {"reasoning_tokens": 6},
                "total_tokens": 17,
            }
        },
        Usage(10, 4, 3, 2, 7, 6),
    ),
    "OpenAI, embeddings": ({"usage": {"prompt_tokens": 8, "total_tokens": 8}}, Usage(8)),
    "DeepSeek": (
        {
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 30,
                "total_tokens": 130,
                "prompt_cache_hit_tokens": 64,
                "prompt_cache_miss_tokens": 36,
                "completion_tokens_details": {"reasoning_tokens": 20},
            }
        },
        Usage(100, 64, output_tokens=30, reasoning_tokens=20),
    ),
    "DeepSeek's counts without their sum": (
        {"usage": {"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36, "completion_tokens": 3}},
        Usage(100, 64, output_tokens=3),
    ),
    "Moonshot and Together": (
        {"usage": {"prompt_tokens": 100, "completion_tokens": 3, "total_tokens": 103, "cached_tokens": 70}},
        Usage(100, 70, output_tokens=3),
    ),
    "Moonshot, streaming": (
        {"choices": [{"index": 0, "delta": {}, "usage": {"prompt_tokens": 9, "completion_tokens": 2}}]},
        Usage(9, output_tokens=2),
    ),
    "Groq, streaming": (
        {"choices": [], "x_groq": {"id": "r", "usage": {"prompt_tokens": 9, "completion_tokens": 2}}},
        Usage(9, output_tokens=2),
    ),
    "xAI and Google's endpoint count reasoning beside the output": (
        {
            "usage": {
                "prompt_tokens": 37,
                "completion_tokens": 9,
                "total_tokens": 306,
                "prompt_tokens_details": {"text_tokens": 37, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 8},
                "completion_tokens_details": {"reasoning_tokens": 260},
                "num_sources_used": 0,
            }
        },
        Usage(37, 8, output_tokens=269, reasoning_tokens=260),
    ),
    "SGLang and Perplexity": (
        {"usage": {"prompt_tokens": 5, "completion_tokens": 50, "total_tokens": 55, "reasoning_tokens": 40}},
        Usage(5, output_tokens=50, reasoning_tokens=40),
    ),
    "vLLM without details": (
        {"usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10, "prompt_tokens_details": None}},
        Usage(5, output_tokens=5),
    ),
    "Alibaba": (
        {
            "usage": {
                "prompt_tokens": 3_019,
                "completion_tokens": 104,
                "total_tokens": 3_123,
                "prompt_tokens_details": {
                    "cached_tokens": 0,
                    "cache_creation_input_tokens": 2_000,
                    "cache_creation": {"ephemeral_5m_input_tokens": 2_000},
                    "cache_type": "ephemeral",
                },
            }
        },
        Usage(3_019, 0, 2_000, 0, 104),
    ),
    "a relay of Anthropic's that counts the cache beside the input": (
        {
            "usage": {
                "prompt_tokens": 18,
                "completion_tokens": 5,
                "total_tokens": 8_854,
                "cache_read_input_tokens": 8_831,
                "cache_creation_input_tokens": 0,
            }
        },
        Usage(8_849, 8_831, output_tokens=5),
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_usage_is_read_where_a_provider_says_it(place: str) -> None:
    """Each by its documentation, without a doubt."""
    answer, expected = PLACES[place]
    report = usage_of(answer)
    assert used(report) == expected
    assert report is not None
    assert report.faults == ()


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
