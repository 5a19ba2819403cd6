"""What an answer in Anthropic's format says of its usage. Pure.

`input_tokens` on the wire excludes what was read from and written to the cache; Anthropic, "Prompt caching", tracking
cache performance. Here it is all input. What a compaction at the provider used is not in the sums but beside them, and
billed, too; Anthropic, "Compaction", understanding usage.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from toolkit.core.usage import Report, Usage
from toolkit.dialects.reading import object_of, objects_of, tokens_of

_OPENING = 1
"""Output tokens that are reported before there are any; Anthropic, "Streaming messages", message_start."""


def refused(report: Report | None) -> Report:
    """Return what is reported of an answer that was refused and shows nothing: whether that was before any output.

    What was made and is not shown (thinking, most likely) is output, too.
    """
    found = report or Report(Usage(), input_missing=True, output_missing=True)
    made = 0 if found.output_missing else found.usage.output_tokens
    return replace(found, refused=made <= _OPENING)


def usage_of(usage: Mapping[str, Any], before: Report | None = None) -> Report | None:
    """Return what a usage object reports, or None. Never raises.

    What was written to the cache is said by how long it lives, or in one sum (a stream's later reports, Bedrock, and
    relays do so). Of such a sum as much is the long-lived one as an earlier report of the stream said; the rest is
    taken for the short-lived one, and counted as `unsplit_write_tokens`.

    Args:
        usage: the object.
        before: what the same stream has reported before.
    """
    input_faults: list[str] = []
    output_faults: list[str] = []
    fresh = tokens_of(usage, "input_tokens", input_faults)
    made = tokens_of(usage, "output_tokens", output_faults)
    read = tokens_of(usage, "cache_read_input_tokens", input_faults) or 0
    written = tokens_of(usage, "cache_creation_input_tokens", input_faults) or 0
    split = object_of(usage, "cache_creation")
    short = tokens_of(split, "ephemeral_5m_input_tokens", input_faults) or 0
    long = tokens_of(split, "ephemeral_1h_input_tokens", input_faults) or 0
    if fresh is None and made is None and not (input_faults or output_faults):
        return None
    unsplit = max(written - short - long, 0)
    if unsplit and before is not None:
        known = before.usage
        more_long = min(max(known.cache_write_1h_tokens - long, 0), unsplit)
        more_short = min(max(known.cache_write_5m_tokens - before.unsplit_write_tokens - short, 0), unsplit - more_long)
        long, short = long + more_long, short + more_short
        unsplit -= more_long + more_short
    output = made or 0
    thought = tokens_of(object_of(usage, "output_tokens_details"), "thinking_tokens", output_faults) or 0
    if thought > output and made is not None:
        output_faults.append("more thinking tokens than output")
    found = Usage(
        input_tokens=(fresh or 0) + read + short + unsplit + long,
        cached_input_tokens=read,
        cache_write_5m_tokens=short + unsplit,
        cache_write_1h_tokens=long,
        output_tokens=output,
        reasoning_tokens=min(thought, output),
    )
    if "iterations" in usage:
        for entry in objects_of(usage, "iterations"):
            if entry.get("type") == "compaction" and (own := usage_of(entry | {"iterations": None})) is not None:
                unsplit += own.unsplit_write_tokens
                input_faults += own.input_faults
                output_faults += own.output_faults
                _add(found, own.usage)
    return Report(
        found,
        (usage,),
        input_missing=fresh is None or bool(input_faults),
        output_missing=made is None,
        input_faults=tuple(input_faults),
        output_faults=tuple(output_faults),
        unsplit_write_tokens=unsplit,
    )


def _add(usage: Usage, more: Usage) -> None:
    """Add the tokens of one usage to those of another."""
    for name in _COUNTS:
        setattr(usage, name, getattr(usage, name) + getattr(more, name))


_COUNTS = [field.name for field in fields(Usage) if field.name.endswith("_tokens")]
