"""A trial says what a monthly limit would have refused, by default the one that the audit proposes."""

# ruff: noqa: F401, F811 - fixtures are imported, and are arguments of tests

from datetime import UTC, datetime, timedelta

import pytest

from tests.conftest import World, usd
from tests.reports.test_attribution import called
from tests.reports.test_whatif import NOVEMBER, NOW, used
from tests.rows import append
from toolkit.admin import keys
from toolkit.checks import limit_backtest
from toolkit.core.errors import NotFound
from toolkit.core.money import NANO
from toolkit.core.period import Period
from toolkit.store.tables import KeyMonth


@pytest.fixture
def wild(world: World) -> World:
    """Two keys that spend a dollar a day for 100 days; `wild` spent 40 on 8 and on 9 November, `calm` nothing more."""
    day = timedelta(days=1)
    for name in ("wild", "calm"):
        key = world.key(name, monthly_limit=None).key
        with world.workspace.write() as tx:
            keys.find(tx, name).created_at = NOW - 120 * day
        costs = {7: usd(40), 6: usd(40)} if name == "wild" else {}
        append(world.workspace.store, [called(key, NOW - n * day, costs.get(n, usd(1)) // 2_000) for n in range(100)])
        with world.workspace.write() as tx:
            for month, spent in (("2026-10", usd(31)), ("2026-11", usd(15) + sum(costs.values()) - len(costs) * NANO)):
                tx.session.add(KeyMonth(key_id=key.id, month=month, calls=1, spent=spent, held=0, last_call_at=tx.now))
    return world


def test_a_trial_tries_what_the_audit_proposes_on_the_key_that_ran_away(wild: World) -> None:
    """Twice October's 31 dollars would have refused the second wild day, after 7 + 40 dollars, and nothing else."""
    with wild.workspace.read() as tx:
        key_id = keys.find(tx, "wild").id
    found = limit_backtest.run(wild.workspace.ledger, NOW)
    assert (found.key_id, found.month, found.limit) == (key_id, "2026-11", usd(62))
    assert found.words == (
        "In 2026-11, a limit of $62.00 would have refused 1 of 15 calls of wild, $40.00 of $93.00, from 2026-11-09 on."
    )
    assert found.period == Period(NOVEMBER.start, NOW + timedelta(microseconds=1))
    assert found.replay.spend["cost"].tolist() == [usd(93)]


def test_a_trial_goes_by_what_is_asked_for(wild: World) -> None:
    """Another key, limit or month, or all keys; nothing refused is said plainly."""
    ledger = wild.workspace.ledger
    calm = limit_backtest.run(ledger, NOW, key="calm", month="2026-10")
    assert calm.words == "In 2026-10, a limit of $62.00 would have refused none of 31 calls of calm, which cost $31.00."
    every = limit_backtest.run(ledger, NOW, key="all", limit=usd(30), month="2026-10")
    assert every.key_id is None
    assert every.words == (
        "In 2026-10, a limit of $30.00 a key would have refused 2 of 62 calls, $2.00 of $62.00, from 2026-10-31 on."
    )
    own = limit_backtest.run(ledger, NOW, key="all", month="2026-10")
    assert own.words == "In 2026-10, each key's own limit would have refused none of 62 calls, which cost $62.00."
    assert limit_backtest.run(ledger, NOW, key="wild", month="2026-06").words == "Nothing was called in 2026-06."
    with pytest.raises(NotFound):
        limit_backtest.run(ledger, NOW, key="nobody")


def test_a_trial_without_a_runaway_looks_at_the_costliest_key(used: World) -> None:
    """Where no day stood out it is the key that cost most in the month that is looked at."""
    found = limit_backtest.run(used.workspace.ledger, NOW + timedelta(hours=1), limit=usd(2), month="2026-11")
    assert found.words == (
        "In 2026-11, a limit of $2.00 would have refused 1 of 2 calls of app, $2.00 of $4.00, from 2026-11-15 on."
    )


def test_a_trial_of_an_empty_keydesk_says_so(world: World) -> None:
    """Before the first call there is nothing to try."""
    found = limit_backtest.run(world.workspace.ledger, datetime.now(UTC))
    assert found.key_id is None
    assert found.words.startswith("Nothing was called in ")
