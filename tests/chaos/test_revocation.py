"""Revocation is immediate in every process, on both stores."""

from pathlib import Path

import pytest

from tests.chaos import revocation
from tests.chaos.stores import Place

pytestmark = pytest.mark.world


def test_no_call_that_began_after_a_verb_returned_is_let_in(place: Place, tmp_path: Path) -> None:
    """Rotations, disables, enables and deletions under load on three processes: dead is dead, alive is alive."""
    report = revocation.run(place, tmp_path, verbs=60, gateways=(2, 1))
    assert not report.violations, report
    assert report.figures["began after the verb, refused"] > 60, report
    assert report.figures["wholly between verbs, admitted"] > 200, report
