"""Refused fields in the key store: what gateways count adds up, and what an operator has set is no finding."""

from datetime import timedelta

import pytest

from tests.conftest import World
from toolkit.admin.upstreams import update_upstream
from toolkit.core.upstream_traits import OutputBound
from toolkit.store import refused_fields
from toolkit.store.actor import SYSTEM
from toolkit.store.refused_fields import KEPT, Refused
from toolkit.store.tally import Tallies

pytestmark = pytest.mark.any_store

UPSTREAM = "test-openai"


def note(world: World, *names: str, model: str = "m", times: int = 1, ago: timedelta = timedelta()) -> None:
    """Count that a model refused these fields, as a gateway of its own does."""
    tallies = Tallies(world.workspace.store)
    tally = tallies.tally(refused_fields.add)
    with world.workspace.read() as tx:
        at = tx.now - ago
    for name in names:
        tally.count((UPSTREAM, model, name), at, times)
    tallies.flush()


def refused(world: World) -> list[Refused]:
    """Return what the store has."""
    with world.workspace.store.read(SYSTEM) as tx:
        return refused_fields.refused(tx)


def test_counts_of_several_gateways_and_models_add_up(world: World) -> None:
    """By upstream and field; first and last are kept."""
    note(world, "stream_options", times=3, ago=timedelta(days=2))
    note(world, "stream_options", model="n")
    note(world, "stream_options", "max_output_tokens")
    bound, options = refused(world)
    assert (options.name, options.models, options.times) == ("stream_options", ("m", "n"), 5)
    assert timedelta(days=2) <= options.last_at - options.first_at < timedelta(days=3)
    assert (bound.name, bound.times) == ("max_output_tokens", 1)


def test_what_an_operator_has_set_is_not_refused_any_more(world: World) -> None:
    """One by one; a bound is then called otherwise."""
    note(world, "stream_options", "max_completion_tokens", "include")
    with world.workspace.write() as tx:
        update_upstream(tx, UPSTREAM, add_stream_options=False)
    assert [row.name for row in refused(world)] == ["include", "max_completion_tokens"]
    with world.workspace.write() as tx:
        update_upstream(tx, UPSTREAM, output_bound=OutputBound.MAX_TOKENS, add_include=False)
    assert refused(world) == []


def test_what_is_long_past_is_forgotten(world: World) -> None:
    """When the next one is added."""
    note(world, "store", ago=KEPT + timedelta(days=1))
    note(world, "include")
    assert [row.name for row in refused(world)] == ["include"]
