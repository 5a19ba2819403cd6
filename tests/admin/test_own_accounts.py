"""Provider accounts of organisations: who may enter one, what it takes, and that others do not know of it."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import OPENAI_SHEET, World, examples, usd
from toolkit.admin import catalog, client_settings, keys, models, organisations, plans, upstreams
from toolkit.admin.model_routes import MOST_WAYS, RouteWay, route_of, served_at, set_route
from toolkit.admin.models import add_model, list_models
from toolkit.admin.upstream_credentials import set_credentials
from toolkit.admin.upstreams import add_upstream, update_upstream
from toolkit.core.catalog import DatedSheet, ModelFacts, Way
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Forbidden, InvalidInput, NotFound
from toolkit.core.policy import Role
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.upstream_traits import UpstreamTraits
from toolkit.store import audit
from toolkit.store.actor import Actor
from toolkit.store.transaction import Transaction
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store

URL = "http://127.0.0.1:9"
HERE = "test-openai"
OWN = "acme-openai"
CREDENTIAL = "ACME_API_KEY"


@pytest.fixture
def owning(world: World) -> World:
    """An organisation with an account of its own, which serves one model alone, and another one beside everybody's."""
    with world.workspace.write() as tx:
        add_upstream(tx, OWN, Dialect.OPENAI, URL, CREDENTIAL, org=world.org_id)
        add_model(tx, "acme-only", OWN, sheet=OPENAI_SHEET)
        set_route(tx, "gpt-test", [RouteWay(OWN, "acme-name"), RouteWay(HERE)])
        plans.update(tx, "standard", models=[*plans.models(tx, world.plan_id), "acme-only"])
        organisations.add(tx, "Other")
    return world


def other_of(tx: Transaction) -> str:
    """Return the id of the organisation without an account."""
    return organisations.find(tx, "Other").id


def people(world: World, org: str) -> Workspace:
    """Return the workspace of an admin of an organisation."""
    with world.workspace.read() as tx:
        org_id = organisations.find(tx, org).id
    return world.workspace.acting_as(Actor("a@example.com", Role.ORG_ADMIN, org_id))


def test_it_is_entered_by_the_platform_alone(world: World) -> None:
    """The organisation's own admin may not, and the audit log says whose it is."""
    with people(world, "Acme").write() as tx, pytest.raises(Forbidden):
        add_upstream(tx, OWN, Dialect.OPENAI, URL, CREDENTIAL, org=world.org_id)
    with world.workspace.write() as tx:
        with pytest.raises(NotFound, match="No organisation is named 'Nobody'"):
            add_upstream(tx, OWN, Dialect.OPENAI, URL, CREDENTIAL, org="Nobody")
        assert add_upstream(tx, OWN, Dialect.OPENAI, URL, CREDENTIAL, org="Acme").org_id == world.org_id
        assert json.loads(audit.rows(tx)[0].after or "")["org"] == world.org_id
    with people(world, "Acme").write() as tx:
        for change in (
            lambda: update_upstream(tx, OWN, base_url=f"{URL}/mine"),
            lambda: set_credentials(tx, OWN, ["MINE_API_KEY"]),
            lambda: set_route(tx, "gpt-test", [RouteWay(OWN)]),
        ):
            with pytest.raises(Forbidden):
                change()


