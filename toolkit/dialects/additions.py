"""What a request has been given on its way: the difference of two bodies. Pure."""

from collections.abc import Mapping
from typing import Any


def paths_added(came: Mapping[str, Any], sent: Mapping[str, Any]) -> set[str]:
    """Return the paths of what a body has that is sent on, and the one that came has not.

    Fields at the top, and what stands in one: `stream_options.include_usage`, `include[1]`. A list that was added to
    counts itself, for an error may name it alone. Null is as nothing.
    """
    paths: set[str] = set()
    for name, value in sent.items():
        before = came.get(name)
        if value is None or value == before:
            continue
        if before is None:
            paths.add(name)
        if isinstance(value, dict) and (before is None or isinstance(before, dict)):
            had = before or {}
            paths |= {f"{name}.{inner}" for inner in value if had.get(inner) is None}
        elif isinstance(value, list) and (before is None or isinstance(before, list)):
            had_items = len(before or ())
            if len(value) > had_items:
                paths |= {name, *(f"{name}[{index}]" for index in range(had_items, len(value)))}
    return paths
