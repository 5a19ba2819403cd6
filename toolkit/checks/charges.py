"""Charges: were calls charged what they used? Pure; each function is one check of `findings`."""

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby

from toolkit.checks.finding import Finding, Severity
from toolkit.checks.request_log import Calls, charge_reported
from toolkit.checks.snapshot import Snapshot
from toolkit.checks.thresholds import Thresholds
from toolkit.core.dialect import Dialect
from toolkit.core.money import show_usd, usd
from toolkit.core.policy import NOT_ADMITTED, Outcome
from toolkit.core.service_tier import unpriced
from toolkit.core.usage import OverrunReason, UsageSource
from toolkit.core.wording import counted, listed

_MOST_IDS = 20

_MOST_SAID = 3
"""Reasons, and commands, that a finding spells out."""

_MOST_SHOWN = 100
"""Request ids that a finding has as evidence."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """Whose calls are added up."""

    kind: str
    id: str
    name: str
    org: str | None
    argument: str
    calls: list[Calls]


def estimated(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A key or upstream many of whose calls were charged by our estimate, for no usage had come."""
    for subject in _subjects(evidence, lambda rows: _share_estimated(rows, thresholds) is not None):
        shares = _share_estimated(subject.calls, thresholds)
        if shares is None:
            continue
        of_calls, of_cost = shares
        rows = [row for row in subject.calls if row.usage_source == UsageSource.ESTIMATED]
        outcomes = sorted({row.outcome for row in rows})
        calls, cost = sum(row.calls for row in rows), sum(row.cost for row in rows)
        yield _of_calls(
            subject,
            evidence,
            thresholds,
            "calls-estimated",
            Severity.MEDIUM if of_cost >= Decimal("0.25") else Severity.LOW,
            f"{counted(calls, 'call')} of the last {thresholds.period} days ({_percent(of_calls)}) and "
            f"{show_usd(cost)} of cost ({_percent(of_cost)}) are estimates; outcome: {listed(outcomes)}.",
            "Callers leave before the answer ends: see whether their time limit is too short. "
            if outcomes == [Outcome.ABORTED]
            else "The upstream sends no usage: see whether it can, or serve the model elsewhere. ",
            {"calls": calls, "cost_nano": cost, "share_of_calls": of_calls, "share_of_cost": of_cost},
        )


