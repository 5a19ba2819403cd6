"""All audits together: each check finds what it is for, says what to do, and shows nobody what is not theirs."""

import re
import shlex
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import click
import pytest
from sqlalchemy import select, update

from tests.account import Account, fixed
from tests.audits import BEGINNING, DAY, HOUR, MINUTE, NOW, Scene, a_scene, clock_of_the_store, scene
from tests.conftest import ADMIN, OPENAI_SHEET, ROOT, usd
from toolkit import environment
from toolkit.admin import keys, organisations, plans, prices, secret_lookup, sign_in_throttle, wallet
from toolkit.admin.models import add_model
from toolkit.admin.prices import set_price
from toolkit.admin.sign_in import open_session
from toolkit.admin.upstreams import add_upstream
from toolkit.checks import findings, reconcile, snapshot_reader
from toolkit.checks.findings import CHECKS, AuditReport, Finding, Severity
from toolkit.cli import cli
from toolkit.cli.app import App
from toolkit.core.account_fault import AccountFault
from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput, SignInFailed
from toolkit.core.policy import Outcome, Role
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.core.service_tier import Served
from toolkit.core.usage import Usage, UsageSource
from toolkit.demo import data
from toolkit.demo.scenario import KEYS, NEAR_LIMIT, ROTATED
from toolkit.store import audit, incidents, refused_fields, smaller_limits, unknown_fields
from toolkit.store.actor import SYSTEM, Actor
from toolkit.store.incidents import At, Refused
from toolkit.store.tables import (
    ApiKey,
    AuditRow,
    KeyMonth,
    Operator,
    Organisation,
    Plan,
    Reconciliation,
    RefusalCount,
    RetiredSecret,
    Upstream,
    WalletEntry,
)
from toolkit.store.tally import Counted
from toolkit.workspace import Workspace

__all__ = ["scene"]  # a fixture

EVE = "eve@acme.example"
DOCUMENT = (ROOT / "docs/audits.md").read_text()


@dataclass(frozen=True)
class Worst:
    """What different people find in a world in which every check has something to find."""

    admin: AuditReport
    analyst: AuditReport
    mine: AuditReport
    theirs: AuditReport  # of an organisation that has but one key


@pytest.fixture(scope="module")
def worst(tmp_path_factory: pytest.TempPathFactory) -> Worst:
    """Such a world's findings, on SQLite."""
    with closing(open_workspace(tmp_path_factory.mktemp("worst"))) as workspace, a_scene(workspace) as scene:
        worsen(scene)
        admin, analyst = scene.report(), seen_by(scene, Actor("ann", Role.ANALYST))
        with scene.acting(NOW - 50 * DAY) as tx:
            other = organisations.add(tx, "Other").id
            keys.create(tx, workspace.keyring, org=other, name="their secret project", plan="standard")
        mine, theirs = (seen_by(scene, Actor(EVE, Role.ORG_ADMIN, org)) for org in (scene.world.org_id, other))
        return Worst(admin, analyst, mine, theirs)


@pytest.fixture(scope="module")
def bad(worst: Worst) -> AuditReport:
    """What the audits find in that world."""
    return worst.admin


def seen_by(scene: Scene, actor: Actor) -> AuditReport:
    """Make all audits that somebody may make."""
    return scene.report(scene.workspace.acting_as(actor).ledger)


def open_workspace(folder: Path) -> Workspace:
    """Open a Keydesk that does not wait for the disk."""
    environ = {"KEYDESK_DATA_DIR": str(folder), "KEYDESK_SQLITE_SYNCHRONOUS": "NORMAL"}
    return Workspace.open(environment.read_settings(environ), ADMIN, make=True)


