"""Drains, compactions and sweeps that meet each other, stand still or die leave every row in exactly one place."""

# ruff: noqa: F401, F811 - fixtures are imported, and are arguments of tests

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, select, update

from tests.buckets import bucket, bucket_server, set_written_at
from tests.conftest import ROOT, examples, prepare_workspace, variables_of, wait_until
from tests.ledgers import ids, kept, ledger, listed, root, store
from tests.rows import NOON, append, row
from tests.stores import StoreKind, Stores
from toolkit.cli import cli
from toolkit.core.errors import Unavailable
from toolkit.ledger import compaction, drain
from toolkit.ledger.ledger import Ledger
from toolkit.ledger.segment_list import GRACE, PATIENCE, Move
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.locks import lock_name
from toolkit.store.tables import OutboxRow, Segment, SupersededSegment
from toolkit.store.transaction import utc_now
from toolkit.workspace import Workspace

pytestmark = pytest.mark.both_stores

AT_ONCE = timedelta(0)
HALF_A_DAY = timedelta(hours=12)


def noted(ledger: Ledger) -> list[str]:
    with ledger.store.read(SYSTEM) as tx:
        return sorted(tx.session.scalars(select(SupersededSegment.path)))


def age_notes(ledger: Ledger, by: timedelta) -> None:
    """Make the notes of files that no list names look as if they had been made earlier."""
    with ledger.store.write(SYSTEM) as tx:
        for known in tx.session.scalars(select(SupersededSegment)):
            known.superseded_at -= by


