"""Usage in Gemini's format: the total says whether thoughts are part of the candidates."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.usage import Report
from toolkit.dialects.gemini_usage import usage_of


def of(**usage: Any) -> Report:
    """Read a usage object."""
    report = usage_of({"usageMetadata": usage})
    assert report is not None
    return report


@pytest.mark.parametrize(
    ("tools", "total", "output", "sure"),
    [
        (20, 110, 40, True),
        (20, 90, 40, True),
        (20, 100, 30, True),
        (20, 80, 30, True),
        (0, 90, 40, True),
        (0, 80, 30, True),
        (20, None, 40, True),
        (20, 500, 430, False),
        (20, 10, 40, False),
    ],
)
def test_the_total_decides_where_thoughts_belong(tools: int, total: int | None, output: int, sure: bool) -> None:
    """50 of the prompt, 30 of candidates, 10 of thoughts; the total may leave out what tools brought."""
    report = of(
        promptTokenCount=50,
        toolUsePromptTokenCount=tools,
        candidatesTokenCount=30,
        thoughtsTokenCount=10,
        totalTokenCount=total,
    )
    assert (report.usage.input_tokens, report.usage.output_tokens) == (50 + tools, output)
    assert (report.faults == ()) == sure


COUNTS = st.integers(0, 10**6)


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.none() | COUNTS)
def test_no_reading_is_below_the_counts(prompt: int, tools: int, made: int, thoughts: int, total: int | None) -> None:
    """Whatever the total says: no less than each count, and thoughts within the output."""
    report = of(
        promptTokenCount=prompt,
        toolUsePromptTokenCount=tools,
        candidatesTokenCount=made,
        thoughtsTokenCount=thoughts,
        totalTokenCount=total,
    )
    assert report.usage.input_tokens == prompt + tools
    assert report.usage.output_tokens >= max(made, thoughts)
    assert report.usage.reasoning_tokens <= report.usage.output_tokens
