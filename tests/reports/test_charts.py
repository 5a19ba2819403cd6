"""Charts draw what the tables say, name every series, and never fail on an empty table."""

import itertools
import math
import re
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal

import pandas as pd
import plotly.graph_objects as go
import pytest

from toolkit.reports import charts

USD = 1_000_000_000
FIRST = date(2026, 11, 1)


def spend(keys: int, days: int = 2) -> pd.DataFrame:
    """Return spend by day and key: key n costs n + 1 USD a day, and one nano-USD on top."""
    return pd.DataFrame(
        [
            {
                "day": FIRST + timedelta(days=day),
                "key_id": f"key_{key:04d}",
                "key": f"app-{key}",
                "key_label": f"app-{key}",
                "org": "Acme",
                "calls": 10,
                "cost": (key + 1) * USD + 1,
            }
            for day in range(days)
            for key in range(keys)
        ],
        columns=["day", "key_id", "key", "key_label", "org", "calls", "cost"],
    )


def refusals() -> pd.DataFrame:
    """Return refusals of two keys for two reasons."""
    return pd.DataFrame(
        [
            ("api_key_quota_exceeded", "key_0001", "app", "app", "Acme", 40),
            ("model_not_allowed", "key_0001", "app", "app", "Acme", 2),
            ("model_not_allowed", "key_0002", "bot", "bot (deleted)", "Acme", 5),
        ],
        columns=["refusal", "key_id", "key", "key_label", "org", "calls"],
    )


def names(figure: go.Figure) -> list[str]:
    return [trace.name for trace in figure.data]


def test_spend_over_time_draws_usd_and_says_the_amount() -> None:
    """Bars are as high as the spend in USD; the hover text has the cents, and more below one."""
    figure = charts.spend_over_time(spend(keys=2))
    assert names(figure) == ["app-1", "app-0"]
    assert figure.data[0].y == pytest.approx([2, 2])
    assert list(figure.data[0].customdata) == ["$2.00", "$2.00"]
    small = charts.spend_over_time(spend(keys=1, days=1).assign(cost=150_000))
    assert list(small.data[0].customdata) == ["$0.000150"]
    assert [pd.Timestamp(moment).date() for moment in figure.data[0].x] == [FIRST, FIRST + timedelta(days=1)]
    assert figure.layout.yaxis.tickprefix == "$"


def test_spend_over_time_tells_eight_series_apart_and_sums_up_the_rest() -> None:
    """Eight keys have their own colours, the others are one grey series, and nothing is left out."""
    figure = charts.spend_over_time(spend(keys=11))
    assert names(figure) == [f"app-{key}" for key in range(10, 2, -1)] + ["3 others"]
    colours = [trace.marker.color for trace in figure.data]
    assert set(colours[:-1]) == set(charts.PALETTE)
    assert colours[-1] == charts.OTHER
    assert list(figure.data[-1].customdata) == ["$6.00"] * 2
    assert sum(sum(trace.y) for trace in figure.data) == pytest.approx(2 * sum(range(1, 12)))


def test_a_series_keeps_its_colour_when_ranks_change() -> None:
    """The same names have the same colours whoever costs most, also if another one is now among the others."""

    def colours(df: pd.DataFrame) -> dict[str, str]:
        return {trace.name: trace.marker.color for trace in charts.spend_over_time(df).data}

    few, many = spend(keys=5), spend(keys=9)
    assert colours(few) == colours(few.assign(cost=20 * USD - few["cost"]))
    assert len(set(colours(few).values())) == 5
    turned = colours(many.assign(cost=20 * USD - many["cost"]))  # app-8 is the last one now, and not app-0
    assert {name for name, colour in colours(many).items() if turned[name] != colour} <= {"app-0", "app-8"}


def test_a_single_other_is_named() -> None:
    """One series more than there are colours is grey, under its own name."""
    figure = charts.spend_over_time(spend(keys=9))
    assert names(figure)[-1] == "app-0"
    assert figure.data[-1].marker.color == charts.OTHER


