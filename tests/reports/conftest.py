"""A key with calls of all kinds, for the tests of reports."""

from datetime import timedelta

import pytest

from tests.conftest import World
from tests.rows import NOON, append, row
from toolkit.store.tables import ApiKey

DAY = timedelta(days=1)


@pytest.fixture
def app(world: World) -> ApiKey:
    """A key with some history: spend on three days, a refusal, an upstream error and an abandoned call."""
    key = world.key("app").key
    rows = [
        row(key, NOON - 2 * DAY, cost=5, input_tokens=10, cached_input_tokens=4, output_tokens=2),
        row(key, NOON - DAY, cost=700, model="claude-test", dialect="anthropic", input_tokens=20),
        row(key, NOON, cost=30),
        row(key, NOON + timedelta(minutes=1), outcome="refused", refusal="model_not_allowed", status=403),
        row(key, NOON + timedelta(minutes=2), outcome="upstream_error", refusal="upstream_error", status=502),
        row(key, NOON + timedelta(minutes=3), outcome="abandoned", status=0, held=99),
        row(key, NOON + timedelta(minutes=4), outcome="aborted", cost=1),
    ]
    append(world.workspace.store, rows[:3])
    world.workspace.ledger.sync()
    append(world.workspace.store, rows[3:])
    return key
