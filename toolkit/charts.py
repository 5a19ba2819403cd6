"""Charts: tables of `reports` in, Plotly figures out. No queries, and no arithmetic but what a picture needs.

Money is drawn in USD at the precision of a picture, cents or finer in the hover text. In Streamlit pass
`theme=None`, so that these figures keep their own look.
"""

from decimal import Decimal
from functools import cache

import pandas as pd
import plotly.graph_objects as go

from toolkit.pricing import show_usd

PALETTE = ("#3F63B5", "#F0B454", "#609078", "#843C78", "#54B4F0", "#843C30", "#84D890", "#847818")
"""Colours of series, the dashboard's accent first. Any two, and `OTHER`, differ by a CIE76 ΔE of 16 or more to
normal sight and to all three kinds of dichromats (Machado, Oliveira and Fernandes 2009)."""

OTHER = "#B4BCC8"
"""Colour of what is summed up under "others"."""

INK = "#5B6677"
"""Colour of text: readable on white and on a dark background."""

_GRID = "rgba(140, 150, 165, 0.22)"
_TIMES = {"hour": ("%a %d %b, %H:00", "hour"), "day": ("%a %d %b %Y", "day"), "month": ("%B %Y", "month")}


def spend_over_time(df: pd.DataFrame, by: str = "key", *, height: int = 320) -> go.Figure:
    """Draw spend as stacked bars, one for each hour, day or month.

    Args:
        df: `reports.spend` by a time and one other dimension.
        by: that other dimension; the largest eight are told apart, the rest summed up.
        height: pixels.
    """
    time = next(name for name in _TIMES if name in df.columns)
    figure = _figure(height, "No spend in this period" if df.empty else None)
    labels, order = _largest(_labels(df, by), df["cost"])
    moments = pd.to_datetime(df[time])
    for label, colour in order:
        mine = labels == label
        costs = df["cost"][mine].groupby(moments[mine]).sum()
        figure.add_bar(
            name=label,
            x=costs.index,
            y=_dollars(costs),
            customdata=_worded(costs, "cost"),
            marker_color=colour,
            hovertemplate="%{customdata}",
        )
    figure.update_layout(barmode="stack", hovermode="x unified", showlegend=len(order) > 1)
    figure.update_xaxes(type="date", hoverformat=_TIMES[time][0], showgrid=False, nticks=10)
    figure.update_yaxes(tickprefix="$", separatethousands=True, rangemode="tozero")
    if time == "month":
        figure.update_xaxes(dtick="M1", tickformat="%b %Y")
    return figure


def top_bars(df: pd.DataFrame, label: str, value: str = "cost", *, limit: int = 8, height: int = 320) -> go.Figure:
    """Draw the largest rows as horizontal bars, the largest on top.

    Args:
        df: any table with the two columns; rows of the same label are summed.
        label: column that names the bars; "key" tells keys of the same name apart.
        value: column of whole numbers; `cost` is money in nano-USD.
        limit: most bars.
        height: pixels.
    """
    figure = _figure(height, "Nothing in this period" if df.empty else None)
    sums = df[value].groupby(_labels(df, label)).sum().sort_values(ascending=False, kind="stable").head(limit)[::-1]
    money = value == "cost"
    figure.add_bar(
        orientation="h",
        y=sums.index,
        x=_dollars(sums) if money else sums.tolist(),
        text=_worded(sums, value),
        textposition="outside",
        cliponaxis=False,
        customdata=_worded(sums, value),
        marker_color=PALETTE[0],
        hovertemplate="%{y}: %{customdata}<extra></extra>",
    )
    figure.update_layout(hovermode="closest", bargap=0.38)
    figure.update_yaxes(type="category", ticks="", showgrid=False, automargin=True, ticksuffix="  ")
    # The numbers stand at the bars; room on the right for the longest of them.
    longest = max(_dollars(sums) if money else sums.tolist(), default=1) or 1
    figure.update_xaxes(visible=False, range=[0, longest * 1.22])
    return figure


