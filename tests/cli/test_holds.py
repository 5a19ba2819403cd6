"""`keydesk holds` and `accuracy`, run in process on a real store."""

import json
import re
from datetime import timedelta

import pytest

from tests.books import Books
from tests.conftest import Run, World, usd
from toolkit.store.transaction import utc_now

pytestmark = pytest.mark.any_store

HOUR = timedelta(hours=1)


def test_holds_lists_the_oldest_first(world: World, run: Run) -> None:
    """Each open hold has key, model, amount, age and gateway; `--orphaned` and `--org` leave some out."""
    assert run("holds").stdout == "Nothing is held: no call is under way.\n"
    books, key = Books(world), world.key("app").key
    books.gateway("gateway_lives")
    books.hold(key, usd(2), at=utc_now() - HOUR, instance="gateway_lives")
    books.hold(key, usd(3), at=utc_now() - 2 * HOUR, instance="gateway_died")
    rows = json.loads(run("holds", "--json").stdout)
    assert [(row["request_id"], row["amount_usd"], row["instance_id"], row["orphaned"]) for row in rows] == [
        ("req_hold_0002", "3", "gateway_died", True),
        ("req_hold_0001", "2", "gateway_lives", False),
    ]
    assert [row["age_seconds"] // 60 for row in rows] == [120, 60]
    (orphan,) = json.loads(run("holds", "--orphaned", "--json").stdout)
    assert (orphan["key"], orphan["org"], orphan["model"]) == ("app", "Acme", "gpt-test")
    assert re.search(r"\$3\.00  gateway_died +yes", run("holds").stdout)
    assert run("holds", "--org", "Nobody").exit_code == 1


def test_accuracy_shows_the_ratio_and_overruns(world: World, run: Run) -> None:
    """Held, charged, their ratio and overruns stand for each key and model."""
    assert run("accuracy").stdout == "No call was charged in this period.\n"
    books = Books(world)
    books.settle(world.key("app").key, usd(2), held=usd(5))
    books.settle(world.key("batch").key, usd(4), held=usd(3))
    rows = json.loads(run("accuracy", "--json").stdout)
    fields = ("key", "model", "calls", "held_usd", "cost_usd", "ratio", "overruns", "overrun_usd")
    assert [tuple(row[field] for field in fields) for row in rows] == [
        ("batch", "gpt-test", 1, "3", "4", "0.75", 1, "1"),
        ("app", "gpt-test", 1, "5", "2", "2.50", 0, "0"),
    ]
    assert [row["key"] for row in json.loads(run("accuracy", "--key", "app", "--json").stdout)] == ["app"]
    assert run("accuracy", "--to", "2026-11-01").stdout == "No call was charged in this period.\n"
