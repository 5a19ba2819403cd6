"""Keys that are a risk, or more than is needed, are found; those that are neither are not."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.audits import BEGINNING, DAY, HOUR, MINUTE, NOW, Scene, scene
from tests.conftest import usd
from toolkit.admin import keys, organisations, plans, secret_lookup
from toolkit.admin.models import update_model
from toolkit.admin.upstreams import add_upstream
from toolkit.checks.finding import Severity
from toolkit.checks.proposed_limit import roomy
from toolkit.core.dialect import Dialect
from toolkit.core.errors import RefusalType
from toolkit.core.pricing import MILLION
from toolkit.store.actor import SYSTEM
from toolkit.store.tally import Counted

__all__ = ["scene"]  # a fixture

TICK = timedelta(microseconds=1)


def test_a_key_that_was_never_used_is_found_after_a_week(scene: Scene) -> None:
    """A key of 7 days without a call is found, one a moment younger is not, nor is one that was refused for money."""
    scene.key("old", age=7 * DAY)
    scene.key("new", age=7 * DAY - TICK)
    poor = scene.key("poor")
    scene.refuse(poor, NOW - 40 * DAY, RefusalType.BILLING_SHORTFALL)
    called = scene.key("called")
    scene.call(called, NOW - 40 * DAY)
    (finding,) = scene.found("key-never-used")
    assert (finding.subject, finding.org, finding.kind) == ("old", "Acme", "key")
    assert (finding.severity, finding.since) == (Severity.MEDIUM, NOW - 7 * DAY)
    assert finding.evidence == {"created_at": NOW - 7 * DAY, "created_by": "admin@keydesk.local"}
    assert finding.sentence == "Created 7 days ago by admin@keydesk.local, and never used."
    assert finding.action.endswith("`keydesk keys delete old`.")


def test_calls_with_an_old_secret_are_no_use_of_the_key(scene: Scene) -> None:
    """A rotated key whose old secret is refused all the time counts as never used."""
    key = scene.key("app", age=20 * DAY)
    scene.refuse(key, NOW - DAY, RefusalType.UNAUTHORIZED)
    assert scene.subjects("key-never-used") == ["app"]


def test_a_key_that_is_not_used_any_more_is_found_after_30_days(scene: Scene) -> None:
    """The last call counts, in whichever month it was, and a later refusal counts as a use."""
    idle, busy, refused = (scene.key(name, age=150 * DAY) for name in ("idle", "busy", "refused"))
    for key, at in ((idle, NOW - 100 * DAY), (idle, NOW - 30 * DAY), (busy, NOW - 30 * DAY + TICK)):
        scene.call(key, at)
    scene.call(refused, NOW - 90 * DAY)
    scene.refuse(refused, NOW - 3 * DAY, RefusalType.API_KEY_QUOTA_EXCEEDED)
    (finding,) = scene.found("key-unused")
    assert (finding.subject, finding.since) == ("idle", NOW - 30 * DAY)
    assert finding.evidence == {"last_used_at": NOW - 30 * DAY}
    assert scene.subjects("key-unused", unused=3) == ["refused", "busy", "idle"]


def test_a_key_without_a_limit_is_found_with_one_that_would_do(scene: Scene) -> None:
    """Twice the costliest of the last three months, rounded up to two digits; 10 USD where nothing was spent."""
    free, spender = scene.key("free"), scene.key("spender", age=100 * DAY)
    scene.key("limited", monthly_limit=0)
    scene.call(spender, datetime(2026, 8, 30, tzinfo=UTC), usd(500))  # four months back
    scene.call(spender, datetime(2026, 9, 1, tzinfo=UTC), usd(61.73))
    for day in range(1, 21):
        scene.call(spender, NOW - day * DAY, usd(0.5))
    found = {finding.subject: finding for finding in scene.found("key-no-limit")}
    assert set(found) == {"free", "spender"}
    assert found["spender"].evidence == {
        "available_nano": usd(1000 - 500 - 61.73 - 10),
        "usual_month": "2026-09",
        "usual_nano": usd(61.73),
        "set_aside": [],
        "set_aside_nano": 0,
        "suggested_nano": usd(130),
    }
    assert found["spender"].sentence.endswith("; a usual month costs up to $61.73 (2026-09).")
    assert found["spender"].action.endswith("`keydesk keys update spender --monthly-limit 130`.")
    assert found["free"].evidence["suggested_nano"] == usd(10)
    assert found["free"].since == NOW - 60 * DAY
    with scene.acting(NOW - DAY) as tx:
        keys.update(tx, free.key.id, monthly_limit=usd(1))
    with scene.acting(NOW - HOUR) as tx:
        keys.update(tx, free.key.id, monthly_limit=None)
    assert {finding.subject: finding.since for finding in scene.found("key-no-limit")}["free"] == NOW - HOUR


def test_a_runaway_does_not_set_its_own_limit(scene: Scene) -> None:
    """A dollar a day, and forty on each of three days: those count as a dollar; the limit is twice 31 dollars.

    It is said which days are set aside, and that the runaway has spent more than the limit already.
    """
    wild = scene.key("wild", age=120 * DAY)
    for day in range(100):
        scene.call(wild, NOW - (day + 1) * DAY, usd(40) if 4 <= day < 7 else usd(1))
    (finding,) = scene.found("key-no-limit")
    assert finding.evidence == {
        "available_nano": usd(1000 - 97 - 120),
        "usual_month": "2026-10",
        "usual_nano": usd(31),
        "set_aside": [date(2026, 11, day) for day in (16, 17, 18)],
        "set_aside_nano": usd(3 * 39),
        "suggested_nano": usd(62),
    }
    assert finding.sentence.endswith(
        "; a usual month costs up to $31.00 (2026-10), with 3 days that stood out (2026-11-16 to 2026-11-18, "
        "$117.00 beyond what is usual) set aside."
    )
    assert finding.action.endswith(
        "--monthly-limit 62`. It has spent $139.00 this month: set now, it would refuse all calls until 2026-12-01."
    )


def test_a_young_key_is_judged_by_its_pace(scene: Scene) -> None:
    """Ten days old and 20 dollars spent, a month costs 60; in its first week a key's spend counts as a week's."""
    for name, age in (("ten days", 10 * DAY), ("one day", DAY)):
        scene.call(scene.key(name, age=age), NOW - HOUR, usd(20))
    found = {finding.subject: finding for finding in scene.found("key-no-limit")}
    assert found["ten days"].evidence["suggested_nano"] == usd(120)
    assert "; at the pace of its first 10 days, a month costs $60.00." in found["ten days"].sentence
    assert found["one day"].evidence["suggested_nano"] == usd(180)  # twice 20 × 30 ÷ 7, rounded up


def test_a_limit_far_above_use_is_found(scene: Scene) -> None:
    """More than ten times the highest of the last three months; a key that has seen no whole month is not judged."""
    spends = {"high": usd(10.01), "right": usd(10)}
    for name, limit in spends.items():
        key = scene.key(name, monthly_limit=limit)
        scene.call(key, datetime(2026, 10, 5, tzinfo=UTC), usd(1))
        scene.call(key, NOW - HOUR, usd(0.5))
    young = scene.key("young", age=NOW - datetime(2026, 10, 1, tzinfo=UTC) - TICK, monthly_limit=usd(500))
    scene.call(young, NOW - HOUR)
    scene.key("unspent", monthly_limit=usd(500))
    (finding,) = scene.found("key-limit-high")
    assert (finding.subject, finding.severity) == ("high", Severity.LOW)
    assert finding.evidence == {
        "limit_nano": usd(10.01),
        "usual_month": "2026-10",
        "usual_nano": usd(1),
        "set_aside": [],
        "set_aside_nano": 0,
        "suggested_nano": usd(2),
    }
    assert finding.sentence.startswith("The limit of $10.01 is 10 times a usual month; a usual month costs up to $1.00")
    scene.change(young, created_at=datetime(2026, 10, 1, tzinfo=UTC))
    assert scene.subjects("key-limit-high") == ["young", "high"]


def test_a_key_near_its_limit_is_found(scene: Scene) -> None:
    """From 90 % of this month's limit on, to the nano-USD; last month and a limit of 0 do not count."""
    for name, cost in (("near", usd(9)), ("far", usd(9) - 1)):
        key = scene.key(name, monthly_limit=usd(10))
        scene.call(key, datetime(2026, 10, 31, tzinfo=UTC), usd(10))
        scene.call(key, NOW - DAY, cost)
    scene.key("nothing", monthly_limit=0)
    (finding,) = scene.found("key-limit-near")
    assert (finding.subject, finding.severity, finding.since) == ("near", Severity.MEDIUM, NOW - DAY)
    amounts = {"limit_nano": usd(10), "spent_nano": usd(9), "held_nano": 0, "usual_nano": usd(10)}
    assert amounts.items() <= finding.evidence.items()
    assert (
        finding.sentence
        == "90 % of the limit of $10.00 is used in 2026-11; a usual month costs up to $10.00 (2026-10)."
    )
    assert "such as to twice a usual month: `keydesk keys update near --monthly-limit 20`" in finding.action


