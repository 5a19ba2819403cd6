"""Who may have alerts sent where, and sees what."""

import pytest
from sqlalchemy import select

from tests.conftest import ADMIN, World, usd
from toolkit.admin import organisations, wallet
from toolkit.alerts import destinations, messages, queue
from toolkit.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from toolkit.core.ids import new_id
from toolkit.core.policy import Role
from toolkit.store.actor import Actor
from toolkit.store.tables import Alert, AuditRow

pytestmark = pytest.mark.any_store

URL = "https://alerts.example.com/hook/token-of-the-path?key=token-of-the-query"


@pytest.fixture
def other_org(world: World) -> str:
    """Another organisation."""
    with world.workspace.write() as tx:
        return organisations.add(tx, "Other").id


def actor(role: Role, org_id: str | None) -> Actor:
    """Return somebody with a role."""
    return Actor(f"{role}@example.com", role, org_id)


def add(world: World, who: Actor, name: str = "on-call", url: str = URL, org: str | None = None) -> str:
    """Add a destination in somebody's name; return its id."""
    with world.workspace.store.write(who) as tx:
        return destinations.add(tx, world.workspace.keyring, name, url, org)[0].id


def test_org_admins_name_destinations_of_their_own_organisation(world: World, other_org: str) -> None:
    """None of another's, none of the platform's, and neither see nor change theirs."""
    own = actor(Role.ORG_ADMIN, world.org_id)
    mine = add(world, own)
    platform, other = add(world, ADMIN, "all"), add(world, actor(Role.ORG_ADMIN, other_org), "theirs")
    with pytest.raises(NotFound):
        add(world, own, "spy", org="Other")
    store, keyring = world.workspace.store, world.workspace.keyring
    with store.read(own) as tx:
        assert [row.id for row in destinations.list_all(tx)] == [mine]
    for foreign in (platform, other, "all", "theirs"):
        for act in (destinations.remove, destinations.test, lambda tx, one: destinations.secret(tx, keyring, one)):
            with pytest.raises(NotFound), store.write(own) as tx:
                act(tx, foreign)


def test_analysts_read_and_change_nothing(world: World) -> None:
    """What follows the host of a URL may be a secret: they do not read it, nor does the audit log have it."""
    own = add(world, actor(Role.ORG_ADMIN, world.org_id))
    store, keyring = world.workspace.store, world.workspace.keyring
    for analyst in (actor(Role.ANALYST, world.org_id), actor(Role.ANALYST, None)):
        with store.read(analyst) as tx:
            assert [destinations.shown_url(tx, row) for row in destinations.list_all(tx)] == [
                "https://alerts.example.com/…"
            ]
        for act in (destinations.remove, destinations.test, lambda tx, one: destinations.secret(tx, keyring, one)):
            with pytest.raises(Forbidden), store.write(analyst) as tx:
                act(tx, own)
        with pytest.raises(Forbidden):
            add(world, analyst, "more", org="Acme")
        with pytest.raises(Forbidden), store.write(analyst) as tx:
            wallet.set_low_balance(tx, world.org_id, usd(1))
    with world.workspace.read() as tx:
        assert "token" not in "".join(str(row.after) + str(row.before) for row in tx.session.scalars(select(AuditRow)))


@pytest.mark.parametrize(
    "url",
    [
        "http://alerts.example.com/",
        "https://localhost/",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://metadata.google.internal/",
    ],
)
def test_org_admins_name_no_private_address(world: World, url: str) -> None:
    """However it is written; nor one of http."""
    with pytest.raises(InvalidInput):
        add(world, actor(Role.ORG_ADMIN, world.org_id), url=url)


@pytest.mark.parametrize(
    "url",
    ["ftp://x/", "https://", "https://u:p@x/", "https://x/ y", "https://x/#y", "http://169.254.169.254/", "x" * 3000],
)
def test_nobody_names_what_is_no_receiver(world: World, url: str) -> None:
    """No other schemes, credentials, fragments, metadata services."""
    with pytest.raises(InvalidInput):
        add(world, ADMIN, url=url)


def test_what_the_platform_named_for_an_organisation_is_the_platforms(world: World) -> None:
    """It may be private: its org admin sees it, and does not change or try it."""
    add(world, ADMIN, url="http://10.0.0.1/hook", org="Acme")
    own = actor(Role.ORG_ADMIN, world.org_id)
    with world.workspace.store.read(own) as tx:
        assert len(destinations.list_all(tx)) == 1
    with pytest.raises(Forbidden), world.workspace.store.write(own) as tx:
        destinations.test(tx, "on-call")


def test_names_are_unique_and_destinations_have_an_end(world: World, other_org: str) -> None:
    """In one organisation; another may have the same name, and then the platform says which by id."""
    own = actor(Role.ORG_ADMIN, world.org_id)
    add(world, own)
    add(world, actor(Role.ORG_ADMIN, other_org))
    with pytest.raises(Conflict, match="already"):
        add(world, own)
    with pytest.raises(Conflict, match="Several"), world.workspace.read() as tx:
        destinations.find(tx, "on-call")
    for number in range(destinations.MOST - 1):
        add(world, own, f"more {number}")
    with pytest.raises(Conflict, match="most"):
        add(world, own, "one more")


def test_each_act_is_audited(world: World) -> None:
    """Adding, showing the secret, testing, removing; and the threshold of a wallet."""
    own = actor(Role.ORG_ADMIN, world.org_id)
    row = add(world, own)
    keyring = world.workspace.keyring
    with world.workspace.store.write(own) as tx:
        queue.take_lease(tx, "runner", queue.LONGEST_PAUSE)
        assert destinations.secret(tx, keyring, row) == destinations.secret(tx, keyring, "on-call")
        destinations.test(tx, row)
        destinations.remove(tx, row, "done")
        wallet.set_low_balance(tx, world.org_id, usd(5))
    with world.workspace.read() as tx:
        acts = [act.action for act in tx.session.scalars(select(AuditRow).where(AuditRow.actor == own.name))]
    wanted = ["add", "secret", "secret", "test", "remove"]
    assert sorted(acts) == sorted([*(f"destination.{verb}" for verb in wanted), "wallet.low"])


def test_people_of_one_organisation_see_its_alerts_alone(world: World, other_org: str) -> None:
    """Not the platform's, not another's, and not what became of theirs at the platform's destinations."""
    add(world, ADMIN, "all")
    with world.workspace.write() as tx:
        for org_id in (world.org_id, other_org, None):
            alert_id = new_id("alert")
            body = messages.written("test", alert_id, tx.now, {"message": "…"})
            tx.session.add(Alert(id=alert_id, org_id=org_id, kind="test", subject="x", fired_at=tx.now, body=body))
    with world.workspace.store.read(actor(Role.ANALYST, world.org_id)) as tx:
        (seen,) = destinations.history(tx)
        assert (seen.alert.org_id, seen.destination, seen.delivery) == (world.org_id, None, None)
    with world.workspace.read() as tx:
        assert len(destinations.history(tx)) == 3
