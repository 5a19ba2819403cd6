"""The serial replay: the journal read again in the order of the commits, with nothing but addition.

Of each commit it checks that the totals are what its own holds, releases and charges make of the totals before, and
that no limit and no wallet is exceeded, not by one nano-USD. Of each 402 it checks that the amounts which the caller
was told were the state at its own verdict: the state at a commit while the call was under way, plus the first few
verdicts of the next transaction in their order; and that the call, which needs what others of its kind had held, did
not fit.
"""

import itertools
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter, itemgetter
from typing import TypeVar

from tests.chaos.journal import Line
from tests.chaos.load import Call, Kind
from toolkit.core.money import parse_usd
from toolkit.core.period import billing_month

CLOCKS = 3.0
"""Milliseconds by which two readings of one machine's clock may seem to disagree: SQLite rounds to whole ones."""

T = TypeVar("T")

Pool = tuple[str, ...]
"""What money is kept in: the wallet of (org), or the month of (key, month)."""


@dataclass(slots=True)
class Commit:
    """What one transaction did to one pool.

    Args:
        spent, held: before it, nano-USD.
        placed: the holds it placed, in order.
        settled: what it released and charged for each call that ended, in order.
        at: when its totals were written, milliseconds on the machine's wall clock.
        spent_after, held_after: the totals it wrote.
    """

    spent: int
    held: int
    placed: list[int] = field(default_factory=list)
    settled: list[tuple[int, int]] = field(default_factory=list)
    at: float = 0.0
    spent_after: int = 0
    held_after: int = 0

    def passes_through(self, spent: int, held: int) -> bool:
        """Whether the totals came to this somewhere in its verdicts: some first ones of each sort had been given."""
        holds = set(itertools.accumulate(self.placed, initial=self.held))
        charged, released = self.spent, 0
        for release, cost in [(0, 0), *self.settled]:
            charged, released = charged + cost, released + release
            if charged == spent and held + released in holds:
                return True
        return False


@dataclass
class Replay:
    """The journal, replayed.

    Args:
        violations: what was wrong, in words.
        commits: the transactions that met each pool, in order.
        holds: what each admitted call held against wallet and limit, by request id.
    """

    violations: list[str] = field(default_factory=list)
    commits: dict[Pool, list[Commit]] = field(default_factory=lambda: defaultdict(list))
    holds: dict[str, tuple[int, int]] = field(default_factory=dict)
    limits: dict[str, list[tuple[float, int | None]]] = field(default_factory=lambda: defaultdict(list))
    credits: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def count(self) -> int:
        """How many changes of a total were checked."""
        return sum(map(len, self.commits.values()))


def replay(lines: Iterable[Line]) -> Replay:
    """Read the journal again and check every commit."""
    done = Replay()
    open_: dict[Pool, Commit] = {}
    released: dict[str, Line] = {}

    def at(pool: Pool) -> Commit:
        if pool not in open_:
            before = done.commits[pool][-1] if done.commits[pool] else Commit(0, 0)
            open_[pool] = Commit(before.spent_after, before.held_after)
        return open_[pool]

    def close(pool: Pool, line: Line, room: int | None) -> None:
        commit = at(pool)
        del open_[pool]
        commit.at, commit.spent_after, commit.held_after = line.at, line.b, line.c
        done.commits[pool].append(commit)
        spent = commit.spent + sum(cost for _, cost in commit.settled)
        held = commit.held + sum(commit.placed) - sum(release for release, _ in commit.settled)
        if (spent, held) != (line.b, line.c):
            done.violations.append(
                f"line {line.seq}: {pool} says spent {line.b}, held {line.c}; its calls make {spent}, {held}"
            )
        if room is not None and line.b + line.c > room:
            done.violations.append(f"line {line.seq}: {pool} has spent {line.b} and holds {line.c} of {room}")

    for line in lines:
        match line.what:
            case "key":
                done.limits[line.key_id].append((line.at, line.a))
            case "hold":
                done.holds[line.request_id] = (line.a or 0, line.b)
                at((line.org_id,)).placed.append(line.a or 0)
                at((line.key_id, line.month)).placed.append(line.b)
            case "release":
                released[line.request_id] = line
            case "row" if line.note != "refused":
                hold = released.pop(line.request_id, None)
                if hold is None:
                    done.violations.append(f"line {line.seq}: {line.request_id} was charged and held nothing")
                    continue
                at((line.org_id,)).settled.append((hold.a or 0, line.a or 0))
                at((line.key_id, hold.month)).settled.append((hold.b, line.a or 0))
            case "wallet":
                done.credits[line.org_id].append((line.at, line.a or 0))
                close((line.org_id,), line, line.a or 0)
            case "month":
                limits = done.limits[line.key_id]
                close((line.key_id, line.month), line, limits[-1][1] if limits else None)
    done.violations += [f"{pool} has calls that its totals never took in" for pool in open_]
    done.violations += [f"{request_id} holds nothing any more, and has no row" for request_id in released]
    return done


