"""The life of an API key, and who may change it."""

import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import event, select

from tests.conftest import World, at_once, usd
from toolkit.admin import key_options, keys, organisations, plans
from toolkit.admin.key_summaries import summaries
from toolkit.admin.keys import NewSecret
from toolkit.core.errors import Conflict, Forbidden, InvalidInput, NotConfirmed, NotFound
from toolkit.core.hosted_tools import HostedTools
from toolkit.core.money import LARGEST_AMOUNT
from toolkit.core.policy import HoldPolicy, KeyStatus, Role
from toolkit.core.pricing import MILLION
from toolkit.core.secrets import Keyring, is_well_formed
from toolkit.store import audit
from toolkit.store.actor import Actor
from toolkit.store.tables import ApiKey, AuditRow, KeyMonth, LiveSecret, RetiredSecret
from toolkit.store.transaction import Transaction, utc_now

pytestmark = pytest.mark.any_store


def acts(world: World, subject: str) -> list[AuditRow]:
    """Return the audit rows of a key, oldest first."""
    with world.workspace.read() as tx:
        return audit.rows(tx, subject=subject)[::-1]


def key_of(world: World, key_id: str) -> ApiKey:
    """Return the key as the store holds it."""
    with world.workspace.read() as tx:
        found = tx.session.get(ApiKey, key_id)
        assert found is not None
        return found


def digests(world: World, key_id: str) -> tuple[list[str], list[str]]:
    """Return a key's live and retired digests."""
    with world.workspace.read() as tx:
        live = tx.session.scalars(select(LiveSecret.digest).where(LiveSecret.key_id == key_id)).all()
        retired = tx.session.scalars(select(RetiredSecret.digest).where(RetiredSecret.key_id == key_id)).all()
        return list(live), list(retired)


def as_actor(world: World, role: Role, org_id: str | None, name: str = "somebody@example.com") -> World:
    """Return the same world acted on by somebody else."""
    return replace(world, workspace=world.workspace.acting_as(Actor(name, role, org_id)))


def other_org(world: World, name: str = "Rival") -> str:
    """Add another organisation and return its id."""
    with world.workspace.write() as tx:
        return organisations.add(tx, name).id


# -- create -------------------------------------------------------------------------------------------------------


def test_a_created_key_has_what_was_given(world: World) -> None:
    """Every option is stored, and the version starts at 1."""
    expiry = utc_now() + timedelta(days=30)
    new = world.key(
        "  app  ",
        models=["gpt-test", "claude-test", "gpt-test"],
        monthly_limit=usd(12.5),
        expires_at=expiry,
        hold_policy=HoldPolicy.EXPECTED,
    )
    key = key_of(world, new.key.id)
    assert (key.name, key.status, key.version) == ("app", KeyStatus.ACTIVE, 1)
    assert json.loads(key.scope) == ["claude-test", "gpt-test"]
    assert (key.monthly_limit, key.expires_at, key.hold_policy) == (usd(12.5), expiry, "expected")
    assert key.created_by == "admin@keydesk.local"


def test_the_secret_is_returned_once_and_stored_as_a_digest(world: World) -> None:
    """Create gives a well-formed secret; the store holds its digest and a display form."""
    new = world.key()
    assert is_well_formed(new.secret)
    assert digests(world, new.key.id) == ([world.workspace.keyring.digest(new.secret).value], [])
    assert key_of(world, new.key.id).display == f"{new.secret[:7]}…{new.secret[-4:]}"


def test_the_secret_is_in_no_repr_no_audit_row_and_no_file(world: World) -> None:
    """After create and rotate neither secret is found in a repr, the audit log or any file of the store."""
    new = world.key()
    with world.workspace.write() as tx:
        turned = keys.rotate(tx, world.workspace.keyring, new.key.id, confirm="app", reason="leaked")
    for secret in (new.secret, turned.secret):
        assert secret not in repr(new) + repr(turned) + str(turned) + repr(turned.key)
        assert all(secret not in repr(vars(row)) for row in acts(world, new.key.id))
        for path in world.workspace.settings.data_dir.rglob("*"):
            assert secret.encode() not in path.read_bytes(), path


