"""The drain: moves rows of the request log from the outbox, a table of the key store, into Parquet segments."""

from toolkit.ledger import segments
from toolkit.ledger.segment_list import Move, SegmentList
from toolkit.ledger.snapshot import OUTBOX, batches

BATCH = 5_000
"""Most rows that one transaction moves out of the outbox: on SQLite it keeps the gateways waiting for that long."""


def drain(listed: SegmentList, limit: int) -> int:
    """Move up to so many rows of the outbox into segments, the oldest first; return how many."""
    moved = 0
    while moved < limit and (move := written(listed, min(BATCH, limit - moved))) and (step := listed.swap(move)):
        moved += step
    return moved


def written(listed: SegmentList, limit: int) -> Move | None:
    """Write rows of the outbox as segments, which nobody knows of yet; None if no row waits."""
    import pyarrow as pa

    with listed.store.read(listed.actor) as tx:
        waiting = list(batches(tx, OUTBOX, limit=limit))
        began = tx.now
    if not waiting:
        return None
    rows = pa.Table.from_batches(waiting)
    added = segments.write(listed.storage, rows, began)
    return Move(added, OUTBOX, rows.column("request_id").to_pylist(), began)