def judge(done: Replay, calls: Iterable[Call]) -> dict[str, int]:
    """Check that each 402 was justified at its own verdict, and that holds are alike for calls alike.

    Args:
        done: gets the violations.
        calls: all that were made, with what their callers were told.

    Returns:
        How many there were of each refusal.
    """
    needs: dict[Kind, int] = {}
    refused: list[Call] = []
    counts: dict[str, int] = defaultdict(int)
    for call in calls:
        if call.status == 402:
            refused.append(call)
        elif call.request_id in done.holds and call.kind.bound is not None:
            held = done.holds[call.request_id][0]
            if needs.setdefault(call.kind, held) != held:
                done.violations.append(f"{call.request_id} held {held}, others like it {needs[call.kind]}")
    for call in refused:
        counts[call.error.get("code", "")] += 1
        problem = _unjustified(done, call, needs)
        if problem:
            done.violations.append(f"{call.request_id}: the 402 {problem}; it said: {call.error.get('message')}")
    return dict(counts)


def _unjustified(done: Replay, call: Call, needs: dict[Kind, int]) -> str:
    told = call.error.get("details", {})
    key, org = call.caller.key_id, call.caller.org_id
    held = parse_usd(told["held_usd"])
    needed = parse_usd(told["needed_usd"]) if "needed_usd" in told else 1  # its body was not read: nothing is left
    if "needed_usd" in told and needed != needs.get(call.kind.least):
        return f"says that {needed} are needed, but calls like it held {needs.get(call.kind.least)}"
    if told["limit"] == "monthly_limit":
        pool: Pool = (key, _month_before(told["resets_at"]))
        room, spent = parse_usd(told["limit_usd"]), parse_usd(told["spent_usd"])
        if room not in _in_force(done.limits[key], call):
            return f"names a limit of {room}, which was not in force"
    else:
        pool, balance = (org,), parse_usd(told["balance_usd"])
        # The credits at the verdict make the balance: one of those in force.
        states = [(credit, credit - balance) for credit in _in_force(done.credits[org], call) if credit is not None]
        found = next(((room, spent) for room, spent in states if _was_so(done.commits[pool], call, spent, held)), None)
        if found is None:
            return "states a balance and holds that never were together while the call was under way"
        room, spent = found
    if not _was_so(done.commits[pool], call, spent, held):
        return "states a spend and holds that never were together while the call was under way"
    if room - spent - held >= needed:
        return f"refuses {needed} though {room - spent - held} were left"
    return ""


def _month_before(moment: str) -> str:
    return billing_month(datetime.fromisoformat(moment) - timedelta(microseconds=1))


def _in_force(changes: Sequence[tuple[float, T]], call: Call) -> set[T]:
    """Return the values that held at some moment of a call."""
    first = max(bisect_left(changes, call.sent - CLOCKS, key=itemgetter(0)) - 1, 0)
    return {value for _, value in changes[first : bisect_right(changes, call.told + CLOCKS, key=itemgetter(0))]}


def _was_so(commits: list[Commit], call: Call, spent: int, held: int) -> bool:
    """Whether a pool's totals came to this at some verdict while the call was under way."""
    # What the last commit before the call left; then each one whose verdicts may have had the call among them.
    first = bisect_left(commits, call.sent - CLOCKS, key=attrgetter("at"))
    last = bisect_right(commits, call.told + CLOCKS, key=attrgetter("at"))
    before = (commits[first - 1].spent_after, commits[first - 1].held_after) if first else (0, 0)
    return before == (spent, held) or any(commit.passes_through(spent, held) for commit in commits[first:last])
