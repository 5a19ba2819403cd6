"""The bound on a chat's output, under the names that OpenAI and compatible servers have for it."""

from typing import Any

from toolkit.core.upstream_traits import OutputBound, UpstreamTraits
from toolkit.dialects.body import MAX_OUTPUT_BOUND, read_count, read_object
from toolkit.dialects.openai_fields import OTHER_BOUNDS

OTHERS = frozenset({*OTHER_BOUNDS, "options"})
"""Fields that may hold a bound under another name."""

_WORDS = ("max_tokens", "max_completion_tokens")


def other_bound(body: dict[str, Any]) -> int | None:
    """Return the largest bound on output tokens that is given under another name, or None."""
    counts = [read_count(body, name, 1, MAX_OUTPUT_BOUND) for name in OTHER_BOUNDS]
    counts.append(read_count(read_object(body, "options"), "num_predict", 1, MAX_OUTPUT_BOUND, "options"))
    return max((count for count in counts if count), default=None)


def word_of(traits: UpstreamTraits) -> str:
    """Return what the bound is called where it is put in."""
    return "max_completion_tokens" if traits.output_bound is OutputBound.EITHER else traits.output_bound.value


def with_bound_as(word: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return a chat's body whose bound has the one name that its upstream takes; the body itself if it has no other.

    Of two bounds the one that has this name holds: the hold counts the larger, so neither can cost more.
    """
    (other,) = (name for name in _WORDS if name != word)
    if other not in body:
        return body
    bound = body[other] if body.get(word) is None else body[word]
    rest = {name: value for name, value in body.items() if name not in _WORDS}
    return rest if bound is None else {**rest, word: bound}