def test_its_credential_is_named_and_nobody_elses(owning: World) -> None:
    """Neither everybody's account nor another organisation's may have it, in whichever order they are entered."""
    with owning.workspace.write() as tx:
        with pytest.raises(InvalidInput, match="--credential-env"):
            add_upstream(tx, "more", preset="openai", org="Acme")
        with pytest.raises(InvalidInput, match=r"TEST_UPSTREAM_API_KEY is a credential of 'test-.*serves everybody"):
            add_upstream(tx, "more", Dialect.OPENAI, URL, "TEST_UPSTREAM_API_KEY", org="Acme")
        for org in (None, "Other"):
            with pytest.raises(InvalidInput, match=f"{CREDENTIAL} is a credential of '{OWN}', an organisation's own"):
                add_upstream(tx, "more", Dialect.OPENAI, URL, CREDENTIAL, org=org)
        set_credentials(tx, OWN, [CREDENTIAL, "SECOND_API_KEY"])
        for taken in (CREDENTIAL, "SECOND_API_KEY"):
            with pytest.raises(InvalidInput, match=taken):
                update_upstream(tx, HERE, credential_env=taken)
            with pytest.raises(InvalidInput, match=taken):
                set_credentials(tx, HERE, ["TEST_UPSTREAM_API_KEY", taken])
        with pytest.raises(InvalidInput, match="TEST_UPSTREAM_API_KEY"):
            set_credentials(tx, OWN, [CREDENTIAL, "TEST_UPSTREAM_API_KEY"])
        with pytest.raises(InvalidInput, match="TEST_UPSTREAM_API_KEY"):
            update_upstream(tx, OWN, credential_env="TEST_UPSTREAM_API_KEY")
        add_upstream(tx, "acme-messages", Dialect.ANTHROPIC, URL, CREDENTIAL, org="Acme")  # its own may be for both


def test_gateways_know_who_is_served_where(owning: World) -> None:
    """The own account first, with its name of the model; everybody else at everybody's, and never there."""
    with owning.workspace.read() as tx:
        known, other = catalog.load(tx), other_of(tx)
    mine, everybodys = known.model("gpt-test", owning.org_id), known.model("gpt-test", other)
    assert mine is not None
    assert [(way.model.upstream, way.model.upstream_model) for way in mine.ways] == [
        (OWN, "acme-name"),
        (HERE, "gpt-test"),
    ]
    assert everybodys is not None
    assert (everybodys.upstream, everybodys.ways) == (HERE, ())
    assert known.model("acme-only", owning.org_id) is not None
    assert known.model("acme-only", other) is None
    assert {place.upstream for place in known.places()} >= {OWN, HERE}


def test_to_other_organisations_there_is_no_such_upstream_or_model(owning: World) -> None:
    """Nor its name, in lists, look-ups, plans, scopes and routes; to its own there is."""
    with people(owning, "Other").read() as tx:
        assert OWN not in {upstream.name for upstream in upstreams.list_upstreams(tx)}
        with pytest.raises(NotFound) as unknown:
            upstreams.find(tx, OWN)
        assert str(unknown.value) == f"There is no upstream named {OWN!r}. `keydesk upstreams list` shows them."
        listed = {model.id: model for model in list_models(tx)}
        assert "acme-only" not in listed
        assert (listed["gpt-test"].upstream, listed["gpt-test"].upstream_model) == (HERE, "gpt-test")
        assert route_of(tx, listed["gpt-test"]) == [RouteWay(HERE, "gpt-test")]
        with pytest.raises(NotFound, match="no model 'acme-only'"):
            models.find(tx, "acme-only")
        assert models.find(tx, "gpt-test").upstream == HERE
        assert "acme-only" not in plans.models(tx, owning.plan_id)
    with people(owning, "Acme").read() as tx:
        assert upstreams.find(tx, OWN) in upstreams.list_upstreams(tx)
        assert {"acme-only", "gpt-test"} <= {model.id for model in list_models(tx)}
        assert models.find(tx, "gpt-test").upstream == OWN
        assert "acme-only" in plans.models(tx, owning.plan_id)


def test_a_key_of_another_organisation_cannot_name_the_model_in_its_scope(owning: World) -> None:
    """The refusal does not name it among the plan's; what a scope had before stays in it."""
    owning.key("own", models=["acme-only"])
    with owning.workspace.write() as tx:
        keyring, other = owning.workspace.keyring, other_of(tx)
        with pytest.raises(InvalidInput) as refused:
            keys.create(tx, keyring, org=other, name="x", plan="standard", models=["acme-only"])
        assert "acme-only" not in str(refused.value).partition("Its models are")[2]
        key = keys.create(tx, keyring, org=other, name="y", plan="standard", models=["claude-test", "gpt-test"]).key
        assert [facts.id for facts in client_settings.callable_models(tx, key)] == ["claude-test", "gpt-test"]
        set_route(tx, "gpt-test", [RouteWay(OWN)])
        assert [facts.id for facts in client_settings.callable_models(tx, key)] == ["claude-test"]
        keys.update(tx, key.id, name="z")
        keys.update(tx, key.id, models=["gpt-test"])
        with pytest.raises(InvalidInput, match="does not include acme-only"):
            keys.update(tx, key.id, models=["gpt-test", "acme-only"])