class Workshop:
    """A ledger with several workers, each of whom may stop anywhere between two steps.

    A worker has written files that nobody knows of; it may list them at any later time, or never.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.appended: list[str] = []
        self.begun: list[Move] = []

    def append(self, count: int) -> None:
        self.appended += append(self.ledger.store, [row(at=NOON + n * HALF_A_DAY) for n in range(count)])

    def begin_drain(self, limit: int) -> None:
        if move := drain.written(self.ledger.segment_list, limit):
            self.begun.append(move)

    def begin_compaction(self, number: int) -> None:
        if groups := compaction.groups(self.ledger.segment_list, thorough=True):
            self.begun.append(compaction.written(self.ledger.segment_list, groups[number % len(groups)]))

    def finish(self, number: int) -> None:
        if self.begun:
            self.ledger.segment_list.swap(self.begun.pop(number % len(self.begun)))

    def die(self, number: int) -> None:
        if self.begun:
            self.begun.pop(number % len(self.begun))

    def sweep(self, _number: int) -> None:
        self.ledger.sweep(AT_ONCE)

    def forget(self, _number: int) -> None:
        """Half a day passes: notes grow old, and so do the workers who stand still."""
        age_notes(self.ledger, HALF_A_DAY)
        self.begun = [replace(move, began=move.began - HALF_A_DAY) for move in self.begun]
        self.ledger.sweep()

    def holds(self) -> bool:
        """Whether each appended row is seen exactly once, and each listed file is there."""
        return ids(self.ledger) == sorted(self.appended) and {s.path for s in listed(self.ledger)} <= set(
            kept(self.ledger)
        )


STEPS: tuple[Callable[[Workshop, int], None], ...] = (
    Workshop.append,
    Workshop.begin_drain,
    Workshop.begin_drain,
    Workshop.begin_compaction,
    Workshop.finish,
    Workshop.finish,
    Workshop.die,
    Workshop.sweep,
    Workshop.forget,
)


@pytest.mark.world
@examples(6)
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 4)), min_size=4, max_size=16))
def test_workers_that_meet_lose_and_double_nothing(
    stores: Stores, store_kind: StoreKind, steps: list[tuple[Callable[[Workshop, int], None], int]]
) -> None:
    """However drains, compactions, sweeps and deaths interleave, a reader sees each row once after every step."""
    with tempfile.TemporaryDirectory() as name:
        url = stores.copy(store_kind, Path(name), "workspace", prepare_workspace)
        store = Store(url)
        workshop = Workshop(Ledger(store, Path(name) / "ledger", SYSTEM))
        workshop.append(3)
        for step, number in steps:
            step(workshop, number)
            assert workshop.holds(), step.__name__
        while workshop.begun:
            workshop.finish(0)
            assert workshop.holds()
        assert workshop.ledger.verify() == []
        workshop.ledger.sync()
        workshop.ledger.sweep(AT_ONCE)
        assert kept(workshop.ledger) == [segment.path for segment in listed(workshop.ledger)]
        store.close()
        stores.drop(url)


def test_swept_file_is_never_listed(ledger: Ledger) -> None:
    """A drain whose file a sweep took finds it noted, and leaves its rows in the outbox."""
    wanted = append(ledger.store, [row()])
    slow = drain.written(ledger.segment_list, 10)
    assert slow is not None
    assert ledger.sweep(AT_ONCE) == 1
    assert noted(ledger) == [segment.path for segment in slow.added]
    assert ledger.segment_list.swap(slow) == 0
    assert listed(ledger) == []
    assert ids(ledger) == wanted


def test_drain_that_stood_still_too_long_lists_nothing(ledger: Ledger) -> None:
    """When a sweep may have forgotten what it removed, a drain from before does not list its files any more."""
    wanted = append(ledger.store, [row()])
    slow = drain.written(ledger.segment_list, 10)
    assert slow is not None
    ledger.sweep(AT_ONCE)
    age_notes(ledger, GRACE)
    ledger.sweep()
    assert noted(ledger) == []
    assert ledger.segment_list.swap(replace(slow, began=slow.began - GRACE)) == 0
    assert listed(ledger) == []
    assert ids(ledger) == wanted
    assert PATIENCE < GRACE


def test_sweep_waits_for_nothing_while_it_holds_the_lock(
    ledger: Ledger, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are looked for before a sweep's transaction and removed after it: a slow bucket keeps nobody waiting."""
    append(ledger.store, [row()])
    drain.written(ledger.segment_list, 10)
    other = Store(store_url)
    done: list[str] = []
    for name in ("ages", "remove"):
        real = getattr(ledger.root, name)

        def watched(*arguments: Any, real: Any = real, name: str = name) -> Any:
            with other.write(SYSTEM) as tx:
                lock_name(tx, "ledger")  # waits, and fails in the end, if the sweep holds it
            done.append(name)
            return real(*arguments)

        monkeypatch.setattr(ledger.root, name, watched)
    assert ledger.sweep(AT_ONCE) == 1
    assert done == ["ages", "remove"]
    other.close()