def test_two_secrets_of_one_key_compare_equal_only_by_key(world: World) -> None:
    """A secret takes no part in equality, so no comparison can tell it."""
    new = world.key()
    assert NewSecret(new.key, "sk-a") == NewSecret(new.key, "sk-b")


@pytest.mark.parametrize("name", ["", "   ", "x" * 81, "two\nlines", "nul\x00", "tab\tbed", "\u202egnirts", "\ud800"])
def test_a_name_that_cannot_be_shown_is_refused(world: World, name: str) -> None:
    """Empty, over-long, and names with invisible or control characters are refused."""
    with pytest.raises(InvalidInput):
        world.key(name)


@pytest.mark.parametrize(
    "name", ["x" * 80, "Ключ №1", "日本語", 'o\'Brien "quoted"; DROP TABLE api_key--', "%_\\", "🔑"]
)
def test_a_name_of_any_script_is_kept(world: World, name: str) -> None:
    """Printable names of all kinds are stored as given and found again."""
    new = world.key(name)
    with world.workspace.read() as tx:
        assert keys.find(tx, name).id == new.key.id
        assert [summary.key.name for summary in summaries(tx)] == [name]


def test_names_that_look_alike_are_alike(world: World) -> None:
    """The same letter, composed or not, makes the same name."""
    world.key("caf\u00e9")
    with pytest.raises(Conflict):
        world.key("cafe\u0301")


def test_a_name_is_unique_in_its_organisation_only(world: World) -> None:
    """Two live keys of one organisation differ in name; another organisation may use the same."""
    world.key("app")
    with pytest.raises(Conflict, match="already has an API key named 'app'"):
        world.key("app")
    org = other_org(world)
    with world.workspace.write() as tx:
        keys.create(tx, world.workspace.keyring, org=org, name="app", plan=world.plan_id)


def test_a_deleted_keys_name_is_free_again(world: World) -> None:
    """A tombstone does not keep its name from a new key, nor from a renamed one."""
    first = world.key("app")
    with world.workspace.write() as tx:
        keys.delete(tx, first.key.id, confirm="app")
    second = world.key("app")
    third = world.key("other")
    with world.workspace.write() as tx:
        keys.delete(tx, second.key.id, confirm="app")
        keys.update(tx, third.key.id, name="app")
    with world.workspace.read() as tx:
        assert keys.find(tx, "app").id == third.key.id
        assert keys.find(tx, first.key.id).status == KeyStatus.DELETED
        names = [(summary.key.id, summary.key.name) for summary in summaries(tx, deleted=True)]
    assert sorted(names) == sorted((id_, "app") for id_ in (first.key.id, second.key.id, third.key.id))


@pytest.mark.parametrize("limit", [-1, LARGEST_AMOUNT + 1, 10**30, 1.5, True, "5"])
def test_a_limit_that_is_no_amount_is_refused(world: World, limit: Any) -> None:
    """A monthly limit is a non-negative integer of nano-USD that the store can keep."""
    with pytest.raises(InvalidInput):
        world.key(monthly_limit=limit)


def test_a_limit_of_zero_is_not_no_limit(world: World) -> None:
    """0 allows nothing paid and is kept apart from none."""
    assert key_of(world, world.key("zero", monthly_limit=0).key.id).monthly_limit == 0
    assert key_of(world, world.key("none").key.id).monthly_limit is None
    assert key_of(world, world.key("most", monthly_limit=LARGEST_AMOUNT).key.id).monthly_limit == LARGEST_AMOUNT


