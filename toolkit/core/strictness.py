"""Which of two wishes lets less through, where two may say what becomes of something in a request. Pure."""

from enum import StrEnum
from typing import TypeVar

Wish = TypeVar("Wish", bound=StrEnum)


def stricter(one: Wish, other: Wish) -> Wish:
    """Return the one that lets less through; the members of its type stand in that order."""
    order = list(type(one))
    return max(one, other, key=order.index)
