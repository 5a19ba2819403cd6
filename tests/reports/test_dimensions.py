"""What reports group and filter by."""

from datetime import UTC, date, datetime, timedelta

import duckdb
import pandas as pd
import pytest

from tests.conftest import World
from tests.rows import NOON, append, row
from toolkit.core.errors import InvalidInput
from toolkit.core.period import Period
from toolkit.reports import dimensions, spend
from toolkit.store.tables import ApiKey

DAY = timedelta(days=1)


@pytest.mark.parametrize("dimension", list(dimensions.DIMENSIONS))
def test_every_dimension_adds_up_to_the_total(world: World, app: ApiKey, dimension: str) -> None:
    """However spend is cut, the parts sum to the whole, in whole numbers."""
    frame = spend.table(world.workspace.ledger, [dimension])
    total = spend.totals(world.workspace.ledger)
    for column in ("calls", "input_tokens", "cached_input_tokens", "output_tokens", "cost"):
        assert frame[column].dtype == "int64", column
        assert int(frame[column].sum()) == getattr(total, column), column


def test_dimensions_combine(world: World, app: ApiKey) -> None:
    """Several dimensions give all their columns, each once."""
    frame = spend.table(world.workspace.ledger, ["hour", "key", "org", "dialect"])
    assert list(frame.columns[:7]) == ["hour", "key_id", "key", "key_label", "org", "org_id", "dialect"]
    assert str(frame["hour"].dt.tz) == "UTC"
    assert frame["hour"].tolist()[0] == pd.Timestamp(NOON - 2 * DAY)


def test_weeks_begin_on_monday(world: World) -> None:
    """Sunday's last moment and Monday's first belong to two weeks, each named by its Monday."""
    monday = datetime(2026, 11, 23, tzinfo=UTC)
    append(world.workspace.store, [row(at=at, cost=1) for at in (monday - DAY / 86_400, monday, monday + 6 * DAY)])
    frame = spend.table(world.workspace.ledger, ["week"])
    assert frame[["week", "cost"]].values.tolist() == [[date(2026, 11, 16), 1], [date(2026, 11, 23), 2]]


def test_a_tag_is_read_from_the_objects_text() -> None:
    """The value of the tag is the group, whatever characters its name has; without one it is "(none)"."""
    columns = ", ".join(dimensions.grouped("Spend", ["tag:team", "tag:a/b~c'\"d"]))
    calls = """ FROM (VALUES ('{"team": "search", "a/b~c''\\"d": "x"}'), ('{"teams": "ads"}'), (NULL)) AS usage(tags)"""
    relation = duckdb.sql(f"SELECT {columns}{calls}")
    assert relation is not None
    assert relation.columns == ["tag:team", "tag:a/b~c'\"d"]
    assert relation.fetchall() == [("search", "x"), ("(none)", "(none)"), ("(none)", "(none)")]


@pytest.mark.parametrize(
    "by", [[], ["colour"], ["key", "key"], ["tag:"], ["tag:a", "tag:a"], ["cost; DROP TABLE usage"]]
)
def test_unknown_dimension_is_refused(world: World, by: list[str]) -> None:
    """What spend cannot be grouped by is answered with what it can be."""
    with pytest.raises(InvalidInput, match="key, model, org"):
        spend.table(world.workspace.ledger, by)


def test_period_is_half_open(world: World) -> None:
    """A call at the first moment of a month belongs to it, one at the first of the next does not."""
    key = world.key().key
    first, last = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC)
    tick = timedelta(microseconds=1)
    append(world.workspace.store, [row(key, at, cost=1) for at in (first - tick, first, last, last + tick)])
    for _ in range(2):  # once from the outbox, once from segments
        assert spend.table(world.workspace.ledger, ["month"], Period.month("2026-11"))["cost"].tolist() == [2]
        assert spend.totals(world.workspace.ledger, Period.month("2026-10")).calls == 1
        world.workspace.ledger.sync()
