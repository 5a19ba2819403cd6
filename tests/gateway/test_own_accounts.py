"""Provider accounts of organisations: each serves the keys of its own alone, and to others there is no such thing."""

import contextlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import select

from tests.conftest import usd, wait_until
from tests.gateway.conftest import Gate, RawUpstream, Reply, Script, make_gate, raw_upstream, request_of
from tests.gateway.test_several_upstreams import GOOD_STREAM, failure, good
from toolkit.admin import keys, organisations, plans
from toolkit.admin.model_routes import RouteWay, set_route
from toolkit.admin.models import add_model
from toolkit.admin.upstreams import add_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.pricing import MILLION, PriceSheet
from toolkit.store.tables import UpstreamIncident

pytestmark = pytest.mark.any_store

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Scene:
    """Two organisations with a key of the same plan, an account of the first one's own, and everybody's.

    Args:
        mine, others: keys of the organisation with the account, and of the one without.
        own, everybodys: the upstreams.
        name: what both, their credentials and models are called by.
    """

    mine: Gate
    others: Gate
    own: RawUpstream
    everybodys: RawUpstream
    name: str

    def route(self, *ways: str, model: str = "both", **options: str) -> None:
        """Say which of `own` and `shared` serve a model, in which order; with a price of another model, if given."""
        with self.mine.workspace.write() as tx:
            route = [RouteWay(f"{way}-{self.name}", price_model=options.get(way)) for way in ways]
            set_route(tx, f"{model}-{self.name}", route)

    def ask(self, gate: Gate, model: str = "both", *, stream: bool = False) -> Reply:
        """Ask a model something."""
        path, body = request_of("chat", "hello", stream=stream, model=f"{model}-{self.name}")
        return gate.send(path, body)

    @property
    def credential(self) -> str:
        """The value of the organisation's own credential."""
        return f"value-of-{self.name}"


@contextlib.contextmanager
def scene(gate: Gate, own: Script, everybodys: Script) -> Iterator[Scene]:
    """Have an organisation bring an account; a model is served there and by everybody's, and one there alone."""
    name = f"acc{next(_numbers)}"
    with raw_upstream(own) as mine, raw_upstream(everybodys) as shared:
        secrets = gate.running.log.with_name("secrets")
        others = make_gate(gate.running)
        with gate.workspace.write() as tx:
            own_name = f"OWN_{name}_API_KEY"
            secrets.write_text(f"{own_name}=value-of-{name}\n")
            secrets.chmod(0o600)
            add_upstream(tx, f"own-{name}", Dialect.OPENAI, mine.url, own_name, org=gate.org_id)
            add_upstream(tx, f"shared-{name}", Dialect.OPENAI, shared.url, "TEST_UPSTREAM_API_KEY")
            sheet = PriceSheet.flat(input=usd(10), output=usd(8))
            for model, at in (("both", "shared"), ("only", "own")):
                add_model(tx, f"{model}-{name}", f"{at}-{name}", sheet=sheet, context_window=100_000, max_output=8_192)
            plan = plans.add(tx, name, MILLION, [f"both-{name}", f"only-{name}"])
            made = [
                keys.create(tx, gate.workspace.keyring, org=each.org_id, name=name, plan=plan.id)
                for each in (gate, others)
            ]
        found = Scene(replace(gate, key=made[0]), replace(others, key=made[1]), mine, shared, name)
        found.route("shared", "own")
        yield found
        secrets.unlink()


COST = 10 * 10_000 + 5 * 8_000
"""What a `good` answer costs at the price of the scene's models, nano-USD."""


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_an_own_account_serves_its_organisation_first_and_nobody_else(gate: Gate, streamed: bool) -> None:
    """With its own credential, wherever it stands in the route; charged as the model's price says."""
    answer = GOOD_STREAM if streamed else good()
    with scene(gate, [answer], [answer]) as found:
        assert found.ask(found.mine, stream=streamed).status == 200
        assert (len(found.own.requests), len(found.everybodys.requests)) == (1, 0)
        assert f"Bearer {found.credential}".encode() in found.own.requests[0]
        assert (found.mine.row().upstream, found.mine.row().cost) == (f"own-{found.name}", COST)
        assert found.ask(found.others, stream=streamed).status == 200
        assert (len(found.own.requests), len(found.everybodys.requests)) == (1, 1)
        assert found.credential.encode() not in found.everybodys.requests[0]
        assert (found.others.row().upstream, found.others.row().cost) == (f"shared-{found.name}", COST)


def test_it_falls_back_to_everybodys_and_nobody_falls_back_to_it(gate: Gate) -> None:
    """As the route says; another organisation gets the error of what serves it, without a word of the account."""
    with scene(gate, [failure(503, "too busy")], [good()]) as found:
        assert found.ask(found.mine).status == 200
        assert (len(found.own.requests), len(found.everybodys.requests)) == (1, 1)
        assert found.mine.row().upstream == f"shared-{found.name}"
    with scene(gate, [good()], [failure(503, "too busy")]) as found:
        assert found.ask(found.others).status == 503
        row = found.others.row()
        assert (row.status, row.upstream, row.cost) == (503, f"shared-{found.name}", 0)
        assert f"own-{found.name}" not in (row.error or "")
        assert found.own.requests == []
        assert found.ask(found.mine).status == 200


