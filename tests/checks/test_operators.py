"""Operators' acts that deserve a question are found, by rules that can be counted out."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from tests.audits import BEGINNING, DAY, HOUR, MINUTE, NOW, Scene, scene
from toolkit.admin import keys, operators, organisations
from toolkit.admin.sign_in import open_session
from toolkit.checks.finding import Severity
from toolkit.core.errors import SignInFailed
from toolkit.core.policy import Role
from toolkit.store import audit
from toolkit.store.actor import SYSTEM, Actor
from toolkit.store.tables import Operator, SignInFailure

__all__ = ["scene"]  # a fixture

EVE = "eve@acme.example"
PERIOD = NOW - 30 * DAY


def act(scene: Scene, at: datetime, action: str = "key.update", name: str = EVE) -> None:
    """Write an act into the audit log."""
    with scene.acting(at, name) as tx:
        audit.record(tx, action, "something", org_id=scene.world.org_id)


def habits(scene: Scene, hours: list[int], *, acts: int = 20, days: int = 5, name: str = EVE) -> None:
    """Let somebody act at these hours on so many days, before the period."""
    for number in range(acts):
        day = (PERIOD - (1 + number % days) * DAY).replace(hour=0)
        act(scene, day + hours[number % len(hours)] * HOUR + number * timedelta(seconds=1), name=name)


@pytest.fixture
def eve(scene: Scene) -> Scene:
    """Eve signs in, as an org admin since the beginning."""
    scene.operator(EVE, Role.ORG_ADMIN, BEGINNING, scene.world.org_id)
    return scene


def at_hour(hour: int) -> datetime:
    """Return that hour of yesterday."""
    return (NOW - DAY).replace(hour=hour)


def test_acts_at_unusual_hours_are_found(eve: Scene) -> None:
    """Who acts from 9 to 16 is asked about 3:30 and 19:00, not about 7:00 or 18:59; all of it is one finding."""
    habits(eve, [9, 12, 14, 16])
    for at in (at_hour(7), at_hour(18) + 59 * MINUTE):
        act(eve, at)
    assert eve.found("operator-unusual-hours") == []
    act(eve, at_hour(3) + 30 * MINUTE)
    act(eve, at_hour(19), "operator.sign_in")
    (finding,) = eve.found("operator-unusual-hours")
    assert (finding.subject, finding.severity, finding.since) == (EVE, Severity.LOW, at_hour(3) + 30 * MINUTE)
    assert finding.evidence == {
        "acts": 2,
        "hours": [3, 19],
        "actions": ["key.update", "operator.sign_in"],
        "last_at": at_hour(19),
        "compared_with": 20,
    }
    assert finding.sentence == (
        "2 acts (key.update and operator.sign_in) at 03:00 and 19:00 UTC, near which none of 20 acts of the 90 days "
        "before lay."
    )
    act(eve, at_hour(4), "key.rotate")
    assert [finding.severity for finding in eve.found("operator-unusual-hours")] == [Severity.MEDIUM]


@pytest.mark.parametrize("act_of_money", ["wallet.credit", "wallet.adjustment", "wallet.correct"])
def test_money_moved_at_an_unusual_hour_is_graver(eve: Scene, act_of_money: str) -> None:
    """A credit, an adjustment and the correction of a charge all move money."""
    habits(eve, [9, 12, 14, 16])
    act(eve, at_hour(3), act_of_money)
    assert [finding.severity for finding in eve.found("operator-unusual-hours")] == [Severity.MEDIUM]


def test_midnight_is_near_both_its_sides(eve: Scene) -> None:
    """Who acts at 23 is not asked about 1:00, but about 2:00."""
    habits(eve, [23])
    act(eve, at_hour(1))
    assert eve.found("operator-unusual-hours") == []
    act(eve, at_hour(2))
    assert [finding.evidence["hours"] for finding in eve.found("operator-unusual-hours")] == [[2]]


@pytest.mark.parametrize(("acts", "days"), [(19, 5), (20, 4)])
def test_usual_hours_take_20_acts_on_5_days(eve: Scene, acts: int, days: int) -> None:
    """With less nobody's hours are known, and nothing is unusual."""
    habits(eve, [9], acts=acts, days=days)
    act(eve, at_hour(3))
    assert eve.found("operator-unusual-hours") == []


def test_processes_have_no_usual_hours(scene: Scene) -> None:
    """Jobs and people at the command line run when they run: only who signs in is judged by hours."""
    habits(scene, [9], name="cli:batch")
    act(scene, at_hour(3), name="cli:batch")
    act(scene, at_hour(3), name=SYSTEM.name)
    assert scene.found("operator-unusual-hours") == []


