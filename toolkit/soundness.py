"""Soundness: can the records be relied upon? Pure; each function is one check of `findings`."""

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby

from toolkit.audit import PLATFORM
from toolkit.dialects.fields import UnknownFields
from toolkit.evidence import Evidence, Thresholds
from toolkit.finding import Finding, Severity, counted, days_between, listed, stamp
from toolkit.logged import Calls, charge_reported
from toolkit.models import Organisation
from toolkit.policy import Outcome
from toolkit.pricing import show_usd, usd
from toolkit.usage import OverrunReason, UsageSource
from toolkit.words import folded


def chains(evidence: Evidence, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """A place where a chain of the audit log does not hold: a row was changed, removed, reordered or cut off."""
    for link, at in evidence.breaks:
        org = evidence.orgs.get(link.chain)
        yield Finding(
            check="audit-chain",
            severity=Severity.HIGH,
            kind="chain",
            subject_id=link.chain,
            subject=org.name if org else link.chain,
            org=None if link.chain == PLATFORM else evidence.org_name(link.chain),
            since=at,
            sentence=f"Row {link.seq} of the chain: {link.problem}. It was written at {stamp(at)} or later.",
            action="Take the log from there on as unproven: keep a copy of the key store as it is, compare with a "
            "backup, and find out who can write to it. `keydesk audit --verify` repeats the check.",
            evidence={"seq": link.seq, "problem": link.problem},
        )


def alike_names(evidence: Evidence, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """Organisations whose names differ in case alone, from before that was refused: one is taken for the other."""
    bearers: dict[str, list[Organisation]] = {}
    for org in sorted(evidence.orgs.values(), key=lambda org: org.created_at):
        bearers.setdefault(folded(org.name), []).append(org)
    for first, *others in bearers.values():
        for org in others:
            yield Finding(
                check="org-names-alike",
                severity=Severity.LOW,
                kind="organisation",
                subject_id=org.id,
                subject=org.name,
                org=org.name,
                since=org.created_at,
                sentence=f"{first.name!r} ({first.id}) and {org.name!r} ({org.id}) differ in case alone.",
                action=f"Give one of them another name: `keydesk orgs rename {org.id} NAME`.",
                evidence={"like": first.name, "like_id": first.id},
            )


def uncalled_upstreams(evidence: Evidence, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """An upstream that the gateway never calls: its credential's name or its address is one that could do harm."""
    for upstream, fault in evidence.uncalled:
        yield Finding(
            check="upstream-uncalled",
            severity=Severity.HIGH,
            kind="upstream",
            subject_id=upstream.name,
            subject=upstream.name,
            org=None,
            since=upstream.created_at,
            sentence=f"Its models cannot be called: {fault}.",
            action="See in `keydesk audit` who entered it and why. `keydesk upstreams update` gives it another "
            "--credential-env or --base-url.",
            evidence={"base_url": upstream.base_url, "credential": upstream.credential_env},
        )


def violations(evidence: Evidence, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """An invariant of the books that the last reconciliation found broken."""
    run = evidence.last_run
    for result in run.findings if run else ():
        if run is not None and result.violations:
            count = counted(len(result.violations), "violation")
            yield Finding(
                check="books-violated",
                severity=Severity.HIGH,
                kind="books",
                subject_id=result.invariant,
                subject=result.title,
                org=None,
                since=run.started_at,
                sentence=f"{count} of {result.invariant} at {stamp(run.started_at)}, such as: {result.violations[0]}",
                action="Run `keydesk reconcile` again; what it still shows must be explained before a month is closed.",
                evidence={"violations": len(result.violations), "checked": result.checked, "run_by": run.actor},
            )


def unreconciled(evidence: Evidence, thresholds: Thresholds) -> Iterator[Finding]:
    """Books that nobody has reconciled for a while."""
    run = evidence.last_run
    if run is not None and run.started_at > evidence.since(thresholds.reconciled):
        return
    since = run.started_at if run else min((org.created_at for org in evidence.orgs.values()), default=evidence.now)
    yield Finding(
        check="books-unreconciled",
        severity=Severity.LOW if run else Severity.MEDIUM,
        kind="books",
        subject_id="books",
        subject="the books",
        org=None,
        since=since,
        sentence=f"Last reconciled {days_between(since, evidence.now)} ago, by {run.actor}, over {run.rows:,} calls."
        if run
        else "Never reconciled.",
        action="`keydesk reconcile`, and have it run every day.",
        evidence={"last_run_at": run.started_at if run else None},
    )


def orphaned_holds(evidence: Evidence, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """Money that is still set aside for calls of a gateway that has ended, and that no other gateway has released."""
    overdue = sorted((hold for hold in evidence.holds if hold.overdue), key=lambda hold: (hold.instance_id, hold.org))
    for (instance, org), members in groupby(overdue, key=lambda hold: (hold.instance_id, hold.org)):
        stuck = list(members)
        amount, oldest = sum(hold.amount for hold in stuck), min(hold.admitted_at for hold in stuck)
        yield Finding(
            check="hold-orphaned",
            severity=Severity.MEDIUM,
            kind="gateway",
            subject_id=instance,
            subject=instance,
            org=org,
            since=oldest,
            sentence=f"{show_usd(amount)} is held for {counted(len(stuck), 'call')} of a gateway that has ended, the "
            f"oldest of {stamp(oldest)}, by {listed(sorted({hold.key for hold in stuck}))}.",
            action="Start a gateway, which releases them within seconds; then `keydesk holds --orphaned` lists none.",
            evidence={
                "holds": len(stuck),
                "amount_nano": amount,
                "request_ids": [hold.request_id for hold in stuck],
            },
        )


def repeated_payments(evidence: Evidence, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """A payment that was credited more than once, before the wallet refused that."""
    for payments in evidence.repeated:
        known = [payment for payment in payments if payment.org is not None]
        places = [f"{payment.org} ({show_usd(payment.amount)}, {stamp(payment.created_at)})" for payment in known]
        elsewhere = counted(len(payments) - len(known), "time") + " in other organisations"
        yield Finding(
            check="payment-repeated",
            severity=Severity.HIGH,
            kind="books",
            subject_id=known[-1].entry_id,
            subject=known[-1].reference,
            org=known[-1].org if len({payment.org for payment in payments}) == 1 or not evidence.whole else None,
            since=payments[1].created_at,
            sentence=f"The payment {known[-1].reference!r} was credited {counted(len(payments), 'time')}: "
            f"{listed([*places, elsewhere] if len(known) < len(payments) else places)}.",
            action="See which of them was paid, and take the others out again: `keydesk wallet adjust --help`.",
            evidence={
                "credits": [payment.entry_id for payment in known],
                "amount_nano": sum(payment.amount for payment in known),
            },
        )


_MOST_IDS = 20

_MOST_SAID = 3
"""Reasons, and commands, that a finding spells out."""

_MOST_SHOWN = 100
"""Request ids that a finding has as evidence."""


def unknown_fields(evidence: Evidence, thresholds: Thresholds) -> Iterator[Finding]:
    """An upstream whose calls have lately had fields, betas or headers of which nobody knows what they change."""
    recent = [row for row in evidence.unknown if row.last_at >= evidence.since(thresholds.period)]
    for upstream, rows in groupby(recent, key=lambda row: row.upstream):
        found = list(rows)
        passing = sorted({row.plan for row in found if row.treatment is UnknownFields.PASS})
        names = {name: sum(row.times for row in found if row.name == name) for name in {row.name for row in found}}
        named = sorted(names, key=lambda name: (-names[name], name))
        shown = [f"{name} ({names[name]:,})" for name in named[:_MOST_NAMED]]
        shown += [f"{len(named) - _MOST_NAMED:,} more"] if len(named) > _MOST_NAMED else []
        last = max(row.last_at for row in found)
        name = shlex.quote(upstream)
        yield Finding(
            check="fields-unknown",
            severity=Severity.LOW if passing else Severity.INFO,
            kind="upstream",
            subject_id=upstream,
            subject=upstream,
            org=None,
            since=min(row.first_at for row in found),
            sentence=f"Calls had fields that Keydesk does not know, the last one at {stamp(last)}; how often: "
            f"{listed(shown)}."
            + (
                f" They are passed on for the plans: {listed(passing)}; one that changes a price breaks the hold."
                if passing
                else " They are left out or refused."
            ),
            action="See in the provider's documentation what they change. "
            + (
                f"`keydesk upstreams update {name} --unknown-fields leave_out` leaves them out, `keydesk plans update "
                f"{shlex.quote(passing[0])} --unknown-fields leave_out` for one plan alone."
                if passing
                else f"If nothing that costs, `keydesk upstreams update {name} --unknown-fields pass` lets them "
                "through, unless the key's plan is stricter."
            ),
            evidence={
                "names": names,
                "last_at": last,
                "plans": sorted({row.plan for row in found}),
                "passed_for": passing,
            },
        )


_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class _Subject:
    """Whose calls are added up."""

    kind: str
    id: str
    name: str
    org: str | None
    argument: str
    calls: list[Calls]


def estimated(evidence: Evidence, thresholds: Thresholds) -> Iterator[Finding]:
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


def abandoned(evidence: Evidence, thresholds: Thresholds) -> Iterator[Finding]:
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


def overruns(evidence: Evidence, thresholds: Thresholds) -> Iterator[Finding]:
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


def _cures(rows: list[Calls], evidence: Evidence) -> str:
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


def doubtful(evidence: Evidence, thresholds: Thresholds) -> Iterator[Finding]:
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


def _of_calls(
    subject: _Subject,
    evidence: Evidence,
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


def _subjects(evidence: Evidence, is_found: Callable[[list[Calls]], bool]) -> Iterator[_Subject]:
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


def _keys(evidence: Evidence, explained: set[str]) -> Iterator[_Subject]:
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
    calls = sum(row.calls for row in rows if row.outcome != Outcome.REFUSED)
    share = _share(sum(row.calls for row in rows if row.outcome == Outcome.ABANDONED), calls)
    if any(row.forwarded for row in rows):
        return share
    return share if share and calls >= thresholds.least_calls and share >= thresholds.abandoned else None


def _share(part: int, whole: int) -> Decimal:
    return round(Decimal(part) / whole, 4) if whole else Decimal(0)


def _percent(share: Decimal) -> str:
    return f"{share * 100:.1f} %"
