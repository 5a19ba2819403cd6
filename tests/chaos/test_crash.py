"""kill -9 breaks nothing, on both stores."""

from pathlib import Path

import pytest

from tests.chaos import crash
from tests.chaos.stores import Place

pytestmark = pytest.mark.world

VICTIMS = {
    "sqlite": ["gateway", "drain", "pause", "everything"],
    "postgresql": ["gateway", "server", "drain", "everything"],
}


def test_the_books_balance_after_kills(place: Place, tmp_path: Path) -> None:
    """Whatever is killed under load: one row for each forwarded call, nothing charged twice, nothing left held."""
    report = crash.run(place, tmp_path, victims=VICTIMS[place.kind])
    assert not report.violations, report
    assert report.figures["forwarded"] > 100, report
    assert report.figures["read to the end"] > 100, report
    assert report.figures["  abandoned"] > 0, report
