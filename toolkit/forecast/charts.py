"""Charts of forecasts and anomalies: tables of `outlook` and `anomalies` in, Plotly figures out.

In the look of `charts`. Money is drawn in USD at the precision of a picture, and said exact to the cent or finer. In
Streamlit pass `theme=None`.
"""

from datetime import timedelta
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from toolkit.core.money import show_usd
from toolkit.forecast.anomalies import GRIDS, Bucket
from toolkit.reports.charts import PALETTE, dollars, empty_figure, escaped

LIMIT = "#B23A2E"
"""Colour of limits, and of what is worst."""

SEVERITY = {"high": LIMIT, "medium": "#E08A2B", "low": "#9AA3B2"}
"""Colours of anomalies."""

_CALM = "#6B7280"
"""Colour of a limit that is far away, which is no bad news."""

_BAND = "rgba(63, 99, 181, 0.16)"  # the accent
_QUIET = "#9FB1DA"  # the accent, pale: days on which nothing was wrong
_HOVER = "%a %d %b %Y"
_AT_TOP_LEFT = {
    "xref": "paper",
    "x": 0,
    "xanchor": "left",
    "yref": "paper",
    "y": 1,
    "yanchor": "top",
    "showarrow": False,
    "font": {"color": LIMIT},
}


def month_fan(
    fan: pd.DataFrame, *, limit: int | None = None, limit_name: str = "Limit", height: int = 340
) -> go.Figure:
    """Draw a month's spend so far, where it is going, the interval, and the limit.

    Args:
        fan: `Outlook.fan`.
        limit: what the month may cost, nano-USD: a monthly limit, or what a wallet had for it; none by default.
        limit_name: what the picture calls it; "Credits" for those of a wallet.
        height: pixels.
    """
    figure = empty_figure(height, "Nothing to forecast" if fan.empty else None)
    past, ahead = fan[fan["spent"].notna()], fan[fan["forecast"].notna()]
    judged = ahead[ahead["high"].notna()]
    sides = pd.concat([judged["high"], judged["low"][::-1]])
    figure.add_scatter(
        name="Likely range (4 in 5)",
        x=[*judged["moment"], *judged["moment"][::-1]],
        y=dollars(sides),
        fill="toself",
        fillcolor=_BAND,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=len(judged) > 1,
    )
    figure.add_scatter(
        name="Spent",
        x=past["moment"],
        y=dollars(past["spent"]),
        customdata=[show_usd(int(amount)) for amount in past["spent"]],
        mode="lines",
        line={"color": PALETTE[0], "width": 3},
        hovertemplate="%{customdata}",
    )
    figure.add_scatter(
        name="Forecast",
        x=ahead["moment"],
        y=dollars(ahead["forecast"]),
        customdata=[_range(row) for row in ahead.to_dict("records")],
        mode="lines",
        line={"color": PALETTE[0], "width": 2, "dash": "dot"},
        hovertemplate="%{customdata}",
    )
    tops = [figure.data[place].y for place in range(3)]
    top = max((value for ys in tops for value in ys), default=0.0)
    beyond = limit is not None and len(ahead) > 0 and int(ahead["forecast"].iloc[-1]) > limit
    if limit is not None:
        top = _draw_limit(figure, limit, limit_name, top, ahead)
    if len(ahead):
        ends = ahead.iloc[[0, -1]]
        figure.add_scatter(
            x=ends["moment"],
            y=dollars(ends["forecast"]),
            mode="markers",
            marker={"color": PALETTE[0], "size": 9, "line": {"color": "white", "width": 2}},
            hoverinfo="skip",
            showlegend=False,
        )
        end = show_usd(int(ends["forecast"].iloc[-1]))
        figure.add_annotation(
            text=f"{end}<br>wanted" if beyond else f"<b>{end}</b>",
            x=ends["moment"].iloc[-1],
            y=dollars(ends["forecast"])[-1],
            xanchor="left",
            align="left",
            xshift=10,
            showarrow=False,
            font={"color": PALETTE[0], "size": 13 if beyond else 15},
        )
    figure.update_layout(hovermode="x unified", margin={"r": 90, "t": 16})
    figure.update_xaxes(type="date", hoverformat=f"{_HOVER}, %H:%M", tickformat="%d %b", showgrid=False, nticks=8)
    figure.update_xaxes(ticklabelstandoff=6)
    figure.update_yaxes(tickprefix="$", separatethousands=True, range=[0, top * 1.1 or 1])
    return figure