def abandoned(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A key or upstream some of whose calls were written off, for their gateway died: used, yet not charged."""
    for subject in _subjects(evidence, lambda rows: _share_abandoned(rows, thresholds) is not None):
        share = _share_abandoned(subject.calls, thresholds)
        if share is None:
            continue
        rows = [row for row in subject.calls if row.outcome == Outcome.ABANDONED]
        calls, held = sum(row.calls for row in rows), sum(row.held for row in rows)
        forwarded = sum(row.forwarded for row in rows)
        ids = [response_id for row in rows for response_id in row.response_ids][:_MOST_IDS]
        yield _of_calls(
            subject,
            evidence,
            thresholds,
            "calls-abandoned",
            Severity.MEDIUM,
            f"{counted(calls, 'call')} of the last {thresholds.period} days ({_percent(share)}) written off, for their "
            f"gateway died: {show_usd(held)} had been held, nothing was charged. {forwarded:,} had certainly been "
            f"forwarded{f', among them {listed(ids)}' if ids else ''}.",
            "Find out why gateways die (memory, a forced restart). The provider's invoice may have the calls: "
            "`keydesk invoice reconcile` says. ",
            {
                "calls": calls,
                "held_nano": held,
                "share_of_calls": share,
                "forwarded": forwarded,
                "response_ids": ids,
            },
        )


def overruns(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A key some of whose calls cost more than was held for them: the one way past a limit."""
    for subject in _keys(evidence, set()):
        rows = [row for row in subject.calls if row.overruns]
        if not rows:
            continue
        calls, amount = sum(row.overruns for row in rows), sum(row.overrun for row in rows)
        models = sorted({row.model for row in rows if row.model})
        yield _of_calls(
            subject,
            evidence,
            thresholds,
            "calls-overrun",
            Severity.MEDIUM,
            f"{counted(calls, 'call')} of the last {thresholds.period} days cost {show_usd(amount)} more than was "
            f"held; models: {listed(models)}.",
            f"Look at them: `keydesk requests --overruns --key {subject.argument}`. {_cures(rows, evidence)}",
            {"calls": calls, "overrun_nano": amount, "models": models, "reasons": sorted(_reasons(rows))},
        )


def _reasons(rows: list[Calls]) -> set[str]:
    return {row.overrun_reason for row in rows if row.overrun_reason}


def _cures(rows: list[Calls], evidence: Snapshot) -> str:
    """Return what would have held enough: the figures that the models' limits should have, by what was seen."""
    cures = []
    for name, of_model in groupby(sorted(rows, key=lambda row: row.model or ""), key=lambda row: row.model or ""):
        members = list(of_model)
        model, words = evidence.models.get(name), shlex.quote(name)
        given, made = max(row.most_input for row in members), max(row.most_output for row in members)
        if model is None:
            continue
        if OverrunReason.CONTEXT_WINDOW in _reasons(members) and given > model.context_window:
            cures.append(
                f"{name} took {given:,} tokens of input: `keydesk models update {words} --context-window {given}`."
            )
        if OverrunReason.OUTPUT_BOUND in _reasons(members) and made > model.default_output:
            # What was made by several choices together may be more than one can make.
            bound = min(made, model.max_output)
            cures.append(
                f"{name} made {made:,} tokens of output, beyond its bound: `keydesk models update {words} "
                f"--default-output {bound}` holds that much where the caller gives no bound."
            )
    if OverrunReason.UNKNOWN_FIELD in _reasons(rows):
        cures.append("Some requests had fields that Keydesk does not know, which may change a price or a bound.")
    return (
        " ".join(cures)
        or "What is held for the model is too low: see whether its limits are right, `keydesk models list`."
    )


def doubtful(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A model whose calls were charged by other counts than the provider's, for those cannot be."""
    prices = {price.id: price.sheet for price in evidence.prices}
    for model, of_model in groupby(sorted(evidence.doubted, key=lambda call: call.model), key=lambda call: call.model):
        calls = list(of_model)
        reported = {call.request_id: charge_reported(call, prices) for call in calls}
        cost = sum(call.cost for call in calls)
        by_report = sum(cost if cost is not None else 0 for cost in reported.values())
        apart = sorted(
            (call for call in calls if reported[call.request_id] not in (None, call.cost)),
            key=lambda call: (-abs((reported[call.request_id] or 0) - call.cost), call.request_id),
        )
        whys = Counter(re.sub(r"^[\d,]+ ", "", why) for call in calls for why in call.doubt.split("; "))
        sentence = (
            f"{counted(len(calls), 'call')} of the last {thresholds.period} days, {show_usd(cost)}, were charged by "
            f"other counts than the provider's: {listed([why for why, _ in whys.most_common(_MOST_SAID)])}."
        )
        action = "`keydesk requests --doubtful` lists them; compare with the provider's invoice. "
        if apart:
            action += "If the provider's counts are right, book what they make: " + "; ".join(
                f"`keydesk requests correct {call.request_id} --charge {usd(reported[call.request_id] or 0)} "
                f"--reason 'as the provider reported'`"
                for call in apart[:_MOST_SAID]
            )
            action += f"; and {len(apart) - _MOST_SAID:,} more." if len(apart) > _MOST_SAID else "."
        yield Finding(
            check="calls-doubtful",
            severity=Severity.MEDIUM,
            kind="model",
            subject_id=model,
            subject=model,
            org=None,
            since=min(call.admitted_at for call in calls),
            sentence=sentence,
            action=action.strip(),
            evidence={
                "calls": len(calls),
                "cost_nano": cost,
                "reported_nano": by_report if apart else None,
                "request_ids": [call.request_id for call in calls[:_MOST_SHOWN]],
            },
        )


def other_tiers(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A model whose calls were served by a tier or region that has another price than the one they were charged at."""
    odd = [(row, names) for row in evidence.served if (names := unpriced(row.dialect, row.served))]
    for (model, upstream), found in groupby(odd, key=lambda pair: (pair[0].model, pair[0].upstream)):
        rows = list(found)
        calls, cost = sum(row.calls for row, _ in rows), sum(row.cost for row, _ in rows)
        by_name = Counter[str]()
        for row, names in rows:
            by_name.update(dict.fromkeys(names, row.calls))
        served = [f"{name} ({number:,})" for name, number in by_name.most_common()]
        cures = [f"The provider bills another price: compare with the invoice of {upstream}."]
        if any(row.served.geo in names for row, names in rows):
            cures.append("The default region of the account there should be the global one.")
        if any(row.served.tier in names for row, names in rows if row.dialect is not Dialect.GEMINI):
            pin = f"`keydesk upstreams update {shlex.quote(upstream)} --pin-tier`"
            cures.append(f"{pin} asks for the tier that is priced.")
        yield Finding(
            check="calls-other-tier",
            severity=Severity.MEDIUM,
            kind="model",
            subject_id=model,
            subject=model,
            org=None,
            since=min(row.first_at for row, _ in rows),
            sentence=f"{counted(calls, 'call')} of the last {thresholds.period} days, {show_usd(cost)}, were charged "
            f"at the standard price, though another tier or region served: {listed(served)}.",
            action=" ".join(cures),
            evidence={"calls": calls, "cost_nano": cost, "served": dict(by_name)},
        )


def _of_calls(
    subject: _Subject,
    evidence: Snapshot,
    thresholds: Thresholds,
    check: str,
    severity: Severity,
    sentence: str,
    action: str,
    facts: dict[str, object],
) -> Finding:
    if subject.kind == "key" and "keydesk requests" not in action:
        action += f"`keydesk requests --key {subject.argument}` lists the calls."
    since = evidence.since(thresholds.period)
    return Finding(
        check, severity, subject.kind, subject.id, subject.name, subject.org, since, sentence, action.strip(), facts
    )


def _subjects(evidence: Snapshot, is_found: Callable[[list[Calls]], bool]) -> Iterator[_Subject]:
    """Yield upstreams, then keys; what an upstream is found for is not laid to the keys that called it."""
    explained: set[str] = set()
    recent = [row for row in evidence.calls if row.recent and row.upstream is not None]
    by_upstream = sorted(recent, key=lambda row: row.upstream or "") if evidence.whole else []
    for upstream, rows in groupby(by_upstream, key=lambda row: row.upstream or ""):
        subject = _Subject("upstream", upstream, upstream, None, upstream, list(rows))
        if is_found(subject.calls):
            explained.add(upstream)
        yield subject
    yield from _keys(evidence, explained)


def _keys(evidence: Snapshot, explained: set[str]) -> Iterator[_Subject]:
    """Yield the keys, with their calls of the period to upstreams that are not `explained`."""
    by_key: dict[str, list[Calls]] = {}
    for row in evidence.calls:
        if row.recent and row.upstream not in explained:
            by_key.setdefault(row.key_id, []).append(row)
    for key in evidence.keys:
        if key.id in by_key:
            name, argument = evidence.key_label(key), evidence.key_argument(key)
            yield _Subject("key", key.id, name, evidence.org_name(key.org_id), argument, by_key[key.id])


def _share_estimated(rows: list[Calls], thresholds: Thresholds) -> tuple[Decimal, Decimal] | None:
    """Return the estimated share of charged calls and of cost, if there is enough to judge and it is too much."""
    charged = [row for row in rows if row.usage_source is not None]
    guessed = [row for row in charged if row.usage_source == UsageSource.ESTIMATED]
    calls, cost = sum(row.calls for row in charged), sum(row.cost for row in charged)
    if calls < thresholds.least_calls or not guessed:
        return None
    of_calls = _share(sum(row.calls for row in guessed), calls)
    of_cost = _share(sum(row.cost for row in guessed), cost)
    return (of_calls, of_cost) if max(of_calls, of_cost) >= thresholds.estimated else None


def _share_abandoned(rows: list[Calls], thresholds: Thresholds) -> Decimal | None:
    """Return the abandoned share of admitted calls, if there is enough to judge and it is too much.

    What had certainly been forwarded is worth a finding in any case: the provider may bill it.
    """
    calls = sum(row.calls for row in rows if row.outcome not in NOT_ADMITTED)
    share = _share(sum(row.calls for row in rows if row.outcome == Outcome.ABANDONED), calls)
    if any(row.forwarded for row in rows):
        return share
    return share if share and calls >= thresholds.least_calls and share >= thresholds.abandoned else None


def _share(part: int, whole: int) -> Decimal:
    return round(Decimal(part) / whole, 4) if whole else Decimal(0)


def _percent(share: Decimal) -> str:
    return f"{share * 100:.1f} %"
