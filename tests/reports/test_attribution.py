"""Attribution: movers, use of limits, cache savings and unit costs, with amounts computed by hand."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from tests.conftest import World, usd, variables_of
from tests.rows import append, row
from toolkit.admin.prices import list_prices, set_price
from toolkit.cli import cli
from toolkit.core.errors import InvalidInput, NotFound
from toolkit.core.period import Period
from toolkit.core.policy import Role
from toolkit.core.pricing import MILLION, PriceSheet, Tier, charge
from toolkit.core.settings import Settings
from toolkit.core.usage import Usage
from toolkit.reports import attribution, spend
from toolkit.store.actor import Actor
from toolkit.store.tables import ApiKey
from toolkit.store.transaction import utc_now

OCTOBER, NOVEMBER = Period.month("2026-10"), Period.month("2026-11")
THEN, NOW = datetime(2026, 10, 15, 12, tzinfo=UTC), datetime(2026, 11, 15, 12, tzinfo=UTC)
EFFECTS = ["volume", "mix", "price", "multiplier"]
SHEET = PriceSheet.flat(input=usd(2), cached_input=usd(0.5), output=usd(10))


def called(
    key: ApiKey | str,
    at: datetime,
    input_tokens: int = 0,
    output_tokens: int = 0,
    cached: int = 0,
    *,
    sheet: PriceSheet = SHEET,
    multiplier: int = MILLION,
    **columns: Any,
) -> dict[str, Any]:
    """Return the row of a call that was charged for its tokens."""
    usage = Usage(input_tokens, cached, output_tokens=output_tokens)
    tier = sheet.tier(input_tokens)
    facts = {
        "input_tokens": input_tokens,
        "cached_input_tokens": cached,
        "output_tokens": output_tokens,
        "input_price": tier.input,
        "cached_input_price": tier.cached_input,
        "cache_write_5m_price": tier.cache_write_5m,
        "cache_write_1h_price": tier.cache_write_1h,
        "output_price": tier.output,
        "multiplier": multiplier,
        "usage_source": "reported",
        "cost": charge(usage, sheet, multiplier),
    }
    return row(key, at, **facts | columns)


# -- movers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def moved(world: World) -> World:
    """Two months of three keys: one that changed in every way, one that is gone, one that is new.

    app, in USD: October 2 × (1,000 × 2 + 500 × 10 per million) = 0.014. November, output at 12, multiplier 1.25:
    2 × 1.25 × (1,000 × 2 + 500 × 12) = 0.020, and 1.25 × (4,000 × 2 + 500 × 12) = 0.0175.
    """
    app, old, new = (world.key(name).key for name in ("app", "old", "new"))
    dearer = PriceSheet.flat(input=usd(2), cached_input=usd(0.5), output=usd(12))
    now: dict[str, Any] = {"sheet": dearer, "multiplier": 1_250_000}
    rows = [called(app, THEN, 1_000, 500), called(app, THEN, 1_000, 500), called(old, THEN, 2_000)]
    rows += [row(app, THEN, outcome="upstream_error"), row(app, NOW, outcome="refused")]
    append(world.workspace.store, rows)
    world.workspace.ledger.sync()
    append(world.workspace.store, [called(app, NOW, 1_000, 500, **now), called(app, NOW, 1_000, 500, **now)])
    append(
        world.workspace.store,
        [called(app, NOW, 4_000, 500, **now), called(new, NOW, 3_000, model="claude-test", **now)],
    )
    return world


def test_movers_have_the_effects_computed_by_hand(moved: World) -> None:
    """Each key's difference is split as `toolkit.reports.variance` defines it, the largest difference first.

    app: A1 = 0.014 × 3 ÷ 2 = 0.021, A2 = 6,000 × 2 + 1,500 × 10 = 0.027, A3 = 0.012 + 1,500 × 12 = 0.030, then 0.0375.
    """
    frame = attribution.movers(moved.workspace.ledger, OCTOBER, NOVEMBER)
    columns = ["key", "status", "calls_before", "calls_after", "before", "after", "difference", *EFFECTS]
    mega = 1_000_000
    assert frame[columns].values.tolist() == [
        ["app", "kept", 2, 3, 14 * mega, 37_500_000, 23_500_000, 7 * mega, 6 * mega, 3 * mega, 7_500_000],
        ["new", "new", 0, 1, 0, 7_500_000, 7_500_000, 7_500_000, 0, 0, 0],
        ["old", "gone", 1, 0, 4 * mega, 0, -4 * mega, -4 * mega, 0, 0, 0],
    ]
    assert list(frame.columns[:4]) == ["key_id", "key", "key_label", "org"]


@pytest.mark.parametrize("by", ["key", "model", "org", "plan", "dialect", ["key", "model"]])
def test_movers_sum_to_what_was_spent(moved: World, by: str | list[str]) -> None:
    """However it is cut, the rows and their effects sum to the difference of the two periods, in whole numbers."""
    ledger = moved.workspace.ledger
    frame = attribution.movers(ledger, OCTOBER, NOVEMBER, by)
    spent = [spend.totals(ledger, period).cost for period in (OCTOBER, NOVEMBER)]
    assert [int(frame[name].sum()) for name in ("before", "after")] == spent
    assert (frame[EFFECTS].sum(axis=1) == frame["difference"]).all()
    assert int(frame[EFFECTS].to_numpy().sum()) == spent[1] - spent[0]
    assert {str(frame[name].dtype) for name in ("calls_before", "before", "difference", *EFFECTS)} == {"int64"}


def test_a_row_of_several_keys_has_the_shift_between_them_as_mix(moved: World) -> None:
    """Of an organisation's difference, keys that came and went are mix; price and multiplier are those of the others.

    In USD: October 3 calls, 0.018; November 4 calls, 0.045. A1 = 0.018 × 4 ÷ 3 = 0.024; A2 = 0.027 of app and 0.0075
    of new, as charged, = 0.0345; price and multiplier of app alone, 0.003 and 0.0075.
    """
    frame = attribution.movers(moved.workspace.ledger, OCTOBER, NOVEMBER, "org")
    assert frame[["org", *EFFECTS]].values.tolist() == [["Acme", 6_000_000, 10_500_000, 3_000_000, 7_500_000]]


def test_longer_prompts_that_reach_another_tier_are_mix(world: World) -> None:
    """A tier's own price is no price change; the price book says where tiers begin.

    gemini-test costs 1 USD a million up to 2,000 tokens, 2 USD above. October: 2 × 1,000 = 0.002 USD. November: one of
    1,000 and one of 3,000 at 2 USD = 0.007.
    """
    key = world.key().key
    with world.workspace.read() as tx:
        (entry,) = list_prices(tx, "gemini-test")
    sheet = PriceSheet.from_json(entry.sheet)
    rows = [called(key, at, size, sheet=sheet, model="gemini-test") for at, size in ((THEN, 1_000), (THEN, 1_000))]
    rows += [called(key, NOW, size, sheet=sheet, model="gemini-test") for size in (1_000, 3_000)]
    append(world.workspace.store, rows)
    frame = attribution.movers(world.workspace.ledger, OCTOBER, NOVEMBER)
    assert frame[EFFECTS].values.tolist() == [[0, 5_000_000, 0, 0]]


def test_a_new_tier_of_an_old_size_is_price(world: World) -> None:
    """A surcharge on long prompts that a later price entry brings is a price effect of the prompts of that length.

    October: 3,000 tokens at 2 USD = 0.006 USD. November: as many at 5 USD, for being over 2,500 = 0.015.
    """
    key = world.key().key
    tiers = (Tier(0, usd(2), usd(2), usd(2), usd(2), 0), Tier(2_500, usd(5), usd(5), usd(5), usd(5), 0))
    with world.workspace.write() as tx:
        set_price(tx, "gpt-test", PriceSheet(tiers))
    flat = PriceSheet.flat(input=usd(2), output=0)
    rows = [called(key, THEN, 3_000, sheet=flat), called(key, NOW, 3_000, sheet=PriceSheet(tiers))]
    append(world.workspace.store, rows)
    frame = attribution.movers(world.workspace.ledger, OCTOBER, NOVEMBER)
    assert frame[EFFECTS].values.tolist() == [[0, 0, 9_000_000, 0]]


def test_more_cache_hits_are_mix(world: World) -> None:
    """The same prompts, read from the cache: cheaper by mix. 1,000,000 tokens at 2 USD, then at 0.5 USD."""
    key = world.key().key
    append(world.workspace.store, [called(key, THEN, MILLION), called(key, NOW, MILLION, cached=MILLION)])
    frame = attribution.movers(world.workspace.ledger, OCTOBER, NOVEMBER)
    assert frame[EFFECTS].values.tolist() == [[0, -usd(1.5), 0, 0]]


def test_movers_can_be_limited_and_show_own_rows_only(moved: World) -> None:
    """`key` and `org` take ids or names; an actor of another organisation sees nothing."""
    ledger = moved.workspace.ledger
    app = next(iter(attribution.movers(ledger, OCTOBER, NOVEMBER)["key_id"]))
    assert attribution.movers(ledger, OCTOBER, NOVEMBER, key=app)["key"].tolist() == ["app"]
    assert attribution.movers(ledger, OCTOBER, NOVEMBER, org="Acme", key="new")["key"].tolist() == ["new"]
    with pytest.raises(NotFound):
        attribution.movers(ledger, OCTOBER, NOVEMBER, org="org_none")
    stranger = Actor("boss@globex.example", Role.ANALYST, "org_globex")
    nothing = attribution.movers(moved.workspace.acting_as(stranger).ledger, OCTOBER, NOVEMBER)
    assert nothing.empty
    assert str(nothing["mix"].dtype) == "int64"


@pytest.mark.parametrize("by", ["colour", "day", ["key", "month"], []])
def test_periods_are_not_compared_by_times_or_unknown_things(world: World, by: str | list[str]) -> None:
    """A time as a dimension makes no sense here, and the error says so."""
    with pytest.raises(InvalidInput, match="compar"):
        attribution.movers(world.workspace.ledger, OCTOBER, NOVEMBER, by)


def test_movers_by_tag(world: World) -> None:
    """The value of a tag is a row like any other."""
    key = world.key().key
    tags = '{"team": "search"}'
    append(
        world.workspace.store,
        [called(key, THEN, 1_000, tags=tags), called(key, NOW, 2_000, tags=tags), called(key, NOW, 500)],
    )
    frame = attribution.movers(world.workspace.ledger, OCTOBER, NOVEMBER, "tag:team")
    assert frame[["tag:team", "status", "difference"]].values.tolist() == [
        ["search", "kept", 2_000_000],
        ["(none)", "new", 1_000_000],
    ]


@pytest.mark.parametrize(
    ("start", "end", "before"),
    [
        ("2026-11-01", "2026-12-01", "2026-10-01"),  # 30 days after 31
        ("2026-01-01", "2026-04-01", "2025-10-01"),
        ("2026-11-01", "2026-11-15", "2026-10-18"),
        ("2026-11-10T06:00", "2026-11-10T12:00", "2026-11-10T00:00"),
    ],
)
def test_the_period_before(start: str, end: str, before: str) -> None:
    """Whole months are preceded by as many months, other spans by as long a span; it ends where the later begins."""
    first, last, earlier = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start, end, before))
    assert attribution.preceding(Period(first, last)) == Period(earlier, first)


def test_periods_that_are_no_fair_comparison_are_told(moved: World) -> None:
    """A month with its first call in its middle, one without any, and months of other lengths; nothing else."""
    ledger = moved.workspace.ledger
    assert attribution.caveats(ledger, Period.month("2026-09"), OCTOBER) == [
        "The earlier period has no calls: the first of all came on 2026-10-15.",
        "The periods differ in length: 30 days before, 31 after.",
    ]
    first = attribution.caveats(ledger, OCTOBER, Period(OCTOBER.end, THEN.replace(month=11, day=2)))[0]
    assert first.startswith("The earlier period is not whole: it begins on 2026-10-01, and the first call of all")
    week = timedelta(days=7)
    append(moved.workspace.store, [row("key_none", THEN.replace(month=8))])
    assert attribution.caveats(ledger, Period(THEN - week, THEN), Period(THEN, THEN + week)) == []
    assert len(attribution.caveats(ledger, Period(THEN - week, THEN), Period(THEN, THEN + week), org="Acme")) == 1


def test_a_later_period_that_is_not_over_is_told(moved: World) -> None:
    """Most of a fall may be that days are still to come."""
    today = Period.days(1, utc_now())
    found = attribution.caveats(moved.workspace.ledger, attribution.preceding(today), today)
    assert found[-1] == f"The later period is not over: it ends at {today.end:%Y-%m-%d} 00:00 UTC."


def test_an_open_period_has_none_before_it() -> None:
    """Without a start or an end there is no length to go back by."""
    with pytest.raises(InvalidInput, match="start and end"):
        attribution.preceding(Period(end=NOW))


@pytest.mark.parametrize(("start", "end"), [((1, 1, 1), (1, 2, 1)), ((1, 1, 2), (1, 1, 5)), ((1, 1, 1), (2026, 1, 1))])
def test_a_period_at_the_calendars_beginning_has_none_before_it(
    start: tuple[int, int, int], end: tuple[int, int, int]
) -> None:
    """Where no such period can be, months or days, that is said."""
    period = Period(datetime(*start, tzinfo=UTC), datetime(*end, tzinfo=UTC))
    with pytest.raises(InvalidInput, match="No period as long as this one can end on 0001-01-0"):
        attribution.preceding(period)


# -- limits, caches, unit costs ---------------------------------------------------------------------------------------


def test_cumulative_spend_counts_from_the_first_of_the_month(world: World) -> None:
    """Each key has a row for each day, idle ones too, with what it had spent by then and its share of the limit."""
    app = world.key("app", monthly_limit=3_000).key
    free = world.key("free").key
    day = timedelta(days=1)
    first = datetime(2026, 11, 1, tzinfo=UTC)
    rows = [row(app, first - day / 2, cost=999), row(app, first, cost=1_000), row(app, first + 2 * day, cost=999)]
    append(world.workspace.store, [*rows, row(free, first + 3 * day, cost=7), row(app, first + 33 * day, cost=5)])
    frame = attribution.cumulative(world.workspace.ledger, "2026-11")
    columns = ["key", "day", "cost", "spent", "monthly_limit", "share"]
    third = Decimal("0.3333")  # rounded down: 1 means reached
    assert frame[columns][:4].values.tolist() == [
        ["app", date(2026, 11, 1), 1_000, 1_000, 3_000, third],
        ["app", date(2026, 11, 2), 0, 1_000, 3_000, third],
        ["app", date(2026, 11, 3), 999, 1_999, 3_000, Decimal("0.6663")],
        ["app", date(2026, 11, 4), 0, 1_999, 3_000, Decimal("0.6663")],
    ]
    others = frame[columns][4:]
    assert others["key"].tolist() == ["free"] * 4
    assert others["spent"].tolist() == [0, 0, 0, 7]
    assert others["share"].tolist() == [None] * 4
    assert others["monthly_limit"].isna().all()
    assert str(frame["spent"].dtype) == "int64"
    assert attribution.cumulative(world.workspace.ledger, "2026-11", key=free.id)["day"].tolist() == [
        date(2026, 11, 1) + n * day for n in range(4)
    ]
    assert attribution.cumulative(world.workspace.ledger, "2020-01").empty
    with pytest.raises(InvalidInput, match="is not a month"):
        attribution.cumulative(world.workspace.ledger, "November")


def test_a_limit_of_nothing_has_no_share(world: World) -> None:
    """A key that may spend nothing has a limit of 0 and no share of it."""
    key = world.key("app", monthly_limit=0).key
    append(world.workspace.store, [row(key, NOW, cost=0, usage_source="reported")])
    frame = attribution.cumulative(world.workspace.ledger, "2026-11")
    assert frame["monthly_limit"].tolist() == [0] * 15
    assert frame["share"].tolist() == [None] * 15


def test_cache_savings_are_what_the_calls_would_have_cost_without_a_cache(world: World) -> None:
    """Saved and surcharge by hand, in USD per million: input 2, cached 0.5, writes 2.5 and 4, multiplier 1.25.

    One call: 1,000,000 tokens, 600,000 of them cached, 100,000 written for 5 minutes, 100,000 for 1 hour.
    Saved: 0.6 × (2 − 0.5) × 1.25 = 1.125. Surcharge: (0.1 × 0.5 + 0.1 × 2) × 1.25 = 0.3125.
    Cost: (0.2 × 2 + 0.6 × 0.5 + 0.1 × 2.5 + 0.1 × 4) × 1.25 = 1.6875.
    """
    key = world.key().key
    sheet = PriceSheet.flat(usd(2), usd(10), cached_input=usd(0.5), cache_write_5m=usd(2.5), cache_write_1h=usd(4))
    cached = called(
        key,
        NOW,
        MILLION,
        cached=600_000,
        sheet=sheet,
        multiplier=1_250_000,
        cache_write_5m_tokens=100_000,
        cache_write_1h_tokens=100_000,
        cost=1_687_500_000,
    )
    append(
        world.workspace.store, [cached, called(key, NOW, 0, 100, model="claude-test"), row(key, NOW, outcome="refused")]
    )
    frame = attribution.cache_savings(world.workspace.ledger, ["model"], NOVEMBER)
    assert frame.to_dict("records") == [
        {
            "model": "gpt-test",
            "charged_calls": 1,
            "input_tokens": 1_000_000,
            "cached_input_tokens": 600_000,
            "cache_write_tokens": 200_000,
            "hit_rate": Decimal("0.6000"),
            "cost": 1_687_500_000,
            "saved": 1_125_000_000,
            "surcharge": 312_500_000,
            "net": 812_500_000,
        },
        {
            "model": "claude-test",
            "charged_calls": 1,
            "input_tokens": 0,
            "cached_input_tokens": 0,
            "cache_write_tokens": 0,
            "hit_rate": None,
            "cost": 1_000_000,
            "saved": 0,
            "surcharge": 0,
            "net": 0,
        },
    ]


def test_unit_costs_are_rounded_half_to_even(world: World) -> None:
    """A call's cost and that of a thousand output tokens, in whole nano-USD; none without output."""
    app, embed = world.key("app").key, world.key("embed").key
    charged = {"usage_source": "reported"}
    append(
        world.workspace.store,
        [
            row(app, NOW, cost=4, output_tokens=300, **charged),
            row(app, NOW, cost=5, output_tokens=500, **charged),
            row(app, NOW, outcome="upstream_error"),  # charged nothing: no call to divide by
            row(embed, NOW, cost=3, **charged),
            row(embed, NOW, cost=4, **charged),
        ],
    )
    frame = attribution.unit_costs(world.workspace.ledger, ["key"])
    columns = ["key", "charged_calls", "output_tokens", "cost", "per_call", "per_thousand_output"]
    assert frame[columns].values.tolist() == [
        ["app", 2, 800, 9, 4, 11],  # 4.5 to even; 9,000 ÷ 800 = 11.25
        ["embed", 2, 0, 7, 4, pd.NA],  # 3.5 to even
    ]
    assert str(frame["per_thousand_output"].dtype) == "Int64"
    days = attribution.unit_costs(world.workspace.ledger, ["day"])
    assert days[["day", "per_call"]].values.tolist() == [[date(2026, 11, 15), 4]]


