"""What providers report as usage, true and false: for the tests of dialects and metering."""

import math
from typing import Any

from hypothesis import strategies as st

from toolkit.core.usage import Report, Usage

COUNTS: st.SearchStrategy[Any] = st.one_of(
    st.integers(0, 3_000),
    st.integers(0, 10**14),
    st.integers(-5, 10**40),
    st.floats(),
    st.sampled_from(
        [None, True, False, "12", "1.5", "-3", "many", "9" * 30, 12.0, 0.5, math.nan, math.inf, [], {}, 0, 0]
    ),
)
"""What may stand where a count of tokens belongs."""

_OPENAI = ["prompt_tokens", "input_tokens", "completion_tokens", "output_tokens", "total_tokens"]
_OPENAI += ["prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "cached_tokens", "reasoning_tokens"]
_OPENAI += ["cache_read_input_tokens", "cache_creation_input_tokens"]
_ANTHROPIC = ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"]
_GEMINI = ["promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount"]
_GEMINI += ["cachedContentTokenCount", "toolUsePromptTokenCount"]


def _counts(*names: str) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(names), COUNTS, max_size=len(names)) | COUNTS


def _usage(names: list[str], **details: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    counts = st.dictionaries(st.sampled_from(names), COUNTS, max_size=len(names))
    return st.builds(lambda some, more: some | more, counts, st.fixed_dictionaries({}, optional=details))


_INPUTS = st.fixed_dictionaries(
    {},
    optional={
        "cached_tokens": COUNTS,
        "cache_write_tokens": COUNTS,
        "cache_write_tokens_details": _counts("ttl_30m_tokens", "ttl_12h_tokens"),
    },
)
OPENAI = _usage(
    _OPENAI,
    prompt_tokens_details=_INPUTS | COUNTS,
    input_tokens_details=_INPUTS | COUNTS,
    completion_tokens_details=_counts("reasoning_tokens"),
    output_tokens_details=_counts("reasoning_tokens"),
)
ANTHROPIC = _usage(
    _ANTHROPIC,
    cache_creation=_counts("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"),
    output_tokens_details=_counts("thinking_tokens"),
)
GEMINI = _usage(_GEMINI)


def used(report: Report | None) -> Usage:
    """Return the counts of a report that there must be."""
    assert report is not None
    return report.usage
