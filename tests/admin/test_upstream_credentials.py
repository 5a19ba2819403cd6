"""The credentials of an upstream: who may say so, what is refused, and what gateways read."""

import pytest

from tests.conftest import World
from toolkit.admin import catalog
from toolkit.admin.model_routes import RouteWay, set_route
from toolkit.admin.upstream_credentials import credentials_of, set_credentials
from toolkit.admin.upstreams import add_upstream, update_upstream
from toolkit.core.account_fault import AccountFault
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Forbidden, InvalidInput, KeydeskError, NotFound
from toolkit.core.policy import Role
from toolkit.store import audit, incidents
from toolkit.store.actor import Actor
from toolkit.store.incidents import At, Refused

pytestmark = pytest.mark.any_store

HERE = "test-openai"
OWN, SECOND, THIRD = "TEST_UPSTREAM_API_KEY", "SECOND_API_KEY", "THIRD_API_KEY"


def given(world: World, *names: str, upstream: str = HERE) -> list[str]:
    """Set the credentials of an upstream."""
    with world.workspace.write() as tx:
        return set_credentials(tx, upstream, names)


def ways(world: World, model: str = "gpt-test") -> list[tuple[str, str]]:
    """Return upstream and credential of each way of a model, as gateways read them."""
    with world.workspace.read() as tx:
        return [(way.model.upstream, way.model.credential_env) for way in catalog.load(tx).models[model].ways]


def test_each_is_a_way_of_the_models_that_are_served_there(world: World) -> None:
    """Of no other ones; a single credential is no choice."""
    assert given(world, OWN, SECOND) == [OWN, SECOND]
    assert ways(world) == [(HERE, OWN), (HERE, SECOND)]
    assert ways(world, "claude-test") == []
    given(world, SECOND)
    assert ways(world) == []
    with world.workspace.read() as tx:
        assert credentials_of(tx, HERE) == [SECOND]
        assert catalog.load(tx).models["gpt-test"].credential_env == SECOND


def test_a_route_has_the_credentials_of_each_upstream(world: World) -> None:
    """One after the other."""
    with world.workspace.write() as tx:
        add_upstream(tx, "other", Dialect.OPENAI, "http://127.0.0.1:9", THIRD)
        set_route(tx, "gpt-test", [RouteWay("other"), RouteWay(HERE)])
    given(world, OWN, SECOND)
    assert ways(world) == [("other", THIRD), (HERE, OWN), (HERE, SECOND)]


def test_each_change_is_in_the_audit_log(world: World) -> None:
    """Names, and never what they name; what changes nothing leaves no trace."""
    given(world, OWN, SECOND)
    given(world, OWN, SECOND)
    with world.workspace.read() as tx:
        (act,) = [row for row in audit.rows(tx, subject=HERE) if row.action == "upstream.credentials"]
    assert SECOND in (act.after or "")


def test_what_was_refused_with_a_credential_ends_with_it(world: World) -> None:
    """Nobody could answer with it any more; the incident of the other one goes on."""
    given(world, OWN, SECOND)
    with world.workspace.write() as tx:
        seen = Refused(tx.now, tx.now, 1, "no")
        at = {At(HERE, AccountFault.CREDIT, "", name): seen for name in (OWN, SECOND)}
        incidents.write(tx, at, {})
    given(world, OWN, THIRD)
    with world.workspace.read() as tx:
        assert [one.credential for one in incidents.open_incidents(tx)] == [OWN]
    with world.workspace.write() as tx:
        update_upstream(tx, HERE, credential_env=SECOND)
    with world.workspace.read() as tx:
        assert incidents.open_incidents(tx) == []
        assert credentials_of(tx, HERE) == [SECOND, THIRD]


@pytest.mark.parametrize(
    ("names", "upstream", "error", "words"),
    [
        ([], HERE, InvalidInput, "1 to 16 credentials, not 0"),
        ([OWN, OWN], HERE, InvalidInput, "named twice"),
        ([OWN, "sk-secret"], HERE, InvalidInput, "Give the name, not the value"),
        ([OWN, "HOME"], HERE, InvalidInput, "not the name of an upstream's credential"),
        ([OWN], "nowhere", NotFound, "no upstream named"),
    ],
)
def test_what_cannot_be_is_refused(
    world: World, names: list[str], upstream: str, error: type[KeydeskError], words: str
) -> None:
    """In words that say what can."""
    with pytest.raises(error, match=words):
        given(world, *names, upstream=upstream)
    assert ways(world) == []


def test_one_that_is_there_is_not_made_the_first_by_an_update(world: World) -> None:
    """Then it would stand there twice."""
    given(world, OWN, SECOND)
    with world.workspace.write() as tx, pytest.raises(InvalidInput, match="keydesk upstreams credentials"):
        update_upstream(tx, HERE, credential_env=SECOND)


def test_only_platform_admins_may(world: World) -> None:
    """As with all of the catalog."""
    actor = Actor("org@acme.example", Role.ORG_ADMIN, world.org_id)
    with pytest.raises(Forbidden), world.workspace.store.write(actor) as tx:
        set_credentials(tx, HERE, [OWN, SECOND])
