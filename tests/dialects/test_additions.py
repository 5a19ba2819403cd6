"""What a request has been given on its way is told apart from what its caller sent."""

from typing import Any

import pytest

from toolkit.dialects.additions import paths_added


@pytest.mark.parametrize(
    ("came", "sent", "paths"),
    [
        ({"a": 1}, {"a": 1}, set()),
        ({"a": 1}, {"a": 2}, set()),
        ({"a": None}, {"a": 2}, {"a"}),
        ({}, {"a": None}, set()),
        ({}, {"options": {"usage": True}}, {"options", "options.usage"}),
        ({"options": {"other": 1}}, {"options": {"other": 1, "usage": True}}, {"options.usage"}),
        ({"options": {"usage": None}}, {"options": {"usage": True}}, {"options.usage"}),
        ({"include": ["x"]}, {"include": ["x", "y"]}, {"include", "include[1]"}),
        ({}, {"include": ["y"]}, {"include", "include[0]"}),
        ({"max_tokens": 5}, {"max_completion_tokens": 5}, {"max_completion_tokens"}),
        ({"include": "text"}, {"include": ["y"]}, set()),
    ],
)
def test_what_was_added_is_found(came: dict[str, Any], sent: dict[str, Any], paths: set[str]) -> None:
    """At the top and one level below; what stands in its place instead is no addition."""
    assert paths_added(came, sent) == paths