def worsen(scene: Scene) -> Scene:
    """Let all happen that the audits look for."""
    scene.operator(EVE, Role.ORG_ADMIN, BEGINNING, scene.world.org_id)
    for number in range(20):
        with scene.acting(NOW - (40 + number % 5) * DAY - 3 * HOUR + number * MINUTE, EVE) as tx:
            audit.record(tx, "key.update", "something", org_id=scene.world.org_id)
    free = scene.key("free key", age=120 * DAY)
    scene.call(scene.key("idle", monthly_limit=usd(5)), NOW - 35 * DAY)
    scene.key("never", monthly_limit=usd(1))
    scene.key("expired", age=5 * DAY, expires_at=NOW - HOUR)
    busy = scene.key("busy", age=80 * DAY, monthly_limit=usd(100))
    scene.call(busy, NOW - 33 * DAY)
    for number in range(20):
        outcome = Outcome.ABANDONED if number % 2 else Outcome.ABORTED
        scene.call(busy, NOW - DAY, usd(0.01), outcome=outcome, source=UsageSource.ESTIMATED)
    scene.ending(busy, Usage(1, output_tokens=9), usage_doubt="no input tokens")
    scene.ending(busy, Usage(1_000), served=Served("priority"))
    near = scene.key("near", age=5 * DAY, monthly_limit=usd(3))
    scene.call(near, NOW - DAY, usd(3), hold=usd(2))
    with scene.acting(NOW - 12 * HOUR, EVE) as tx:
        for name in ("busy", "near"):
            keys.rotate(tx, scene.workspace.keyring, keys.find(tx, name).id, confirm=name)
        for number in range(3):
            keys.create(tx, scene.workspace.keyring, org="Acme", name=f"copy{number}", plan="standard", monthly_limit=0)
    with scene.workspace.store.write(SYSTEM, NOW - HOUR) as tx:
        secret_lookup.note_retired(
            tx, {digest.value: Counted(1, tx.now) for digest in scene.workspace.keyring.digests(busy.secret)}
        )
        add_upstream(tx, "acme-own", Dialect.OPENAI, "http://127.0.0.1:9", "ACME_API_KEY", org=scene.world.org_id)
        seen = Refused(NOW - DAY, NOW - DAY, 1, "no")
        incidents.write(tx, {At(name, AccountFault.CREDIT, ""): seen for name in ("test-openai", "acme-own")}, {})
        unknown_fields.add(tx, {("test-openai", scene.world.plan_id, "fooBar"): Counted(1, tx.now)})
        refused_fields.add(tx, {("test-openai", "gpt-test", "stream_options"): Counted(1, tx.now)})
        smaller_limits.add(tx, {("test-openai", "gpt-test", "max_output", 1): Counted(1, tx.now)})
        secret_lookup.note_in_url(tx, [digest.value for digest in scene.workspace.keyring.digests(free.secret)])
    scene.operator("boss@keydesk.local", Role.PLATFORM_ADMIN, NOW - DAY)
    scene.operator("ann@acme.example", Role.ANALYST, NOW - DAY, scene.world.org_id)
    with scene.acting(NOW - DAY, "cli:root") as tx:
        set_price(tx, "gpt-test", PriceSheet.flat(input=1, output=1))
        add_model(tx, "later-test", "test-openai", sheet=OPENAI_SHEET, valid_from=NOW + DAY)
        prices.enter(tx, "gemini-test", OPENAI_SHEET, "genai-prices 0.0.1: google/gemini-2.0-flash", tx.now)
        plans.update(tx, "standard", multiplier=MILLION)
        cheap = plans.add(tx, "cheap", MILLION, ["gpt-test"]).id
        keys.update(tx, keys.find(tx, "never").id, plan=cheap)
    with scene.acting(NOW - 9 * DAY) as tx:
        wallet.credit(tx, "Acme", usd(1), "INV-1")
        wallet.credit(tx, "Acme", usd(1), "inv-1", same_reference=True)
        tx.session.execute(update(WalletEntry).values(same_reference=False))  # as an older version had it
    scene.clock.now = NOW - DAY
    with scene.workspace.write() as tx:
        organisations.add(tx, "Umbrella").name = "ACME"  # as a store of an older version may have it
        again = {"kind": "credit", "amount": 1, "reference": "FIRST PAYMENT", "reason": "", "created_by": EVE}
        tx.session.add(WalletEntry(id="entry_again", org_id=scene.world.org_id, created_at=NOW - DAY, **again))
        tx.session.execute(update(Upstream).where(Upstream.name == "test-gemini").values(credential_env="PATH"))
    account = Account(scene.world, scene.billing_store, free.secret, free.key.id)
    account.admit(account.call(received_at=NOW - DAY), fixed(usd(1)))
    scene.clock.now = NOW - 9 * DAY
    with scene.workspace.write() as tx:
        tx.session.execute(update(Organisation).values(credited=Organisation.credited + 1))
    reconcile.run(scene.workspace)
    scene.clock.now = NOW - MINUTE
    for _ in range(sign_in_throttle.PAIR.tries):
        with pytest.raises(SignInFailed):
            open_session(scene.workspace.store, EVE, "wrong", "192.0.2.7")
    with scene.workspace.write() as tx:
        tx.session.execute(update(Reconciliation).values(started_at=NOW - 9 * DAY))
        tx.session.execute(update(Operator).where(Operator.email == EVE).values(role="platform_admin"))
        tx.session.execute(update(Plan).where(Plan.id == cheap).values(multiplier=1))
        tx.session.execute(update(AuditRow).where(AuditRow.subject == "something").values(reason="none"))
    return scene


