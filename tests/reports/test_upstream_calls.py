"""Upstream calls: what became of those that each upstream was sent."""

from datetime import timedelta

import pandas as pd

from tests.conftest import World
from tests.rows import NOON, append, row
from toolkit.core.period import Period
from toolkit.reports import upstream_calls
from toolkit.store.tables import ApiKey

MINUTE = timedelta(minutes=1)


def test_failures_and_times_are_those_of_the_upstream(world: World, app: ApiKey) -> None:
    """What was refused here, or left by its caller, is no failure; times are those of completed calls alone."""
    done = [
        row(app, NOON, upstream="fast", first_byte_ms=first, duration_ms=took)
        for first, took in ((10, 100), (20, 200), (30, 300))
    ]
    failed = [
        row(app, NOON + number * MINUTE, upstream="fast", outcome="upstream_error", duration_ms=9_000, error=said)
        for number, said in enumerate(("first words", "last words"))
    ]
    others = [
        row(app, NOON, upstream="fast", outcome="aborted", duration_ms=5),
        row(app, NOON, upstream="fast", outcome="refused"),
        row(app, NOON, outcome="refused"),
        row(app, NOON - 90 * MINUTE, upstream="old"),
        row(app, NOON, upstream="broken", outcome="upstream_error", error="502"),
    ]
    append(world.workspace.store, [*done, *failed, *others])
    found = upstream_calls.table(world.workspace.ledger, Period(NOON - 60 * MINUTE))
    assert found["upstream"].tolist() == ["broken", "fast"]
    broken, fast = found.to_dict("records")
    assert (fast["calls"], fast["failed"], fast["first_byte_ms"], fast["duration_ms"]) == (6, 2, 20, 200)
    assert fast["slow_ms"] == 290
    assert (fast["last_error"], fast["last_error_at"]) == ("last words", pd.Timestamp(NOON + MINUTE))
    assert (broken["calls"], broken["failed"], broken["last_error"]) == (1, 1, "502")
    assert pd.isna(broken["duration_ms"])
