"""A replay charges each call as the gateway would have, and refuses what the limit or the plan would have refused."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Run, World, examples, usd
from tests.reports.test_attribution import SHEET, called
from tests.rows import append, row
from toolkit.admin import keys, plans
from toolkit.admin.prices import set_price
from toolkit.core.errors import InvalidInput, NotFound
from toolkit.core.money import NANO
from toolkit.core.period import Period
from toolkit.core.policy import Role
from toolkit.core.pricing import MILLION, PriceSheet, Tier, charge
from toolkit.core.usage import Usage
from toolkit.ledger.ledger import Ledger
from toolkit.reports import whatif
from toolkit.store.actor import SYSTEM, Actor
from toolkit.store.database import Store

NOW = datetime(2026, 11, 15, 12, tzinfo=UTC)
NOVEMBER = Period.month("2026-11")
MINUTE = timedelta(minutes=1)
FIGURES = ["calls", "cost", "repriced", "not_in_plan", "over_limit", "refused", "replayed", "difference"]


# -- by hand ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def used(world: World) -> World:
    """Two keys in November. app: two calls of 1,000,000 tokens at 2 USD a million = 4 USD; bot: one to claude-test."""
    app, bot = world.key("app").key, world.key("bot").key
    rows = [called(app, NOW, MILLION), called(app, NOW + MINUTE, MILLION)]
    rows += [called(bot, NOW, MILLION, model="claude-test"), row(app, NOW, outcome="refused", refusal="rate_limited")]
    append(world.workspace.store, rows)
    world.workspace.ledger.sync()
    return world


def figures(replay: whatif.Replay) -> dict[str, list[int]]:
    """Return the figures of each key."""
    return {key: list(row) for key, *row in replay.spend[["key", *FIGURES]].itertuples(index=False)}


def test_a_replay_under_nothing_new_is_what_was_charged(used: World) -> None:
    """Without a scenario nothing differs and nothing is refused."""
    replay = whatif.replay(used.workspace.ledger, NOVEMBER, by=["key"])
    assert figures(replay) == {
        "app": [2, usd(4), usd(4), 0, 0, 0, usd(4), 0],
        "bot": [1, usd(2), usd(2), 0, 0, 0, usd(2), 0],
    }
    assert replay.refused.empty
    assert {str(replay.spend[name].dtype) for name in FIGURES} == {"int64"}


def test_another_multiplier_charges_each_call_anew(used: World) -> None:
    """1.5 times the base price, whatever was applied; the largest difference comes first."""
    replay = whatif.replay(used.workspace.ledger, NOVEMBER, multiplier=1_500_000, by=["key"])
    assert list(figures(replay)) == ["app", "bot"]
    assert figures(replay)["app"] == [2, usd(4), usd(6), 0, 0, 0, usd(6), usd(2)]


def test_another_plan_has_its_multiplier_and_its_models_alone(used: World) -> None:
    """A model that the plan does not include is refused as such; a multiplier that is given goes before the plan's."""
    with used.workspace.write() as tx:
        plan = plans.add(tx, "small", 3 * MILLION, ["gpt-test"])
    replay = whatif.replay(used.workspace.ledger, NOVEMBER, plan="small", by=["key"])
    assert figures(replay) == {
        "app": [2, usd(4), usd(12), 0, 0, 0, usd(12), usd(8)],
        "bot": [1, usd(2), usd(6), 1, 0, usd(6), 0, -usd(2)],
    }
    refused = replay.refused[["key", "model", "refusal", "cost", "repriced"]]
    assert refused.values.tolist() == [["bot", "claude-test", "model_not_allowed", usd(2), usd(6)]]
    both = whatif.replay(used.workspace.ledger, NOVEMBER, plan=plan.id, multiplier=MILLION, by=["key"])
    assert figures(both)["app"] == [2, usd(4), usd(4), 0, 0, 0, usd(4), 0]
    with pytest.raises(NotFound, match="no plan"):
        whatif.replay(used.workspace.ledger, plan="none such")


