"""Charts of forecasts and anomalies draw what the tables say, and never fail on an empty one."""

from datetime import UTC, datetime, timedelta

import pandas as pd
import plotly.graph_objects as go
import pytest

from tests.conftest import usd
from toolkit.forecast import charts
from toolkit.forecast.anomalies import find
from toolkit.forecast.runway import Outlook

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
STEADY = [usd(1)] * 59 + [usd(0.4)]
DAYS = pd.date_range(end=NOON.date(), periods=60)


def fan(amounts: list[int] = STEADY) -> pd.DataFrame:
    """Return the month of one key that spends a dollar a day."""
    return Outlook(pd.DataFrame({"k": amounts}, index=DAYS), NOON, {"k": "acme"}).fan("k")


def words(figure: go.Figure) -> list[str]:
    """Return what is written into a figure."""
    return [note.text for note in figure.layout.annotations]


def test_the_fan_draws_spend_forecast_and_interval_in_usd() -> None:
    """Spent ends where the forecast begins; the forecast ends at the month's end, and says how much that is."""
    figure = charts.month_fan(fan())
    spent, ahead = (next(trace for trace in figure.data if trace.name == name) for name in ("Spent", "Forecast"))
    assert spent.y[-1] == ahead.y[0] == pytest.approx(19.4)
    assert ahead.y[-1] == pytest.approx(29.9)
    assert ahead.customdata[-1] == "$29.90"
    assert words(figure) == ["<b>$29.90</b>"]
    ranged = charts.month_fan(fan([usd(1), usd(3)] * 30))
    assert " to " in next(trace for trace in ranged.data if trace.name == "Forecast").customdata[-1]


def test_the_fan_says_when_the_limit_is_reached() -> None:
    """Of 25 dollars the last go on 26 November; beyond it the forecast is what is wanted."""
    figure = charts.month_fan(fan(), limit=usd(25))
    assert words(figure) == ["Limit $25.00, reached 26 Nov", "$29.90<br>wanted"]
    assert figure.layout.shapes[0].y0 == 25


def test_a_limit_far_above_is_named_not_drawn() -> None:
    """A limit that would press the month flat is a line of text; one within reach is drawn."""
    far = charts.month_fan(fan(), limit=usd(500))
    assert words(far)[0] == "Limit $500.00, far above"
    assert far.layout.annotations[0].font.color != charts.LIMIT  # it is no bad news
    assert not far.layout.shapes
    near = charts.month_fan(fan(), limit=usd(40))
    assert words(near)[0] == "Limit $40.00"
    assert near.layout.yaxis.range[1] > 40


def test_the_limit_is_called_by_its_name() -> None:
    """What a wallet has is no limit that anybody set: the picture says what it is, drawn or named."""
    drawn, far = (charts.month_fan(fan(), limit=usd(n), limit_name="Credits") for n in (25, 500))
    assert words(drawn)[0] == "Credits $25.00, reached 26 Nov"
    assert words(far)[0] == "Credits $500.00, far above"


def test_the_fan_of_the_first_day_has_no_interval() -> None:
    """With nothing to judge by, no interval is drawn, nor listed."""
    figure = charts.month_fan(fan([0] * 59 + [usd(1)]))
    band = next(trace for trace in figure.data if trace.fill == "toself")
    assert set(band.y) == {1}  # what is spent, and nothing around it
    assert not band.showlegend


def test_anomalies_are_picked_out_by_their_severity() -> None:
    """The days of a runaway have its colour, the others do not; the sum and what is usual stand at it."""
    amounts = [usd(10)] * 55 + [usd(100), usd(100)] + [usd(10)] * 3
    found = find(pd.DataFrame({"k": amounts}, index=DAYS.tz_localize(UTC)), "day")
    spend = pd.DataFrame({"day": DAYS.date, "cost": amounts})
    figure = charts.anomalies_over_time(spend, found)
    colours = list(figure.data[0].marker.color)
    assert [place for place, colour in enumerate(colours) if colour == charts.SEVERITY["high"]] == [55, 56]
    assert len(set(colours)) == 2
    assert words(figure) == ["<b>$200.00</b> in 2 days<br>usual $20.00 in 2 days"]
    assert figure.layout.annotations[0].hovertext == found["sentence"][0]


def test_silences_and_refusals_are_shaded() -> None:
    """Where there is no bar to colour the time itself is shaded, and named."""
    amounts = [usd(10)] * 57 + [0, 0, 0]
    index = DAYS.tz_localize(UTC)
    refused = pd.DataFrame({"k": [0] * 59 + [80]}, index=index)
    found = find(pd.DataFrame({"k": amounts}, index=index), "day", refused=refused)
    figure = charts.anomalies_over_time(pd.DataFrame({"day": DAYS.date, "cost": amounts}), found)
    assert len(figure.layout.shapes) == 2
    assert sorted(words(figure)) == ["<b>80 refused</b>", "<b>silent</b> in 3 days<br>usual $30.00 in 3 days"]


def test_days_without_spend_are_drawn_as_nothing() -> None:
    """A day that the table leaves out has a bar of no height, not its neighbour's."""
    spend = pd.DataFrame({"day": [DAYS[0].date(), DAYS[3].date()], "cost": [usd(1), usd(2)]})
    assert list(charts.anomalies_over_time(spend, pd.DataFrame()).data[0].y) == [1, 0, 0, 2]


def test_hours_are_drawn_as_hours() -> None:
    """Spend by hour has a bar for each hour."""
    hours = pd.date_range(NOON, periods=3, freq=timedelta(hours=1))
    figure = charts.anomalies_over_time(pd.DataFrame({"hour": hours, "cost": [1, 2, 3]}), pd.DataFrame())
    assert len(figure.data[0].x) == 3


def test_empty_tables_say_so() -> None:
    """Nothing to draw is said in the middle of an empty figure."""
    assert words(charts.month_fan(fan().iloc[:0])) == ["Nothing to forecast"]
    empty = pd.DataFrame({"day": [], "cost": []})
    assert words(charts.anomalies_over_time(empty, pd.DataFrame())) == ["No spend in this period"]
