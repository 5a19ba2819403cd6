"""Counts of refusals: exact, added up to days when they are old, and few however often somebody tries."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.conftest import ADMIN, Run, World
from toolkit.admin import keys, organisations
from toolkit.core.moments import micros, moment
from toolkit.core.period import Period
from toolkit.core.policy import Role
from toolkit.store import refusal_counts
from toolkit.store.actor import SYSTEM, Actor
from toolkit.store.tables import RefusalCount, RefusalDay
from toolkit.store.tally import Counted

pytestmark = pytest.mark.both_stores

NOW = datetime(2026, 11, 20, 15, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def minute(at: datetime) -> int:
    """Return the minute of a moment, since 1970."""
    return micros(at) // 60_000_000


def count(world: World, key_id: str, *moments: datetime, refusal: str = "unauthorized", times: int = 1) -> None:
    """Count refusals of a key in the minutes of these moments."""
    with world.workspace.write() as tx:
        refusal_counts.add(tx, {(key_id, refusal, minute(at)): Counted(times, at) for at in moments})


def totals(world: World, period: Period, actor: Actor = ADMIN) -> dict[tuple[str, str], int]:
    """Return the totals that an actor sees."""
    with world.workspace.store.read(actor) as tx:
        return refusal_counts.totals(tx, period)


def rows(world: World) -> tuple[int, int]:
    """Return how many counts of minutes and of days there are."""
    with world.workspace.read() as tx:
        return tx.session.query(RefusalCount).count(), tx.session.query(RefusalDay).count()


def test_old_minutes_become_days_and_no_refusal_is_lost(world: World) -> None:
    """Ten days of refusals, some each hour: the same sums before and after, with a row for each old day."""
    key = world.key("app").key.id
    count(world, key, *(NOW - timedelta(hours=hour) for hour in range(240)), times=3)
    periods = [Period.all(), Period.days(5, NOW), Period.days(1, NOW), Period.month("2026-11"), Period(NOW - MINUTE)]
    before = [totals(world, period) for period in periods]
    assert refusal_counts.fold(world.workspace.store, NOW) > 0
    assert [totals(world, period) for period in periods] == before
    assert before[0] == {(key, "unauthorized"): 720}
    midnight = NOW.replace(hour=0, minute=0)
    recent = (NOW - (midnight - refusal_counts.BY_MINUTE)) // timedelta(hours=1) + 1
    assert rows(world) == (recent, 8)


def test_folding_again_adds_nothing_twice(world: World) -> None:
    """What comes late for a day is added to it; the last minute stays the last."""
    key, at = world.key("app").key.id, NOW - timedelta(days=5)
    count(world, key, at, times=2)
    assert refusal_counts.fold(world.workspace.store, NOW) == 1
    count(world, key, at - MINUTE, times=5)
    assert refusal_counts.fold(world.workspace.store, NOW) == 1
    assert refusal_counts.fold(world.workspace.store, NOW) == 0
    assert totals(world, Period.all()) == {(key, "unauthorized"): 7}
    with world.workspace.read() as tx:
        assert list(refusal_counts.last(tx)) == [(key, "unauthorized", at.replace(second=0))]


def test_folding_goes_in_steps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many counts wait, no transaction takes more than some; a day may be met by two of them."""
    key = world.key("app").key.id
    count(world, key, *(NOW - timedelta(days=5) + n * MINUTE for n in range(10)))
    monkeypatch.setattr(refusal_counts, "AT_ONCE", 3)
    assert refusal_counts.fold(world.workspace.store, NOW) == 10
    assert rows(world) == (0, 1)
    assert totals(world, Period.all()) == {(key, "unauthorized"): 10}


def test_days_go_after_their_time(world: World) -> None:
    """What is older than the time for which counts are kept is dropped; the log's own rows are not touched."""
    key = world.key("app").key.id
    for age in (refusal_counts.KEPT - timedelta(days=1), refusal_counts.KEPT + timedelta(days=1)):
        count(world, key, NOW - age)
        refusal_counts.fold(world.workspace.store, NOW)
    refusal_counts.fold(world.workspace.store, NOW)
    assert totals(world, Period.all()) == {(key, "unauthorized"): 1}


def test_a_period_counts_what_lies_in_it_whole(world: World) -> None:
    """A minute or an old day that a period cuts in two is left out: the log's rows have to do for it."""
    key = world.key("app").key.id
    count(world, key, NOW, NOW - timedelta(days=5))
    refusal_counts.fold(world.workspace.store, NOW)
    start = moment(minute(NOW) * 60_000_000)
    assert totals(world, Period(start, start + MINUTE)) == {(key, "unauthorized"): 1}
    assert totals(world, Period(start + timedelta(seconds=1), start + 2 * MINUTE)) == {}
    old = NOW - timedelta(days=5)
    assert totals(world, Period(old, old + timedelta(hours=2))) == {}


def test_an_organisation_counts_its_own_keys(world: World) -> None:
    """Neither sums nor last moments tell an analyst of another tenant's refusals."""
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Other").id
        theirs = keys.create(tx, world.workspace.keyring, org=other, name="theirs", plan=world.plan_id).key.id
    mine = world.key("mine").key.id
    count(world, mine, NOW, NOW - timedelta(days=9))
    count(world, theirs, NOW, NOW - timedelta(days=9))
    refusal_counts.fold(world.workspace.store, NOW)
    analyst = Actor("analyst@other.example", Role.ANALYST, other)
    assert totals(world, Period.all(), analyst) == {(theirs, "unauthorized"): 2}
    with world.workspace.store.read(analyst) as tx:
        assert {key for key, _, _ in refusal_counts.last(tx)} == {theirs}


def test_compacting_folds(world: World, run: Run) -> None:
    """Whoever keeps the ledger small keeps the counts few."""
    key = world.key("app").key.id
    with world.workspace.store.write(SYSTEM) as tx:
        long_ago = tx.now - timedelta(days=30)
    count(world, key, long_ago, long_ago + MINUTE)
    assert run("ledger", "compact").exit_code == 0
    assert rows(world) == (0, 1)