def test_a_limit_that_was_lowered_is_not_proposed_to_be_raised(scene: Scene) -> None:
    """Who lowered it, when and why is said; 31 days later, or raised since, it is a limit like others."""
    key = scene.key("app", monthly_limit=usd(60))
    scene.call(key, NOW - HOUR, usd(14.5))
    with scene.acting(NOW - 30 * DAY, "eve@acme.example") as tx:
        keys.update(tx, key.key.id, monthly_limit=usd(16), reason="Budget.")
    (finding,) = scene.found("key-limit-near")
    assert finding.sentence == (
        "90 % of the limit of $16.00 is used in 2026-11; eve@acme.example lowered it from $60.00 at "
        "2026-10-24 12:00 UTC (“Budget.”)."
    )
    assert "talk to eve@acme.example before anybody raises it" in finding.action
    assert "--monthly-limit" not in finding.action
    assert (finding.evidence["lowered_by"], finding.evidence["lowered_at"]) == ("eve@acme.example", NOW - 30 * DAY)
    (later,) = scene.found("key-limit-near", period=29)
    assert "lowered" not in later.sentence
    assert "--monthly-limit 29`" in later.action
    for limit in (usd(10), usd(15.5)):
        with scene.acting(NOW - MINUTE) as tx:
            keys.update(tx, key.key.id, monthly_limit=limit)
    (raised,) = scene.found("key-limit-near")
    assert raised.evidence["lowered_by"] is None