def test_no_table_has_a_float(moved: World) -> None:
    """No column is a float: money and counts are whole numbers, shares are Decimals, in empty tables too."""
    ledger = moved.workspace.ledger
    for period in (Period.all(), Period.month("2020-01")):
        frames = [attribution.cache_savings(ledger, ["key"], period), attribution.unit_costs(ledger, ["key"], period)]
        frames += [attribution.movers(ledger, period, NOVEMBER), attribution.cumulative(ledger, "2026-10")]
        for frame in frames:
            assert not [name for name in frame if pd.api.types.is_float_dtype(frame[name])]
    for report in (attribution.cache_savings, attribution.unit_costs):
        with pytest.raises(InvalidInput, match="is grouped by"):
            report(ledger, ["colour"])


# -- commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(settings: Settings) -> Callable[..., Result]:
    """Run `keydesk` with some arguments on the test's own data folder."""
    return lambda *arguments: CliRunner().invoke(cli, arguments, env=variables_of(settings))


def test_movers_command_shows_effects_and_their_sum(moved: World, run: Callable[..., Result]) -> None:
    """A line says which periods; each key has its effects in USD; the last line sums them."""
    result = run("movers", "--from", "2026-11-01", "--to", "2026-12-01")
    assert result.exit_code == 0, result.output
    periods, *caveats, heading, first, _, _, total = result.stdout.splitlines()
    assert periods == "Before: 2026-10-01 00:00 to 2026-11-01 00:00. After: 2026-11-01 00:00 to 2026-12-01 00:00."
    assert caveats[0].startswith("The earlier period is not whole: it begins on 2026-10-01, and the first call of all")
    assert heading.split() == [
        "KEY",
        "ORGANISATION",
        "STATUS",
        "BEFORE",
        "AFTER",
        "DIFFERENCE",
        *map(str.upper, EFFECTS),
    ]
    assert first.split() == [
        "app",
        "Acme",
        "kept",
        "$0.01",
        "$0.04",
        "$0.02",
        "$0.007000",
        "$0.006000",
        "$0.003000",
        "$0.007500",
    ]
    assert total.split()[:2] == ["total", "$0.02"]
    assert total.split()[3] == "$0.03"


