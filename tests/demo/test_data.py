"""The demo data: believable, the same each time, and in books that balance."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.conftest import ADMIN, usd
from toolkit import environment
from toolkit.admin import keys, organisations, plans, secret_lookup
from toolkit.admin.key_summaries import summaries
from toolkit.admin.prices import list_prices
from toolkit.billing.call import Call
from toolkit.billing.rules import Refuse
from toolkit.billing.stores import open_billing_store
from toolkit.checks import reconcile
from toolkit.core import tags
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Conflict, Refusal, RefusalType
from toolkit.core.policy import KeyStatus, Outcome
from toolkit.demo import data
from toolkit.demo.scenario import CREDITS, DAYS, KEYS, NEAR_LIMIT, ROTATED
from toolkit.demo.traffic import draw
from toolkit.reports import dimensions, refusals, spend
from toolkit.store import audit, transaction
from toolkit.store.tables import CatalogVersion
from toolkit.workspace import Workspace

CALLS = 4_000
NOW = datetime(2026, 11, 23, 15, 30, tzinfo=UTC)


def open_workspace(folder: Path) -> Workspace:
    """Open a Keydesk that does not wait for the disk."""
    environ = {"KEYDESK_DATA_DIR": str(folder), "KEYDESK_SQLITE_SYNCHRONOUS": "NORMAL"}
    return Workspace.open(environment.read_settings(environ), ADMIN, make=True)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A Keydesk with demo data that ends at NOW."""
    workspace = open_workspace(tmp_path_factory.mktemp("demo"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transaction, "store_now", lambda _tx: NOW)
        data.load(workspace, calls=CALLS)
    yield workspace
    workspace.close()


@pytest.fixture
def at_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every transaction happen at NOW."""
    monkeypatch.setattr(transaction, "store_now", lambda _tx: NOW)


def rows(workspace: Workspace, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a ledger query."""
    return [tuple(row.values()) for row in workspace.ledger.sql(query).to_pylist()]


def contents(workspace: Workspace) -> list[tuple[Any, ...]]:
    """Return what the calls of a load come to, without the random ids."""
    return rows(
        workspace,
        "SELECT org, key, model, outcome, refusal, admitted_at, input_tokens, output_tokens, cost, held, tags"
        " FROM usage ORDER BY admitted_at, key",
    )


@pytest.mark.world
def test_the_books_balance(loaded: Workspace) -> None:
    """Every invariant holds, and every check but that of open holds and segments had something to look at."""
    findings = reconcile.run(loaded)
    assert [finding.violations for finding in findings] == [[]] * len(findings)
    assert sum(finding.checked > 0 for finding in findings) >= 11


@pytest.mark.any_store
@pytest.mark.usefixtures("at_now")
def test_every_store_takes_the_data(workspace: Workspace) -> None:
    """Loaded in an interrupted and a second go, the books balance on SQLite and on PostgreSQL."""

    def interrupt(done: int, _all: int) -> None:
        if done > 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.load(workspace, interrupt, calls=300)
    calls = data.load(workspace, calls=300)
    assert calls > 250
    assert rows(workspace, "SELECT count(*), count(DISTINCT request_id) FROM usage") == [(calls, calls)]
    assert [finding for finding in reconcile.run(workspace) if finding.violations] == []


def test_all_of_the_cast_is_there(loaded: Workspace) -> None:
    """Three organisations with money, and every key under its plan; prices begin before the first call."""
    with loaded.read() as tx:
        found = {(one.org_name, one.key.name): one.plan_name for one in summaries(tx, deleted=True)}
        assert found == {(key.org, key.name): key.plan for key in KEYS}
        assert {org.name for org in organisations.list_all(tx)} == set(CREDITS)
        assert all(org.credited == 3 * usd(CREDITS[org.name]) for org in organisations.list_all(tx))
        first = min(price.valid_from for price in list_prices(tx))
    assert rows(loaded, "SELECT min(admitted_at) FROM usage") >= [(first,)]


def test_the_calls_cover_ninety_days_up_to_now(loaded: Workspace) -> None:
    """Not a call lies in the future, and no day is without one."""
    ((calls, days, last),) = rows(loaded, "SELECT count(*), count(DISTINCT day), max(admitted_at) FROM usage")
    assert calls >= CALLS * 0.95
    assert days == DAYS
    assert last < NOW


def test_weekdays_and_office_hours_show(loaded: Workspace) -> None:
    """The rhythm is there: more on working days, more by day."""
    working, weekend = (
        rows(loaded, f"SELECT count(*) / count(DISTINCT day) FROM usage WHERE isodow(day) {test}")[0][0]
        for test in ("<= 5", "> 5")
    )
    assert working > 1.5 * weekend
    day, night = (
        rows(loaded, f"SELECT count(*) FROM usage WHERE hour(admitted_at) {test}")[0][0]
        for test in ("BETWEEN 9 AND 16", "NOT BETWEEN 6 AND 21")
    )
    assert day > 2 * night


def test_one_key_runs_away(loaded: Workspace) -> None:
    """The busiest day of the sandbox is many times its usual one."""
    days = rows(loaded, "SELECT count(*) FROM usage WHERE key = 'agent-sandbox' GROUP BY day ORDER BY 1")
    counts = [count for (count,) in days]
    assert counts[-1] >= 5 * counts[len(counts) // 2]


def test_one_key_is_unused_one_deleted_one_rotated_one_near_its_limit(loaded: Workspace) -> None:
    """The states that a dashboard has to show."""
    with loaded.store.read(ADMIN, NOW) as tx:
        found = {one.key.name: one for one in summaries(tx, deleted=True)}
    assert found["spare-key"].last_used_at is None
    assert found["old-prototype"].key.status == KeyStatus.DELETED
    rotated = found[ROTATED.name]
    assert rotated.key.rotated_at is not None
    assert rotated.old_secret_uses == 37
    near = found[NEAR_LIMIT.name]
    assert near.key.monthly_limit is not None
    assert near.spent <= near.key.monthly_limit < near.spent * 100 / 94 + usd(1)


def test_errors_refusals_and_callers_who_left_are_there(loaded: Workspace) -> None:
    """Every way in which a call can end, but those that would need a crash or a crowd."""
    outcomes = dict(rows(loaded, "SELECT outcome, count(*) FROM usage GROUP BY outcome"))
    assert set(outcomes) == set(Outcome) - {Outcome.ABANDONED, Outcome.QUEUE_FULL}
    refusals = rows(loaded, "SELECT DISTINCT refusal FROM usage WHERE outcome = 'refused' ORDER BY 1")
    assert refusals == [("model_not_allowed",), ("unauthorized",)]


def test_uses_of_the_old_secret_are_logged_as_a_gateway_would(loaded: Workspace) -> None:
    """One row for each use that the key counts, at its moment, without a body: no model, no charge; and the counts."""
    refused = rows(
        loaded,
        "SELECT key, outcome, endpoint, model, cost, min(admitted_at), max(admitted_at), count(*) FROM usage"
        " WHERE refusal = 'unauthorized' GROUP BY ALL",
    )
    first, last = NOW - 37 * timedelta(hours=3), NOW - timedelta(hours=3)
    assert refused == [(ROTATED.name, "refused", "chat/completions", None, 0, first, last, 37)]
    counts = refusals.table(loaded.ledger).set_index("refusal")["calls"]
    assert counts["unauthorized"] == 37


def test_most_calls_say_what_they_are_for(loaded: Workspace) -> None:
    """Some keys' calls are tagged, some only in part, some not at all; a key may serve several teams."""
    by_team = spend.table(loaded.ledger, ["key", "tag:team"])
    teams = by_team.groupby("key")["tag:team"].agg(set).to_dict()
    assert teams["letter-drafts"] == {"clinic"}
    assert teams["support-chat"] == {"support", "search", dimensions.UNTAGGED}
    assert teams["translation"] == teams["nightly-reports"] == {dimensions.UNTAGGED}
    assert len(set().union(*teams.values())) == 8
    ((tagged, users),) = rows(
        loaded, "SELECT count(tags) / count(*), count(DISTINCT json_extract_string(tags, '/user')) FROM usage"
    )
    assert 0.6 < tagged < 0.8
    assert users > 30


def test_tags_are_those_that_a_gateway_would_have_read(loaded: Workspace) -> None:
    """Their text is the canonical one, within the bounds; a user is named where the provider's API has a field."""
    found = rows(loaded, "SELECT DISTINCT dialect, tags FROM usage WHERE tags IS NOT NULL")
    assert {dialect for dialect, text in found if "user" in text} == {"openai", "anthropic"}
    for dialect, text in found:
        pairs = dict(json.loads(text))
        user = pairs.pop("user", None)
        body = {} if user is None else {"user": user} if dialect == "openai" else {"metadata": {"user_id": user}}
        header = ", ".join(f"{name}={value}" for name, value in pairs.items()).encode()
        assert tags.read(Dialect(dialect), body, [(tags.HEADER, header)]) == text


def test_operators_have_acted(loaded: Workspace) -> None:
    """Creation, rotation, deletion and a changed limit are in the audit log, at the time of the story."""
    with loaded.read() as tx:
        counted = Counter(row.action for row in audit.rows(tx, limit=10_000))
    assert counted["key.create"] == len(KEYS)
    assert (counted["key.rotate"], counted["key.delete"], counted["key.update"], counted["demo.load"]) == (1, 1, 1, 1)
    assert counted["wallet.credit"] == 3 * len(CREDITS)


def test_a_second_load_is_refused(loaded: Workspace) -> None:
    """Loaded data is never loaded again."""
    assert data.is_loaded(loaded)
    with pytest.raises(Conflict, match="loaded already"):
        data.load(loaded, calls=CALLS)


@pytest.mark.world
@pytest.mark.usefixtures("at_now")
@pytest.mark.parametrize("stop", [1, 75])
def test_an_interrupted_load_resumes_where_it_stopped(tmp_path: Path, stop: int) -> None:
    """Cut short after any batch and resumed, the data is that of a load in one go; even if the ledger has drained."""
    whole, cut = open_workspace(tmp_path / "whole"), open_workspace(tmp_path / "cut")
    data.load(whole, calls=400)
    seen = 0

    def interrupt(_done: int, _all: int) -> None:
        nonlocal seen
        seen += 1
        if seen == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.load(cut, interrupt, calls=400)
    assert not data.is_loaded(cut)
    cut.ledger.sync()
    progress: list[tuple[int, int]] = []
    assert data.load(cut, lambda done, total: progress.append((done, total)), calls=400) == len(contents(whole))
    assert contents(cut) == contents(whole)
    assert all(finding.violations == [] for finding in reconcile.run(cut))
    if progress:
        assert progress[-1][0] == progress[-1][1]
    whole.close()
    cut.close()


@pytest.mark.usefixtures("at_now")
def test_real_calls_do_not_disturb_a_load(tmp_path: Path) -> None:
    """Keys of the same names elsewhere are not charged, and their calls do not pass for demo calls."""
    workspace = open_workspace(tmp_path)

    def interrupt(_done: int, _all: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.load(workspace, interrupt, calls=300)
    with workspace.write() as tx:
        org = organisations.add(tx, "Real")
        new = keys.create(tx, workspace.keyring, org=org.id, name="support-chat", plan="enterprise")
    with workspace.read() as tx:
        facts = secret_lookup.find_live(tx, [workspace.keyring.digest(new.secret).value])
        version = tx.session.scalars(select(CatalogVersion.version)).one()
    assert facts is not None
    call = Call("req_real", facts, NOW, "openai", "chat/completions", stream=False, model="gpt-5")
    refusal = Refusal(RefusalType.BILLING_SHORTFALL, "no money")
    with closing(open_billing_store(workspace.store)) as billing_store:
        assert billing_store.run([Refuse(call, refusal, NOW, version)]) == [True]
    assert data.load(workspace, calls=300) > 250
    assert rows(workspace, "SELECT count(*) FROM usage WHERE org = 'Real'") == [(1,)]
    assert rows(workspace, "SELECT count(*) > 250 FROM usage WHERE org <> 'Real'") == [(True,)]
    workspace.close()


def test_names_that_are_taken_are_a_conflict(tmp_path: Path) -> None:
    """An organisation that somebody else gave a name of the cast is not played into."""
    workspace = open_workspace(tmp_path)
    with workspace.write() as tx:
        organisations.add(tx, KEYS[0].org)
    with pytest.raises(Conflict, match="already an organisation named"):
        data.load(workspace, calls=100)
    with workspace.read() as tx:
        assert plans.list_all(tx) == []
    workspace.close()


def test_the_draw_is_the_same_each_time() -> None:
    """From one start the same calls come, in order of time, each at its own moment."""
    start = datetime(2026, 8, 26, tzinfo=UTC)
    first, second = draw(start, 2_000), draw(start, 2_000)
    assert first == second
    moments = [call.at for call in first]
    assert moments == sorted(moments)
    assert len(set(moments)) == len(moments)
    assert all(start <= moment < start + timedelta(days=DAYS) for moment in moments)
    assert all(call.cached_tokens + call.cache_write_tokens <= call.input_tokens for call in first)