def refusals_chart(df: pd.DataFrame, *, height: int = 320) -> go.Figure:
    """Draw how often calls were refused for each reason, by key.

    Args:
        df: `reports.refusals`.
        height: pixels.
    """
    figure = _figure(height, "No refusals in this period" if df.empty else None)
    labels, order = _largest(_labels(df, "key"), df["calls"])
    for label, colour in order:
        mine = labels == label
        calls = df["calls"][mine].groupby(df["refusal"][mine]).sum()
        figure.add_bar(
            orientation="h",
            name=label,
            y=calls.index,
            x=calls.tolist(),
            marker_color=colour,
            hovertemplate=f"%{{y}}, {label}: %{{x:,}}<extra></extra>",
        )
    figure.update_layout(barmode="stack", hovermode="closest", bargap=0.38, showlegend=len(order) > 1)
    figure.update_yaxes(type="category", categoryorder="total ascending", showgrid=False, ticksuffix="  ")
    figure.update_xaxes(separatethousands=True, rangemode="tozero", nticks=6)
    return figure


def _labels(df: pd.DataFrame, by: str) -> pd.Series:
    """Return the label of each row: a column's text; for keys their name, with the organisation where names repeat."""
    if by != "key" or "key_id" not in df.columns:
        return df[by].astype(str).map(_escaped)
    named = df["key_label"] if "key_label" in df.columns else df["key"]
    keys = pd.DataFrame({"id": df["key_id"], "label": named, "org": df["org"]}).drop_duplicates("id").set_index("id")
    for more in (keys["org"], keys.index.to_series().str[-4:]):
        repeated = keys["label"].duplicated(keep=False)
        keys["label"] = keys["label"].where(~repeated, keys["label"] + " · " + more)
    return df["key_id"].map(keys["label"].map(_escaped))


def _largest(labels: pd.Series, values: pd.Series) -> tuple[pd.Series, list[tuple[str, str]]]:
    """Return labels of which at most eight are told apart, and their order and colours, the largest first.

    Colours go by place in the alphabet of all labels, so that a series keeps its own whoever costs most.
    """
    sums = values.groupby(labels).sum().sort_values(ascending=False, kind="stable")
    kept, rest = list(sums.index[: len(PALETTE)]), list(sums.index[len(PALETTE) :])
    colours: dict[str, str] = {}
    for place, label in enumerate(sorted(sums.index)):
        if label in kept:
            free = [colour for colour in PALETTE if colour not in colours.values()]
            own = PALETTE[place % len(PALETTE)]
            colours[label] = own if own in free else free[0]
    order = [(label, colours[label]) for label in kept]
    if rest:
        others = rest[0] if len(rest) == 1 else f"{len(rest)} others"
        labels = labels.where(labels.isin(kept), others)
        order.append((others, OTHER))
    return labels, order


def _dollars(nano: "pd.Series[int]") -> list[float]:
    """Return amounts as heights and lengths of a picture: the nearest float to the exact number of USD."""
    return [float(Decimal(int(amount)).scaleb(-9)) for amount in nano]


def _worded(values: "pd.Series[int]", column: str) -> list[str]:
    return [show_usd(int(value)) if column == "cost" else f"{value:,}" for value in values]


def _escaped(text: str) -> str:
    """Return text that Plotly takes neither for markup nor for a placeholder."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("%{", "%&#123;")


@cache
def _template() -> go.layout.Template:
    axis = {
        "gridcolor": _GRID,
        "linecolor": _GRID,
        "zeroline": False,
        "ticks": "",
        "title": {"text": ""},
        "automargin": True,
    }
    return go.layout.Template(
        layout={
            "font": {"family": "Inter, system-ui, -apple-system, Segoe UI, sans-serif", "size": 13, "color": INK},
            "colorway": PALETTE,
            "paper_bgcolor": "rgba(0, 0, 0, 0)",
            "plot_bgcolor": "rgba(0, 0, 0, 0)",
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            "legend": {
                "orientation": "h",
                "traceorder": "normal",
                "y": -0.12,
                "yanchor": "top",
                "x": 0,
                "title": {"text": ""},
            },
            "bargap": 0.25,
            "barcornerradius": 3,
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"font": {"size": 12}},
        }
    )


def _figure(height: int, instead: str | None) -> go.Figure:
    """Return an empty figure in the product's look; with a sentence in its middle when there is nothing to draw."""
    figure = go.Figure(layout={"template": _template(), "height": height})
    if instead is not None:
        figure.add_annotation(text=instead, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
    return figure