def test_every_check_finds_what_it_is_for(worst: Worst) -> None:
    """Each of the checks finds something in the worst of worlds, under its own id, the gravest first."""
    all_is_found(worst.analyst)
    assert worst.admin.findings == worst.analyst.findings


@pytest.mark.world
@pytest.mark.only_store("postgresql")
def test_every_check_finds_what_it_is_for_on_postgresql(scene: Scene) -> None:
    """So it does on the other store."""
    all_is_found(worsen(scene).report())


def all_is_found(report: AuditReport) -> None:
    """Check a report on the worst of worlds."""
    assert {finding.check for finding in report.findings} == {check.id for check in CHECKS}
    assert report.skipped == []
    ranks = [finding.severity.rank for finding in report.findings]
    assert ranks == sorted(ranks)
    for severity in Severity:
        moments = [finding.since for finding in report.findings if finding.severity is severity]
        assert moments == sorted(moments, reverse=True)
    assert all(finding.since <= NOW and finding.since.utcoffset() == timedelta(0) for finding in report.findings)


def test_every_command_that_is_proposed_exists(bad: AuditReport) -> None:
    """What stands in backquotes is a command that `keydesk` takes as it is written."""
    actions = [finding.action for finding in bad.findings]
    commands = {command for action in actions for command in re.findall("`(keydesk .*?)`", action)}
    assert len(commands) > 15
    for command in commands:
        parse(command)


def parse(line: str) -> None:
    """Have a command line parsed as `keydesk` does; raises click's error if it is not one.

    A command that is named without its arguments, as one to look up, need only exist.
    """
    _, *words = shlex.split(line)
    context = click.Context(cli, info_name="keydesk", obj=App(as_json=False))
    command: click.Command = cli
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None, line
        command, context = found, click.Context(found, parent=context, info_name=name)
        if words in ([], ["--help"]):
            return
        if words[0].startswith("-"):  # options of a group that does something by itself
            break
    command.make_context(context.info_name or "", words, parent=context.parent)


def test_an_organisation_sees_its_own_findings_only(worst: Worst) -> None:
    """Its keys, acts and chain; what only the platform sees is skipped and named; of the other nothing is said."""
    mine, theirs = worst.mine, worst.theirs
    skipped = {check.id for check in CHECKS if check.platform}
    for report in (mine, theirs):
        assert {check.id for check in report.skipped} == skipped
        assert not skipped & {finding.check for finding in report.findings}
    assert {finding.check for finding in mine.findings} == {check.id for check in CHECKS} - skipped
    assert "their secret project" not in str(mine)
    assert "Other" not in str(mine)
    assert {finding.subject for finding in theirs.findings} == {"their secret project"}
    assert "Acme" not in str(theirs)


@pytest.mark.any_store
def test_the_evidence_of_an_organisation_is_its_own(scene: Scene) -> None:
    """What is read for an actor of one organisation names no key of another, not even where no check would show it."""
    with scene.acting(NOW - 50 * DAY) as tx:
        other = organisations.add(tx, "Other").id
        theirs = keys.create(tx, scene.workspace.keyring, org=other, name="theirs", plan="standard").key.id
    mine = scene.key("mine")
    scene.call(mine, NOW - DAY)
    with scene.acting(NOW - DAY) as tx:
        for key_id in (mine.key.id, theirs):
            tx.session.merge(KeyMonth(key_id=key_id, month="2026-11", calls=1, spent=7, held=0, last_call_at=tx.now))
            tx.session.add(RefusalCount(key_id=key_id, refusal="rate_limited", minute=1, refused=1))
            tx.session.add(
                RetiredSecret(
                    digest=key_id, key_id=key_id, display="sk-…", retired_at=tx.now, uses=1, last_used_at=tx.now
                )
            )
    org = scene.world.org_id
    for actor, known, chains in (
        (Actor("ann", Role.ANALYST), {mine.key.id, theirs}, {audit.PLATFORM, org, other}),
        (Actor("eve", Role.ORG_ADMIN, org), {mine.key.id}, {org}),
    ):
        seen = snapshot_reader.read(scene.workspace.acting_as(actor).ledger, findings.Thresholds(), None, NOW)
        assert {key.id for key in seen.keys} == known
        assert set(seen.secrets) == set(seen.months) == set(seen.last_used) == known
        assert {secret.key_id for secret in seen.retired} == known
        assert {act.chain for act in seen.acts} == chains


def test_no_secret_is_in_a_finding(bad: AuditReport) -> None:
    """Not in a sentence, not in the evidence, not in the table of activity: only the short form that lists show."""
    report = str(bad)
    assert not re.search("sk-[A-Za-z0-9]{20}", report)
    assert "$2b$" not in report
    assert re.search("sk-[A-Za-z0-9]{4}…", report)