def test_a_route_may_have_an_account_of_each_of_many_organisations(world: World) -> None:
    """What one caller may be served by is bounded, and not how many organisations bring their own."""
    with world.workspace.write() as tx:
        ways = [RouteWay(HERE)]
        for number in range(MOST_WAYS):
            organisations.add(tx, f"Org {number}")
            add_upstream(tx, f"own-{number}", Dialect.OPENAI, URL, f"N{number}_API_KEY", org=f"Org {number}")
            ways.append(RouteWay(f"own-{number}"))
        set_route(tx, "gpt-test", ways)
        for number in range(MOST_WAYS - 1):
            add_upstream(tx, f"more-{number}", Dialect.OPENAI, URL, f"N{number}_API_KEY", org=f"Org {number}")
            add_upstream(tx, f"mine-{number}", Dialect.OPENAI, URL, "N0_API_KEY", org="Org 0")
        set_route(tx, "gpt-test", [*ways, *(RouteWay(f"more-{number}") for number in range(MOST_WAYS - 1))])
        with pytest.raises(InvalidInput, match=f"1 to {MOST_WAYS} upstreams, not {MOST_WAYS + 1},"):
            set_route(tx, "gpt-test", [*ways, *(RouteWay(f"mine-{number}") for number in range(MOST_WAYS - 1))])
        assert served_at(tx, "own-3") == {"gpt-test": "gpt-test"}


_UPSTREAMS = st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.integers(0, 3)), min_size=1, max_size=8)


@examples(100)
@given(_UPSTREAMS, st.booleans(), st.sets(st.integers(0, 7)))
def test_no_route_leads_to_a_foreign_account(
    owners: list[tuple[str | None, int]], weighted: bool, several: set[int]
) -> None:
    """Whatever is in it: each organisation has everybody's ways and its own, its own first, and no other's."""
    prices = (DatedSheet("p", datetime(2026, 1, 1, tzinfo=UTC), PriceSheet.flat(input=usd(1), output=usd(1))),)
    ways = [
        (Way(_served(str(place), prices), 0 if weighted else place, 1 + weight if weighted else 0), owner)
        for place, (owner, weight) in enumerate(owners)
    ]
    further = {str(place): ["more"] for place in several}
    owner_of = {way.model.upstream: owner for way, owner in ways}
    everybodys, own = catalog.offers(ways, prices, further)
    assert set(own) == {owner for owner, _ in owners} - {None}
    assert (everybodys is None) == all(owner is not None for owner, _ in owners)
    for org_id, facts in [(None, everybodys), *own.items()]:
        if facts is None:
            continue
        ranked = [way.model for way in sorted(facts.ways, key=lambda way: way.rank("k", "k"))] or [facts]
        found = [owner_of[place.upstream] for place in ranked]
        assert set(found) <= {None, org_id}
        assert found == sorted(found, key=lambda owner: owner is None)
        assert {place.upstream for place in ranked} == {
            name for name, owner in owner_of.items() if owner in {None, org_id}
        }
        assert facts.upstream in {place.upstream for place in ranked}
        assert facts.upstream == ranked[0].upstream or weighted


def _served(upstream: str, prices: tuple[DatedSheet, ...]) -> ModelFacts:
    return ModelFacts(
        id="m",
        dialect=Dialect.OPENAI,
        upstream=upstream,
        base_url=URL,
        credential_env=f"C{upstream}",
        upstream_model="m",
        context_window=MILLION,
        default_output=1,
        max_output=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        unknown_fields=UnknownFields.PASS,
        traits=UpstreamTraits(),
        prices=prices,
    )