def test_a_limit_of_twice_a_usual_month_is_not_raised_for_a_runaway(scene: Scene) -> None:
    """A key that has used up its limit by days that stood out is to be looked into first."""
    wild = scene.key("wild", age=120 * DAY, monthly_limit=usd(70))
    for day in range(100):
        scene.call(wild, NOW - (day + 1) * DAY, usd(45) if day == 4 else usd(1))
    (finding,) = scene.found("key-limit-near")
    assert "(2026-11-18, $44.00 beyond what is usual) set aside" in finding.sentence
    assert finding.action.endswith(
        "The limit is twice a usual month already: find out what is unusual before anybody raises it."
    )


def test_a_scope_wider_than_use_is_found_with_the_one_that_would_do(scene: Scene) -> None:
    """Five models, one or two of them called: one is found; a refused call for money names a model that is wanted."""
    one, two, wanted, young = (scene.key(name, age=30 * DAY) for name in ("one", "two", "wanted", "young"))
    for key in (one, two, wanted, young):
        scene.call(key, NOW - 29 * DAY, model="gpt-test")
    scene.call(two, NOW - DAY, model="claude-test", dialect="anthropic")
    scene.refuse(wanted, NOW - DAY, RefusalType.BILLING_SHORTFALL, model="claude-test")
    scene.refuse(one, NOW - DAY, RefusalType.MODEL_NOT_ALLOWED, model="other-test")
    scene.change(young, created_at=NOW - 30 * DAY + TICK)
    narrow = scene.key("narrow", models=["gpt-test", "claude-test"])
    scene.call(narrow, NOW - DAY)
    (finding,) = scene.found("key-scope-wide")
    assert (finding.subject, finding.severity, finding.since) == ("one", Severity.LOW, NOW - 30 * DAY)
    assert finding.evidence == {
        "models_allowed": ["claude-test", "embed-test", "gemini-embed-test", "gemini-test", "gpt-test"],
        "models_used": ["gpt-test"],
    }
    assert finding.action == "Narrow its scope: `keydesk keys update one --models gpt-test`."
    assert set(scene.subjects("key-scope-wide", scope_times=2)) == {"one", "narrow", "two", "wanted"}


def test_models_that_others_own_accounts_serve_are_not_in_a_scope(scene: Scene) -> None:
    """Neither counted nor named, though the plan has them."""
    key = scene.key("app", age=30 * DAY)
    scene.call(key, NOW - DAY, model="gpt-test")
    with scene.workspace.write() as tx:
        organisations.add(tx, "Other")
        add_upstream(tx, "other-own", Dialect.OPENAI, "http://127.0.0.1:9", "OTHER_API_KEY", org="Other")
        update_model(tx, "embed-test", upstream="other-own")
    (finding,) = scene.found("key-scope-wide", scope_times=2)
    assert finding.evidence["models_allowed"] == ["claude-test", "gemini-embed-test", "gemini-test", "gpt-test"]


