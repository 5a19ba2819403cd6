"""The chart of a model's prices: what a million tokens did, do and will cost, as steps."""

from collections.abc import Sequence
from datetime import datetime

import plotly.graph_objects as go

from toolkit.core.money import NANO, show_usd
from toolkit.core.pricing import PriceSheet
from toolkit.reports.charts import INK, PALETTE, empty_figure

_SERIES = {
    "input": ("Input", PALETTE[0]),
    "cached_input": ("Cached input", PALETTE[4]),
    "output": ("Output", PALETTE[1]),
}


def price_steps(entries: Sequence[tuple[datetime, PriceSheet]], now: datetime, *, height: int = 240) -> go.Figure:
    """Draw a model's prices per million tokens, of the first tier, each until the next one holds.

    Args:
        entries: from when each holds (UTC) and its prices, the oldest first; of two from one moment the latter holds.
        now: where the steps end, unless a price is to come or has just begun; it is marked if one is to come.
        height: pixels.
    """
    figure = empty_figure(height, None if entries else "No price yet")
    if not entries:
        return figure
    by_start = {start: sheet.tiers[0] for start, sheet in entries}
    starts = list(by_start)
    moments = [*starts, max(now, starts[-1] + (starts[-1] - starts[0]) / 20)]
    tiers = [*by_start.values(), by_start[starts[-1]]]
    for name, (label, colour) in _SERIES.items():
        amounts = [getattr(tier, name) for tier in tiers]
        if name == "cached_input" and amounts == [tier.input for tier in tiers]:
            continue  # no price of its own
        figure.add_scatter(
            name=label,
            x=moments,
            y=[amount / NANO for amount in amounts],
            mode="lines+markers",
            line={"shape": "hv", "color": colour, "width": 2},
            marker={"size": [7] * len(starts) + [0], "color": colour},
            text=[f"{label} {show_usd(amount)}" for amount in amounts],
            hovertemplate="%{text}<extra></extra>",
        )
    if starts[-1] > now:
        figure.add_vline(x=now, line={"color": INK, "width": 1, "dash": "dot"})
        figure.add_annotation(x=now, y=1, yref="paper", text="now", showarrow=False, yanchor="bottom", font_color=INK)
        figure.update_layout(margin_t=24)
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(type="date", hoverformat="%d %b %Y, %H:%M UTC", showgrid=False, nticks=4, tickangle=0)
    figure.update_yaxes(tickprefix="$", separatethousands=True, rangemode="tozero")
    return figure
