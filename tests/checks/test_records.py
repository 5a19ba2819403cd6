"""Records that cannot be relied upon are found: chains, books, holds, and calls without a real charge."""

from datetime import timedelta

from sqlalchemy import delete, update

from tests.account import INSTANCE, fixed
from tests.audits import BEGINNING, DAY, HOUR, NOW, PASSWORD, Scene, scene
from tests.conftest import ADMIN, usd
from toolkit.admin import models, operators, organisations, plans, wallet
from toolkit.admin.prices import set_price
from toolkit.admin.upstreams import add_upstream, update_upstream
from toolkit.billing import leases
from toolkit.checks import reconcile
from toolkit.checks.finding import Severity
from toolkit.core.account_fault import AccountFault
from toolkit.core.dialect import Dialect
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role
from toolkit.core.pricing import PriceSheet
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.usage import UsageSource
from toolkit.store import audit, incidents, refused_fields, smaller_limits, unknown_fields
from toolkit.store.actor import Actor
from toolkit.store.incidents import At, Refused
from toolkit.store.tables import AuditHead, AuditRow, GatewayInstance, Organisation, Price, Reconciliation, WalletEntry
from toolkit.store.tally import Counted

__all__ = ["scene"]  # a fixture

ESTIMATED = UsageSource.ESTIMATED


def test_a_changed_row_of_the_audit_log_is_found(scene: Scene) -> None:
    """Which row of which chain, and when it was written; an untouched log has none."""
    with scene.acting(NOW - 5 * DAY) as tx:
        entry = wallet.adjust(tx, "Acme", usd(5), "fix", "wrong before").id
    assert scene.found("audit-chain") == []
    with scene.workspace.write() as tx:
        tx.session.execute(update(AuditRow).where(AuditRow.subject == entry).values(actor="somebody else"))
    (finding,) = scene.found("audit-chain")
    assert (finding.subject, finding.org, finding.severity) == ("Acme", "Acme", Severity.HIGH)
    assert (finding.since, finding.evidence) == (NOW - 5 * DAY, {"seq": 3, "problem": "was changed"})


def test_a_cut_tail_is_found_by_an_exported_head(scene: Scene) -> None:
    """Head and rows cut together leave a chain that holds in itself; the head that was kept elsewhere tells."""
    with scene.workspace.read() as tx:
        heads = audit.heads(tx)
    before, (seq, digest) = heads[audit.PLATFORM], ("0", "")
    with scene.workspace.write() as tx:
        last = tx.session.get_one(AuditHead, audit.PLATFORM)
        tail = tx.session.get_one(AuditRow, (audit.PLATFORM, last.seq))
        seq, digest = str(last.seq - 1), tail.previous_hash
        tx.session.execute(delete(AuditRow).where(AuditRow.chain == audit.PLATFORM, AuditRow.seq == last.seq))
        last.seq, last.hash = int(seq), digest
    assert before != f"{seq}:{digest}"
    assert scene.found("audit-chain") == []
    found = scene.found("audit-chain", known_heads=heads)
    assert [(finding.subject, finding.evidence["problem"]) for finding in found] == [
        ("platform", "the exported head is not in the log")
    ]


def test_heads_of_others_chains_are_no_alarm_for_an_organisation(scene: Scene) -> None:
    """An analyst of one organisation may give the whole exported file; only its own chain is compared."""
    with scene.workspace.read() as tx:
        heads = audit.heads(tx)
    ledger = scene.workspace.acting_as(Actor("ann", Role.ANALYST, scene.world.org_id)).ledger
    report = scene.report(ledger, known_heads=heads)
    assert "audit-chain" not in {check.id for check in report.skipped}
    assert [finding for finding in report.findings if finding.check == "audit-chain"] == []
    heads[scene.world.org_id] = f"1:{'0' * 64}"
    found = scene.report(ledger, known_heads=heads).findings
    assert [f.evidence["problem"] for f in found if f.check == "audit-chain"] == [
        "is not the row whose head was exported"
    ]