def test_findings_as_a_table(bad: AuditReport) -> None:
    """One row each in the order given, with UTC moments; none is a table with the same columns."""
    frame = findings.frame(bad.findings)
    columns = ["severity", "check", "kind", "subject_id", "subject", "org", "since", "sentence", "action"]
    assert list(frame.columns) == columns
    assert frame["check"].tolist() == [finding.check for finding in bad.findings]
    assert frame["severity"].tolist()[0] == "high"
    for name in ("kind", "subject_id", "org"):
        assert frame[name].tolist() == [getattr(finding, name) for finding in bad.findings]
    assert None in frame["org"].tolist()  # the platform's; no NaN, which is no text
    empty = findings.frame([])
    assert (list(empty.columns), len(empty)) == (list(frame.columns), 0)
    assert frame["since"].dtype == empty["since"].dtype == "datetime64[us, UTC]"


def test_an_empty_keydesk_has_nothing_to_find_but_unreconciled_books(workspace: Workspace) -> None:
    """Without keys, calls and acts every check goes through."""
    assert [finding.check for finding in findings.run(workspace.ledger).findings] == ["books-unreconciled"]


def test_a_head_that_is_none_is_refused(workspace: Workspace) -> None:
    """A known head that is no head is answered with what one looks like."""
    with pytest.raises(InvalidInput, match="must look like 12:"):
        findings.run(workspace.ledger, known_heads={"platform": "nonsense"})


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_each_check_is_documented(check: findings.Check) -> None:
    """docs/audits.md has one row for each check, marked if it is the platform's alone."""
    mark = " ◆" if check.platform else ""
    assert DOCUMENT.count(f"\n| `{check.id}`{mark} | ") == 1


def test_no_other_check_is_documented() -> None:
    """What docs/audits.md lists is what there is."""
    assert set(re.findall(r"\n\| `([a-z-]+-[a-z-]+)`", DOCUMENT)) == {check.id for check in CHECKS}


SCALE = 4_500
"""Calls of the small demo data: a tenth of the real one."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> AuditReport:
    """The audits of the demo data at a tenth of its calls, with limits to match."""
    with closing(open_workspace(tmp_path_factory.mktemp("demo"))) as workspace, clock_of_the_store() as clock:
        clock.now = NOW
        data.load(workspace, calls=SCALE)
        with workspace.write() as tx:
            for key in tx.session.scalars(select(ApiKey).where(ApiKey.monthly_limit > 0)):
                key.monthly_limit = key.monthly_limit // 10 if key.monthly_limit else None
                if key.name == NEAR_LIMIT.name:
                    key.monthly_limit = tx.session.get_one(KeyMonth, (key.id, "2026-11")).spent * 100 // 94
        return findings.run(workspace.ledger, now=NOW)


def test_the_demo_data_has_what_was_planted_and_no_more(demo: AuditReport) -> None:
    """The unused key, the one without a limit, the one near it, the old secret; scopes that nobody narrowed."""

    def of(check: str) -> list[Finding]:
        return [finding for finding in demo.findings if finding.check == check]

    assert [finding.subject for finding in of("key-never-used")] == ["spare-key"]
    assert [finding.subject for finding in of("key-no-limit")] == ["agent-sandbox"]
    (near,) = of("key-limit-near")
    assert (near.subject, near.sentence[:4]) == (NEAR_LIMIT.name, "94 %")
    (old,) = of("key-old-secret-used")
    assert (old.subject, old.evidence["uses"]) == (ROTATED.name, 37)
    assert old.evidence["reason"] == "Seen in a shared notebook."
    assert old.evidence["last_used_at"] == NOW - 3 * HOUR
    assert old.evidence["endpoints"] == ["chat/completions (openai)"]
    assert (len(demo.due_soon), demo.due_soon[0].at, demo.due_soon[-1].key) == (11, NOW + 12 * HOUR, "archive-tagging")
    narrow = {"headline-writer", "translation"}  # two of the four models of their plan
    used = {key.name for key in KEYS if key.share} - {"old-prototype"}
    assert {finding.subject for finding in of("key-scope-wide")} == used - narrow
    assert {finding.subject for finding in of("operator-trusted-acts")} == {
        "maria@keydesk.local",
        "admin@lumen-health.example",
    }
    assert Counter(finding.check for finding in demo.findings) == {
        "key-never-used": 1,
        "key-no-limit": 1,
        "key-limit-near": 1,
        "key-old-secret-used": 1,
        "key-scope-wide": 11,
        "operator-trusted-acts": 2,
        "books-unreconciled": 1,
    }