def test_many_secrets_within_an_hour_are_found(eve: Scene) -> None:
    """Five creations and rotations within 60 minutes, both ends included; the fullest hour is told."""
    start = NOW - 2 * DAY
    with eve.acting(start, EVE) as tx:
        first = keys.create(tx, eve.workspace.keyring, org="Acme", name="k0", plan="standard").key
    for number in range(1, 4):
        with eve.acting(start + number * 10 * MINUTE, EVE) as tx:
            keys.create(tx, eve.workspace.keyring, org="Acme", name=f"k{number}", plan="standard")
            keys.update(tx, first.id, name="k0")
    with eve.acting(start + 61 * MINUTE, EVE) as tx:
        keys.rotate(tx, eve.workspace.keyring, first.id, confirm="k0")
    assert eve.found("operator-burst") == []
    with eve.acting(start + 60 * MINUTE, EVE) as tx:
        keys.rotate(tx, eve.workspace.keyring, first.id, confirm="k0")
    (finding,) = eve.found("operator-burst")
    assert (finding.subject, finding.severity, finding.since) == (EVE, Severity.MEDIUM, start)
    assert finding.evidence == {"secrets": 5, "last_at": start + HOUR, "keys": ["k0", "k1", "k2", "k3", "k0"]}
    assert finding.sentence == (
        f"{EVE} was shown 5 secrets from 2026-11-21 12:00 UTC to 2026-11-21 13:00 UTC: k0, k1, k2 and k3."
    )


def test_a_name_that_is_locked_out_is_found(eve: Scene) -> None:
    """Eight failed sign-ins of an operator, and as many of an unknown name; seven are not enough."""
    eve.operator("ann@acme.example", Role.ANALYST, BEGINNING)
    eve.clock.now = NOW - 10 * MINUTE
    for email, tries in ((EVE, 8), ("ann@acme.example", 7)):
        for _ in range(tries):
            with pytest.raises(SignInFailed):
                open_session(eve.workspace.store, email, "wrong", "192.0.2.7")
    with eve.workspace.write() as tx:  # each real try of an unknown name would take as long as a good password
        tx.session.add_all(
            SignInFailure(id=f"f{number}", subject=f"email:{'0' * 64}", failed_at=tx.now) for number in range(8)
        )
    found = {finding.subject: finding for finding in eve.found("operator-sign-in-failures")}
    assert set(found) == {EVE, "a name that no operator has"}
    assert (found[EVE].severity, found[EVE].org) == (Severity.MEDIUM, "Acme")
    assert found[EVE].evidence == {"tries": 8, "first_at": NOW - 10 * MINUTE, "last_at": NOW - 10 * MINUTE}
    assert f"`keydesk operators reset-password {EVE}`" in found[EVE].action


def test_an_address_that_guesses_is_found(scene: Scene) -> None:
    """Forty failures from one address, seven for each name at most."""
    names = [f"user{number}@acme.example" for number in range(6)]
    for name in names:
        scene.operator(name, Role.ANALYST, BEGINNING)
    scene.clock.now = NOW - 5 * MINUTE
    for number in range(40):
        with pytest.raises(SignInFailed):
            open_session(scene.workspace.store, names[number % 6], "wrong", "192.0.2.7")
    (finding,) = scene.found("operator-sign-in-failures")
    assert (finding.subject, finding.evidence["tries"]) == ("192.0.2.7", 40)
    assert "block it" in finding.action


def test_acts_that_nobody_signed_in_for_are_listed(eve: Scene) -> None:
    """`cli:` and names of no operator are, with what they did; an operator and the system are not."""
    for name, action in (
        ("cli:root", "key.create"),
        ("cli:root", "key.create"),
        ("cli:root", "wallet.credit"),
        ("typo@acme.example", "key.delete"),
        (EVE, "key.delete"),
        (SYSTEM.name, "operator.add_something"),
    ):
        act(eve, NOW - DAY, action, name)
    act(eve, PERIOD - MINUTE, name="cli:earlier")
    found = {finding.subject: finding for finding in eve.found("operator-trusted-acts")}
    assert set(found) == {"cli:root", "typo@acme.example"}
    assert found["cli:root"].severity is Severity.INFO
    assert found["cli:root"].sentence == (
        "3 acts by a user of the machine, through the command line or Python: 2 × key.create and 1 × wallet.credit."
    )
    assert found["typo@acme.example"].sentence.startswith("1 act by a name that no operator has, ")


