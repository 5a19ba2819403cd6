"""Prices: who changed prices, multipliers and plans, and by how much. Pure; each function is one of the checks."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from toolkit.admin.prices import price_at
from toolkit.checks.finding import Finding, Severity
from toolkit.checks.snapshot import Act, Snapshot
from toolkit.checks.thresholds import Thresholds
from toolkit.core.errors import InvalidInput
from toolkit.core.money import show_usd
from toolkit.core.price_changes import in_words, price_changes
from toolkit.core.pricing import PriceSheet, parse_multiplier, show_multiplier
from toolkit.core.wording import listed, stamp
from toolkit.store.tables import Price


def prices(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A price that was entered in the period: by whom, and what it changes per million tokens."""
    start = evidence.since(thresholds.period)
    acts = {act.subject: act for act in evidence.acts if act.action == "price.set"}
    for price in evidence.prices:
        if price.recorded_at < start:
            continue
        earlier = [
            other
            for other in evidence.prices
            if other.model_id == price.model_id and other.id != price.id and other.recorded_at <= price.recorded_at
        ]
        before = price_at(earlier, price.valid_from)
        act = acts.get(price.id)
        actor = act.actor if act else price.recorded_by
        changes = _changes(before, price) if before else []
        jumps = any(_jumps(change["before_nano"], change["after_nano"], thresholds.jump) for change in changes)
        said = listed(list(map(in_words, changes))) or ("nothing" if before else "the model's first price")
        yield Finding(
            check="price-change",
            severity=Severity.MEDIUM if jumps else Severity.INFO,
            kind="model",
            subject_id=price.model_id,
            subject=price.model_id,
            org=None,
            since=price.recorded_at,
            sentence=f"{actor} entered a price at {stamp(price.recorded_at)} (source: {price.source}), valid from "
            f"{stamp(price.valid_from)}: {said}.",
            action=f"Compare it with the provider's price list: `keydesk prices list {price.model_id}`. A wrong one is "
            "superseded with `keydesk prices set`; what was charged by it, corrected with `keydesk wallet adjust`.",
            evidence={
                "actor": actor,
                "recorded_at": price.recorded_at,
                "valid_from": price.valid_from,
                "source": price.source,
                "changes": changes,
            },
        )


