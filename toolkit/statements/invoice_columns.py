"""The columns of a provider's invoice: which heading stands for which field."""

import re
from collections.abc import Mapping

from toolkit.core.errors import InvalidInput

NAMES = {
    "date": ("date", "day", "usage_date", "usage_date_utc", "start_time", "start_time_iso", "timestamp", "created_at"),
    "model": ("model", "model_id", "model_name", "model_version"),
    "response_id": ("response_id", "provider_response_id", "completion_id", "message_id", "generation_id", "id"),
    "input_tokens": ("input_tokens", "prompt_tokens", "prompt_token_count", "n_context_tokens_total"),
    "fresh_input_tokens": (
        *("uncached_input_tokens", "input_uncached_tokens", "fresh_input_tokens", "usage_input_tokens_no_cache"),
    ),
    "cached_tokens": (
        *("cached_tokens", "cached_input_tokens", "input_cached_tokens", "cache_read_tokens"),
        *("cache_read_input_tokens", "usage_input_tokens_cache_read", "cached_content_token_count"),
    ),
    "cache_write_5m_tokens": (
        *("cache_write_tokens", "cache_write_5m_tokens", "cache_creation_tokens", "cache_creation_input_tokens"),
        *("usage_input_tokens_cache_write_5m", "ephemeral_5m_input_tokens"),
    ),
    "cache_write_1h_tokens": (
        *("cache_write_1h_tokens", "usage_input_tokens_cache_write_1h", "ephemeral_1h_input_tokens"),
    ),
    "output_tokens": (
        *("output_tokens", "completion_tokens", "usage_output_tokens", "n_generated_tokens_total"),
        "candidates_token_count",
    ),
    "amount": ("amount", "amount_usd", "cost", "cost_usd", "cost_in_usd", "total_cost", "total_usd", "charge_usd"),
    "currency": ("currency", "amount_currency", "cost_currency"),
}
"""Fields of a line, and the headings that each is known by; case, spaces and punctuation do not count."""


def _plain(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", heading.strip().lower()).strip("_")


def places_of(heading: list[str], chosen: Mapping[str, str]) -> dict[str, int]:
    """Return where each field stands."""
    shown = ", ".join(repr(name) for name in heading)
    places = {}
    for field, name in chosen.items():
        if field not in NAMES:
            raise InvalidInput(f"There is no field {field!r} of an invoice. There are {', '.join(NAMES)}.")
        if name not in heading:
            raise InvalidInput(f"The invoice has no column {name!r} for {field}. Its columns are {shown}.")
        if heading.count(name) > 1:
            raise InvalidInput(
                f"The invoice has several columns {name!r}, and {field} can be one only: rename the others."
            )
        places[field] = heading.index(name)
    for field, known in NAMES.items():
        found = [place for place, name in enumerate(heading) if _plain(name) in known and place not in places.values()]
        if field in places or not found:
            continue
        if len(found) > 1:
            names = " and ".join(repr(heading[place]) for place in found)
            raise InvalidInput(f"The columns {names} could both be {field}: say which with {_option(field)}.")
        places[field] = found[0]
    for field in ("model", "amount"):
        if field not in places:
            raise InvalidInput(
                f"The invoice has no column that is known as {field}: say which with {_option(field)}. It has {shown}."
            )
    if "fresh_input_tokens" in places:
        places.pop("input_tokens", None)
    return places


def _option(field: str) -> str:
    return f"--column {field}=HEADING (columns={{'{field}': 'HEADING'}})"