def test_an_expiry_is_kept_in_utc(world: World) -> None:
    """A moment given in another zone is the same moment, stored and shown in UTC."""
    zone = timezone(timedelta(hours=5, minutes=30))
    expiry = datetime(2101, 1, 1, 5, 30, tzinfo=zone)
    new = world.key(expires_at=expiry)
    assert key_of(world, new.key.id).expires_at == datetime(2101, 1, 1, tzinfo=UTC)
    assert json.loads(acts(world, new.key.id)[0].after or "")["expires_at"] == "2101-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    "expiry",
    [
        datetime(2101, 1, 1),  # noqa: DTZ001 - the very mistake
        datetime(2001, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, tzinfo=timezone(-timedelta(hours=1))),
    ],
)
def test_an_expiry_that_cannot_be_is_refused(world: World, expiry: datetime) -> None:
    """A naive, past or unrepresentable expiry is refused."""
    with pytest.raises(InvalidInput):
        world.key(expires_at=expiry)


def test_a_scope_outside_the_plan_is_refused(world: World) -> None:
    """The refusal names the model that the plan lacks and those that it has."""
    with pytest.raises(InvalidInput, match=r"does not include other-test\. Its models are: claude-test"):
        world.key(models=["gpt-test", "other-test"])


def test_a_hold_policy_that_does_not_exist_is_refused(world: World) -> None:
    """A word that no gateway could read never reaches the store; the plain word of a real one does."""
    with pytest.raises(InvalidInput, match="strict or expected"):
        world.key(hold_policy="loose")
    assert key_of(world, world.key(hold_policy="expected").key.id).hold_policy == "expected"


def test_hosted_tools_are_left_out_or_refused(world: World) -> None:
    """A key says which, and the audit log tells; they cannot be allowed, since they have no price."""
    key = world.key().key
    assert key_of(world, key.id).hosted_tools == HostedTools.LEAVE_OUT
    with world.workspace.write() as tx:
        keys.update(tx, key.id, hosted_tools=HostedTools.REFUSE)
        assert '"hosted_tools": "refuse"' in str(audit.rows(tx, subject=key.id)[0].after)
    assert key_of(world, key.id).hosted_tools == HostedTools.REFUSE
    with pytest.raises(InvalidInput, match="no price in the price book"):
        world.key("other", hosted_tools=HostedTools.ALLOW)
    with world.workspace.write() as tx, pytest.raises(InvalidInput, match="leave_out or refuse"):
        keys.update(tx, key.id, hosted_tools="maybe")  # type: ignore[arg-type]
    assert key_of(world, world.key("other", hosted_tools="refuse").key.id).hosted_tools == HostedTools.REFUSE


def test_unknown_organisations_and_plans_are_not_found(world: World) -> None:
    """The message names what is missing."""
    with world.workspace.write() as tx, pytest.raises(NotFound, match="No organisation is named 'Nobody'"):
        keys.create(tx, world.workspace.keyring, org="Nobody", name="app", plan=world.plan_id)
    with world.workspace.write() as tx, pytest.raises(NotFound, match="no plan named 'gold'"):
        keys.create(tx, world.workspace.keyring, org=world.org_id, name="app", plan="gold")


# -- update -------------------------------------------------------------------------------------------------------


def test_an_update_changes_what_is_given_and_nothing_else(world: World) -> None:
    """The other options stay, the version rises, and the audit row holds before and after."""
    new = world.key(monthly_limit=usd(5), models=["gpt-test"])
    with world.workspace.write() as tx:
        keys.update(tx, new.key.id, monthly_limit=None, reason="they pay more")
    key = key_of(world, new.key.id)
    assert (key.monthly_limit, json.loads(key.scope), key.version) == (None, ["gpt-test"], 2)
    act = acts(world, new.key.id)[-1]
    assert (act.action, act.reason) == ("key.update", "they pay more")
    assert json.loads(act.before or "")["monthly_limit_usd"] == "5"
    assert json.loads(act.after or "")["monthly_limit_usd"] is None


