"""The upstreams that serve a model: who may say so, what is refused, and what gateways read."""

import pytest

from tests.conftest import OPENAI_SHEET, World
from toolkit.admin import catalog, model_routes, models
from toolkit.admin.model_routes import RouteWay, parse_way, route_of, set_route
from toolkit.admin.upstreams import add_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput, KeydeskError, NotFound
from toolkit.core.unknown_fields import UnknownFields
from toolkit.store import audit
from toolkit.store.tables import Model

pytestmark = pytest.mark.any_store

MODEL = "gpt-test"
HERE = "test-openai"


@pytest.fixture
def routed(world: World) -> World:
    """Two more upstreams of the dialect, and a model whose prices another may take."""
    with world.workspace.write() as tx:
        for name in ("second", "third"):
            add_upstream(tx, name, Dialect.OPENAI, "http://127.0.0.1:9", "TEST_UPSTREAM_API_KEY")
    return world


def route(world: World, *ways: RouteWay) -> Model:
    """Set the model's route."""
    with world.workspace.write() as tx:
        return set_route(tx, MODEL, ways)


def test_a_route_is_what_gateways_read(routed: World) -> None:
    """In its order, each way with its name of the model and its price; the first is where the model is."""
    model = route(routed, RouteWay("second", "gpt-b"), RouteWay(HERE, price_model="other-test"))
    assert (model.upstream, model.upstream_model) == ("second", "gpt-b")
    with routed.workspace.read() as tx:
        facts = catalog.load(tx).models[MODEL]
        other = catalog.load(tx).models["other-test"]
        assert route_of(tx, model) == [RouteWay("second", "gpt-b"), RouteWay(HERE, MODEL, 0, "other-test")]
        assert catalog.load(tx).models["other-test"].ways == ()
    assert [(way.model.upstream, way.model.upstream_model, way.position) for way in facts.ways] == [
        ("second", "gpt-b", 0),
        (HERE, MODEL, 1),
    ]
    assert [way.model.prices for way in facts.ways] == [facts.prices, other.prices]


def test_weights_take_the_place_of_the_order(routed: World) -> None:
    """All ways have the same position then."""
    route(routed, RouteWay(HERE, weight=3), RouteWay("second", weight=1))
    with routed.workspace.read() as tx:
        ways = catalog.load(tx).models[MODEL].ways
    assert [(way.position, way.weight) for way in ways] == [(0, 3), (0, 1)]


def test_one_alone_ends_the_route(routed: World) -> None:
    """And the model can be moved again."""
    route(routed, RouteWay(HERE), RouteWay("second"))
    with routed.workspace.write() as tx, pytest.raises(InvalidInput, match="keydesk models route gpt-test"):
        models.update_model(tx, MODEL, upstream="third")
    with routed.workspace.write() as tx:
        models.update_model(tx, MODEL, max_output=9_000)
    assert route(routed, RouteWay("third")).upstream == "third"
    with routed.workspace.write() as tx:
        assert models.update_model(tx, MODEL, upstream="second").upstream == "second"
        assert catalog.load(tx).models[MODEL].ways == ()


def test_the_strictest_says_what_becomes_of_unknown_fields(routed: World) -> None:
    """A call is judged once, before anybody knows who serves it."""
    with routed.workspace.write() as tx:
        add_upstream(
            tx,
            "strict",
            Dialect.OPENAI,
            "http://127.0.0.1:9",
            "TEST_UPSTREAM_API_KEY",
            unknown_fields=UnknownFields.REFUSE,
        )
    route(routed, RouteWay(HERE), RouteWay("strict"))
    with routed.workspace.read() as tx:
        facts = catalog.load(tx).models[MODEL]
    assert {facts.unknown_fields, *(way.model.unknown_fields for way in facts.ways)} == {UnknownFields.REFUSE}


def test_each_change_is_in_the_audit_log_and_raises_the_version(routed: World) -> None:
    """What changes nothing leaves no trace."""
    with routed.workspace.read() as tx:
        before = catalog.load(tx).version
    for _ in range(2):
        route(routed, RouteWay(HERE), RouteWay("second", weight=0))
    with routed.workspace.read() as tx:
        (act,) = [row for row in audit.rows(tx, subject=MODEL) if row.action == "model.route"]
        assert catalog.load(tx).version == before + 1
    assert '"upstream":"second"' in (act.after or "").replace(" ", "")


@pytest.mark.parametrize(
    ("ways", "error", "words"),
    [
        ([], InvalidInput, "1 to 8 upstreams, not 0"),
        ([RouteWay("nowhere")], NotFound, "no upstream named 'nowhere'"),
        ([RouteWay(HERE), RouteWay("test-anthropic")], InvalidInput, "speaks openai"),
        ([RouteWay(HERE), RouteWay(HERE, "gpt-b")], InvalidInput, "named twice"),
        ([RouteWay(HERE, weight=1), RouteWay("second")], InvalidInput, "for none"),
        ([RouteWay(HERE, weight=1_001), RouteWay("second", weight=1)], InvalidInput, "1 to 1,000"),
        ([RouteWay(HERE), RouteWay("second", "")], InvalidInput, "is empty"),
        ([RouteWay(HERE), RouteWay("second", price_model="nothing")], NotFound, "no model 'nothing'"),
        ([RouteWay("second", price_model="other-test")], InvalidInput, "keydesk prices set"),
    ],
)
def test_what_cannot_be_is_refused(routed: World, ways: list[RouteWay], error: type[KeydeskError], words: str) -> None:
    """In words that say what can."""
    with pytest.raises(error, match=words):
        route(routed, *ways)
    with routed.workspace.read() as tx:
        assert catalog.load(tx).models[MODEL].ways == ()


def test_prices_are_those_of_a_model_that_has_one(routed: World) -> None:
    """From a later moment on is not now."""
    later = "2099-01-01T00:00:00+00:00"
    with routed.workspace.write() as tx:
        from datetime import datetime

        models.add_model(tx, "later", "second", sheet=OPENAI_SHEET, valid_from=datetime.fromisoformat(later))
    with pytest.raises(InvalidInput, match="no price in force"):
        route(routed, RouteWay(HERE), RouteWay("second", price_model="later"))


def test_ways_as_they_are_typed(routed: World) -> None:
    """Names of models may have colons; names of upstreams, too."""
    with routed.workspace.write() as tx:
        add_upstream(tx, "a:b", Dialect.OPENAI, "http://127.0.0.1:9", "TEST_UPSTREAM_API_KEY")
        assert parse_way(tx, " second ") == ("second", None)
        assert parse_way(tx, "second:llama3:8b") == ("second", "llama3:8b")
        assert parse_way(tx, "a:b") == ("a:b", None)


def test_names_at_an_upstream_are_its_own(routed: World) -> None:
    """An invoice of it names them so."""
    route(routed, RouteWay(HERE), RouteWay("second", "gpt-b"))
    with routed.workspace.read() as tx:
        assert model_routes.names_at(tx, "second")[MODEL] == "gpt-b"
        assert model_routes.names_at(tx, HERE)[MODEL] == MODEL