def test_keys_of_the_same_name_stay_apart() -> None:
    """Two keys of one name are two series: told apart by organisation, else by the end of their ids."""
    df = spend(keys=3, days=1).assign(key="web", key_label="web", org=["Acme", "Globex", "Globex"])
    assert names(charts.spend_over_time(df)) == ["web · Globex · 0002", "web · Globex · 0001", "web · Acme"]
    assert list(charts.top_bars(df, "key").data[0].y) == [
        "web · Acme",
        "web · Globex · 0001",
        "web · Globex · 0002",
    ]


def test_deleted_keys_are_named() -> None:
    """The label of a deleted key, as the report marks it, is what the chart shows."""
    assert "bot (deleted)" in names(charts.refusals_chart(refusals()))


def test_names_cannot_be_markup() -> None:
    """A key's name is shown as it is written, also if it looks like HTML or like a placeholder."""
    df = spend(keys=1, days=1).assign(key_label="<b>x</b> %{y} & co")
    for figure in (charts.spend_over_time(df), charts.top_bars(df, "key"), charts.top_bars(df, "key_label")):
        assert "<b>" not in str(figure)
        assert "%{y} &" not in str(figure)


@pytest.mark.parametrize("by", ["model", "org", "plan", "dialect"])
def test_spend_over_time_takes_any_dimension(by: str) -> None:
    """The second dimension names the series."""
    df = pd.DataFrame({"month": ["2026-10", "2026-11"], by: ["one", "two"], "cost": [USD, 3 * USD]})
    figure = charts.spend_over_time(df, by)
    assert names(figure) == ["two", "one"]
    assert [pd.Timestamp(trace.x[0]).strftime("%Y-%m") for trace in figure.data] == ["2026-11", "2026-10"]


def test_top_bars_shows_the_largest_on_top() -> None:
    """Bars come in order, the largest on top (the last one for Plotly), with the amount written beside them."""
    (bars,) = charts.top_bars(spend(keys=12), "key", limit=3).data
    assert list(bars.y) == ["app-9", "app-10", "app-11"]
    assert list(bars.text) == ["$20.00", "$22.00", "$24.00"]
    assert list(bars.customdata) == ["$20.00", "$22.00", "$24.00"]


def test_top_bars_draws_counts_as_counts() -> None:
    """A column that is no money has no dollar sign."""
    (bars,) = charts.top_bars(spend(keys=1).assign(calls=1_500), "key", "calls").data
    assert list(bars.text) == ["3,000"]
    assert list(bars.x) == [3_000]


def test_top_bars_draws_decimals() -> None:
    """A ratio is drawn at its length and written exact; a row without one has no bar."""
    df = pd.DataFrame({"model": ["a", "b", "c"], "ratio": [Decimal("1.50"), Decimal("2.86"), None]})
    figure = charts.top_bars(df, "model", "ratio")
    (bars,) = figure.data
    assert (list(bars.y), list(bars.x), list(bars.text)) == (["a", "b"], [1.5, 2.86], ["1.50", "2.86"])
    assert figure.layout.xaxis.range[1] > 2.86
    assert "1.50" in figure.to_json()


def test_refusals_chart_counts_by_reason_and_key() -> None:
    """Each reason is a bar, made of the keys that met it."""
    figure = charts.refusals_chart(refusals())
    drawn = {
        (trace.name, reason): calls for trace in figure.data for reason, calls in zip(trace.y, trace.x, strict=True)
    }
    assert drawn == {
        ("app", "api_key_quota_exceeded"): 40,
        ("app", "model_not_allowed"): 2,
        ("bot (deleted)", "model_not_allowed"): 5,
    }


def cumulative(keys: int, limit: int | None = 10 * USD) -> pd.DataFrame:
    """Return two days of keys with a limit of 10 USD: key n has spent n + 1, then 2n + 2 USD."""
    rows = [
        {
            "key_id": f"key_{key:04d}",
            "key": f"app-{key}",
            "key_label": f"app-{key}",
            "org": "Acme",
            "day": FIRST + timedelta(days=day),
            "spent": (key + 1) * (day + 1) * USD,
            "monthly_limit": limit,
        }
        for key in range(keys)
        for day in range(2)
    ]
    columns = ["key_id", "key", "key_label", "org", "day", "spent", "monthly_limit"]
    return pd.DataFrame(rows, columns=columns).astype({"monthly_limit": "Int64"})