def test_a_row_that_was_made_unreadable_stops_no_audit(scene: Scene) -> None:
    """Whatever somebody wrote over the log or the price book, the audits go through and say so."""
    with scene.acting(NOW - DAY) as tx:
        plans.update(tx, "standard", multiplier=0)
        set_price(tx, "gpt-test", PriceSheet.flat(input=1, output=1))
        operators.add(tx, "ann@acme.example", Role.ANALYST, hash_password(PASSWORD))
    for rubbish in ("{", "[]", "{}", '{"multiplier": "1", "models": 3, "sheet": 3, "plan": []}', '{"multiplier": "?"}'):
        with scene.workspace.write() as tx:
            tx.session.execute(update(AuditRow).values(before=rubbish, after=rubbish))
            tx.session.execute(update(Price).values(sheet=rubbish))
        found = {finding.check for finding in scene.report().findings}
        assert {"audit-chain", "catalog-unlogged", "operator-unlogged", "operator-new"} <= found


def test_books_that_nobody_reconciled_are_found(scene: Scene) -> None:
    """Never: graver, since the first organisation; a run counts for 7 days."""
    (finding,) = scene.found("books-unreconciled")
    assert (finding.severity, finding.since, finding.evidence) == (Severity.MEDIUM, BEGINNING, {"last_run_at": None})
    reconcile.run(scene.workspace)
    for age, found in ((timedelta(days=7) - timedelta(microseconds=1), []), (timedelta(days=7), [Severity.LOW])):
        with scene.workspace.write() as tx:
            tx.session.execute(update(Reconciliation).values(started_at=NOW - age))
        assert [finding.severity for finding in scene.found("books-unreconciled")] == found
    assert scene.found("books-violated") == []


def test_violations_of_the_last_run_are_found(scene: Scene) -> None:
    """One finding for each broken invariant, with the number of its violations and the first of them."""
    with scene.workspace.write() as tx:
        tx.session.execute(update(Organisation).values(credited=Organisation.credited + usd(1)))
    reconcile.run(scene.workspace)
    (finding,) = scene.found("books-violated")
    assert (finding.subject, finding.severity) == ("Each wallet's credits are the sum of its entries", Severity.HIGH)
    assert finding.evidence == {"violations": 1, "checked": 1, "run_by": ADMIN.name}
    assert finding.sentence.startswith("1 violation of I3 at ")
    assert finding.sentence.endswith("such as: Acme: the wallet says 1001 USD, its entries sum to 1000 USD.")


def test_payments_that_an_earlier_version_credited_twice_are_found(scene: Scene) -> None:
    """With all their credits; one organisation's people are not told which other one had the payment too."""
    with scene.acting(NOW - 9 * DAY) as tx:
        rival = organisations.add(tx, "Rival").id
        wallet.credit(tx, "Acme", usd(5), "INV-1")
    with scene.acting(NOW - 8 * DAY) as tx:
        wallet.credit(tx, "Rival", usd(7), "inv-1", same_reference=True)
        wallet.credit(tx, "Rival", usd(2), "INV-2")
    assert scene.found("payment-repeated") == []  # on purpose
    with scene.workspace.write() as tx:
        tx.session.execute(update(WalletEntry).values(same_reference=False))
    (finding,) = scene.found("payment-repeated")
    assert (finding.severity, finding.org, finding.since) == (Severity.HIGH, None, NOW - 8 * DAY)
    assert finding.sentence == (
        "The payment 'inv-1' was credited 2 times: Acme ($5.00, 2026-11-14 12:00 UTC) and Rival ($7.00, 2026-11-15 "
        "12:00 UTC)."
    )
    assert finding.evidence["amount_nano"] == usd(12)
    theirs = scene.workspace.acting_as(Actor("boss@rival.example", Role.ORG_ADMIN, rival)).ledger
    (seen,) = scene.found("payment-repeated", ledger=theirs)
    assert (seen.org, seen.subject) == ("Rival", "inv-1")
    assert seen.sentence.endswith("Rival ($7.00, 2026-11-15 12:00 UTC) and 1 time in other organisations.")
    assert "Acme" not in str(seen)


