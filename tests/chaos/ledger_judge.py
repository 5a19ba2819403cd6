"""The judge of the ledger's chaos: what a read showed, against what was committed when.

Each producer commits its script in order, and the totals that the settlements keep (`key_month`) say how far. So a
read that is right shows of each producer exactly its first n rows, with n neither less than was committed before the
read began, nor more than was once it had ended, and exactly what the totals say in the read's own snapshot.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.ledger_script import PRODUCERS, Part, Slice, part
from tests.chaos.stage import Caller

SEEN = """
WITH log AS (SELECT split_part(request_id, '-', 2) AS who, right(request_id, 9)::BIGINT AS number, cost FROM usage)
SELECT who, count(*) AS rows, count(DISTINCT number) AS ids, min(number) AS first, max(number) AS last,
       sum(cost)::BIGINT AS cost
FROM log GROUP BY who
UNION ALL
SELECT key_id, sum(calls)::BIGINT, 0, 0, 0, sum(spent)::BIGINT FROM key_months GROUP BY key_id
"""
"""What a reader asks, in one snapshot: the rows of each producer, and the totals of each key."""


@dataclass(frozen=True)
class Seen:
    """What a read shows of one producer."""

    rows: int = 0
    ids: int = 0
    first: int = 0
    last: int = 0
    cost: int = 0


@dataclass(frozen=True)
class Totals:
    """What the key store's running totals say of one producer, as far as the reader may see them."""

    calls: int = 0
    spent: int = 0


def sorted_out(
    answer: Iterable[Mapping[str, Any]], callers: Sequence[Sequence[Caller]]
) -> tuple[list[Seen], list[Totals]]:
    """Return the answer to `SEEN` by producer."""
    producer_of = {caller.key_id: producer for producer, own in enumerate(callers) for caller in own}
    seen, totals = [Seen()] * PRODUCERS, [Totals()] * PRODUCERS
    for row in answer:
        if row["who"] in producer_of:
            of = producer_of[row["who"]]
            totals[of] = Totals(totals[of].calls + row["rows"], totals[of].spent + row["cost"])
        else:
            seen[int(row["who"])] = Seen(*(row[name] for name in Seen.__dataclass_fields__))
    return seen, totals


def judge(of: Part, rows: Slice, seen: Seen, totals: Totals, before: int, after: int) -> list[str]:
    """Return what is wrong with what a read shows of one producer.

    Args:
        of: its script.
        rows: what was asked for.
        seen: the answer.
        totals: of the same snapshot, and the same organisation.
        before, after: the producer's rows that were committed before the read began, and after it had ended.
    """
    visible = of.members(rows.of_org, after)
    least, most = visible.upto(before), len(visible.numbers)
    if not least <= totals.calls <= most:
        return [f"it knows {totals.calls:,} calls; {least:,} were committed before it, {most:,} after it"]
    last = int(visible.numbers[totals.calls - 1]) if totals.calls else 0
    wrong = []
    if totals.spent != visible.costs[totals.calls]:
        wrong.append(f"{totals.calls:,} calls spent {totals.spent:,}, expected {visible.costs[totals.calls]:,}")
    members = of.members(rows, last)
    expected = Seen()
    if count := len(members.numbers):
        expected = Seen(count, count, int(members.numbers[0]), int(members.numbers[-1]), int(members.costs[-1]))
    if seen != expected:
        wrong.append(f"expected {expected}, got {seen}; {least:,} to {most:,} calls were committed meanwhile")
    return wrong


def judge_all(
    rows: Slice, seen: Sequence[Seen], totals: Sequence[Totals], before: Sequence[int], after: Sequence[int]
) -> list[str]:
    """Return what is wrong with a read, of all producers."""
    return [
        f"producer {number}: {problem}"
        for number in range(PRODUCERS)
        for problem in judge(part(number), rows, seen[number], totals[number], before[number], after[number])
    ]


def backward(reads: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the reads that show less than one that had ended before they began, whichever reader made it.

    Args:
        reads: with `began`, `ended` (seconds of the machine's monotonic clock), `who` and `calls` of each producer.
    """
    moments = sorted(
        [(read["ended"], 0, read) for read in reads if read["calls"]]
        + [(read["began"], 1, read) for read in reads if read["calls"]],
        key=lambda moment: moment[:2],
    )
    known = [0] * PRODUCERS
    least: dict[int, list[int]] = {}
    for _, begins, read in moments:
        if begins:
            least[id(read)] = known
        else:
            known = [max(pair) for pair in zip(known, read["calls"], strict=True)]
    return [
        f"{read['who']} at {read['began']:.3f} saw {read['calls']} calls, others had seen {least[id(read)]} before"
        for read in reads
        if read["calls"] and any(now < then for now, then in zip(read["calls"], least[id(read)], strict=True))
    ]