def test_limit_use_draws_shares_of_each_limit() -> None:
    """Each key is a line of the share that it has used; the hover text has both amounts; the limit is a line too."""
    figure = charts.limit_use(cumulative(keys=2))
    assert {trace.name: list(trace.y) for trace in figure.data} == {"app-0": [0.1, 0.2], "app-1": [0.2, 0.4]}
    assert figure.data[1].customdata[1] == "$4.00 of $10.00"
    assert [shape.y0 for shape in figure.layout.shapes] == [1]
    assert charts.limit_use(cumulative(keys=12)).layout.yaxis.range[1] > 2.4


def test_limit_use_shows_the_keys_nearest_to_their_limits() -> None:
    """Of more keys than there are colours those that used most are drawn; one without a limit never is."""
    figure = charts.limit_use(cumulative(keys=11))
    assert sorted(names(figure)) == sorted(f"app-{key}" for key in range(3, 11))
    assert len({trace.line.color for trace in figure.data}) == 8
    (note,) = charts.limit_use(cumulative(keys=2, limit=None)).layout.annotations
    assert note.text == "No key with a limit was used in this period"


def movers() -> pd.DataFrame:
    """Return two rows of a comparison, 10 to 14 USD and 5 to 3 USD, with effects that sum to it."""
    rows = [("app", "kept", 10, 14, 4, 5, -2, 1, 0), ("bot", "kept", 5, 3, -2, -1, -1, 0, 0)]
    columns = ["model", "status", "before", "after", "difference", "volume", "mix", "price", "multiplier"]
    df = pd.DataFrame(rows, columns=columns)
    return df.assign(**{name: df[name] * USD for name in columns[2:]})


def test_effects_bridge_leads_from_before_to_after() -> None:
    """Each bar starts where the one before ended: 15 + 4 − 3 + 1 + 0 = 17; totals stand on the ground."""
    figure = charts.effects_bridge(movers())
    (bars,) = figure.data
    assert list(bars.x) == ["Before", "Volume", "Mix", "Price", "Multiplier", "After"]
    assert list(bars.y) == [15, 4, -3, 1, 0, 17]
    assert list(bars.base) == [0, 15, 19, 16, 17, 0]
    assert [note.text for note in figure.layout.annotations] == [
        "$15.00",
        "+$4.00",
        "−$3.00",
        "+$1.00",
        "$0.00",
        "$17.00",
    ]
    assert [(line.y0, line.y1) for line in figure.layout.shapes] == [(15, 15), (19, 19), (16, 16), (17, 17), (17, 17)]


def test_mover_bars_are_made_of_effects_and_say_the_difference() -> None:
    """Each row is a bar of its four effects, the first on top, with the difference at its end."""
    figure = charts.mover_bars(movers(), "model")
    drawn = {trace.name: dict(zip(trace.y, trace.x, strict=True)) for trace in figure.data}
    assert list(drawn) == ["volume", "mix", "price", "multiplier"]
    assert drawn["mix"] == {"bot": -1, "app": -2}
    ends = {note.y: (note.text, note.x) for note in figure.layout.annotations}
    assert ends == {"app": ("+$4.00", 6), "bot": ("−$2.00", 0)}
    assert list(figure.data[0].y) == ["bot", "app"]
    assert list(charts.mover_bars(movers(), "model", limit=1).data[0].y) == ["app"]


def replayed() -> pd.DataFrame:
    """Return a replay: app charged 4 USD, would ask for 6 and get 5; bot 1, then 2."""
    rows = [("app", 4, 6, 1, 5, 1), ("bot", 1, 2, 0, 2, 1)]
    columns = ["model", "cost", "repriced", "refused", "replayed", "difference"]
    df = pd.DataFrame(rows, columns=columns)
    return df.assign(**{name: df[name] * USD for name in columns[1:]})


def test_replay_bars_stand_beside_what_was_charged() -> None:
    """What would have been refused stands on what would have cost; the difference is written behind the longest."""
    figure = charts.replay_bars(replayed(), "model")
    drawn = {trace.name: trace for trace in figure.data}
    assert list(drawn["as charged"].x) == [1, 4]
    assert list(drawn["would have cost"].x) == [2, 5]
    pale = drawn["would have been refused"]
    assert (list(pale.x), list(pale.base)) == ([0, 1], [2, 5])
    assert pale.offsetgroup == drawn["would have cost"].offsetgroup != drawn["as charged"].offsetgroup
    assert {note.y: (note.text, note.x) for note in figure.layout.annotations} == {
        "app": ("+$1.00", 6),
        "bot": ("+$1.00", 2),
    }