def test_models_called_long_ago_are_not_in_use(scene: Scene) -> None:
    """What was last called 91 days ago may leave the scope, whether the ledger has it or the outbox."""
    key = scene.key("app", age=120 * DAY)
    scene.call(key, NOW - 91 * DAY, model="claude-test")
    scene.call(key, NOW - 89 * DAY, model="gpt-test")
    for _ in range(2):
        assert scene.found("key-scope-wide")[0].evidence["models_used"] == ["gpt-test"]
        scene.workspace.ledger.sync()


def test_a_secret_that_was_not_rotated_for_90_days_is_found(scene: Scene) -> None:
    """The present secret's age counts: a rotation makes an old key young, an update does not."""
    old, rotated = scene.key("old", age=90 * DAY), scene.key("rotated", age=120 * DAY)
    scene.key("young", age=90 * DAY - TICK)
    with scene.acting(NOW - 10 * DAY) as tx:
        keys.rotate(tx, scene.workspace.keyring, rotated.key.id, confirm="rotated")
        keys.update(tx, old.key.id, monthly_limit=usd(5))
    (finding,) = scene.found("key-not-rotated")
    assert (finding.subject, finding.since) == ("old", NOW)
    assert finding.evidence == {"secret_created_at": NOW - 90 * DAY}


def test_secrets_that_become_too_old_soon_are_counted(scene: Scene) -> None:
    """From 76 days on and below 90; the first one first; a key that admits nothing needs no rotation."""
    for name, age in (("late", 76 * DAY), ("soon", 89 * DAY), ("old", 90 * DAY), ("young", 76 * DAY - TICK)):
        scene.key(name, age=age)
    disabled = scene.key("disabled", age=80 * DAY)
    with scene.acting(NOW - DAY) as tx:
        keys.disable(tx, disabled.key.id, confirm="disabled")
    due = scene.report().due_soon
    assert [(one.key, one.org, one.at) for one in due] == [
        ("soon", "Acme", NOW + DAY),
        ("late", "Acme", NOW + 14 * DAY),
    ]
    assert [one.key for one in scene.report(rotation_soon=13).due_soon] == ["soon"]


def test_an_expired_key_that_is_still_there_is_found(scene: Scene) -> None:
    """Expiry at this very moment counts; a disabled or deleted key does not. One that is still called is graver."""
    expiry = NOW - 2 * DAY
    for name in ("quiet", "called", "disabled", "deleted"):
        scene.key(name, expires_at=expiry)
    scene.key("now", expires_at=NOW)
    scene.key("later", expires_at=NOW + TICK)
    with scene.acting(expiry - HOUR) as tx:
        keys.disable(tx, keys.find(tx, "disabled").id, confirm="disabled")
        keys.delete(tx, keys.find(tx, "deleted").id, confirm="deleted")
        called = keys.find(tx, "called")
    refused_at = expiry + 90 * MINUTE
    scene.refuse(_with_secret(scene, called.id), refused_at, RefusalType.UNAUTHORIZED)
    found = {finding.subject: finding for finding in scene.found("key-expired")}
    assert {name: finding.severity for name, finding in found.items()} == {
        "quiet": Severity.LOW,
        "now": Severity.LOW,
        "called": Severity.MEDIUM,
    }
    assert found["quiet"].evidence == {"expires_at": expiry, "last_refused_at": None}
    assert found["called"].evidence == {"expires_at": expiry, "last_refused_at": refused_at}
    assert found["called"].sentence.endswith("Somebody was refused with it as late as 2026-11-21 13:30 UTC.")


def _with_secret(scene: Scene, key_id: str) -> keys.NewSecret:
    """Return a key with a fresh secret, which the tests can call with."""
    with scene.acting(NOW - 40 * DAY) as tx:
        return keys.rotate(tx, scene.workspace.keyring, key_id, confirm="called")


def test_a_secret_in_a_url_is_found_until_it_is_rotated(scene: Scene) -> None:
    """Grave while the key is live; gone with the secret; first and last sighting are given."""
    key = scene.key("app")
    digests = [digest.value for digest in scene.workspace.keyring.digests(key.secret)]
    for at in (NOW - 5 * DAY, NOW - HOUR):
        with scene.workspace.store.write(SYSTEM, at) as tx:
            secret_lookup.note_in_url(tx, digests)
            secret_lookup.note_in_url(tx, ["0" * 64])
    (finding,) = scene.found("key-secret-in-url")
    assert (finding.subject, finding.severity, finding.since) == ("app", Severity.HIGH, NOW - 5 * DAY)
    assert finding.evidence == {"first_at": NOW - 5 * DAY, "last_at": NOW - HOUR}
    assert finding.action.endswith("`keydesk keys rotate app`, for what stands in logs stays there.")
    with scene.acting(NOW - MINUTE) as tx:
        keys.disable(tx, key.key.id, confirm="app")
    assert [finding.severity for finding in scene.found("key-secret-in-url")] == [Severity.LOW]
    with scene.acting(NOW - MINUTE) as tx:
        keys.rotate(tx, scene.workspace.keyring, key.key.id, confirm="app")
    assert scene.found("key-secret-in-url") == []


