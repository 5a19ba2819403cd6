"""A lost, wrong or leaked pepper is noticed before it refuses every key, and none is made where one is needed."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.conftest import ADMIN, ROOT, Run, World, at_once, free_port, variables_of
from toolkit.admin import keys, peppers, secret_lookup
from toolkit.core.errors import Conflict, Forbidden, NotConfirmed, NotFound
from toolkit.core.policy import KeyStatus, Role
from toolkit.core.secrets import Keyring
from toolkit.core.settings import Settings
from toolkit.gateway.app import create_app
from toolkit.store import audit
from toolkit.store.actor import Actor
from toolkit.store.tables import ApiKey, LiveSecret, RetiredSecret
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store

OTHER = "cd" * 32
OTHER_ID = Keyring([bytes.fromhex(OTHER)]).pepper_ids[0]


def here(world: World) -> str:
    """Return the id of the world's own pepper."""
    return world.workspace.keyring.pepper_ids[0]


def lose(world: World) -> Path:
    """Take the pepper away; return where it is now."""
    pepper = world.workspace.settings.pepper_file
    return pepper.rename(pepper.with_name("backup"))


def again(world: World, pepper_text: str = "") -> Workspace:
    """Return Keydesk as another process opens it, which may have other peppers in its environment."""
    return Workspace(replace(world.workspace.settings, pepper_text=pepper_text), world.workspace.store, ADMIN)


OPENINGS: dict[str, Callable[[Settings, Workspace], object]] = {
    "keyring": lambda _settings, workspace: workspace.keyring,
    "gateway": lambda settings, _workspace: create_app(settings),
}


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_lost_pepper_stops_the_start_and_none_is_made(world: World, opening: str) -> None:
    """The message says which one, for how many keys, and what to do; with the file restored all is as before."""
    world.key("one")
    secret = world.key("two").secret
    name = here(world)
    backup = lose(world)
    with pytest.raises(Conflict, match=rf"{name} \(2 API keys\).*is not there.*backup.*pepper retire") as caught:
        OPENINGS[opening](world.workspace.settings, again(world))
    assert str(world.workspace.settings.pepper_file) in str(caught.value)
    assert not world.workspace.settings.pepper_file.exists()
    backup.rename(world.workspace.settings.pepper_file)
    with world.workspace.read() as tx:
        assert secret_lookup.find_live(tx, [digest.value for digest in again(world).keyring.digests(secret)])


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_wrong_pepper_stops_the_start(world: World, opening: str) -> None:
    """Whichever it is: the message says which is needed and which is here. Beside the right one it does no harm."""
    world.key()
    settings = replace(world.workspace.settings, pepper_text=OTHER)
    with pytest.raises(Conflict, match=f"missing: {here(world)} .*KEYDESK_PEPPER has {OTHER_ID}"):
        OPENINGS[opening](settings, again(world, pepper_text=OTHER))
    both = f"{OTHER},{world.workspace.settings.pepper_file.read_text().strip()}"
    assert again(world, pepper_text=both).keyring.pepper_ids == [OTHER_ID, here(world)]


def test_a_store_without_live_keys_needs_no_pepper(world: World) -> None:
    """One is made, for an empty store and for one whose keys are all deleted."""
    key = world.key().key
    lose(world)
    with world.workspace.write() as tx:
        keys.delete(tx, key.id, confirm=key.name)
    assert again(world).keyring.pepper_ids != [here(world)]
    assert world.workspace.settings.pepper_file.exists()


def test_reading_alone_makes_no_pepper(settings: Settings, world: World) -> None:
    """An analyst's notebook neither signs nor verifies."""
    with closing(Workspace.open(settings, write=False)) as workspace, pytest.raises(Forbidden):
        workspace.keyring  # noqa: B018 - what is refused
    with closing(Workspace.open(settings, write=False)) as workspace:
        assert not settings.pepper_file.exists()


@pytest.mark.both_stores
def test_processes_that_open_an_empty_store_at_once_get_one_pepper(world: World) -> None:
    """Whoever makes it."""
    found = at_once(*[lambda: tuple(again(world).keyring.pepper_ids)] * 4)
    assert len(set(found)) == 1
    assert not isinstance(found[0], Exception)


