"""Requests: rows of the request log, found by what they have."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from toolkit.core.period import Period
from toolkit.ledger.ledger import Ledger
from toolkit.reports.dimensions import chosen, condition

if TYPE_CHECKING:
    import pandas as pd


def search(
    ledger: Ledger,
    *,
    request_id: str | None = None,
    key: str | None = None,
    model: str | None = None,
    outcome: str | None = None,
    overrun: bool = False,
    doubtful: bool = False,
    period: Period | None = None,
    org: str | None = None,
    tags: Mapping[str, str] | None = None,
    limit: int = 200,
    before: tuple[datetime, str] | None = None,
) -> "pd.DataFrame":
    """Return request-log rows, the newest first, with all columns of the view `usage`.

    Args:
        ledger: whose actor's rows are searched; those of deleted keys too.
        request_id: Keydesk's own id of the call.
        key: id or name; a deleted one by its id.
        model: public id, as the caller named it.
        outcome: one of `policy.Outcome`.
        overrun: only calls that cost more than was held for them.
        doubtful: only calls whose token counts may be wrong.
        period: by admission; everything by default.
        org: id or name.
        tags: that a call must carry, all of them.
        limit: most rows to return.
        before: moment of admission and id of a row, to go on behind it, as on the next page.
    """
    equal = {"request_id": request_id, "model": model, "outcome": outcome}
    where, values = condition(period, tags, **equal, **chosen(ledger, org, key))
    if overrun:
        where += " AND overrun > 0"
    if doubtful:
        where += " AND usage_doubt IS NOT NULL"
    if before is not None:
        where += " AND (admitted_at, request_id) < (?, ?)"
        values += before
        period = (period or Period.all()).until(before[0])
    return ledger.df(
        f"SELECT * FROM usage WHERE {where} ORDER BY admitted_at DESC, request_id DESC LIMIT ?",
        [*values, limit],
        period=period,
        request_id=request_id,
    )
