"""Charts: tables of `reports` in, Plotly figures out. No queries, and no arithmetic but what a picture needs.

Money is drawn in USD at the precision of a picture, cents or finer in the hover text. In Streamlit pass
`theme=None`, so that these figures keep their own look.
"""

from decimal import Decimal
from functools import cache

import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio

from toolkit.core.money import show_usd

PALETTE = ("#3F63B5", "#F0B454", "#609078", "#843C78", "#54B4F0", "#843C30", "#84D890", "#847818")
"""Colours of series, the dashboard's accent first. Any two, and `OTHER`, differ by a CIE76 ΔE of 16 or more to
normal sight and to all three kinds of dichromats (Machado, Oliveira and Fernandes 2009)."""

OTHER = "#B4BCC8"
"""Colour of what is summed up under "others"."""

INK = "#5B6677"
"""Colour of text: readable on white, and just so on a dark background."""

ON_DARK = dict(
    zip(
        (*PALETTE, INK),
        ("#3872D6", "#F0B454", "#459D72", "#AB44A4", "#54B4F0", "#C8524A", "#84D890", "#FAF971", "#A3B0BB"),
        strict=True,
    )
)
"""What stands for each on a dark background: as far apart, and with a contrast of 3 or more (WCAG 2.2, 1.4.11)."""

_PALE = "rgba(63, 99, 181, 0.28)"  # the accent, for what would not have happened
_GRID = "rgba(140, 150, 165, 0.22)"
_TIMES = {"hour": "%a %d %b, %H:00", "day": "%a %d %b %Y", "week": "Week of %a %d %b %Y", "month": "%B %Y"}
_MONEY = {"cost", "saved", "surcharge", "net", "per_call", "per_thousand_output"}
_EFFECTS = {"volume": PALETTE[0], "mix": PALETTE[1], "price": PALETTE[3], "multiplier": PALETTE[2]}


