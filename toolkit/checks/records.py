"""Records: can they be relied upon? Pure; each function is one check of `findings`."""

import shlex
from collections.abc import Iterator
from itertools import groupby

from toolkit.checks.finding import Finding, Severity
from toolkit.checks.snapshot import Snapshot
from toolkit.checks.thresholds import Thresholds
from toolkit.core.account_fault import CURES, OF_ONE_MODEL, AccountFault, sentence_of
from toolkit.core.added_fields import REMEDIES
from toolkit.core.money import show_usd
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.wording import counted, days_between, listed, stamp
from toolkit.core.words import folded
from toolkit.store.audit import PLATFORM
from toolkit.store.tables import Organisation


def chains(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
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


def alike_names(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
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


def uncalled_upstreams(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
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


def refusing_upstreams(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """An upstream whose provider does not serve our account, and has served no call since."""
    for incident in evidence.incidents:
        fault, name = AccountFault(incident.fault), shlex.quote(incident.upstream)
        owner = evidence.owners.get(incident.upstream)
        cure = CURES[fault].format(upstream=name)
        if owner is not None:
            cure = f"It is the organisation's own account; what is set here a platform admin changes. {cure}"
        yield Finding(
            check="upstream-refuses",
            severity=Severity.MEDIUM if fault in OF_ONE_MODEL else Severity.HIGH,
            kind="upstream",
            subject_id=incident.upstream,
            subject=incident.upstream,
            org=evidence.org_name(owner) if owner else None,
            since=incident.first_at,
            sentence=f"Calls fail, for {sentence_of(fault, incident.model)}"
            f"{f', with {incident.credential}' if incident.credential else ''}: {counted(incident.calls, 'call')}, the "
            f"last one at {stamp(incident.last_at)}. It said: {incident.words}",
            action=f"{cure} The next call that succeeds ends this.",
            evidence={
                "fault": incident.fault,
                "model": incident.model or None,
                "credential": incident.credential or None,
                "calls": incident.calls,
                "last_at": incident.last_at,
                "words": incident.words,
            },
        )


def refused_fields(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """An upstream that has lately refused a field which Keydesk adds to requests, and to which it is still added."""
    for row in evidence.refused:
        if row.last_at < evidence.since(thresholds.period):
            continue
        remedy = REMEDIES.get(row.name)
        seen = f"{counted(row.times, 'time')}, lastly at {stamp(row.last_at)}, with {listed(row.models)}"
        yield Finding(
            check="upstream-refuses-fields",
            severity=Severity.LOW if remedy else Severity.HIGH,
            kind="upstream",
            subject_id=row.upstream,
            subject=row.upstream,
            org=None,
            since=row.first_at,
            sentence=f"It refuses '{row.name}', which Keydesk adds to requests: {seen}. "
            + (
                "Such a call is sent again without it, and for an hour it is left out at once."
                if remedy
                else "It bounds what a call can cost and has no other name, so these calls fail."
            ),
            action=f"{remedy.meaning} For all models of the upstream: "
            f"`keydesk upstreams update {shlex.quote(row.upstream)} {remedy.option}`."
            if remedy
            else "Have these models called at another endpoint, or let another upstream serve them: "
            "`keydesk models update --help`.",
            evidence={"field": row.name, "models": list(row.models), "times": row.times, "last_at": row.last_at},
        )


def smaller_limits(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """A model's limit that is set larger than its upstream has it, so that bounds of ours have lately been refused."""
    for row in evidence.smaller:
        if row.last_at < evidence.since(thresholds.period):
            continue
        is_output = row.name == "max_output"
        options = f"--{row.name.replace('_', '-')} {row.most}"
        if is_output and row.default_output > row.most:
            options += f" --default-output {row.most}"
        yield Finding(
            check="model-limit-smaller",
            severity=Severity.LOW,
            kind="model",
            subject_id=row.model,
            subject=row.model,
            org=None,
            since=row.first_at,
            sentence=f"Its {'longest output' if is_output else 'context window'} is set to {row.set_to:,} tokens, and "
            f"{row.upstream} has {row.most:,}: the bound that Keydesk adds was too large, and "
            f"{counted(row.times, 'call')} went out twice, the last one at {stamp(row.last_at)}.",
            action="See that the provider's documentation says so, too, and set it: "
            f"`keydesk models update {shlex.quote(row.model)} {options}`.",
            evidence={
                "upstream": row.upstream,
                "limit": row.name,
                "set_to": row.set_to,
                "most": row.most,
                "times": row.times,
                "last_at": row.last_at,
            },
        )


def violations(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """An invariant of the books that the last reconciliation found broken."""
    run = evidence.last_run
    for result in run.results if run else ():
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


def unreconciled(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
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


def orphaned_holds(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
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


def repeated_payments(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
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


_MOST_NAMED = 10


def unknown_fields(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
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