def test_without_everybodys_in_the_route_it_alone_serves(gate: Gate) -> None:
    """What its provider refuses is then the organisation's answer, and an incident of this upstream alone."""
    with scene(gate, [failure(401, "no such key")], [good()]) as found:
        found.route("own")
        assert found.ask(found.mine).status == 502
        assert found.everybodys.requests == []

        def incidents() -> list[str]:
            query = select(UpstreamIncident.upstream).where(UpstreamIncident.upstream.contains(found.name))
            with gate.workspace.read() as tx:
                return list(tx.session.scalars(query))

        wait_until(incidents, "an incident is written")
        assert incidents() == [f"own-{found.name}"]


def test_a_model_of_a_foreign_account_alone_is_as_unknown(gate: Gate) -> None:
    """Called or looked up, in every dialect: byte for byte what a name gets that nobody has."""
    with scene(gate, [good()], [good()]) as found:
        known, unknown = f"only-{found.name}", f"none-{found.name}"
        for path, body in (
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
            ("/v1/messages", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}),
            ("/v1beta/models/NAME:generateContent", {"contents": [{"parts": [{"text": "x"}]}]}),
            ("/v1/models/NAME", None),
        ):
            told = []
            for name in (known, unknown):
                sent = {**body, "model": name} if body is not None and "NAME" not in path else body
                method = "POST" if body is not None else "GET"
                reply = found.others.send(path.replace("NAME", name), sent, method=method)
                told.append((reply.status, re.sub(rb"req_\w+", b"", reply.body).replace(name.encode(), b"NAME")))
            assert told[0] == told[1]
            assert told[0][0] == 404
        assert found.ask(found.mine, "only").status == 200
        assert len(found.own.requests) == 1


def test_lists_have_what_is_served_and_by_whom(gate: Gate) -> None:
    """The own account is named to its organisation alone, in the list of models; no key is told of any by itself."""
    with scene(gate, [good()], [good()]) as found:
        both, only = f"both-{found.name}", f"only-{found.name}"
        for each, models in ((found.mine, {both: "own", only: "own"}), (found.others, {both: "shared"})):
            listed = each.send("/v1/models", method="GET").json["data"]
            assert {row["id"]: row["owned_by"] for row in listed} == {
                model: f"{at}-{found.name}" for model, at in models.items()
            }
            told = each.send("/v1/key", method="GET")
            assert [row["id"] for row in told.json["callable_models"]] == sorted(models)
            assert (f"own-{found.name}".encode() in told.body) is False


def test_the_hold_covers_the_ways_that_a_caller_has(gate: Gate) -> None:
    """A dearer foreign account makes no call of others dearer to hold; the own one's calls are charged by its price."""
    with scene(gate, [good()], [good()]) as found:
        with gate.workspace.write() as tx:
            add_model(
                tx, f"dear-{found.name}", f"own-{found.name}", sheet=PriceSheet.flat(input=usd(90), output=usd(90))
            )
        assert found.ask(found.others).status == 200
        found.route("own", "shared", own=f"dear-{found.name}")
        assert found.ask(found.others).status == 200
        first, second = found.others.rows()
        assert first.held == second.held
        assert found.ask(found.mine).status == 200
        assert found.mine.row().cost == 15 * 90_000
        assert found.mine.row().held > first.held


def test_accounts_of_two_organisations_in_one_route(gate: Gate) -> None:
    """Each serves its own organisation."""
    with scene(gate, [good()], [good()]) as found, raw_upstream([good()]) as second:
        with gate.workspace.write() as tx:
            add_upstream(
                tx, f"second-{found.name}", Dialect.OPENAI, second.url, "TEST_OTHERS_API_KEY", org=found.others.org_id
            )
        secrets = gate.running.log.with_name("secrets")
        secrets.write_text(f"{secrets.read_text()}TEST_OTHERS_API_KEY=value-of-others\n")
        found.route("own", "second", "shared")
        assert [found.ask(each).status for each in (found.mine, found.others, found.others)] == [200, 200, 200]
        assert [len(each.requests) for each in (found.own, second, found.everybodys)] == [1, 2, 0]
        assert b"Bearer value-of-others" in second.requests[0]


def test_a_suspended_organisations_account_serves_nobody(gate: Gate) -> None:
    """Its own keys are refused, and others are as before; when it is resumed it serves again."""
    with scene(gate, [good()], [good()]) as found:
        with gate.workspace.write() as tx:
            name = organisations.find(tx, gate.org_id).name
            organisations.suspend(tx, gate.org_id, confirm=name)
        assert [found.ask(each).status for each in (found.mine, found.others)] == [403, 200]
        assert found.own.requests == []
        with gate.workspace.write() as tx:
            organisations.resume(tx, gate.org_id, confirm=name)
        assert found.ask(found.mine).status == 200
        assert len(found.own.requests) == 1


def test_a_model_that_moves_to_an_own_account_is_gone_for_others_from_the_next_call_on(gate: Gate) -> None:
    """And comes back with everybody's."""
    with scene(gate, [good()], [good()]) as found:
        assert found.ask(found.others).status == 200
        found.route("own")
        assert found.ask(found.others).status == 404
        assert found.ask(found.mine).status == 200
        found.route("shared")
        assert [found.ask(each).status for each in (found.mine, found.others)] == [200, 200]
        assert (len(found.own.requests), len(found.everybodys.requests)) == (1, 3)