def test_other_prices_apply_to_the_models_they_name(used: World) -> None:
    """gpt-test at 3 USD a million; claude-test keeps what was applied."""
    prices = {"gpt-test": PriceSheet.flat(input=usd(3), output=0)}
    replay = whatif.replay(used.workspace.ledger, NOVEMBER, prices=prices, by=["model"])
    assert replay.spend[["model", "cost", "replayed"]].values.tolist() == [
        ["gpt-test", usd(4), usd(6)],
        ["claude-test", usd(2), usd(2)],
    ]


def test_the_price_book_of_a_moment_can_be_replayed(used: World) -> None:
    """`book_at` has the sheets that are in force then: a price that is entered for later counts from then on."""
    later = datetime(2027, 1, 1, tzinfo=UTC)
    dearer = PriceSheet.flat(input=usd(4), output=usd(20))
    with used.workspace.write() as tx:
        set_price(tx, "gpt-test", dearer, valid_from=later)
    ledger = used.workspace.ledger
    book = whatif.book_at(ledger, later)
    assert book["gpt-test"] == dearer
    assert whatif.book_at(ledger, later - MINUTE)["gpt-test"] == SHEET
    assert whatif.book_at(ledger, datetime(2020, 1, 1, tzinfo=UTC)) == {}
    assert figures(whatif.replay(ledger, NOVEMBER, prices=book, by=["key"]))["app"][-1] == usd(4)


def test_a_limit_refuses_what_has_no_room_and_lets_what_has(world: World) -> None:
    """Limit 10: calls of 4, 5, 3, 1, 0 and 1 spend 4, 9, -, 10, 10 and -; each month starts anew."""
    key = world.key().key
    costs = [4, 5, 3, 1, 0, 1]
    rows = [
        row(key, at + n * MINUTE, cost=cost, request_price=cost, usage_source="reported")
        for at in (NOW, NOW + timedelta(days=20))
        for n, cost in enumerate(costs)
    ]
    append(world.workspace.store, rows)
    replay = whatif.replay(world.workspace.ledger, limit=10, by=["key"])
    assert figures(replay) == {"app": [12, 28, 28, 0, 4, 8, 20, -8]}
    moments = [NOW + 2 * MINUTE, NOW + 5 * MINUTE]
    assert replay.refused["admitted_at"].tolist() == [*moments, *(moment + timedelta(days=20) for moment in moments)]
    assert set(replay.refused["refusal"]) == {"api_key_quota_exceeded"}


def test_by_default_each_key_has_its_own_limit(world: World) -> None:
    """The limit that a key has today holds, if any; `None` leaves it away."""
    capped, free = world.key("capped", monthly_limit=7).key, world.key("free").key
    append(
        world.workspace.store,
        [row(key, NOW + n * MINUTE, cost=5, request_price=5) for key in (capped, free) for n in range(2)],
    )
    ledger = world.workspace.ledger
    replayed = {key: row[FIGURES.index("replayed")] for key, row in figures(whatif.replay(ledger, by=["key"])).items()}
    assert replayed == {"capped": 5, "free": 10}
    assert whatif.replay(ledger, limit=None).refused.empty
    assert len(whatif.replay(ledger, limit=0).refused) == 4


def test_what_was_spent_before_the_period_counts_as_it_was_charged(world: World) -> None:
    """A period from the middle of a month finds less room: the earlier calls of that month, at their old price."""
    key = world.key().key
    rows = [row(key, NOW - timedelta(days=days), cost=6, request_price=6) for days in (30, 10, 0)]
    append(world.workspace.store, rows)
    ledger, period = world.workspace.ledger, Period(NOW - MINUTE)
    fits = whatif.replay(ledger, period, multiplier=2 * MILLION, limit=18, by=["key"])
    assert figures(fits) == {"app": [1, 6, 12, 0, 0, 0, 12, 6]}
    over = whatif.replay(ledger, period, multiplier=2 * MILLION, limit=17, by=["key"])
    assert figures(over) == {"app": [1, 6, 12, 0, 1, 12, 0, -6]}