def test_weeks_are_named_by_their_mondays() -> None:
    """The marks of an axis of weeks stand at Mondays, where the bars are."""
    mondays = [FIRST + timedelta(days=1 + 7 * week) for week in range(13)]
    df = pd.DataFrame({"week": mondays, "org": "Acme", "cost": USD})
    axis = charts.spend_over_time(df, "org").layout.xaxis
    assert pd.Timestamp(axis.tick0).date() == mondays[0]
    assert axis.dtick == 14 * 86_400_000


@pytest.mark.parametrize(
    ("draw", "table"),
    [
        (charts.spend_over_time, spend(keys=0)),
        (lambda df: charts.top_bars(df, "key"), spend(keys=0)),
        (lambda df: charts.top_bars(df, "model", "calls"), pd.DataFrame({"model": [], "calls": []})),
        (charts.refusals_chart, refusals().iloc[:0]),
        (charts.limit_use, cumulative(keys=0)),
        (charts.effects_bridge, movers().iloc[:0]),
        (lambda df: charts.mover_bars(df, "model"), movers().iloc[:0]),
        (lambda df: charts.replay_bars(df, "model"), replayed().iloc[:0]),
    ],
)
def test_empty_table_gives_a_sentence(draw: Callable[[pd.DataFrame], go.Figure], table: pd.DataFrame) -> None:
    """With nothing to draw the figure says so."""
    (note,) = draw(table).layout.annotations
    assert re.search("in (this period|these periods)$", note.text)


def test_height_is_the_callers() -> None:
    """Each chart is as high as its caller says."""
    assert charts.spend_over_time(spend(keys=1), height=201).layout.height == 201
    assert charts.top_bars(spend(keys=1), "key", height=202).layout.height == 202
    assert charts.refusals_chart(refusals(), height=203).layout.height == 203


def test_charts_share_one_look() -> None:
    """All charts are drawn on a transparent ground with the same template."""
    figures = [charts.spend_over_time(spend(keys=1)), charts.top_bars(spend(keys=1), "key")]
    figures += [
        charts.limit_use(cumulative(keys=1)),
        charts.effects_bridge(movers()),
        charts.refusals_chart(refusals()),
    ]
    for figure in (*figures, charts.mover_bars(movers(), "model"), charts.replay_bars(replayed(), "model")):
        assert figure.layout.template == figures[0].layout.template
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0, 0, 0, 0)"


# To see as dichromats do: linear RGB to linear RGB (Machado, Oliveira and Fernandes 2009, severity 1.0).
SIGHT = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}


def lab(colour: str, sight: str) -> tuple[float, float, float]:
    """Return a colour as someone sees it, in CIELAB (D65)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    red, green, blue = (min(max(sum(m * c for m, c in zip(r, linear, strict=True)), 0), 1) for r in SIGHT[sight])
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    fx, fy, fz = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_are_told_apart(sight: str) -> None:
    """Any two colours of series differ by ΔE 16 or more, also to people who see two kinds of colour only."""
    for one, other in itertools.combinations((*charts.PALETTE, charts.OTHER), 2):
        assert math.dist(lab(one, sight), lab(other, sight)) >= 16, (one, other)


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_on_dark_are_told_apart(sight: str) -> None:
    """As those on white, by everybody."""
    shown = [charts.ON_DARK[colour] for colour in charts.PALETTE]
    for one, other in itertools.combinations((*shown, charts.OTHER), 2):
        assert math.dist(lab(one, sight), lab(other, sight)) >= 16, (one, other)


def test_a_figure_on_dark_has_none_of_the_colours_for_white() -> None:
    """Whatever has a colour in it; its figures are the same."""
    light = charts.spend_over_time(spend(keys=9))
    dark = charts.on_dark(light)
    assert {trace.marker.color for trace in dark.data} <= {*charts.ON_DARK.values(), charts.OTHER}
    assert [list(trace.y) for trace in dark.data] == [list(trace.y) for trace in light.data]
    assert dark.layout.template.layout.font.color == charts.ON_DARK[charts.INK]
