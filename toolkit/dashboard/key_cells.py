"""How a key is drawn in the list: its state, and how much of its limit is used."""

import json
from datetime import datetime
from html import escape

from toolkit.admin.key_summaries import KeySummary
from toolkit.core.money import show_usd, usd
from toolkit.core.policy import KeyStatus, has_expired
from toolkit.dashboard import shared

NEAR_LIMIT = 0.8
"""Share of the monthly limit from which a key is shown as near it."""


def state_of(summary: KeySummary, now: datetime) -> tuple[str, str]:
    """Return a key's state, as text and tone. A dead key's own state hides that its organisation is suspended."""
    key = summary.key
    if key.status == KeyStatus.DELETED:
        return "Deleted", "quiet"
    if key.status == KeyStatus.DISABLED:
        return "Disabled", "warn"
    if has_expired(key.expires_at, now):
        return "Expired", "warn"
    if summary.org_suspended:
        return "Org suspended", "bad"
    return "Active", "good"


HEAD = (
    '<div class="kd-row kd-key kd-head"><span>Key</span><span>Status</span><span>Plan</span>'
    '<span>Spent this month</span><span class="kd-right">Last used</span></div>'
)


def cells_of(summary: KeySummary, now: datetime, several_orgs: bool) -> str:
    """Return a key's line of the list as HTML, under `HEAD`.

    Args:
        summary: the key.
        now: by which it is expired or not, and used so long ago.
        several_orgs: whether the line names the organisation.
    """
    key, text = summary.key, escape
    told = (key.display, summary.org_name if several_orgs else "", key.owner, key.environment)
    under = " · ".join(text(each) for each in told if each)
    expiry = ""
    if key.expires_at is not None and key.status != KeyStatus.DELETED:
        word = "expired" if has_expired(key.expires_at, now) else "expires"
        expiry = f'<span class="kd-sub">{word} {shared.ago(key.expires_at, now)}</span>'
    old = ""
    if summary.old_secret_uses:
        tries = f"{summary.old_secret_uses:,} old-secret {'try' if summary.old_secret_uses == 1 else 'tries'}"
        hint = "Somebody still calls with a rotated or deleted secret of this key; those calls are refused."
        old = f'<span class="kd-sub kd-alert" title="{hint}">{tries}</span>'
    scope = json.loads(key.scope)
    models = f"{len(scope)} model{'s' if len(scope) != 1 else ''}" if scope else "all models"
    gone = " kd-gone" if key.status == KeyStatus.DELETED else ""
    return (
        f'<div class="kd-row kd-key{gone}">'
        f'<span><b class="kd-name" title="{text(key.name)}">{text(key.name)}</b>'
        f'<span class="kd-sub kd-mono">{under}</span></span>'
        f"<span>{shared.badge(*state_of(summary, now))}{expiry}</span>"
        f'<span>{text(summary.plan_name)}<span class="kd-sub" title="{text(", ".join(scope))}">{models}</span></span>'
        f"<span>{limit_bar(summary)}</span>"
        f'<span class="kd-right">{shared.ago(summary.last_used_at, now)}{old}</span></div>'
    )


def limit_bar(summary: KeySummary) -> str:
    """Return as HTML what a key has spent and holds this month, and how much of its limit that is."""
    limit, spent, held = summary.key.monthly_limit, summary.counted, summary.held
    held_note = f" · {show_usd(held)} held" if held else ""
    calls = f"{summary.calls:,} call{'s' if summary.calls != 1 else ''}{held_note}"
    if limit is None:
        below = f'<span class="kd-sub">{calls}</span>'
        return f'<span class="kd-limit"><span>{shared.money(spent)}<em>no limit</em></span>{below}</span>'
    share = spent / limit if limit else 1.0
    tone = "kd-fill-bad" if spent >= limit else "kd-fill-warn" if share >= NEAR_LIMIT else "kd-fill"
    title = f"${usd(spent)} spent, ${usd(held)} held, of ${usd(limit)} this month"
    bar = shared.bar([(share, tone), ((held / limit if limit else 0.0), "kd-fill-held")], title)
    return (
        f'<span class="kd-limit"><span>{shared.money(spent)}<em>of {show_usd(limit)}</em></span>{bar}'
        f'<span class="kd-sub">{calls}</span></span>'
    )
