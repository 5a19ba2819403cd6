"""Tests of upstreams in the key store: one gateway takes each, and one whose gateway dies is taken once more."""

from datetime import timedelta

import pytest

from tests.conftest import World, invoke
from toolkit.billing import leases
from toolkit.core.errors import Conflict
from toolkit.store import upstream_tests
from toolkit.store.actor import SYSTEM
from toolkit.store.tables import UpstreamTest
from toolkit.store.upstream_tests import MOST_WAITING

pytestmark = pytest.mark.any_store

LEASE = timedelta(minutes=1)


def begin(world: World, *instances: str) -> None:
    """Have these gateways live."""
    with world.workspace.store.write(SYSTEM) as tx:
        for instance in instances:
            leases.renew(tx, instance, LEASE)


def end(world: World, instance: str) -> None:
    """Have a gateway die."""
    with world.workspace.store.write(SYSTEM) as tx:
        leases.end(tx, instance)


def ask(world: World) -> str:
    """Ask for a test."""
    with world.workspace.store.write(SYSTEM) as tx:
        return upstream_tests.ask(tx, "test-openai", None)


def take(world: World, instance: str) -> str | None:
    """Take a test for a gateway."""
    with world.workspace.store.write(SYSTEM) as tx:
        test = upstream_tests.take(tx, instance)
        return test.id if test else None


def row(world: World, test_id: str) -> UpstreamTest:
    """Return a test as it stands."""
    with world.workspace.store.read(SYSTEM) as tx:
        return tx.session.get_one(UpstreamTest, test_id)


def test_one_gateway_takes_it(world: World) -> None:
    """The others find nothing; its answer ends it."""
    begin(world, "one", "two")
    test = ask(world)
    assert take(world, "one") == test
    assert take(world, "two") is None
    with world.workspace.store.write(SYSTEM) as tx:
        upstream_tests.end(tx, test, "two", failure="not mine")
        upstream_tests.end(tx, test, "one", found="{}")
    assert (row(world, test).found, row(world, test).failure) == ("{}", None)
    assert take(world, "two") is None


def test_one_whose_gateway_dies_is_taken_once_more(world: World) -> None:
    """Then it ends in words: it may be what they died of."""
    begin(world, "one", "two", "three")
    test = ask(world)
    assert take(world, "one") == test
    end(world, "one")
    assert take(world, "two") == test
    end(world, "two")
    assert take(world, "three") is None
    assert "could not write what they found" in (row(world, test).failure or "")


def test_one_that_is_given_back_is_as_new(world: World) -> None:
    """By a gateway that is stopped in good order."""
    begin(world, "one", "two")
    test = ask(world)
    for _ in range(upstream_tests.MOST_TRIES + 1):
        assert take(world, "one") == test
        with world.workspace.store.write(SYSTEM) as tx:
            upstream_tests.give_back(tx, test, "one")
    assert take(world, "two") == test


def test_one_whose_end_could_not_be_written_is_made_again(world: World) -> None:
    """By the gateway that had taken it, once: whoever waits is not left waiting while that one lives."""
    begin(world, "one", "two")
    test = ask(world)
    with world.workspace.store.write(SYSTEM) as tx:
        assert upstream_tests.is_waiting(tx, "two")
    assert take(world, "one") == test
    with world.workspace.store.read(SYSTEM) as tx:
        assert upstream_tests.is_waiting(tx, "one")
        assert not upstream_tests.is_waiting(tx, "two")
    assert take(world, "one") == test
    assert take(world, "one") is None
    assert row(world, test).ended_at is not None


def test_who_asks_twice_gets_one_test(world: World) -> None:
    """Its calls cost money; and only so many may wait."""
    begin(world, "one")
    test = ask(world)
    assert ask(world) == test
    with world.workspace.store.write(SYSTEM) as tx:
        upstream_tests.take(tx, "one")
        upstream_tests.end(tx, test, "one", found="{}")
        others = {upstream_tests.ask(tx, "test-openai", f"model-{number}") for number in range(MOST_WAITING)}
        assert len(others - {test}) == MOST_WAITING
        assert upstream_tests.ask(tx, "test-openai", "model-0") in others
        with pytest.raises(Conflict, match="have not ended"):
            upstream_tests.ask(tx, "test-openai", None)


def test_a_model_that_cannot_be_one_is_refused(world: World) -> None:
    """It would stand in a URL, and in what is printed."""
    begin(world, "one")
    told = invoke(world.workspace.settings, "upstreams", "test", "test-openai", "--model", "red\x1b[31m")
    assert told.exit_code != 0
    assert "name of the model" in told.output


def test_without_a_gateway_nothing_is_asked_for(world: World) -> None:
    """Nobody else has the credential."""
    told = invoke(world.workspace.settings, "upstreams", "test", "test-openai")
    assert told.exit_code != 0
    assert "No gateway is running" in told.output
    assert "keydesk gateway" in told.output
    assert take(world, "one") is None


def test_when_the_gateway_is_gone_the_wait_ends(world: World) -> None:
    """In words."""
    from toolkit.admin import upstream_tests as admin

    begin(world, "one")
    with world.workspace.write() as tx:
        test = admin.ask(tx, "test-openai")
    end(world, "one")
    with world.workspace.read() as tx, pytest.raises(Conflict, match="The gateway has ended before the test had"):
        admin.outcome(tx, test)
