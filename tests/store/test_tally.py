"""Tallies: what is counted in memory is added to the key store, whole and once, and memory has an end."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import World, wait_until
from toolkit.core.errors import Unavailable
from toolkit.store import refusal_counts
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.tables import RefusalCount
from toolkit.store.tally import Counted, Tallies
from toolkit.store.transaction import Transaction

pytestmark = pytest.mark.both_stores

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
AT = ("key_1", "unauthorized", 30_000_000)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[Store]:
    """The stores of write transactions, as they begin."""
    begun: list[Store] = []
    write = Store.write

    def counted(self: Store, *values: Any) -> Any:
        begun.append(self)
        return write(self, *values)

    monkeypatch.setattr(Store, "write", counted)
    return begun


def refused(store: Store) -> dict[tuple[str, str, int], int]:
    """Return the store's counts of refusals."""
    with store.read(SYSTEM) as tx:
        rows = tx.session.query(RefusalCount).all()
        return {(row.key_id, row.refusal, row.minute): row.refused for row in rows}


def test_counts_of_all_processes_add_up(world: World) -> None:
    """What two processes counted of the same thing is added, whichever comes first."""
    processes = [Tallies(world.workspace.store) for _ in range(2)]
    counts = [tallies.tally(refusal_counts.add) for tallies in processes]
    for number, tally in enumerate(counts):
        for key in ("key_1", "key_2"):
            tally.count((key, *AT[1:]), NOON, times=10 + number)
    for tallies in [*processes, *processes]:  # a second time there is nothing left to add
        tallies.flush()
    counts[0].count(AT, NOON)
    processes[0].flush()
    assert refused(world.workspace.store) == {AT: 22, ("key_2", *AT[1:]): 21}


def test_all_keys_are_added_in_one_transaction_and_nothing_in_none(world: World, writes: list[Store]) -> None:
    """A thousand keys cost one; without any there is none."""
    tallies = Tallies(world.workspace.store)
    tally = tallies.tally(refusal_counts.add)
    tallies.flush()
    assert writes == []
    for number in range(1_000):
        tally.count((f"key_{number}", *AT[1:]), NOON)
    tallies.flush()
    assert len(writes) == 1
    assert sum(refused(world.workspace.store).values()) == 1_000


def test_counts_are_kept_while_the_store_is_away(world: World) -> None:
    """They are added when it is back, together with what was counted meanwhile."""
    taken: list[dict[str, Counted]] = []

    def add(_tx: Transaction, counts: Mapping[str, Counted]) -> None:
        taken.append(dict(counts))
        if len(taken) == 1:
            raise Unavailable("gone")

    tallies = Tallies(world.workspace.store)
    tally = tallies.tally(add)
    tally.count("a", NOON, times=2)
    tallies.flush()
    tally.count("a", NOON - timedelta(hours=1))
    tally.count("b", NOON)
    tallies.flush()
    tallies.flush()
    assert taken == [{"a": Counted(2, NOON)}, {"a": Counted(3, NOON), "b": Counted(1, NOON)}]


def test_a_tally_that_fails_does_not_stop_the_others(world: World) -> None:
    """Its counts are lost, which is logged; they are no reason to lose more."""

    def fail(_tx: Transaction, _counts: Mapping[str, Counted]) -> None:
        raise ValueError("made up")

    tallies = Tallies(world.workspace.store)
    tallies.tally(fail).count("a", NOON)
    tallies.tally(refusal_counts.add).count(AT, NOON)
    tallies.flush()
    assert refused(world.workspace.store) == {AT: 1}


@pytest.mark.only_store("sqlite")
def test_keys_beyond_the_most_are_not_counted(world: World) -> None:
    """Those that are known already still are, so that inventing names does not hide what is counted."""
    seen: dict[str, Counted] = {}

    def add(_tx: Transaction, counts: Mapping[str, Counted]) -> None:
        seen.update(counts)

    tallies = Tallies(world.workspace.store)
    tally = tallies.tally(add, most=2)
    for key in ("a", "b", "c", "a"):
        tally.count(key, NOON)
    tallies.flush()
    assert {key: counted.times for key, counted in seen.items()} == {"a": 2, "b": 1}


@pytest.mark.only_store("sqlite")
def test_a_running_process_adds_by_itself_and_once_more_when_it_stops(world: World) -> None:
    """Nobody has to ask for it."""
    tallies = Tallies(world.workspace.store, every=0.01)
    tally = tallies.tally(refusal_counts.add)
    tally.count(AT, NOON)
    tallies.start()
    wait_until(lambda: refused(world.workspace.store) == {AT: 1}, "the first addition")
    tally.count(AT, NOON)
    tallies.stop()
    assert refused(world.workspace.store) == {AT: 2}