@pytest.mark.parametrize(
    "command",
    [
        ["gateway"],
        pytest.param(["gateway", "--workers", "2"], marks=pytest.mark.world),
        pytest.param(["dashboard"], marks=pytest.mark.world),
        pytest.param(["up"], marks=pytest.mark.world),
    ],
    ids=" ".join,
)
def test_no_process_starts_without_the_keys_pepper(world: World, command: list[str]) -> None:
    """Each says in one sentence what is missing, and ends with 1."""
    world.key()
    name = here(world)
    lose(world)
    ports = {f"KEYDESK_{part}_PORT": str(free_port()) for part in ("GATEWAY", "DASHBOARD", "DEMO")}
    started = subprocess.run(
        [sys.executable, "-m", "toolkit.cli", *command],
        env={"PATH": "/usr/bin:/bin"} | variables_of(world.workspace.settings) | ports,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert started.returncode == 1
    assert name in started.stderr
    assert "Traceback" not in started.stderr
    assert not world.workspace.settings.pepper_file.exists()


@pytest.mark.parametrize("verb", ["create", "rotate"])
def test_no_secret_is_made_under_a_wrong_pepper(world: World, run: Run, verb: str) -> None:
    """The command refuses, and nothing has changed."""
    world.key()
    lose(world)
    rest = {"create": ["--org", "Acme", "--name", "new", "--plan", "standard"], "rotate": ["app", "--yes"]}
    result = run("keys", verb, *rest[verb])
    assert result.exit_code == 1
    assert "are missing" in result.stderr
    with world.workspace.read() as tx:
        assert [key.version for key in tx.session.scalars(select(ApiKey))] == [1]


def test_peppers_are_listed_by_id_with_their_keys(world: World) -> None:
    """Those that are here, the current one first, and those that keys need."""
    world.key("one")
    world.key("two")
    with world.workspace.read() as tx:
        old = here(world)
        assert peppers.listed(tx, world.workspace.settings) == [peppers.Pepper(old, 2, is_here=True, is_current=True)]
        other = replace(world.workspace.settings, pepper_text=OTHER)
        assert peppers.listed(tx, other) == [
            peppers.Pepper(OTHER_ID, 0, is_here=True, is_current=True),
            peppers.Pepper(old, 2, is_here=False, is_current=False),
        ]


def test_a_retired_pepper_turns_its_keys_into_rotated_ones(world: World) -> None:
    """Their digests admit nothing any more, each has its row in the audit log, and a rotation brings each back."""
    old = world.key("old")
    name = here(world)
    ring = again(world, pepper_text=f"{OTHER},{world.workspace.settings.pepper_file.read_text().strip()}").keyring
    with world.workspace.write() as tx:
        young = keys.create(tx, ring, org="Acme", name="young", plan="standard")
    with world.workspace.write() as tx:
        assert peppers.retire(tx, name, current=OTHER_ID, confirm=name, reason="leaked") == 1
    with world.workspace.read() as tx:
        assert tx.session.scalars(select(LiveSecret.key_id)).all() == [young.key.id]
        (dead,) = tx.session.scalars(select(RetiredSecret))
        assert (dead.key_id, dead.display) == (old.key.id, old.key.display)
        key = tx.session.get_one(ApiKey, old.key.id)
        assert (key.status, key.version, key.display) == (KeyStatus.ACTIVE, 2, keys.NO_SECRET)
        assert [(row.action, row.reason) for row in audit.rows(tx, subject=key.id, limit=1)] == [
            ("key.retire_secret", "leaked")
        ]
        (row,) = audit.rows(tx, subject=name)
        assert (row.chain, row.action, row.after) == (audit.PLATFORM, "pepper.retire", '{"keys": 1}')
        assert audit.verify(tx) == []
    assert again(world, pepper_text=OTHER).keyring.pepper_ids == [OTHER_ID]  # the start is allowed now
    with world.workspace.write() as tx:
        turned = keys.rotate(tx, ring, old.key.id, confirm="old")
    with world.workspace.read() as tx:
        found = secret_lookup.find_live(tx, [digest.value for digest in ring.digests(turned.secret)])
    assert found is not None
    assert found.key_id == old.key.id


def test_a_key_without_a_secret_can_be_deleted(world: World) -> None:
    """As every other."""
    key = world.key().key
    with world.workspace.write() as tx:
        peppers.retire(tx, here(world), current=None, confirm=here(world))
        assert keys.delete(tx, key.id, confirm="app").status == KeyStatus.DELETED


def test_only_what_can_be_retired_is(world: World) -> None:
    """Not without its id to confirm, not one that no key has, and not the one that new secrets are made under."""
    world.key()
    name = here(world)
    with world.workspace.write() as tx:
        with pytest.raises(NotConfirmed):
            peppers.retire(tx, name, current=None, confirm="yes")
        with pytest.raises(NotFound, match="pepper list"):
            peppers.retire(tx, OTHER_ID, current=None, confirm=OTHER_ID)
        with pytest.raises(Conflict, match="New secrets are made under"):
            peppers.retire(tx, name, current=name, confirm=name)


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_peppers_are_the_platforms(world: World, role: Role) -> None:
    """Nobody else sees or retires them."""
    world.key()
    with world.workspace.acting_as(Actor("ada@acme.example", role, world.org_id)).write() as tx:
        with pytest.raises(Forbidden):
            peppers.listed(tx, world.workspace.settings)
        with pytest.raises(Forbidden):
            peppers.retire(tx, here(world), current=None, confirm=here(world))


def test_the_commands_list_and_retire(world: World, run: Run) -> None:
    """Where nobody can be asked, only with `--yes`; the current one is refused until it has been taken away."""
    world.key()
    name = here(world)
    assert name in run("pepper", "list").stdout
    assert "--yes" in run("pepper", "retire", name).stderr
    assert "New secrets are made under" in run("pepper", "retire", name, "--yes").stderr
    lose(world)
    said = run("pepper", "retire", name, "--yes", "--reason", "lost").stdout
    assert said.startswith(f"Retired the pepper {name}: 1 API key without a secret")
    assert again(world).keyring.pepper_ids != [name]
