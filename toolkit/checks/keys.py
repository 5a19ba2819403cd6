"""Keys: which of them are a risk, or may do more than is needed. Pure; each function is one check of `findings`.

A key that admits no calls is no risk, so most checks take live keys alone.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from toolkit.checks.finding import Finding, Severity
from toolkit.checks.proposed_limit import UsualMonth, usual_month
from toolkit.checks.snapshot import Act, Snapshot
from toolkit.checks.thresholds import Thresholds
from toolkit.core.errors import RefusalType
from toolkit.core.moments import micros
from toolkit.core.money import parse_usd, show_usd, usd
from toolkit.core.period import billing_month
from toolkit.core.policy import KeyStatus, has_expired
from toolkit.core.wording import days_between, listed, stamp
from toolkit.store.tables import ApiKey, RetiredSecret


class RotationDue(NamedTuple):
    """A live key whose secret will have to be rotated soon.

    Args:
        at: when the secret is as old as one may be, UTC.
    """

    key_id: str
    key: str
    org: str | None
    at: datetime


def never_used(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A live key that nobody has ever called with: nobody would miss it, nobody would notice its leak."""
    for key in evidence.live:
        if key.id not in evidence.last_used and key.created_at <= evidence.since(thresholds.new):
            age = days_between(key.created_at, evidence.now)
            yield _finding(
                evidence,
                key,
                "key-never-used",
                Severity.MEDIUM,
                key.created_at,
                f"Created {age} ago by {key.created_by}, and never used.",
                f"Ask {key.created_by} whether it is still wanted; if not, `keydesk keys delete {{key}}`.",
                created_at=key.created_at,
                created_by=key.created_by,
            )


