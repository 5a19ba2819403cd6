"""Each committed row is in the ledger once, whatever is killed; and the judge who says so is no fool."""

# ruff: noqa: F401, F811 - fixtures are imported, and are arguments of tests

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.buckets import bucket, bucket_server
from tests.chaos import ledger
from tests.chaos.ledger_judge import Seen, Totals, backward, judge
from tests.chaos.ledger_script import DAYS, PRODUCERS, Slice, part
from tests.chaos.report import Report
from tests.chaos.stores import Place, SqlitePlace
from toolkit.core.moments import micros

SECONDS, KILLS = 4, 14


def require_work(report: Report) -> None:
    """Fail if anything was violated, or if too little was done to tell."""
    assert not report.violations, report
    assert report.figures["rows committed"] > 100, report
    assert report.figures["reads"] > 5, report
    assert report.figures["segments written"] > 10, report


@pytest.mark.world
def test_each_committed_row_is_in_the_ledger_once(place: Place, tmp_path: Path) -> None:
    """Producers, drains, a compactor and readers are killed at random: no read misses, doubles or takes back a row."""
    require_work(ledger.run(place, tmp_path, seconds=SECONDS, kills=KILLS))


@pytest.mark.world
def test_each_committed_row_is_in_a_bucket_once(bucket: str, tmp_path: Path) -> None:
    """The same with the segments in a bucket."""
    require_work(ledger.run(SqlitePlace(tmp_path), tmp_path, seconds=SECONDS, kills=KILLS, root=bucket))


# -- the judge ------------------------------------------------------------------------------------------------------

ROWS = part(0).members(Slice(), 100)
LATE = Slice(start=micros(DAYS[0]), end=micros(DAYS[-1]))
RIGHT = Seen(70, 70, 1, 70, int(ROWS.costs[70]))
TOTALS = Totals(70, int(ROWS.costs[70]))


def test_a_right_read_is_let_be() -> None:
    """The first 70 rows, of which 60 were committed before the read began and 80 after it, are right."""
    assert judge(part(0), Slice(), RIGHT, TOTALS, 60, 80) == []


@pytest.mark.parametrize(
    ("seen", "totals", "says"),
    [
        (replace(RIGHT, rows=69, ids=69), TOTALS, "rows=69"),
        (replace(RIGHT, rows=71), TOTALS, "rows=71"),
        (replace(RIGHT, rows=71, ids=71, last=71), TOTALS, "rows=71"),
        (replace(RIGHT, first=2), TOTALS, "first=2"),
        (replace(RIGHT, cost=RIGHT.cost + 1), TOTALS, f"cost={RIGHT.cost + 1}"),
        (Seen(), TOTALS, "rows=0"),
        (RIGHT, replace(TOTALS, spent=TOTALS.spent - 1), "spent"),
        (Seen(59, 59, 1, 59, int(ROWS.costs[59])), Totals(59, int(ROWS.costs[59])), "60 were committed before it"),
        (Seen(81, 81, 1, 81, int(ROWS.costs[81])), Totals(81, int(ROWS.costs[81])), "80 after it"),
    ],
    ids=["missing", "doubled", "too early", "a gap", "a cost", "nothing", "the totals", "the past", "the future"],
)
def test_a_wrong_read_is_found(seen: Seen, totals: Totals, says: str) -> None:
    """A row too few, too many, twice, changed, or of another moment is a violation."""
    (wrong,) = judge(part(0), Slice(), seen, totals, 60, 80)
    assert says in wrong


def test_a_part_is_judged_by_what_is_in_it() -> None:
    """Of a span of time, or of an organisation, exactly the rows in it are right."""
    of_org = part(0).members(Slice(org=1), 80)
    (count,) = {of_org.upto(70)}
    totals = Totals(count, int(of_org.costs[count]))
    seen = Seen(count, count, int(of_org.numbers[0]), int(of_org.numbers[count - 1]), totals.spent)
    assert judge(part(0), Slice(org=1), seen, totals, 60, 80) == []
    assert judge(part(0), Slice(org=1), replace(seen, rows=count + 1), totals, 60, 80)
    late = part(1).members(LATE, 900)
    assert 0 < len(late.numbers) < 900
    whole = part(1).members(Slice(), 900)
    seen = Seen(len(late.numbers), len(late.numbers), int(late.numbers[0]), int(late.numbers[-1]), int(late.costs[-1]))
    totals = Totals(900, int(whole.costs[900]))
    assert judge(part(1), LATE, seen, totals, 900, 900) == []
    assert judge(part(1), LATE, replace(seen, last=seen.last - 1), totals, 900, 900)


def test_what_goes_backward_between_two_readers_is_found() -> None:
    """A read that begins after another one's end must not show less; one that overlaps it may."""

    def read(who: str, began: float, ended: float, calls: int) -> dict[str, Any]:
        return {"who": who, "began": began, "ended": ended, "calls": [calls] * PRODUCERS}

    first, overlapping, later = read("first", 0, 2, 10), read("second", 1, 3, 9), read("third", 4, 5, 9)
    assert backward([first, overlapping]) == []
    (wrong,) = backward([later, first, overlapping, {"calls": [], "began": 0}])
    assert "third" in wrong