def test_who_still_uses_an_old_secret_is_found(scene: Scene) -> None:
    """Why and by whom it was retired, how often and where it was refused since; a use of 31 days ago is forgotten."""
    used, unused, forgotten, gone = (scene.key(name) for name in ("used", "unused", "forgotten", "gone"))
    scene.refuse(used, NOW - 41 * DAY, RefusalType.UNAUTHORIZED, endpoint="embeddings")  # before the rotation
    scene.refuse(used, NOW - DAY, RefusalType.UNAUTHORIZED)
    with scene.acting(NOW - 40 * DAY, "eve@acme.example") as tx:
        for key in (used, unused, forgotten):
            keys.rotate(tx, scene.workspace.keyring, key.key.id, confirm=key.key.name, reason="Seen in a log.")
        keys.delete(tx, gone.key.id, confirm="gone")
    for key, at in ((used, NOW - 3 * DAY), (used, NOW - DAY), (forgotten, NOW - 31 * DAY), (gone, NOW - 2 * DAY)):
        with scene.workspace.store.write(SYSTEM, at) as tx:
            secret_lookup.note_retired(
                tx, {digest.value: Counted(1, tx.now) for digest in scene.workspace.keyring.digests(key.secret)}
            )
    found = {finding.subject: finding for finding in scene.found("key-old-secret-used")}
    assert set(found) == {"used", "gone (deleted)"}
    assert found["used"].since == NOW - 40 * DAY
    assert found["used"].evidence == {
        "display": used.key.display,
        "retired_at": NOW - 40 * DAY,
        "retired_by": "eve@acme.example",
        "reason": "Seen in a log.",
        "uses": 2,
        "last_used_at": NOW - DAY,
        "endpoints": ["chat/completions (openai)"],
    }
    assert "rotated away at 2026-10-14 12:00 UTC by eve@acme.example (“Seen in a log.”), was refused 2 times since" in (
        found["used"].sentence
    )
    assert "give it the new secret" in found["used"].action
    assert "give it another key" in found["gone (deleted)"].action
    assert used.secret not in str(found)


def test_a_suspended_organisations_keys_are_no_risk(scene: Scene) -> None:
    """Keys that admit nothing, for whatever reason, are not found for what only live keys are found for."""
    scene.key("app", age=100 * DAY)
    disabled = scene.key("disabled", age=100 * DAY)
    with scene.acting(NOW - DAY) as tx:
        keys.disable(tx, disabled.key.id, confirm="disabled")
    checks = {"key-never-used", "key-no-limit", "key-not-rotated"}
    of_keys = [finding for finding in scene.report().findings if finding.check in checks]
    assert {(finding.check, finding.subject) for finding in of_keys} == {(check, "app") for check in checks}
    with scene.workspace.write() as tx:
        organisations.find(tx, "Acme").suspended = True
    assert not [finding for finding in scene.report().findings if finding.check in checks]


def test_commands_name_the_key_without_doubt(scene: Scene) -> None:
    """By name where one key has it, quoted for a shell; by id where several have, or where it looks like an option."""
    with scene.acting(BEGINNING) as tx:
        other = organisations.add(tx, "Other").id
        plan = plans.add(tx, "cheap", MILLION, ["gpt-test"]).id
    names = ["my app; rm", "twin", "-f"]
    made = {name: scene.key(name).key for name in names}
    with scene.acting(NOW - 20 * DAY) as tx:
        twin = keys.create(tx, scene.workspace.keyring, org=other, name="twin", plan=plan).key
    commands = {finding.subject_id: finding.action.split("`")[1] for finding in scene.found("key-never-used")}
    assert commands == {
        made["my app; rm"].id: "keydesk keys delete 'my app; rm'",
        made["twin"].id: f"keydesk keys delete {made['twin'].id}",
        made["-f"].id: f"keydesk keys delete {made['-f'].id}",
        twin.id: f"keydesk keys delete {twin.id}",
    }


@given(st.integers(0, 10**19))
def test_a_roomy_amount_is_round_and_not_below(amount: int) -> None:
    """It has two leading digits at most, is not below the amount, and at most a tenth above it."""
    limit = roomy(amount)
    assert amount <= limit <= amount + max(amount // 10, 0)
    assert len(str(limit).rstrip("0")) <= 2
