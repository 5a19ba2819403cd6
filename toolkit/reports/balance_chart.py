"""The chart of a wallet: what it held at the end of each day, and when money came."""

import pandas as pd
import plotly.graph_objects as go

from toolkit.core.money import show_usd
from toolkit.reports.charts import INK, PALETTE, dollars, empty_figure

_CREDIT = PALETTE[2]


def balance_over_time(df: pd.DataFrame, low: int | None = None, *, height: int = 280) -> go.Figure:
    """Draw a wallet's balance as steps, a dot where money was booked, and the line below which it is low.

    Args:
        df: `reports.balances.daily`.
        low: nano-USD from which on the wallet is low; None if it never is.
        height: pixels.
    """
    figure = empty_figure(height, "No money moved in this period" if df.empty else None)
    if df.empty:
        return figure
    days = pd.to_datetime(df["day"])
    said = [
        f"<b>{show_usd(balance)}</b> at the end of %{{x|%a %d %b %Y}}<br>{show_usd(charged)} charged"
        + (f"<br>{show_usd(booked)} booked" if booked else "")
        for balance, charged, booked in zip(df["balance"], df["charged"], df["credits"], strict=True)
    ]
    figure.add_scatter(
        name="Balance",
        x=days,
        y=dollars(df["balance"]),
        line={"shape": "hv", "color": PALETTE[0], "width": 2},
        fill="tozeroy",
        fillcolor="rgba(63, 99, 181, 0.12)",
        text=said,
        hovertemplate="%{text}<extra></extra>",
    )
    moved = df["credits"] != 0
    figure.add_scatter(
        name="Money booked",
        x=days[moved],
        y=dollars(df["balance"][moved]),
        mode="markers",
        marker={"color": _CREDIT, "size": 9, "line": {"color": "white", "width": 1}},
        hoverinfo="skip",
        showlegend=bool(moved.any()),
    )
    if low is not None:
        figure.add_hline(
            y=low / 1e9,
            line={"color": PALETTE[5], "width": 1, "dash": "dot"},
            annotation={"text": f"low below {show_usd(low)}", "font": {"color": INK}},
        )
    figure.update_xaxes(type="date", showgrid=False, nticks=10)
    figure.update_yaxes(tickprefix="$", separatethousands=True, rangemode="tozero")
    return figure
