"""A change made from what was seen some time ago."""

import pytest

from toolkit.core.errors import Conflict
from toolkit.core.stale import require_unchanged

SEEN = {"multiplier": "1×", "models": ["a", "b"], "note": None}


def test_what_is_as_it_was_seen_is_changed() -> None:
    """Nothing is refused."""
    require_unchanged("plan 'x'", SEEN, dict(SEEN))


def test_both_values_of_what_differs_are_told() -> None:
    """And that nothing was saved."""
    with pytest.raises(Conflict) as refused:
        require_unchanged("plan 'x'", SEEN, SEEN | {"multiplier": "2×", "note": "hers"})
    assert "multiplier is 2×, and was 1×" in str(refused.value)
    assert "note is hers, and was not set" in str(refused.value)
    assert "models" not in str(refused.value)
    assert "Nothing of yours was saved" in str(refused.value)