def test_the_table_of_activity_counts_each_actors_acts(eve: Scene) -> None:
    """Of the period alone, the busiest first, each with its kind, actions, first and last act."""
    act(eve, PERIOD - MINUTE)
    for at, action, name in (
        (PERIOD, "key.update", EVE),
        (NOW - DAY, "key.rotate", EVE),
        (NOW - HOUR, "key.update", EVE),
        (NOW - HOUR, "plan.add", "cli:root"),
    ):
        act(eve, at, action, name)
    table = [(row.actor, row.kind, row.acts, row.actions, row.first_at, row.last_at) for row in eve.report().activity]
    assert table == [
        (EVE, "operator", 3, {"key.update": 2, "key.rotate": 1}, PERIOD, NOW - HOUR),
        ("cli:root", "trusted", 1, {"plan.add": 1}, NOW - HOUR, NOW - HOUR),
    ]


def test_new_operators_are_found(eve: Scene) -> None:
    """A new platform admin is graver than others; who was added before the period is not found."""
    eve.operator("boss@keydesk.local", Role.PLATFORM_ADMIN, NOW - 3 * DAY)
    eve.operator("ann@acme.example", Role.ANALYST, NOW - 2 * DAY, eve.world.org_id)
    found = {finding.subject: finding for finding in eve.found("operator-new")}
    assert {name: (finding.severity, finding.org) for name, finding in found.items()} == {
        "boss@keydesk.local": (Severity.MEDIUM, None),
        "ann@acme.example": (Severity.INFO, "Acme"),
    }
    assert found["boss@keydesk.local"].evidence == {
        "role": "platform_admin",
        "added_by": "admin@keydesk.local",
        "added_at": NOW - 3 * DAY,
    }


def test_a_new_operator_who_was_removed_again_is_found_as_such(eve: Scene) -> None:
    """What is left to look at is what they did; there is nobody to disable."""
    eve.operator("guest@keydesk.local", Role.ANALYST, NOW - 3 * DAY)
    with eve.acting(NOW - 2 * DAY) as tx:
        operators.remove(tx, "guest@keydesk.local", confirm="guest@keydesk.local")
    (found,) = [finding for finding in eve.found("operator-new") if finding.subject == "guest@keydesk.local"]
    assert found.sentence.endswith("and removed since.")
    assert "keydesk audit" in found.action
    assert "operators disable" not in found.action


def test_an_operator_written_into_the_store_is_found(eve: Scene) -> None:
    """One that no act added, and one whose role is not the one that was given; honest ones are not, however old."""
    eve.operator("ann@acme.example", Role.ANALYST, NOW - 40 * DAY, eve.world.org_id)
    assert eve.found("operator-unlogged") == []
    with eve.workspace.write() as tx:
        tx.session.execute(update(Operator).where(Operator.email == EVE).values(role="platform_admin", org_id=None))
        values = {"password_hash": "x", "created_at": NOW - DAY, "created_by": EVE, "last_sign_in_at": None}
        tx.session.add(Operator(id="op_x", email="mallory@acme.example", role="platform_admin", org_id=None, **values))
    found = {finding.subject: finding for finding in eve.found("operator-unlogged")}
    assert {name: finding.evidence for name, finding in found.items()} == {
        EVE: {"role": "platform_admin", "role_logged": "org_admin"},
        "mallory@acme.example": {"role": "platform_admin", "role_logged": None},
    }
    assert {finding.severity for finding in found.values()} == {Severity.HIGH}


def test_an_org_admin_sees_the_acts_in_its_organisation(eve: Scene) -> None:
    """Of its own people by name; of the platform's operators, processes and system as one, whom it does not know."""
    with eve.acting(BEGINNING) as tx:
        other = organisations.add(tx, "Other").id
    for name in (EVE, "boss@keydesk.local", "cli:root"):
        act(eve, NOW - DAY, name=name)
    with eve.acting(NOW - DAY, "cli:elsewhere") as tx:
        audit.record(tx, "key.update", "something", org_id=other)
    actor = Actor(EVE, Role.ORG_ADMIN, eve.world.org_id)
    report = eve.report(eve.workspace.acting_as(actor).ledger)
    assert {row.actor: row.kind for row in report.activity} == {
        EVE: "operator",
        "platform": "platform",
    }


def test_who_invited_is_named_for_who_accepted(eve: Scene) -> None:
    """The person acted in their own name; whoever invited them let them in."""
    facts = {"email": "new@example.com", "role": Role.ANALYST}
    with eve.acting(NOW - 2 * DAY, "boss@example.com") as tx:
        audit.record(tx, "operator.invite", "inv_1", org_id=eve.world.org_id, after=facts)
    with eve.acting(NOW - DAY, "new@example.com") as tx:
        audit.record(tx, "operator.accept_invitation", "op_1", org_id=eve.world.org_id, after=facts)
    added_by = {finding.subject: finding.evidence["added_by"] for finding in eve.found("operator-new")}
    assert added_by["new@example.com"] == "boss@example.com"
