"""How well holds foretold charges: sums, ratio and overruns."""

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import World, examples
from tests.rows import NOON, append, row
from toolkit.core.errors import InvalidInput
from toolkit.core.period import Period
from toolkit.ledger.ledger import Ledger
from toolkit.reports import hold_accuracy
from toolkit.store.actor import SYSTEM
from toolkit.store.database import Store
from toolkit.store.tables import ApiKey

DAY = timedelta(days=1)


def charged(key: ApiKey, cost: int, at: datetime = NOON, **columns: Any) -> dict[str, Any]:
    """Return the row of a call that was charged by its usage."""
    return row(key, at, cost=cost, usage_source="reported", **columns)


def test_hold_accuracy_is_held_over_charged(world: World) -> None:
    """Each key and model has its holds, charges, their ratio and its overruns, in whole nano-USD."""
    app, batch = world.key("app").key, world.key("batch").key
    rows = [
        charged(app, 100, held=300),
        charged(app, 200, held=360),
        charged(app, 7, held=20, model="claude-test"),
        row(app, held=5_000, outcome="upstream_error"),  # says nothing about its hold
        row(app, outcome="refused", refusal="model_not_allowed"),
        charged(batch, 900, held=500, overrun=400),
        charged(batch, 100, held=100),
        charged(batch, 50, at=NOON - DAY, held=1, overrun=49),
        charged(batch, 0, held=0, model="embed-test"),
    ]
    append(world.workspace.store, rows)
    columns = ["key", "model", "calls", "held", "cost", "ratio", "overruns", "overrun"]
    ledger, today = world.workspace.ledger, Period.days(1, NOON)
    frame = hold_accuracy.table(ledger, period=today)
    assert frame[columns].values.tolist() == [
        ["batch", "gpt-test", 2, 600, 1000, Decimal("0.60"), 1, 400],
        ["app", "gpt-test", 2, 660, 300, Decimal("2.20"), 0, 0],
        ["app", "claude-test", 1, 20, 7, Decimal("2.86"), 0, 0],
        ["batch", "embed-test", 1, 0, 0, None, 0, 0],
    ]
    assert hold_accuracy.table(ledger, ["org"])[["held", "cost", "overruns", "overrun"]].values.tolist() == [
        [1281, 1357, 2, 449]
    ]
    assert hold_accuracy.table(ledger, key=app.id)["key"].tolist() == ["app", "app"]
    assert hold_accuracy.table(ledger, org="Acme", key="batch")["held"].tolist() == [601, 0]
    with pytest.raises(InvalidInput, match="Hold accuracy is grouped by"):
        hold_accuracy.table(ledger, ["colour"])


@examples(8)
@given(held=st.integers(0, 2**56), cost=st.integers(1, 2**62))
def test_the_ratio_is_exact(tmp_path_factory: pytest.TempPathFactory, held: int, cost: int) -> None:
    """The ratio is the exact quotient, rounded to two decimals half up, however large the amounts are."""
    folder = tmp_path_factory.mktemp("ratio")
    store = Store(f"sqlite:///{folder / 'keydesk.db'}", synchronous="NORMAL")
    store.migrate()
    append(store, [row(cost=cost, held=held, usage_source="reported")])
    ledger = Ledger(store, folder / "ledger", SYSTEM)
    (ratio,) = hold_accuracy.table(ledger)["ratio"]
    exact = Fraction(held, cost)
    assert Fraction(ratio) - Fraction(1, 200) <= exact < Fraction(ratio) + Fraction(1, 200)
    assert ratio.as_tuple().exponent == -2
    store.close()
