"""Operators: what they did, by the audit log, and what of it deserves a question. Pure.

The log holds acts, and sign-ins that succeeded. Failed ones stay in the key store for a quarter of an hour or until the
next try. An act through the command line or a notebook stands under the machine's user, and the name that was given
there, which nobody checks: `cli:root as alice@example.com`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Literal

from toolkit.admin.sign_in_throttle import ADDRESS, PAIR, email_subject, is_pair
from toolkit.checks.finding import Finding, Severity
from toolkit.checks.snapshot import Act, Snapshot
from toolkit.checks.thresholds import Thresholds
from toolkit.core.policy import Role
from toolkit.core.wording import counted, listed, stamp
from toolkit.store.actor import SYSTEM
from toolkit.store.audit import PLATFORM

REVEALING = frozenset({"key.create", "key.rotate"})
"""Acts that show a secret."""

GRAVE = REVEALING | {
    "operator.add",
    "operator.invite",
    "operator.password_link",
    "operator.enable",
    "operator.reset_password",
    "operator.set_role",
    "plan.update",
    "price.set",
    "upstream.add",
    "upstream.update",
    "wallet.adjustment",
    "wallet.correct",
    "wallet.credit",
}
"""Acts that show a secret, move money, or let somebody in."""

ADDING = frozenset({"operator.add", "operator.accept_invitation"})
"""Acts that make an operator."""

USUAL_DAYS = 5
"""Days on which an actor must have acted before, for the usual hours to be known."""

NEAR = 2
"""Hours of the day that lie this near to a usual one are usual too."""

_HOUR = timedelta(hours=1)


Kind = Literal["operator", "trusted", "system", "platform"]


@dataclass(frozen=True, slots=True)
class Activity:
    """What one actor did in the period.

    Args:
        actor: the name in the audit log.
        kind: "operator" signs in; "trusted" is a process that holds the store's credentials, or a name that no operator
            has; "system" is what no person asked for; "platform" is all of these, for people of one organisation, who
            do not learn its names.
        acts: how many; `actions` has the number of each.
        first_at, last_at: UTC.
    """

    actor: str
    kind: Kind
    acts: int
    actions: dict[str, int]
    first_at: datetime
    last_at: datetime


def table(evidence: Snapshot, thresholds: Thresholds) -> list[Activity]:
    """Return what each actor did in the period, the busiest first."""
    rows = []
    for actor, acts in _by_actor(_recent(evidence, thresholds)).items():
        actions = dict(Counter(act.action for act in acts).most_common())
        rows.append(Activity(actor, _kind(evidence, actor), len(acts), actions, acts[0].at, acts[-1].at))
    return sorted(rows, key=lambda row: (-row.acts, row.actor))


def unusual_hours(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """An operator at work at hours of the day (UTC) near which none of the acts of the 90 days before lay."""
    start = evidence.since(thresholds.period)
    for actor, acts in _by_actor(evidence.acts).items():
        before = [act.at for act in acts if act.at < start]
        known = len(before) >= thresholds.usual and len({at.date() for at in before}) >= USUAL_DAYS
        if _kind(evidence, actor) != "operator" or not known:
            continue
        usual = {(at.hour + shift) % 24 for at in before for shift in range(-NEAR, NEAR + 1)}
        strange = [act for act in acts if act.at >= start and act.at.hour not in usual]
        if not strange:
            continue
        hours = sorted({act.at.hour for act in strange})
        actions = sorted({act.action for act in strange})
        yield _finding(
            "operator-unusual-hours",
            Severity.MEDIUM if GRAVE & set(actions) else Severity.LOW,
            actor,
            strange[0].at,
            f"{counted(len(strange), 'act')} ({listed(actions)}) at {listed([f'{hour:02}:00' for hour in hours])} UTC, "
            f"near which none of {len(before)} acts of the 90 days before lay.",
            f"Ask {actor} about {stamp(strange[0].at)}. If it was somebody else, give a new password, which ends all "
            f"sessions: `keydesk operators reset-password {actor}`.",
            acts=len(strange),
            hours=hours,
            actions=actions,
            last_at=strange[-1].at,
            compared_with=len(before),
        )


def burst(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """An actor who was shown many secrets, by creating and rotating keys, within an hour."""
    names = {key.id: evidence.key_label(key) for key in evidence.keys}
    for actor, acts in _by_actor(_recent(evidence, thresholds)).items():
        shown = [act for act in acts if act.action in REVEALING]
        most = _busiest_hour(shown)
        if len(most) >= thresholds.burst:
            keys = [names.get(act.subject, act.subject) for act in most]
            yield _finding(
                "operator-burst",
                Severity.MEDIUM,
                actor,
                most[0].at,
                f"{actor} was shown {len(most)} secrets from {stamp(most[0].at)} to {stamp(most[-1].at)}: "
                f"{listed(list(dict.fromkeys(keys)))}.",
                f"Ask {actor} what they were for. Rotate those that nobody can account for: `keydesk keys rotate KEY`.",
                secrets=len(most),
                last_at=most[-1].at,
                keys=keys,
            )


def _busiest_hour(acts: list[Act]) -> list[Act]:
    """Return the most acts that lie within an hour, the earliest such ones; acts are in order of time."""
    start, best = 0, (0, 0)
    for place, act in enumerate(acts):
        while act.at - acts[start].at > _HOUR:
            start += 1
        if place + 1 - start > best[1] - best[0]:
            best = start, place + 1
    return acts[slice(*best)]


def sign_in_failures(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """A name or address whose sign-ins are slowed down, because of too many failed tries."""
    people = {email_subject(person.email): person for person in evidence.people}
    for failures in evidence.failures:
        by_address = failures.subject.startswith("address:")
        if is_pair(failures.subject) or failures.tries < (ADDRESS if by_address else PAIR).tries:
            continue
        person = people.get(failures.subject)
        if by_address:
            subject = failures.subject.removeprefix("address:")
            action = f"See whether {subject} is one of yours, and block it before Keydesk if not."
        elif person is not None:
            subject = person.email
            action = (
                f"Ask {subject} whether that was them. If so, and the password is lost: "
                f"`keydesk operators reset-password {subject}`."
            )
        else:
            subject = "a name that no operator has"
            action = "Somebody guesses names; see in the proxy's log where from."
        yield Finding(
            check="operator-sign-in-failures",
            severity=Severity.MEDIUM,
            kind="operator",
            subject_id=person.id if person else subject,
            subject=subject,
            org=evidence.org_name(person.org_id) if person else None,
            since=failures.first_at,
            sentence=f"{counted(failures.tries, 'failed sign-in')} from {stamp(failures.first_at)} to "
            f"{stamp(failures.last_at)}: as many as are let pass.",
            action=action,
            evidence={"tries": failures.tries, "first_at": failures.first_at, "last_at": failures.last_at},
        )


def trusted_acts(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """Acts of processes that hold the store's credentials: their names are as they gave them."""
    for row in table(evidence, thresholds):
        if row.kind != "trusted":
            continue
        of_machine = row.actor.startswith("cli:")
        unnamed = of_machine and " as " not in row.actor
        actions = listed([f"{number} × {action}" for action, number in row.actions.items()])
        yield _finding(
            "operator-trusted-acts",
            Severity.INFO,
            row.actor,
            row.first_at,
            f"{counted(row.acts, 'act')} by "
            + ("a user of the machine" if of_machine else "a name that no operator has")
            + f", through the command line or Python: {actions}.",
            "Confirm them: `keydesk audit` shows them. " + ("`--as EMAIL` would say who it was." if unnamed else ""),
            acts=row.acts,
            actions=row.actions,
            last_at=row.last_at,
        )