def test_fields_that_nobody_knows_are_found_by_upstream(scene: Scene) -> None:
    """With how often, when last and for which plans they pass, and the commands that leave them out."""
    at = NOW - DAY
    with scene.acting(NOW) as tx:
        counts = {"fooBar": Counted(7, at), "generationConfig.x": Counted(9, NOW - 2 * DAY)}
        unknown_fields.add(tx, {("test-openai", scene.world.plan_id, name): count for name, count in counts.items()})
    (finding,) = scene.found("fields-unknown")
    assert (finding.kind, finding.subject, finding.severity) == ("upstream", "test-openai", Severity.LOW)
    assert finding.since == NOW - 2 * DAY
    assert "generationConfig.x (9) and fooBar (7)" in finding.sentence
    assert f"{at:%Y-%m-%d %H:%M}" in finding.sentence
    assert "`keydesk upstreams update test-openai --unknown-fields leave_out`" in finding.action
    assert "`keydesk plans update standard --unknown-fields leave_out`" in finding.action
    assert finding.evidence["names"] == {"generationConfig.x": 9, "fooBar": 7}
    with scene.acting(NOW) as tx:
        update_upstream(tx, "test-openai", unknown_fields=UnknownFields.REFUSE)
    (refused,) = scene.found("fields-unknown")
    assert refused.severity is Severity.INFO
    assert "leave_out" not in refused.action  # they no longer go on
    assert "`keydesk upstreams update test-openai --unknown-fields pass`" in refused.action
    org_only = scene.workspace.acting_as(Actor("ann", Role.ANALYST, scene.world.org_id)).ledger
    assert "fields-unknown" in {check.id for check in scene.report(org_only).skipped}


def test_an_upstream_that_refuses_our_account_is_found(scene: Scene) -> None:
    """With why, since when, how often, what it said and what to do; until it has answered a call."""
    credit = At("test-openai", AccountFault.CREDIT, "")
    model = At("test-openai", AccountFault.MODEL, "gpt-9")
    with scene.acting(NOW) as tx:
        seen = Refused(NOW - 2 * HOUR, NOW - HOUR, 7, "You exceeded your current quota")
        incidents.write(tx, {credit: seen, model: seen}, {})
    grave, other = scene.found("upstream-refuses")
    assert (grave.kind, grave.subject, grave.severity) == ("upstream", "test-openai", Severity.HIGH)
    assert (grave.since, grave.evidence["calls"]) == (NOW - 2 * HOUR, 7)
    assert "no credit or quota left: 7 calls, the last one at" in grave.sentence
    assert grave.sentence.endswith("It said: You exceeded your current quota")
    assert "Add credit" in grave.action
    assert (other.severity, other.evidence["model"]) == (Severity.MEDIUM, "gpt-9")
    assert "(gpt-9)" in other.sentence
    org_only = scene.workspace.acting_as(Actor("ann", Role.ANALYST, scene.world.org_id)).ledger
    assert scene.found("upstream-refuses", ledger=org_only) == []
    with scene.acting(NOW) as tx:
        incidents.write(tx, {}, {credit: NOW, model: NOW})
    assert scene.found("upstream-refuses") == []


def test_an_own_account_that_is_refused_is_found_for_its_organisation_too(scene: Scene) -> None:
    """Who has to mend it; and for no other one."""
    with scene.acting(NOW) as tx:
        other = organisations.add(tx, "Other").id
        add_upstream(tx, "acme-own", Dialect.OPENAI, "http://127.0.0.1:9", "ACME_API_KEY", org="Acme")
        seen = Refused(NOW - HOUR, NOW - HOUR, 1, "no credit")
        incidents.write(tx, {At("acme-own", AccountFault.CREDIT, "", "ACME_API_KEY"): seen}, {})
        incidents.write(tx, {At("test-openai", AccountFault.CREDIT, ""): seen}, {})
    assert [(one.subject, one.org) for one in scene.found("upstream-refuses")] == [
        ("acme-own", "Acme"),
        ("test-openai", None),
    ]
    for org_id, subjects in ((scene.world.org_id, ["acme-own"]), (other, [])):
        ledger = scene.workspace.acting_as(Actor("ann", Role.ANALYST, org_id)).ledger
        found = scene.found("upstream-refuses", ledger=ledger)
        assert [one.subject for one in found] == subjects
        assert all("organisation's own account" in one.action and "Add credit" in one.action for one in found)


