"""Listings of models come in pages to whoever asks for them, as Anthropic and Google have them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.errors import Refusal, RefusalType
from toolkit.dialects import anthropic, gemini
from toolkit.dialects.shape import ModelInfo


def models(*ids: str) -> list[ModelInfo]:
    """Return models of these ids."""
    return [ModelInfo(one, datetime(2026, 1, 1, tzinfo=UTC), 1_000, 100, one, "us") for one in sorted(ids)]


def ids(answer: dict[str, Any]) -> list[str]:
    """Return the ids on a page."""
    return [model["id"] for model in answer["data"]]


def test_a_listing_that_asks_for_no_page_has_all() -> None:
    """As pickers of models expect, which read no second page."""
    answer = anthropic.listing(models("a", "b", "c"))
    assert (ids(answer), answer["has_more"], answer["first_id"], answer["last_id"]) == (
        ["a", "b", "c"],
        False,
        "a",
        "c",
    )
    assert anthropic.listing([], {"limit": "5"}) == {"data": [], "has_more": False, "first_id": None, "last_id": None}


@pytest.mark.parametrize(
    ("asked", "page", "more"),
    [
        ({"limit": "1000"}, "abcd", False),
        ({"limit": "2"}, "ab", True),
        ({"limit": "2", "after_id": "b"}, "cd", False),
        ({"limit": "2", "before_id": "d"}, "bc", True),
        ({"limit": "2", "before_id": "c"}, "ab", False),
        ({"after_id": "bb"}, "cd", False),
        ({"before_id": "a"}, "", False),
        ({"after_id": "", "before_id": ""}, "abcd", False),
    ],
)
def test_pages_of_anthropic(asked: dict[str, str], page: str, more: bool) -> None:
    """Behind one id or before another one, even if that model is gone meanwhile."""
    answer = anthropic.listing(models(*"abcd"), asked)
    assert ("".join(ids(answer)), answer["has_more"]) == (page, more)


@pytest.mark.parametrize("size", ["0", "1001", "-1", "two", "1e2", "00010000", "\u0663"])
def test_a_page_has_a_size(size: str) -> None:
    """From 1 to 1,000, as at the providers; both name the field."""
    for listing, name in ((anthropic.listing, "limit"), (gemini.listing, "pageSize")):
        with pytest.raises(Refusal, match=f"'{name}' must be a whole number from 1 to 1,000") as caught:
            listing(models("a"), {name: size})
        assert caught.value.type is RefusalType.INVALID_REQUEST


def test_two_places_at_once_are_none() -> None:
    """A page lies behind one model or before another one."""
    with pytest.raises(Refusal, match="exclude each other"):
        anthropic.listing(models("a", "b"), {"after_id": "a", "before_id": "b"})


@given(st.sets(st.text("abc", min_size=1, max_size=3)), st.integers(1, 5))
def test_pages_one_after_another_are_the_whole(names: set[str], size: int) -> None:
    """In both dialects, each model once and in order; backwards too."""
    all_models = models(*names)
    found: list[str] = []
    asked = {"limit": str(size)}
    while (answer := anthropic.listing(all_models, asked))["has_more"]:
        found += ids(answer)
        asked["after_id"] = answer["last_id"]
    assert found + ids(answer) == sorted(names)
    found, asked = [], {"limit": str(size), "before_id": "~"}
    while (answer := anthropic.listing(all_models, asked))["has_more"]:
        found = ids(answer) + found
        asked["before_id"] = answer["first_id"]
    assert ids(answer) + found == sorted(names)
    found, asked = [], {"pageSize": str(size)}
    while token := (answer := gemini.listing(all_models, asked)).get("nextPageToken"):
        found += [model["name"].removeprefix("models/") for model in answer["models"]]
        asked["pageToken"] = token
    assert found + [model["name"].removeprefix("models/") for model in answer["models"]] == sorted(names)