def test_an_update_that_changes_nothing_leaves_no_trace(world: World) -> None:
    """The version stays, so no call in flight is judged anew; there is no audit row."""
    expiry = utc_now() + timedelta(days=3)
    new = world.key(monthly_limit=usd(5), expires_at=expiry)
    zone = timezone(timedelta(hours=2))
    with world.workspace.write() as tx:
        keys.update(tx, new.key.id, name="app", monthly_limit=usd(5), models=[], expires_at=expiry.astimezone(zone))
    assert key_of(world, new.key.id).version == 1
    assert [act.action for act in acts(world, new.key.id)] == ["key.create"]


def test_an_update_may_widen_narrow_and_clear_the_scope(world: World) -> None:
    """An empty list allows all models of the plan again."""
    new = world.key()
    for models in (["gpt-test"], ["claude-test", "gpt-test"], []):
        with world.workspace.write() as tx:
            keys.update(tx, new.key.id, models=models)
        assert json.loads(key_of(world, new.key.id).scope) == models


def test_a_plan_that_lacks_the_scope_needs_a_new_scope(world: World) -> None:
    """A key cannot end up with a scope that its plan does not include."""
    new = world.key(models=["gpt-test"])
    with world.workspace.write() as tx:
        plans.add(tx, "claude only", MILLION, ["claude-test"])
    with world.workspace.write() as tx, pytest.raises(InvalidInput):
        keys.update(tx, new.key.id, plan="claude only")
    with world.workspace.write() as tx:
        keys.update(tx, new.key.id, plan="claude only", models=[])
    assert json.loads(acts(world, new.key.id)[-1].after or "")["plan"] == "claude only"


def test_a_failed_update_changes_nothing(world: World) -> None:
    """An option that is refused takes the others of the same call back with it."""
    new = world.key()
    with pytest.raises(InvalidInput), world.workspace.write() as tx:
        keys.update(tx, new.key.id, name="renamed", monthly_limit=-1)
    key = key_of(world, new.key.id)
    assert (key.name, key.version) == ("app", 1)
    assert len(acts(world, new.key.id)) == 1


def test_an_expired_key_can_still_be_updated(world: World) -> None:
    """An expiry that has passed since is not in the way of other options."""
    new = world.key(expires_at=utc_now() + timedelta(days=1))
    with world.workspace.store.write(world.workspace.actor, utc_now() + timedelta(days=2)) as tx:
        keys.update(tx, new.key.id, monthly_limit=usd(1))
        keys.update(tx, new.key.id, expires_at=None)
    assert key_of(world, new.key.id).expires_at is None


# -- rotate, disable, enable, delete ------------------------------------------------------------------------------


def test_rotate_replaces_the_secret_and_keeps_the_rest(world: World) -> None:
    """The old digest admits no longer; id, options and name stay."""
    new = world.key(monthly_limit=usd(5))
    with world.workspace.write() as tx:
        turned = keys.rotate(tx, world.workspace.keyring, new.key.id, confirm="app", reason="leaked")
    old, fresh = (world.workspace.keyring.digest(secret).value for secret in (new.secret, turned.secret))
    assert digests(world, new.key.id) == ([fresh], [old])
    key = key_of(world, new.key.id)
    assert (key.name, key.monthly_limit, key.version, key.status) == ("app", usd(5), 2, KeyStatus.ACTIVE)
    assert key.rotated_at is not None
    assert acts(world, new.key.id)[-1].action == "key.rotate"