def multipliers(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A plan whose multiplier or models were changed in the period."""
    for act in evidence.acts:
        if act.action != "plan.update" or act.at < evidence.since(thresholds.period):
            continue
        before, after = _multiplier(act.before), _multiplier(act.after)
        if before is None or after is None:
            continue  # unreadable: the check of the audit log's chains finds it
        added = sorted(_models(act.after) - _models(act.before))
        removed = sorted(_models(act.before) - _models(act.after))
        parts = [f"multiplier {show_multiplier(before)} → {show_multiplier(after)}"] if before != after else []
        parts += [f"{word} {listed(models)}" for word, models in (("added", added), ("removed", removed)) if models]
        unknown = [side.get("unknown_fields", "pass") for side in (act.before, act.after)]
        parts += [f"unknown fields {unknown[0]} → {unknown[1]}"] if unknown[0] != unknown[1] else []
        name = str(act.after.get("name", act.subject))
        yield Finding(
            check="plan-change",
            severity=Severity.MEDIUM if _jumps(before, after, thresholds.jump) else Severity.INFO,
            kind="plan",
            subject_id=act.subject,
            subject=name,
            org=None,
            since=act.at,
            sentence=f"{act.actor} changed the plan at {stamp(act.at)}: {'; '.join(parts)}.",
            action=f"Confirm it with {act.actor}; `keydesk movers` shows what it did to spend, `keydesk plans update` "
            "changes it back.",
            evidence={
                "actor": act.actor,
                "multiplier_before": show_multiplier(before),
                "multiplier_after": show_multiplier(after),
                "models_added": added,
                "models_removed": removed,
            },
        )


def key_plans(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A key that was moved to another plan in the period: its prices and its models changed at once."""
    keys = {key.id: key for key in evidence.keys}
    multipliers = {plan.name: show_multiplier(plan.multiplier) for plan in evidence.plans.values()}
    for act in evidence.acts:
        before, after = act.before.get("plan"), act.after.get("plan")
        if act.action != "key.update" or before == after or act.at < evidence.since(thresholds.period):
            continue
        key = keys.get(act.subject)
        if key is None:
            continue
        yield Finding(
            check="key-plan-change",
            severity=Severity.INFO,
            kind="key",
            subject_id=key.id,
            subject=evidence.key_label(key),
            org=evidence.org_name(key.org_id),
            since=act.at,
            sentence=f"{act.actor} moved it from plan {before} ({multipliers.get(str(before), '?')}) to {after} "
            f"({multipliers.get(str(after), '?')}) at {stamp(act.at)}; multipliers are today's.",
            action=f"Confirm it with {act.actor}. `keydesk keys update {evidence.key_argument(key)} --plan PLAN` moves "
            "it back.",
            evidence={"actor": act.actor, "plan_before": before, "plan_after": after, "reason": act.reason},
        )


def unlogged(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """A price or multiplier that is not the one that the audit log tells: written into the store by hand."""
    told = {act.subject: act for act in evidence.acts if act.action in {"price.set", "plan.add", "plan.update"}}
    for price in evidence.prices:
        act = told.get(price.id)
        if act is None or not _is_told(price, act):
            yield _unlogged(
                "model",
                price.model_id,
                price.model_id,
                price.recorded_at,
                act,
                f"The entry {price.id} of the price book, {_shown(price)} and valid from {stamp(price.valid_from)},",
            )
    for plan in evidence.plans.values() if evidence.whole else ():
        act = told.get(plan.id)
        if act is None or _multiplier(act.after) != plan.multiplier:
            yield _unlogged(
                "plan",
                plan.id,
                plan.name,
                act.at if act else plan.created_at,
                act,
                f"The multiplier {show_multiplier(plan.multiplier)} of the plan {plan.name}",
            )


def _is_told(price: Price, act: Act) -> bool:
    told = [act.after.get(name) for name in ("model", "valid_from", "sheet")]
    return told == [price.model_id, price.valid_from.isoformat(), price.sheet]


def sheet_of(price: Price) -> PriceSheet | None:
    """Return what an entry charges; None if somebody made it unreadable."""
    try:
        return PriceSheet.from_json(price.sheet)
    except (ValueError, TypeError, KeyError, InvalidInput):
        return None


def _shown(price: Price) -> str:
    sheet = sheet_of(price)
    if sheet is None:
        return "unreadable"
    return f"with input at {show_usd(sheet.tiers[0].input)} and output at {show_usd(sheet.tiers[0].output)}"


def _multiplier(plan: dict[str, Any]) -> int | None:
    """Return the multiplier of a plan as an act tells it; None if it does not."""
    try:
        return parse_multiplier(plan["multiplier"])
    except (KeyError, InvalidInput):
        return None


def _unlogged(kind: str, subject_id: str, subject: str, since: Any, act: Act | None, what: str) -> Finding:
    return Finding(
        check="catalog-unlogged",
        severity=Severity.HIGH,
        kind=kind,
        subject_id=subject_id,
        subject=subject,
        org=None,
        since=since,
        sentence=f"{what} is not in the audit log." if act is None else f"{what} is not what {act.actor} entered.",
        action="Somebody wrote into the key store itself: find out who can, and change its credentials. "
        "`keydesk audit` has what was entered; enter it anew, and correct what was charged meanwhile.",
        evidence={"logged": act is not None, "actor": act.actor if act else None},
    )


def _models(plan: dict[str, Any]) -> set[str]:
    models = plan.get("models")
    return set(map(str, models)) if isinstance(models, list) else set()


def _changes(earlier: Price, later: Price) -> list[dict[str, Any]]:
    """Return each price that differs; none where somebody made an entry unreadable."""
    before, after = sheet_of(earlier), sheet_of(later)
    return [] if before is None or after is None else price_changes(before, after)


def _jumps(before: int, after: int, share: Decimal) -> bool:
    """Whether a price or multiplier changed by so large a share of what it was; from or to 0 always does."""
    return before != after and (0 in {before, after} or abs(after - before) >= share * before)