def spend_over_time(df: pd.DataFrame, by: str = "key", *, height: int = 320) -> go.Figure:
    """Draw spend as stacked bars, one for each hour, day, week or month.

    Args:
        df: `reports.spend.table` by a time and one other dimension.
        by: that other dimension; the largest eight are told apart, the rest summed up.
        height: pixels.
    """
    time = next(name for name in _TIMES if name in df.columns)
    figure = empty_figure(height, "No spend in this period" if df.empty else None)
    labels, order = _largest(_labels(df, by), df["cost"])
    moments = pd.to_datetime(df[time])
    for label, colour in order:
        mine = labels == label
        costs = df["cost"][mine].groupby(moments[mine]).sum()
        figure.add_bar(
            name=label,
            x=costs.index,
            y=dollars(costs),
            customdata=_worded(costs, "cost"),
            marker_color=colour,
            hovertemplate="%{customdata}",
        )
    figure.update_layout(barmode="stack", hovermode="x unified", showlegend=len(order) > 1)
    figure.update_xaxes(type="date", hoverformat=_TIMES[time], showgrid=False, nticks=10)
    figure.update_yaxes(tickprefix="$", separatethousands=True, rangemode="tozero")
    if time == "month":
        figure.update_xaxes(dtick="M1", tickformat="%b %Y")
    if time == "week" and not df.empty:  # at Mondays, where the bars are
        weeks = (moments.max() - moments.min()).days // 7 + 1
        figure.update_xaxes(tick0=moments.min(), dtick=7 * 86_400_000 * -(-weeks // 10), tickformat="%d %b")
    return figure


def top_bars(df: pd.DataFrame, label: str, value: str = "cost", *, limit: int = 8, height: int = 320) -> go.Figure:
    """Draw the largest rows as horizontal bars, the largest on top.

    Args:
        df: any table with the two columns; rows of the same label are summed, those without a value left out.
        label: column that names the bars; "key" tells keys of the same name apart.
        value: column of whole numbers or Decimals; `cost`, `saved`, `net` and the like are money in nano-USD.
        limit: most bars.
        height: pixels.
    """
    df = df[df[value].notna()]
    figure = empty_figure(height, "Nothing in this period" if df.empty else None)
    sums = df[value].groupby(_labels(df, label)).sum().sort_values(ascending=False, kind="stable").head(limit)[::-1]
    lengths = dollars(sums) if value in _MONEY else [float(number) for number in sums]
    figure.add_bar(
        orientation="h",
        y=sums.index,
        x=lengths,
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
    longest = max(lengths, default=1) or 1
    figure.update_xaxes(visible=False, range=[0, longest * 1.22])
    return figure


def refusals_chart(df: pd.DataFrame, *, height: int = 320) -> go.Figure:
    """Draw how often calls were refused for each reason, by key.

    Args:
        df: `reports.refusals.table`.
        height: pixels.
    """
    figure = empty_figure(height, "No refusals in this period" if df.empty else None)
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


def limit_use(df: pd.DataFrame, *, height: int = 320) -> go.Figure:
    """Draw how much of their monthly limits keys have used, day by day: the eight that have used most of theirs.

    Args:
        df: `attribution.cumulative`; keys without a limit are left out.
        height: pixels.
    """
    df = df[df["monthly_limit"].fillna(0) > 0]
    figure = empty_figure(height, "No key with a limit was used in this period" if df.empty else None)
    limits = zip(df["spent"], df["monthly_limit"], strict=True)
    df = df.assign(used=[float(Decimal(int(spent)) / int(limit)) for spent, limit in limits])
    labels = _labels(df, "key")
    used = df["used"].groupby(labels).max().sort_values(ascending=False, kind="stable")
    for label, colour in _colours(list(used.index[: len(PALETTE)]), sorted(used.index)).items():
        mine = df[labels == label]
        amounts = zip(mine["spent"], mine["monthly_limit"], strict=True)
        figure.add_scatter(
            name=label,
            x=pd.to_datetime(mine["day"]),
            y=mine["used"].tolist(),
            mode="lines",
            line={"color": colour, "width": 2.5},
            customdata=[f"{show_usd(int(spent))} of {show_usd(int(limit))}" for spent, limit in amounts],
            hovertemplate="%{y:.0%} · %{customdata}",
        )
    if not df.empty:
        figure.add_hline(1, line={"color": INK, "width": 1.5, "dash": "dot"})
        at_the_line = {"x": 0, "xref": "paper", "xanchor": "left", "y": 1, "yanchor": "bottom"}
        figure.add_annotation(text="limit", font={"size": 12}, showarrow=False, **at_the_line)
        figure.update_yaxes(range=[0, max(1.12, used.max() * 1.06)])
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(type="date", hoverformat=_TIMES["day"], showgrid=False, nticks=10, tickformat="%d %b")
    figure.update_yaxes(tickformat=".0%", nticks=7)
    return figure


def effects_bridge(df: pd.DataFrame, *, height: int = 320) -> go.Figure:
    """Draw what led from the spend of one period to that of another: before, each effect, after.

    Args:
        df: `attribution.movers`, all of it or some rows.
        height: pixels.
    """
    figure = empty_figure(height, "Nothing in these periods" if df.empty else None)
    if df.empty:
        return figure
    sums = {name: int(df[name].sum()) for name in ("before", *_EFFECTS, "after")}
    starts, ends, reached = [], [], 0
    for name, amount in sums.items():
        starts.append(0 if name == "after" else reached)
        reached = starts[-1] + amount
        ends.append(reached)
    words = [_signed(amount) if name in _EFFECTS else show_usd(amount) for name, amount in sums.items()]
    lows, highs = (dollars(pd.Series([pick(pair) for pair in zip(starts, ends, strict=True)])) for pick in (min, max))
    figure.add_bar(
        x=[name.capitalize() for name in sums],
        y=dollars(pd.Series(sums)),
        base=dollars(pd.Series(starts)),
        marker={"color": [_EFFECTS.get(name, OTHER) for name in sums], "cornerradius": 0},
        customdata=words,
        hovertemplate="%{x}: %{customdata}<extra></extra>",
    )
    for place, (word, high) in enumerate(zip(words, highs, strict=True)):
        figure.add_annotation(text=word, x=place, y=high, yanchor="bottom", showarrow=False)
    for place, level in enumerate(dollars(pd.Series(ends[:-1]))):
        start = place + (0.32 if starts[place] != ends[place] else -0.32)  # an effect of nothing has no bar
        line = {"color": INK, "width": 1}
        figure.add_shape(type="line", x0=start, x1=place + 0.68, y0=level, y1=level, line=line)
    figure.update_layout(hovermode="closest", bargap=0.36, showlegend=False)
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(tickformat="$,", nticks=6, range=[min(0, *lows), max(highs) * 1.12 or 1])
    return figure


def mover_bars(df: pd.DataFrame, label: str = "key", *, limit: int = 8, height: int = 320) -> go.Figure:
    """Draw whose spend moved most, each bar made of its effects; the number is the difference.

    Args:
        df: `attribution.movers` by that dimension.
        label: column that names the bars; "key" tells keys of the same name apart.
        limit: most bars.
        height: pixels.
    """
    figure = empty_figure(height, "Nothing in these periods" if df.empty else None)
    top = df.head(limit)[::-1]
    names = _labels(df, label)[top.index]
    for effect, colour in _EFFECTS.items():
        figure.add_bar(
            orientation="h",
            name=effect,
            y=names,
            x=dollars(top[effect]),
            customdata=[_signed(int(amount)) for amount in top[effect]],
            marker={"color": colour, "cornerradius": 0},
            hovertemplate=f"%{{y}}, {effect}: %{{customdata}}<extra></extra>",
        )
    _write_at_ends(figure, names, top[list(_EFFECTS)].clip(lower=0).sum(axis=1), top["difference"])
    figure.update_layout(barmode="relative", hovermode="closest", bargap=0.42, showlegend=not df.empty)
    figure.update_yaxes(type="category", showgrid=False, ticksuffix="  ")
    figure.update_xaxes(tickformat="$,", zeroline=True, zerolinecolor=INK, nticks=7)
    return figure


def replay_bars(df: pd.DataFrame, label: str = "key", *, limit: int = 8, height: int = 360) -> go.Figure:
    """Draw what each row cost and what it would have cost; pale is what would have been refused.

    Args:
        df: `whatif.Replay.spend` by that dimension.
        label: column that names the bars; "key" tells keys of the same name apart.
        limit: most rows.
        height: pixels.
    """
    figure = empty_figure(height, "Nothing in this period" if df.empty else None)
    top = df.head(limit)[::-1]
    names = _labels(df, label)[top.index]
    nothing = pd.Series(0, top.index)
    bars = [
        ("would have been refused", "refused", top["replayed"], _PALE),
        ("would have cost", "replayed", nothing, PALETTE[0]),
        ("as charged", "cost", nothing, OTHER),
    ]
    for name, column, base, colour in bars:
        figure.add_bar(
            orientation="h",
            name=name,
            y=names,
            x=dollars(top[column]),
            base=dollars(base),
            offsetgroup="charged" if column == "cost" else "replayed",
            marker={"color": colour, "cornerradius": 0},
            customdata=[show_usd(int(amount)) for amount in top[column]],
            hovertemplate=f"%{{y}}, {name}: %{{customdata}}<extra></extra>",
        )
    _write_at_ends(figure, names, top[["cost", "repriced"]].max(axis=1), top["difference"])
    figure.update_layout(barmode="group", hovermode="closest", bargap=0.34, bargroupgap=0.06, showlegend=not df.empty)
    figure.update_layout(legend_traceorder="reversed")
    figure.update_yaxes(type="category", showgrid=False, ticksuffix="  ")
    figure.update_xaxes(tickformat="$,", rangemode="tozero", nticks=7)
    return figure


def _write_at_ends(figure: go.Figure, names: pd.Series, ends: pd.Series, differences: pd.Series) -> None:
    """Write the differences behind horizontal bars."""
    for name, end, difference in zip(names, dollars(ends), differences, strict=True):
        text = _signed(int(difference))
        figure.add_annotation(text=text, x=end, y=name, xanchor="left", xshift=6, showarrow=False)


def _labels(df: pd.DataFrame, by: str) -> pd.Series:
    """Return the label of each row: a column's text; for keys their name, with the organisation where names repeat."""
    if by != "key" or "key_id" not in df.columns:
        return df[by].astype(str).map(escaped)
    named = df["key_label"] if "key_label" in df.columns else df["key"]
    keys = pd.DataFrame({"id": df["key_id"], "label": named, "org": df["org"]}).drop_duplicates("id").set_index("id")
    for more in (keys["org"], keys.index.to_series().str[-4:]):
        repeated = keys["label"].duplicated(keep=False)
        keys["label"] = keys["label"].where(~repeated, keys["label"] + " · " + more)
    return df["key_id"].map(keys["label"].map(escaped))


def _largest(labels: pd.Series, values: pd.Series) -> tuple[pd.Series, list[tuple[str, str]]]:
    """Return labels of which at most eight are told apart, and their order and colours, the largest first."""
    sums = values.groupby(labels).sum().sort_values(ascending=False, kind="stable")
    kept, rest = list(sums.index[: len(PALETTE)]), list(sums.index[len(PALETTE) :])
    colours = _colours(kept, sorted(sums.index))
    order = [(label, colours[label]) for label in kept]
    if rest:
        others = rest[0] if len(rest) == 1 else f"{len(rest)} others"
        labels = labels.where(labels.isin(kept), others)
        order.append((others, OTHER))
    return labels, order


def _colours(kept: list[str], alphabet: list[str]) -> dict[str, str]:
    """Return the colours of at most eight labels: by place in the alphabet of all, so that each keeps its own."""
    colours: dict[str, str] = {}
    for place, label in enumerate(alphabet):
        if label in kept:
            free = [colour for colour in PALETTE if colour not in colours.values()]
            own = PALETTE[place % len(PALETTE)]
            colours[label] = own if own in free else free[0]
    return colours


def dollars(nano: "pd.Series[int]") -> list[float]:
    """Return amounts as heights and lengths of a picture: the nearest float to the exact number of USD."""
    return [float(Decimal(int(amount)).scaleb(-9)) for amount in nano]


def _worded(values: "pd.Series[int]", column: str) -> list[str]:
    return [show_usd(int(value)) if column in _MONEY else f"{value:,}" for value in values]


def _signed(nano: int) -> str:
    """Return a difference for people: "+$1.20", "−$0.30", "$0.00"."""
    return f"{'+' if nano > 0 else '−' if nano < 0 else ''}{show_usd(abs(nano))}"


def escaped(text: str) -> str:
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
            # Upright, where it covers no bar; its own background would be a dark one behind a clear figure's.
            "modebar": {"orientation": "v", "bgcolor": "rgba(0,0,0,0)"},
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


def empty_figure(height: int, instead: str | None) -> go.Figure:
    """Return an empty figure in the product's look; with a sentence in its middle when there is nothing to draw."""
    figure = go.Figure(layout={"template": _template(), "height": height})
    if instead is not None:
        figure.add_annotation(text=instead, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
    return figure


def on_dark(figure: go.Figure) -> go.Figure:
    """Return a figure of this package in the colours for a dark background."""
    drawn = str(figure.to_json())
    for light, dark in ON_DARK.items():
        drawn = drawn.replace(f'"{light}"', f'"{dark}"')
    return pio.from_json(drawn)
