"""Compaction: merges the small Parquet files of each day, so that queries open few."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from toolkit.core.errors import Unavailable
from toolkit.ledger import segments
from toolkit.ledger.segment_list import SEGMENTS, Move, SegmentList
from toolkit.store.tables import Segment

FULL = 500_000
"""Rows from which on compaction leaves a segment alone."""

ALIKE = 10
"""Segments of a day and of like size from which on a compaction in passing merges them."""


def merges(listed: SegmentList, *, thorough: bool) -> Iterator[int]:
    """Merge the small segments of each day, some at a time; yield how many files each merge replaced.

    Args:
        listed: the segments.
        thorough: merge all that are small; else only where `ALIKE` of like size have gathered.

    Raises:
        Unavailable: segments are damaged, or their place cannot be reached; all that could be merged was.
    """
    troubles = []
    for group in groups(listed, thorough=thorough):
        try:
            merged = written(listed, group)
        except Unavailable as trouble:
            troubles.append(str(trouble))
        else:
            yield listed.swap(merged)
    if troubles:
        raise Unavailable(" ".join(troubles))


def written(listed: SegmentList, group: Sequence[Segment]) -> Move:
    """Write the rows of some segments as one, which nobody knows of yet."""
    import pyarrow as pa

    with listed.store.read(listed.actor) as tx:
        began = tx.now
    parts = [segments.read(listed.storage, segment) for segment in group]
    rows = pa.concat_tables(parts, promote_options="default")
    added = segments.write(listed.storage, rows, max(segment.created_at for segment in group))
    return Move(added, SEGMENTS, [segment.path for segment in group], began)


def groups(listed: SegmentList, *, thorough: bool) -> list[list[Segment]]:
    """Return the segments to be merged into one each."""
    # What a newer Keydesk wrote has columns that would be lost here.
    small = listed.read(Segment.rows < FULL, Segment.schema_version <= segments.SCHEMA_VERSION)
    found: list[list[Segment]] = []
    for _, of_day in groupby(small, key=lambda segment: segment.day):
        if thorough:
            found += _up_to_full(of_day)
            continue
        by_size = sorted(of_day, key=_magnitude)
        for _, alike in groupby(by_size, key=_magnitude):
            if len(members := list(alike)) >= ALIKE:
                found += _up_to_full(members)
    return found


def _magnitude(segment: Segment) -> int:
    return len(str(segment.rows))


def _up_to_full(small: Iterable[Segment]) -> Iterator[list[Segment]]:
    """Yield groups of two or more segments to merge, each closed as soon as it has `FULL` rows."""
    group: list[Segment] = []
    for segment in small:
        group.append(segment)
        if sum(member.rows for member in group) >= FULL:
            yield group
            group = []
    if len(group) > 1:
        yield group