def test_a_limit_that_was_passed_before_lets_only_free_calls(world: World) -> None:
    """Nothing paid fits below a limit that the month had passed; a call that costs nothing is not refused."""
    key = world.key().key
    rows = [row(key, NOW, cost=50), row(key, NOW + MINUTE, cost=1, request_price=1)]
    append(world.workspace.store, [*rows, row(key, NOW + 2 * MINUTE, usage_source="reported")])
    replay = whatif.replay(world.workspace.ledger, Period(NOW + MINUTE), limit=20, by=["key"])
    assert figures(replay) == {"app": [2, 1, 1, 0, 1, 1, 0, -1]}


def test_calls_without_a_model_are_judged_too(world: World) -> None:
    """A row that names no model is charged and refused like any other."""
    append(world.workspace.store, [row(world.key().key, NOW, cost=1, request_price=1, model=None)])
    replay = whatif.replay(world.workspace.ledger, limit=0)
    assert replay.spend["over_limit"].tolist() == [1]
    assert len(replay.refused) == 1


def test_calls_out_of_plan_take_no_room(world: World) -> None:
    """What the plan refuses is not spent: the limit has room for the rest."""
    key = world.key().key
    with world.workspace.write() as tx:
        plans.add(tx, "small", MILLION, ["gpt-test"])
    rows = [
        row(key, NOW, cost=9, request_price=9, model="claude-test"),
        row(key, NOW + MINUTE, cost=8, request_price=8),
    ]
    append(world.workspace.store, rows)
    replay = whatif.replay(world.workspace.ledger, plan="small", limit=10)
    assert replay.spend[["model", "not_in_plan", "over_limit", "replayed"]].values.tolist() == [
        ["claude-test", 1, 0, 0],
        ["gpt-test", 0, 0, 8],
    ]


def test_a_replay_shows_own_rows_only_and_can_be_limited(used: World) -> None:
    """`key` and `org` take ids; an actor of another organisation replays nothing."""
    ledger = used.workspace.ledger
    with used.workspace.read() as tx:
        app = keys.find(tx, "app").id
    assert whatif.replay(ledger, key=app, by=["key"]).spend["key"].tolist() == ["app"]
    assert whatif.replay(ledger, org="org_none").spend.empty
    stranger = Actor("boss@globex.example", Role.ANALYST, "org_globex")
    replay = whatif.replay(used.workspace.acting_as(stranger).ledger, limit=0)
    assert replay.spend.empty
    assert replay.refused.empty
    assert list(replay.spend.columns) == ["key_id", "key", "key_label", "org", "model", *FIGURES]


@pytest.mark.parametrize(
    "wrong", [{"by": ["day"]}, {"by": []}, {"multiplier": -1}, {"limit": -1}, {"limit": 2**63}, {"limit": "50"}]
)
def test_a_scenario_that_makes_no_sense_is_refused(world: World, wrong: dict[str, Any]) -> None:
    """Unknown dimensions, and amounts that cannot be, are answered with what can."""
    with pytest.raises(InvalidInput):
        whatif.replay(world.workspace.ledger, **wrong)


# -- against the gateway's own arithmetic -----------------------------------------------------------------------------


def applied_sheet(call: dict[str, Any]) -> PriceSheet:
    """Return the prices that a call's row has."""
    names = ["input", "output", "cached_input", "cache_write_5m", "cache_write_1h", "request"]
    return PriceSheet.flat(*(call[f"{name}_price"] for name in names))


