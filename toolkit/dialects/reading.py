"""Read what providers report: absent, null and impossible values count as not reported."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LONGEST_COUNT = 20
"""Digits of a count that is written as text; no longer one is a count."""


def count_of(obj: Mapping[str, Any], name: str) -> int | None:
    """Return a number of things, such as the place of a choice; None if it is absent, negative or not an integer."""
    value = obj.get(name)
    return value if type(value) is int and value >= 0 else None


def tokens_of(obj: Mapping[str, Any], name: str, faults: list[str]) -> int | None:
    """Return a reported count of tokens; None if it is absent or null, or cannot be a count.

    Whole numbers are counts however they are written: `12.0` and `"12"` too, as languages with one kind of number
    and JSON mappings of 64-bit integers (Protocol Buffers, "ProtoJSON format") write them.

    Args:
        obj: the object that holds it.
        name: its name there.
        faults: gets a sentence for what cannot be a count.
    """
    value = obj.get(name)
    if value is None or (type(value) is int and value >= 0):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= LONGEST_COUNT:
        return int(value)
    if isinstance(value, float) and value >= 0 and math.isfinite(value) and value.is_integer():
        return int(value)
    faults.append(f"{name} {_wrong(value)}")
    return None


def first_of(obj: Mapping[str, Any], names: Sequence[str], faults: list[str]) -> int | None:
    """Return the first count under one of several names, as `tokens_of` does; faults only if none does."""
    wrong: list[str] = []
    for name in names:
        value = obj.get(name)
        if type(value) is int and value >= 0:  # as nearly always
            return value
        if value is not None and (found := tokens_of(obj, name, wrong)) is not None:
            return found
    faults += wrong
    return None


def _wrong(value: object) -> str:
    """Say why a value is no count, in words that hold nothing of it."""
    if isinstance(value, bool):
        return "is true or false"
    if isinstance(value, int | float):
        return "is negative" if value < 0 else "is no whole number"
    return "is a text that is no number" if isinstance(value, str) else "is no number"


def object_of(obj: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a nested object; an empty one if there is none."""
    value = obj.get(name)
    return value if isinstance(value, dict) else {}


def objects_of(obj: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a nested array."""
    value = obj.get(name)
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                yield item


def text_of(obj: Mapping[str, Any], name: str) -> str | None:
    """Return a string that is not empty, or None."""
    value = obj.get(name)
    return value if isinstance(value, str) and value else None


def tells_error(event: Mapping[str, Any]) -> bool:
    """Whether an event of a stream, or a whole answer, is an error or has one beside its choices.

    It stands under `error` (OpenAI, Anthropic, Google), is the event itself (Anthropic's type; vLLM's object; a code
    and a message where an answer would be: iFlytek, "Spark HTTP API"), ended a choice (OpenRouter, "Errors and
    debugging"), or is a code other than 0 (MiniMax, "Text generation", `base_resp`).
    """
    if event.get("error") or event.get("type") == "error" or event.get("object") == "error":
        return True
    if "base_resp" in event and object_of(event, "base_resp").get("status_code"):
        return True
    choices = event.get("choices")
    if not isinstance(choices, list):
        return bool(event.get("code") and text_of(event, "message") and not any(map(event.get, _ANSWERS)))
    for choice in choices:  # noqa: SIM110 - each whole answer is asked, and a generator takes twice as long
        if isinstance(choice, dict) and choice.get("error"):
            return True
    return False


_ANSWERS = ("choices", "output", "content", "candidates", "data", "embedding", "embeddings", "usage", "type")
"""One of these is in whatever answers a call in any of the dialects, unless it is an error."""
