"""Models: added with a price, moved to another upstream, and kept within limits that make sense."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.conftest import OPENAI_SHEET, World
from toolkit.admin import catalog
from toolkit.admin.models import add_model, list_models, update_model
from toolkit.admin.prices import list_prices
from toolkit.admin.public_prices import public_price
from toolkit.admin.upstreams import add_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput, NotFound
from toolkit.core.pricing import PriceSheet
from toolkit.store import audit

pytestmark = pytest.mark.any_store
AT = datetime(2026, 11, 1, tzinfo=UTC)


def test_a_model_without_prices_takes_the_public_ones(world: World) -> None:
    """By the dialect's provider and the upstream's name, or by another one that is named."""
    with world.workspace.write() as tx:
        add_model(tx, "fast", "test-openai", upstream_model="gpt-5-mini")
        add_model(tx, "local", "test-openai", price_as="anthropic/claude-sonnet-4-5", context_window=32_000)
        (fast,) = list_prices(tx, "fast")
        (local,) = list_prices(tx, "local")
        models = {model.id: model for model in list_models(tx)}
    assert fast.source.endswith("openai/gpt-5-mini")
    assert PriceSheet.from_json(local.sheet) == public_price("anthropic/claude-sonnet-4-5", AT).sheet
    assert (models["fast"].upstream_model, models["fast"].context_window) == ("gpt-5-mini", 400_000)
    assert (models["local"].upstream_model, models["local"].context_window) == ("local", 32_000)


def test_a_model_nobody_has_a_price_for_is_not_added(world: World) -> None:
    """No model without a price; the catalog stays as it was."""
    with world.workspace.read() as tx:
        before = catalog.load(tx)
    with world.workspace.write() as tx, pytest.raises(NotFound):
        add_model(tx, "my-own-llama", "test-openai")
    with world.workspace.read() as tx:
        assert catalog.load(tx) == before


@pytest.mark.parametrize(
    "options",
    [
        {"context_window": 0},
        {"context_window": -1},
        {"context_window": 100_000_001},
        {"max_output": 0},
        {"default_output": 0},
        {"default_output": 20_000, "max_output": 10_000},
        {"price_as": "openai/gpt-5"},
        {"valid_from": datetime(2027, 1, 1)},  # noqa: DTZ001 - the very mistake
    ],
)
def test_a_model_that_makes_no_sense_is_refused(world: World, options: dict[str, Any]) -> None:
    """A zero is not taken for "not given"; prices are given or copied, not both."""
    with world.workspace.write() as tx, pytest.raises(InvalidInput):
        add_model(tx, "new", "test-openai", sheet=OPENAI_SHEET, **options)


def test_a_model_is_pointed_to_another_upstream(world: World) -> None:
    """Gateways see the new place; what was not given stays, price included; the audit row has before and after."""
    with world.workspace.write() as tx:
        add_upstream(tx, "real", Dialect.OPENAI, "https://api.example.com/v1", "SOME_API_KEY")
        before = catalog.load(tx)
        update_model(tx, "gpt-test", upstream="real", upstream_model="gpt-5", max_output=9_000)
        after = catalog.load(tx)
        (act,) = [row for row in audit.rows(tx, subject="gpt-test") if row.action == "model.update"]
    old, new = before.models["gpt-test"], after.models["gpt-test"]
    assert after.version > before.version
    assert (new.base_url, new.upstream_model, new.max_output) == ("https://api.example.com/v1", "gpt-5", 9_000)
    assert (new.context_window, new.default_output, new.prices) == (old.context_window, old.default_output, old.prices)
    assert '"upstream": "test-openai"' in (act.before or "")
    assert '"upstream": "real"' in (act.after or "")


@pytest.mark.parametrize(
    "options",
    [
        {"upstream": "test-anthropic"},
        {"context_window": 0},
        {"default_output": 8_193},
        {"max_output": 4_095},
        {"max_output": 100_000_001},
    ],
)
def test_a_model_is_not_changed_into_what_makes_no_sense(world: World, options: dict[str, Any]) -> None:
    """Another dialect, impossible limits: refused, and nothing changes."""
    with world.workspace.read() as tx:
        before = catalog.load(tx)
    with world.workspace.write() as tx, pytest.raises(InvalidInput):
        update_model(tx, "gpt-test", **options)
    with world.workspace.read() as tx:
        assert catalog.load(tx) == before


@pytest.mark.parametrize("model_id", ["", "-x", "a b", "a\nb", "x" * 129, "модель", "a?b"])
def test_a_model_id_that_no_path_could_hold_is_refused(world: World, model_id: str) -> None:
    """Letters, digits and a few signs."""
    with world.workspace.write() as tx, pytest.raises(InvalidInput, match="model id"):
        add_model(tx, model_id, "test-openai", sheet=OPENAI_SHEET)


def test_limits_have_sensible_defaults(world: World) -> None:
    """What is not known is 131,072 tokens of window and 16,384 of output; a default never exceeds the maximum."""
    with world.workspace.write() as tx:
        plain = add_model(tx, "plain", "test-openai", sheet=OPENAI_SHEET)
        small = add_model(tx, "small", "test-openai", sheet=OPENAI_SHEET, max_output=1_000)
        large = add_model(tx, "large", "test-openai", sheet=OPENAI_SHEET, max_output=128_000)
    assert (plain.context_window, plain.default_output, plain.max_output) == (131_072, 16_384, 16_384)
    assert (small.default_output, large.default_output) == (1_000, 16_384)


@pytest.mark.parametrize("name", ["x" * 257, "a\u202eb", "a\nb"])
def test_a_name_at_the_upstream_has_a_length_and_is_what_it_looks_like(world: World, name: str) -> None:
    """When a model is added and when it is changed."""
    sheet = PriceSheet.flat(input=1, output=1)
    with world.workspace.write() as tx:
        with pytest.raises(InvalidInput, match="name of the model at the upstream"):
            add_model(tx, "fresh", "test-openai", upstream_model=name, sheet=sheet)
        with pytest.raises(InvalidInput, match="name of the model at the upstream"):
            update_model(tx, "gpt-test", upstream_model=name)
