"""No attack and no provider's answer stops the others, loses money, or leaves anything behind."""

from pathlib import Path

import pytest

from tests.chaos import hostile
from tests.chaos.stores import Place

pytestmark = pytest.mark.world


def test_whatever_is_sent_and_answered_every_call_is_accounted_for(place: Place, tmp_path: Path) -> None:
    """Some hundred fuzzed heads, paths and bodies against providers that lie: no 500, no hang, nothing uncharged."""
    report = hostile.run(place, tmp_path, seconds=6)
    assert not report.violations, report
    assert report.figures["attacks"] > 30, report
    assert report.figures["neighbour's calls"] > 0, report
