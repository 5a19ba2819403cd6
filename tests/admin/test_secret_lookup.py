"""Which key a secret admits: what a gateway asks when it first meets one."""

from datetime import timedelta

import pytest

from tests.conftest import World, usd
from toolkit.admin import keys, organisations, secret_lookup
from toolkit.core.policy import HoldPolicy, KeyFacts, KeyStatus
from toolkit.store.actor import SYSTEM
from toolkit.store.tables import LiveSecret, RetiredSecret
from toolkit.store.tally import Counted
from toolkit.store.transaction import utc_now

pytestmark = pytest.mark.any_store


def digests_of(world: World, secret: str) -> list[str]:
    """Return what a secret is looked up by."""
    return [digest.value for digest in world.workspace.keyring.digests(secret)]


def test_a_lookup_returns_the_facts_of_the_key(world: World) -> None:
    """A look-up by digest gives every fact that a call is judged by."""
    expiry = utc_now() + timedelta(days=3)
    new = world.key(models=["gpt-test"], monthly_limit=usd(7), expires_at=expiry, hold_policy=HoldPolicy.EXPECTED)
    with world.workspace.read() as tx:
        found = secret_lookup.find_live(tx, digests_of(world, new.secret))
    assert found == KeyFacts(
        key_id=new.key.id,
        org_id=world.org_id,
        plan_id=world.plan_id,
        version=1,
        status=KeyStatus.ACTIVE,
        org_suspended=False,
        scope=frozenset({"gpt-test"}),
        monthly_limit=usd(7),
        hold_policy=HoldPolicy.EXPECTED,
        expires_at=expiry,
    )


def test_a_lookup_shows_the_key_as_it_is_now(world: World) -> None:
    """An update, a disable and a suspension are facts of the very next look-up, under a higher version."""
    new = world.key()
    digests = digests_of(world, new.secret)
    with world.workspace.write() as tx:
        keys.update(tx, new.key.id, monthly_limit=usd(1))
        keys.disable(tx, new.key.id, confirm="app")
        organisations.find(tx, world.org_id).suspended = True
    with world.workspace.read() as tx:
        found = secret_lookup.find_live(tx, digests)
    assert found is not None
    assert (found.status, found.org_suspended, found.monthly_limit) == (KeyStatus.DISABLED, True, usd(1))
    assert found.version > 1
    assert not found.is_live(utc_now())


def test_a_lookup_of_an_unknown_digest_finds_nothing(world: World) -> None:
    """A digest that is not in the table of live secrets admits nothing; nor does none at all."""
    world.key()
    with world.workspace.read() as tx:
        assert secret_lookup.find_live(tx, ["0" * 64]) is None
        assert secret_lookup.find_live(tx, []) is None
        assert secret_lookup.find_retired(tx, ["0" * 64]) is None


def test_a_lookup_tries_every_digest(world: World) -> None:
    """A secret that was stored under an older pepper is still found."""
    new = world.key()
    with world.workspace.read() as tx:
        found = secret_lookup.find_live(tx, ["0" * 64, *digests_of(world, new.secret)])
    assert found is not None
    assert found.key_id == new.key.id


@pytest.mark.parametrize("verb", ["rotate", "delete"])
def test_a_retired_secret_admits_nothing_but_is_known(world: World, verb: str) -> None:
    """A rotated or deleted key's secret admits nothing; whose it was is found, for the request log."""
    new = world.key()
    digests = digests_of(world, new.secret)
    with world.workspace.write() as tx:
        if verb == "rotate":
            keys.rotate(tx, world.workspace.keyring, new.key.id, confirm="app")
        else:
            keys.delete(tx, new.key.id, confirm="app")
    with world.workspace.read() as tx:
        assert secret_lookup.find_live(tx, digests) is None
        found = secret_lookup.find_retired(tx, digests)
    assert found is not None
    assert found.key_id == new.key.id
    assert found.status is (KeyStatus.ACTIVE if verb == "rotate" else KeyStatus.DELETED)


def test_uses_of_a_retired_secret_are_counted(world: World) -> None:
    """Operators see how often, and when last, somebody still used it."""
    new = world.key()
    digests = digests_of(world, new.secret)
    with world.workspace.write() as tx:
        keys.rotate(tx, world.workspace.keyring, new.key.id, confirm="app")
    now = utc_now().replace(microsecond=5)
    for minutes in (0, 90, 30):  # another process may be late with its counts
        at = now + timedelta(minutes=minutes)
        with world.workspace.write() as tx:
            secret_lookup.note_retired(tx, {"0" * 64: Counted(1, at), digests[0]: Counted(3, at)})
    with world.workspace.read() as tx:
        retired = tx.session.query(RetiredSecret).one()
    assert (retired.uses, retired.last_used_at) == (9, now + timedelta(minutes=90))


def test_a_secret_in_a_url_is_noted_until_it_is_rotated(world: World) -> None:
    """When it was first and last seen there; the note is the secret's, so a rotated key begins without one."""
    new = world.key()
    other = world.key("other")
    now = utc_now().replace(microsecond=5)
    for minutes in (0, 90):
        with world.workspace.store.write(SYSTEM, now + timedelta(minutes=minutes)) as tx:
            secret_lookup.note_in_url(tx, ["0" * 64, *digests_of(world, new.secret)])

    def noted() -> dict[str, tuple[object, object]]:
        with world.workspace.read() as tx:
            return {live.key_id: (live.first_in_url_at, live.last_in_url_at) for live in tx.session.query(LiveSecret)}

    assert noted() == {new.key.id: (now, now + timedelta(minutes=90)), other.key.id: (None, None)}
    with world.workspace.write() as tx:
        keys.rotate(tx, world.workspace.keyring, new.key.id, confirm="app")
    with world.workspace.store.write(SYSTEM) as tx:
        secret_lookup.note_in_url(tx, digests_of(world, new.secret))
    assert noted() == {new.key.id: (None, None), other.key.id: (None, None)}
