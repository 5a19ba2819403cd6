"""Refusals are counted, those that were not logged too."""

from datetime import timedelta

import pandas as pd

from tests.conftest import World
from tests.rows import NOON
from toolkit.core.moments import micros
from toolkit.core.period import Period
from toolkit.reports import refusals, spend
from toolkit.store.tables import ApiKey, RefusalCount

DAY = timedelta(days=1)


def test_refusals_count_what_was_not_logged(world: World, app: ApiKey) -> None:
    """Refusals beyond those that a minute logs are counted too; those of another month are not."""
    with world.workspace.write() as tx:
        for at, refused in ((NOON, 500), (NOON - 40 * DAY, 9)):
            minute = micros(at) // 60_000_000 + 1
            tx.session.add(RefusalCount(key_id=app.id, refusal="model_not_allowed", minute=minute, refused=refused))
    november = refusals.table(world.workspace.ledger, Period.month("2026-11"))
    assert november[["refusal", "key", "calls"]].values.tolist() == [["model_not_allowed", "app", 500]]
    assert november["last_at"].tolist() == [pd.Timestamp(NOON + timedelta(minutes=1))]
    assert spend.totals(world.workspace.ledger, Period.month("2026-11")).refused == 500
