"""An upstream that is killed loses no call that it had not received, on both stores."""

from pathlib import Path

import pytest

from tests.chaos import failover
from tests.chaos.stores import Place

pytestmark = pytest.mark.world


def test_no_call_is_lost_that_had_no_output(place: Place, tmp_path: Path) -> None:
    """One of two upstreams dies under load, six times; the other one answers."""
    report = failover.run(place, tmp_path, kills=6)
    assert not report.violations, report
    assert report.figures["read to the end, each charged once"] > 200, report
    assert report.figures["went another way"] > 0, report
