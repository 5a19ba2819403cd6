"""Requests are found by what they have, page by page, by whoever may see them."""

from datetime import timedelta
from itertools import pairwise

import pytest

from tests.conftest import World
from tests.rows import NOON, append, row
from toolkit.admin import keys
from toolkit.core.errors import NotFound
from toolkit.core.period import Period
from toolkit.core.policy import Role
from toolkit.reports import requests, spend
from toolkit.store.actor import Actor
from toolkit.store.tables import ApiKey


def test_overruns_are_found(world: World, app: ApiKey) -> None:
    """`overrun` leaves only the calls that cost more than was held for them."""
    (wanted,) = append(world.workspace.store, [row(app, cost=9, held=5, overrun=4)])
    assert requests.search(world.workspace.ledger, overrun=True)["request_id"].tolist() == [wanted]


def test_requests_are_found_newest_first(world: World, app: ApiKey) -> None:
    """Requests come newest first, and each filter leaves only what fits it."""
    ledger = world.workspace.ledger
    frame = requests.search(ledger)
    assert list(frame.columns) == ledger.sql("SELECT * FROM usage").column_names
    assert all(later > earlier for later, earlier in pairwise(frame["admitted_at"]))
    assert requests.search(ledger, outcome="refused")["refusal"].tolist() == ["model_not_allowed"]
    assert requests.search(ledger, model="claude-test")["cost"].tolist() == [700]
    assert len(requests.search(ledger, key=app.id, period=Period.days(1, NOON))) == 5
    assert len(requests.search(ledger, key="app", org="Acme")) == 7
    with pytest.raises(NotFound):
        requests.search(ledger, key="key_elsewhere")


def test_requests_are_read_page_by_page(world: World, app: ApiKey) -> None:
    """Pages of three hold every request once, in the order of the whole."""
    ledger = world.workspace.ledger
    whole = requests.search(ledger)["request_id"].tolist()
    pages, before = list[list[str]](), None
    while page := requests.search(ledger, limit=3, before=before)[["admitted_at", "request_id"]].values.tolist():
        pages.append([request_id for _, request_id in page])
        before = page[-1][0].to_pydatetime(), page[-1][1]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert sum(pages, []) == whole  # noqa: RUF017 - seven ids


def test_a_page_goes_on_where_the_one_before_ended(world: World, app: ApiKey) -> None:
    """Calls that come meanwhile move nothing; calls of the same moment are told apart by their ids."""
    ledger = world.workspace.ledger
    whole = requests.search(ledger)
    third = whole.to_dict("records")[2]
    append(ledger.store, [row(app, NOON + timedelta(hours=1))])
    place = third["admitted_at"].to_pydatetime(), third["request_id"]
    behind = requests.search(ledger, before=place)["request_id"].tolist()
    assert behind == whole["request_id"].tolist()[3:]
    assert requests.search(ledger, period=Period(NOON), before=(NOON - timedelta(days=1), "")).empty


def test_deleted_keys_requests_are_found_by_id(world: World, app: ApiKey) -> None:
    """A request of a deleted key is still found by its id, in the outbox or in a segment, and named."""
    ledger = world.workspace.ledger
    wanted = requests.search(ledger)["request_id"].tolist()
    with world.workspace.write() as tx:
        keys.delete(tx, app.id, confirm="app")
    for request_id in wanted:
        found = requests.search(ledger, request_id=request_id)
        assert found[["request_id", "key_label"]].values.tolist() == [[request_id, "app (deleted)"]]


def test_other_orgs_requests_are_not_found(world: World, app: ApiKey) -> None:
    """An admin of another organisation finds nothing, by id neither."""
    stranger = Actor("boss@globex.example", Role.ORG_ADMIN, "org_globex")
    ledger = world.workspace.acting_as(stranger).ledger
    request_id = requests.search(world.workspace.ledger)["request_id"].iloc[0]
    assert requests.search(ledger, request_id=request_id).empty
    assert spend.table(ledger, ["key"]).empty
    with pytest.raises(NotFound):
        spend.table(ledger, ["key"], org=world.org_id)
    assert spend.totals(ledger).calls == 0