def new_operators(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:
    """Somebody who may sign in since the period began, or could until removed."""
    recent = _recent(evidence, thresholds)
    removed = {act.subject for act in recent if act.action == "operator.remove"}
    inviters = {act.after.get("email"): act.actor for act in evidence.acts if act.action == "operator.invite"}
    for act in recent:
        if act.action not in ADDING:
            continue
        email, role = str(act.after.get("email", act.subject)), str(act.after.get("role", "?"))
        # Who accepted an invitation acted in their own name; whoever invited them let them in.
        adder = act.actor if act.action == "operator.add" else inviters.get(email, act.actor)
        first = adder == SYSTEM.name
        by, who = ("the first start of Keydesk", "whoever started it") if first else (adder, adder)
        gone = act.subject in removed
        yield Finding(
            check="operator-new",
            severity=Severity.MEDIUM if role == Role.PLATFORM_ADMIN else Severity.INFO,
            kind="operator",
            subject_id=act.subject,
            subject=email,
            org=evidence.org_name(act.chain) if act.chain in evidence.orgs else None,
            since=act.at,
            sentence=f"Added as {role} by {by} at {stamp(act.at)}" + (", and removed since." if gone else "."),
            action=f"Confirm it with {who}. If nobody vouches for it: "
            + ("see in `keydesk audit` what was done meanwhile." if gone else f"`keydesk operators disable {email}`."),
            evidence={"role": role, "added_by": adder, "added_at": act.at},
        )


def unlogged_operators(evidence: Snapshot, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001 - as all checks
    """An operator whom the audit log does not know, or knows with another role: written into the store by hand."""
    told = {act.subject: act for act in evidence.acts if act.action in ADDING | {"operator.set_role"}}
    for person in evidence.people:
        act = told.get(person.id)
        told_role = act.after.get("role") if act else None
        if told_role == person.role:
            continue
        yield Finding(
            check="operator-unlogged",
            severity=Severity.HIGH,
            kind="operator",
            subject_id=person.id,
            subject=person.email,
            org=evidence.org_name(person.org_id),
            since=person.created_at,
            sentence=f"The audit log does not know who added {person.email} as {person.role}."
            if act is None
            else f"{person.email} is {person.role}; by the audit log that must be {told_role}.",
            action="Somebody wrote into the key store itself: find out who can, and change its credentials. Meanwhile "
            f"`keydesk operators disable {person.email}`.",
            evidence={"role": person.role, "role_logged": told_role},
        )


def _recent(evidence: Snapshot, thresholds: Thresholds) -> list[Act]:
    start = evidence.since(thresholds.period)
    return [act for act in evidence.acts if act.at >= start]


def _by_actor(acts: list[Act]) -> dict[str, list[Act]]:
    """Return acts by actor, each one's in order of time."""
    in_order = sorted(acts, key=lambda act: (act.actor, act.at))
    return {actor: list(of_actor) for actor, of_actor in groupby(in_order, key=lambda act: act.actor)}


def _kind(evidence: Snapshot, actor: str) -> Kind:
    if actor == PLATFORM and not evidence.whole:
        return "platform"
    if actor == SYSTEM.name:
        return "system"
    unknown = evidence.whole and actor not in {person.email for person in evidence.people}
    return "trusted" if unknown or actor.startswith("cli:") else "operator"


def _finding(
    check: str, severity: Severity, actor: str, since: datetime, sentence: str, action: str, **facts: Any
) -> Finding:
    return Finding(check, severity, "operator", actor, actor, None, since, sentence, action.strip(), facts)