def test_compaction_in_passing_merges_what_is_alike(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """While calls come in, small segments are merged only where several of like size have gathered."""
    monkeypatch.setattr(compaction, "ALIKE", 3)
    for count in (12, 1, 1):
        append(ledger.store, [row() for _ in range(count)])
        ledger.sync()
    assert ledger.compact(thorough=False) == 0
    append(ledger.store, [row()])
    ledger.sync()
    assert ledger.compact(thorough=False) == 3
    assert sorted(segment.rows for segment in listed(ledger)) == [3, 12]
    assert ledger.compact() == 2


def two_days_to_merge(ledger: Ledger) -> tuple[list[Segment], list[Segment]]:
    """Drain two segments on each of two days; return those of the first, and those of the second."""
    for at in (NOON, NOON, NOON + 2 * HALF_A_DAY, NOON + 2 * HALF_A_DAY):
        append(ledger.store, [row(at=at)])
        ledger.sync()
    found = listed(ledger)
    return found[:2], found[2:]


def test_rows_are_drained_between_two_merges(ledger: Ledger) -> None:
    """Whoever merges may drain after each merge: a row does not wait for the merging of all other days."""
    two_days_to_merge(ledger)
    merging = ledger.merges()
    assert next(merging) == 2
    late = append(ledger.store, [row(cost=7)])
    assert ledger.sync() == 1
    assert ledger.lag() == (0, 0)
    assert list(merging) == [2]
    assert sorted(segment.rows for segment in listed(ledger)) == [1, 2, 2]
    assert late[0] in ids(ledger)


def test_damaged_segment_stops_nothing_else(workspace: Workspace, ledger: Ledger, root: Path | str) -> None:
    """What can be merged is, and old files are swept, while the damage is told each time."""
    (lost, kept_beside), others = two_days_to_merge(ledger)
    ledger.root.remove([lost.path])
    with pytest.raises(Unavailable, match=f"{lost.path} is missing"):
        ledger.compact()
    after = [segment.path for segment in listed(ledger)]
    assert after[:2] == [lost.path, kept_beside.path]
    assert len(after) == 3
    assert after[2] not in {segment.path for segment in others}
    ledger.root.write("usage/day=2026-11-23/old.parquet", b"left behind")
    set_written_at(ledger.root, "usage/day=2026-11-23/old.parquet", NOON - 100 * GRACE)
    told = CliRunner().invoke(
        cli, ["ledger", "compact"], env=variables_of(workspace.settings) | {"KEYDESK_LEDGER_ROOT": str(root)}
    )
    assert (told.exit_code, "old.parquet" in str(kept(ledger))) == (1, False)
    assert f"{lost.path} is missing" in told.stderr


def test_drain_that_finds_no_room_leaves_no_file(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """If one day's file cannot be written, those of the others go: a drain tries again and again."""
    wanted = append(ledger.store, [row(), row(at=NOON + 2 * HALF_A_DAY)])
    write, paths = ledger.root.write, list[str]()

    def full(path: str, content: bytes) -> None:
        paths.append(path)
        if len(paths) == 2:
            raise Unavailable("No space left on device.")
        write(path, content)

    monkeypatch.setattr(ledger.root, "write", full)
    with pytest.raises(Unavailable, match="No space"):
        ledger.sync()
    assert (len(paths), kept(ledger), ids(ledger)) == (2, [], wanted)
    assert ledger.sync() == 2, "there is room again"


FOLLOW = """
from toolkit.cli import cli, ledger
ledger.DRAIN_EVERY = ledger.COMPACT_EVERY = 0.05
cli(["ledger", "sync", "--follow", "--json"])
"""
"""The command, in a hurry."""


@contextmanager
def following(workspace: Workspace, root: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a drain that compacts and sweeps in each round."""
    env = os.environ | variables_of(workspace.settings) | {"KEYDESK_LEDGER_ROOT": str(root)}
    command = [sys.executable, "-c", FOLLOW]
    drain = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield drain
    finally:
        drain.kill()
        drain.communicate()


@pytest.mark.world
@pytest.mark.any_store
def test_drain_outlives_a_shelf_that_fails(workspace: Workspace, tmp_path: Path) -> None:
    """While its folder is in trouble the drain says so and goes on; with the folder whole again it moves the rows."""
    root, store = tmp_path / "ledger", workspace.store
    ledger = Ledger(store, root, SYSTEM)
    with following(workspace, root) as drain:
        append(store, [row()])
        wait_until(lambda: ledger.lag()[0] == 0, "the first row to be drained")
        root.rename(tmp_path / "safe")
        root.write_bytes(b"no folder")
        append(store, [row()])
        assert drain.stderr is not None
        told = drain.stderr.readline()
        assert told.startswith("The ledger waits: ")
        assert str(root) in told
        assert "cannot be" in told
        assert drain.poll() is None
        root.unlink()
        (tmp_path / "safe").rename(root)
        wait_until(lambda: ledger.lag()[0] == 0, "the second row to be drained")
        drain.send_signal(signal.SIGTERM)
        out, _ = drain.communicate(timeout=20)
    assert (drain.returncode, "moved" in json.loads(out)) == (0, True)
    assert (ledger.verify(), sum(segment.rows for segment in listed(ledger))) == ([], 2)


@pytest.mark.world
@pytest.mark.any_store
def test_drain_sweeps_beside_a_damaged_segment(workspace: Workspace, tmp_path: Path) -> None:
    """A segment that cannot be merged does not keep what a killed process left."""
    ledger = Ledger(workspace.store, tmp_path / "ledger", SYSTEM)
    (lost, _), _ = two_days_to_merge(ledger)
    ledger.root.remove([lost.path])
    old = "usage/day=2026-11-23/old.parquet"
    ledger.root.write(old, b"left behind")
    set_written_at(ledger.root, old, NOON - 100 * GRACE)
    with following(workspace, tmp_path / "ledger") as drain:
        assert drain.stderr is not None
        assert f"{lost.path} is missing" in drain.stderr.readline()
        wait_until(lambda: old not in kept(ledger), "the old file to be swept")
        assert drain.poll() is None


@pytest.mark.only_store("sqlite")
@pytest.mark.parametrize("verb", [["ledger", "sync"], ["ledger", "verify"], ["ledger", "status"], ["reconcile"]])
def test_verbs_name_what_is_wrong_with_the_shelf(workspace: Workspace, tmp_path: Path, verb: list[str]) -> None:
    """Where the folder is in trouble a verb ends with a sentence that names it."""
    root = tmp_path / "ledger"
    ledger = Ledger(workspace.store, root, SYSTEM)
    append(workspace.store, [row()])
    ledger.sync()
    append(workspace.store, [row()])
    root.rename(tmp_path / "safe")
    root.write_bytes(b"no folder")
    env = variables_of(workspace.settings) | {"KEYDESK_LEDGER_ROOT": str(root)}
    told = CliRunner().invoke(cli, verb, env=env)
    assert (told.exit_code, type(told.exception)) == (1, SystemExit)
    assert str(root) in told.output


def test_status_says_how_the_ledger_stands(ledger: Ledger) -> None:
    """Rows, bytes and files of the list, what waits and for how long, when rows last moved, what there is to merge."""
    empty = ledger.status()
    assert (empty.segments, empty.rows, empty.size, empty.drained_at) == (0, 0, 0, None)
    before = utc_now()
    for _ in range(2):
        append(ledger.store, [row(), row()])
        ledger.sync()
    append(ledger.store, [row(settled_at=utc_now() - timedelta(minutes=5))])
    status = ledger.status()
    assert (status.segments, status.rows, status.mergeable, status.replaced, status.waiting) == (2, 4, 2, 0, 1)
    assert status.size == sum(segment.size for segment in listed(ledger))
    assert 300 <= status.oldest_seconds < 330
    drained_at = status.drained_at
    assert drained_at is not None
    assert before <= drained_at <= utc_now()
    ledger.compact()
    merged = ledger.status()
    assert (merged.segments, merged.rows, merged.mergeable, merged.replaced) == (1, 4, 0, 2)
    assert merged.drained_at == drained_at, "merging is not draining"
    ledger.sweep(AT_ONCE)
    assert noted(ledger) != [], "a slow drain would still need the notes"
    assert ledger.status().replaced == 0


def test_status_command_tells_programs_and_people(workspace: Workspace, ledger: Ledger, root: Path | str) -> None:
    """`keydesk ledger status` has exact figures for programs, and says to people what to do when nobody drains."""
    env = variables_of(workspace.settings) | {"KEYDESK_LEDGER_ROOT": str(root)}

    def status(*options: str) -> str:
        result = CliRunner().invoke(cli, ["ledger", "status", *options], env=env)
        assert result.exit_code == 0, result.output
        return result.output

    assert "never" in status()
    for _ in range(2):
        append(ledger.store, [row(), row()])
        ledger.sync()
    told = json.loads(status("--json"))
    size = sum(segment.size for segment in listed(ledger))
    assert (told["rows"], told["segments"], told["mergeable_segments"], told["waiting"]) == (4, 2, 2, 0)
    assert (told["bytes"], told["bytes_per_row"], told["root"]) == (size, round(size / 4, 1), str(root))
    assert told["draining"] is True
    append(ledger.store, [row(settled_at=utc_now() - timedelta(minutes=5))])
    assert json.loads(status("--json"))["draining"] is False
    assert "keydesk ledger sync --follow" in status()
