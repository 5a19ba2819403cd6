"""Outlook: what this month will cost for each key and organisation, and when limits and wallets run out.

Read from a `Ledger`, whose actor sees its organisation only; the figures come from `outlook`.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from toolkit.core.errors import RefusalType
from toolkit.core.period import Period, billing_month
from toolkit.core.policy import KeyStatus
from toolkit.forecast.runway import Outlook
from toolkit.ledger.ledger import Ledger
from toolkit.ledger.pricing_sql import ADMITTED

if TYPE_CHECKING:
    import pandas as pd

HISTORY = 120
"""Days of spend that a forecast is made from, today included: older ones would count next to nothing."""

_LIMITED = f"refusal IN ('{RefusalType.API_KEY_QUOTA_EXCEEDED}', '{RefusalType.BILLING_SHORTFALL}')"

_CUT_SHORT = 10
"""A day was cut short if for so many calls admitted, one was refused for want of money."""

_KEYS = f"""
SELECT keys.id AS key_id, keys.name AS key,
       keys.name || CASE keys.status WHEN '{KeyStatus.DELETED}' THEN ' (deleted)' ELSE '' END AS key_label,
       orgs.id AS org_id, orgs.name AS org, keys.monthly_limit, coalesce(key_months.held, 0)::BIGINT AS held,
       keys.status = '{KeyStatus.DELETED}' AS deleted,
       keys.status <> '{KeyStatus.ACTIVE}' OR coalesce(keys.expires_at <= $now, false) OR orgs.suspended AS closed
FROM keys JOIN orgs ON orgs.id = keys.org_id
LEFT JOIN key_months ON key_months.key_id = keys.id AND key_months.month = $month
ORDER BY orgs.name, keys.name, keys.id
"""

_USAGE = f"""
SELECT key_id, day, sum(cost)::BIGINT AS cost, count(*) FILTER (WHERE {_LIMITED}) AS limited,
       count(*) FILTER (WHERE {ADMITTED}) AS admitted
FROM usage WHERE {{period}} GROUP BY ALL
"""


def outlook(ledger: Ledger, now: datetime) -> tuple[Outlook, "pd.DataFrame", "pd.DataFrame"]:
    """Read what forecasts are made from.

    Args:
        ledger: whose actor's keys are looked at; deleted ones too, for an organisation's past has them in it.
        now: UTC; what was spent after it does not count.

    Returns:
        The outlook; its keys (key_id, key, key_label, org_id, org, deleted), in its order; the organisations (org_id,
        org).
    """
    import pandas as pd

    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    period = Period(midnight - timedelta(days=HISTORY - 1), now + timedelta(microseconds=1))
    where, values = period.where()
    usage = ledger.df(_USAGE.format(period=where), values, period=period)
    keys = known_keys(ledger, now)
    orgs = ledger.df("SELECT id AS org_id, name AS org, (credited - settled - held)::BIGINT AS available FROM orgs")
    days = pd.date_range(end=midnight.date(), periods=HISTORY)
    usage["day"] = pd.to_datetime(usage["day"]).astype(days.dtype)

    def by_day(column: str) -> "pd.DataFrame":
        table = usage.set_index(["day", "key_id"])[column].unstack(fill_value=0)
        return table.reindex(index=days, columns=keys["key_id"], fill_value=0)

    cost, limited, admitted = by_day("cost"), by_day("limited"), by_day("admitted")
    ids = keys["key_id"].tolist()
    limits = keys.set_index("key_id")["monthly_limit"].dropna()
    found = Outlook(
        daily=cost,
        now=now,
        orgs=dict(zip(ids, keys["org_id"], strict=True)),
        limits={str(key): int(limit) for key, limit in limits.items()},
        held={key: int(held) for key, held in zip(ids, keys["held"], strict=True)},
        available={org: int(left) for org, left in zip(orgs["org_id"], orgs["available"], strict=True)},
        cut_short=(limited > 0) & (limited * _CUT_SHORT >= admitted),
        closed=set(keys["key_id"][keys["closed"].to_numpy(dtype=bool)]),
    )
    return found, keys[["key_id", "key", "key_label", "org_id", "org", "deleted"]], orgs[["org_id", "org"]]


def known_keys(ledger: Ledger, now: datetime) -> "pd.DataFrame":
    """Return the keys that a ledger's actor may see, deleted ones too, by organisation and name.

    Returns:
        key_id, key, key_label, org_id, org, monthly_limit (nano-USD, missing for none), held (nano-USD, of this month),
        deleted, and closed (whether it admits no calls any more).
    """
    return ledger.df(_KEYS, {"now": now, "month": billing_month(now)})


def month_end(ledger: Ledger, now: datetime) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Return what this month will cost per key and per organisation, the costliest first.

    Args:
        ledger: whose actor's keys and organisations count.
        now: UTC.

    Returns:
        `Outlook.by_key` with key, key_label, org_id and org, deleted keys only if they cost something this month;
        `Outlook.by_org` with org. What an organisation spent, its forecast and what is wanted are the sums of its
        keys', to within one nano-USD a key.
    """
    found, keys, orgs = outlook(ledger, now)
    by_key, by_org = keys.merge(found.by_key(), on="key_id"), orgs.merge(found.by_org(), on="org_id")
    shown = (by_key["spent"] > 0) | ~by_key["deleted"].astype(bool)
    return _costliest_first(by_key[shown].drop(columns="deleted")), _costliest_first(by_org)


def _costliest_first(frame: "pd.DataFrame") -> "pd.DataFrame":
    return frame.sort_values("forecast", ascending=False, kind="stable", ignore_index=True)