def test_movers_command_writes_exact_amounts_as_json(moved: World, run: Callable[..., Result]) -> None:
    """With --json every row has its exact effects; --before sets the earlier period's start."""
    spans = ("--before", "2026-10-01", "--from", "2026-11-01", "--to", "2026-12-01")
    result = run("movers", "--by", "model", *spans, "--json")
    rows = {found["model"]: found for found in json.loads(result.stdout)}
    assert rows["claude-test"]["status"] == "new"
    assert rows["claude-test"]["volume_usd"] == "0.0075"
    several = json.loads(run("movers", "--by", "key", "--by", "model", *spans, "--json").stdout)
    assert [(found["key"], found["model"]) for found in several[:2]] == [("app", "gpt-test"), ("new", "claude-test")]
    assert run("movers", "--by", "day").exit_code == 1
    assert "Nothing was spent in these periods." in run("movers", "--to", "2020-02-01").stdout


@pytest.mark.parametrize(
    ("options", "code", "problem"),
    [
        (["--from", "0001-01-01"], 1, "No period as long as this one"),
        (["--to", "0001-01-05"], 1, "The calendar has no 30 days before 0001-01-05"),
        (["--from", "0001-01-01T00:00:00+05:00"], 2, "is not a moment"),
        (["--to", "9999-12-31T23:59:59-05:00"], 2, "is not a moment"),
    ],
)
def test_movers_command_knows_where_the_calendar_ends(
    moved: World, run: Callable[..., Result], options: list[str], code: int, problem: str
) -> None:
    """Moments beyond which there are none are answered in words."""
    refused = run("movers", *options)
    assert refused.exit_code == code
    assert isinstance(refused.exception, SystemExit)
    assert problem in refused.stderr


def test_spend_command_takes_every_dimension(moved: World, run: Callable[..., Result]) -> None:
    """`keydesk spend --by` names weeks by their Mondays, and refuses what is no dimension by name."""
    result = run("spend", "--by", "week")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["WEEK", "2026-10-12", "2026-11-09", "total"]
    lines = [line.split() for line in run("spend", "--by", "month", "--by", "model").stdout.splitlines()]
    assert lines[0][:2] == ["MONTH", "MODEL"]
    assert [line[:2] for line in lines[1:-1]] == [
        ["2026-10", "gpt-test"],
        ["2026-11", "gpt-test"],
        ["2026-11", "claude-test"],
    ]
    for dimension in ("hour", "month", "dialect"):
        assert run("spend", "--by", dimension).exit_code == 0
    refused = run("spend", "--by", "colour")
    assert refused.exit_code == 1
    assert "tag:NAME; got colour" in refused.stderr
