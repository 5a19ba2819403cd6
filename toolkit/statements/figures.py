"""What a statement says: the form of its figures, and the text of them that is hashed.

Each amount is there as whole nano-USD and as decimal USD; nothing is a float. `docs/month-close.md` has the fields;
`figures_builder` fills them in.
"""

import hashlib
import json
from datetime import datetime
from typing import Any

from toolkit.core.errors import Conflict
from toolkit.core.wording import counted
from toolkit.store.tables import Statement

FORM = 2
"""Version of the figures' form; raised when a field is added or changes its meaning. 2 has corrected calls
and `written_off`."""

CORRECTED_CALL = "call corrected"
"""Kind of the adjustments that correct the charge of a call; they name it."""

TOKENS = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
)
"""Tokens by kind, as the view `usage` has them: cached and cache-written input is part of the input."""

MONEY = ("list_cost", "multiplier_effect", "charged")
"""Amounts of a group of calls: at list price, what the multiplier added to that, and the sum of both."""

SUMS = ("calls", *TOKENS, *MONEY)

_SUMMED = {**dict.fromkeys(SUMS, int), **{f"{name}_usd": str for name in MONEY}}

_LINE = {**dict.fromkeys(("kind", "at", "by", "reference", "reason", "amount_usd"), str), "amount": int}

_BRIDGE = ("opening", "credits", "adjustments", "charged", "closing")

_PARTS: dict[str, Any] = {
    "org": {"id": str, "name": str},
    "month": str,
    "from": datetime,
    "totals": _SUMMED,
    "keys": [_SUMMED | {"key_id": str, "key": str}],
    "models": [_SUMMED | {"model": str}],
    "keys_and_models": [_SUMMED | {"key_id": str, "key": str, "model": str}],
    "wallet": {**dict.fromkeys(_BRIDGE, int), **{f"{name}_usd": str for name in _BRIDGE}},
    "credits": [_LINE],
    "adjustments": [_LINE | {"corrects": str | None, "key_id": str | None, "calls": int}],
    "since": dict.fromkeys(("entries", "charged", "balance"), int),
    "before": (None, {"calls": int, "charged": int}),
    "previous_sha256": str | None,
    "closed_at": datetime,
    "closed_by": str,
}
"""The parts of frozen figures that anything reads; moments are text in ISO 8601, a tuple is one or the other."""

Figures = dict[str, Any]
"""What a statement says: whole numbers and text only. Money is nano-USD, and again as decimal USD under `…_usd`."""


def figures_of(statement: Statement) -> Figures:
    """Return what a statement says, without checking that it is what was closed; `verify` does.

    Raises:
        Conflict: somebody made it unreadable.
    """
    try:
        figures: Figures = json.loads(statement.figures)
        whole = _made_of(figures, _PARTS)
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        raise Conflict(
            f"The statement of {statement.month} was changed: it cannot be read. Restore it from a backup of the key "
            f"store; `keydesk month show {statement.month} --org {statement.org_id} --verify` says more."
        )
    return figures


def _made_of(value: Any, parts: Any) -> bool:
    """Whether a value has at least these parts, each of its type."""
    if isinstance(parts, dict):
        return isinstance(value, dict) and all(_made_of(value.get(name, ...), part) for name, part in parts.items())
    if isinstance(parts, list):
        return isinstance(value, list) and all(_made_of(item, parts[0]) for item in value)
    if isinstance(parts, tuple):
        return any(_made_of(value, part) for part in parts)
    if parts is datetime:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    return value is None if parts is None else isinstance(value, parts)


def canonical(figures: Figures) -> str:
    """Return figures as the text that is hashed: JSON in ASCII with sorted keys, no spaces and no floats."""
    return json.dumps(figures, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(text: str) -> str:
    """Return the SHA-256 of canonical figures in hexadecimal; `sha256sum` of the JSON form gives the same."""
    return hashlib.sha256(text.encode()).hexdigest()


def say_written_off(figures: Figures) -> str:
    """Return in words which calls were written off; empty if none was, or the statement is of before it said so."""
    found = figures.get("written_off") or {"calls": 0}
    if not found["calls"]:
        return ""
    each = [
        f"{group['upstream'] or 'an unknown provider'}: {counted(group['calls'], 'call')}, of which "
        f"{group['forwarded']:,} had certainly been forwarded"
        + (f" (its ids: {', '.join(group['response_ids'])})" if group["response_ids"] else "")
        for group in found["upstreams"]
    ]
    return (
        f"{counted(found['calls'], 'call')} written off, for their gateway had died: nothing was charged, yet the "
        f"provider may bill them. {'; '.join(each)}."
    )
