"""The words of alerts: what has happened, to whom, and which command helps. Pure; no secret is in them.

The form is that of Standard Webhooks ("Payload structure"): type, timestamp, data. Amounts are text, in USD.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from toolkit.alerts.occasion import Occasion
from toolkit.core.account_fault import CURES, AccountFault, sentence_of
from toolkit.core.moments import moment
from toolkit.core.money import show_usd, usd

TYPES = {
    "limit": "key.limit",
    "wallet": "wallet.low",
    "expiry": "key.expires",
    "upstream": "upstream.refuses",
    "unpriced": "model.unpriced",
    "drain": "drain.late",
    "test": "alert.test",
}
"""The `type` that receivers read, for each kind of alert."""


def body(occasion: Occasion, alert_id: str, now: datetime) -> str:
    """Return an alert as it is sent: JSON.

    Args:
        occasion: what there is to tell.
        alert_id: stays the same over all tries.
        now: UTC, when it was noticed.
    """
    sentence, facts, help_ = _WRITERS[occasion.kind](occasion)
    if occasion.org_id is not None:
        facts = {"organisation": {"id": occasion.org_id, "name": occasion.org}} | facts
    return written(occasion.kind, alert_id, now, {"message": sentence, **facts, "help": help_})


def test_body(alert_id: str, destination: str, now: datetime) -> str:
    """Return a test alert, which somebody asked for, as `body`."""
    data = {"message": f"This is a test of the destination {destination!r}. Nothing has happened."}
    return written("test", alert_id, now, data)


def written(kind: str, alert_id: str, now: datetime, data: Mapping[str, Any]) -> str:
    """Return an alert of a kind with what it says."""
    when = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    return json.dumps({"type": TYPES[kind], "timestamp": when, "data": {"id": alert_id, **data}}, ensure_ascii=False)


_Written = tuple[str, dict[str, Any], str]


def _key(occasion: Occasion) -> dict[str, Any]:
    return {"key": {"id": occasion.subject, "name": occasion.name}}


def _limit(occasion: Occasion) -> _Written:
    spent, limit = occasion.amount, occasion.basis
    sentence = (
        f"API key {occasion.name!r} of {occasion.org!r} has spent {show_usd(spent)} of its limit of {show_usd(limit)} "
        f"for {occasion.period}: {occasion.reached} % are reached."
    )
    return (
        sentence,
        _key(occasion)
        | {
            "threshold_percent": occasion.reached,
            "month": occasion.period,
            "limit_usd": usd(limit),
            "spent_usd": usd(spent),
        },
        f"keydesk keys update {occasion.subject} --monthly-limit USD",
    )


def _wallet(occasion: Occasion) -> _Written:
    left, threshold = show_usd(occasion.amount), show_usd(occasion.basis)
    return (
        f"The wallet of {occasion.org!r} has {left} left, which is less than {threshold}.",
        {"balance_usd": usd(occasion.amount), "threshold_usd": usd(occasion.basis)},
        f"keydesk wallet credit --org {occasion.subject} --amount USD --reference NUMBER",
    )


def _expiry(occasion: Occasion) -> _Written:
    at = moment(occasion.basis)
    return (
        f"API key {occasion.name!r} of {occasion.org!r} expires at {at:%Y-%m-%d %H:%M} UTC.",
        _key(occasion) | {"expires_at": at.isoformat(timespec="seconds").replace("+00:00", "Z")},
        f"keydesk keys update {occasion.subject} --expires TIME",
    )


def _upstream(occasion: Occasion) -> _Written:
    fault = AccountFault(occasion.detail)
    since = moment(occasion.basis)
    refused = f"{occasion.amount:,} calls were refused since {since:%Y-%m-%d %H:%M} UTC"
    return (
        f"Upstream {occasion.name!r}: {sentence_of(fault, occasion.model)}. {refused}.",
        {"upstream": occasion.name, "fault": str(fault), "model": occasion.model or None, "calls": occasion.amount},
        CURES[fault].format(upstream=occasion.name),
    )


def _unpriced(occasion: Occasion) -> _Written:
    return (
        f"Model {occasion.name!r} has no price: its calls are refused.",
        {"model": occasion.name},
        f"keydesk prices set {occasion.name} --help",
    )


def _drain(occasion: Occasion) -> _Written:
    since = moment(occasion.amount)
    return (
        f"Rows of the request log have waited for the ledger since {since:%Y-%m-%d %H:%M} UTC: nobody drains.",
        {"waiting_since": since.isoformat(timespec="seconds").replace("+00:00", "Z")},
        "keydesk ledger sync --follow",
    )


_WRITERS = {
    "limit": _limit,
    "wallet": _wallet,
    "expiry": _expiry,
    "upstream": _upstream,
    "unpriced": _unpriced,
    "drain": _drain,
}
