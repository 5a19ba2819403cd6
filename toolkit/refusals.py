"""The counts of refused calls, beside the rows of the request log that the first of each minute are."""

from collections.abc import Mapping

from sqlalchemy import text

from toolkit.database import Transaction
from toolkit.tally import Counted

At = tuple[str, str, int]
"""Key, reason (`errors.RefusalType`) and minute since 1970."""

_ADD = text(
    "INSERT INTO refusal_count (key_id, refusal, minute, refused) VALUES (:key_id, :refusal, :minute, :times)"
    " ON CONFLICT (key_id, refusal, minute) DO UPDATE SET refused = refusal_count.refused + excluded.refused"
)


def add(tx: Transaction, counts: Mapping[At, Counted]) -> None:
    """Add refusals to what is counted already; for a `tally`."""
    tx.session.execute(
        _ADD,
        [
            {"key_id": key, "refusal": refusal, "minute": minute, "times": counts[key, refusal, minute].times}
            for key, refusal, minute in sorted(counts)  # in one order, so that no two processes wait for each other
        ],
    )
