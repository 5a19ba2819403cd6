"""Read what providers report, believing nothing: absent, null and impossible values count as not reported."""

from collections.abc import Iterator, Mapping
from typing import Any

MOST_TOKENS = 10**12
"""No call uses this many; a larger number is garbage, and would not fit a column beside a price."""


def count_of(obj: Mapping[str, Any], name: str) -> int | None:
    """Return a count of tokens or uses; None if it is absent, not an integer, negative or absurd."""
    value = obj.get(name)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


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
