"""The back-test of a limit: what it would have refused in a past month; by default the limit that the audit proposes.

Built on `whatif`, which replays the calls, and on `proposed_limit`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from toolkit.admin import keys
from toolkit.checks import snapshot_reader
from toolkit.checks.proposed_limit import usual_month
from toolkit.checks.thresholds import Thresholds
from toolkit.core.money import show_usd
from toolkit.core.period import Period
from toolkit.forecast import anomalies
from toolkit.ledger.ledger import Ledger
from toolkit.reports import spend
from toolkit.reports.whatif import Replay, replay


@dataclass(frozen=True, slots=True)
class Trial:
    """What a monthly limit would have refused.

    Args:
        key_id: None for all keys.
        month: billing month.
        limit: nano-USD a month for each key; None is each key's own of today.
        period: the month, up to now.
        replay: by key.
        words: what was tried, and what would have been refused.
    """

    key_id: str | None
    month: str
    limit: int | None
    period: Period
    replay: Replay
    words: str


def run(
    ledger: Ledger,
    now: datetime,
    *,
    key: str | None = None,
    limit: int | None = None,
    month: str | None = None,
    days: int = 30,
) -> Trial:
    """Try a monthly limit out: by default the one that the audit proposes, on the key that ran away furthest.

    Args:
        ledger: whose actor's rows count.
        now: UTC; later calls do not count.
        key: id or name, or "all"; by default the one that spent most beyond the usual in the last days, else the
            costliest of the last full month.
        limit: nano-USD a month; by default what `keydesk findings` proposes for the key, and for "all" each key's own.
        month: billing month, such as "2026-10"; by default that of the unusual days, else the last full one.
        days: how far back unusual days are sought, today included.

    Raises:
        InvalidInput, NotFound, Conflict: no such month or limit, no such key, several keys of that name.
    """
    worst, since = None, None
    if key != "all":
        beyond = anomalies.beyond_usual(ledger, now, days=days)
        with ledger.store.read(ledger.actor) as tx:
            wanted = keys.find(tx, key).id if key else None
        if wanted is None and beyond:
            wanted = max(beyond, key=lambda one: sum(beyond[one].values()))
        if wanted is None:
            costliest = spend.table(ledger, ["key"], Period.month(month or spend.last_full_month(ledger)))
            wanted = str(costliest["key_id"][0]) if len(costliest) else None
        worst, since = wanted, max(beyond.get(wanted or "", {}), default=None)
    month = month or (f"{since:%Y-%m}" if since else spend.last_full_month(ledger))
    if worst is not None and limit is None:
        seen = snapshot_reader.read(ledger, Thresholds(), None, now)
        limit = next(usual_month(seen, one).limit for one in seen.keys if one.id == worst)
    whole = Period.month(month)
    period = Period(whole.start, min(whole.end or now, now + timedelta(microseconds=1)))
    played = replay(ledger, period, by=["key"], limit="own" if limit is None else limit, key=worst)
    return Trial(worst, month, limit, period, played, _words(played, month, limit, one_key=worst is not None))


def _words(played: Replay, month: str, limit: int | None, *, one_key: bool) -> str:
    """Return what a trial would have refused: "In 2026-10, a limit of $20.00 would have refused 5 of 90 calls …"."""
    rows = played.spend
    if rows.empty:
        return f"Nothing was called in {month}."
    whose = f" of {rows['key_label'][0]}" if one_key else ""
    limited = "each key's own limit" if limit is None else f"a limit of {show_usd(limit)}{'' if one_key else ' a key'}"
    calls, count, tried = int(rows["calls"].sum()), int(rows["over_limit"].sum()), f"In {month}, {limited} would have"
    cost, refused = (show_usd(int(rows[name].sum())) for name in ("repriced", "refused"))
    if not count:
        return f"{tried} refused none of {calls:,} calls{whose}, which cost {cost}."
    first = played.refused["admitted_at"].iloc[0]
    return f"{tried} refused {count:,} of {calls:,} calls{whose}, {refused} of {cost}, from {first:%Y-%m-%d} on."