@pytest.mark.both_stores
def test_two_rotations_at_once_leave_one_live_secret(world: World) -> None:
    """They happen one after the other: each returns a secret, and only the later one admits."""
    new = world.key()
    secrets: list[str] = []

    def rotate() -> None:
        with world.workspace.write() as tx:
            secrets.append(keys.rotate(tx, world.workspace.keyring, new.key.id, confirm="app").secret)

    threads = [threading.Thread(target=rotate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    live, retired = digests(world, new.key.id)
    made = {world.workspace.keyring.digest(secret).value for secret in [new.secret, *secrets]}
    assert len(live) == 1
    assert {*live, *retired} == made
    assert len(made) == 5
    assert key_of(world, new.key.id).version == 5


def test_disable_and_enable_are_reversible(world: World) -> None:
    """A disabled key keeps its digest; doing the same again is a conflict."""
    new = world.key()
    with world.workspace.write() as tx:
        assert keys.disable(tx, new.key.id, confirm="app").status == KeyStatus.DISABLED
    with world.workspace.write() as tx, pytest.raises(Conflict, match="already disabled"):
        keys.disable(tx, new.key.id, confirm="app")
    with world.workspace.write() as tx:
        assert keys.enable(tx, new.key.id, confirm="app").status == KeyStatus.ACTIVE
    with world.workspace.write() as tx, pytest.raises(Conflict, match="already active"):
        keys.enable(tx, new.key.id, confirm="app")
    assert [act.action for act in acts(world, new.key.id)] == ["key.create", "key.disable", "key.enable"]
    assert len(digests(world, new.key.id)[0]) == 1


def test_a_rotated_disabled_key_stays_disabled(world: World) -> None:
    """A new secret does not enable a key."""
    new = world.key()
    with world.workspace.write() as tx:
        keys.disable(tx, new.key.id, confirm="app")
        keys.rotate(tx, world.workspace.keyring, new.key.id, confirm="app")
    assert key_of(world, new.key.id).status == KeyStatus.DISABLED


def test_delete_leaves_a_tombstone(world: World) -> None:
    """The digest leaves the live table; the row stays and names its history."""
    new = world.key()
    with world.workspace.write() as tx:
        keys.delete(tx, new.key.id, confirm="app", reason="done")
    key = key_of(world, new.key.id)
    assert (key.status, key.name) == (KeyStatus.DELETED, "app")
    assert key.deleted_at is not None
    assert digests(world, new.key.id) == ([], [world.workspace.keyring.digest(new.secret).value])
    with world.workspace.read() as tx:
        assert summaries(tx) == []
        assert [summary.key.id for summary in summaries(tx, deleted=True)] == [new.key.id]


def test_nothing_happens_to_a_deleted_key(world: World) -> None:
    """Deletion is final: every verb after it is a conflict."""
    key_id = world.key().key.id
    with world.workspace.write() as tx:
        keys.delete(tx, key_id, confirm="app")
    for verb in VERBS.values():
        with world.workspace.write() as tx, pytest.raises(Conflict, match="deleted"):
            verb(world, tx, key_id, "app")


VERBS: dict[str, Callable[[World, Transaction, str, str], object]] = {
    "rotate": lambda world, tx, key_id, name: keys.rotate(tx, world.workspace.keyring, key_id, confirm=name),
    "disable": lambda _world, tx, key_id, name: keys.disable(tx, key_id, confirm=name),
    "enable": lambda _world, tx, key_id, name: keys.enable(tx, key_id, confirm=name),
    "delete": lambda _world, tx, key_id, name: keys.delete(tx, key_id, confirm=name),
}


@pytest.mark.parametrize("confirm", ["", "App", "app "])
@pytest.mark.parametrize("verb", VERBS)
def test_dangerous_verbs_need_the_keys_name(world: World, verb: str, confirm: str) -> None:
    """Anything but the exact name changes nothing."""
    new = world.key()
    with world.workspace.write() as tx, pytest.raises(NotConfirmed, match="Nothing was changed"):
        VERBS[verb](world, tx, new.key.id, confirm)
    assert key_of(world, new.key.id).version == 1
    assert len(acts(world, new.key.id)) == 1


def test_the_id_does_not_confirm(world: World) -> None:
    """What is typed is the name that a person reads, not the id that a script has."""
    new = world.key()
    with world.workspace.write() as tx, pytest.raises(NotConfirmed):
        keys.delete(tx, new.key.id, confirm=new.key.id)


def test_change_and_audit_row_commit_together(world: World) -> None:
    """If the transaction fails after a verb, neither the change nor its audit row is there."""
    new = world.key()
    for verb in ("rotate", "disable", "delete"):
        with contextlib.suppress(RuntimeError), world.workspace.write() as tx:
            VERBS[verb](world, tx, new.key.id, "app")
            raise RuntimeError("the process dies")
    assert key_of(world, new.key.id).version == 1
    assert [act.action for act in acts(world, new.key.id)] == ["key.create"]
    assert digests(world, new.key.id)[1] == []


def test_every_verb_names_its_actor_in_the_organisations_chain(world: World) -> None:
    """Who did it stands in each audit row, in the chain of the key's organisation."""
    key_id = world.key().key.id
    org_admin = as_actor(world, Role.ORG_ADMIN, world.org_id, "ada@acme.example")
    for verb in ("rotate", "disable", "enable", "delete"):
        with org_admin.workspace.write() as tx:
            VERBS[verb](world, tx, key_id, "app")
    found = acts(world, key_id)
    assert [act.action for act in found] == ["key.create", "key.rotate", "key.disable", "key.enable", "key.delete"]
    assert {act.chain for act in found} == {world.org_id}
    assert [act.actor for act in found] == ["admin@keydesk.local"] + ["ada@acme.example"] * 4


# -- rights and tenancy -------------------------------------------------------------------------------------------


def test_an_analyst_may_look_and_not_change(world: World) -> None:
    """Of one organisation or of all, an analyst reads and is forbidden every verb."""
    key_id = world.key().key.id
    for org_id in (world.org_id, None):
        analyst = as_actor(world, Role.ANALYST, org_id)
        with analyst.workspace.read() as tx:
            assert keys.find(tx, "app").id == key_id
        for verb in VERBS.values():
            with analyst.workspace.write() as tx, pytest.raises(Forbidden):
                verb(world, tx, key_id, "app")
        with analyst.workspace.write() as tx, pytest.raises(Forbidden):
            keys.update(tx, key_id, monthly_limit=0)
        with pytest.raises(Forbidden):
            analyst.key("mine")


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_another_organisations_keys_do_not_exist(world: World, role: Role) -> None:
    """By id or name, for reading or changing, the answer is that of a key that is not there."""
    key_id = world.key().key.id
    rival = as_actor(world, role, other_org(world))
    with rival.workspace.read() as tx:
        for wanted in (key_id, "app"):
            with pytest.raises(NotFound) as caught:
                keys.find(tx, wanted)
            assert str(caught.value) == f"There is no API key {wanted!r}. `keydesk keys list` shows them."
        assert summaries(tx, deleted=True) == []
        for org in (world.org_id, "Acme"):
            with pytest.raises(NotFound):
                summaries(tx, org=org)
    for verb in VERBS.values():
        with rival.workspace.write() as tx, pytest.raises(NotFound, match="no API key"):
            verb(world, tx, key_id, "app")
    with rival.workspace.write() as tx, pytest.raises(NotFound, match="no API key"):
        keys.update(tx, key_id, name="mine")
    for org in (world.org_id, "Acme"):
        with rival.workspace.write() as tx, pytest.raises(NotFound):
            keys.create(tx, world.workspace.keyring, org=org, name="spy", plan=world.plan_id)


def test_an_org_admin_picks_only_among_assigned_plans(world: World) -> None:
    """A plan that no key of the organisation has is the platform's to give: at create and at update."""
    key_id = world.key().key.id
    with world.workspace.write() as tx:
        cheap = plans.add(tx, "cheap", 0, ["gpt-test"])
    org_admin = as_actor(world, Role.ORG_ADMIN, world.org_id)
    for plan in (cheap.id, "cheap"):
        with org_admin.workspace.write() as tx, pytest.raises(Forbidden):
            keys.update(tx, key_id, plan=plan)
        with org_admin.workspace.write() as tx, pytest.raises(Forbidden):
            keys.create(tx, world.workspace.keyring, org=world.org_id, name="free", plan=plan)
    with org_admin.workspace.write() as tx:
        keys.create(tx, world.workspace.keyring, org="Acme", name="second", plan="standard")
    with world.workspace.write() as tx:
        keys.create(tx, world.workspace.keyring, org="Acme", name="first on cheap", plan="cheap")
    with org_admin.workspace.write() as tx:
        assert keys.update(tx, key_id, plan="cheap").plan_id == cheap.id


def test_a_deleted_key_assigns_no_plan(world: World) -> None:
    """An organisation cannot go back to a plan that only a deleted key of it had."""
    key = world.key().key
    with world.workspace.write() as tx:
        keys.delete(tx, key.id, confirm=key.name)
        assert key_options.assigned_plans(tx, world.org_id) == set()


def test_another_organisations_plan_is_not_assigned_by_it(world: World) -> None:
    """A rival's keys assign no plan to this organisation."""
    rival = other_org(world)
    with world.workspace.write() as tx:
        plans.add(tx, "rival's", MILLION, ["gpt-test"])
        keys.create(tx, world.workspace.keyring, org=rival, name="app", plan="rival's")
        assert key_options.assigned_plans(tx, world.org_id) == set()
    with pytest.raises(Forbidden), as_actor(world, Role.ORG_ADMIN, world.org_id).workspace.write() as tx:
        keys.create(tx, world.workspace.keyring, org=world.org_id, name="app", plan="rival's")


def test_a_plan_named_like_anothers_id_does_not_shadow_it(world: World) -> None:
    """An id always means the thing that has it, whatever others are named."""
    with world.workspace.write() as tx:
        plans.add(tx, world.plan_id, 0, ["gpt-test"])
    assert key_of(world, world.key().key.id).plan_id == world.plan_id


# -- look up and list ---------------------------------------------------------------------------------------------


def test_a_key_named_like_anothers_id_does_not_shadow_it(world: World) -> None:
    """An id finds the key that has it, even if a second key bears it as a name."""
    first = world.key("app")
    second = world.key(first.key.id)
    with world.workspace.read() as tx:
        assert keys.find(tx, first.key.id).id == first.key.id
        assert keys.find(tx, second.key.id).id == second.key.id


def test_an_ambiguous_name_asks_for_an_id(world: World) -> None:
    """A name that two organisations use names both ids; an org admin finds its own."""
    first = world.key("app")
    org = other_org(world)
    with world.workspace.write() as tx:
        second = keys.create(tx, world.workspace.keyring, org=org, name="app", plan=world.plan_id)
    with world.workspace.read() as tx, pytest.raises(Conflict) as caught:
        keys.find(tx, "app")
    assert first.key.id in str(caught.value)
    assert second.key.id in str(caught.value)
    with as_actor(world, Role.ORG_ADMIN, org).workspace.read() as tx:
        assert keys.find(tx, "app").id == second.key.id


def test_a_deleted_key_is_found_by_name_while_no_live_one_has_it(world: World) -> None:
    """History stays reachable by the name that people know."""
    first = world.key("app")
    with world.workspace.write() as tx:
        keys.delete(tx, first.key.id, confirm="app")
    with world.workspace.read() as tx:
        assert keys.find(tx, "app").id == first.key.id
    second = world.key("app")
    with world.workspace.read() as tx:
        assert keys.find(tx, "app").id == second.key.id


def test_summaries_are_sorted_and_start_at_zero(world: World) -> None:
    """By organisation and name; a key that was never used has zero totals."""
    other = other_org(world, "Aaa")
    for name in ("beta", "alpha"):
        world.key(name)
    with world.workspace.write() as tx:
        keys.create(tx, world.workspace.keyring, org=other, name="zeta", plan=world.plan_id)
    with world.workspace.read() as tx:
        found = summaries(tx)
        only = summaries(tx, org="Acme")
    assert [(one.org_name, one.key.name) for one in found] == [("Aaa", "zeta"), ("Acme", "alpha"), ("Acme", "beta")]
    assert [one.key.name for one in only] == ["alpha", "beta"]
    first = found[0]
    assert (first.calls, first.spent, first.held, first.last_used_at, first.old_secret_uses) == (0, 0, 0, None, 0)
    assert (first.plan_name, first.month) == ("standard", f"{utc_now():%Y-%m}")


def test_summaries_of_an_organisation_read_nothing_of_others(world: World) -> None:
    """What one organisation's page costs does not grow with the other tenants' keys."""
    mine, other = world.key("mine").key, other_org(world, "Other")
    with world.workspace.write() as tx:
        theirs = keys.create(tx, world.workspace.keyring, org=other, name="theirs", plan=world.plan_id).key
        for key in (mine, theirs):
            tx.session.add(
                KeyMonth(key_id=key.id, month=f"{tx.now:%Y-%m}", calls=1, spent=2, held=0, last_call_at=tx.now)
            )
    loaded: list[str] = []

    def note(total: KeyMonth, _context: object) -> None:
        loaded.append(total.key_id)

    event.listen(KeyMonth, "load", note)
    try:
        with world.workspace.read() as tx:
            (found,) = summaries(tx, org="Acme")
    finally:
        event.remove(KeyMonth, "load", note)
    assert (found.calls, found.spent) == (1, 2)
    assert loaded == [mine.id]


def test_describe_holds_plain_values_for_people(world: World) -> None:
    """Money as decimal USD, moments as ISO 8601; everything is JSON."""
    new = world.key(monthly_limit=usd(0.5), models=["gpt-test"])
    with world.workspace.read() as tx:
        facts = keys.describe(tx, new.key)
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["monthly_limit_usd"], facts["plan"], facts["models"], facts["policy"], facts["status"]) == (
        "0.5",
        "standard",
        ["gpt-test"],
        "strict",
        "active",
    )
    assert new.secret not in json.dumps(facts)


def test_a_key_under_a_strange_pepper_is_not_made(world: World) -> None:
    """A process with another pepper than the gateway's is told so, instead of handing out a secret that is dead."""
    key = world.key().key
    strange = Keyring([b"x" * 32])
    with pytest.raises(Conflict, match="KEYDESK_PEPPER"), world.workspace.write() as tx:
        keys.create(tx, strange, org=world.org_id, name="second", plan=world.plan_id)
    with pytest.raises(Conflict, match="KEYDESK_PEPPER"), world.workspace.write() as tx:
        keys.rotate(tx, strange, key.id, confirm=key.name)
    assert key_of(world, key.id).version == key.version


# -- at once ------------------------------------------------------------------------------------------------------


@pytest.mark.both_stores
def test_a_name_that_many_keys_take_at_once_is_taken_once(world: World) -> None:
    """One key gets it; the others are told to choose another name."""
    results = at_once(*[partial(world.key, "app")] * 6)
    assert sum(isinstance(result, NewSecret) for result in results) == 1
    assert {type(result) for result in results if not isinstance(result, NewSecret)} == {Conflict}


@pytest.mark.both_stores
def test_changes_of_a_key_at_once_happen_one_after_the_other(world: World) -> None:
    """Each is in the audit log with what the one before it had made, and one secret lives."""
    key_id = world.key("app").key.id

    def rotate() -> None:
        with world.workspace.write() as tx:
            keys.rotate(tx, world.workspace.keyring, key_id, confirm="app")

    def limit(dollars: int) -> None:
        with world.workspace.write() as tx:
            keys.update(tx, key_id, monthly_limit=usd(dollars))

    assert at_once(*[rotate] * 4, *[partial(limit, dollars) for dollars in (1, 2, 3, 4)]) == [None] * 8
    live, retired = digests(world, key_id)
    assert (len(live), len(retired)) == (1, 4)
    changes = [(json.loads(act.before or "{}"), json.loads(act.after or "{}")) for act in acts(world, key_id)]
    assert [after["version"] for _, after in changes] == list(range(1, 10))
    assert all(later[0] == earlier[1] for earlier, later in pairwise(changes))
