"""Usage in Anthropic's format: what was written to a cache, and for how long."""

from typing import Any

from toolkit.core.usage import Report, Usage
from toolkit.dialects.anthropic_usage import usage_of


def of(before: Report | None = None, **usage: Any) -> Report:
    """Read a usage object."""
    report = usage_of(usage, before)
    assert report is not None
    return report


def test_a_sum_of_writes_alone_leaves_their_life_open() -> None:
    """Bedrock and relays say no more; it is taken for the short life, and told apart."""
    report = of(input_tokens=1, cache_creation_input_tokens=30, output_tokens=2)
    assert report.usage == Usage(31, 0, 30, 0, 2)
    assert report.unsplit_write_tokens == 30


def test_the_lives_of_a_streams_first_report_hold_for_its_later_sum() -> None:
    """Only the first report splits what was written; Anthropic, "Streaming messages"."""
    lives = {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}
    first = of(input_tokens=1, cache_creation_input_tokens=30, cache_creation=lives)
    later = of(first, input_tokens=1, cache_creation_input_tokens=35, output_tokens=7)
    assert later.usage == Usage(36, 0, 15, 20, 7)
    assert later.unsplit_write_tokens == 5


def test_a_smaller_sum_keeps_the_dearer_life() -> None:
    """No more can have been written than is said."""
    first = of(input_tokens=1, cache_creation={"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20})
    later = of(first, input_tokens=1, cache_creation_input_tokens=25, output_tokens=7)
    assert (later.usage.cache_write_1h_tokens, later.usage.cache_write_5m_tokens) == (20, 5)
    assert later.unsplit_write_tokens == 0