class History:
    """Calls of all shapes, by three keys over two months, and their usage."""

    def __init__(self, folder: Path) -> None:
        draw = random.Random(20261123)
        self.store = Store(f"sqlite:///{folder / 'keydesk.db'}", synchronous="NORMAL")
        self.store.migrate()
        self.ledger = Ledger(self.store, folder / "ledger", SYSTEM)
        self.rows: list[dict[str, Any]] = []
        self.usage: dict[str, Usage] = {}
        for n in range(400):
            size = draw.choice([0, 1, 7, 999, 1_000, 1_001, 20_000, draw.randrange(10**6)])
            cached, short, long = (draw.randrange(size + 1) // 3 for _ in range(3))
            usage = Usage(size, cached, short, long, draw.choice([0, 1, draw.randrange(10_000)]))
            at = datetime(2026, 10, 20, tzinfo=UTC) + timedelta(minutes=90 * (n // 2))  # two at the same moment
            found = row(f"key_{draw.choice('abc')}", at, model=draw.choice(["m", "n"]), usage_source="reported")
            names = ["input", "cached_input", "cache_write_5m", "cache_write_1h", "output"]
            found |= {f"{name}_tokens": getattr(usage, f"{name}_tokens") for name in names}
            found |= {f"{name}_price": draw.randrange(10**10) for name in names}
            found |= {"request_price": draw.choice([0, 5]), "multiplier": draw.choice([MILLION, 1_250_001])}
            found["cost"] = charge(usage, applied_sheet(found), found["multiplier"])
            self.rows.append(found)
            self.usage[found["request_id"]] = usage
        append(self.store, self.rows)
        self.ledger.sync()


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Calls that tests only read."""
    made = History(tmp_path_factory.mktemp("history"))
    yield made
    made.store.close()


prices = st.integers(0, 10**11)
tiers = st.lists(st.sampled_from([1, 7, 999, 1_000, 1_001, 500_000]), max_size=3, unique=True).flatmap(
    lambda above: st.tuples(*(st.builds(Tier, st.just(n), *[prices] * 5) for n in [0, *sorted(above)]))
)
sheets = st.builds(PriceSheet, tiers, st.integers(0, 10**9))
scenarios = st.fixed_dictionaries(
    {
        "prices": st.dictionaries(st.sampled_from(["m", "n", "o"]), sheets, max_size=2),
        "multiplier": st.none() | st.integers(0, 5 * MILLION),
    }
)


def repriced(history: History, prices: dict[str, PriceSheet], multiplier: int | None) -> dict[str, int]:
    """Return what each call costs under a scenario, as `pricing.charge` has it."""
    found = {}
    for call in history.rows:
        usage, applied = history.usage[call["request_id"]], call["multiplier"] if multiplier is None else multiplier
        sheet = prices.get(call["model"]) or applied_sheet(call)
        found[call["request_id"]] = charge(usage, sheet, applied)
    return found


@examples(10)  # of 400 calls each
@given(scenario=scenarios)
def test_each_call_is_charged_as_the_gateway_charges(history: History, scenario: dict[str, Any]) -> None:
    """Row by row the new charge is `pricing.charge` of the call's usage, tiers by size of input included."""
    expected = repriced(history, **scenario)
    replay = whatif.replay(history.ledger, limit=0, **scenario)  # every paid call is refused, and so listed
    paid = {request_id: cost for request_id, cost in expected.items() if cost}
    assert dict(zip(replay.refused["request_id"], replay.refused["repriced"], strict=True)) == paid
    assert int(replay.spend["repriced"].sum()) == sum(expected.values())


@pytest.mark.world
@examples(10)  # of 400 calls each
@given(scenario=scenarios, data=st.data())
def test_calls_are_refused_as_one_after_the_other_would_be(
    history: History, scenario: dict[str, Any], data: st.DataObject
) -> None:
    """The calls refused, and the sums, are those of a loop over the calls in order of admission."""
    expected = repriced(history, **scenario)
    limit = data.draw(st.integers(0, sum(expected.values()) // 3 + 1))
    spent: dict[tuple[str, str], int] = {}
    refused = []
    for call in sorted(history.rows, key=lambda call: (call["admitted_at"], call["request_id"])):
        cost, month = expected[call["request_id"]], (call["key_id"], f"{call['admitted_at']:%Y-%m}")
        if cost and spent.get(month, 0) + cost > limit:
            refused.append(call["request_id"])
        else:
            spent[month] = spent.get(month, 0) + cost
    listed = data.draw(st.sampled_from([0, 7, 10_000]))
    replay = whatif.replay(history.ledger, limit=limit, listed=listed, **scenario)
    assert replay.refused["request_id"].tolist() == refused[:listed]
    assert int(replay.spend["replayed"].sum()) == sum(spent.values())
    assert int(replay.spend["over_limit"].sum()) == len(refused)
    assert int(replay.spend["refused"].sum()) == sum(expected[request_id] for request_id in refused)
    charged = sum(call["cost"] for call in history.rows)
    assert int(replay.spend["difference"].sum()) == sum(spent.values()) - charged


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dearest", [1, 50, 10**6])
def test_a_limit_over_many_calls_is_judged_in_order(seed: int, dearest: int) -> None:
    """Long runs of calls, looked at many at a time, are judged as one by one; so are amounts near 64 bits."""
    draw = np.random.default_rng(seed)
    costs = draw.integers(0, dearest + 1, 30_000)
    if seed % 2:  # agents: a dear call now and then among cheap ones
        costs[::7] *= 100
    for room in (-5, 0, 1, int(costs.sum()) // 3, int(costs.sum()) - 1, int(costs.sum()), NANO * NANO):
        left, expected = room, []
        for cost in costs.tolist():
            expected.append(cost > 0 and cost > left)
            left -= 0 if expected[-1] else cost
        assert whatif.over_limit(costs, room).tolist() == expected


# -- command ----------------------------------------------------------------------------------------------------------


def test_whatif_command_shows_the_difference(used: World, run: Run) -> None:
    """Each key has what it was charged, what it would cost and what would be refused; the last line sums them."""
    result = run("whatif", "--multiplier", "1.5", "--limit", "5", "--from", "2026-11-01")
    assert result.exit_code == 0, result.output
    heading, *rows = [line.split() for line in result.stdout.splitlines()]
    assert " ".join(heading) == "KEY ORGANISATION CALLS CHARGED NOT IN PLAN OVER LIMIT REFUSED WOULD COST DIFFERENCE"
    assert rows == [
        ["app", "Acme", "2", "$4.00", "0", "1", "$3.00", "$3.00", "-$1.00"],
        ["bot", "Acme", "1", "$2.00", "0", "0", "$0.00", "$3.00", "$1.00"],
        ["total", "3", "$6.00", "0", "1", "$3.00", "$6.00", "$0.00"],
    ]


def test_whatif_command_lists_refused_calls(used: World, run: Run) -> None:
    """With --refused each call that would have been refused is a row, with its reason."""
    result = run("whatif", "--limit", "3", "--refused", "--json")
    (call,) = json.loads(result.stdout)
    assert (call["key"], call["refusal"], call["repriced_usd"]) == ("app", "api_key_quota_exceeded", "2")
    assert run("whatif", "--refused").stdout == "No call would have been refused.\n"


def test_whatif_command_takes_prices_from_a_file(used: World, run: Run, tmp_path: Path) -> None:
    """What `prices list --json` writes can be changed and replayed; anything else is refused by name."""
    book = json.loads(run("prices", "list", "--json").stdout)
    for tier in book:
        if tier["model"] == "gpt-test":
            tier["input_usd"] = "2.5"
    file = tmp_path / "book.json"
    file.write_text(json.dumps(book))
    result = run("whatif", "--prices", str(file), "--by", "model", "--json")
    rows = {found["model"]: found for found in json.loads(result.stdout)}
    assert rows["gpt-test"]["difference_usd"] == "1"
    assert rows["claude-test"]["replayed_usd"] == "3"  # at the book's 3 USD a million
    for wrong in ("{", "[1]", '[{"model": "m"}]', '{"model": "m"}', json.dumps([book[0] | {"input_usd": 2.5e300}])):
        file.write_text(wrong)
        refused = run("whatif", "--prices", str(file))
        assert refused.exit_code == 1, wrong
        assert isinstance(refused.exception, SystemExit), wrong
        assert "book.json" in refused.stderr


def written_book(file: Path, *entries: dict[str, Any]) -> None:
    """Write entries of one tier for gpt-test, all prices but that of input being 0."""
    zeros = dict.fromkeys(["cached_input_usd", "cache_write_5m_usd", "cache_write_1h_usd", "output_usd"], "0")
    usual = {"model": "gpt-test", "above_input_tokens": 0, "request_usd": "0", **zeros}
    usual |= {"valid_from": "2026-11-01T00:00:00+00:00", "recorded_at": "2026-11-01T00:00:00+00:00"}
    file.write_text(json.dumps([usual | {"id": f"price_{number}"} | entry for number, entry in enumerate(entries)]))


@pytest.mark.parametrize(
    ("entries", "price"),
    [
        ([{"input_usd": "5"}, {"input_usd": "7"}], "7"),  # all dates alike: the last one, as in the price book
        ([{"input_usd": "5", "recorded_at": "2026-11-02T00:00:00+00:00"}, {"input_usd": "7"}], "5"),
        ([{"input_usd": "5", "valid_from": "2026-11-02"}, {"input_usd": "7"}], "5"),
        ([{"input_usd": "5"}, {"input_usd": "7", "valid_from": "2999-01-01T00:00:00+00:00"}], "5"),
    ],
    ids=["last", "correction", "order of dates", "to come"],
)
def test_whatif_command_takes_from_a_file_what_the_price_book_would(
    used: World, run: Run, tmp_path: Path, entries: list[dict[str, Any]], price: str
) -> None:
    """Of a model's entries the one counts that is in force now; of two from the same moment, the later recorded."""
    written_book(tmp_path / "book.json", *entries)
    result = run("whatif", "--prices", str(tmp_path / "book.json"), "--by", "model", "--json")
    assert result.exit_code == 0, result.output
    replayed = {found["model"]: found["replayed_usd"] for found in json.loads(result.stdout)}
    assert replayed["gpt-test"] == str(2 * int(price))


def test_whatif_command_takes_the_whole_price_list(used: World, run: Run, tmp_path: Path) -> None:
    """A book with corrections, prices to come and tiers is replayed as `--prices-at` this moment replays it."""
    with used.workspace.write() as tx:
        now = tx.now
        for dollars in (3, 4):
            set_price(tx, "gpt-test", PriceSheet.flat(usd(dollars), 0), valid_from=now)
            set_price(tx, "gpt-test", PriceSheet.flat(usd(9), 0), valid_from=now + timedelta(days=9))
    file = tmp_path / "book.json"
    file.write_text(run("prices", "list", "--json").stdout)
    from_file = run("whatif", "--prices", str(file), "--by", "model", "--json")
    assert from_file.stdout == run("whatif", "--prices-at", now.isoformat(), "--by", "model", "--json").stdout
    assert '"replayed_usd": "8"' in from_file.stdout


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "no price that is in force"),
        ([{"input_usd": "5", "valid_from": "2999-01-01"}], "no price that is in force"),
        ([{"input_usd": "5", "model": "gpt-nine"}], "no model here: 'gpt-nine'"),
        ([{"input_usd": "5", "model": 5}], "must have one model"),
        ([{"input_usd": "5", "id": "a"}, {"input_usd": "5", "id": "a", "model": "claude-test"}], "must have one model"),
        ([{"input_usd": "5", "valid_from": "soon"}], "'soon'"),
        ("[" * 100_000, "RecursionError"),
    ],
    ids=["empty", "to come", "unknown model", "number", "two models", "no moment", "deep"],
)
def test_whatif_command_refuses_a_file_of_other_prices(
    used: World, run: Run, tmp_path: Path, text: str | list[dict[str, Any]], problem: str
) -> None:
    """A file that would change nothing, or that cannot be meant, is refused with what is wrong in it."""
    file = tmp_path / "book.json"
    if isinstance(text, str):
        file.write_text(text)
    else:
        written_book(file, *text)
    refused = run("whatif", "--prices", str(file))
    assert refused.exit_code == 1, refused.output
    assert isinstance(refused.exception, SystemExit)
    assert problem in refused.stderr
    assert "book.json" in refused.stderr


def test_whatif_command_takes_the_book_of_a_moment(used: World, run: Run) -> None:
    """--prices-at replays the price book as it is at that moment; two sources of prices are one too many."""
    with used.workspace.write() as tx:
        set_price(tx, "gpt-test", PriceSheet.flat(usd(4), 0), valid_from=datetime(2027, 1, 1, tzinfo=UTC))
    result = run("whatif", "--prices-at", "2027-01-01", "--key", "app", "--limit", "none", "--json")
    assert [found["difference_usd"] for found in json.loads(result.stdout)] == ["4"]
    assert run("whatif", "--limit", "some").exit_code == 2
    assert run("whatif", "--prices-at", "2027-01-01", "--prices", __file__).exit_code == 2