def unused(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A live key that was in use and is not any more."""
    for key in evidence.live:
        last = evidence.last_used.get(key.id)
        if last is not None and last <= evidence.since(thresholds.unused):
            yield _finding(
                evidence,
                key,
                "key-unused",
                Severity.MEDIUM,
                last,
                f"Last used {days_between(last, evidence.now)} ago, at {stamp(last)}.",
                "See whether anybody misses it: `keydesk keys disable {key}`; delete it a month later.",
                last_used_at=last,
            )


def without_limit(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """A live key that only the wallet bounds: a runaway caller spends all that the organisation has."""
    for key in evidence.live:
        if key.monthly_limit is not None:
            continue
        usual = usual_month(evidence, key)
        available = evidence.orgs[key.org_id].available
        yield _finding(
            evidence,
            key,
            "key-no-limit",
            Severity.MEDIUM,
            _since_change(evidence, key, "monthly_limit_usd"),
            f"No monthly limit: it may spend all of the wallet, now {show_usd(available)}; {usual.words}.",
            ("Give it one, such as twice a usual month" if usual.cost else "Give it one, such as")
            + f": `keydesk keys update {{key}} --monthly-limit {usd(usual.limit)}`."
            + _already_spent(evidence, key, usual.limit),
            available_nano=available,
            **_made_of(usual),
        )


def limit_far_above_use(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A live key whose limit would stop nothing: it lies far above what a usual month costs."""
    this_month = evidence.now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    # A key's first month may be cut short; only a whole one says what a month costs.
    last_month = (this_month - timedelta(days=1)).replace(day=1)
    for key in evidence.live:
        usual = usual_month(evidence, key)
        if key.monthly_limit is None or not usual.cost or key.created_at > last_month:
            continue
        if key.monthly_limit > thresholds.limit_times * usual.cost:
            yield _finding(
                evidence,
                key,
                "key-limit-high",
                Severity.LOW,
                _since_change(evidence, key, "monthly_limit_usd"),
                f"The limit of {show_usd(key.monthly_limit)} is {key.monthly_limit // usual.cost} times a usual month; "
                f"{usual.words}.",
                f"Lower it to twice that: `keydesk keys update {{key}} --monthly-limit {usd(usual.limit)}`."
                + _already_spent(evidence, key, usual.limit),
                limit_nano=key.monthly_limit,
                **_made_of(usual),
            )


def near_limit(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A live key that will be refused soon, or is refused already."""
    month = billing_month(evidence.now)
    for key in evidence.live:
        total = evidence.months.get(key.id, {}).get(month)
        if not key.monthly_limit or total is None:
            continue
        used = total.spent + total.corrected + total.held
        if used < thresholds.limit_near * key.monthly_limit:
            continue
        usual, lowered = usual_month(evidence, key), _lowered(evidence, thresholds, key)
        words = f"{100 * used // key.monthly_limit} % of the limit of {show_usd(key.monthly_limit)} is used in {month}"
        action = (
            "See when it runs out with `keydesk forecast`, and whether the spend is meant with "
            "`keydesk spend --by day --key {key}`"
        )
        if lowered is not None:
            before = lowered.before.get("monthly_limit_usd")
            words += f"; {lowered.actor} " + (
                f"lowered it from {show_usd(parse_usd(before))}" if before is not None else "set it, where none was,"
            )
            words += f" at {stamp(lowered.at)}" + (f" (“{lowered.reason}”)" if lowered.reason else "")
            action += f". It is as low as that on purpose: talk to {lowered.actor} before anybody raises it."
        elif usual.limit > key.monthly_limit:
            words += f"; {usual.words}"
            action += (
                "; then raise the limit, such as to twice a usual month: "
                f"`keydesk keys update {{key}} --monthly-limit {usd(usual.limit)}`."
            )
        else:
            words += f"; {usual.words}"
            action += ". The limit is twice a usual month already: find out what is unusual before anybody raises it."
        yield _finding(
            evidence,
            key,
            "key-limit-near",
            Severity.MEDIUM,
            total.last_call_at,
            f"{words}.",
            action,
            limit_nano=key.monthly_limit,
            spent_nano=total.spent,
            held_nano=total.held,
            lowered_by=lowered.actor if lowered else None,
            lowered_at=lowered.at if lowered else None,
            **_made_of(usual),
        )


def wide_scope(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A live key that may call many more models than it does: whoever finds it can choose the dearest."""
    named: dict[str, set[str]] = {}
    for row in evidence.calls:
        if row.model is not None:
            named.setdefault(row.key_id, set()).add(row.model)
    for key in evidence.live:
        may = _callable(evidence, key)
        # What was refused for its model cannot be called anyway; what was refused for money is wanted all the same.
        does = may & named.get(key.id, set())
        known = key.created_at <= evidence.since(thresholds.period)
        if known and does and len(may) >= thresholds.scope_times * len(does):
            yield _finding(
                evidence,
                key,
                "key-scope-wide",
                Severity.LOW,
                _since_change(evidence, key, "models"),
                f"It may call {len(may)} models, and called {len(does)} in the last {thresholds.scope} days: "
                f"{listed(sorted(does))}.",
                f"Narrow its scope: `keydesk keys update {{key}} --models {','.join(sorted(does))}`.",
                models_allowed=sorted(may),
                models_used=sorted(does),
            )


def not_rotated(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A live key whose secret has been the same for long: it has been copied to more places than anybody knows."""
    for key in evidence.live:
        secret = evidence.secrets.get(key.id)
        if secret is not None and secret.created_at <= evidence.since(thresholds.rotation):
            made = secret.created_at
            yield _finding(
                evidence,
                key,
                "key-not-rotated",
                Severity.MEDIUM,
                made + timedelta(days=thresholds.rotation),
                f"Its secret is {days_between(made, evidence.now)} old.",
                "Agree on a moment with who calls with it, for the old secret is dead at once; then "
                "`keydesk keys rotate {key}`.",
                secret_created_at=made,
            )


def expired(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """A key past its expiry that was neither disabled nor deleted: a later expiry date revives the same secret."""
    for key in evidence.keys:
        if key.status != KeyStatus.ACTIVE or key.expires_at is None or not has_expired(key.expires_at, evidence.now):
            continue
        last = evidence.last_unauthorized.get(key.id)
        called = last is not None and last >= key.expires_at
        yield _finding(
            evidence,
            key,
            "key-expired",
            Severity.MEDIUM if called else Severity.LOW,
            key.expires_at,
            f"It expired at {stamp(key.expires_at)} and is still there."
            + (f" Somebody was refused with it as late as {stamp(last)}." if called and last else ""),
            "If it has done its work, `keydesk keys delete {key}`; if somebody needs it, give it a later expiry: "
            f"`keydesk keys update {{key}} --expires {evidence.now + timedelta(days=90):%Y-%m-%d}`.",
            expires_at=key.expires_at,
            last_refused_at=last if called else None,
        )


def secret_in_url(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """A key whose present secret was sent in a URL: every proxy on the way has it in its log."""
    for key in evidence.keys:
        secret = evidence.secrets.get(key.id)
        if secret is None or secret.first_in_url_at is None or secret.last_in_url_at is None:
            continue
        yield _finding(
            evidence,
            key,
            "key-secret-in-url",
            Severity.HIGH if evidence.is_live(key) else Severity.LOW,
            secret.first_in_url_at,
            f"Its secret came in the URL (`?key=`), first at {stamp(secret.first_in_url_at)} and lately at "
            f"{stamp(secret.last_in_url_at)} or up to an hour later: proxies on the way have it in their logs.",
            "Have it sent in the header x-goog-api-key or Authorization, as Google's own SDK does; then "
            "`keydesk keys rotate {key}`, for what stands in logs stays there.",
            first_at=secret.first_in_url_at,
            last_at=secret.last_in_url_at,
        )


def old_secret_used(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A rotated or deleted secret that somebody still calls with: a forgotten app, or a thief."""
    keys = {key.id: key for key in evidence.keys}
    for secret in evidence.retired:
        last, key = secret.last_used_at, keys.get(secret.key_id)
        if key is None or last is None or last < evidence.since(thresholds.old_secret):
            continue
        deleted = key.status == KeyStatus.DELETED and secret.retired_at == key.deleted_at
        reason, by = _retirement(evidence, secret)
        places = _refused_at(evidence, secret)
        yield _finding(
            evidence,
            key,
            "key-old-secret-used",
            Severity.MEDIUM,
            secret.retired_at,
            f"The secret {secret.display}, {'deleted' if deleted else 'rotated away'} at {stamp(secret.retired_at)}"
            + (f" by {by}" if by else "")
            + (f" (“{reason}”)" if reason else "")
            + f", was refused {secret.uses} times since, the last time at {stamp(last)}"
            + (f", at {listed(places)}." if places else "."),
            "Find the app that still has it, and give it "
            + ("another key" if deleted else "the new secret")
            + "; if the old one had leaked, it may be in a stranger's hands. The calls are refused: "
            "`keydesk requests --key {key} --outcome refused`.",
            display=secret.display,
            retired_at=secret.retired_at,
            retired_by=by,
            reason=reason,
            uses=secret.uses,
            last_used_at=last,
            endpoints=places,
        )


def rotations_due(evidence: Snapshot, thresholds: Thresholds) -> list[RotationDue]:
    """Return the live keys whose secret becomes too old soon, the first one first."""
    soon, due = evidence.now + timedelta(days=thresholds.rotation_soon), []
    for key in evidence.live:
        secret = evidence.secrets.get(key.id)
        if secret is not None:
            at = secret.created_at + timedelta(days=thresholds.rotation)
            if evidence.now < at <= soon:
                due.append(RotationDue(key.id, evidence.key_label(key), evidence.org_name(key.org_id), at))
    return sorted(due, key=lambda one: one.at)


def _finding(
    evidence: Snapshot,
    key: ApiKey,
    check: str,
    severity: Severity,
    since: datetime,
    sentence: str,
    action: str,
    **facts: Any,
) -> Finding:
    """Return a finding on a key; `{key}` in the action is what names it on the command line."""
    return Finding(
        check=check,
        severity=severity,
        kind="key",
        subject_id=key.id,
        subject=evidence.key_label(key),
        org=evidence.org_name(key.org_id),
        since=since,
        sentence=sentence,
        action=action.replace("{key}", evidence.key_argument(key)),
        evidence=facts,
    )


def _callable(evidence: Snapshot, key: ApiKey) -> frozenset[str]:
    included = evidence.plan_models.get(key.plan_id, frozenset())
    included -= {model for model, owners in evidence.owned.items() if key.org_id not in owners}
    scope = evidence.scope(key)
    return included & scope if scope else included


def _made_of(usual: UsualMonth) -> dict[str, Any]:
    """Return what a proposed limit is made of, as evidence."""
    return {
        "usual_month": usual.month,
        "usual_nano": usual.cost,
        "set_aside": sorted(usual.beyond),
        "set_aside_nano": sum(usual.beyond.values()),
        "suggested_nano": usual.limit,
    }


def _already_spent(evidence: Snapshot, key: ApiKey, limit: int) -> str:
    """Return what a limit would mean for the rest of this month, if that much is spent already."""
    total = evidence.months.get(key.id, {}).get(billing_month(evidence.now))
    if total is None or total.spent + total.corrected < limit:
        return ""
    month = evidence.now.replace(day=1) + timedelta(days=31)
    spent = show_usd(total.spent + total.corrected)
    return f" It has spent {spent} this month: set now, it would refuse all calls until {month:%Y-%m}-01."


def _last_change(evidence: Snapshot, key: ApiKey, option: str) -> Act | None:
    """Return the act that last changed an option, as far as the acts at hand tell."""
    changes = [act for act in evidence.acts_on(key.id) if act.action == "key.update"]
    return next((act for act in reversed(changes) if act.before.get(option) != act.after.get(option)), None)


def _since_change(evidence: Snapshot, key: ApiKey, option: str) -> datetime:
    """Return when an option was last changed, as far as the acts at hand tell; else when the key was created."""
    change = _last_change(evidence, key, option)
    return change.at if change else key.created_at


def _lowered(evidence: Snapshot, thresholds: Thresholds, key: ApiKey) -> Act | None:
    """Return the act that lowered a key's limit, or gave it one, if that is the last change and lies in the period."""
    change = _last_change(evidence, key, "monthly_limit_usd")
    if change is None or change.at < evidence.since(thresholds.period):
        return None
    before, after = (facts.get("monthly_limit_usd") for facts in (change.before, change.after))
    lower = after is not None and (before is None or parse_usd(after) < parse_usd(before))
    return change if lower else None


def _retirement(evidence: Snapshot, secret: RetiredSecret) -> tuple[str, str]:
    """Return why, and by whom, a secret was retired; empty if that is too long ago."""
    for act in evidence.acts_on(secret.key_id):
        if act.at == secret.retired_at and act.action in {"key.rotate", "key.delete"}:
            return act.reason, act.actor
    return "", ""


def _refused_at(evidence: Snapshot, secret: RetiredSecret) -> list[str]:
    """Return the endpoints whose calls with this key were last refused after the secret was retired."""
    return sorted(
        {
            f"{row.endpoint} ({row.dialect})"
            for row in evidence.calls_with(secret.key_id)
            if row.refusal == RefusalType.UNAUTHORIZED and row.last_at >= micros(secret.retired_at)
        }
    )