def test_a_field_of_ours_that_an_upstream_refuses_is_found(scene: Scene) -> None:
    """With the models that refuse it and the command that sets it for good, until it is set or long past."""
    at = NOW - DAY
    with scene.acting(NOW) as tx:
        refused = [("stream_options", "gpt-9", at), ("max_output_tokens", "gpt-9", at), ("store", "m", NOW - 31 * DAY)]
        refused_fields.add(tx, {("test-openai", model, name): Counted(3, moment) for name, model, moment in refused})
    grave, other = scene.found("upstream-refuses-fields")
    assert (grave.severity, grave.evidence["field"]) == (Severity.HIGH, "max_output_tokens")
    assert "so these calls fail" in grave.sentence
    assert (other.severity, other.subject, other.since) == (Severity.LOW, "test-openai", at)
    assert other.sentence.startswith("It refuses 'stream_options', which Keydesk adds to requests: 3 times, lastly at")
    assert "with gpt-9. Such a call is sent again without it" in other.sentence
    assert "`keydesk upstreams update test-openai --no-add-stream-options`" in other.action
    org_only = scene.workspace.acting_as(Actor("ann", Role.ANALYST, scene.world.org_id)).ledger
    assert "upstream-refuses-fields" in {check.id for check in scene.report(org_only).skipped}
    with scene.acting(NOW) as tx:
        update_upstream(tx, "test-openai", add_stream_options=False)
    assert [finding.evidence["field"] for finding in scene.found("upstream-refuses-fields")] == ["max_output_tokens"]


def test_a_limit_that_an_upstream_has_smaller_is_found(scene: Scene) -> None:
    """With the command that sets it, until it is set; of what an upstream was asked under another name, nothing."""
    with scene.acting(NOW) as tx:
        models.update_model(tx, "gpt-test", context_window=100_000, max_output=8_192, default_output=4_096)
        said = [("gpt-test", "max_output", 2_048), ("gpt-test", "context_window", 32_768), ("other", "max_output", 1)]
        smaller_limits.add(tx, {("test-openai", *limit): Counted(3, NOW - DAY) for limit in said})
    window, output = scene.found("model-limit-smaller")
    assert "`keydesk models update gpt-test --context-window 32768`" in window.action
    assert "`keydesk models update gpt-test --max-output 2048 --default-output 2048`" in output.action
    assert output.sentence.startswith("Its longest output is set to 8,192 tokens, and test-openai has 2,048: ")
    assert "3 calls went out twice" in output.sentence
    org_only = scene.workspace.acting_as(Actor("ann", Role.ANALYST, scene.world.org_id)).ledger
    assert "model-limit-smaller" in {check.id for check in scene.report(org_only).skipped}
    with scene.acting(NOW) as tx:
        models.update_model(tx, "gpt-test", max_output=2_048, default_output=2_048)
    assert [finding.evidence["limit"] for finding in scene.found("model-limit-smaller")] == ["context_window"]


def test_fields_that_are_not_sent_any_more_are_not_found(scene: Scene) -> None:
    """Those of the last 30 days count."""
    with scene.acting(NOW) as tx:
        unknown_fields.add(tx, {("test-openai", scene.world.plan_id, "fooBar"): Counted(7, NOW - 31 * DAY)})
    assert scene.found("fields-unknown") == []


def test_holds_of_a_dead_gateway_are_found_together(scene: Scene) -> None:
    """Two minutes after the lease at the latest somebody should have released them; a living gateway's are in order."""
    key = scene.key("app")
    account = scene._account(key)
    for hours, amount in ((3, usd(2)), (2, usd(0.5))):
        account.admit(account.call(received_at=NOW - hours * HOUR), fixed(amount))
    scene.clock.now = NOW - HOUR
    with scene.workspace.write() as tx:
        leases.renew(tx, INSTANCE, HOUR - timedelta(minutes=2))
    assert scene.found("hold-orphaned") == []
    with scene.workspace.write() as tx:
        tx.session.execute(update(GatewayInstance).values(lease_until=NOW - timedelta(minutes=2, microseconds=1)))
    (finding,) = scene.found("hold-orphaned")
    assert (finding.kind, finding.subject, finding.org) == ("gateway", INSTANCE, "Acme")
    assert (finding.severity, finding.since) == (Severity.MEDIUM, NOW - 3 * HOUR)
    assert (finding.evidence["holds"], finding.evidence["amount_nano"]) == (2, usd(2.5))
    assert len(finding.evidence["request_ids"]) == 2