def _draw_limit(figure: go.Figure, limit: int, name: str, top: float, ahead: pd.DataFrame) -> float:
    """Draw a limit and say when it is reached; return the top of the picture with it."""
    usd = dollars(pd.Series([limit]))[0]
    reached = ahead[ahead["forecast"] >= limit]
    words = f"{name} {show_usd(limit)}"
    if len(reached):
        words += f", reached {reached['moment'].iloc[0] - timedelta(microseconds=1):%d %b}"
    elif usd > 2.5 * top > 0:
        # Far above everything it would press the month flat: it is named instead.
        figure.add_annotation(text=f"{words}, far above", **(_AT_TOP_LEFT | {"font": {"color": _CALM}}))
        return top
    figure.add_hline(y=usd, line={"color": LIMIT, "width": 1.5, "dash": "dash"})
    figure.add_annotation(text=words, **(_AT_TOP_LEFT | {"y": usd, "yref": "y", "yanchor": "bottom"}))
    return max(top, usd)


def anomalies_over_time(spend: pd.DataFrame, anomalies: pd.DataFrame, *, height: int = 340) -> go.Figure:
    """Draw one key's spend, with what was unusual picked out and named.

    Args:
        spend: `reports.spend.table` of one key by day or hour.
        anomalies: rows of `anomalies.find` of that key, by buckets of the same length.
        height: pixels.
    """
    figure = empty_figure(height, "No spend in this period" if spend.empty else None)
    if spend.empty:
        return figure
    time: Bucket = "hour" if "hour" in spend.columns else "day"
    length = timedelta(**{f"{time}s": 1})
    moments = pd.to_datetime(spend[time], utc=True)
    costs = spend["cost"].groupby(moments).sum()
    whole = pd.date_range(costs.index.min(), costs.index.max(), freq=length)
    costs = costs.reindex(whole, fill_value=0)
    colours = pd.Series(_QUIET, index=whole)
    rows = anomalies.to_dict("records")
    for row in rows:
        begin = pd.Timestamp(row["bucket"])
        begin = begin.tz_localize("UTC") if begin.tzinfo is None else begin
        row["begin"], row["end"] = begin, begin + row["buckets"] * length
        if row["kind"] == "spend":
            colours[(whole >= begin) & (whole < row["end"])] = SEVERITY[row["severity"]]
    figure.add_bar(
        x=whole,
        y=dollars(costs),
        width=length / timedelta(milliseconds=1) * 0.8,
        offset=length / timedelta(milliseconds=1) * 0.1,
        marker={"color": colours.tolist(), "line": {"width": 0}},
        customdata=[show_usd(int(cost)) for cost in costs],
        hovertemplate="%{customdata}<extra></extra>",
        showlegend=False,
    )
    top = max(dollars(costs), default=0.0) or 1.0
    for row in rows:
        colour, middle = SEVERITY[row["severity"]], row["begin"] + (row["end"] - row["begin"]) / 2
        inside = costs[(whole >= row["begin"]) & (whole < row["end"])]
        place: dict[str, Any] = {"y": max(dollars(inside), default=0.0), "yshift": 4}
        if row["kind"] != "spend":  # there is no bar to point at
            figure.add_vrect(x0=row["begin"], x1=row["end"], fillcolor=colour, opacity=0.14, line_width=0)
            place = {"yref": "paper", "y": 1}
        figure.add_annotation(
            text=_note(row, time),
            hovertext=escaped(row["sentence"]),
            x=middle,
            **place,
            yanchor="bottom",
            xanchor="right" if middle > whole[0] + (whole[-1] - whole[0]) * 0.9 else "center",
            showarrow=False,
            font={"color": colour, "size": 12},
        )
    figure.update_layout(hovermode="x", bargap=0.15, barcornerradius=2, margin={"t": 40})
    figure.update_xaxes(type="date", hoverformat=_HOVER + (", %H:00" if time == "hour" else ""), showgrid=False)
    figure.update_xaxes(nticks=10, tickformat="%d %b", ticklabelstandoff=6)
    figure.update_yaxes(tickprefix="$", separatethousands=True, range=[0, top * 1.1])
    return figure


def _note(row: dict[Any, Any], time: Bucket) -> str:
    """Return the few words that stand at an anomaly: its sums, and of how many days or hours they are."""
    actual, expected, count = int(row["actual"]), int(row["expected"]), int(row["buckets"]) + GRIDS[time].span - 1
    over = f" in {count} {time}s" if count > 1 else ""
    if row["kind"] == "refusals":
        return f"<b>{actual:,} refused</b>{over}"
    what = "silent" if row["kind"] == "silence" else show_usd(actual)
    return f"<b>{what}</b>{over}<br>usual {show_usd(expected)}{over}"


def _range(row: dict[Any, Any]) -> str:
    words = show_usd(int(row["forecast"]))
    if pd.isna(row["low"]) or row["low"] == row["high"]:
        return words
    return f"{words} ({show_usd(int(row['low']))} to {show_usd(int(row['high']))})"
