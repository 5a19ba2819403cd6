"""docs/providers.md says what the code has."""

import pytest

from tests.conftest import ROOT
from tests.providers.coverage import ASPECTS, UNTESTED, covered
from tests.providers.tables import TABLES

PAGE = (ROOT / "docs/providers.md").read_text()
WELL_TESTED = 14
"""Presets of which every aspect is tested, at the least."""


@pytest.mark.parametrize("title", TABLES)
def test_each_table_is_as_the_code_has_it(title: str) -> None:
    """Row by row, and no row more; `python -m tests.providers.tables` prints them."""
    written = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert rows == TABLES[title]().splitlines()


def test_what_is_untested_has_its_reason_and_nothing_else_has() -> None:
    """A recording that is added takes its excuse away."""
    found = covered()
    missing = {(name, aspect) for name, aspects in found.items() for aspect in ASPECTS if aspect not in aspects}
    assert set(UNTESTED) == missing


def test_most_presets_are_tested_in_all_that_they_do() -> None:
    """An answer, a stream, tools, errors and usage, through an upstream that is made by the preset."""
    assert sum(set(ASPECTS) == aspects for aspects in covered().values()) >= WELL_TESTED
