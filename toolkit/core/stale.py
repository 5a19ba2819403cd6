"""Changes made from what was seen some time ago. Pure."""

from collections.abc import Mapping
from typing import Any

from toolkit.core.errors import Conflict


def require_unchanged(what: str, seen: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a change of something that was changed since it was seen.

    Args:
        what: it is, with its name, such as "plan 'Standard'".
        seen: its facts as they were when the form was opened.
        now: as they are.

    Raises:
        Conflict: they differ; it tells both values of each.
    """
    changed = [name for name in {**seen, **now} if seen.get(name) != now.get(name)]
    if changed:
        told = "; ".join(
            f"{name.replace('_', ' ')} is {_shown(now.get(name))}, and was {_shown(seen.get(name))}" for name in changed
        )
        raise Conflict(
            f"The {what} was changed since you opened it: {told}. Nothing of yours was saved: open it again, and "
            "decide by what it is now."
        )


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "not set"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple, set)) else str(value)
