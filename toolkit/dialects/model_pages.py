"""Pages of a listing of models, as Anthropic and Google have them. Pure."""

from collections.abc import Mapping
from types import MappingProxyType

from toolkit.dialects.body import invalid, shown

ALL: Mapping[str, str] = MappingProxyType({})
"""The query of a listing that asks for no pages."""

MOST_LISTED = 1_000
"""Models of one page; Anthropic, "List models"; Google, "models.list"."""


def page_size(asked: Mapping[str, str], name: str) -> int:
    """Return how many models a page may have; a listing that asks for no pages has all on one.

    Args:
        asked: the fields of the query.
        name: of the one that says it.

    Raises:
        Refusal: invalid_request; it is no number from 1 to `MOST_LISTED`.
    """
    text = asked.get(name, "")
    if not text:
        return MOST_LISTED
    size = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 0
    if not 1 <= size <= MOST_LISTED:
        raise invalid(f"'{name}' must be a whole number from 1 to {MOST_LISTED:,}, not {shown(text)}.", name)
    return size
